"""What a dataset holds, and what is odd about it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rawrec.data.arrays import pc
from rawrec.data.dataset import Dataset
from rawrec.data.images import check
from rawrec.data.import_report import short
from rawrec.data.labels import LabelValues, is_positive
from rawrec.data.splits import BUCKETS, PARTS

IMAGE_SAMPLE = 500
TEXT_SAMPLE = 10_000
EXAMPLES = 5
QUANTILES = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}


def inspect(path: str | Path) -> dict[str, Any]:
    """Counts, coverage, buckets and problems of the dataset at `path`, as plain values that fit into JSON.

    Media are decoded for a sample of at most 500 items per image field, texts measured (in characters) for at most
    10,000 items per text field, both evenly spread over the items that have the field. Everything else is exact.
    """
    data = Dataset.open(path)
    split = data.split()
    train = np.bincount(data.items[split == 0], minlength=data.n_items)
    images = {name: _images(data, name) for name in data.fields.image}
    return {
        "path": str(data.path),
        "version": data.version,
        "source": data.meta.source,
        "generated": data.meta.generated,
        "counts": dict(data.meta.counts),
        "density": data.n_interactions / max(1, data.n_users * data.n_items),
        "splits": {
            name: {"statement": entry["statement"], **entry["counts"]} for name, entry in data.meta.splits.items()
        },
        "labels": {name: _label(name, data.label(name), split) for name in data.meta.labels},
        "rated": data.meta.rated,
        "label_rule": data.meta.label_rule or ("positive only" if data.positive_only else ""),
        "time": _time(data.timestamps),
        "fields": {
            **images,
            **{name: _texts(data, name) for name in data.fields.text},
            **{name: _categorical(data, name) for name in data.fields.categorical},
            **{name: _numeric(data, name) for name in data.fields.numeric},
            **{name: _feature(data, name, width) for name, width in data.fields.feature.items()},
        },
        "users": {
            **{name: _bags(data.user_categorical(name)) for name in data.meta.users.categorical},
            **{name: _numbers(data.user_numeric(name)) for name in data.meta.users.numeric},
        },
        "context": {
            **{name: _codes(data.row_categories(name), split == 0) for name in data.meta.context.categorical},
            **{name: _numbers(data.row_numbers(name)) for name in data.meta.context.numeric},
        },
        "asked": _asked(data, split),
        "buckets": _buckets(train, data.items[split == 2]),
        "problems": _problems(data, split, train, images),
    }


# -------------------------------------------------------------------------------------------------------------- fields
def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _coverage(kind: str, present: NDArray[np.bool_]) -> dict[str, Any]:
    return {"kind": kind, "items": int(present.sum()), "share": float(present.mean())}


def _images(data: Dataset, name: str) -> dict[str, Any]:
    counts = data.counts(name)
    rows = spread(np.flatnonzero(counts), IMAGE_SAMPLE)
    checked, failed, examples = 0, 0, []
    for start in range(0, len(rows), 50):
        part = rows[start : start + 50]
        for row, pictures in zip(part.tolist(), data.images(name, part), strict=True):
            reasons = [reason for reason in map(check, pictures) if reason]
            checked += len(pictures)
            failed += len(reasons)
            examples += [f"{data.item_ids[row]}: {reason}" for reason in reasons]
    return {
        **_coverage("image", counts > 0),
        "images": int(counts.sum()),
        "bytes": int(data.image_bytes(name).sum()),
        "checked": checked,
        "undecodable": failed,
        "undecodable_examples": examples[:EXAMPLES],
    }


def _texts(data: Dataset, name: str) -> dict[str, Any]:
    counts = data.counts(name)
    texts = data.texts(name, spread(np.flatnonzero(counts), TEXT_SAMPLE))
    lengths = [len(text) for item in texts for text in item]
    return {**_coverage("text", counts > 0), "texts": int(counts.sum()), "characters": _quantiles(np.array(lengths))}


def _categorical(data: Dataset, name: str) -> dict[str, Any]:
    ptr, codes, words = data.categorical(name)
    return {**_coverage("categorical", np.diff(ptr) > 0), "values": len(codes), "distinct": len(words)}


def _numeric(data: Dataset, name: str) -> dict[str, Any]:
    values = data.numeric(name)
    valid = np.isfinite(values)
    return {**_coverage("numeric", valid), "values": _quantiles(values[valid])}


def _feature(data: Dataset, name: str, width: int) -> dict[str, Any]:
    return {**_coverage("feature", data.present(name)), "width": width}


def _bags(found: tuple[NDArray[np.int64], NDArray[np.int32], list[str]]) -> dict[str, Any]:
    """Of a categorical attribute of users: how many have it, and how many values there are."""
    ptr, codes, words = found
    present = np.diff(ptr) > 0
    return {**_share_with("categorical", present), "values": len(codes), "distinct": len(words)}


def _codes(found: tuple[NDArray[np.int32], list[str]], train: NDArray[np.bool_]) -> dict[str, Any]:
    """Of a categorical column of the context; distinct_train: values of training, which `model.hash_above` counts."""
    codes, words = found
    known, seen = codes >= 0, np.unique(codes[train & (codes >= 0)])
    unseen = known & ~train & ~np.isin(codes, seen)
    entry = {**_share_with("categorical", known), "values": int(known.sum()), "distinct": len(words)}
    return {**entry, "distinct_train": len(seen), "unseen_rows": int(unseen.sum())}


def _numbers(values: NDArray[np.float64]) -> dict[str, Any]:
    known = np.isfinite(values)
    return {**_share_with("numeric", known), "values": _quantiles(values[known])}


def _share_with(kind: str, present: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "kind": kind,
        "with_it": int(present.sum()),
        "missing": int((~present).sum()),
        "share": float(present.mean()),
    }


def _quantiles(values: NDArray[Any]) -> dict[str, float] | None:
    if not len(values):
        return None
    return {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}


# -------------------------------------------------------------------------------------------------------- interactions
def _label(name: str, values: NDArray[np.float32], split: NDArray[np.int8]) -> dict[str, Any]:
    """Share of positives of all rows and of each part, the distinct values, and a remark where they are not 0 and 1."""
    known, found = ~np.isnan(values), LabelValues.of([values])
    positive, split = is_positive(values[known]), split[known]
    parts = {part: _share_of(positive[split == i]) for i, part in enumerate(PARTS)}
    span = {"min": float(found.distinct[0]), "max": float(found.distinct[-1])} if len(found.distinct) else {}
    return {
        "positive": _share_of(positive),
        **parts,
        "empty": found.empty,
        "distinct": len(found.distinct),
        **span,
        "remark": found.remark(name),
    }


def _share_of(chosen: NDArray[np.bool_]) -> float | None:
    return float(chosen.mean()) if len(chosen) else None


def _time(times: NDArray[np.int64] | None) -> dict[str, Any] | None:
    if times is None:
        return None
    first, last = int(times.min()), int(times.max())
    return {"first": first, "last": last, "first_date": _date(first), "last_date": _date(last)}


def _date(seconds: int) -> str | None:
    """ISO date and time, or None where the number is not a plausible count of seconds."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return None


