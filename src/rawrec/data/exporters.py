"""A dataset in the form that other tools read: the folders of MMRec and RecBole.

Whoever compares rawrec with them trains both on the same rows, the same parts and the same items. Ids with line ends or
tabs cannot be written there and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.data.queries import ASKED
from rawrec.data.splits import PARTS
from rawrec.errors import UserError
from rawrec.files import create, write_text, yaml_text
from rawrec.folders import placing
from rawrec.lazily import Lazily
from rawrec.shown import listed

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")


@dataclass
class Exported:
    """What was written into `folder`: interactions per part, and what did not fit, in words."""

    folder: Path
    interactions: dict[str, int]
    notes: list[str] = field(default_factory=list)


def export_mmrec(data: Dataset, out: str | Path, *, split: str = "default", label: str | None = None) -> Exported:
    """Write the folder `out` as MMRec reads it.

    `<name>.inter`: userID, itemID, rating and timestamp where there are any, x_label (the part; -1: none). Only the
    positives of `label` (default: the only one, or `label`), since MMRec takes every row for one.
    `i_id_mapping.csv`, `u_id_mapping.csv`: the ids behind the numbers. The numbers are those of the dataset, but
    an item with an interaction comes last, since MMRec takes the largest itemID for the last item. Rows that make
    histories only are of train, as in `Dataset.retrieval_split`.
    `<field>_feat.npy`: ready-made features, float32 `[items, width]`; an item without one gets the mean of the others.

    Raises UserError for an unknown split or label, no positive row, ids that cannot be written, and an `out` that is
    not empty.
    """
    parts = data.retrieval_split(split)
    positive = data.positive(_label(data, label))
    if not positive.any():
        raise UserError(f"{data.path} has no positive interaction to export")
    order = _item_order(data.items[positive], data.n_items)
    number = np.argsort(order)
    item_ids, user_ids = _writable("item", data.item_ids[order]), _writable("user", data.user_ids)
    further = [name for name in ("rating",) if name in data.meta.extra] + ["timestamp"] * data.meta.has_time
    with _folder(Path(out)) as folder:
        done = Exported(Path(out), _counts(parts[positive]))
        with create(folder / f"{Path(out).resolve().name}.inter") as file:
            _header(file, ["userID", "itemID", *further, "x_label"])
            for start, batch in _batches(data, ["user", "item", *further]):
                rows = slice(start, start + len(batch))
                columns = {
                    "userID": batch["user"],
                    "itemID": pl.Series(number[batch["item"].to_numpy()]),
                    **{name: batch[name] for name in further},
                    "x_label": pl.Series(parts[rows]),
                }
                _rows(file, pl.DataFrame(columns).filter(pl.Series(positive[rows])))
        for name, head, found in (("i", ["asin", "itemID"], item_ids), ("u", ["user_id", "userID"], user_ids)):
            with create(folder / f"{name}_id_mapping.csv") as file:
                _header(file, head)
                _rows(file, pl.DataFrame({"id": found, "number": np.arange(len(found))}))
        for name in data.fields.feature:
            values, valid = data.feature(name)
            if not valid.all():
                values[~valid] = values[valid].mean(0) if valid.any() else 0
                done.notes.append(f"{int((~valid).sum()):,} items have no feature {name}: the mean of the others")
            np.save(folder / f"{name}_feat.npy", values[order])
    if left := int((~positive).sum()):
        done.notes.append(f"{left:,} interactions that are not positive were left out: MMRec knows none")
    if order[-1] != data.n_items - 1:
        done.notes.append("the last items have no positive interaction: numbered so that one that has stands last")
    if data.meta.asked:
        done.notes.append(
            f"left out, for they have no place in MMRec: {' and '.join(ASKED[name] for name in data.meta.asked)}"
        )
    if not data.fields.feature:
        done.notes.append(
            "there are no ready-made features: MMRec's multimodal models need image_feat.npy, text_feat.npy"
        )
    return done


def export_recbole(data: Dataset, out: str | Path, *, split: str = "default") -> Exported:
    """Write the folder `out` as RecBole's atomic files.

    `<name>.train.inter`, `.valid.inter`, `.test.inter`: user_id, item_id, timestamp, labels, further columns, query
    (token_seq) and session (token); rows in no part are left out. `<name>.item`: texts (token_seq), categories (token;
    token_seq where an item has several, blanks in them replaced by `_`), numbers (float) and ready-made features
    (float_seq). `<name>.yaml`: the settings by which RecBole reads them. In texts tabs and line ends become blanks,
    quotation marks become apostrophes. Pictures have no place there.

    Raises UserError for an unknown split, ids that cannot be written, and an `out` that is not empty.
    """
    parts = data.split(split)
    _writable("item", data.item_ids)
    _writable("user", data.user_ids)
    further = [name for name in data.meta.extra if name != data.meta.splits[split].get("column")]
    names = ["user_id", "item_id", *["timestamp"] * data.meta.has_time, *data.meta.labels, *further, *data.meta.asked]
    asked = {name: pl.Series(data.column(name), dtype=pl.String) for name in data.meta.asked}
    kinds: dict[str, str] = {"user_id": "token", "item_id": "token", "timestamp": "float"}
    with _folder(Path(out)) as folder, ExitStack() as stack:
        name = Path(out).resolve().name
        files = [stack.enter_context(create(folder / f"{name}.{part}.inter")) for part in PARTS]
        for start, batch in _batches(data, names):
            batch = batch.with_columns(**{name: words[start : start + len(batch)] for name, words in asked.items()})
            if not start:
                kinds |= {n: "float" if t.is_float() or n in data.meta.labels else "token" for n, t in _extras(batch)}
                kinds |= {"query": "token_seq"} if data.has_queries else {}
                for file in files:
                    _header(file, [f"{n}:{kinds[n]}" for n in names])
            for part, file in enumerate(files):
                _rows(file, batch.filter(pl.Series(parts[start : start + len(batch)] == part)))
        columns = _item_columns(data)
        with create(folder / f"{name}.item") as file:
            _header(file, ["item_id:token", *(f"{n}:{kind}" for n, (kind, _) in columns.items())])
            for batch in data.item_batches(["item_id", *columns]):
                table = pl.DataFrame({n: _series(batch.column(n)) for n in ["item_id", *columns]})
                _rows(file, table.with_columns(*(write(table[n]).alias(n) for n, (_, write) in columns.items())))
        settings = {
            "USER_ID_FIELD": "user_id",
            "ITEM_ID_FIELD": "item_id",
            **({"TIME_FIELD": "timestamp"} if data.meta.has_time else {}),
            **({"LABEL_FIELD": data.meta.labels[0]} if data.meta.labels else {}),
            "benchmark_filename": list(PARTS),
            "load_col": {"inter": names, "item": ["item_id", *columns]},
        }
        write_text(folder / f"{name}.yaml", yaml_text(settings))
    done = Exported(Path(out), _counts(parts))
    if left := int((parts < 0).sum()):
        done.notes.append(f"{left:,} interactions that are in no part of the split were left out")
    if data.fields.image:
        done.notes.append(f"pictures have no place in atomic files: {', '.join(data.fields.image)} left out")
    return done


def mmrec_items(path: Path, item_ids: Sequence[str]) -> NDArray[np.int64] | None:
    """The rows in `item_ids` of the items 0, 1, 2 ... of an MMRec folder, for a file `<field>_feat.npy` to lie there.

    None where the file has another name or the folder gives no ids (`i_id_mapping.csv`). Raises UserError where its ids
    are not those of `item_ids`.
    """
    mapping = path.parent / "i_id_mapping.csv"
    if not path.name.endswith("_feat.npy") or not mapping.is_file():
        return None
    try:
        table = pl.read_csv(mapping, separator="\t", quote_char=None, infer_schema=False, glob=False)
        numbers = table["itemID"].cast(pl.Int64).to_numpy()
        names = table.drop("itemID").to_series().to_list()
    except (pl.exceptions.PolarsError, IndexError) as error:
        raise UserError(f"{mapping} cannot be read as MMRec's table of items: {str(error).splitlines()[0]}") from None
    rows = {item: row for row, item in enumerate(item_ids)}
    found, every = np.array([rows.get(name, -1) for name in names]), np.arange(len(item_ids))
    if not (np.array_equal(np.sort(found), every) and np.array_equal(np.sort(numbers), every)):
        raise UserError(
            f"{mapping} does not number the {len(item_ids):,} items of the run's dataset: export that dataset to "
            f"MMRec, or write {path.name} elsewhere"
        )
    return found[np.argsort(numbers)]


# ------------------------------------------------------------------------------------------------------------- helpers
@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder to write, which takes the place of `out` when it is whole. UserError where `out` is not empty."""
    out = out.resolve()
    _check_empty(out)
    with placing(out) as folder:
        yield folder
        _check_empty(out)  # something may have come there meanwhile


