"""`rawrec import recbole`: a folder of RecBole's atomic files, `<name>.inter` and `<name>.item`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.arguments import checked
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.splits import SplitSpec, keeping_lists
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources.download.urls import UrlPictures, column_addresses
from rawrec.sources.tables import Batch, Source, open_delimited
from rawrec.sources.tables.convert import numbers, row_name, stored_name, string_lists
from rawrec.sources.tables.fields import check_distinct, columns_of
from rawrec.sources.tables.label_columns import LABEL, LabelColumn, kept, rated_as
from rawrec.sources.tables.rows import Rows, asked_columns, check_kinds, read_ids, times_of
from rawrec.sources.users import Users

TYPES = ("token", "token_seq", "float", "float_seq")
PARTS = {"train": 0, "valid": 1, "val": 1, "test": 2, "part1": 0, "part2": 1, "part3": 2}
"""The middle of `<name>.<middle>.inter` -> the part that the file holds."""
PART = "part"
ITEMS_AT_ONCE = 4096


@checked()
def import_recbole(
    folder: str | Path,
    *,
    out: str | Path,
    user: str = "user_id",
    item: str = "item_id",
    time: str | None = None,
    time_format: str | None = None,
    labels: Sequence[str] = (),
    positive: float | None = None,
    rated: str | None = None,
    text: Sequence[str] = (),
    seq_separator: str = " ",
    context_category: Sequence[str] = (),
    context_numeric: Sequence[str] = (),
    query: str | None = None,
    session: str | None = None,
    image_url: Sequence[str] = (),
    pictures: UrlPictures | None = None,
    encoding: str | None = None,
    split: SplitSpec | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import `<name>.inter` and, where there is one, `<name>.item`, whose headers name and type each column.

    user, item, time, labels: columns of the interactions (time: `timestamp` if there is one; labels: `label` if there
    is one). positive: label = rating >= positive. With neither every row is a positive. rated: as of `import_table`,
    `seen` with positive. Further columns are kept: float as numbers, the others as strings. context_category,
    context_numeric: those that a ranker may read as the context; query, session, time_format: as of
    `import_table`.
    Items: token and token_seq columns are categorical, those named in `text` one text each, float numeric, float_seq
    features. Users, of `<name>.user` where there is one: token and token_seq columns are categories, float numbers.
    seq_separator: between the values of a sequence. image_url: columns of the addresses of pictures, one or
    several in a value. pictures: how these are downloaded; or a table of addresses.
    encoding: of the tables that are text (default: UTF-8, else as each is found to be).
    split: default as the files `<name>.train.inter`, `.valid.inter` and `.test.inter` (or part1 to part3) say, which
    are read instead of `<name>.inter`; without them by time per user, without times at random per user.
    allow_empty: as of `import_table`.

    Raises UserError for absent files and columns and files that cannot be read.
    """
    if not seq_separator:
        raise UserError("seq_separator is empty: name the character between the values of a sequence")
    folder = Path(folder)
    report = ImportReport()
    name, files = _files(folder, report)
    report.source = f"RecBole {name}"
    sources = {path: _open(path, report, encoding) for path in files}
    first, types = next(iter(sources.values()))
    time = time or ("timestamp" if "timestamp" in types else None)
    labels = labels or (["label"] if "label" in types and positive is None else [])
    if positive is not None and ("label" in types or labels):
        raise UserError(f"{first.path} has labels already: leave out positive, or import it as a table")
    asked = asked_columns(first, query, session)
    fields: dict[str, str] = {}
    labels = columns_of(first, "label", labels, fields)
    known = [user, item, time, *labels]
    needed = ["rating"] if positive is not None else []
    context_category = columns_of(first, "context_category", context_category, fields)
    context_numeric = columns_of(first, "context_numeric", context_numeric, fields)
    check_kinds("context", context_category, context_numeric)
    for name in {*context_category, *context_numeric} & {*known, *needed}:
        raise UserError(f"column {name!r} is read as something else already, it cannot be of the context")
    for name in {*context_numeric, *labels, *needed} & {*asked}:
        raise UserError(f"column {name!r} is kept as the {asked[name]}, it cannot be read as something else")
    read = [*known, *needed, *asked]
    extra = {n: pa.float64() if t == "float" else pa.string() for n, t in types.items() if n not in read}
    extra |= {n: pa.float64() for n in context_numeric}
    extra |= {n: pa.string() for n in context_category if n not in asked}
    for source, _ in sources.values():
        for setting, columns in (("user", [user]), ("item", [item]), ("time", [time]), ("label", labels)):
            source.require(setting, columns)
        source.require("positive", needed)
        source.require("further columns", [*extra, *asked])
    targets = [LabelColumn(name, fields.get(name) or row_name(name)) for name in labels]
    targets += [LabelColumn(name, LABEL, positive) for name in needed]
    times = times_of(report, [source for source, _ in sources.values()], time, time_format)
    cleaner = Rows(report, user, item, time, targets, kept(targets) | extra, asked=asked, times=times, fields=fields)
    parted = len(files) > 1
    clash = {PART: f"source_{PART}"} if parted else {}
    names = {n: clash.get(s, s) for n, s in cleaner.names.items()}
    stored = {names[n]: kind for n, kind in cleaner.extra.items()}
    if parted:
        stored[PART] = pa.int64()
    if split is None:
        kind = {"kind": "column", "column": PART} if parted else {"kind": "time_user" if time else "random_user"}
        split = SplitSpec.model_validate(kind)
    if session is not None:
        split = keeping_lists(split, "session")
    catalogue = _Items(folder / f"{name}.item", item, text, seq_separator, report, image_url, pictures, encoding)
    people = _users(folder / f"{name}.user", user, seq_separator, report, encoding)
    with (
        DatasetWriter(
            out,
            fields=catalogue.fields,
            source=report.source,
            labels=[clash.get(label.name, label.name) for label in cleaner.labels],
            label_rule=", ".join(label.rule for label in targets) or "every interaction is positive",
            extra=stored,
            context=Columns(
                categorical=[names[name] for name in context_category],
                numeric=[names[name] for name in context_numeric],
            ),
            users=people.fields,
            has_time=time is not None,
            needed=catalogue.fields.text,
            allow_empty=allow_empty,
            overwrite=overwrite,
            pictures=catalogue.pictures,
            asked=asked.values(),
            rated=rated_as(rated, targets),
        ) as writer,
        Bar(progress) as bar,
    ):
        catalogue.write(writer, bar)
        people.write(writer, bar)
        for path, part in files.items():
            for batch in bar.track(path.name, sources[path][0], cleaner.columns):
                rows = {clash.get(n, n): values for n, values in cleaner.clean(batch).items()}
                if parted:
                    rows[PART] = np.full(len(rows["user_id"]), part)
                writer.add_interactions(rows)
        cleaner.finish(str(first.path))
        return writer.finish(split, report)