def _buckets(train: NDArray[np.int64], test: NDArray[np.int32]) -> dict[str, dict[str, Any]]:
    rows = np.bincount(test, minlength=len(train))
    result = {}
    for name, (least, most) in BUCKETS.items():
        inside = (train >= least) & (train <= (np.inf if most is None else most))
        result[name] = {
            "rule": f"{least}+" if most is None else str(least) if least == most else f"{least}-{most}",
            "items": int(inside.sum()),
            "train_rows": int(train[inside].sum()),
            "test_rows": int(rows[inside].sum()),
            "test_share": float(rows[inside].sum() / len(test)) if len(test) else None,
        }
    return result


def _asked(data: Dataset, split: NDArray[np.int8]) -> dict[str, dict[str, Any]]:
    """Of queries and sessions, where there are any: how many rows have one, how many rows one has; lengths of queries
    in characters, and how many of them training has not; sessions with both labels, by label."""
    found: dict[str, dict[str, Any]] = {}
    if data.has_queries:
        rows, lengths = data.query_rows, pc.utf8_length(data.queries.arrow()).to_numpy()
        trained = np.isin(np.arange(len(lengths)), rows[split == 0])
        unseen = (rows >= 0) & (split > 0)
        unseen[unseen] = ~trained[rows[unseen]]
        found["query"] = {
            **_share_with("query", rows >= 0),
            "distinct": len(lengths),
            "rows_each": _sizes(rows),
            "characters": _quantiles(lengths),
            "distinct_train": int(trained.sum()),
            "unseen_rows": int(unseen.sum()),
        }
    if data.has_sessions:
        rows = data.session_rows
        found["session"] = {
            **_share_with("session", rows >= 0),
            "distinct": data.meta.counts["sessions"],
            "rows_each": _sizes(rows),
            "both_labels": {name: _with_both(rows, data.label(name)) for name in data.meta.labels},
        }
    return found


