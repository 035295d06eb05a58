"""The files of a dataset of the Hugging Face hub as one table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.download.hub import Found, loaded
from rawrec.sources.media.pictures import WORKERS, ImageFolder, Skip
from rawrec.sources.tables import ArrowTable, Batch, Source, open_objects, open_source
from rawrec.sources.tables.convert import as_text, numbers

pc: Any = pyarrow.compute
PARTS = {"train": "train", "validation": "valid", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
"""What datasets call their splits -> our parts."""
ROWS_WITH_PATHS = 32
"""Rows whose pictures are read at a time."""
PART = "part"
"""The column that says which split a row is of."""


class HubTable(Source):
    """A dataset as one table: file after file, class labels as names, pictures as bytes.

    images: columns of pictures. plain: columns whose class labels stay numbers. encoding: of files of text. Where there
    are several splits, all with known names, `parts` is true and there is a column `PART`.
    """

    holds_bytes = True

    def __init__(
        self,
        name: str,
        found: Found,
        report: ImportReport,
        images: Collection[str],
        plain: Collection[str],
        encoding: str | None = None,
    ) -> None:
        super().__init__(Path(name), report)
        self.encoding = encoding
        if found.revision is not None:
            report.note(f"{name} is of revision {found.revision}")
        self.files = [(split, path) for split, paths in found.files.items() for path in paths]
        if not self.files:
            raise UserError(f"{name} holds no data files")
        first = self._open(self.files[0][1])
        self.format, self.columns = first.format, list(first.columns)
        self.folder = None if found.folder is None else ImageFolder(found.folder, "{item}", report)
        self.images, self.values = images, report
        features = found.features or _features(first)
        self.classes = {n: c for n, kind in features.items() if n not in plain and (c := _class_names(kind))}
        self.parts = len(found.files) > 1 and set(found.files) <= set(PARTS) and "train" in found.files
        if self.parts:
            if PART in self.columns:
                raise UserError(f"{name} has several splits and a column {PART!r}: name one split, as in {name}@train")
            self.columns.append(PART)

    def seek(self, names: Sequence[str | None]) -> None:
        for _, path in self.files:
            sought = [name for name in names if name is not None and name not in self.columns]
            if not sought:
                return
            source = self._open(path).again()
            source.seek(sought)
            self.columns += [name for name in sought if name in source.columns]

    def again(self) -> HubTable:
        other = super().again()
        assert isinstance(other, HubTable)
        other.values = other.report
        return other

    def _open(self, path: Path) -> Source:
        if path.suffix == ".arrow":
            return ArrowTable(path, self.report)
        is_json = path.name.removesuffix(".gz").endswith(".json")
        return (open_objects if is_json else open_source)(path, self.report, self.encoding)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        inner = [name for name in columns if name != PART or not self.parts] or self.columns[:1]
        for i, (split, path) in enumerate(self.files):
            source = self._open(path)
            if source.format != "jsonl":  # there a key may be absent
                source.require("a file lacks a column of the first", inner)
            for batch in source.batches(inner):
                self.fraction = (i + source.fraction) / len(self.files)
                for name in set(inner) & set(self.classes):
                    batch.columns[name] = self._class_names(batch, name)
                if self.parts and PART in columns:
                    batch.columns[PART] = pa.array([PARTS[split]] * len(batch.rows), pa.string())
                yield from self._with_pictures(batch, [name for name in inner if name in self.images], path)

    def _class_names(self, batch: Batch, name: str) -> pa.Array:
        column, where = batch.columns[name], f"{batch.file}: {name}"
        if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
            names, lost = _named(column, self.classes[name], where)
        else:
            flat, lost_values = _named(pc.list_flatten(column), self.classes[name], where)
            names = pa.ListArray.from_arrays(_offsets(column), flat)
            parents = pc.list_parent_indices(column).to_numpy()
            lost = np.bincount(parents[lost_values], minlength=len(column)) > 0
        if lost.any():
            reason = f"value of column {name!r} is none of its {len(self.classes[name])} classes (left out)"
            self.values.skip(reason, batch.examples(lost, name), int(lost.sum()))
        return names

    def _with_pictures(self, batch: Batch, names: Sequence[str], path: Path) -> Iterator[Batch]:
        """The batch with what its pictures' paths lead to, in parts of few rows where there are such paths."""
        by_path = [name for name in names if _has_paths(batch.columns[name])]
        if not by_path:
            yield batch
            return
        for at in range(0, len(batch.rows), ROWS_WITH_PATHS):
            columns = {name: column.slice(at, ROWS_WITH_PATHS) for name, column in batch.columns.items()}
            bad = {name: some[at : at + ROWS_WITH_PATHS] for name, some in batch.unreadable.items()}
            part = Batch(batch.file, batch.rows[at : at + ROWS_WITH_PATHS], columns, bad)
            for name in by_path:
                part.columns[name] = self._read_pictures(part, name, path)
            yield part

    def _read_pictures(self, batch: Batch, name: str, path: Path) -> pa.Array:
        """Per row its pictures' bytes; those that cannot be read are counted."""
        rows = [row if isinstance(row, list) else [row] for row in batch.columns[name].to_pylist()]

        def read(picture: Any) -> bytes | Skip | None:
            data, place = (picture.get("bytes"), picture.get("path")) if isinstance(picture, dict) else (None, picture)
            if isinstance(data, bytes) or not place or not isinstance(place, str):
                return data if isinstance(data, bytes) else None
            return self._read_file(place, path)

        result: list[list[bytes]] = []
        with ThreadPoolExecutor(WORKERS) as pool:
            found = pool.map(read, [picture for row in rows for picture in row])
            for number, row in zip(batch.rows.tolist(), rows, strict=True):
                result.append([])
                for picture, data in zip(row, found, strict=False):
                    if isinstance(data, bytes):
                        result[-1].append(data)
                    elif data is not None:
                        self.values.add_read("images")
                        self.values.skip(data.reason, f"{batch.file}:{number} {picture!r}{data.detail}")
        return pa.array(result, pa.list_(pa.large_binary()))

    def _read_file(self, place: str, table: Path) -> bytes | Skip:
        """The picture at a path from the table's own folder or from the dataset's, never outside of the latter."""
        if self.folder is None:
            return Skip("the dataset holds its path, not the picture")
        root = self.folder.folder
        inside = Path(place)
        if inside.is_absolute() and inside.is_relative_to(root):
            inside = inside.relative_to(root)
        own = table.resolve().parent
        near = own.relative_to(root) / inside if own.is_relative_to(root) else inside
        for name in dict.fromkeys([near, inside]):
            _, data = self.folder.read(str(name))
            if data is not None:
                return data
        return Skip("no file at the path that the dataset holds")


