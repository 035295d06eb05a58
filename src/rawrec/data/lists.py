"""Recommended lists of users in the forms that other tools read; streamed, each file there whole or not at all."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rawrec.files import create, replacing
from rawrec.forks import check_not_forked
from rawrec.lazily import Lazily

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")

LIST_FORMS = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
LISTS = pa.schema([("user_id", pa.string()), ("items", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])


def write_lists(tables: Iterable[pa.Table], path: Path) -> None:
    """Write lists to `path`, in the form that its suffix names, one of LIST_FORMS.

    tables: of the schema LISTS, some users at a time; items are ids, best first. `.parquet`: the same rows. `.jsonl`:
    an object with these keys per user. `.csv`: user_id, rank (from 1), item_id, score, a row per item; users with an
    empty list have none there. Takes memory for one table. Raises OSError where the file cannot be written.
    """
    with replacing(path) as partial:
        if path.suffix == ".parquet":
            with pq.ParquetWriter(partial, LISTS) as writer:
                for table in tables:
                    writer.write_table(table)
            return
        check_not_forked()
        table_of_items = path.name.removesuffix(".gz").endswith(".csv")
        with create(partial) as raw, _stream(raw, path) as file:
            if table_of_items:
                file.write(b"user_id,rank,item_id,score\n")
            for table in tables:
                lists = pl.DataFrame(table)
                text = _row_per_item(lists).write_csv(include_header=False) if table_of_items else lists.write_ndjson()
                file.write(text.encode())


def _stream(raw: Any, path: Path) -> Any:
    """`raw`, packed where the name says so: without name and time in it, so that equal lists make equal files."""
    return gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0) if path.suffix == ".gz" else nullcontext(raw)


def _row_per_item(lists: pl.DataFrame) -> pl.DataFrame:
    lists = lists.filter(pl.col("items").list.len() > 0)
    ranked = lists.with_columns(rank=pl.int_ranges(1, pl.col("items").list.len() + 1))
    return ranked.explode("rank", "items", "scores").select("user_id", "rank", "items", "scores")
