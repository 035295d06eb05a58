"""Distinct rows are those that sorting finds, near each other or far apart."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.distinct import distinct, with_places

NEAR, FAR = st.integers(-1, 30), st.integers(-(2**40), 2**40)


@given(st.one_of(st.lists(NEAR, max_size=40), st.lists(FAR, max_size=8)), st.booleans())
@settings(deadline=None)
def test_as_sorted(rows: list[int], square: bool) -> None:
    given_ = torch.tensor(rows, dtype=torch.int64)
    if square and len(rows) % 2 == 0:
        given_ = given_.view(2, -1)
    found, places = with_places(given_)
    assert found.tolist() == sorted(set(rows)) == distinct(given_).tolist()
    assert torch.equal(found[places], given_)
