"""How a bank is: its coverage, its rows' age and drift, and how like they are to fresh ones, in all and by bucket."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Figures = dict[str, float | None]


class Health:
    """Sums that a bank notes as rows are rewritten or compared, and what they come to. Keys are `bank/age_mean` and, of
    the items of a bucket, `bank/age_mean/<bucket>`."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.drift = torch.zeros(2, dtype=torch.float64, device=device)
        self.names: list[str] = []
        self._bucket: Tensor | None = None
        self.drift_in = self.cosine = torch.zeros(0, 2, dtype=torch.float64, device=device)

    def group(self, buckets: Mapping[str, Tensor]) -> None:
        """name -> bool `[items]`; each item is in one."""
        self.names = list(buckets)
        self._bucket = torch.stack([*buckets.values()]).long().argmax(0).to(self.drift.device)
        self.drift_in = self.drift.new_zeros(len(buckets), 2)
        self.cosine = self.drift.new_zeros(len(buckets), 2)

    def grow(self, items: int, bucket: str) -> None:
        """There are `items` now; those behind the others are in this bucket."""
        if self._bucket is not None:
            place = self.names.index(bucket)
            self._bucket = torch.cat([self._bucket, self._bucket.new_full((items - len(self._bucket),), place)])

    def note_drift(self, rows: Tensor, old: Tensor, new: Tensor, known: Tensor) -> None:
        """rows: `[n]`; old, new: `[n, width]`; known: bool `[n]`, the old values were written before."""
        cosine = torch.nn.functional.cosine_similarity(old, new, dim=1)
        self.drift += torch.stack([((1 - cosine) * known).sum(), known.sum()]).double()
        self._add(self.drift_in, rows, torch.stack([(1 - cosine) * known, known.to(cosine.dtype)], 1))

    def note_cosine(self, rows: Tensor, old: Tensor, new: Tensor) -> None:
        """rows: `[n]`, and their values as they stand and made anew, `[n, width]`."""
        cosine = torch.nn.functional.cosine_similarity(old, new, dim=1)
        self._add(self.cosine, rows, torch.stack([cosine, torch.ones_like(cosine)], 1))

    def _add(self, sums: Tensor, rows: Tensor, values: Tensor) -> None:
        if self._bucket is not None:
            sums.index_add_(0, self._bucket[rows], values.double())

    def told(self, valid: Tensor, made: Tensor, step: int) -> Figures:
        """Coverage (share of items with media ever made), age in steps (mean, p95), mean drift since the last call.

        valid: bool `[items]`, with media; made: int64 `[items]`, the step that each row is of, -1 = never.
        """
        found = _ages(valid, made, step) | {"bank/drift": _mean(*self.drift.tolist())}
        for k, (name, sums) in enumerate(zip(self.names, self.drift_in.tolist(), strict=True)):
            own = _ages(valid & (self._bucket == k), made, step) | {"bank/drift": _mean(*sums)}
            found |= {f"{key}/{name}": value for key, value in own.items()}
        self.drift.zero_()
        self.drift_in.zero_()
        return found

    def told_cosine(self) -> Figures:
        """The mean cosine with fresh rows since the last call."""
        found = {"bank/cosine": _mean(*self.cosine.sum(0).tolist())} if self.names else {}
        for name, sums in zip(self.names, self.cosine.tolist(), strict=True):
            found[f"bank/cosine/{name}"] = _mean(*sums)
        self.cosine.zero_()
        return found

    def by_bucket(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside `drift`; those of earlier versions lack it."""
        return {"drift.buckets": self.drift_in} if self.names else {}


def _ages(valid: Tensor, made: Tensor, step: int) -> Figures:
    written, there = valid & (made >= 0), int(valid.sum())
    ages = (step - made[written]).double().sort().values
    return {
        "bank/coverage": float(written.sum() / there) if there else None,
        "bank/age_mean": float(ages.mean()) if len(ages) else None,
        "bank/age_p95": float(ages[int(0.95 * (len(ages) - 1))]) if len(ages) else None,
    }


def _mean(total: float, count: float) -> float | None:
    return total / count if count else None
