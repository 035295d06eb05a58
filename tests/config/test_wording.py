"""What is said of a wrong word stays short, however long the word is."""

from __future__ import annotations

import pytest

from rawrec import UserError
from rawrec.config import resolve


@pytest.mark.parametrize("word", ["x" * 1_000_000, "['p0001', " * 1000])
def test_a_message_is_short_whatever_the_word(word: str) -> None:
    with pytest.raises(UserError) as said:
        resolve("em3", {"model.name": word})
    assert len(str(said.value)) < 500 and "is unknown" in str(said.value)