def _files(folder: Path, report: ImportReport) -> tuple[str, dict[Path, int]]:
    """The dataset's name and its files of interactions with their parts, train first; the others are noted."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist or is not a folder")
    inter = sorted(folder.glob("*.inter"))
    parts = {path: (path.stem.rpartition(".")[0], PARTS.get(path.stem.rpartition(".")[2])) for path in inter}
    parted = {path: part for path, (_, part) in parts.items() if part is not None}
    names = {parts[path][0] for path in parted} or {path.stem for path in inter}
    if len(names) != 1:
        found = listed((path.name for path in inter or sorted(folder.iterdir())), none="nothing")
        raise UserError(f"{folder} must hold one dataset of .inter files; found: {found}")
    if parted and 0 not in parted.values():
        raise UserError(f"{folder} has no file of training interactions; found: {listed(p.name for p in parted)}")
    if len(set(parted.values())) != len(parted):
        raise UserError(f"{folder} has two files of one part: {listed(p.name for p in parted)}")
    name = names.pop()
    files = dict(sorted(parted.items(), key=lambda entry: entry[1])) or dict.fromkeys(inter, 0)
    if unread := [
        p.name for p in sorted(folder.glob(f"{name}.*")) if p not in files and p.suffix not in (".item", ".user")
    ]:
        report.note(f"not read: {listed(unread)}")
    return name, files


def _users(path: Path, user: str, separator: str, report: ImportReport, encoding: str | None) -> Users:
    """The file of the users, if there is one; columns of vectors are left out and noted."""
    if not path.exists():
        return Users(report, None, user)
    source, types = _open(path, report, encoding)
    source.require("user", [user])
    category = [name for name, kind in types.items() if "token" in kind and name != user]
    numeric = [name for name, kind in types.items() if kind == "float" and name != user]
    if vectors := [name for name, kind in types.items() if kind == "float_seq"]:
        report.note(f"{path.name}: vectors of users are not read ({listed(vectors)})")
    if not category and not numeric:
        return Users(report, None, user)
    separators = {name: separator if types[name] == "token_seq" else "" for name in category}
    return Users(report, source, user, category, numeric, separators)


def _open(path: Path, report: ImportReport, encoding: str | None) -> tuple[Source, dict[str, str]]:
    """A file, its columns known by their names alone, and the type of each; what has no known type is a token."""
    source = open_delimited(path, report, "\t", quotes=False, encoding=encoding)
    types: dict[str, str] = {}
    for i, head in enumerate(source.columns):
        name, _, kind = head.partition(":")
        if kind not in TYPES:
            report.note(f"{path.name}: column {head!r} has none of the types {', '.join(TYPES)}; read as token")
            kind = "token"
        source.columns[i] = name
        types.setdefault(name, kind)
    return source, types


class _Items:
    """The file of the items, if there is one: its fields, and their way into a dataset."""

    def __init__(
        self,
        path: Path,
        item: str,
        text: Sequence[str],
        separator: str,
        report: ImportReport,
        image_url: Sequence[str],
        pictures: UrlPictures | None,
        encoding: str | None,
    ) -> None:
        self.fields, self.encoding = Fields(), encoding
        self.image_url, self.pictures = list(image_url), pictures or (UrlPictures() if image_url else None)
        self.item, self.text, self.separator, self.report = item, list(text), separator, report
        self.source: Source | None = None
        if not path.exists():
            if wanted := [*text, *image_url]:
                raise UserError(f"column {wanted[0]!r} describes items, and there is no file {path}")
            return
        self.source, self.types = _open(path, report, encoding)
        self.source.require("item", [item])
        own: dict[str, str] = {}
        self.text = text = columns_of(self.source, "text", text, own)
        self.source.require("image_url", image_url)
        self.types = {name: kind for name, kind in self.types.items() if name != item and name not in image_url}
        widths = self._widths()
        self.types = {name: kind for name, kind in self.types.items() if kind != "float_seq" or name in widths}
        as_text = {name for name, kind in self.types.items() if kind in ("token", "token_seq") and name in text}
        if wrong := [name for name in text if name not in as_text]:
            raise UserError(f"text: column {wrong[0]!r} of {path} holds numbers")
        words = [name for name, kind in self.types.items() if kind == "token_seq" and name not in text]
        if words:
            report.note(f"{listed(words)}: stored as categories, one per word; give texts with --text")
        self.names = {name: own.get(name) or _field_name(name) for name in self.types}
        check_distinct(str(path), self.names)
        self.fields = Fields(
            text=[self.names[name] for name in text],
            categorical=[self.names[n] for n, kind in self.types.items() if "token" in kind and n not in as_text],
            numeric=[self.names[n] for n, kind in self.types.items() if kind == "float"],
            feature={self.names[n]: width for n, width in widths.items()},
        )

    def _widths(self) -> dict[str, int]:
        """Name -> width of the features: the commonest of the first rows. Empty ones are left out and noted."""
        assert self.source is not None
        names = [name for name, kind in self.types.items() if kind == "float_seq"]
        if not names:
            return {}
        source, _ = _open(self.source.path, ImportReport(), self.encoding)
        first = next(source.batches(names), None)
        result: dict[str, int] = {}
        for name in names:
            lengths = np.zeros(0, np.int64) if first is None else _lengths(_pieces(first.columns[name], self.separator))
            if not lengths.any():
                self.report.note(f"{self.source.name}: column {name!r} is empty in the first rows; left out")
                continue
            result[name] = int(np.bincount(lengths[lengths > 0]).argmax())
        return result

    def write(self, writer: DatasetWriter, bar: Bar) -> None:
        if self.source is None:
            return
        for batch in bar.track("items", self.source, [self.item, *self.types, *self.image_url]):
            self.report.add_read("items", len(batch.rows))
            found, good = read_ids(batch, self.item, self.report)
            if not good.all():
                found, batch = found.filter(pa.array(good)), batch.keep(good)
            columns: dict[str, Any] = {"item_id": found}
            for name, kind in self.types.items():
                columns[self.names[name]] = self._values(batch, name, kind)
            if self.pictures is not None and self.image_url:
                columns[self.pictures.column] = column_addresses(batch, self.image_url)
            for at in range(0, len(found), ITEMS_AT_ONCE):
                writer.add_items({name: values[at : at + ITEMS_AT_ONCE] for name, values in columns.items()})

    def _values(self, batch: Batch, name: str, kind: str) -> Any:
        column = batch.columns[name]
        if kind == "float":
            values = numbers(column, name)
            self._count(f"items: {name} is no number (kept, empty)", batch, name, ~np.isfinite(values))
            return np.where(np.isfinite(values), values, np.nan)
        if kind == "float_seq":
            values = _vectors(column, self.separator, self.fields.feature[self.names[name]])
            reason = f"items: {name} is no row of {values.shape[1]} numbers (kept, empty)"
            self._count(reason, batch, name, ~np.isfinite(values).all(axis=1))
            return values
        separator = self.separator if kind == "token_seq" and name not in self.text else None
        return string_lists(column, name, json_lists=False, separator=separator)

    def _count(self, reason: str, batch: Batch, name: str, bad: Any) -> None:
        """Count the rows where `bad` holds, unless they are empty."""
        bad = bad & (pl.Series(batch.columns[name]).str.strip_chars() != "").to_numpy()
        if bad.any():
            self.report.skip(reason, batch.examples(bad, name), int(bad.sum()))


def _pieces(column: pa.Array, separator: str) -> pl.Series:
    """The values of each sequence, as strings; none where it is empty."""
    pieces = pl.Series(column).str.strip_chars().str.split(separator)
    return pieces.list.eval(pl.element().filter(pl.element() != ""))


def _lengths(lists: pl.Series) -> np.ndarray:
    return lists.list.len().to_numpy().astype(np.int64)


def _vectors(column: pa.Array, separator: str, width: int) -> np.ndarray:
    """float32 `[n, width]`; nan where there are not `width` numbers."""
    pieces = _pieces(column, separator)
    fits = _lengths(pieces) == width
    result = np.full((len(pieces), width), np.nan, np.float32)
    if fits.any():
        found = pieces.filter(pl.Series(fits)).explode().cast(pl.Float32, strict=False).fill_null(np.nan)
        result[fits] = found.to_numpy().reshape(-1, width)
    return result


def _field_name(name: str) -> str:
    stored = stored_name(name)
    return f"source_{stored}" if stored in ("item_id", "launched", "fields") else stored