def _sizes(rows: NDArray[np.int32]) -> dict[str, float] | None:
    """How many interactions a query, or a session, has that has any."""
    sizes = np.bincount(rows[rows >= 0])
    return _quantiles(sizes[sizes > 0])


def _with_both(rows: NDArray[np.int32], values: NDArray[np.float32]) -> int:
    """Sessions of which some rows are positive and some not."""
    positive = [np.unique(rows[(rows >= 0) & ~np.isnan(values) & (is_positive(values) == kind)]) for kind in (0, 1)]
    return len(np.intersect1d(*positive, assume_unique=True))


# ------------------------------------------------------------------------------------------------------------ problems
def _problems(
    data: Dataset, split: NDArray[np.int8], train: NDArray[np.int64], images: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """What a user should know before training: the problem in words, how often, and the first examples."""
    found: list[dict[str, Any]] = []

    def add(problem: str, count: int, examples: list[str] | None = None) -> None:
        if count:
            found.append({"problem": problem, "count": int(count), "examples": (examples or [])[:EXAMPLES]})

    def some(ids: NDArray[np.object_], mask: NDArray[np.bool_]) -> list[str]:
        return ids[np.flatnonzero(mask)[:EXAMPLES]].tolist()

    media = data.fields.image + data.fields.text
    if media:
        bare = ~np.logical_or.reduce([data.present(name) for name in media])
        add("items with neither image nor text", bare.sum(), some(data.item_ids, bare))
    for name, entry in images.items():
        what = f"images of {name} that cannot be decoded (of {entry['checked']} checked)"
        add(what, entry["undecodable"], entry["undecodable_examples"])
    unseen = np.bincount(data.items, minlength=data.n_items) == 0
    add("items without any interaction", unseen.sum(), some(data.item_ids, unseen))
    single = np.bincount(data.users, minlength=data.n_users) == 1
    add("users with a single interaction", single.sum(), some(data.user_ids, single))
    untrained = np.bincount(data.users[split > 0], minlength=data.n_users) > 0
    untrained &= np.bincount(data.users[split == 0], minlength=data.n_users) == 0
    add("users in valid or test without a training row", untrained.sum(), some(data.user_ids, untrained))
    again = _repeated(data)
    pairs = np.flatnonzero(again)[:EXAMPLES]
    examples = [f"{data.user_ids[data.users[i]]} {data.item_ids[data.items[i]]}" for i in pairs]
    add("duplicate interactions (same user, item and time)", again.sum(), examples)
    for i, name in enumerate(PARTS):
        add(f"the part {name} is empty", int(not (split == i).any()))
    for name in data.meta.labels:
        values = data.label(name)
        values = values[~np.isnan(values)]
        positive = is_positive(values)
        if not len(values):
            add(f"label {name} is empty in every row", data.n_interactions)
        elif positive.min() == positive.max():
            span, which = LabelValues.of([values]).span(), "positive" if positive[0] else "not positive"
            add(
                f"label {name} is always {span}, so every row is {which}: there is nothing to learn from it",
                len(values),
            )
    _time_problems(data, add)
    return found


def _repeated(data: Dataset) -> NDArray[np.bool_]:
    """Rows that repeat an earlier row's user, item and (where there is one) time, `[n_interactions]`."""
    keys = [data.items, data.users] if data.timestamps is None else [data.timestamps, data.items, data.users]
    order = np.lexsort(keys)  # stable: of equal rows the first stands first
    same = np.logical_and.reduce([np.diff(key[order].astype(np.int64)) == 0 for key in keys])
    again = np.zeros(data.n_interactions, bool)
    again[order[1:][same]] = True
    return again


def _time_problems(data: Dataset, add: Any) -> None:
    times = data.timestamps
    if times is None:
        return
    if data.n_interactions > 1 and times.min() == times.max():
        add(f"all interactions have the same time {times[0]}", len(times))
    add("times before 1970", (times < 0).sum())
    future = times > time.time()
    if future.any() and not data.meta.generated:
        largest = int(times.max())
        unit = " (milliseconds? seconds are expected)" if largest > 100_000_000_000 else ""
        add(f"times in the future, up to {largest}{unit}", future.sum())
    if data.launched is not None:
        early = times < data.launched[data.items]
        add("interactions before the item was launched", early.sum())


# -------------------------------------------------------------------------------------------------------------- tables
def print_inspection(found: dict[str, Any], console: Console) -> None:
    """The result of `inspect` as tables."""
    version = f", version {found['version']}" if found["version"] > 1 else ""
    console.print(Text(f"{found['path']}{version}: {found['source']}"))
    if found["generated"]:
        console.print("These data are generated.", style="bold yellow")
    counts = found["counts"]
    _print(
        console,
        "Counts",
        ["users", "items", "interactions", "density"],
        [[*(counts[k] for k in ("users", "items", "interactions")), f"{found['density']:.3%}"]],
    )
    _print(console, "Splits", ["split", *PARTS], [[n, *(e[p] for p in PARTS)] for n, e in found["splits"].items()])
    for name, entry in found["splits"].items():
        console.print(Text(f"{name}: {entry['statement']}", style="dim"))
    rows = [[name, *(_share(entry[part]) for part in ("positive", *PARTS))] for name, entry in found["labels"].items()]
    _print(console, "Share of positives", ["label", "all", *PARTS], rows)
    for name, entry in found["labels"].items():
        if entry["empty"]:
            console.print(Text(f"{name}: {entry['empty']:,} rows have none", style="dim"))
        if entry["remark"]:
            console.print(Text(entry["remark"], style="dim"))
    if found["label_rule"]:
        console.print(Text(f"label: {found['label_rule']}", style="dim"))
    if found["rated"] == "seen":
        text = "rated: what a user rated counts as taken, whatever the label, and stays out of lists"
        console.print(Text(text, style="dim"))
    if found["time"]:
        span = found["time"]
        first, last = span["first_date"] or span["first"], span["last_date"] or span["last"]
        console.print(Text(f"time: {first} to {last}", style="dim"))
    rows = [[n, e["kind"], e["items"], _share(e["share"]), _detail(e)] for n, e in found["fields"].items()]
    _print(console, "Fields", ["field", "kind", "items with it", "share", "detail"], rows)
    for title, what in (("Attributes of users", "users"), ("Context of impressions", "context")):
        rows = [
            [n, e["kind"], e["with_it"], e["missing"], _share(e["share"]), _detail(e) + _in_training(e)]
            for n, e in found[what].items()
        ]
        _print(console, title, ["column", "kind", "with it", "missing", "share", "detail"], rows)
    rows = [
        [n, e["distinct"], e["with_it"], e["missing"], _share(e["share"]), _asked_detail(e)]
        for n, e in found["asked"].items()
    ]
    _print(console, "Queries and sessions", ["column", "distinct", "rows with it", "missing", "share", "detail"], rows)
    rows = [
        [n, e["rule"], e["items"], e["train_rows"], e["test_rows"], _share(e["test_share"])]
        for n, e in found["buckets"].items()
    ]
    heads = ["bucket", "training rows each", "items", "training rows", "test rows", "share of test"]
    _print(console, "Items by training rows", heads, rows)
    rows = [[e["problem"], e["count"], ", ".join(map(short, e["examples"]))] for e in found["problems"]]
    _print(console, "Problems", ["problem", "count", "for example"], rows)
    if not rows:
        console.print("No problems found.")


def _print(console: Console, title: str, heads: list[str], rows: list[list[Any]]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for i, head in enumerate(heads):
        number = all(not isinstance(row[i], str) or row[i].endswith("%") for row in rows)
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{v:,}" if isinstance(v, int) else str(v)) for v in row))
    console.print(table)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _detail(entry: dict[str, Any]) -> str:
    match entry["kind"]:
        case "image":
            checked = f"{entry['undecodable']} of {entry['checked']} checked cannot be decoded"
            return f"{entry['images']:,} images, {entry['bytes'] / 1e6:,.1f} MB; {checked}"
        case "text":
            return f"{entry['texts']:,} texts; characters: {_line(entry['characters'])}"
        case "categorical":
            return f"{entry['distinct']:,} distinct of {entry['values']:,} values"
        case "numeric":
            return _line(entry["values"])
        case _:
            return f"width {entry['width']}"


def _asked_detail(entry: dict[str, Any]) -> str:
    said = [f"rows each: {_line(entry['rows_each'])}"]
    if entry["kind"] == "query":
        said.append(f"characters: {_line(entry['characters'])}")
        said.append(
            f"{entry['distinct_train']:,} in training, {entry['unseen_rows']:,} other rows with one unseen there"
        )
    else:
        said += [f"{count:,} with both values of {name}" for name, count in entry["both_labels"].items()]
    return "; ".join(said)


def _in_training(entry: dict[str, Any]) -> str:
    """What a reader of training values should know: how many there are (above model.hash_above they are hashed)."""
    if "distinct_train" not in entry:
        return ""
    return f"; {entry['distinct_train']:,} in training, {entry['unseen_rows']:,} other rows with a value unseen there"


def _line(quantiles: dict[str, float] | None) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in quantiles.items()) if quantiles else ""
