"""`rawrec import mmrec`: a folder in the format of MMRec, `<name>.inter` and `*_feat.npy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.arguments import checked
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.tables import Batch, open_delimited, open_source
from rawrec.sources.tables.convert import as_text, stored_name
from rawrec.sources.tables.rows import Rows, times_of

FEATURE = "_feat.npy"
FIRST = ("image", "text")  # the order of features, which gives them their roles; the others follow by name
MAX_ID = 10**8
MAX_WIDTH = 1 << 16
"""Of a feature; a wider one is none."""
ITEMS_AT_ONCE = 4096


@checked()
def import_mmrec(
    folder: str | Path,
    *,
    out: str | Path,
    split: SplitSpec | None = None,
    pictures: UrlPictures | None = None,
    encoding: str | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import `<name>.inter` (tab-separated; userID, itemID and, where present, rating, timestamp, x_label).

    Every row is a positive. The items are 0 up to the largest itemID, as MMRec counts them. Ids are those of
    `i_id_mapping.csv` and `u_id_mapping.csv` where there are any, else the numbers of the file. `<field>_feat.npy`
    becomes the feature `<field>`, its row being the itemID; a row with a value that is not finite is missing. Features
    stand in the order image, text, all others by name. Files that hold pickled objects are never read, but counted.
    pictures: a table of addresses of pictures, to be downloaded.
    encoding: of the tables that are text (default: UTF-8, else as each is found to be).
    split: default the column x_label (0 train, 1 valid, 2 test), without it at random per user.
    allow_empty: as of `import_table`.

    Raises UserError for absent files and columns and files that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist or is not a folder")
    files = sorted(folder.glob("*.inter"))
    if len(files) != 1:
        found = listed((path.name for path in files or sorted(folder.iterdir())), none="nothing")
        raise UserError(f"{folder} must hold one .inter file; found: {found}")
    report = ImportReport(source=f"MMRec {files[0].stem}")
    source = open_source(files[0], report, encoding)
    source.require("userID and itemID", ["userID", "itemID"])
    time = "timestamp" if "timestamp" in source.columns else None
    extra = {n: t for n, t in {"rating": pa.float64(), "x_label": pa.int64()}.items() if n in source.columns}
    if split is None:
        given = SplitSpec.model_validate({"kind": "column", "column": "x_label"})
        split = given if "x_label" in source.columns else SplitSpec.model_validate({"kind": "random_user"})
    features = _features(folder, report)
    item_names, user_names = (_names(folder, kind, report, encoding) for kind in ("item", "user"))
    cleaner = Rows(report, "userID", "itemID", time, extra=extra, times=times_of(report, [source], time))
    with (
        DatasetWriter(
            out,
            fields=Fields(
                image=[], text=[], categorical=[], numeric=[], feature={n: f.shape[1] for n, f in features.items()}
            ),
            source=report.source,
            labels=[],
            label_rule="every interaction is positive",
            extra=extra,
            has_time=time is not None,
            needed=(),
            allow_empty=allow_empty,
            overwrite=overwrite,
            pictures=pictures,
        ) as writer,
        Bar(progress) as bar,
    ):
        largest = -1
        for batch in bar.track("interactions", source, cleaner.columns):
            rows = cleaner.clean(_numbered(batch, report, {"userID": len(user_names), "itemID": len(item_names)}))
            if len(rows["item_id"]):
                largest = max(largest, int(rows["item_id"].cast(pa.int64()).to_numpy().max()))
            rows |= {"user_id": _named(rows["user_id"], user_names), "item_id": _named(rows["item_id"], item_names)}
            writer.add_interactions(rows)
        cleaner.finish(str(source.path))
        n_items = largest + 1
        for name, values in features.items():
            if len(values) > n_items:
                report.skip(
                    f"feature {name}: row beyond the largest itemID",
                    f"{name}{FEATURE}:{n_items}",
                    len(values) - n_items,
                )
        for at in range(0, n_items, ITEMS_AT_ONCE):
            stop = min(at + ITEMS_AT_ONCE, n_items)
            columns: dict[str, Any] = {"item_id": _named(pa.array(np.arange(at, stop)), item_names)}
            for name, values in features.items():
                columns[name] = _rows_of(values, at, stop)
                missing = ~np.isfinite(columns[name]).all(1)
                if missing.any():
                    examples = [f"{name}{FEATURE}:{at + i}" for i in np.flatnonzero(missing)[:20].tolist()]
                    report.skip(f"feature {name}: row is absent or not finite", examples, int(missing.sum()))
            writer.add_items(columns)
        report.add_read("items", n_items)
        return writer.finish(split, report)


def _numbered(batch: Batch, report: ImportReport, names: dict[str, int]) -> Batch:
    """The rows whose ids are whole numbers from 0 to `MAX_ID`, the ids written without leading zeros.

    names: how many ids the numbers have; with any, numbers without one are left out too.
    """
    columns = dict(batch.columns)
    good = np.ones(len(batch.rows), dtype=bool)
    for name, known in names.items():
        most = known - 1 if known else MAX_ID
        values = pl.Series(as_text(columns[name], name)).str.strip_chars().cast(pl.Int64, strict=False)
        fits = values.is_between(0, most).fill_null(False).to_numpy() & batch.readable(name)
        if (bad := good & ~fits).any():
            report.add_read("interactions", int(bad.sum()))
            report.skip(f"{name} is no whole number from 0 to {most:,}", batch.examples(bad, name), int(bad.sum()))
            good &= fits
        columns[name] = values.cast(pl.String).to_arrow().cast(pa.string())
    return Batch(batch.file, batch.rows, columns).keep(good)


def _names(folder: Path, kind: str, report: ImportReport, encoding: str | None) -> pa.Array:
    """The ids behind the numbers 0, 1, 2 ..., of `i_id_mapping.csv` or `u_id_mapping.csv`; empty without a good one."""
    path, column = folder / f"{kind[0]}_id_mapping.csv", f"{kind}ID"
    nothing = pa.array([], pa.string())
    if not path.exists():
        return nothing
    try:
        source = open_delimited(path, report, "\t", quotes=False, encoding=encoding)
    except UserError as error:
        report.note(f"not used: {error}")
        return nothing
    others = [name for name in source.columns if name != column]
    if column in source.columns and others:
        batches = [batch.columns for batch in source.batches([column, others[0]])]
        numbers, names = (
            pl.Series(pa.chunked_array([b[name] for b in batches], pa.string())).str.strip_chars()
            for name in (column, others[0])
        )
        numbers = numbers.cast(pl.Int64, strict=False)
        order = numbers.arg_sort()
        names = names.gather(order)
        whole = np.array_equal(numbers.gather(order).to_numpy(), np.arange(len(names)))
        if whole and names.is_unique().all() and (names != "").all():
            return names.to_arrow().cast(pa.string())
    report.note(f"{path.name} does not give every {column} from 0 an id of its own: not used")
    return nothing


def _named(numbers: pa.Array, names: pa.Array) -> pa.Array:
    """The id of each number; without names the number itself."""
    return names.take(numbers.cast(pa.int64())) if len(names) else numbers.cast(pa.string())


def _features(folder: Path, report: ImportReport) -> dict[str, np.ndarray]:
    """Feature name -> `[rows, width]`, mapped from disk, in order; every other .npy file is counted as skipped."""
    result: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.npy")):
        if not path.name.endswith(FEATURE):
            report.skip(f"file is no feature (not named <field>{FEATURE}); not read", path.name)
            continue
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception:  # the header is Python text: a damaged one raises nearly everything
            report.skip("file is not an array of plain numbers (pickled objects are never read)", path.name)
            continue
        if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.size or values.shape[1] > MAX_WIDTH:
            report.skip("file is not an array [items, width] of numbers", f"{path.name} {values.dtype} {values.shape}")
            continue
        result[stored_name(path.name.removesuffix(FEATURE))] = values
    names = [name for name in FIRST if name in result]
    return {name: result[name] for name in names + sorted(result.keys() - names)}


def _rows_of(values: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Rows `start` to `stop` as float32 `[stop - start, width]`; nan where the array has no such row."""
    result = np.full((stop - start, values.shape[1]), np.nan, dtype=np.float32)
    part = values[start:stop]
    with np.errstate(over="ignore"):  # what float32 cannot hold is inf, and so missing
        result[: len(part)] = part
    return result
