"""Columns that a ranker reads beside ids and content, of items, of users, of the context of impressions.

A categorical column gives codes, of which each has a vector; a numeric one gives standardised numbers, or the code of
the bucket that it falls into. What a value becomes is decided by the training part alone, and kept as a reader, so that
new values are read as training read those of the dataset.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.arguments import shown
from rawrec.config.ranking import InputsConfig
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Samples
from rawrec.errors import UserError
from rawrec.shown import listed

Bag = tuple[Tensor, Tensor, int]
"""Codes `[total]` of all rows of a table, ptr `[rows + 1]`, and how many codes there are."""


# ------------------------------------------------------------------------------------------------- what a value becomes
@dataclass
class Categories:
    """How values of a categorical column become codes: 0 is a value unseen in training.

    words: all of the dataset; codes `[words]`: theirs; size: how many codes there are. hashed: in how many rows the
    values are hashed, unseen ones too; None: each has its own. missing: the code of no value; None: no code.
    """

    words: list[str]
    codes: np.ndarray
    size: int
    hashed: int | None = None
    missing: int | None = None

    @classmethod
    def of(cls, words: list[str], seen: np.ndarray, hash_above: int | None, missing: bool = False) -> Categories:
        """seen: bool `[words]`, in training. hash_above: with more of these, all are hashed into so many rows."""
        distinct, hashed = int(seen.sum()), None
        codes = np.where(seen, np.cumsum(seen), 0)
        if hash_above is not None and distinct > hash_above:
            distinct = hashed = hash_above
            codes = np.array([hash_code(word, hash_above) for word in words], np.int64)
        return cls(words, codes, distinct + 1 + missing, hashed, distinct + 1 if missing else None)

    @cached_property
    def _code(self) -> dict[str, int]:
        return dict(zip(self.words, self.codes.tolist(), strict=True))

    def read(self, value: Any, where: str) -> list[int]:
        """The codes of a new value: text or a list of texts, empty ones left out."""
        values = value if isinstance(value, list | tuple) else [value]
        for word in values:
            if word is not None and not isinstance(word, str):
                raise UserError(f"{where}: expected a category (text) or a list of them, found {word!r}")
        codes = [hash_code(word, self.hashed) if self.hashed else self._code.get(word, 0) for word in values if word]
        return codes or ([] if self.missing is None else [self.missing])


def hash_code(word: str, rows: int) -> int:
    """1 to `rows`, the same on every machine."""
    return 1 + int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest()) % rows


@dataclass
class Buckets:
    """How values of a numeric column become codes: 1 below the first of the ascending `edges`, then 2, 3 ...; the last
    code, `missing`, is of no value."""

    edges: np.ndarray

    @classmethod
    def of(cls, known: np.ndarray, count: int) -> Buckets:
        """At most `count` buckets with equally many of the values `known` of training."""
        first = -(-np.arange(1, count) * len(known) // count)  # of each bucket but the lowest, rounded up
        return cls(np.unique(np.sort(known)[first.clip(max=len(known) - 1)]) if len(known) else np.zeros(0))

    @property
    def missing(self) -> int:
        return len(self.edges) + 2

    @property
    def size(self) -> int:
        return self.missing + 1

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Codes `[n]` of values, nan = missing."""
        return np.where(np.isnan(values), self.missing, np.searchsorted(self.edges, values, side="right") + 1)

    def read(self, value: Any, where: str) -> list[int]:
        """The code of a new value."""
        return [int(self(np.array(finite_number(value, where))))]


@dataclass
class Scale:
    """How values of a numeric column are standardised: by mean and deviation, cut at five deviations.

    at: the column's place among all numbers; the flag of a missing value comes after it.
    """

    mean: float
    deviation: float
    at: int = 0

    @classmethod
    def of(cls, known: np.ndarray, at: int = 0) -> Scale:
        """That of the values of the training part."""
        mean, deviation = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
        return cls(mean, deviation or 1.0, at)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return ((values - self.mean) / self.deviation).clip(-5, 5)

    def columns(self, values: np.ndarray) -> list[np.ndarray]:
        """The values standardised, zeros where they are nan, and the flags of those."""
        missing = np.isnan(values)
        return [np.where(missing, 0, self(np.where(missing, 0, values))), missing.astype(np.float64)]

    def read(self, value: Any, where: str) -> float | None:
        """A new value, standardised; None where it is missing or not finite, as in a dataset."""
        number = finite_number(value, where)
        return None if math.isnan(number) else float(self(np.array(number)))


Reader = Categories | Buckets | Scale