def _check_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder: choose another one")


def _label(data: Dataset, label: str | None) -> str:
    labels = data.meta.labels
    if label is not None:
        if not labels:
            raise UserError(f"label {label!r}: {data.path} has no labels, every interaction is positive")
        return label
    if len(labels) > 1 and "label" not in labels:
        raise UserError(f"{data.path} has several labels: name one of {listed(labels)}")
    return labels[0] if len(labels) == 1 else "label"


def _item_order(items: NDArray[np.integer[Any]], n_items: int) -> NDArray[np.int64]:
    """All items, the last one of `items` put at the end."""
    last = int(items.max())
    rows = np.arange(n_items)
    return np.append(np.delete(rows, last), last)


def _writable(what: str, ids: NDArray[np.object_]) -> pl.Series:
    series = pl.Series(ids, dtype=pl.String)
    bad = series.str.contains(r"[\t\r\n]")
    if bad.any():
        raise UserError(f"{what} id {series.filter(bad)[0]!r} holds a tab or line end: it cannot be written to a table")
    return series


def _counts(parts: NDArray[np.int8]) -> dict[str, int]:
    return {name: int((parts == i).sum()) for i, name in enumerate(PARTS)}


def _batches(data: Dataset, columns: list[str]) -> Iterator[tuple[int, pl.DataFrame]]:
    """Columns of the interactions, some rows at a time, with the number of the first of them."""
    start = 0
    for batch in data.interaction_batches(columns):
        yield start, pl.DataFrame({name: _series(batch.column(name)) for name in columns})
        start += len(batch)


