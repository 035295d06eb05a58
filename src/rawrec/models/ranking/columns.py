"""Columns of items that a ranker reads beside ids and content: categories, numbers, popularity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Samples
from rawrec.errors import UserError


@dataclass
class Categories:
    """How values of a categorical column become codes. words: all of the dataset; codes `[words]`: theirs."""

    words: list[str]
    codes: np.ndarray

    @cached_property
    def _code(self) -> dict[str, int]:
        return dict(zip(self.words, self.codes.tolist(), strict=True))

    def read(self, value: Any, where: str) -> list[int]:
        """The codes of a new item's value: text or a list of texts, empty ones left out; 0: unseen in training."""
        values = value if isinstance(value, list | tuple) else [value]
        for word in values:
            if word is not None and not isinstance(word, str):
                raise UserError(f"{where}: expected a category (text) or a list of them, found {word!r}")
        return [self._code.get(word, 0) for word in values if word]


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
        """That of the values of training items."""
        mean, deviation = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
        return cls(mean, deviation or 1.0, at)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return ((values - self.mean) / self.deviation).clip(-5, 5)

    def read(self, value: Any, where: str) -> float | None:
        """A new item's value, standardised; None where it is missing or not finite, as in a dataset."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UserError(f"{where}: expected a number, found {value!r}")
        try:
            number = float(value)
        except OverflowError:
            raise UserError(f"{where}: the number is too large: {str(value)[:20]}...") from None
        return float(self(np.array(number))) if math.isfinite(number) else None


@dataclass
class ItemColumns:
    """Other columns of all items: per categorical column a bag of codes, and standardised numbers.

    bags: name -> (codes `[total]`, ptr `[items + 1]`, vocabulary size), code 0 = a value unseen in training.
    numbers: `[items + 1, n]`: popularity, and each numeric value with a flag where it is missing; the last row is that
    of an item outside the catalogue. users: `[users + 1, m]`, numbers of the users likewise (their activity).
    categories, scales: how values of new items are read, by column.
    """

    bags: dict[str, tuple[Tensor, Tensor, int]]
    numbers: Tensor
    users: Tensor
    categories: dict[str, Categories] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)

    def of_new(self, items: Sequence[Mapping[str, Any]], first: int = 0) -> ItemColumns:
        """Columns of new items, read as training read those of the dataset; their popularity is that of an unseen item.

        items: values by column; a column that is not given is missing, other keys are left aside. first: the number of
        the first item, for messages. Raises UserError for a value of a wrong type.
        """
        device = self.numbers.device
        bags: dict[str, tuple[Tensor, Tensor, int]] = {}
        for name, (_, _, size) in self.bags.items():
            read = self.categories[name].read
            codes = [read(item.get(name), f"new item {first + i}, {name}") for i, item in enumerate(items)]
            ptr = np.cumsum([0, *map(len, codes)])
            flat = torch.tensor([code for bag in codes for code in bag], dtype=torch.int64, device=device)
            bags[name] = (flat, torch.from_numpy(ptr).to(device), size)
        numbers = self.numbers[-1:].cpu().repeat(len(items) + 1, 1)
        for name, scale in self.scales.items():
            for i, item in enumerate(items):
                value = scale.read(item.get(name), f"new item {first + i}, {name}")
                if value is not None:
                    numbers[i, scale.at], numbers[i, scale.at + 1] = value, 0
        return ItemColumns(bags, numbers.to(device), self.users, self.categories, self.scales)

    def extended(self, new: ItemColumns) -> ItemColumns:
        """The columns of these items, followed by those of new ones."""
        bags = {
            name: (torch.cat([codes, new.bags[name][0]]), torch.cat([ptr, ptr[-1] + new.bags[name][1][1:]]), size)
            for name, (codes, ptr, size) in self.bags.items()
        }
        numbers = torch.cat([self.numbers[:-1], new.numbers])
        return ItemColumns(bags, numbers, self.users, self.categories, self.scales)

    def to(self, device: torch.device) -> ItemColumns:
        """The same on a device."""
        bags = {name: (codes.to(device), ptr.to(device), size) for name, (codes, ptr, size) in self.bags.items()}
        return ItemColumns(bags, self.numbers.to(device), self.users.to(device), self.categories, self.scales)


def item_columns(data: Dataset, samples: Samples, wanted: str | list[str], popularity: bool) -> ItemColumns:
    """The categorical and numeric item columns that a ranker reads, made of training items only.

    wanted: "all", "none" or names. A value that no training item has becomes code 0; numbers are standardised by the
    training items' mean and deviation. popularity: log(training rows) of items and of users as one more number, where
    what training never saw counts as what it saw once.
    """
    trained = samples.train_counts > 0
    fields = data.fields
    known = [*fields.categorical, *fields.numeric]
    names = known if wanted == "all" else [] if wanted == "none" else list(wanted)
    for name in names:
        if name not in known:
            raise UserError(f"model.columns: the dataset has no column {name!r}. Known: {', '.join(known) or 'none'}")
    bags: dict[str, tuple[Tensor, Tensor, int]] = {}
    categories: dict[str, Categories] = {}
    scales: dict[str, Scale] = {}
    numbers = []
    if popularity:
        numbers.append(_log_counts(samples.train_counts))
    for name in names:
        if name in fields.categorical:
            ptr, codes, vocabulary = data.categorical(name)
            seen = np.zeros(len(vocabulary) + 1, bool)
            owners = np.repeat(np.arange(data.n_items), np.diff(ptr))
            seen[codes[trained[owners]]] = True
            remap = np.where(seen, np.cumsum(seen), 0)
            bags[name] = (torch.from_numpy(remap[codes]), torch.from_numpy(ptr), int(seen.sum()) + 1)
            categories[name] = Categories(vocabulary, remap[:-1])
        else:
            values = np.append(data.numeric(name).astype(np.float64), np.nan)
            missing = ~np.isfinite(values)
            scale = scales[name] = Scale.of(values[np.append(trained, False) & ~missing], len(numbers))
            numbers += [np.where(missing, 0, scale(np.where(missing, 0, values))), missing.astype(np.float64)]
    stacked = np.stack(numbers, 1) if numbers else np.zeros((data.n_items + 1, 0))
    users = _log_counts(samples.train_users)[:, None] if popularity else np.zeros((data.n_users + 1, 0))
    of_items, of_users = torch.from_numpy(stacked).float(), torch.from_numpy(users).float()
    return ItemColumns(bags, of_items, of_users, categories, scales)


def _log_counts(counts: np.ndarray) -> np.ndarray:
    """Standardised log(counts), zero counts as one; one more row for what is not in the table."""
    logs = np.append(np.log(counts.clip(min=1)), 0.0)
    return Scale.of(logs[np.append(counts > 0, False)])(logs)
