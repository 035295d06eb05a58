"""Columns of items that a ranker reads beside ids and content: categories, numbers, popularity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Samples
from rawrec.errors import UserError


@dataclass
class ItemColumns:
    """Other columns of all items: per categorical column a bag of codes, and standardised numbers.

    bags: name -> (codes `[total]`, ptr `[items + 1]`, vocabulary size), code 0 = a value unseen in training.
    numbers: `[items + 1, n]`: popularity, and each numeric value with a flag where it is missing; the last row is that
    of an item outside the catalogue. users: `[users + 1, m]`, numbers of the users likewise (their activity).
    """

    bags: dict[str, tuple[Tensor, Tensor, int]]
    numbers: Tensor
    users: Tensor

    def to(self, device: torch.device) -> ItemColumns:
        """The same on a device."""
        bags = {name: (codes.to(device), ptr.to(device), size) for name, (codes, ptr, size) in self.bags.items()}
        return ItemColumns(bags, self.numbers.to(device), self.users.to(device))


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
        else:
            values = np.append(data.numeric(name).astype(np.float64), np.nan)
            missing = ~np.isfinite(values)
            scaled = _standardised(np.where(missing, 0, values), np.append(trained, False) & ~missing)
            numbers += [np.where(missing, 0, scaled), missing.astype(np.float64)]
    stacked = np.stack(numbers, 1) if numbers else np.zeros((data.n_items + 1, 0))
    users = _log_counts(samples.train_users)[:, None] if popularity else np.zeros((data.n_users + 1, 0))
    return ItemColumns(bags, torch.from_numpy(stacked).float(), torch.from_numpy(users).float())


def _log_counts(counts: np.ndarray) -> np.ndarray:
    """Standardised log(counts), zero counts as one; one more row for what is not in the table."""
    return _standardised(np.append(np.log(counts.clip(min=1)), 0.0), np.append(counts > 0, False))


def _standardised(values: np.ndarray, base: np.ndarray) -> np.ndarray:
    """`values` by mean and deviation of those in `base` (bool), cut at five deviations."""
    known = values[base]
    mean, deviation = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
    return ((values - mean) / (deviation or 1.0)).clip(-5, 5)
