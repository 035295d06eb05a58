"""Which items of a catalogue a list may hold: by their ids, by values of their columns; and the groups they are in."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rawrec.arguments import shown
from rawrec.data.dataset import Dataset
from rawrec.data.names import unknown_name
from rawrec.errors import UserError
from rawrec.models.ranking.columns import finite_number
from rawrec.shown import listed

Where = Mapping[str, Any]
"""Column -> what an item must have there.

Of a categorical column: a value, or a list of values of which the item must have one. True and False stand for the
values `true` or `1` and `false` or `0`. Of a numeric column: a number, a list of numbers, or a tuple (least, most),
both within, None = no bound. `{"not": ...}` of any of these is the reverse. An item that lacks the column has none of
its values.
"""
TRUTH = {True: ("true", "1"), False: ("false", "0")}
NOT = "not"
MASKS = 16
SINGLE = 8
"""Where no more than one in so many items is left out, it takes less time to leave out one by one."""


class Kept(NamedTuple):
    """What a filter keeps: a mask `[n]`, not to be written to, and the rows of what is left out if these are few."""

    mask: NDArray[np.bool_]
    left_out: NDArray[np.int64] | None

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Kept:
        few = np.count_nonzero(mask) >= len(mask) - len(mask) // SINGLE
        return cls(mask, np.flatnonzero(~mask) if few else None)


@dataclass
class Groups:
    """A categorical column of a catalogue: codes `[values]` into `words`, those of item i at `ptr[i]:ptr[i + 1]`.

    one: `[n]`, the code of every item and -1 of those without, where none has several; else None.
    """

    ptr: NDArray[np.int64]
    codes: NDArray[np.int32]
    words: dict[str, int]

    def __post_init__(self) -> None:
        lengths = np.diff(self.ptr)
        self.most = int(lengths.max(initial=0))
        self.one: NDArray[np.int32] | None = None
        if self.most <= 1:
            self.one = np.full(len(lengths), -1, np.int32)
            self.one[lengths > 0] = self.codes

    def having(self, codes: Sequence[int]) -> NDArray[np.bool_]:
        """Which items have one of these values, `[n]`."""
        wanted = np.zeros(len(self.words) + 1, bool)
        wanted[list(codes)] = True
        if self.one is not None:
            return wanted[self.one]  # -1 reads the last one, which is False
        owners = np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))
        found = np.zeros(len(self.ptr) - 1, bool)
        found[owners[wanted[self.codes]]] = True
        return found

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Codes of items `rows` of any shape (-1: no item), `[*rows.shape, most]`, -1 = none."""
        if self.one is not None:
            return np.where(rows >= 0, self.one[rows], -1)[..., None].astype(np.int64)
        places = self.ptr[rows][..., None] + np.arange(self.most)
        there = (places < self.ptr[rows + 1][..., None]) & (rows >= 0)[..., None]
        found = np.where(there, self.codes[places.clip(max=len(self.codes) - 1)], -1).astype(np.int64)
        found.sort(axis=-1)
        found[..., 1:][found[..., 1:] == found[..., :-1]] = -1  # a value that an item has twice is one
        return found


