"""The context of impressions: what is known of them beside user and item, as a ranker reads it.

That are columns of the interactions (device, query, position ...) and the hour of the day (UTC) and the weekday (Monday
is 0) of their time; what a value becomes is decided by training rows alone, see `columns.py`. Counts of earlier rows
and what was met earlier in the session come from `counts.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rawrec.arguments import shown
from rawrec.config.ranking import InputsConfig
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Samples
from rawrec.errors import UserError
from rawrec.models.ranking.columns import Categories, Reader, Scale, TableColumns, chosen, number_reader
from rawrec.models.ranking.counts import Counts, Sessions
from rawrec.shown import listed

OF_TIME = {"hour": [str(hour) for hour in range(24)], "weekday": [str(day) for day in range(7)]}
"""Categories made of the time, and their values."""


def of_time(name: str, times: np.ndarray) -> np.ndarray:
    """Places in `OF_TIME[name]` of times in seconds since 1970, which began on a Thursday."""
    return times // 3600 % 24 if name == "hour" else (times // 86_400 + 3) % 7


SEEN_NOW = "seen"
"""The key by which a given context names what was met in the session."""
NOTHING_SEEN = (np.zeros(0, np.int64), 0)


class Moments(NamedTuple):
    """What is asked when: `users` `[n]` rows at `times` `[n]` (None: now, when all has happened), in the context of the
    interactions `rows` `[n]` (-1: none), or in one that is `given` for all of them by column. training: of training
    rows, which know training rows alone. seen: items and number of clicks of the session, with `given`. past: rows of
    the interactions that the histories are of, `[n, history]`, -1 = none; None: they are not known. query: what all
    of them type, for a model that reads queries."""

    users: np.ndarray
    times: np.ndarray | None
    rows: np.ndarray
    given: Mapping[str, Any] | None = None
    training: bool = False
    seen: tuple[np.ndarray, int] = NOTHING_SEEN
    past: np.ndarray | None = None
    query: str | None = None


@dataclass
class ImpressionContext:
    """Of a batch. codes: `[batch or 1, columns]` int64, one per categorical column; numbers: `[batch or 1, n]`, each
    value with a flag where it is missing; counts: `[batch, candidates, n]`; session: `[batch or 1, length]` item rows,
    -1 = padding, and session_numbers `[batch or 1, n]`. What a ranker does not read has a width of 0."""

    codes: Tensor
    numbers: Tensor
    counts: Tensor
    session: Tensor
    session_numbers: Tensor

    def to(self, device: torch.device) -> ImpressionContext:
        """The same on a device."""
        return ImpressionContext(*(getattr(self, field.name).to(device) for field in fields(self)))

    def part(self, rows: slice) -> ImpressionContext:
        """That of some impressions of the batch."""
        return ImpressionContext(*(getattr(self, field.name)[rows] for field in fields(self)))


class Widths(NamedTuple):
    """What a ranker has to know of contexts before there is one. codes: column -> how many there are; numbers, counts,
    session: how many numbers there are of each; never: see `Counts.never`."""

    codes: dict[str, int]
    numbers: int
    counts: int = 0
    session: int = 0
    never: Mapping[str, tuple[int, list[float]]] = MappingProxyType({})


class ContextReader:
    """Reads the context of impressions of a dataset, and of those that are described by values.

    Memory: 4 bytes per interaction and column.
    """

    def __init__(self, data: Dataset, samples: Samples, cfg: InputsConfig, columns: TableColumns, rolling: bool):
        """columns: of the items. rolling: whether evaluation reads what training has not (`data.history_mode`)."""
        self.counts = Counts(data, samples, cfg, columns) if cfg.counts else None
        self.sessions = Sessions(data, samples, cfg, rolling) if cfg.session != "none" else None
        self.data, self.readers = data, dict[str, Reader]()
        train = samples.part == 0
        kinds = data.meta.context
        derived = [name for name in OF_TIME if data.timestamps is not None and name not in kinds.names()]
        codes, numbers = [], []
        for name in chosen("model.context", cfg.context, [*kinds.names(), *derived], "context"):
            if name in kinds.numeric:
                values = np.append(data.row_numbers(name), np.nan)
                reader = number_reader(values[:-1][train & ~np.isnan(values[:-1])], cfg, len(numbers))
                if isinstance(reader, Scale):
                    numbers += [column.astype(np.float32) for column in reader.columns(values)]
                else:
                    codes.append(reader(values).astype(np.int32))
            else:
                rows, words = self._categories(name)
                seen = np.bincount(rows[train & (rows >= 0)], minlength=len(words)) > 0
                hash_above = None if name in derived else cfg.hash_above
                reader = Categories.of(words, seen, hash_above, missing=True)
                coded = np.append(reader.codes, reader.size - 1)[np.append(rows, -1)]
                codes.append(coded.astype(np.int32))
            self.readers[name] = reader
        empty = np.zeros((data.n_interactions + 1, 0))  # the last row lacks everything
        self._codes = np.stack(codes, 1) if codes else empty.astype(np.int32)
        self._numbers = np.stack(numbers, 1) if numbers else empty.astype(np.float32)

    def _categories(self, name: str) -> tuple[np.ndarray, list[str]]:
        """Places of the values of all interactions in the words, -1 = missing; and the words."""
        if name in self.data.meta.context.categorical:
            return self.data.row_categories(name)
        assert self.data.timestamps is not None
        return of_time(name, self.data.timestamps), OF_TIME[name]

    @property
    def widths(self) -> Widths:
        coded = {name: reader.size for name, reader in self.readers.items() if not isinstance(reader, Scale)}
        counts, session = (0 if part is None else part.width for part in (self.counts, self.sessions))
        never = {} if self.counts is None else self.counts.never()
        return Widths(coded, self._numbers.shape[1], counts, session, never)

    @property
    def any(self) -> bool:
        """Whether there is anything to read."""
        return bool(self.readers) or self.counts is not None or self.sessions is not None

    def read(self, moments: Moments, items: np.ndarray, columns: TableColumns) -> ImpressionContext:
        """The context of some moments with candidates `items` `[n or 1, candidates]`, on the CPU; columns: theirs."""
        n, given = len(moments.users), moments.given
        codes, numbers = (
            (self._codes[moments.rows], self._numbers[moments.rows]) if given is None else self._given(given)
        )
        counts = np.zeros((n, items.shape[1], 0), np.float32)
        if self.counts is not None:
            counts = self.counts.read(columns, moments.users, items, moments.times)
        session, numbers_of_it = np.zeros((n, 0), np.int64), np.zeros((n, 0), np.float32)
        if (read := self.sessions) is not None:
            known = read.read(moments.rows, moments.training) if given is None else read.given(*moments.seen)
            session, numbers_of_it = known
        parts = (codes.astype(np.int64), numbers, counts, session, numbers_of_it)
        return ImpressionContext(*map(torch.from_numpy, parts))

    def read_each(self, given: Sequence[Mapping[str, Any]], items: np.ndarray) -> ImpressionContext:
        """The context of impressions that are described by values, one each, with candidates `items`
        `[n, candidates]`, on the CPU: of a reader without counts and sessions. Raises UserError for a wrong value."""
        assert self.counts is None and self.sessions is None
        found = [self._given(values) for values in given]
        codes = np.concatenate([one[0] for one in found]).astype(np.int64)
        numbers = np.concatenate([one[1] for one in found])
        empty = np.zeros((len(given), 0), np.float32)
        none = np.zeros((*items.shape, 0), np.float32), empty.astype(np.int64), empty
        return ImpressionContext(*map(torch.from_numpy, (codes, numbers, *none)))

    def lacking(self, given: Mapping[str, Any]) -> list[str]:
        """The columns that are read and not given. UserError for one that is not read."""
        known = [*self.readers, *([SEEN_NOW] if self.sessions is not None else [])]
        if unknown := [name for name in given if name not in known and name != "time"]:
            raise UserError(f"context: this run reads no {shown(unknown[0])}. It reads: {listed(known, unknown[0])}")
        return [name for name in known if name not in _with_time(given)]

    def _given(self, given: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        values = _with_time(given)
        codes, numbers = [], self._numbers[-1].copy()
        for name, reader in self.readers.items():
            value, where = values.get(name), f"context, {name}"
            if isinstance(reader, Scale):
                if (number := reader.read(_number(value), where)) is not None:
                    numbers[reader.at : reader.at + 2] = number, 0
            else:
                found = reader.read(_word(value) if isinstance(reader, Categories) else _number(value), where)
                if len(found) != 1:
                    raise UserError(f"{where}: give one value, found {value!r}")
                codes += found
        return np.array([codes], np.int64), numbers[None]


def _with_time(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with those that the key `time` (seconds since 1970) says."""
    values = {name: value for name, value in given.items() if name != "time"}
    if given.get("time") is None:
        return values
    try:
        seconds = np.array(int(float(given["time"])))
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"context, time: give seconds since 1970, found {given['time']!r}") from None
    return {name: words[int(of_time(name, seconds))] for name, words in OF_TIME.items()} | values


def _word(value: Any) -> Any:
    """A category as the dataset has it: text without surrounding white space, also of a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else value


def _number(value: Any) -> Any:
    """A number, also where it is written as text; None where the text is empty."""
    if not isinstance(value, str):
        return value
    try:
        return float(value) if value.strip() else None
    except ValueError:
        return value


def parse_context(words: Sequence[str]) -> dict[str, str]:
    """Context of the command line: words of the form COLUMN=VALUE. UserError for another form."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"--context {word!r}: give COLUMN=VALUE, for example device=phone")
        if name in found:
            raise UserError(f"--context gives {name!r} twice: give it once")
        found[name] = value
    return found
