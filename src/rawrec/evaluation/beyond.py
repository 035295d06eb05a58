"""What lists are like beside their hits: how many items they reach, how evenly, how well known and how alike these are.

All of it is made of the lists' items `[users, depth]`, in time of users x depth: no users x users matrix, no items x
items matrix. docs/metrics.md has the equations and their sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

HEAD = 0.2
"""Share of the catalogue that the most popular items, which are no long tail, make up."""
AT_ONCE = 2**22
"""Numbers of summed content that are held at a time."""
COMMON = 0.5
"""An item in more than this share of the lists is told of."""
FEWEST_LISTS = 10
"""Fewer lists say nothing of what users have in common."""


@dataclass(frozen=True)
class Catalogue:
    """What the items of lists are judged by.

    popularity: `[n_items]` int64, the users with a training positive of each item. users: those with any. content:
    modality -> features `[n_items, width]` and `[n_items]` bool, the items that have it; none: lists have no diversity.
    """

    popularity: NDArray[np.int64]
    users: int
    content: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of_pairs(
        cls,
        users: NDArray,
        items: NDArray,
        n_items: int,
        content: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> Catalogue:
        """By the training positives, `[n]` each; a pair that comes twice counts once."""
        users, items = np.divmod(np.unique(users.astype(np.int64) * n_items + items), max(n_items, 1))
        return cls(np.bincount(items, minlength=n_items), len(np.unique(users)), content or {})

    def information(self) -> NDArray[np.float64]:
        """`log2(users / popularity)` of each item, in bits; one without a training positive counts as one of a single
        user."""
        return np.log2(max(self.users, 1) / np.maximum(self.popularity, 1))

    def tail(self) -> NDArray[np.float64]:
        """Of each item how much of it is of the long tail: 1, or 0 where it is of the head, the most popular `HEAD` of
        the catalogue. Where items of equal popularity stand on both sides of the border, the share of these beyond
        it: the mean over all orders of them."""
        head = round(HEAD * len(self.popularity))
        if not head:
            return np.ones(len(self.popularity))
        border = np.sort(self.popularity)[::-1][head - 1]
        inside, level = self.popularity > border, self.popularity == border
        return np.where(inside, 0.0, np.where(level, 1 - (head - inside.sum()) / level.sum(), 1.0))


Values = dict[str, "float | None"]


class Beyond(NamedTuple):
    """Metrics by name, for those that are undefined (None) the reason, and values per user `[users]`, nan where
    undefined, of metrics that are means over users."""

    metrics: Values
    reasons: dict[str, str]
    per_user: dict[str, NDArray[np.float64]]


def beyond_accuracy(
    items: NDArray[np.int64],
    ks: Sequence[int],
    catalogue: Catalogue,
    buckets: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Beyond:
    """What the lists are like at every cut-off.

    items: `[users, >= max(ks)]`, best first, -1 where a list ends. buckets: name -> mask `[n_items]`.

    Of the lists as a whole: `coverage@k` (by bucket, too: of its items), `gini@k`, `entropy@k`, `personalisation@k`,
    `commonest@k`; by bucket `exposure@k`. Means over users: `popularity@k`, `novelty@k`, `tail@k`, and `diversity@k`
    where the catalogue has content.
    """
    ks = sorted(set(ks))
    lengths = (items[:, : ks[-1]] >= 0).sum(1)
    metrics: Values = {}
    reasons: dict[str, str] = {}
    per_user: dict[str, NDArray[np.float64]] = {}
    by_user = _means(items, lengths, ks, catalogue)
    if catalogue.content:
        by_user |= _diversity(items, lengths, ks, catalogue.content)
    counts, held = np.zeros(len(catalogue.popularity), np.int64), 0
    for k in ks:
        counts += np.bincount(items[:, held:k][items[:, held:k] >= 0], minlength=len(counts))
        metrics |= {f"{name}@{k}": value for name, value in _of_counts(counts, len(items)).items()}
        metrics[f"personalisation@{k}"] = _personalisation(items, lengths, k, counts)
        for bucket, mask in (buckets or {}).items():
            metrics[f"{bucket}/coverage@{k}"] = float((counts[mask] > 0).mean()) if mask.any() else None
            metrics[f"{bucket}/exposure@{k}"] = float(counts[mask].sum() / counts.sum()) if counts.any() else None
        held = k
    for name, values in by_user.items():
        known = ~np.isnan(values)
        metrics[name], per_user[name] = float(values[known].mean()) if known.any() else None, values
    for name, value in metrics.items():
        if value is None:
            reasons[name] = _why(name, int((lengths > 0).sum()))
    return Beyond(metrics, reasons, per_user)


def _why(name: str, lists: int) -> str:
    if not lists:
        return "no user has a list"
    bucket, slash, bare = name.rpartition("/")
    if slash:
        return f"there are no {bucket} items"
    return "no two users have a list" if bare.startswith("personalisation") else "no list has two items with content"


def _of_counts(counts: NDArray[np.int64], n_lists: int) -> Values:
    """Of how many lists hold each item, `[n_items]`."""
    total, n = counts.sum(), len(counts)
    if not total:
        return dict.fromkeys(("coverage", "gini", "entropy", "commonest"))
    ordered = np.sort(counts)
    shares = ordered[ordered > 0] / total
    gini = ((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * total)
    entropy = -(shares * np.log2(shares)).sum()
    return {
        "coverage": float((counts > 0).mean()),
        "gini": float(gini),
        "entropy": float(entropy),
        "commonest": float(ordered[-1] / n_lists),
    }


def _personalisation(
    items: NDArray[np.int64], lengths: NDArray[np.int64], k: int, counts: NDArray[np.int64]
) -> float | None:
    """1 - the mean over pairs of users of |A and B| / sqrt(|A| |B|).

    Of vectors of length 1, 1 / sqrt(|A|) at the items of A, it is the squared length of their sum that has all pairs,
    and each with itself, which is 1.
    """
    size = np.minimum(lengths, k)
    lists = int((size > 0).sum())
    if lists < 2:
        return None
    if (size == k).all():  # as nearly always
        squared = float(np.square(counts).sum() / k)
    else:
        weights = np.repeat(1 / np.sqrt(np.maximum(size, 1)), size)
        held = np.bincount(items[:, :k][items[:, :k] >= 0], weights, minlength=len(counts))
        squared = float(np.square(held).sum())
    return 1 - (squared - lists) / (lists * (lists - 1))


def _means(
    items: NDArray[np.int64], lengths: NDArray[np.int64], ks: Sequence[int], catalogue: Catalogue
) -> dict[str, NDArray[np.float64]]:
    """`popularity@k`, `novelty@k`, `tail@k` of every user: means over the items of the list."""
    of_items = {"popularity": catalogue.popularity, "novelty": catalogue.information(), "tail": catalogue.tail()}
    result: dict[str, NDArray[np.float64]] = {}
    for name, values in of_items.items():
        values = np.append(values.astype(np.float64), 0.0)  # the last, at -1: no item
        total, held = np.zeros(len(items)), 0
        for k in ks:
            size = np.minimum(lengths, k)
            total = total + values[items[:, held:k]].sum(1)
            result[f"{name}@{k}"] = np.where(size > 0, total / np.maximum(size, 1), np.nan)
            held = k
    return result


@torch.no_grad()
def _diversity(
    items: NDArray[np.int64],
    lengths: NDArray[np.int64],
    ks: Sequence[int],
    content: Mapping[str, tuple[Tensor, Tensor]],
) -> dict[str, NDArray[np.float64]]:
    """`diversity@k` of every user: 1 - the mean cosine over pairs of the list's items that have content.

    An item's content are its modalities, each brought to length 1, side by side, and the whole brought to length 1.
    The squared length of the sum of m such vectors is m + 2 x the sum of the cosines of their pairs.
    """
    scales, has = _scales(content)
    result = {f"diversity@{k}": np.full(len(items), np.nan) for k in ks}
    widest = max(table.shape[1] for table, _ in content.values())
    size = max(1, AT_ONCE // widest)
    for start in range(0, len(items), size):
        part = slice(start, start + size)
        rows = torch.from_numpy(np.maximum(items[part, : ks[-1]], 0))
        there = torch.from_numpy(items[part, : ks[-1]] >= 0)
        found = (there & has[rows]).cumsum(1)
        squared = torch.zeros(len(rows), len(ks), dtype=torch.float64)
        for name, (table, _) in content.items():
            weights = (scales[name][rows] * there).to(table.device)
            squared += _squared_sums(table, rows.to(table.device), weights, ks).cpu()
        for place, k in enumerate(ks):
            m = found[:, k - 1].double()
            cosine = (squared[:, place] - m) / (m * (m - 1))
            result[f"diversity@{k}"][part] = torch.where(m > 1, 1 - cosine, torch.nan).numpy()
    return result


def _scales(content: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
    """By modality what an item's features are multiplied by, `[n_items]` float32 on the CPU, and which items have
    content."""
    lengths = {name: table.float().norm(dim=1).cpu() * present.cpu() for name, (table, present) in content.items()}
    several = torch.stack([length > 0 for length in lengths.values()]).sum(0)
    scale = several.clamp(min=1).rsqrt()
    known = {name: torch.where(length > 0, scale / length, 0.0) for name, length in lengths.items()}
    return known, several > 0


def _squared_sums(table: Tensor, rows: Tensor, weights: Tensor, ks: Sequence[int]) -> Tensor:
    """`[users, ks]` float64: the squared length of the weighted sum of the first k of each user's rows."""
    total, held, squared = table.new_zeros(len(rows), table.shape[1]), 0, []
    for k in ks:
        part = slice(held, k)
        total = total + F.embedding_bag(rows[:, part], table, mode="sum", per_sample_weights=weights[:, part])
        squared.append(total.double().square().sum(1))
        held = k
    return torch.stack(squared, 1)


class Common(NamedTuple):
    """item: the row that stands in most lists; share: of these. often: items in more than `COMMON` of the lists;
    distinct: items in any."""

    item: int
    share: float
    often: int
    distinct: int


def in_common(items: NDArray[np.int64], n_items: int) -> Common | None:
    """What lists `[users, k]` of a catalogue of n_items have in common; None where that is not remarkable.

    It is where an item stands in more than half of ten lists or more, and in twice as many as if they were drawn.
    """
    lists, k = items.shape
    if lists < FEWEST_LISTS:
        return None
    counts = np.bincount(items[items >= 0], minlength=n_items)
    item = int(counts.argmax())
    share = counts[item] / lists
    if share <= COMMON or share < 2 * k / n_items:
        return None
    return Common(item, float(share), int((counts > COMMON * lists).sum()), int((counts > 0).sum()))