def finite_number(value: Any, where: str) -> float:
    """A number; nan where it is missing or not finite."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{where}: expected a number, found {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise UserError(f"{where}: the number is too large: {str(value)[:20]}...") from None
    return number if math.isfinite(number) else math.nan


def number_reader(known: np.ndarray, cfg: InputsConfig, at: int) -> Buckets | Scale:
    """How a numeric column is read (`model.numbers`), by its finite training values; `at`: see `Scale`."""
    return Buckets.of(known, cfg.buckets) if cfg.numbers == "buckets" else Scale.of(known, at)


def chosen(setting: str, wanted: str | list[str], known: Sequence[str], what: str) -> list[str]:
    """The columns that "all", "none" or names stand for. UserError for one that is not known."""
    names = list(known) if wanted == "all" else [] if wanted == "none" else list(dict.fromkeys(wanted))
    for name in names:
        if name not in known:
            raise UserError(f"{setting}: the dataset has no {what} {shown(name)}. Known: {listed(known, name)}")
    return names


# ---------------------------------------------------------------------------------------------------- items and users
@dataclass
class TableColumns:
    """Columns of all rows of a table.

    bags: per categorical column (and bucketed number) the codes of each row. numbers: `[rows + 1, n]`, each value with
    a flag where it is missing; the last row is that of a row outside the table. readers: how new values are read.
    """

    bags: dict[str, Bag]
    numbers: Tensor
    readers: dict[str, Reader] = field(default_factory=dict, kw_only=True)

    def of_new(self, items: Sequence[Mapping[str, Any]], first: int = 0) -> Self:
        """Columns of new items, read as training read those of the dataset; their popularity is that of an unseen item.

        items: values by column; a column that is not given is missing, other keys are left aside. first: the number of
        the first item, for messages. Raises UserError for a value of a wrong type.
        """
        device = self.numbers.device
        bags: dict[str, Bag] = {}
        numbers = self.numbers[-1:].cpu().repeat(len(items) + 1, 1)
        for name, reader in self.readers.items():
            given = [(item.get(name), f"new item {first + i}, {name}") for i, item in enumerate(items)]
            if isinstance(reader, Scale):
                for i, number in enumerate(reader.read(*value) for value in given):
                    if number is not None:
                        numbers[i, reader.at], numbers[i, reader.at + 1] = number, 0
                continue
            codes = [reader.read(*value) for value in given]
            ptr = np.cumsum([0, *map(len, codes)])
            flat = torch.tensor([code for bag in codes for code in bag], dtype=torch.int64, device=device)
            bags[name] = (flat, torch.from_numpy(ptr).to(device), reader.size)
        return replace(self, bags=bags, numbers=numbers.to(device))

    def extended(self, new: TableColumns) -> Self:
        """The columns of these items, followed by those of new ones."""
        bags = {
            name: (torch.cat([codes, new.bags[name][0]]), torch.cat([ptr, ptr[-1] + new.bags[name][1][1:]]), size)
            for name, (codes, ptr, size) in self.bags.items()
        }
        return replace(self, bags=bags, numbers=torch.cat([self.numbers[:-1], new.numbers]))

    def replaced(self, row: int, new: TableColumns, names: Sequence[str]) -> Self:
        """With the values that the only row of `new` has of the columns `names` in the place of the row's own."""
        bags, numbers = dict(self.bags), self.numbers.clone()
        for name in names:
            reader = self.readers[name]
            if isinstance(reader, Scale):
                numbers[row, reader.at : reader.at + 2] = new.numbers[0, reader.at : reader.at + 2]
                continue
            codes, ptr, size = bags[name]
            start, end, own = int(ptr[row]), int(ptr[row + 1]), new.bags[name][0]
            moved = torch.cat([ptr[: row + 1], ptr[row + 1 :] + (len(own) - (end - start))])
            bags[name] = (torch.cat([codes[:start], own, codes[end:]]), moved, size)
        return replace(self, bags=bags, numbers=numbers)

    def with_unknown(self, count: int) -> Self:
        """With `count` more rows that lack all, as the row outside the table does, which stays the last: of users."""
        bags = {}
        for name, (codes, ptr, size) in self.bags.items():
            last = codes[ptr[-2] :]
            behind = ptr[-1] + len(last) * torch.arange(1, count + 1, device=ptr.device)
            bags[name] = (torch.cat([codes, last.repeat(count)]), torch.cat([ptr, behind]), size)
        return replace(self, bags=bags, numbers=_with_last(self.numbers, count))

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        bags = {name: (codes.to(device), ptr.to(device), size) for name, (codes, ptr, size) in self.bags.items()}
        return replace(self, bags=bags, numbers=self.numbers.to(device))


@dataclass
class ItemColumns(TableColumns):
    """Columns of the items, popularity first among the numbers.

    users: `[users + 1, m]`, numbers of the users likewise (their activity).
    """

    users: Tensor

    def to(self, device: torch.device) -> Self:
        return replace(super().to(device), users=self.users.to(device))

    def with_users(self, count: int) -> Self:
        """With numbers of `count` more users, of whom nothing is known."""
        return replace(self, users=_with_last(self.users, count))


class Table(NamedTuple):
    """Where columns of a table of `rows` rows come from: as `Dataset.categorical` and `Dataset.numeric` give them."""

    rows: int
    kinds: Mapping[str, str]
    """Column -> "categorical" or "numeric"."""
    categorical: Callable[[str], tuple[np.ndarray, np.ndarray, list[str]]]
    numeric: Callable[[str], np.ndarray]


