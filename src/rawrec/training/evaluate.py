"""The evaluation of a system on one part of its data: impressions, and lists over the full catalogue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from rawrec.config import Config
from rawrec.config.training import Seen
from rawrec.data.dataset import Dataset
from rawrec.data.flat import spans
from rawrec.data.mapped import MappedDataset
from rawrec.data.sampling import Samples
from rawrec.evaluation.beyond import Catalogue, beyond_accuracy, in_common
from rawrec.evaluation.ctr import buckets_of
from rawrec.evaluation.topk import TopK, rank_all, topk_metrics, undefined
from rawrec.files import write_table
from rawrec.lazily import Lazily
from rawrec.models.ranking.context import Moments
from rawrec.training.metrics import Scorer, impression_metrics
from rawrec.training.tasks.base import PARTS
from rawrec.world import ALONE, World

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")

__all__ = ["PARTS", "ListTask", "TopKResult", "evaluate_part", "evaluate_topk", "make_lists"]

SCORES = 200_000_000
"""So many pairs of user and item a ranker scores for the lists of a part, unless eval.topk_users says how many."""
FEWEST = 100
"""Users who get lists, however large the catalogue is."""
SCORES_AT_ONCE = 2**25
"""Users x items whose scores are held at a time."""
TOLD_EVERY = 1.0
"""Seconds between two words to an observer about one evaluation."""
USUAL = 20
"""The cut-off that is told of, or that nearest to it."""
MADE_ANEW = "content made anew"
"""What observers are told is done where an evaluation encodes first."""


@dataclass
class TopKResult:
    users: np.ndarray  # user rows, those with a positive in the part
    lists: TopK
    metrics: dict[str, float | None]
    reasons: dict[str, str]
    per_user: dict[str, np.ndarray]

    def told(self, data: Dataset, part: str, ks: list[int]) -> list[str]:
        """What must be said of the lists of a part: that one item stands in most of them."""
        k = min(ks, key=lambda k: abs(k - USUAL))
        return [text for text in (same_for_all(self.lists.items[:, :k], data, part),) if text is not None]

    def write(self, path: Path) -> None:
        """A row per user: their list of item rows, and their metrics."""
        frame = pl.DataFrame({"user": self.users.astype(np.int32), "items": self.lists.items.tolist()})
        frame = frame.with_columns(*(pl.Series(k, v) for k, v in self.per_user.items() if "/" not in k))
        write_table(frame.to_arrow(), path)


def evaluate_part(system: Scorer, part: int, seed: int) -> tuple[dict[str, Any], dict[str, str], pl.DataFrame]:
    """CTR metrics of a part from the bank as it stands, why some are undefined, and the scores behind them."""
    rng = np.random.default_rng([seed, 7919, part])
    sample = system.samples.impressions(system.samples.rows(part), part, rng)
    scores = system.score_impressions(sample, part)
    metrics, reasons = impression_metrics(system, sample, scores)
    if system.samples.positive_only:
        metrics["sampled"] = system.samples.n_negatives
        metrics["undrawn"] = system.samples.undrawn[part]
    width = sample.items.shape[1]
    several = scores.reshape(-1, 1 + len(sample.further))
    frame = pl.DataFrame(
        {
            "row": np.repeat(sample.rows, width),
            "user": np.repeat(sample.users, width).astype(np.int32),
            "item": sample.items.ravel().astype(np.int32),
            "label": sample.labels.ravel().astype(np.float32),
            "score": several[:, 0],
            "split": np.full(len(several), part, np.int8),
        }
    )
    for name, rows in (("query", sample.query), ("session", sample.session)):
        if rows is not None:
            frame = frame.with_columns(pl.Series(name, np.repeat(rows, width).astype(np.int32)))
    for k, (name, labels) in enumerate(sample.further.items(), 1):
        values = {f"label/{name}": labels.ravel().astype(np.float32), f"score/{name}": several[:, k]}
        frame = frame.with_columns(**{column: pl.Series(found) for column, found in values.items()})
    return metrics, reasons, frame


class ListTask(NamedTuple):
    """Users `[n]` (rows, ascending) to make lists for. What user i took is `items[ptr[i]:ptr[i + 1]]`; what is left out
    of the list, because it was seen before, is `mask_items[mask_ptr[i]:mask_ptr[i + 1]]`. repeated: pairs of a user and
    an item that were taken and are left out: nobody can find them, so they are not asked for. of: how many users there
    would be, had some not been drawn from them."""

    users: np.ndarray
    ptr: np.ndarray
    items: np.ndarray
    mask_ptr: np.ndarray
    mask_items: np.ndarray
    repeated: int = 0
    of: int = 0

    @classmethod
    def make(cls, data: Dataset, cfg: Config, taken: np.ndarray, left_out: np.ndarray, keep: bool = False) -> ListTask:
        """taken, left_out: bool of each interaction of the dataset; the users are those with one to be found, or as
        many of them as `list_users` allows.

        keep: what is left out is asked for all the same, and missed, as some published protocols do.
        """
        again = repeats(data, taken, left_out)
        if not keep:
            taken = taken.copy()
            taken[again] = False
        users = np.unique(data.users[taken]).astype(np.int64)
        of, most = len(users), list_users(cfg, data.n_items)
        if most is not None and of > most:
            users = drawn(users, most, data.n_users, data.meta.splits[cfg.data.split].get("seed", 0))
            again = again[np.isin(data.users[again], users)]
        count = len(np.unique(_pairs(data, again)))
        chosen = (_items_of(data, np.flatnonzero(mask), users) for mask in (taken, left_out))
        return cls(users, *next(chosen), *next(chosen), count, of)

    def part(self, chosen: np.ndarray) -> ListTask:
        """Of the users `chosen` (bool `[n]`) alone."""
        own, masked = (np.repeat(chosen, np.diff(ptr)) for ptr in (self.ptr, self.mask_ptr))
        ptrs = (np.concatenate([[0], np.cumsum(np.diff(ptr)[chosen])]) for ptr in (self.ptr, self.mask_ptr))
        ptr, mask_ptr = ptrs
        return ListTask(self.users[chosen], ptr, self.items[own], mask_ptr, self.mask_items[masked], 0, self.of)

    @property
    def note(self) -> str | None:
        """What is told of the users where they are not all."""
        if len(self.users) >= self.of:
            return None
        return f"lists of {len(self.users):,} of {self.of:,} users, drawn once for the split (eval.topk_users)"


def lists_of_pairs(data: Dataset, cfg: Config, part: int, parts: np.ndarray, positive: np.ndarray) -> ListTask:
    """Who gets a list of a retrieval model in a part, and what is left out of it, as `eval.protocol` says. parts: as
    `Dataset.retrieval_split` gives them; positive: bool, `[n_interactions]` each."""
    mmrec = cfg.eval.protocol == "mmrec"
    taken = (parts == part) & positive
    if mmrec:
        known = np.bincount(data.users[(parts == 0) & positive], minlength=data.n_users) > 0
        taken &= known[data.users]
    earlier = (parts >= 0) & (parts < (1 if mmrec else part))
    left_out = seen_rows("positives" if mmrec else cfg.eval.seen, positive, earlier)
    return ListTask.make(data, cfg, taken, left_out, keep=mmrec)


def list_users(cfg: Config, n_items: int) -> int | None:
    """How many users of a part get lists, at most; None: all."""
    if cfg.eval.topk_users is not None or cfg.retrieval:
        return cfg.eval.topk_users
    return max(FEWEST, SCORES // n_items)


def drawn(users: np.ndarray, most: int, n_users: int, seed: int) -> np.ndarray:
    """`most` of the `users` (rows), drawn by the seed, ascending.

    Every user of the dataset has a number drawn, and those with the least are taken: a smaller draw is part of a larger
    one, whoever else is among the users.
    """
    numbers = np.random.default_rng([seed, 104_729]).random(n_users)[users]
    return np.sort(users[np.argsort(numbers, kind="stable")[:most]])


def seen_rows(exclude: Seen, positive: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """The `earlier` interactions (bool) whose items `eval.exclude_seen` leaves out of a list."""
    return earlier & {"positives": positive, "interactions": True, "none": False}[exclude]


def repeats(data: Dataset, taken: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Rows of the interactions `taken` (bool) whose user and item are also those of one in `before` (bool)."""
    rows = np.flatnonzero(taken)
    return rows[np.isin(_pairs(data, rows), _pairs(data, np.flatnonzero(before)))]


