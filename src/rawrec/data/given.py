"""What comes to items from elsewhere than their own batch, as writers see it: vectors, and pictures by address."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.arrays import Values
from rawrec.data.checked import Checked
from rawrec.data.import_report import ImportReport
from rawrec.lazily import Lazily

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")

AT_ONCE = 16 << 20
"""Bytes of vectors of items in memory at a time."""

Found = tuple[pl.Series, NDArray[np.int64], NDArray[Any]]
"""Ids `[n]`, the row of each `[n]`, and the values, which have these rows."""


class VectorFile(Protocol):
    """A file of vectors of items, for the feature `field`."""

    @property
    def field(self) -> str: ...

    def read(self, width: int, folder: Path, report: ImportReport) -> Found:
        """Its vectors, which must be `width` wide. folder: where they are put if they cannot be read in any order from
        where they are. Raises UserError for a file that cannot be used."""
        ...


class Addresses(Protocol):
    """Where the addresses of pictures are, which become the image field `field` of a dataset."""

    @property
    def field(self) -> str: ...

    def open(self, out: Path) -> PictureSource:
        """The pictures for the dataset `out`. Raises UserError for addresses that cannot be used."""
        ...


class PictureSource(Protocol):
    """Puts pictures in the place of addresses, in batches of items on their way into a dataset."""

    def parts(
        self, item_ids: Sequence[str], batch: Mapping[str, Values], checked: Checked
    ) -> Iterator[dict[str, Values]]:
        """The batch in parts with some MiB of pictures each. item_ids `[n]`: its ids, as the dataset holds them."""
        ...

    def account(self, report: ImportReport) -> None:
        """Add to `report` what was read and skipped, and what there is to say."""
        ...

    def close(self) -> None: ...


class ItemVectors:
    """The vectors of a `VectorFile` by item id. Of several vectors of one item the first counts.

    folder: where vectors are put that cannot be read in any order from where they are. Memory: the ids.
    Raises UserError for a file that cannot be used, above all for vectors that are not `width` wide.
    """

    def __init__(self, file: VectorFile, width: int, folder: Path, report: ImportReport) -> None:
        self.field, self.width, self._report = file.field, width, report
        found, rows, self._values = file.read(width, folder, report)
        again = ~found.is_first_distinct()
        self._count("an item has several vectors (the first counts)", found.filter(again))
        found, rows = found.filter(~again), rows[~again.to_numpy()]
        order = found.arg_sort()
        self.ids, self._rows = found.gather(order), rows[order.to_numpy()]
        self._used = np.zeros(len(rows), bool)
        self._lost = np.zeros(len(rows), bool)

    def of(self, items: Values) -> NDArray[np.float32]:
        """The vectors of items, by their ids, `[n, width]`; nan where there is none."""
        result = np.full((len(items), self.width), np.nan, np.float32)
        if not len(self.ids):
            return result
        wanted = pl.Series(items, dtype=pl.String).str.strip_chars()
        places = self.ids.search_sorted(wanted).to_numpy().clip(max=len(self.ids) - 1)
        known = (self.ids.gather(places) == wanted).to_numpy()
        places = places[known]
        with np.errstate(over="ignore"):  # what float32 cannot hold is inf, and so missing
            values = self._values[self._rows[places]].astype(np.float32)
        result[known] = values
        self._used[places] = True
        self._lost[places] = ~np.isfinite(values).all(1)
        return result

    def account(self, known: Callable[[pa.Array], NDArray[np.bool_]] | None) -> None:
        """Report what became of the vectors. known: which items the dataset had before; None: it is a new one."""
        self._report.add_kept("vectors", int((self._used & ~self._lost).sum()))
        self._count("a value is not finite (missing)", self.ids.filter(pl.Series(self._lost)))
        unused = self.ids.filter(pl.Series(~self._used))
        if known is None:
            self._count("the item is not in the dataset", unused)
            return
        there = pl.Series(known(unused.to_arrow().cast(pa.string())), dtype=pl.Boolean)
        self._count("the item is in the dataset already (kept as it is; see --update)", unused.filter(there))
        self._count("the item is neither in the dataset nor appended", unused.filter(~there))

    def _count(self, reason: str, items: pl.Series) -> None:
        if len(items):
            self._report.skip(f"feature {self.field}: {reason}", items.head(20).to_list(), len(items))


class GivenVectors:
    """Files of vectors, joined to items by their ids. folder: for what has to be unpacked; it goes at `close`."""

    def __init__(self, folder: Path) -> None:
        self.files: list[ItemVectors] = []
        self._folder = folder

    def open(self, file: VectorFile, width: int, report: ImportReport) -> None:
        """Take a file. Raises UserError for one that cannot be used."""
        self._folder.mkdir(exist_ok=True)
        self.files.append(ItemVectors(file, width, self._folder, report))

    def join(self, batch: Mapping[str, Values]) -> Iterator[Mapping[str, Values]]:
        """Items with the features that the batch has not itself, in parts of bounded size."""
        given = [vectors for vectors in self.files if vectors.field not in batch]
        if not given:
            yield batch
            return
        step = max(1, AT_ONCE // (4 * sum(vectors.width for vectors in given)))
        for at in range(0, len(batch["item_id"]), step):
            part = {name: values[at : at + step] for name, values in batch.items()}
            yield part | {vectors.field: vectors.of(part["item_id"]) for vectors in given}

    def close(self, known: Callable[[pa.Array], NDArray[np.bool_]] | None = None) -> None:
        """Report what became of the vectors. known: which items the dataset had before; None: it is a new one."""
        for vectors in self.files:
            vectors.account(known)
        shutil.rmtree(self._folder, ignore_errors=True)
