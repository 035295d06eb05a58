"""Numbers of ids against a dictionary, whatever their hashes."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.data.numbering import Numbering


def expected(known: dict[str, int], batch: list[str]) -> list[int]:
    return [known.setdefault(word, len(known)) for word in batch]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text(max_size=3), max_size=30), max_size=6))
def test_ids_are_numbered_by_first_appearance(batches: list[list[str]]) -> None:
    codes, known = Numbering(), {}
    for batch in batches:
        ids = pa.chunked_array([batch[:5], batch[5:]], pa.string())
        assert codes.encode(ids).to_pylist() == expected(known, batch)
    assert codes.ids.to_pylist() == list(known) and len(codes) == len(known)
    asked = ["", "new id", *known]
    assert codes.known(pa.array([*asked, *asked])).tolist() == [word in known for word in asked] * 2


def test_the_table_grows() -> None:
    chance, codes, known = np.random.default_rng(0), Numbering(), {}
    for size in (100, 3000, 10, 40_000):
        batch = [f"user-{i}" for i in chance.integers(0, 20_000, size).tolist()]
        assert codes.encode(pa.array(batch)).to_pylist() == expected(known, batch)


def test_ids_with_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl.Series, "hash", lambda self: pl.Series(np.full(len(self), 2**64 - 1, np.uint64)))
    codes, known = Numbering(), {}
    for batch in (["b", "a", "b"], ["c", "a", ""], [f"{i % 40}" for i in range(60)]):
        assert codes.encode(pa.array(batch)).to_pylist() == expected(known, batch)
