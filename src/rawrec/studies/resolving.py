"""The settings of one run of a study: those of all runs, those of its own, and what validation chooses among."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rawrec.config import Config
from rawrec.data.dataset import Dataset
from rawrec.errors import IdleSetting, UserError
from rawrec.training.configuring import configure


def settled(
    model: str, data: Dataset, shared: Mapping[str, Any], own: Mapping[str, Any], words: str
) -> tuple[dict[str, Any], Config]:
    """The overrides of a run, and the config that they make; its own go before those of all runs.

    What is said of all runs is left out where it would do nothing: bank.live_budget, for one, of frozen encoders.
    Raises IdleSetting where one of its own would, UserError for mistakes; both begin with `words`.
    """
    shared = dict(shared)
    while True:
        given = {**shared, **own}
        try:
            return given, configure(model, data, given)
        except IdleSetting as error:
            if error.key in own or error.key not in shared:
                raise IdleSetting(error.key, f"{words}: {error}") from None
            # all at once: of two that go together, as bank.forward_rate and bank.backward_rate, one may be a mistake
            shared = {key: value for key, value in shared.items() if key not in error.keys or key in own}
        except UserError as error:
            raise UserError(f"{words}: {error}") from None


def all_features(data: Dataset) -> dict[str, Any]:
    """Settings of a ranker that reads all that the dataset has beside content."""
    meta = data.meta
    found: dict[str, Any] = {"model.popularity": True}
    if meta.fields.categorical or meta.fields.numeric:
        found["model.columns"] = "all"
    if meta.users.names():
        found["model.user_columns"] = "all"
    if meta.context.names():
        found["model.context"] = "all"
    return found


def choices(lists: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of settings."""
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))
