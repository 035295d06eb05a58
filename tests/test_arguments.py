"""Arguments of public functions: what is taken, and what is said of what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from rawrec.arguments import COUNT, ID, IDS, LARGEST_SEED, SEED, checked, number, optional, shown, whole
from rawrec.errors import UserError


class Thing:
    """Something of a class of its own."""


@checked(k=COUNT, user=optional(ID), history=optional(IDS), seed=SEED, level=number(0, 1))
def asked(
    thing: Thing | str | Path | None = None,
    user: str | None = None,
    history: Sequence[str] | None = None,
    k: int = 10,
    plain: int = 0,
    level: float = 0.95,
    seed: int = 0,
    flag: bool = False,
    mode: Literal["one", "other"] = "one",
    how: bool | Literal["much", "less"] | None = None,
    overrides: Mapping[str, Any] | None = None,
    words: Sequence[str] = (),
    items: Iterable[Mapping[str, Any]] = (),
    observer: Callable[..., None] | None = None,
    anything: Any = None,
) -> int:
    return k


FINE = [
    {}, {"k": 3}, {"k": np.int64(3)}, {"thing": "a"}, {"thing": Path("a")}, {"thing": Thing()}, {"user": "u"},
    {"user": 7}, {"history": ["a", 1]}, {"history": np.array(["a"])}, {"history": ()}, {"level": 0.5},
    {"level": np.float32(0.5)}, {"seed": LARGEST_SEED}, {"flag": True}, {"mode": "other"}, {"how": "less"},
    {"how": False}, {"overrides": {"a.b": 1}}, {"words": ("a",)}, {"items": iter([{}])}, {"observer": print},
    {"anything": object()}, {"plain": -5},
]  # fmt: skip

WRONG = {
    "k": ["3", None, 2.0, 0, -1, 2**70, True, float("nan"), [1], b"1"],
    "plain": [2.5, "0", None, False, 2**40],
    "thing": [7, b"path", "", "a\0b", "\ud800", object(), ["a"]],
    "user": [b"b", 2.0, True, ["u"], float("nan")],
    "history": ["abc", b"abc", {"a": 1}, [None], [b"b"], [2.0], 7, np.array("x")],
    "level": ["x", 0, 1, 2, float("nan"), float("inf"), True, 10**400, -(10**400)],
    "seed": [-1, 2**64, 1.0, "1"],
    "flag": [1, "yes", None],
    "mode": ["none", 1, True, None],
    "how": ["none", 1, 0],
    "overrides": [[], "a=1", {1: 2}, 7],
    "words": ["abc", [1], 7, None],
    "items": ["abc", {"a": 1}, 7],
    "observer": ["print", 7],
}


@pytest.mark.parametrize("given", FINE, ids=[str(i) for i in range(len(FINE))])
def test_what_fits_is_handed_on(given: dict[str, Any]) -> None:
    assert asked(**given) == given.get("k", 10)


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(UserError, match=rf"^{name}=.*: give ") as caught:
            asked(**{name: value})
        assert len(str(caught.value)) < 250 and "\n" not in str(caught.value), value


def test_arguments_without_a_name_are_checked() -> None:
    with pytest.raises(UserError, match=r"^user=b'b': give an id, a string, or None$"):
        asked(None, b"b")  # pyright: ignore[reportArgumentType]


def test_messages_are_short() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError

    for value in ("x" * 10**6, b"x" * 10**6, ["x" * 10**6], 10 ** (10**5), list(range(10**5)), "\n" * 100, Odd()):
        assert len(shown(value)) <= 60 and "\n" not in shown(value)
    assert shown("a") == "'a'" and shown(2.0) == "2.0"


def test_words_say_the_range() -> None:
    for rule, words in ((whole(1, 5, "items"), "a whole number of items, 1 or more, at most 5"),
                        (number(0, 1), "a number above 0 and below 1")):  # fmt: skip
        assert rule.wanted == words


def test_methods_keep_their_name_and_place() -> None:
    class Holder:
        @checked()
        def method(self, k: int) -> int:
            """What it does."""
            return k

        @classmethod
        @checked()
        def make(cls, path: str | Path) -> str:
            return str(path)

    assert Holder().method(3) == 3 and Holder.method.__doc__ == "What it does." and Holder.make("a") == "a"
    with pytest.raises(UserError, match=r"^k='3'"):
        Holder().method("3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"^path=7: give a path"):
        Holder.make(7)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        Holder().method()  # pyright: ignore[reportCallIssue]
