"""What somebody typed -> the best items of the catalogue, by the ranker, by content, or by both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rawrec.arguments import COUNT, shown
from rawrec.config.training import Seen
from rawrec.content.new_items import Item
from rawrec.errors import UserError
from rawrec.evaluation.topk import rank_all
from rawrec.serving.asked import Unknown
from rawrec.serving.served import QUERY_NOW, Scored, Served, check_query, cosines, of_one_state
from rawrec.training.tasks.queries import Queries

By = Literal["score", "content"]
BY: tuple[By, ...] = get_args(By)
ONE = np.zeros(1, np.int64)  # who asks is one
NOTHING = np.zeros(2, np.int64), np.zeros(0, np.int64)  # is left out of one list


class Searching(Served):
    """`search` of a recommender."""

    @of_one_state
    def search(
        self,
        query: str,
        *,
        user: str | None = None,
        history: Sequence[Item] | None = None,
        k: int = 10,
        by: By = "score",
        candidates: int | None = None,
        exclude_seen: bool | Seen | None = False,
        context: Mapping[str, Any] | None = None,
        label: str | None = None,
        unknown: Unknown = "refuse",
    ) -> list[Scored]:
        """The `k` best items of the catalogue for what was typed, best first; items that were added are among them.

        query: any text, of any length (the first `content.query.max_length` words are read). An empty one is no query,
        as in a dataset. user, history, unknown: as in `recommend`; without both, of somebody of whom nothing is known.
        by: "score", the probability that `score` gives with the context query=...; "content", the cosine of the query's
        vector with the item's content, whoever asks, of the items that have content. candidates: by "score" among so
        many items alone, which are the nearest by content; None: among all, exactly. exclude_seen: as in `recommend`,
        but that nothing is left out by default: people search for what they had. context: further values. label: as in
        `recommend`.

        Raises UserError for a run that reads no queries. A ranker that learned content by queries (`model.sqdc_weight`)
        but does not read them takes by="content" or `candidates`.

        >>> rec.search("red striped mug", user="42", k=5)
        >>> rec.search("red striped mug", by="content")
        """
        queries = self._readable()
        check_query(query, "query")
        COUNT.check("k", k)
        if by not in BY:
            raise UserError(f"by={shown(by)}: use {' or '.join(BY)}; the probability of a label is label=...")
        exclude = self.excluded(exclude_seen)
        self._check_asked(by, candidates, k, exclude, user, history, context, label)
        past_of = [] if user is None and history is None else history
        who = self._who(user, past_of, unknown)
        left_out = self._seen_by(who, exclude)
        if by == "content":
            return self._scored(*self._nearest(queries, query, k, left_out), raw=True)
        place = self._label(label)
        moments = self._moments(who, self._with_query(context, query))
        if candidates is None:
            scores = self._score_all(moments, who.past, place, None, who.table)
            return self._scored(*_best(self._without_hidden(scores), left_out, k))
        rows, _ = self._nearest(queries, query, candidates, left_out)
        if not len(rows):
            return []
        scores = self._score_all(moments, who.past, place, torch.from_numpy(rows), who.table)
        found, best = _best(scores, NOTHING, k)
        return self._scored(rows[found], best)

    def _with_query(self, context: Mapping[str, Any] | None, query: str) -> Mapping[str, Any] | None:
        """The context in which the ranker is asked."""
        given = {} if context is None else context
        if not isinstance(given, Mapping) or not self._ranks_by_queries():
            return context
        if QUERY_NOW in given:
            raise UserError(f"context: {QUERY_NOW}={shown(given[QUERY_NOW])}: what is searched for is given already")
        return {**given, QUERY_NOW: query}

    def _readable(self) -> Queries:
        """What reads queries. UserError for a run that does not."""
        queries = self._queries()
        if queries is None:
            lacking = "" if self.data.has_queries else ", on a dataset that has queries (--query of an import)"
            raise UserError(
                f"this run, of model `{self._model()}`, reads no queries: train one that does, as `rawrec train lemur` "
                f"or any head with model.content=lemur{lacking}"
            )
        return queries

    def _check_asked(
        self,
        by: By,
        candidates: int | None,
        k: int,
        exclude: Seen,
        user: str | None,
        history: Sequence[Item] | None,
        context: Mapping[str, Any] | None,
        label: str | None,
    ) -> None:
        """UserError for what cannot be answered, or would do nothing."""
        nobody = user is None and history is None
        if exclude != "none" and nobody:
            raise UserError(f"exclude_seen={shown(exclude)}: give a user or a history, whose items are to be left out")
        if by == "content":
            idle = {"candidates": candidates, "context": context or None, "label": label}
            idle |= {"user": user, "history": history} if exclude == "none" else {}
            for name, value in idle.items():
                if value is not None:
                    raise UserError(
                        f"{name}={shown(value)} does nothing with by='content', which compares the query with items "
                        "alone: leave it out, or use by='score'"
                    )
        if candidates is not None:
            COUNT.check("candidates", candidates)
            if candidates < k:
                raise UserError(f"candidates={candidates}: the {k} best are chosen among them, so give {k} at least")
        if by == "score" and candidates is None and not self._ranks_by_queries():
            raise UserError(
                f"the scores of this run, of model `{self._model()}`, do not depend on what was typed: use "
                "by='content', the cosine of query and item, or candidates=100, the order of the ranker among the 100 "
                "items nearest to the query; or train with model.content=lemur"
            )

    def _nearest(
        self, queries: Queries, query: str, k: int, left_out: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the items whose content is nearest to the query's vector, and the cosines."""
        if self._read_query(query) is None:
            raise UserError(f"query={shown(query)} is empty, so there is nothing to compare with items: give some text")
        if not self.system.cfg.model.contrasts_queries:
            self._tell(
                "contrast",
                "this run had no loss that brings queries near the items clicked for them (model.sqdc_weight), so "
                "that their cosines say little",
            )
        vectors, valid = self._vectors()
        near = cosines(queries.of_text(query)[0, 0], vectors, valid)
        return _best(self._without_hidden(near[None]), left_out, k)


def _best(scores: Tensor, left_out: tuple[np.ndarray, np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns of the k largest of `[1, n]`, best first, and their values; fewer where there are no more."""
    top = rank_all(lambda users: scores, ONE, *left_out, min(k, scores.shape[1]))
    there = top.items[0] >= 0
    return top.items[0][there], top.scores[0][there]