class Columns:
    """The categorical and numeric columns of a catalogue: of a dataset's items, and of those behind them.

    A column is read when it is first asked for, and then held: 4 bytes per item of a category, 8 of a number. added: of
    every item behind the dataset's its values by column. What the latest MASKS different `where` keep is held too, a
    byte or two per item each: a shop asks the same again and again.
    """

    def __init__(self, data: Dataset):
        self.categorical, self.numeric = list(data.fields.categorical), list(data.fields.numeric)
        self._data, self.added = data, tuple[Mapping[str, Any], ...]()
        self._groups: dict[str, Groups] = {}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._kept: dict[Any, Kept] = {}

    def values_of(self, item: Mapping[str, Any], name: str) -> dict[str, Any]:
        """What a new item has in these columns: a list of words, or a number. UserError, which begins with `name`, for
        a value of a wrong type."""
        found: dict[str, Any] = {}
        for column in self.categorical:
            if words := _words(item.get(column), f"{name}, {column}"):
                found[column] = words
        for column in self.numeric:
            if not math.isnan(number := finite_number(item.get(column), f"{name}, {column}")):
                found[column] = number
        return found

    def extended(self, items: Iterable[Mapping[str, Any]]) -> Columns:
        """These, which go on with items as `values_of` gives them."""
        more = Columns(self._data)
        more.added = (*self.added, *items)
        return more

    def groups(self, name: str) -> Groups:
        """A categorical column."""
        if name not in self._groups:
            ptr, codes, words = self._data.categorical(name)
            index = {word: code for code, word in enumerate(words)}
            added = [item.get(name, ()) for item in self.added]
            more = [index.setdefault(word, len(index)) for values in added for word in values]
            ptr = np.concatenate([ptr, ptr[-1] + np.cumsum([len(values) for values in added], dtype=np.int64)])
            self._groups[name] = Groups(ptr, np.concatenate([codes, np.array(more, np.int32)]), index)
        return self._groups[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A numeric column, `[n]`, nan where it is missing."""
        if name not in self._numbers:
            added = np.array([item.get(name, math.nan) for item in self.added], np.float64)
            self._numbers[name] = np.concatenate([self._data.numeric(name), added])
        return self._numbers[name]

    def limits(self, max_per: Mapping[str, int]) -> list[tuple[Groups, int]]:
        """The groups of which a list may hold so many items. UserError for a column that is none of categories."""
        for name in max_per:
            if name not in self.categorical:
                what = "is a column of numbers" if name in self.numeric else "is no categorical column of the items"
                raise UserError(f"max_per: {shown(name)} {what}. There are: {listed(self.categorical, name)}")
        return [(self.groups(name), most) for name, most in max_per.items()]

    def where(self, where: Where, skip: list[str] | None = None) -> NDArray[np.bool_]:
        """Which items have all that is wanted, `[n]`, see `kept`; not to be written to."""
        return self.kept(where, skip).mask

    def kept(self, where: Where, skip: list[str] | None = None) -> Kept:
        """Which items have all that is wanted, at least one column being named.

        skip: takes what is said of values that no item has; None: a UserError says it.
        """
        key = _key(where)
        if key is not None and (held := self._kept.get(key)) is not None:
            return held
        before = len(skip or ())
        mask = np.logical_and.reduce([self._has(name, wanted, skip) for name, wanted in where.items()])
        mask.flags.writeable = False
        kept = Kept.of(mask)
        if key is not None and len(skip or ()) == before:
            if len(self._kept) >= MASKS:
                self._kept = {}
            self._kept[key] = kept
        return kept

    def _has(self, name: str, wanted: Any, skip: list[str] | None) -> NDArray[np.bool_]:
        if name not in (*self.categorical, *self.numeric):
            raise UserError(unknown_name("where: the column", name, [*self.categorical, *self.numeric]))
        if isinstance(wanted, Mapping):
            if list(wanted) != [NOT]:
                raise UserError(
                    f"where: {name}={shown(dict(wanted))}: use {{'not': ...}}, or a value or a list of values"
                )
            return ~self._has(name, wanted[NOT], skip)
        return self._in_range(name, wanted) if name in self.numeric else self._in_group(name, wanted, skip)

    def _in_group(self, name: str, wanted: Any, skip: list[str] | None) -> NDArray[np.bool_]:
        groups, codes = self.groups(name), []
        for value in _listed(wanted):
            if value is None or isinstance(value, float) or not isinstance(value, str | bool | np.bool_ | Real):
                raise UserError(f"where: {name}={shown(wanted)}: give a category (text) or a list of them")
            truth = TRUTH[bool(value)] if isinstance(value, bool | np.bool_) else ()
            words = [word for word in groups.words if word.casefold() in truth] if truth else [str(value)]
            found = [groups.words[word] for word in words if word in groups.words]
            codes += found
            if not found:
                near = difflib.get_close_matches(str(value), list(groups.words)[:20_000], n=3)
                said = f"where: no item has {name}={shown(value)}" + (f"; close to it: {listed(near)}" if near else "")
                if skip is None:
                    raise UserError(f"{said}. unknown='skip' (--skip-unknown) leaves such values aside")
                skip.append(said)
        return groups.having(codes)

    def _in_range(self, name: str, wanted: Any) -> NDArray[np.bool_]:
        values = self.numbers(name)
        if isinstance(wanted, tuple):
            if len(wanted) != 2 or not all(bound is None or _is_number(bound) for bound in wanted):
                raise UserError(f"where: {name}={shown(wanted)}: give the least and the most, for example (None, 20.0)")
            least, most = wanted
            if least is not None and most is not None and least > most:
                raise UserError(f"where: {name}={shown(wanted)}: the least is more than the most")
            with np.errstate(invalid="ignore"):
                over = ~np.isnan(values) if least is None else values >= least
                return over & ((values <= most) if most is not None else True)
        listed = _listed(wanted)
        if not all(_is_number(value) for value in listed):
            raise UserError(
                f"where: {name}={shown(wanted)}: give a number, a list of numbers, or a tuple of the least and the most"
            )
        return np.isin(values, np.array([float(value) for value in listed], np.float64))


def _key(wanted: Any) -> Any:
    """What tells one `where` from another: its values with their types, since 1 and True mean different things; None
    for values of other types, or very many."""
    if wanted is None or isinstance(wanted, str | bool | int | float):
        return type(wanted), wanted
    if isinstance(wanted, Mapping):
        parts = [item for pair in wanted.items() for item in pair]
    elif isinstance(wanted, list | tuple) and len(wanted) <= 1000:
        if set(map(type, wanted)) == {str}:  # which most are: a quarter of the time
            return type(wanted), str, tuple(wanted)
        parts = list(wanted)
    else:
        return None
    keys = tuple(_key(part) for part in parts)
    return None if None in keys else (type(wanted), keys)


def _listed(wanted: Any) -> list[Any]:
    if isinstance(wanted, list | tuple | set | frozenset | np.ndarray):
        return list(wanted)
    return [wanted]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | np.bool_) and not math.isnan(float(value))


def _words(value: Any, where: str) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    for word in values:
        if word is not None and not isinstance(word, str):
            raise UserError(f"{where}: expected a category (text) or a list of them, found {shown(word)}")
    return [word for word in values if word]


def parse_where(words: Sequence[str], numeric: Sequence[str]) -> dict[str, Any]:
    """`Where` of words as a command line has them; numeric: the columns of numbers.

    `COLUMN=a,b` is one of these, `COLUMN!=a,b` none of them; of numbers also `COLUMN=5..20`, `..20`, `5..`; `true` and
    `false` are True and False. UserError for a word that is none of these.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        reverse, name = name.endswith("!"), name.removesuffix("!")
        if not equals or not name:
            raise UserError(f"--where {shown(word)}: give COLUMN=VALUE,VALUE or, of numbers, COLUMN=LEAST..MOST")
        if name in found:
            raise UserError(f"--where gives {shown(name)} twice: give it once, with all values between commas")
        values: Any = [part.strip() for part in text.split(",") if part.strip()]
        least, dots, most = text.partition("..")
        if name in numeric and dots:
            values = tuple(_parsed(part, word) if part.strip() else None for part in (least, most))
        elif name in numeric:
            values = [_parsed(part, word) for part in values]
        else:
            values = [{"true": True, "false": False}.get(part.casefold(), part) for part in values]
        found[name] = {NOT: values} if reverse else values
    return found


def _parsed(text: str, word: str) -> float:
    truth = {"true": 1.0, "false": 0.0}.get(text.strip().casefold())
    try:
        return float(text) if truth is None else truth
    except ValueError:
        raise UserError(
            f"--where {shown(word)}: {text.strip()!r} is no number, and the column is one of numbers"
        ) from None


def parse_max_per(words: Sequence[str]) -> dict[str, int]:
    """Column -> how many of each value, of words `COLUMN=N`. UserError for another form."""
    found: dict[str, int] = {}
    for word in words:
        name, _, text = word.partition("=")
        if not name or not text.strip().isdecimal():
            raise UserError(f"--max-per {shown(word)}: give COLUMN=N, for example brand=2")
        if name in found:
            raise UserError(f"--max-per gives {shown(name)} twice: give it once")
        found[name] = int(text)
    return found
