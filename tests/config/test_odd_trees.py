"""Settings with something else in one place, whatever and wherever: an error that names it, or settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest

from rawrec.config import resolve
from rawrec.config.validation import validate
from rawrec.errors import UserError

ODD: dict[str, Any] = {
    "a fraction": 3.5,
    "a list": [[1]],
    "an object": {"image": 3.5},
    "nothing": None,
    "a text": "ab",
    "a huge number": 10**30,
}


def places(tree: Any, place: tuple = ()) -> Iterator[tuple]:
    """Where something stands in nested settings, from the top."""
    if place:
        yield place
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        yield from places(value, (*place, key))


@pytest.mark.parametrize("model", ["em3", "lemur", "vbpr"])
@pytest.mark.parametrize("odd", ODD)
def test_one_odd_value_anywhere(model: str, odd: str) -> None:
    tree = resolve(model, {}, {"image": "image", "title": "text"}).dump()
    for place in places(tree):
        changed = deepcopy(tree)
        inside: Any = changed
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = ODD[odd]
        with suppress(UserError):
            validate(changed)


def test_an_odd_field_of_content_is_named() -> None:
    tree = resolve("em3", {}, {"image": "image", "title": "text"}).dump()
    for value in (3.5, "ab", [1]):
        tree["content"]["fields"] = value
        with pytest.raises(UserError, match=r"content\.fields"):
            validate(tree)
    tree["content"] |= {"fields": {"image": 3.5}, "image": {"train": "none"}}
    with pytest.raises(UserError, match=r"content\.fields\.image=3\.5"):
        validate(tree)
