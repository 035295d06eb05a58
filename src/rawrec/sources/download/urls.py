"""Pictures given by address, for every importer: downloaded while the items go into a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.data.arrays import Values
from rawrec.data.checked import Checked
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.extras import need
from rawrec.sources.download.addresses import is_public
from rawrec.sources.tables import Batch, open_source
from rawrec.sources.tables.convert import string_lists
from rawrec.sources.tables.rows import read_ids

if TYPE_CHECKING:
    from rawrec.sources.download.folder import Downloads

ITEMS_AT_ONCE = 65536
BETWEEN = re.compile(r"[\s|]+(?=https?://)", re.IGNORECASE)
QUOTED = re.compile(r"""(['"])(.+?)\1""")


@dataclass(frozen=True)
class UrlPictures:
    """Where the addresses of pictures are, and how they are downloaded.

    table: a table of item ids and addresses, in the columns `table_id` (default: the first) and `table_url` (default:
    the second). An item may have several rows, and a value several addresses (see `addresses`). Without it only
    importers that find addresses in their own files have any.
    field: the image field that the pictures become. downloads: the folder that keeps them (default: `<out>.downloads`
    beside the dataset). retry_failed: ask also for what failed in an earlier import. allow_private: connect also to
    addresses that are not of the open internet. per_host: connections at once to one host. per_second: requests to one
    host. encoding: of the table, if it is text.

    Raises UserError for numbers out of range.
    """

    table: str | Path | None = None
    table_id: str | None = None
    table_url: str | None = None
    field: str = "image"
    downloads: str | Path | None = None
    retry_failed: bool = False
    allow_private: bool = False
    per_host: int = 16
    per_second: float | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.per_host <= 64:
            raise UserError(f"per_host={self.per_host}: use 1 to 64 connections to one host")
        if self.per_second is not None and not 0 < self.per_second <= 10_000:
            raise UserError(f"per_second={self.per_second:g}: use a number above 0 and up to 10,000")
        if self.table is None and (self.table_id or self.table_url):
            raise UserError(f"column {self.table_id or self.table_url!r} is of the table of addresses: name that table")

    @property
    def column(self) -> str:
        """The column of a batch of items that holds each item's addresses, where the importer has them."""
        return f"urls/{self.field}"

    def open(self, out: Path) -> UrlSource:
        """The source of the pictures for the dataset `out`. Raises UserError for a table that cannot be used."""
        return UrlSource(self, out)


class UrlSource:
    """Puts pictures in the place of addresses, in batches of items on their way into a dataset."""

    def __init__(self, pictures: UrlPictures, out: Path) -> None:
        need("aiohttp", "pictures by address are downloaded by aiohttp")
        from rawrec.sources.download.folder import Downloads  # its HTTP client takes a while to load
        from rawrec.sources.download.safe_http import Limits

        self._report = ImportReport()
        self._field, self._column = pictures.field, pictures.column
        self._table = _Table(pictures, self._report) if pictures.table is not None else None
        self._some = False
        limits = Limits(
            per_host=pictures.per_host,
            per_second=pictures.per_second,
            allowed=(lambda _: True) if pictures.allow_private else is_public,
        )
        folder = Path(pictures.downloads) if pictures.downloads is not None else out.with_name(f"{out.name}.downloads")
        self._downloads: Downloads = Downloads(folder, self._report, limits, retry_failed=pictures.retry_failed)

    def parts(
        self, item_ids: Sequence[str], batch: Mapping[str, Values], checked: Checked
    ) -> Iterator[dict[str, Values]]:
        """The batch in parts with some MiB of pictures each; the column of addresses goes, the field comes.

        item_ids `[n]`: the ids of the batch's items, as the dataset holds them.
        """
        columns: dict[str, Any] = dict(batch)
        own = columns.pop(self._column, None)
        for at in range(0, len(item_ids), ITEMS_AT_ONCE):
            some = slice(at, at + ITEMS_AT_ONCE)
            items = item_ids[some]
            rows = self._addresses(items, None if own is None else own[some])
            self._some = self._some or any(rows)
            for part, pictures in self._downloads.fetch(rows, items, checked):
                where = slice(at + part.start, at + part.stop)
                yield {name: values[where] for name, values in columns.items()} | {self._field: pictures}

    def _addresses(self, items: Sequence[str], own: Sequence[Sequence[str]] | None) -> list[list[str]]:
        """Per item its distinct addresses, those of its own batch first."""
        found = [list(dict.fromkeys(urls)) for urls in own] if own is not None else [[] for _ in items]
        if self._table is None:
            return found
        return [list(dict.fromkeys([*a, *b])) for a, b in zip(found, self._table.of(items), strict=True)]

    def account(self, report: ImportReport) -> None:
        """Add to `report` what was read and skipped, and what there is to say."""
        if self._table is not None:
            self._table.count_unused()
        if not self._some:
            self._report.note("no item has the address of a picture: are the ids of the table those of the items?")
        self._downloads.note()
        for what, count in self._report.read.items():
            report.add_read(what, count)
        for what, count in self._report.kept.items():
            report.add_kept(what, count)
        for reason, entry in self._report.skipped.items():
            report.skip(reason, entry.examples, entry.count)
        for text in self._report.notes:
            report.note(text)

    def close(self) -> None:
        self._downloads.close()


class _Table:
    """The addresses of a table, found by item id. Memory: the ids and the addresses."""

    def __init__(self, pictures: UrlPictures, report: ImportReport) -> None:
        assert pictures.table is not None
        source = open_source(Path(pictures.table), report, pictures.encoding)
        item, url = (
            name if name is not None else source.columns[place] if len(source.columns) > place else None
            for place, name in enumerate((pictures.table_id, pictures.table_url))
        )
        if item is None or url is None:
            raise UserError(f"{source.path} has one column, {source.columns[0]!r}: item ids and addresses are needed")
        source.require("the item id of an address", [item])
        source.require("the address of a picture", [url])
        parts = [pl.DataFrame({"item": [], "url": []}, schema={"item": pl.String, "url": pl.List(pl.String)})]
        for batch in source.batches([item, url]):
            found, good = read_ids(batch, item, report, "addresses", "address of a picture without an item id", url)
            rows = addresses(batch.columns[url], f"{batch.file}: {url}")
            part = pl.DataFrame({"item": found, "url": pl.Series(rows, dtype=pl.List(pl.String))})
            parts.append(part.filter(pl.Series(good)))
        table = pl.concat(parts).explode("url").drop_nulls()
        if not len(table):
            raise UserError(f"{source.path} holds no address: look at the column {url!r}")
        table = table.group_by("item", maintain_order=True).agg("url").sort("item")
        self._ids, self._urls = table["item"], table["url"]
        self._used = np.zeros(len(table), bool)
        self._report = report

    def of(self, items: Sequence[str]) -> list[list[str]]:
        wanted = pl.Series(items, dtype=pl.String)
        places = self._ids.search_sorted(wanted).to_numpy().clip(max=len(self._ids) - 1)
        known = (self._ids.gather(places) == wanted).to_numpy()
        self._used[places[known]] = True
        result: list[list[str]] = [[] for _ in items]
        for i, urls in zip(np.flatnonzero(known).tolist(), self._urls.gather(places[known]).to_list(), strict=True):
            result[i] = urls
        return result

    def count_unused(self) -> None:
        unused = self._ids.filter(pl.Series(~self._used))
        if len(unused):
            reason = "address of a picture whose item is not in the dataset"
            self._report.skip(reason, unused.head(20).to_list(), len(unused))


def addresses(column: pa.Array, where: str) -> list[list[str]]:
    """Per row its addresses: of a list, of a JSON or Python list as text, or of one or several between "|" or blanks.

    Raises UserError for values that are neither text nor lists of texts.
    """
    rows = string_lists(column, where, json_lists=True, separator=None)
    return [[url for value in row for url in _split(value)] for row in rows]


def _split(value: str) -> list[str]:
    if value.startswith("[") and value.endswith("]"):  # a list as Python writes it
        return [url for _, url in QUOTED.findall(value)]
    return BETWEEN.split(value)


def column_addresses(batch: Batch, names: Sequence[str]) -> list[list[str]]:
    """Per row of a batch the addresses in its columns `names`, one column after the other."""
    found = [addresses(batch.columns[name], f"{batch.file}: {name}") for name in names]
    return [[url for urls in row for url in urls] for row in zip(*found, strict=True)]