def _features(source: Source) -> dict[str, Any]:
    """Column -> the library's type, as the metadata of a Parquet or Arrow file state it; empty where they do not."""
    schema = getattr(source, "schema", None)
    if schema is None:
        return {}
    try:
        return dict(loaded().Features.from_arrow_schema(schema))
    except Exception:  # strange metadata make the library raise nearly everything; the columns are plain then
        return {}


def _class_names(feature: Any) -> list[str]:
    """The names of a class label, or of a list of class labels; empty for anything else."""
    feature = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    return list(getattr(feature, "names", None) or [])


def _named(column: pa.Array, names: Sequence[str], where: str) -> tuple[pa.Array, np.ndarray]:
    """Numbers of classes as names (names stay; -1 and empty become null), and where a value was lost `[n]`."""
    values = numbers(column, where)
    good = (values >= 0) & (values < len(names)) & (values == np.floor(values))
    index = pa.array(np.where(good, values, 0).astype(np.int64), mask=~good)
    words = pa.array(names, pa.string())
    text = pl.Series(as_text(column, where)).fill_null("").to_arrow().cast(pa.string())
    is_name = pc.is_in(text, value_set=words)
    lost = ~good & (values != -1) & ~is_name.to_numpy(zero_copy_only=False)
    lost &= pc.not_equal(text, "").to_numpy(zero_copy_only=False)
    return pc.if_else(is_name, text, words.take(index)), lost


def _offsets(lists: pa.Array) -> pa.Array:
    """Where each list begins in the flattened values, and where the last one ends."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _has_paths(column: pa.Array) -> bool:
    """Whether some picture of the column is given by its path alone."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = pc.list_flatten(column)
    if pa.types.is_struct(column.type):
        names = {column.type.field(i).name for i in range(column.type.num_fields)}
        if "path" not in names:
            return False
        has_bytes = column.field("bytes").is_valid() if "bytes" in names else pa.scalar(False)
        return bool(pc.any(pc.and_(column.field("path").is_valid(), pc.invert(has_bytes))).as_py())
    return pa.types.is_string(column.type)
