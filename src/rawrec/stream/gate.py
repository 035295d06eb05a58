"""What a version must pass before it is served: its values are numbers, it answers canary requests as its trainer does,
and the trainer's last window of prequential metrics is not far worse than that of the version which is served.

The loss of a window is compared as normalised entropy: divided by that of predicting its share of positives always (He
et al. 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD), since logloss itself falls and rises
with that share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from rawrec.config.online import PREFIX, OnlineConfig
from rawrec.errors import UserError
from rawrec.training.tasks.stream import StreamTask

ALIKE = 1e-4
"""Probabilities that differ by less are the same answer: processors and numbers of threads round differently."""
KEPT = ("auc", "gauc", "logloss", "pcoc", "positive", "impressions", "judged")
"""Metrics of a window that a version's manifest holds."""


@dataclass(slots=True)
class Canary:
    """A request that a version is asked before it is served, and by whoever loads it: how probable the trainer found a
    click of `user` on `item` then; None: that was no number."""

    user: str | None
    item: str
    history: list[str]
    time: float
    probability: float | None = None
    context: dict[str, Any] = field(default_factory=dict)
    query: str | None = None
    session: str | None = None


def canaries(task: StreamTask, count: int, time: float) -> list[Canary]:
    """So many requests: half of them of users and items that came with the stream last, where there are any, the
    others of those of the dataset, drawn by the seed of the run, and always the same ones."""
    newcomers = (name for name in reversed(task.newcomers) if name is not None)
    fresh = list(islice(reversed(task.items), min(count // 2, len(task.items) - task.data.n_items)))
    rng = np.random.default_rng([task.cfg.seed, 7993])
    users = _some(list(islice(newcomers, count // 2)), task.data.user_ids, count, rng)
    items = _some(fresh, task.data.item_ids, count, rng)
    typed: list[str | None] = [None] * count
    if task.queries is not None and len(task.data.queries):  # every second one has typed something
        drawn = rng.integers(len(task.data.queries), size=count)
        typed = [task.data.queries[int(at)] if n % 2 else None for n, at in enumerate(drawn)]
    return [
        Canary(user, item, [name for _, name in task.taken.before(user, math.inf)], time, query=query)
        for user, item, query in zip(users, items, typed, strict=True)
    ]


def _some(latest: list[str], known: np.ndarray, count: int, rng: np.random.Generator) -> list[str]:
    return latest + [str(known[at]) for at in rng.integers(len(known), size=count)][len(latest) :]


def answers(task: StreamTask, asked: Sequence[Canary]) -> list[float]:
    return task.predict(asked, [one.item for one in asked]) if asked else []


def note(asked: Sequence[Canary], found: Sequence[float]) -> None:
    """These are the trainer's answers."""
    for one, probability in zip(asked, found, strict=True):
        one.probability = probability if math.isfinite(probability) else None


def plain(asked: Sequence[Canary]) -> list[dict[str, Any]]:
    return [asdict(one) for one in asked]


def of_plain(values: Sequence[Mapping[str, Any]]) -> list[Canary]:
    return [Canary(**value) for value in values]


def check_answers(task: StreamTask, asked: Sequence[Canary]) -> None:
    """UserError where the model of a version answers otherwise than its trainer did."""
    if (reason := otherwise(answers(task, asked), asked)) is not None:
        raise UserError(f"the model answers otherwise than its trainer did: {reason}")


# --------------------------------------------------------------------------------------------------------------- checks
def no_numbers(tensors: Mapping[str, Tensor]) -> str | None:
    """Why values are not to be served: one of them is infinite or no number."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            return f"{name} holds values that are no numbers"
    return None


def otherwise(found: Sequence[float], asked: Sequence[Canary]) -> str | None:
    """Why answers to canary requests are not those of the trainer."""
    for answer, one in zip(found, asked, strict=True):
        if one.probability is None or not abs(answer - one.probability) <= ALIKE:
            own = "no number" if one.probability is None else f"{one.probability:.4g}"
            return (
                f"canary: user {(one.user or '')[:40]!r} and item {one.item[:40]!r} have {answer:.4g} in what is "
                f"published, and {own} in the trainer"
            )
    return None


def worse(now: Mapping[str, Any], served: Mapping[str, Any], cfg: OnlineConfig) -> str | None:
    """Why a window of metrics is too far behind that of the version which is served; what either lacks is no reason."""
    mine, its = now.get("pcoc"), served.get("pcoc")
    if cfg.gate_pcoc is not None and mine is not None and its is not None:
        off, its_off = (math.exp(abs(math.log(value))) if value > 0 else math.inf for value in (mine, its))
        if off > its_off * (1 + cfg.gate_pcoc):
            return (
                f"calibration: mean prediction / mean label is {mine:.4g} in the last window, and {its:.4g} in that of "
                f"the version which is served ({PREFIX}gate_pcoc={cfg.gate_pcoc:g})"
            )
    lost, its_lost = normalised(now), normalised(served)
    if cfg.gate_loss is None or lost is None or its_lost is None or lost <= its_lost * (1 + cfg.gate_loss):
        return None
    return (
        f"loss: the last window has a normalised entropy of {lost:.4g}, and that of the version which is served "
        f"{its_lost:.4g} ({PREFIX}gate_loss={cfg.gate_loss:g})"
    )


def normalised(line: Mapping[str, Any]) -> float | None:
    """Logloss of a window, divided by that of its share of positives; None where that is 0, 1, or not known."""
    share, loss = line.get("positive"), line.get("logloss")
    if share is None or loss is None or not 0 < share < 1:
        return None
    return loss / -(share * math.log(share) + (1 - share) * math.log(1 - share))
