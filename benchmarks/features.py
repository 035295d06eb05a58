"""Rows per second at which the inputs of an impression are made, beside the same of all rows at once in bare numpy.

Measured, of training rows in random order: counts of item, user and kind (`model.counts`), what was met earlier in the
session (`model.session=gap`), and codes and numbers of the context (`model.context`), as a ranker's batches read them;
and the seconds that it takes to make what they are read from. Bare: the rows are sorted once, and what came before each
is a running sum; nothing is kept for later, no new time can be asked for. Both give the same numbers, which is checked.
Processor time of one thread, the least of some turns, since others may use the machine.

No figure is asked for; the ratio says what being able to ask for any moment costs.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import emit, folder, say

from rawrec.config.ranking import InputsConfig
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.sampling import Samples
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.models.ranking.columns import item_columns
from rawrec.models.ranking.context import ContextReader, Moments

EXAMPLE = "example: python benchmarks/features.py --rows 2000000 --users 100000 --items 20000 --data /tmp/benchmark"
GAP, LAST, SMOOTHING = 1800, 10, 10.0
WHAT = {
    "counts": {"counts": ["item", "user", "kind"], "counts_smoothing": SMOOTHING, "columns": ["kind"]},
    "session": {"session": "gap", "session_gap": GAP, "id_history": LAST},
    "context": {"context": ["device", "position", "hour", "weekday"]},
}
"""What is made, and the settings of a ranker that reads it."""


def dataset(place: Path, args: argparse.Namespace) -> Dataset:
    """Made where it is not there yet: each user comes three times in a month, for an hour; some items are popular."""
    path = place / f"rows-{args.rows}-{args.users}-{args.items}"
    if path.is_dir():
        return Dataset.open(path)
    say(f"generating {path}")
    rng = np.random.default_rng(0)
    user, item = rng.integers(args.users, size=args.rows), (rng.random(args.rows) ** 2 * args.items).astype(int)
    offset = rng.integers(3600, size=args.rows)
    rows = {
        "user_id": pa.array(user).cast(pa.string()),
        "item_id": pa.array(item).cast(pa.string()),
        "timestamp": 1_700_000_000 + rng.integers(3, size=args.rows) * 864_000 + user % 240 * 3600 + offset,
        "label": (rng.random(args.rows) < 0.3).astype(np.float32),
        "device": pa.array(rng.integers(20, size=args.rows)).cast(pa.string()),
        "position": rng.integers(50, size=args.rows).astype(float),
    }
    with DatasetWriter(
        path, fields=Fields(categorical=["kind"]), source="made", labels=["label"], has_time=True,
        extra={"device": pa.string(), "position": pa.float64()},
        context=Columns(categorical=["device"], numeric=["position"]),
    ) as writer:  # fmt: skip
        kinds = [[f"k{k % 50}"] for k in range(args.items)]
        writer.add_items({"item_id": [str(k) for k in range(args.items)], "kind": kinds})
        writer.add_interactions(rows)
        return writer.finish(SplitSpec.model_validate({"kind": "time_global"}), ImportReport())


# ---------------------------------------------------------------------------------------------------------- bare numpy
def earlier(keys: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order by key and time, and for each row in it where those of its key begin and where those of its time do."""
    order = np.lexsort((times, keys))
    key, when = keys[order], times[order]
    new = np.r_[True, key[1:] != key[:-1]]
    tie = new | np.r_[True, when[1:] != when[:-1]]
    at = np.arange(len(keys))
    begin, end = (np.maximum.accumulate(np.where(first, at, 0)) for first in (new, tie))
    return order, begin, end


def bare_counts(data: Dataset, samples: Samples, rows: np.ndarray) -> list[np.ndarray]:
    """`[rows, 9]`: of item, user and kind log(1 + rows), log(1 + clicks) and the rate, standardised."""
    users, items, positive = data.users[rows], data.items[rows], samples.positive[rows]
    assert samples.times is not None
    times, mean, numbers = samples.times[rows], samples.positive[rows].mean(), []
    for keys in (items, users, items % 50):
        order, begin, end = earlier(keys, times)
        clicks = np.r_[0, np.cumsum(positive[order])]
        shown, clicked = np.empty(len(rows)), np.empty(len(rows))
        shown[order], clicked[order] = end - begin, clicks[end] - clicks[begin]
        numbers += [np.log1p(shown), np.log1p(clicked), (clicked + SMOOTHING * mean) / (shown + SMOOTHING)]
    return [np.stack([((x - x.mean()) / x.std()).clip(-5, 5) for x in numbers], 1).astype(np.float32)]