def _series(column: pa.Array) -> pl.Series:
    series = pl.Series(column)
    return series.fill_nan(None) if series.dtype.is_float() else series


def _extras(batch: pl.DataFrame) -> list[tuple[str, Any]]:
    """Name and type of all columns but ids and time."""
    return [(n, t) for n, t in batch.schema.items() if n not in ("user_id", "item_id", "timestamp")]


def _header(file: Any, names: list[str]) -> None:
    file.write(("\t".join(names) + "\n").encode())


def _rows(file: Any, table: pl.DataFrame) -> None:
    """Rows between tabs, missing values empty. RecBole would take a quotation mark for the begin of a quoted value."""
    ids = ("user_id", "item_id", "id")
    text = [name for name, kind in table.schema.items() if kind == pl.String and name not in ids]
    table = table.with_columns(pl.col(text).str.replace_all(r"[\t\r\n]+", " ").str.replace_all('"', "'", literal=True))
    table.write_csv(file, include_header=False, separator="\t", quote_style="never")


def _item_columns(data: Dataset) -> dict[str, tuple[str, Callable[[pl.Series], pl.Series]]]:
    """Field -> its type and how a column of it is written."""
    fields = data.fields
    columns: dict[str, tuple[str, Callable[[pl.Series], pl.Series]]] = {}
    for name in fields.text:
        columns[name] = ("token_seq", _one_text)
    for name in fields.categorical:
        several = bool((np.diff(data.categorical(name)[0]) > 1).any())
        columns[name] = ("token_seq", _tokens) if several else ("token", lambda lists: lists.list.join(""))
    for name in fields.numeric:
        columns[name] = ("float", lambda numbers: numbers)
    for name in fields.feature:
        columns[name] = ("float_seq", _numbers)
    return columns


def _one_text(lists: pl.Series) -> pl.Series:
    return lists.list.join(" ")


def _tokens(lists: pl.Series) -> pl.Series:
    return lists.list.eval(pl.element().str.replace_all(r"\s+", "_")).list.join(" ")


def _numbers(vectors: pl.Series) -> pl.Series:
    return vectors.arr.to_list().list.eval(pl.element().cast(pl.String)).list.join(" ")
