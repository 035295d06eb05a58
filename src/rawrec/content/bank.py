"""The bank: one row per item and named columns, each at a stated boundary between raw media and recommender.

`hidden/<field>` (output of an encoder's frozen layers) and `feature/<field>` of a frozen encoder or ready-made never
change during a run. `feature/<field>` of a trained encoder and `content` (output of the fusion) are rewritten as items
pass through the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rawrec.data.ragged import Ragged


class Bank:
    """`items` rows of content `[items, dim]` with their age, beside the columns they are made from.

    content: float32, zero where the item has no media. written: int64 step of its last write, -1 = never.
    static: column name -> `Ragged` over the items (length 0 = missing). present: the same names -> `[items]` bool.
    valid: the item has at least one modality. features: field of a trained encoder -> `[items, width]` float32, what
    the encoder last made of the item. encoded: int64 step of that, -1 = never.

    dim 0: the recommender reads features, there is no content, and drift is that of the features.
    """

    def __init__(
        self,
        items: int,
        dim: int,
        static: dict[str, Ragged],
        features: dict[str, int] | None = None,
        device: torch.device | str = "cpu",
    ):
        self.static = static
        self.content = torch.zeros(items, dim, device=device)
        self.written = torch.full((items,), -1, dtype=torch.int64, device=device)
        self.features = {name: torch.zeros(items, width, device=device) for name, width in (features or {}).items()}
        self.encoded = torch.full((items,), -1, dtype=torch.int64, device=device)
        self.present = {name: (column.lengths > 0).to(device) for name, column in static.items()}
        self.valid = torch.zeros(items, dtype=torch.bool, device=device)
        for present in self.present.values():
            self.valid |= present
        self._gathered = self.content.new_empty(0, dim)
        self._position = torch.full((items,), -1, dtype=torch.int64, device=device)
        self._drift = torch.zeros(2, dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return len(self.content)

    def read(self, column: str, rows: Tensor) -> Ragged:
        """Rows of a static column, for the encoders above it. rows: `[n]` int64 on any device."""
        return self.static[column].select(rows.cpu())

    def gather(self, rows: Tensor) -> Tensor:
        """Content of item rows, `[*rows.shape, dim]` (-1 reads row 0), in memory that the next call overwrites.

        A long history's content is large, and to map fresh memory for it at every step takes longer than to read it.
        """
        width = self.content.shape[1]
        if self._gathered.shape != (rows.numel(), width):
            self._gathered = self.content.new_empty(rows.numel(), width)
        torch.index_select(self.content, 0, rows.flatten().clamp(min=0), out=self._gathered)
        return self._gathered.view(*rows.shape, width)

    def write(self, rows: Tensor, content: Tensor, step: int) -> None:
        """Overwrite `rows` (`[n]`, unique) with detached `content` `[n, dim]`, made at `step`; their drift is noted."""
        if not len(rows):
            return
        content = content.detach().to(self.content.dtype)
        self._note_drift(self.content[rows], content, self.written[rows] >= 0)
        self.content[rows] = content
        self.written[rows] = step

    def write_features(self, rows: Tensor, features: dict[str, Tensor], step: int) -> None:
        """Overwrite what the trained encoders made of `rows` (`[n]`, unique): field -> detached `[n, width]`."""
        for name, values in features.items():
            values = values.detach().float()
            if not self.content.shape[1]:
                known = (self.encoded[rows] >= 0) & self.present[f"hidden/{name}"][rows]
                self._note_drift(self.features[name][rows], values, known)
            self.features[name][rows] = values
        self.encoded[rows] = step

    def _note_drift(self, old: Tensor, new: Tensor, known: Tensor) -> None:
        """old, new: `[n, width]`; known: bool `[n]`, the old values were written before."""
        cosine = torch.nn.functional.cosine_similarity(old, new, dim=1)
        self._drift += torch.stack([((1 - cosine) * known).sum(), known.sum()]).double()

    @property
    def made(self) -> Tensor:
        """The step as of which each row is, `[items]`: of its encoding where encoders learn, else of its write."""
        return self.encoded if self.features else self.written

    def locate(self, live: Tensor, *wanted: Tensor) -> list[Tensor]:
        """For each tensor of item rows (any shape, -1 = padding): the position of the row in `live`, or -1."""
        self._position[live] = torch.arange(len(live), device=live.device)
        found = [self._position[w.clamp(min=0)].masked_fill(w < 0, -1) for w in wanted]
        self._position[live] = -1
        return found

    def stale(self, rows: Tensor | None, step: int) -> Tensor:
        """The rows with media (among `rows`, or all) that were made before `step`."""
        old = self.valid & (self.made < step)
        if rows is None:
            return old.nonzero()[:, 0]
        return torch.unique(rows[(rows >= 0) & old[rows.clamp(min=0)]])

    def stalest(self, rows: Tensor, count: int | None, generator: torch.Generator) -> Tensor:
        """At most `count` (None: all) of `rows` (unique), those encoded longest ago, ties at random; ascending."""
        if count is None or len(rows) <= count:
            return rows
        shuffled = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        return shuffled[torch.argsort(self.encoded[shuffled], stable=True)[:count]].sort().values

    def health(self, step: int) -> dict[str, float | None]:
        """Coverage (share of items with media ever made), age in steps (mean, p95), mean cosine drift since last."""
        written = self.valid & (self.made >= 0)
        ages = (step - self.made[written]).double().sort().values
        total, count = self._drift.tolist()
        self._drift.zero_()
        return {
            "bank/coverage": float(written.sum() / self.valid.sum().clamp(min=1)),
            "bank/age_mean": float(ages.mean()) if len(ages) else None,
            "bank/age_p95": float(ages[int(0.95 * (len(ages) - 1))]) if len(ages) else None,
            "bank/drift": total / count if count else None,
        }

    def publish(self, content: Tensor, step: int) -> None:
        """All content as of `step`, as a finished run serves it; the features of trained encoders are forgotten."""
        self.content.copy_(content)
        self.features = {}
        self.written.copy_(torch.where(self.valid, step, -1))
        self.encoded.copy_(self.written)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of the bank."""
        features = {f"feature/{name}": values for name, values in self.features.items()}
        ages = {"written": self.written, "encoded": self.encoded}
        return {"content": self.content, **ages, **features, "drift": self._drift}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, values in self.state().items():
            values.copy_(state[name])


class BankView(Bank):
    """What evaluation and publishing read: a bank's rows, and in their place those that are made anew.

    The bank itself stays as training left it, so that what is evaluated, and how often, changes nothing that is
    trained. Features are kept where they are read, that is, where the bank holds no content.
    """

    def __init__(self, bank: Bank):
        self.static, self.present, self.valid = bank.static, bank.present, bank.valid
        self.content, self.written, self.encoded = bank.content.clone(), bank.written.clone(), bank.encoded.clone()
        self._keeps = not bank.content.shape[1]
        self.features = {k: v.clone() for k, v in bank.features.items()} if self._keeps else bank.features
        self._gathered, self._position = bank._gathered, bank._position
        self._drift = torch.zeros_like(bank._drift)

    def write_features(self, rows: Tensor, features: dict[str, Tensor], step: int) -> None:
        if self._keeps:
            super().write_features(rows, features, step)
        else:
            self.encoded[rows] = step