def bare_session(data: Dataset, samples: Samples, rows: np.ndarray) -> list[np.ndarray]:
    """Items `[rows, LAST]` met earlier in the session, -1 = padding, and numbers `[rows, 2]` of all of them."""
    users, items, positive = data.users[rows], data.items[rows], samples.positive[rows]
    assert samples.times is not None and data.timestamps is not None
    # A gap is one between all rows of a user, whatever their part; here all earlier ones are training rows.
    times = samples.times[rows]
    by_user = np.lexsort((times, users))
    new = np.r_[False, (np.diff(users[by_user]) != 0) | (np.diff(times[by_user]) > GAP)]
    sessions = np.empty(len(rows), np.int64)
    sessions[by_user] = np.cumsum(new)
    order, begin, end = earlier(sessions, times)
    index = end[:, None] + np.arange(-LAST, 0)
    last = np.empty((len(rows), LAST), np.int64)
    last[order] = np.where(index >= begin[:, None], items[order][np.maximum(index, 0)], -1)
    clicks, numbers = np.r_[0, np.cumsum(positive[order])], np.empty((len(rows), 2), np.float32)
    numbers[order] = np.log1p(np.stack([end - begin, clicks[end] - clicks[begin]], 1))
    return [last, numbers]


@functools.cache
def column(data: Dataset, name: str) -> np.ndarray:
    return data.row_categories(name)[0] if name == "device" else data.row_numbers(name)


def bare_context(data: Dataset, samples: Samples, rows: np.ndarray) -> list[np.ndarray]:
    """Codes `[rows, 3]` of device, hour and weekday, and the standardised position with a flag where it is missing; of
    columns in memory, device as a code."""
    assert data.timestamps is not None
    times, position = data.timestamps[rows], column(data, "position")[rows]
    codes = [column(data, "device")[rows], times // 3600 % 24, (times // 86_400 + 3) % 7]
    scaled = ((position - position.mean()) / position.std()).clip(-5, 5)
    return [np.stack(codes, 1), np.stack([scaled, np.zeros(len(rows))], 1).astype(np.float32)]


BARE: dict[str, Callable[[Dataset, Samples, np.ndarray], list[np.ndarray]]] = {
    "counts": bare_counts,
    "session": bare_session,
    "context": bare_context,
}


# ------------------------------------------------------------------------------------------------------------ measured
def processor(work: Callable[[], object], turns: int) -> float:
    """Seconds of processor time, the least of some turns."""
    found = []
    for _ in range(turns):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def check(ours: np.ndarray, bare: np.ndarray, codes: bool) -> None:
    """Both are the same, `[rows, n]`; codes: up to what stands for what."""
    assert ours.shape == bare.shape
    if not codes:
        np.testing.assert_allclose(ours, bare, rtol=1e-3, atol=1e-3)
        return
    for one, other in zip(ours.T, bare.T, strict=True):
        pairs = len(np.unique(np.stack([one, other]), axis=1).T)
        assert pairs == len(np.unique(one)) == len(np.unique(other))


def measure(data: Dataset, what: str, batch: int, turns: int) -> None:
    """One line about one kind of input."""
    samples = Samples(data, "default", "label", 10, "rolling", 0)
    cfg = InputsConfig.model_validate(WHAT[what])
    columns = item_columns(data, samples, cfg)
    readers: list[ContextReader] = []
    making = processor(lambda: readers.append(ContextReader(data, samples, cfg, columns, True)), turns)
    known = np.flatnonzero(samples.part == 0)
    mixed = np.random.default_rng(0).permutation(len(known))
    rows = known[mixed]
    times = samples.times
    assert times is not None
    fields = {"counts": ["counts"], "session": ["session", "session_numbers"], "context": ["codes", "numbers"]}[what]
    found: list[list[np.ndarray]] = []

    def read() -> None:
        found.clear()
        for start in range(0, len(rows), batch):
            few = rows[start : start + batch]
            moments = Moments(data.users[few].astype(np.int64), times[few], few, training=True)
            read = readers[-1].read(moments, data.items[few].astype(np.int64)[:, None], columns)
            found.append([getattr(read, name).numpy() for name in fields])

    reading = processor(read, turns)
    bare: list[list[np.ndarray]] = []
    if what == "context":
        for name in ("device", "position"):  # reading them from disk is no part of it
            column(data, name)
    at_once = processor(lambda: bare.append(BARE[what](data, samples, known)), turns)
    for i, other in enumerate(bare[-1]):
        check(np.concatenate([part[i] for part in found]).reshape(len(rows), -1), other[mixed], fields[i] == "codes")
    emit(
        what=what, rows=len(rows), batch=batch, rows_per_second=len(rows) / reading,
        rows_per_second_bare=len(rows) / at_once, ratio=reading / at_once, making_seconds=making,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", nargs="*", default=[*WHAT], choices=[*WHAT])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--data", type=Path, help="keep the dataset here")
    args = parser.parse_args()
    with folder(args.data) as place:
        data = dataset(place, args)
        for what in args.what:
            measure(data, what, args.batch, args.turns)


if __name__ == "__main__":
    main()