def _pairs(data: Dataset, rows: np.ndarray) -> np.ndarray:
    """User and item of interactions as one number."""
    return data.users[rows].astype(np.int64) * data.n_items + data.items[rows]


def _items_of(data: Dataset, rows: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The items of some interactions of each of `users`, as ptr `[n + 1]` and items."""
    rows = rows[np.argsort(data.users[rows], kind="stable")]
    counts = np.bincount(data.users[rows], minlength=data.n_users)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    ptr = np.concatenate([[0], np.cumsum(counts[users])]).astype(np.int64)
    index = np.arange(ptr[-1]) + np.repeat(offsets[users] - ptr[:-1], counts[users])
    return ptr, data.items[rows[index]].astype(np.int64)


def make_lists(
    score: Callable[[np.ndarray], Tensor],
    task: ListTask,
    depth: int,
    user_batch: int,
    workers: int = 1,
    observe: Callable[..., None] | None = None,
    world: World = ALONE,
) -> TopK:
    """The `depth` best items of every user of the task, see `rank_all`; each process of a `world` makes its share."""
    if world.several:
        chosen, count = np.zeros(len(task.users), bool), len(task.users)
        chosen[slice(*world.bounds(count)[world.rank : world.rank + 2])] = True
        own = make_lists(score, task.part(chosen), depth, user_batch, workers, observe)
        return TopK(*(world.arrays(values, count, "lists") for values in own))
    if not len(task.users):
        return TopK(np.zeros((0, depth), np.int64), np.zeros((0, depth), np.float32))
    tell = None if observe is None else teller(observe, "lists of users", len(task.users))
    return rank_all(score, task.users, task.mask_ptr, task.mask_items, depth, user_batch, workers, tell)


def no_lists(task: ListTask, depth: int) -> TopK:
    """Lists of a model that recommends nothing."""
    shape = (len(task.users), depth)
    return TopK(np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))


def teller(observe: Callable[..., None], what: str, total: int) -> Callable[[int], None]:
    """Takes how many more are done, from any thread, and tells the observer how many that are, once a second."""
    lock, done, last = Lock(), 0, time.perf_counter()

    def tell(count: int) -> None:
        nonlocal done, last
        with lock:
            done, now = done + count, time.perf_counter()
            if now - last >= TOLD_EVERY:
                last = now
                observe("scoring", what=what, done=done, total=total)

    return tell


def lists_of_part(system: Scorer, part: int) -> ListTask:
    """Who gets a list in a part, under a ranker. What was seen in the earlier parts is left out of the lists, see
    `eval.exclude_seen`, and not asked for."""
    samples = system.samples

    def masks(at: Any) -> tuple[np.ndarray, np.ndarray]:
        parts, positive = samples.part[at], samples.positive[at]
        earlier = samples.history_only[at] | ((parts >= 0) & (parts < part))
        return (parts == part) & positive, seen_rows(system.cfg.eval.seen, positive, earlier)

    if isinstance(samples.data, MappedDataset):
        return _mapped_lists(system.cfg, samples.data, part, samples.label, masks)
    return ListTask.make(system.data, system.cfg, *masks(slice(None)))


def _mapped_lists(
    cfg: Config, data: MappedDataset, part: int, label: str, masks: Callable[[Any], tuple[np.ndarray, np.ndarray]]
) -> ListTask:
    """What `ListTask.make` gives, some users at a time. masks: of some interactions which are taken, and which are left
    out."""

    def to_find() -> Iterator[np.ndarray]:
        for rows in data.by_user(lambda at: np.logical_or(*masks(at))):
            taken, left_out = masks(rows["row"])
            pairs = rows["user"].astype(np.int64) * data.n_items + rows["item"]
            yield np.unique(rows["user"][taken & ~np.isin(pairs, pairs[left_out])])

    key = f"{data.key_of(cfg.data.split)}|{label}|{cfg.eval.seen}|lists|{part}"
    users = data.store.array(key, np.int32, to_find, name="listed").astype(np.int64)
    of, most, chosen = len(users), list_users(cfg, data.n_items), np.ones(data.n_users, bool)
    if most is not None and of > most:
        users = drawn(users, most, data.n_users, data.meta.splits[cfg.data.split].get("seed", 0))
        chosen[:] = False
        chosen[users] = True
    rows = _rows_of_users(data, chosen)
    taken, left_out = masks(rows)
    pairs = _pairs(data, rows)
    again = taken & np.isin(pairs, pairs[left_out])
    parts = (_items_of(data, rows[mask], users) for mask in (taken & ~again, left_out))
    return ListTask(users, *next(parts), *next(parts), len(np.unique(pairs[again])), of)


def _rows_of_users(data: Dataset, chosen: np.ndarray) -> np.ndarray:
    """The interactions of the users `chosen` (bool `[n_users]`), in their order."""
    found = [np.flatnonzero(chosen[data.users[at]]) + at.start for at in spans(data.n_interactions)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def same_for_all(items: np.ndarray, data: Dataset, part: str) -> str | None:
    """A line where one item stands in most of the lists `[users, k]` of a part; None where none does."""
    found = in_common(items, data.n_items)
    if found is None:
        return None
    further = f", and {found.often} items stand in more than half of them" if found.often > 1 else ""
    return (
        f"most users get the same, as model pop gives them: item {data.item_ids[found.item]} stands in "
        f"{found.share:.0%} of the lists of {items.shape[1]} ({part}){further}; {found.distinct:,} of {data.n_items:,} "
        "items are in any. Look at coverage, gini and personalisation (docs/metrics.md)"
    )


def evaluate_topk(
    system: Scorer,
    part: int,
    ks: list[int],
    user_batch: int = 64,
    task: ListTask | None = None,
    diversity: bool = True,
) -> TopKResult:
    """Lists over the full catalogue for users with a positive in the part: all, or as many as `list_users` allows.

    diversity: whether that of the lists is measured, too, where the model has content.

    The history is what the user did before the first such positive, and its context is that of the list. task:
    `lists_of_part`, where it is known. Users, positives and masks are CSR; no users x items matrix exists but for
    `user_batch` users at a time, or fewer.
    """
    samples, data = system.samples, system.data
    task = lists_of_part(system, part) if task is None else task
    mine = np.zeros(data.n_users, bool)
    mine[task.users] = True
    rows = _rows_of_users(data, mine)
    rows = rows[(samples.part[rows] == part) & samples.positive[rows]]
    rows = _first_rows(data, rows, samples.times)[task.users]
    times = None if samples.times is None else samples.times[rows]
    table = system.table()

    def score(batch: np.ndarray) -> Tensor:
        at = np.searchsorted(task.users, batch)
        asked = batch, None, None if times is None else times[at]
        past = system.past_of(samples.eval_histories, *asked)
        moments = Moments(batch, asked[2], rows[at], training=part == 0, past=past)
        return system.score_all(moments, samples.eval_histories.read(*asked, samples.history), table)

    size = max(1, min(user_batch, SCORES_AT_ONCE // data.n_items))
    lists = make_lists(score, task, max(ks), size, observe=system.observe, world=system.world)
    content = {} if table is None or not diversity else {"content": (table.values, table.valid)}
    catalogue = _catalogue(samples, content)
    return judge(task, lists, ks, buckets_of(samples.train_counts), system.cfg.own_metrics("lists"), catalogue)


def _catalogue(samples: Samples, content: Mapping[str, tuple[Tensor, Tensor]]) -> Catalogue:
    """The catalogue by the training positives."""
    data = samples.data
    if not isinstance(data, MappedDataset):
        trained = (samples.part == 0) & samples.positive
        return Catalogue.of_pairs(data.users[trained], data.items[trained], data.n_items, content)
    popularity, users = np.zeros(data.n_items, np.int64), 0
    for rows in data.by_user(lambda at: (samples.part[at] == 0) & samples.positive[at]):
        found = Catalogue.of_pairs(rows["user"], rows["item"], data.n_items)
        popularity, users = popularity + found.popularity, users + found.users
    return Catalogue(popularity, users, content)


def _first_rows(data: Dataset, rows: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """Of each user the first of some interactions, by time where there are any, `[n_users]`; -1: none."""
    if times is not None:
        rows = rows[np.argsort(times[rows], kind="stable")]
    first = np.full(data.n_users, -1, np.int64)
    first[data.users[rows[::-1]]] = rows[::-1]
    return first


def judge(
    task: ListTask,
    lists: TopK,
    ks: list[int],
    buckets: Mapping[str, np.ndarray],
    own: Mapping[str, Any],
    catalogue: Catalogue | None = None,
) -> TopKResult:
    """Metrics of the lists of a task, registered ones (`own`) among them; beside their hits what they are like
    (`beyond_accuracy`), where the catalogue is given.

    `topk_repeated`, where there are any: see `ListTask.repeated`; `topk_users_of`, where the users were drawn: from how
    many.
    """
    metrics, per_user = topk_metrics(lists.items, task.ptr, task.items, ks, buckets, own)
    if task.repeated:
        metrics["topk_repeated"] = task.repeated
    if task.note:
        metrics["topk_users_of"] = task.of
    reasons = undefined(metrics)
    if catalogue is not None:
        found = beyond_accuracy(lists.items, ks, catalogue, buckets)
        metrics, per_user, reasons = metrics | found.metrics, per_user | found.per_user, reasons | found.reasons
    return TopKResult(task.users, lists, metrics, reasons, per_user)
