"""What callers of public functions give, checked in one place: types by the annotations, ranges by `checked`.

A wrong value is a UserError that names the argument, what was found, shortened, and what is expected. The work is done
once for each function; a call then costs some microseconds, so that what is called in loops over rows goes without.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from rawrec.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 60
"""Characters of a value that a message shows."""
LONGEST_PATH = 4095
"""Bytes of a path that Linux takes."""
LARGEST_SEED = 2**64 - 1
LARGEST = 2**31 - 1
"""Of counts: lists, batches, threads and samples that are numbered by int32 or handed to libraries as C integers."""


class Rule(NamedTuple):
    """What an argument may be. fits: whether a value is so; wanted: the same in words, after "give"."""

    fits: Callable[[Any], bool]
    wanted: str

    def check(self, name: str, value: Any) -> None:
        """UserError where `value` does not fit."""
        if not self.fits(value):
            raise UserError(f"{name}={shown(value)}: give {self.wanted}")


def shown(value: Any) -> str:
    """A value as Python writes it, on one line and at most SHOWN characters, however large it is."""
    if isinstance(value, str | bytes | bytearray):
        text = repr(value[:SHOWN])
        cut = len(value) > SHOWN
    else:
        text, cut = _written(value), False
    return text if len(text) <= SHOWN and not cut else text[: SHOWN - 1] + "…"


def _written(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * SHOWN:
        return f"a whole number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float | Path):
        return repr(value)
    if isinstance(value, list | tuple | set | frozenset | dict) and len(value) > SHOWN:
        return f"a {type(value).__name__} of {len(value)}"
    try:
        return " ".join(repr(value).split())
    except Exception:  # what an object says of itself is its own code
        return f"a {type(value).__name__}"


# ---------------------------------------------------------------------------------------------------------------- rules
def whole(least: int | None = None, most: int = LARGEST, of: str = "") -> Rule:
    """A whole number (of Python or NumPy, no truth value) from `least` to `most`. of: what it counts, for messages."""
    words = f"a whole number{f' of {of}' if of else ''}"
    words += "" if least is None else f", {least} or more"
    words += "" if most == LARGEST else f", at most {most}"

    def fits(value: Any) -> bool:
        integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return integral and (least is None or int(value) >= least) and int(value) <= most

    return Rule(fits, words)


def number(above: float = -math.inf, below: float = math.inf) -> Rule:
    """A finite number between two that it must not reach."""
    words = "a number" if math.isinf(above) else f"a number above {above:g}"
    words += "" if math.isinf(below) else f"{' and' if not math.isinf(above) else ''} below {below:g}"

    def fits(value: Any) -> bool:
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return False
        try:
            return math.isfinite(value) and above < float(value) < below
        except OverflowError:  # a whole number beyond all others
            return False

    return Rule(fits, words)


def optional(rule: Rule) -> Rule:
    """The same, or None."""
    return Rule(lambda value: value is None or rule.fits(value), f"{rule.wanted}, or None")


def one_of(*values: Any) -> Rule:
    """One of some strings, truth values or None."""
    kinds = {type(value) for value in values}
    words = ", ".join(repr(value) for value in values)
    return Rule(lambda value: type(value) in kinds and value in values, f"one of {words}")


def many(rule: Rule) -> Rule:
    """A list or another sequence (an array, a series), no string and no mapping, of things that fit `rule`."""
    words = f"a list, each entry {rule.wanted}" if rule is not ANYTHING else "a list"

    def fits(value: Any) -> bool:
        single = isinstance(value, str | bytes | bytearray | memoryview | Mapping)
        there = not single and hasattr(value, "__len__") and hasattr(value, "__iter__") and getattr(value, "ndim", 1)
        return bool(there) and (rule is ANYTHING or all(map(rule.fits, value)))

    return Rule(fits, words)


def _ids(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, numbers.Integral) and not isinstance(value, bool))


def _strings(value: Any) -> bool:
    """Whether this is a list of strings alone, as a list of ids mostly is: a tenth of the time of entry by entry."""
    return isinstance(value, list) and set(map(type, value)) == {str}


def _named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _path(value: Any) -> bool:
    if not isinstance(value, str | os.PathLike):
        return False
    path = os.fspath(value)
    try:
        written = os.fsencode(path)
        return isinstance(path, str) and 0 < len(written) <= LONGEST_PATH and b"\0" not in written
    except UnicodeEncodeError:  # half a sign, which no file system takes
        return False


ANYTHING = Rule(lambda value: True, "anything")
TEXT = Rule(lambda value: isinstance(value, str), "a string")
YES_OR_NO = Rule(lambda value: isinstance(value, bool), "True or False")
PATH = Rule(_path, "a path, as a string or a pathlib.Path")
ID = Rule(_ids, "an id, a string")
_SOME_IDS = many(ID)
IDS = Rule(lambda value: _strings(value) or _SOME_IDS.fits(value), _SOME_IDS.wanted)
COUNT = whole(1)
SEED = whole(0, LARGEST_SEED)
NAMED = Rule(_named, "values by name, a dict")
CALLABLE = Rule(callable, "a function")


def either(*rules: Rule) -> Rule:
    """What fits one of several rules."""
    words = list(dict.fromkeys(rule.wanted for rule in rules))
    return Rule(lambda value: any(rule.fits(value) for rule in rules), " or ".join(words))


def rule_of(hint: Any) -> Rule:
    """The rule that an annotation stands for; what is known of no class is anything."""
    simple = {int: whole(), float: number(), bool: YES_OR_NO, str: TEXT, Path: PATH, None: _NONE, type(None): _NONE}
    if hint is Any or isinstance(hint, TypeVar):
        return ANYTHING
    if isinstance(hint, Rule):
        return hint
    if _of_paths(hint):
        return PATH
    if hint in simple:
        return simple[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return next((extra for extra in inner[1:] if isinstance(extra, Rule)), rule_of(inner[0]))
    if origin is Literal:
        return one_of(*inner)
    if origin in (Union, types.UnionType):
        return _union(inner)
    if origin is collections.abc.Callable:
        return CALLABLE
    kind = origin or hint
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return ANYTHING
    return _of_class(kind, inner)


_NONE = Rule(lambda value: value is None, "None")


def _union(members: tuple[Any, ...]) -> Rule:
    if any(_of_paths(member) for member in members):  # `str | Path` is a path, whose string must be one
        members = tuple(member for member in members if member is not str)
    rules = [rule_of(member) for member in members]
    if ANYTHING in rules:
        return ANYTHING
    return either(*(rule for rule in rules if rule is not _NONE), *(rule for rule in rules if rule is _NONE))


def _of_paths(hint: Any) -> bool:
    return hint is Path or (get_origin(hint) or hint) is os.PathLike


def _of_class(kind: type, inner: tuple[Any, ...]) -> Rule:
    if issubclass(kind, Mapping):
        return NAMED if inner[:1] == (str,) else Rule(lambda value: isinstance(value, Mapping), "a dict")
    if issubclass(kind, Sequence):
        return many(rule_of(inner[0]) if inner else ANYTHING)
    if kind is collections.abc.Iterable:
        return Rule(lambda v: isinstance(v, Iterable) and not isinstance(v, str | bytes | Mapping), "a list")
    return Rule(lambda value: isinstance(value, kind), f"a {kind.__name__}")


# ----------------------------------------------------------------------------------------------------------- a function
def checked(**rules: Rule) -> Callable[[F], F]:
    """A decorator: a function whose arguments are checked before it runs.

    rules: of arguments by name, in the place of what their annotations say. A default is not checked.

    >>> @checked(k=COUNT)
    ... def recommend(user: str, k: int = 10): ...
    >>> recommend("42", k="3")
    Traceback (most recent call last):
    rawrec.errors.UserError: k='3': give a whole number, 1 or more
    """

    def decorate(function: F) -> F:
        named = list(inspect.signature(function).parameters)
        unknown = rules.keys() - set(named)
        assert not unknown, f"{function.__qualname__} has no arguments {unknown}"
        found: dict[str, Rule] = {}

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            if not found:
                found.update(_rules(function, rules))
            for name, value in zip(named, args, strict=False):
                if (rule := found.get(name)) is not None:
                    rule.check(name, value)
            for name, value in given.items():
                if (rule := found.get(name)) is not None:
                    rule.check(name, value)
            return function(*args, **given)

        return typing.cast("F", call)

    return decorate


def _rules(function: Callable[..., Any], given: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rule of every argument that has one. Read at the first call: a module may not be whole before."""
    hints = typing.get_type_hints(function, include_extras=True)
    found = {name: rule_of(hint) for name, hint in hints.items() if name != "return"} | dict(given)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            found.pop(name, None)
        elif parameter.default is None and name in found:
            found[name] = found[name] if found[name].fits(None) else optional(found[name])
    return found
