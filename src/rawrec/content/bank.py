"""The bank: one row per item and named columns, each at a stated boundary between raw media and recommender.

`hidden/<field>` (output of an encoder's frozen layers) and `feature/<field>` of a frozen encoder or ready-made never
change during a run. `feature/<field>` of a trained encoder and `content` (output of the fusion) are rewritten as items
pass through the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rawrec.content.health import Health
from rawrec.content.overlay import Overlay
from rawrec.content.slots import Slots
from rawrec.content.stalest import Stalest
from rawrec.content.store import Kind, Store
from rawrec.data.ragged import Ragged


class Keeping(NamedTuple):
    """How a bank keeps its rows. kind: of their numbers. capacity: so many rows, those of the items that were used
    last; None: one for each item. momentum: the share of a row that stays when it is rewritten."""

    kind: Kind = "float32"
    capacity: int | None = None
    momentum: float = 0.0


class Bank:
    """`items` rows of content `[items, dim]` with their age, beside the columns they are made from.

    content: zero where the item has no media. written: int64 step of its last write, -1 = never.
    static: column name -> `Ragged` over the items (length 0 = missing). present: the same names -> `[items]` bool.
    valid: the item has at least one modality. features: field of a trained encoder -> `[items, width]`, what
    the encoder last made of the item. encoded: int64 step of that, -1 = never.

    dim 0: the recommender reads features, there is no content, and drift is that of the features.

    With a capacity below the number of items, content and features are of the items that hold a row alone; when another
    needs it, the item that was used longest ago loses its row, and is then as one that was never written.
    """

    def __init__(
        self,
        items: int,
        dim: int,
        static: dict[str, Ragged],
        features: dict[str, int] | None = None,
        device: torch.device | str = "cpu",
        keeping: Keeping = Keeping(),
    ):
        self.static: dict[str, Ragged | Overlay] = {**static}
        self.keeping = keeping
        held = items if keeping.capacity is None else min(keeping.capacity, items)
        self.slots = Slots(items, held, device) if held < items else None
        self._content = Store(held, dim, keeping.kind, device)
        self._features = {name: Store(held, width, keeping.kind, device) for name, width in (features or {}).items()}
        self.written = torch.full((items,), -1, dtype=torch.int64, device=device)
        self.encoded = torch.full((items,), -1, dtype=torch.int64, device=device)
        self.present = {name: (column.lengths > 0).to(device) for name, column in static.items()}
        self.valid = torch.zeros(items, dtype=torch.bool, device=device)
        for present in self.present.values():
            self.valid |= present
        self._gathered = torch.empty(0, dim, device=device)
        self._position = torch.full((items,), -1, dtype=torch.int64, device=device)
        self._stalest: Stalest | None = None
        self._health = Health(device)

    def __len__(self) -> int:
        return len(self.written)

    @property
    def device(self) -> torch.device:
        return self.written.device

    @property
    def width(self) -> int:
        """Of content."""
        return self._content.width

    @property
    def content(self) -> Tensor:
        """Of all items, `[items, dim]` float32: the bank's own tensor where it is kept so, else one made for this."""
        if self.slots is None:
            return self._content.dense()
        found = torch.zeros(len(self), self.width, device=self.device)
        held = (self.written >= 0).nonzero()[:, 0]
        found[held] = self.rows(held)
        return found

    @property
    def features(self) -> dict[str, Tensor]:
        """The same of what trained encoders made, of a bank with a row for each item."""
        assert self.slots is None
        return {name: store.dense() for name, store in self._features.items()}

    def read(self, column: str, rows: Tensor) -> Ragged:
        """Rows of a static column, for the encoders above it. rows: `[n]` int64 on any device."""
        return self.static[column].select(rows.cpu())

    def rows(self, rows: Tensor) -> Tensor:
        """Content of item rows, `[*rows.shape, dim]` float32, in memory of its own; zeros of what was never written."""
        if self.slots is None:
            return self._content.rows(rows)
        return self._content.rows(self.slots.of[rows].clamp(min=0)) * (self.written[rows] >= 0)[..., None]

    def feature_rows(self, name: str, rows: Tensor) -> Tensor:
        """What a trained encoder last made of item rows `[n]`, `[n, width]` float32, in memory of its own."""
        store = self._features[name]
        if self.slots is None:
            return store.rows(rows)
        return store.rows(self.slots.of[rows].clamp(min=0)) * (self.encoded[rows] >= 0)[:, None]

    def gather(self, rows: Tensor) -> Tensor:
        """Content of item rows, `[*rows.shape, dim]` (-1 reads row 0), in memory that the next call overwrites.

        A long history's content is large, and to map fresh memory for it at every step takes longer than to read it.
        """
        if self.slots is not None or self._content.kind != "float32":
            return self.rows(rows.clamp(min=0))
        if self._gathered.shape != (rows.numel(), self.width):
            self._gathered = self._content.values.new_empty(rows.numel(), self.width)
        torch.index_select(self._content.values, 0, rows.flatten().clamp(min=0), out=self._gathered)
        return self._gathered.view(*rows.shape, self.width)

    def touch(self, rows: Tensor, step: int) -> None:
        """Item rows of any shape (-1 = none) are read in `step`: they are the last to lose their place."""
        if self.slots is not None:
            self.slots.touch(rows, step)

    def _places(self, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Which of `rows` `[n]` can be written, as places in `rows` (all, or the last of them where they are more than
        the bank holds), and where to: their rows in the stores."""
        keep = torch.arange(len(rows), device=rows.device)
        if self.slots is None:
            return keep, rows
        keep = keep[max(len(rows) - self.slots.capacity, 0) :]
        lost = self.slots.take(rows[keep], step)
        self.written[lost] = self.encoded[lost] = -1
        return keep, self.slots.of[rows[keep]]

    def write(self, rows: Tensor, content: Tensor, step: int) -> None:
        """Overwrite `rows` (`[n]`, unique) with detached `content` `[n, dim]`, made at `step`; their drift is noted."""
        if not len(rows):
            return
        content = content.detach().float()
        keep, at = self._places(rows, step)
        if self.slots is not None:
            rows, content = rows[keep], content[keep]
        old, known = self._content.rows(at), self.written[rows] >= 0
        self._health.note_drift(rows, old, content, known)
        if self.keeping.momentum:
            content = torch.where(known[:, None], torch.lerp(content, old, self.keeping.momentum), content)
        self._content.write(at, content)
        self.written[rows] = step

    def write_features(self, rows: Tensor, features: dict[str, Tensor], step: int) -> None:
        """Overwrite what the trained encoders made of `rows` (`[n]`, unique): field -> detached `[n, width]`."""
        keep, at = self._places(rows, step)
        for name, values in features.items():
            values = values.detach().float()
            if self.slots is not None:
                values = values[keep]
            if not self.width:
                known = (self.encoded[rows] >= 0) & self.present[f"hidden/{name}"][rows]
                self._health.note_drift(rows, self._features[name].rows(at), values, known)
            self._features[name].write(at, values)
        self.encoded[rows[keep]] = step

    @property
    def made(self) -> Tensor:
        """The step as of which each row is, `[items]`: of its encoding where encoders learn, else of its write."""
        return self.encoded if self._features else self.written

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

    def oldest(self, count: int) -> Tensor:
        """At most `count` rows with media that were made longest ago; the next call goes on from there. With a
        capacity, of the items that hold a row."""
        if self._stalest is None:
            self._stalest = Stalest(len(self), self.device)
        return self._stalest.take(count, self.made, self._held)

    def all_rows(self) -> Tensor:
        """The rows with media, ascending; with a capacity, of the items that hold a row."""
        return self._held().nonzero()[:, 0]

    def _held(self) -> Tensor:
        return self.valid if self.slots is None else self.valid & (self.slots.of >= 0)

    # ----------------------------------------------------------------------------------------------------- more items
    def grow(self, items: int, bucket: str) -> None:
        """There are `items` rows now, those behind the others without media, in this bucket of the health."""
        if self.slots is not None:
            raise NotImplementedError("a bank with a capacity does not grow")
        more = items - len(self)
        self.static = {name: _overlaid(column) for name, column in self.static.items()}
        for name in ("written", "encoded", "_position"):
            values = getattr(self, name)
            setattr(self, name, torch.cat([values, values.new_full((more,), -1)]))
        self.valid = torch.cat([self.valid, self.valid.new_zeros(more)])
        self.present = {name: torch.cat([there, there.new_zeros(more)]) for name, there in self.present.items()}
        for store in (self._content, *self._features.values()):
            store.grow(items)
        self._stalest = None
        self._health.grow(items, bucket)

    def put(self, row: int, columns: dict[str, Tensor]) -> None:
        """Static columns of an item, new or changed: column -> its pieces `[pieces, ...]`, of a column that is not
        named those that are there. Its content is made anew, and never was until then."""
        for name, pieces in columns.items():
            column = self.static[name] = _overlaid(self.static[name])
            column.put(row, pieces)
            self.present[name][row] = len(pieces) > 0
        self.valid[row] = any(bool(there[row]) for there in self.present.values())
        self.written[row] = self.encoded[row] = -1
        if not self.valid[row]:
            self._content.values[row] = 0

    def put_state(self) -> dict[str, Tensor]:
        """What was put, for a checkpoint: `<column>/<what>`, and which items have each column."""
        found = {f"{name}/present": there for name, there in self.present.items()}
        for name, column in self.static.items():
            if isinstance(column, Overlay):
                found |= {f"{name}/{what}": values for what, values in column.state().items()}
        return found

    def load_put(self, state: dict[str, Tensor]) -> None:
        """The reverse of `put_state`, in a bank that has grown as large."""
        self.valid.zero_()
        for name, there in self.present.items():
            self.valid |= there.copy_(state[f"{name}/present"])
            own = {key: values for key, values in state.items() if key.rpartition("/")[0] == name}
            if f"{name}/rows" in own:
                column = self.static[name] = _overlaid(self.static[name])
                column.load_state({key.rpartition("/")[2]: values for key, values in own.items()})

    # --------------------------------------------------------------------------------------------------------- health
    def group(self, buckets: dict[str, Tensor]) -> None:
        """Tell the health of some items apart: name -> bool `[items]`; each item is in one."""
        self._health.group(buckets)

    def health(self, step: int) -> dict[str, float | None]:
        """Coverage (share of items with media ever made), age in steps (mean, p95), mean cosine drift since last."""
        return self._health.told(self.valid, self.made, step)

    def compare(self, view: Bank, rows: Tensor) -> None:
        """Note how like the rows `[n]` of this bank are to those that `view` has of the same items, made anew."""
        known = self.made[rows] >= 0
        rows = rows[known]
        if self.width:
            self._health.note_cosine(rows, self.rows(rows), view.rows(rows))
            return
        for name in self._features:
            there = rows[self.present[f"hidden/{name}"][rows]]
            self._health.note_cosine(there, self.feature_rows(name, there), view.feature_rows(name, there))

    def likeness(self) -> dict[str, float | None]:
        """The mean cosine of the rows that were compared since the last call."""
        return self._health.told_cosine()

    # ---------------------------------------------------------------------------------------------------------- state
    @property
    def exact(self) -> bool:
        """Whether a row that is written is, bit by bit, what is read of it, as long as it is not written again."""
        return self.slots is None and self._content.kind == "float32" and not self.keeping.momentum

    def publish(self, content: Tensor, step: int) -> None:
        """All content as of `step`, as a finished run serves it; the features of trained encoders are forgotten."""
        if not self.exact:
            self._content, self.slots = Store(len(self), self.width, "float32", self.device), None
        self._content.values.copy_(content)
        self._features = {}
        self.written.copy_(torch.where(self.valid, step, -1))
        self.encoded.copy_(self.written)

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the content as it stands: what `restore` puts back."""
        slots = {} if self.slots is None else {"slot": self.slots.of}
        parts = self._content.state("content") | {"written": self.written} | slots
        return {name: values.clone() for name, values in parts.items()}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        for name, values in (self._content.state("content") | {"written": self.written}).items():
            values.copy_(snapshot[name])
        if self.slots is not None:
            self.slots.of.copy_(snapshot["slot"])

    def state(self, health: bool = False) -> dict[str, Tensor]:
        """What must be held of the bank; health: with what is noted by bucket, for checkpoints."""
        found = self._content.state("content") | {"written": self.written, "encoded": self.encoded}
        for name, store in self._features.items():
            found |= store.state(f"feature/{name}")
        if self.slots is not None:
            found |= self.slots.state()
        if self._stalest is not None:
            found["stalest"] = self._stalest.queue
        return found | {"drift": self._health.drift} | (self._health.by_bucket() if health else {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        if "stalest" in state:
            self._stalest = Stalest(len(self), self.device)
        for name, values in self.state().items():
            values.copy_(state[name])
        for name, values in self._health.by_bucket().items():
            if name in state:  # checkpoints of earlier versions lack it
                values.copy_(state[name])


def _overlaid(column: Ragged | Overlay) -> Overlay:
    return column if isinstance(column, Overlay) else Overlay(column)


class BankView(Bank):
    """What evaluation and publishing read: a bank's rows, and in their place those that are made anew.

    The bank itself stays as training left it, so that what is evaluated, and how often, changes nothing that is
    trained. Features are kept where they are read, that is, where the bank holds no content.
    """

    def __init__(self, bank: Bank):
        self.static, self.present, self.valid = bank.static, bank.present, bank.valid
        self.keeping, self.slots = Keeping(), None
        self.written, self.encoded = bank.written.clone(), bank.encoded.clone()
        content = bank.content
        self._content = Store.of(content.clone() if content is bank._content.values else content)
        self._below, self._keeps, self._features = bank, not bank.width, bank._features
        if self._keeps:
            self._features = {name: Store.of(values.clone()) for name, values in bank.features.items()}
        self._gathered, self._position = bank._gathered, bank._position
        self._stalest, self._health = None, Health(bank.device)

    def feature_rows(self, name: str, rows: Tensor) -> Tensor:
        return super().feature_rows(name, rows) if self._keeps else self._below.feature_rows(name, rows)

    def write_features(self, rows: Tensor, features: dict[str, Tensor], step: int) -> None:
        if self._keeps:
            super().write_features(rows, features, step)
        else:
            self.encoded[rows] = step