def table_columns(
    table: Table,
    names: Sequence[str],
    trained: np.ndarray,
    cfg: InputsConfig,
    missing: bool,
    more: Sequence[np.ndarray],
) -> TableColumns:
    """Columns as made of the rows `trained` (bool `[rows]`) alone.

    missing: no value of a category has a code of its own, and bags go on with a row outside the table, which lacks all;
    else it has none. more: further numbers `[rows + 1]`, which come first.
    """
    bags: dict[str, Bag] = {}
    readers: dict[str, Reader] = {}
    numbers = list(more)
    for name in names:
        if table.kinds[name] == "categorical":
            ptr, codes, words = table.categorical(name)
            seen = np.zeros(len(words), bool)
            owners = np.repeat(np.arange(table.rows), np.diff(ptr))
            seen[codes[trained[owners]]] = True
            reader = readers[name] = Categories.of(words, seen, cfg.hash_above, missing)
            coded = reader.codes[codes]
            if reader.missing is not None:
                coded, ptr = _with_missing(coded, ptr, reader.missing)
            bags[name] = (torch.from_numpy(coded), torch.from_numpy(ptr), reader.size)
            continue
        values = np.append(table.numeric(name).astype(np.float64), np.nan)
        values[~np.isfinite(values)] = np.nan
        reader = readers[name] = number_reader(values[:-1][trained & ~np.isnan(values[:-1])], cfg, len(numbers))
        if isinstance(reader, Scale):
            numbers += reader.columns(values)
        else:
            coded = reader(values if missing else values[:-1])
            bags[name] = (torch.from_numpy(coded), torch.arange(len(coded) + 1), reader.size)
    stacked = np.stack(numbers, 1) if numbers else np.zeros((table.rows + 1, 0))
    return TableColumns(bags, torch.from_numpy(stacked).float(), readers=readers)


def _with_missing(codes: np.ndarray, ptr: np.ndarray, missing: int) -> tuple[np.ndarray, np.ndarray]:
    """Bags with the code `missing` in those that are empty, and one more bag with it at the end."""
    lengths = np.append(np.diff(ptr), 0)
    empty = lengths == 0
    codes = np.insert(codes, ptr[empty], missing)
    return codes, np.concatenate([[0], np.cumsum(np.where(empty, 1, lengths))])


def item_columns(data: Dataset, samples: Samples, cfg: InputsConfig) -> ItemColumns:
    """The categorical and numeric item columns that a ranker reads (`model.columns`), made of training items only.

    A value that no training item has becomes code 0; no value has no code. With `model.popularity` log(training rows)
    of items and of users is one more number, where what training never saw counts as what it saw once.
    """
    fields = data.fields
    kinds = dict.fromkeys(fields.categorical, "categorical") | dict.fromkeys(fields.numeric, "numeric")
    names = chosen("model.columns", cfg.columns, list(kinds), "column")
    table = Table(data.n_items, kinds, data.categorical, data.numeric)
    more = [_log_counts(samples.train_counts)] if cfg.popularity else []
    found = table_columns(table, names, samples.train_counts > 0, cfg, missing=False, more=more)
    users = _log_counts(samples.train_users)[:, None] if cfg.popularity else np.zeros((data.n_users + 1, 0))
    return ItemColumns(found.bags, found.numbers, torch.from_numpy(users).float(), readers=found.readers)


def user_columns(data: Dataset, samples: Samples, cfg: InputsConfig) -> TableColumns | None:
    """The attributes of users that a ranker reads (`model.user_columns`), made of users with a training row; or None.

    A category that none of them has becomes code 0; a user without one, or outside the dataset, has the code for that.
    """
    known = data.meta.users
    kinds = dict.fromkeys(known.categorical, "categorical") | dict.fromkeys(known.numeric, "numeric")
    names = chosen("model.user_columns", cfg.user_columns, list(kinds), "attribute of users")
    table = Table(data.n_users, kinds, data.user_categorical, data.user_numeric)
    return table_columns(table, names, samples.train_users > 0, cfg, missing=True, more=[]) if names else None


def mean_vectors(tables: nn.ModuleDict, bags: Mapping[str, Bag], rows: Tensor) -> Tensor:
    """Of each row `[n]` the sum over categorical columns of the mean of its values' vectors, `[n, dim]`."""
    total = torch.zeros((), device=rows.device)
    for name, (codes, ptr, _) in bags.items():
        lengths = ptr[rows + 1] - ptr[rows]
        ends = lengths.cumsum(0)
        pieces = torch.arange(int(ends[-1]), device=rows.device)
        pieces += torch.repeat_interleave(ptr[rows] - ends + lengths, lengths)
        total = total + tables[name](codes[pieces], ends - lengths)
    return total


def _with_last(numbers: Tensor, count: int) -> Tensor:
    """Rows `[n, width]`, the last one `count` times more."""
    return torch.cat([numbers, numbers[-1:].expand(count, -1)])


def _log_counts(counts: np.ndarray) -> np.ndarray:
    """Standardised log(counts), zero counts as one; one more row for what is not in the table."""
    logs = np.append(np.log(counts.clip(min=1)), 0.0)
    return Scale.of(logs[np.append(counts > 0, False)])(logs)
