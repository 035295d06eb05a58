"""The task of streams: impressions as events bring them, with users and items that training has not seen.

A step is that of `impressions.py`; what differs is where its batch comes from, and that tables grow. An id has a row of
its own after `admit_after` trained impressions, and reads the unknown one until then; the content of an item is there
as soon as its raw fields are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.config import Config
from rawrec.content.caches import Cache
from rawrec.content.live import LiveContent
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Impressions
from rawrec.distinct import distinct
from rawrec.errors import UserError
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.context import ImpressionContext
from rawrec.randomness import mixed
from rawrec.training.steps import COLD
from rawrec.training.tasks.arriving import arrived, is_fact
from rawrec.training.tasks.asked import Asked, Candidate, Sample, numbered
from rawrec.training.tasks.expiring import Activity
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.queries import Queries
from rawrec.training.tasks.step_impressions import ContentTable, StepImpressions
from rawrec.training.tasks.streamable import refuse
from rawrec.training.tasks.taken import Taken

ROOM = 64
"""Tables grow by at least so many rows, and by an eighth, so that growing costs little however many come."""
LATEST = 4096
"""Trained impressions whose items are those that are popular now."""


class StreamTask(ImpressionTask):
    """A ranker that goes on after its training. `grown` is called with the number of item rows when tables have grown,
    `forgotten` with a table and the rows of it that were given up.

    users, items: the row of every id, those of the dataset first, then as they came. newcomers: users of the rows
    behind those of the dataset, None where a row is free. gone: ids of items that are not to be recommended. facts:
    categories and numbers of items that came, by which lists are filtered. counts: `new_items`, `changed_items`,
    `new_users` (with a row of their own), `admitted_items`, `expired_users`, `expired_items`, `context` (impressions
    whose context could not be read), `made_items` (contents that steps made, encoded or fused), `refreshed_items`
    (those made anew beside them), `item/...`: what could not be used of an item, `query/...`: of queries. popular:
    share of the refreshed items that are drawn from the latest impressions. heard: of a version, what users took in the
    stream, times and items in order of time.
    """

    noun = "impressions"

    def __init__(self, cfg: Config, data: Dataset, cache: Path | Cache, progress: Callable | None = None):
        refuse(cfg)
        super().__init__(cfg, data, cache, progress)
        self.users = {str(name): row for row, name in enumerate(data.user_ids)}
        self.items = {str(name): row for row, name in enumerate(data.item_ids)}
        self.gone: set[str] = set()
        self.facts: dict[str, dict[str, Any]] = {}
        self.counts: dict[str, int] = {}
        self.admit_after = 1
        self.popular = 0.0
        self.grown: Callable[[int], None] = lambda items: None
        self.forgotten: Callable[[Tensor, Tensor], None] = lambda table, rows: None
        self.newcomers: list[str | None] = []
        self._free: list[int] = []  # rows of users, the first one last
        self.heard: dict[str, list[tuple[float, str]]] = {}
        self.activity = Activity()
        self.activity.grow(*self.room)
        self.taken = Taken(data, self.samples, cfg.seed, self.users, self.items)
        self._turned: list[nn.Module] | None = None  # what learns otherwise than it predicts
        self._latest = torch.full((LATEST,), -1, dtype=torch.int64)  # item rows of the latest impressions, in turn
        self._at = 0
        # Of a user? -> id without a row -> impressions so far, and when the last one was.
        self._tried: dict[bool, dict[str, tuple[int, float]]] = {True: {}, False: {}}

    # ------------------------------------------------------------------------------------------------------------ rows
    def count(self, name: str, more: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + more

    def item_row(self, item: str) -> int:
        """The row of an item; of one that nobody knows, a new one, without content."""
        row = self.items.get(item)
        if row is None:
            row = self.items[item] = len(self.items)
            columns = self.ranker.inputs.columns
            self.ranker.inputs.columns = columns.extended(columns.of_new([{}]))
            self.make_room(self._user_rows_used, len(self.items))
            self.count("new_items")
        return row

    def make_room(self, users: int, items: int, exactly: bool = False) -> None:
        """Tables for so many in all, or more, unless `exactly`."""
        inputs = self.ranker.inputs
        have = self.room
        want = [
            n if exactly else have_ if n <= have_ else max(n, have_ + max(ROOM, have_ // 8))
            for n, have_ in zip((users, items), have, strict=True)
        ]
        if tuple(want) == have:
            return
        inputs.ids.grow(*want)
        if more := want[0] - have[0]:
            inputs.columns = inputs.columns.with_users(more)
            if inputs.user_columns is not None:
                inputs.user_columns.columns = inputs.user_columns.columns.with_unknown(more)
        if want[1] > have[1] and self.bank is not None and self.live is not None:
            self.bank.grow(want[1], COLD)
            self.live.policy.grow(want[1])
        content = self.ranker.content
        if content is not None and content.same is not None:  # nothing is known to be equal to what is new
            own = torch.arange(len(content.same), want[1], device=self.device) + int(content.same.max()) + 1
            content.same = torch.cat([content.same, own])
        self.activity.grow(*self.room)
        self.grown(want[1])

    @property
    def room(self) -> tuple[int, int]:
        """Rows that there are for users and for items."""
        ids = self.ranker.inputs.ids
        return len(ids.user.known), len(ids.item.known)

    def take_item(self, item: str, values: Mapping[str, Any], step: int) -> None:
        """Raw fields of an item, new or changed, by the dataset's names: a picture is its bytes. What can be used of
        them is encoded and written as of `step`; what cannot is counted."""
        told = "changed_items" if item in self.items else ""
        row = self.item_row(item)
        if told:
            self.count(told)
        self.gone.discard(item)
        if row >= self.data.n_items:
            facts = {name: value for name, value in values.items() if is_fact(name, value, self.data.fields)}
            self.facts[item] = self.facts.get(item, {}) | facts
        found = arrived(values, self.data.fields, self.item_model, self.ranker.inputs.columns)
        for problem in found.problems:
            self.count(f"item/{problem}")
        if found.named:
            columns = self.ranker.inputs.columns
            self.ranker.inputs.columns = columns.replaced(row, columns.of_new([found.values]), found.named)
        if self.bank is not None and self.item_model is not None and found.columns:
            self.bank.put(row, found.columns)
            content = self.ranker.content
            if content is not None and content.same is not None:
                content.same[row] = content.same.max() + 1
            if self.bank.valid[row]:
                at = torch.tensor([row], device=self.device)
                self.item_model.refresh(self.bank, at, step, self.cfg.bank.micro_batch)

    def note(self, samples: Sequence[Sample]) -> None:
        """These have been trained: ids that have been often enough get a row of their own."""
        ids = self.ranker.inputs.ids
        self._popularity([self.items[sample.item] for sample in samples])
        times = np.array([sample.time for sample in samples])
        for user, rows, table in ((False, self.items, ids.item), (True, self.users, ids.user)):
            names = [sample.user if user else sample.item for sample in samples]
            at = np.array([-1 if name is None else rows.get(name, -1) for name in names], np.int64)
            own = (at >= 0) & table.known.cpu().numpy()[at]  # there are rows for all that has a place
            self.activity.note(user, at[own], times[own])
            for n in np.flatnonzero(~own).tolist():
                if (name := names[n]) is None:
                    continue
                if (row := rows.get(name)) is not None and table.known[row]:  # since a sample before this one
                    self.activity.note(user, np.array([row]), times[n : n + 1])
                else:
                    self._try(name, user, samples[n].time)

    def _try(self, name: str, user: bool, time: float) -> None:
        """One more impression of an id without a row of its own."""
        rows, tried = self.users if user else self.items, self._tried[user]
        count, latest = tried.pop(name, (0, time))
        if count + 1 < self.admit_after:
            tried[name] = count + 1, max(latest, time)
            return
        row = rows.get(name)
        if row is None:
            row = self._place(name)
        self.ranker.inputs.ids.admit(row, user)
        self.activity.note(user, np.array([row]), np.array([time]))
        self.count("new_users" if user else "admitted_items")

    @property
    def _user_rows_used(self) -> int:
        return self.data.n_users + len(self.newcomers)

    def _place(self, user: str) -> int:
        """A row for a user that came with the stream: one that is free, or one more."""
        if self._free:
            row = self._free.pop()
            self.newcomers[row - self.data.n_users] = user
        else:
            row = self._user_rows_used
            self.newcomers.append(user)
            self.make_room(self._user_rows_used, len(self.items))
        self.users[user] = row
        return row

    def expire(self, now: float | None, after: float | None) -> float | None:
        """Give up the rows of ids without a trained impression for `after` seconds, where it is time to look: they read
        the unknown row, and are admitted again as new ones. The moment before which all was given up; None: not now.

        Users that came with the stream lose their place as well, and others get it.
        """
        if not self.activity.is_due(now, after) or now is None or after is None:
            return None
        before, ids = now - after, self.ranker.inputs.ids
        for user, table in ((False, ids.item), (True, ids.user)):
            tried = self._tried[user]
            for name in [name for name, (_, latest) in tried.items() if latest < before]:
                del tried[name]
            if not (rows := self.activity.overdue(user, table.known, before)):
                continue
            at = torch.tensor(rows, device=self.device)
            for part in ids.forget(at, user):
                self.forgotten(part, at + 1)
            self.count("expired_users" if user else "expired_items", len(rows))
            for row in rows if user else ():
                if row >= self.data.n_users and (name := self.newcomers[row - self.data.n_users]) is not None:
                    del self.users[name]
                    self.newcomers[row - self.data.n_users] = None
                    self._free.append(row)
        self._free.sort(reverse=True)
        return before

    # ------------------------------------------------------------------------------------------------------- refresher
    def _popularity(self, rows: Sequence[int]) -> None:
        """Item rows of impressions that were trained."""
        places = (torch.arange(len(rows)) + self._at) % LATEST
        self._latest[places[-LATEST:]] = torch.tensor(rows[-LATEST:], dtype=torch.int64)
        self._at = (self._at + len(rows)) % LATEST

    def refreshed(self, made: Tensor, count: int, step: int) -> Tensor:
        assert self.bank is not None
        rows, wanted = self._latest[self._latest >= 0], math.ceil(self.popular * count)
        if wanted and len(rows):
            generator = torch.Generator().manual_seed(mixed(self.cfg.seed, step) + 2)
            drawn = torch.unique(rows[torch.randint(len(rows), (wanted,), generator=generator)]).to(self.device)
            drawn = drawn[self.bank.valid[drawn] & ~torch.isin(drawn, made)]
        else:
            drawn = made[:0]
        stalest = self.bank.oldest(count - wanted) if count > wanted else made[:0]
        return torch.unique(torch.cat([drawn, stalest]))

    def write(self, live: LiveContent, step: int) -> None:
        if self.cfg.paradigm != "frozen":
            self.count("made_items", len(live.encoded if self.cfg.paradigm == "end_to_end" else live.rows))
        super().write(live, step)

    def _make_anew(self, rows: Tensor, step: int) -> None:
        self.count("refreshed_items", len(rows))
        super()._make_anew(rows, step)

    # ----------------------------------------------------------------------------------------------------------- steps
    def batch(self, rows: Sequence[Sample], epoch: int, step: int) -> StepImpressions:
        """Of impressions that came; with one candidate each."""
        self._learn(True)
        items = np.array([[self.item_row(sample.item)] for sample in rows], np.int64)
        users, history, times = self._asked(rows)
        labels = np.array([[sample.label] for sample in rows], np.float32)
        late = np.array([[sample.late] for sample in rows], np.float32)
        none = np.full(len(rows), -1, np.int64)
        sample = Impressions(none, users, items, labels, times)
        weighted = self._on_device(late) if late.any() else None
        given = self._on_device(users), self._on_device(items), self._on_device(history), self._on_device(labels)
        query, session, queries = self._typed(rows)
        for lost, count in {} if queries is None else queries.lost.items():
            self.count(f"query/{lost}", count)
        keys = {name: {"query": query, "session": session}[name] for name in self.cfg.model.reads_interactions()}
        context = self._context(rows, items)
        return StepImpressions(sample, *given, keys, context, query, session, late=weighted, queries=queries)

    def _typed(self, rows: Sequence[Asked]) -> tuple[Tensor, Tensor, Queries | None]:
        """Numbers of queries and sessions, see `numbered`; the queries, None for a model that reads none."""
        query, session, texts = numbered(rows)
        item_model = None if self.queries is None else self.item_model
        queries = None if item_model is None else Queries(item_model, texts, self.cfg.bank.micro_batch)
        return self._on_device(query), self._on_device(session), queries

    def _learn(self, learning: bool) -> None:
        """As `train(learning)`, which goes through all modules, for the two turns of every step."""
        if self._turned is None:
            self.train()
            learns = [module for module in self.modules() if module.training]
            self.eval()
            self._turned = [module for module in learns if not module.training]
        for module in self._turned:
            object.__setattr__(module, "training", learning)  # that of modules looks for parameters first

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _asked(self, rows: Sequence[Asked]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """User rows `[n]`, histories `[n, history]` of item rows (those of unknown items are left out), times `[n]`."""
        length = self.samples.history
        row_of = self.users.get
        users = np.array([row_of(one.user, -1) if one.user is not None else -1 for one in rows], np.int64)
        history, every = np.full((len(rows), length), -1, np.int64), self.items.get
        known = [list(map(every, one.history)) for one in rows]
        for n, found in enumerate(known):
            if None in found:
                found = [row for row in found if row is not None]
            known[n] = found[len(found) - length :] if len(found) > length else found
        counts = np.array(list(map(len, known)), np.int64)
        flat = np.fromiter(chain.from_iterable(known), np.int64, counts.sum())
        if length and len(flat):  # at the end of each line
            history[np.arange(length) >= length - counts[:, None]] = flat
        return users, history, np.array([int(one.time) for one in rows], np.int64)

    def _context(self, rows: Sequence[Asked], items: np.ndarray) -> ImpressionContext | None:
        if self.context is None:
            return None
        given = [{**one.context, "time": one.time} for one in rows]
        try:
            return self.context.read_each(given, items).to(self.device)
        except UserError:
            return self.context.read_each([self._readable(one) for one in given], items).to(self.device)

    def _readable(self, given: dict[str, Any]) -> dict[str, Any]:
        assert self.context is not None
        try:
            self.context.read_each([given], np.zeros((1, 1), np.int64))
        except UserError:
            self.count("context")
            return {}
        return given

    @torch.no_grad()
    def predict(self, rows: Sequence[Asked], items: Sequence[str]) -> list[float]:
        """Click probabilities of `items`, each shown to the one of `rows` at its place, by the weights and the bank as
        training left them; inside `view`, by that."""
        self._learn(False)
        at = np.array([[self.item_row(item)] for item in items], np.int64)
        users, history, _ = self._asked(rows)
        context = self._context(rows, at)
        batch = self._batch_of(self._on_device(users), self._on_device(at), self._on_device(history), context)
        batch.query, batch.session, queries = self._typed(rows)
        if queries is not None and self.ranks_by_queries:
            batch.query_content = queries.table(batch.query).at(slice(None))
        return torch.sigmoid(self.ranker(batch)).float()[:, 0].tolist()

    def _batch_of(
        self, users: Tensor, items: Tensor, history: Tensor, context: ImpressionContext | None
    ) -> RankingBatch:
        """As `batch_of`, with content of the rows that are read alone: it costs what the batch costs."""
        bank = self._read
        if bank is None:
            return RankingBatch(users, items, history, context=context)
        rows = distinct(torch.cat([items.flatten(), history.flatten()]))
        rows = rows[rows >= 0]
        table = ContentTable(self.read_content(bank.rows(rows)), bank.valid[rows] & (bank.written[rows] >= 0))
        at = torch.searchsorted(rows, items)
        content = table.values[at] * table.valid[at][..., None]
        past, long = self.past.of_table(table, torch.searchsorted(rows, history).masked_fill(history < 0, -1))
        return RankingBatch(users, items, history, content, past, None, context, long_history=long)

    def beginning(self, batch: Any) -> str:
        return (
            f"Its batch of {len(batch.users)} {self.noun} is of the item rows {batch.items.flatten()[:5].tolist()}. "
            "Try a lower online.lr, or a smaller train.clip when the run is trained"
        )

    # ------------------------------------------------------------------------------------------------------ publishing
    def serving_state(self, step: int, asked: Sequence[Candidate] = ()) -> tuple[dict[str, Tensor], list[float]]:
        """What a server needs of the model as it is, content made anew where it is older than the last update; and what
        such a model predicts for `asked`. The bank that is trained stays as it is."""
        with self.view(None, step), torch.no_grad():
            found = {f"model.{name}": values for name, values in self.state().items()} | self._of_rows()
            if (bank := self._read) is not None:
                found |= {"content": bank.content.clone(), "valid": bank.valid & (bank.written >= 0)}
            answers = self.predict(asked, [one.item for one in asked]) if asked else []
        return found, answers

    def serve(self, plain: Mapping[str, Any], tensors: Mapping[str, Tensor], step: int) -> None:
        """Be the model of a version, on a task that has just been made. Raises UserError where it is of another."""
        self.load_plain_state(plain)
        self.heard = {user: [(time, item) for time, item in own] for user, own in plain["histories"].items()}
        self.load_state({name.removeprefix("model."): v for name, v in tensors.items() if name.startswith("model.")})
        self._load_rows(tensors)
        if self.bank is not None:
            self.bank.valid.copy_(tensors["valid"])
            self.bank.publish(tensors["content"], step)
        self.eval()

    # ----------------------------------------------------------------------------------------------------------- state
    def load_published(self, tensors: dict[str, Tensor], step: int) -> None:
        """The run's weights; content is made anew by them, and what trained encoders make is kept, as training does."""
        self.load_state(tensors)
        self.refresh(None, step)
        self.eval()

    def plain_state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside tensors: plain values."""
        return {
            "room": list(self.room),
            "users": self.newcomers,
            "items": list(self.items)[self.data.n_items :],
            "gone": sorted(self.gone),
            "facts": self.facts,
            "counts": dict(sorted(self.counts.items())),
            "tried": [self._tried[True], self._tried[False]],
            "latest": self._at,
            "active": self.activity.plain_state(),
        }

    def grown_state(self) -> dict[str, Tensor]:
        """Tensors that only a stream changes: which ids have rows, columns of items, content that came, the bank."""
        found, content = self._of_rows() | {"latest": self._latest} | self.activity.state(), self.ranker.content
        if content is not None and content.same is not None:
            found["same"] = content.same
        if self.bank is not None:
            found |= {f"bank.{name}": values for name, values in self.bank.state(health=True).items()}
            found |= {f"put.{name}": values for name, values in self.bank.put_state().items()}
        return found

    def _of_rows(self) -> dict[str, Tensor]:
        """Which ids have rows, and the columns of items."""
        ids, columns = self.ranker.inputs.ids, self.ranker.inputs.columns
        found = {"known.user": ids.user.known, "known.item": ids.item.known, "numbers": columns.numbers}
        for name, (codes, ptr, _) in columns.bags.items():
            found |= {f"bag.{name}.codes": codes, f"bag.{name}.ptr": ptr}
        return found

    def _load_rows(self, state: Mapping[str, Tensor]) -> None:
        """The reverse of `_of_rows`."""
        ids, columns = self.ranker.inputs.ids, self.ranker.inputs.columns
        for of, tables in (("user", (ids.user, ids.user_bias)), ("item", (ids.item, ids.item_bias))):
            for table in tables:
                table.known.copy_(state[f"known.{of}"])
        columns.numbers = state["numbers"].to(self.device)
        for name, (_, _, size) in columns.bags.items():
            codes, ptr = (state[f"bag.{name}.{part}"].to(self.device) for part in ("codes", "ptr"))
            columns.bags[name] = (codes, ptr, size)

    def load_plain_state(self, state: Mapping[str, Any]) -> None:
        """The reverse of `plain_state`, before tensors are loaded, on a task that has just been made."""
        self.newcomers, first = list(state["users"]), self.data.n_users
        for name in list(self.users)[first:]:  # of an earlier version
            del self.users[name]
        self.users |= {name: first + n for n, name in enumerate(self.newcomers) if name is not None}
        self._free = [first + n for n, name in enumerate(self.newcomers) if name is None][::-1]
        self.items |= {name: self.data.n_items + n for n, name in enumerate(state["items"])}
        self.gone, self.counts = set(state["gone"]), dict(state["counts"])
        self.facts = {item: dict(values) for item, values in state["facts"].items()}
        self._tried = {
            user: {name: (count, latest) for name, (count, latest) in tried.items()}
            for user, tried in zip((True, False), state["tried"], strict=True)
        }
        self.activity.load_plain_state(state["active"])
        self._at = state["latest"]
        self.make_room(*state["room"], exactly=True)

    def load_grown_state(self, state: Mapping[str, Tensor]) -> None:
        """The reverse of `grown_state`. Raises KeyError, RuntimeError where it is of another model."""
        self._load_rows(state)
        self._latest.copy_(state["latest"])
        self.activity.load_state({name: values for name, values in state.items() if name.startswith("active.")})
        if "same" in state and self.ranker.content is not None:
            self.ranker.content.same = state["same"].to(self.device)
        if self.bank is not None:
            self.bank.load_put({k.removeprefix("put."): v for k, v in state.items() if k.startswith("put.")})
            self.bank.load_state({k.removeprefix("bank."): v for k, v in state.items() if k.startswith("bank.")})
