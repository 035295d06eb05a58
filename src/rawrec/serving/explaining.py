"""Why an item is in a list: what of the history it is close to, and what its score loses without parts of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.content.new_items import Item
from rawrec.models.ids import ids_left_out, popularity_left_out
from rawrec.models.ranking.context import Moments
from rawrec.models.ranking.history import Attention, watched
from rawrec.serving.asked import Unknown, check_list
from rawrec.serving.searching import Searching
from rawrec.serving.served import Who, of_one_state
from rawrec.training.tasks.step_impressions import ContentTable

REASONS = 5
"""So many items of a history are named at most."""
AT_ONCE = 64
"""Items explained at once: so many are scored as one piece, whatever the number of items."""
By = Literal["attention", "cosine"]


class Reason(NamedTuple):
    """An item of a history, and how much it counts: see `Explained`."""

    item: str
    weight: float


class Explained(NamedTuple):
    """An item's original id and its score, as in `Scored`; because: what of the history it is close to, the closest
    first; by: how that is measured; parts: what the score loses without a part of the model. See `Recommender.explain`.
    """

    item: str
    score: float
    because: list[Reason]
    by: By
    parts: dict[str, float]


class Asking(NamedTuple):
    """What is asked when items are explained. rows: of the items, of `who.table` or behind it in `table`; past: names
    of the items of the history, `[n]`."""

    who: Who
    moments: Moments
    label: int
    rows: Tensor
    table: ContentTable | None
    past: list[str]


class Explaining(Searching):
    """`explain` of a recommender."""

    @of_one_state
    def explain(
        self,
        user: str | None = None,
        items: Sequence[Item] = (),
        history: Sequence[Item] | None = None,
        context: Mapping[str, Any] | None = None,
        label: str | None = None,
        unknown: Unknown = "refuse",
    ) -> list[Explained]:
        """Of each item its score, what of the history is behind it, and what the score would lose.

        Who is asked, in which context, by which label: see `recommend`. Items are ids, or new ones by their fields.

        because: the items of the history that count most, REASONS at most. by "attention": the mean of the weights that
        the model's attentions over the history (of ids, of content, of a head's own unit) give them for this item, each
        brought to a sum of 1 of absolute values; an item that stands there several times has the sum, and weights of 0
        and less are left out. by "cosine", where the model has no such attention: the cosine of the contents (of the
        ids of a model on ids alone, of the vectors of a retrieval model), above 0.

        parts: score minus the score without "ids": user, item and the items of the history are read as ones that
        training never saw, in their columns and contents as they are; "popularity", of models that read it: user and
        item are as popular as what training never saw (which leaving out ids takes along); "content": no item has any,
        where the model reads content; "history": there is none. They are measured one by one and do not add up to the
        score. Of a retrieval model, whose users have no history: "ids", the item's id is read as `eval.untrained_ids`
        says of items that training never saw (as zeros where that is as_is); "content", where its vector has any: its
        features are zeros, graphs of items made before staying as they are. It makes all vectors anew for that.

        >>> rec.explain("42", ["260"])[0].because
        """
        check_list(items, "items")
        who = self._who(user, history, unknown)
        place = self._label(label)
        if not len(items):
            return []
        rows, table = self._rows_and_table(items, who.table)
        names = [_name(item, n) for n, item in enumerate(items)]
        return self._explained(names, rows, who, table, self._moments(who, context), place, history)

    def _explained(
        self,
        names: Sequence[str],
        rows: Sequence[int],
        who: Who,
        table: ContentTable | None,
        moments: Moments,
        label: int,
        history: Sequence[Item] | None,
    ) -> list[Explained]:
        """rows: of the items `names` in `table`."""
        new = [_name(item, n) for n, item in enumerate(history or ()) if isinstance(item, Mapping)]
        known = len(self._item_ids)
        rows_of_past = self._read(who)
        past = [self._item_ids[row] if row < known else new[row - known] for row in rows_of_past.tolist() if row >= 0]
        found: list[Explained] = []
        for at in range(0, len(names), AT_ONCE):
            part = torch.tensor(rows[at : at + AT_ONCE])
            found += self._explain(names[at : at + AT_ONCE], Asking(who, moments, label, part, table, past))
        return found

    def _read(self, who: Who) -> np.ndarray:
        """Rows of the history that reasons are taken from, -1 = padding."""
        return who.past[0]

    def _explain(self, names: Sequence[str], asking: Asking) -> list[Explained]:
        with watched() as seen:
            scores = self._shown_scores(asking)
        parts = self._parts(asking, scores)
        there = self._read(asking.who) >= 0
        weights, by = _attended(seen, len(names), len(there)), "attention"
        if weights is None:
            weights, by = self._cosines(asking), "cosine"
        else:
            weights = weights[:, there]
        return [
            Explained(
                name,
                float(scores[n]),
                _reasons(asking.past, weights[n]),
                by,
                {part: float(values[n]) for part, values in parts.items()},
            )
            for n, name in enumerate(names)
        ]

    def _shown_scores(self, asking: Asking) -> np.ndarray:
        """As a user sees them, `[items]`."""
        scores = self._score_all(asking.moments, asking.who.past, asking.label, asking.rows, asking.table)
        return self._shown(scores[0].float().cpu().numpy())

    def _parts(self, asking: Asking, scores: np.ndarray) -> dict[str, np.ndarray]:
        """What the scores `[items]` lose without each part."""
        without: dict[str, np.ndarray] = {}
        with ids_left_out():
            without["ids"] = self._shown_scores(asking)
        if self.system.ranker.inputs.cfg.popularity:
            with popularity_left_out():
                without["popularity"] = self._shown_scores(asking)
        if asking.table is not None and self.system.ranker.content is not None:
            empty = asking.table._replace(valid=torch.zeros_like(asking.table.valid))
            without["content"] = self._shown_scores(asking._replace(table=empty))
        nothing = asking.who._replace(past=np.full_like(asking.who.past, -1))
        alone = asking._replace(who=nothing, moments=asking.moments._replace(past=None))
        without["history"] = self._shown_scores(alone)
        return {name: scores - values for name, values in without.items()}

    def _cosines(self, asking: Asking) -> np.ndarray:
        """Of each item with each of the history, `[items, history]`."""
        values, valid = self._vectors() if asking.table is None else (asking.table.values, asking.table.valid)
        rows = self._read(asking.who)
        past = torch.from_numpy(rows[rows >= 0]).to(values.device)
        items = asking.rows.to(values.device)
        one, other = (nn.functional.normalize(values[at], dim=1) * valid[at][:, None] for at in (items, past))
        return (one @ other.T).float().cpu().numpy()


def _attended(seen: Sequence[Attention], items: int, length: int) -> np.ndarray | None:
    """The mean weights of a history of `length` events for each of some items, `[items, length]`; None: no attention.

    Shorter histories are the end of it. A head's unit stands in the place of the attention to ids.
    """
    units = any(one.name == "unit" for one in seen)
    found = []
    for name, weights in seen:
        if (name == "ids" and units) or weights.shape[0] != 1 or not weights.shape[2]:
            continue
        own = weights[0].float()
        own = own.expand(items, -1) if len(own) == 1 else own.unflatten(0, (items, -1)).mean(1)
        own = own / own.abs().sum(1, keepdim=True).clamp(min=1e-12)
        found.append(nn.functional.pad(own, (length - own.shape[1], 0)))
    return torch.stack(found).mean(0).cpu().numpy() if found else None


def _reasons(past: Sequence[str], weights: np.ndarray) -> list[Reason]:
    """The items of a history that weigh most."""
    total: dict[str, float] = {}
    for item, weight in zip(past, weights.tolist(), strict=True):
        total[item] = total.get(item, 0.0) + weight
    best = sorted(total.items(), key=lambda one: -one[1])[:REASONS]
    return [Reason(item, weight) for item, weight in best if weight > 0]


def _name(item: Item, n: int) -> str:
    """The id of an item, or of a new one its place in the list."""
    return f"new item {n}" if isinstance(item, Mapping) else str(item)
