"""A ranker's lists of the full catalogue: whose, what is told of them, and how they are judged."""

from __future__ import annotations

import numpy as np

from rawrec.data.flat import spans
from rawrec.evaluation.ctr import buckets_of
from rawrec.training.evaluate import (
    ListTask,
    Scorer,
    TopKResult,
    evaluate_topk,
    judge,
    list_users,
    lists_of_part,
    no_lists,
)
from rawrec.training.tasks.base import PARTS


class RankerLists:
    """Lists of the parts of a ranker's data, `valid` and `test`, at every cut-off of `eval.topk`."""

    def __init__(self, task: Scorer):
        self._task, self._ks = task, task.cfg.eval.topk
        self._of: dict[str, ListTask] = {}
        self.followed = task.cfg.follows_lists
        """Whether early stopping goes by them."""

    def of(self, part: str) -> ListTask:
        """Who gets a list in a part."""
        if part not in self._of:
            self._of[part] = lists_of_part(self._task, PARTS[part])
        return self._of[part]

    @property
    def made(self) -> list[str]:
        """The parts that get lists at the end of a run."""
        return list(PARTS) if self.followed else ["test"] if self._task.cfg.eval.full_ranking else []

    def notes(self) -> list[str]:
        """That not all users get lists, and what it takes to follow them."""
        cfg, items = self._task.cfg, self._task.data.n_items
        told = [self.of("test").note] if self.made and self._has_many_users() else []
        if self.followed:
            users = len(self.of("valid").users)
            told.append(
                f"train.metric={cfg.train.metric}: after every epoch {users:,} users of the validation part get lists, "
                f"which takes {users * items:,} scores (eval.topk_users)"
            )
        return [text for text in told if text is not None]

    def _has_many_users(self) -> bool:
        """Whether more users may have a list of test than `list_users` allows."""
        data, samples = self._task.data, self._task.samples
        most = list_users(self._task.cfg, data.n_items)
        has = np.zeros(data.n_users, bool)
        for at in spans(data.n_interactions):
            has[data.users[at][(samples.part[at] == PARTS["test"]) & samples.positive[at]]] = True
        return most is not None and int(has.sum()) > most

    def evaluate(self, part: str, diversity: bool = True) -> TopKResult:
        """Made and judged, see `evaluate_topk`."""
        return evaluate_topk(self._task, PARTS[part], self._ks, task=self.of(part), diversity=diversity)

    def of_nothing(self, part: str) -> TopKResult:
        """The metrics of a ranker that recommends nothing."""
        cfg, task = self._task.cfg, self.of(part)
        buckets = buckets_of(self._task.samples.train_counts)
        return judge(task, no_lists(task, max(self._ks)), self._ks, buckets, cfg.own_metrics("lists"))
