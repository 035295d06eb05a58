"""Ids numbered by first appearance, in a hash table that grows with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from rawrec.lazily import Lazily

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")

pc: Any = pyarrow.compute  # its functions are made at import, where a type checker does not see them


class Numbering:
    """Ids numbered by first appearance; vectorised, and the work of a call does not grow with the ids known.

    An open hash table: `_slots` has at least twice as many places as there are ids and holds their numbers, -1 where
    free; an id stands at the place that its hash names, or at the first free one after it. Memory: the ids, and 16 to
    24 bytes for each.
    """

    def __init__(self) -> None:
        self.ids = pa.array([], pa.string())
        self._hashes = np.empty(0, np.uint64)
        self._slots = np.full(1 << 10, -1, np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The number of every id, int32; new ids get the next numbers."""
        coded = pa.chunked_array(ids).combine_chunks().dictionary_encode()
        words = coded.dictionary
        hashes = pl.Series(words).hash().to_numpy()
        codes = self._find(words, hashes)
        new = np.flatnonzero(codes < 0)
        codes[new] = np.arange(len(self), len(self) + len(new))
        self.ids = pa.concat_arrays([self.ids, words.take(pa.array(new))])
        self._hashes = np.concatenate([self._hashes, hashes[new]])
        added = codes[new]
        if 2 * len(self) > len(self._slots):
            self._slots = np.full(1 << (2 * len(self)).bit_length(), -1, np.int32)
            added = np.arange(len(self), dtype=np.int32)
        self._insert(added)
        return pa.array(codes).take(coded.indices)

    def known(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Which ids have a number, `[n]`; none gets one."""
        coded = pa.chunked_array(ids).combine_chunks().dictionary_encode()
        found = self._find(coded.dictionary, pl.Series(coded.dictionary).hash().to_numpy()) >= 0
        return found[coded.indices.to_numpy()]

    def _places(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (hashes & np.uint64(len(self._slots) - 1)).astype(np.int64)

    def _find(self, words: pa.Array, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The numbers of distinct ids, -1 where an id is not known."""
        codes = np.full(len(words), -1, np.int32)
        left, places = np.arange(len(words)), self._places(hashes)
        while len(left):
            here = self._slots[places]
            taken = here >= 0
            left, places, here = left[taken], places[taken], here[taken]
            alike = np.flatnonzero(self._hashes[here] == hashes[left])
            same = pc.equal(self.ids.take(pa.array(here[alike])), words.take(pa.array(left[alike])))
            found = alike[same.to_numpy(zero_copy_only=False)]
            codes[left[found]] = here[found]
            left, places = np.delete(left, found), np.delete(places, found)
            places = (places + 1) % len(self._slots)
        return codes

    def _insert(self, codes: NDArray[np.int32]) -> None:
        """Give ids that are not in the table a place each."""
        places = self._places(self._hashes[codes])
        while len(codes):
            free = self._slots[places] < 0
            self._slots[places[free]] = codes[free]  # of several at one place one stays
            lost = self._slots[places] != codes
            codes, places = codes[lost], (places[lost] + 1) % len(self._slots)
