"""A finished run as it is asked: the ids of its catalogue, what users did, the content of items, scores of both.

The recommender's methods stand on this: `searching.py`, `recommender.py`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.arguments import IDS, shown
from rawrec.config.training import Seen
from rawrec.content.new_items import Item, new_columns
from rawrec.data import texts
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Histories
from rawrec.errors import UserError
from rawrec.models.ranking.context import SEEN_NOW, ContextReader, Moments
from rawrec.serving.asked import UNKNOWN, Unknown, check_list, check_user
from rawrec.serving.choosing import FEW
from rawrec.serving.filters import Columns
from rawrec.shown import counted, listed
from rawrec.threads import Mutex
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.queries import Queries
from rawrec.training.tasks.step_impressions import ContentTable

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")
Features = Mapping[str, tuple[Tensor, Tensor]]
"""By field: what encoders made of some items `[n, width]`, zeros where missing, and which have it `[n]`."""
SEEN: tuple[Seen, ...] = get_args(Seen)
QUERY_NOW = "query"
"""The key by which a given context says what was typed, for a model that reads queries."""
ENCODE = 256  # new items read and encoded at once


class Scored(NamedTuple):
    """An item's original id and its score: a click probability, a retrieval model's score, or a cosine similarity."""

    item: str
    score: float


class Catalogue(NamedTuple):
    """The items of a recommender, as they are at one moment: never changed, replaced whole.

    ids: of every row. rows: the same the other way round. table: their content; None for a model on ids alone.
    columns: their categories and numbers. hidden: `[n]`, which of them no list may hold; None: none.
    """

    ids: list[str]
    rows: dict[str, int]
    table: ContentTable | None
    columns: Columns
    hidden: np.ndarray | None = None


def of_one_state(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that works from its begin to its end on the catalogue as it is when it is called, whatever other threads
    add meanwhile: on a copy of the recommender that shares everything with it, and keeps its catalogue."""

    @wraps(method)
    def call(served: S, *args: P.args, **given: P.kwargs) -> R:
        return method(copy(served), *args, **given)

    return call


class Who(NamedTuple):
    """Who is asked: user rows `[1]` (-1 = unknown) and the history as the model reads it, `[1, n]` item rows. own: all
    of a history that was given in the place of what is known; None: none was. table: content, where new items of a
    history go on behind those of the catalogue."""

    users: np.ndarray
    past: np.ndarray
    own: np.ndarray | None
    table: ContentTable | None


class Served:
    """A run of a ranking model with its dataset; a retrieval model's has some methods of its own.

    Many threads may ask one at once. What is read is never written to: networks run in views of themselves
    (`content/encoders/views.py`), and what changes is the `Catalogue` alone.
    """

    measure = "probability"
    """What a recommendation's score is: a click probability, or for a retrieval model a score without a scale."""
    _workers = 1  # threads that make lists side by side
    _few = FEW  # see `Choice`

    def __init__(self, system: ImpressionTask, run: RunFolder):
        self.system = system.eval()
        self._open(system.data, run, system.samples.positive, system.table())

    def __repr__(self) -> str:
        name = self.run.info().get("model", "a model")
        return (
            f"{type(self).__name__}({str(self.run.path)!r}: {name}, {counted(self.people.n_users, 'user')}, "
            f"{counted(len(self._item_ids), 'item')}, scores are of the kind {self.measure!r})"
        )

    def __contains__(self, item: object) -> bool:
        """Whether the catalogue has an item of this id."""
        return item in self._catalogue.rows

    @property
    def n_items(self) -> int:
        """How many items the catalogue has, added ones among them."""
        return len(self._catalogue.ids)

    @property
    def history_length(self) -> int:
        """How many items of a history the model reads; 0 for one that reads none."""
        return self.system.samples.history

    def _open(self, data: Dataset, run: RunFolder, positive: np.ndarray, table: ContentTable | None = None) -> None:
        """The dataset's items, and what its users did: the interactions that are `positive`, in order of time."""
        self.data, self.run = data, run  # self.people: the same, or a newer version, in which users are looked up
        self._told: set[str] = set()
        self._usual: Seen = run.config().eval.seen
        ids = [str(i) for i in data.item_ids]
        self._catalogue = Catalogue(ids, {item: row for row, item in enumerate(ids)}, table, Columns(data))
        self._adding, self._made = Mutex(), dict[str, Histories]()
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}  # features of the dataset's items, once they were asked for
        self._read_people(data, positive)

    def _read_people(self, data: Dataset, positive: np.ndarray) -> None:
        """Users, and what they did: the interactions of `data` that are `positive`, of items of the catalogue."""
        self._made.pop("met", None)
        self.people, self._met_rows = data, data.items < len(self._item_ids)
        positive = positive & self._met_rows
        chosen = data.in_order(positive)
        times = None if data.timestamps is None else data.timestamps[chosen]
        rows = chosen if self._reads_marks() else None
        self._past = Histories(data.users[chosen], data.items[chosen], times, data.n_users, rows=rows)

    @property
    def _item_ids(self) -> list[str]:
        return self._catalogue.ids

    @property
    def _rows(self) -> dict[str, int]:
        return self._catalogue.rows

    @property
    def _table(self) -> ContentTable | None:
        return self._catalogue.table

    @property
    def _columns(self) -> Columns:
        return self._catalogue.columns

    def _without_hidden(self, scores: Tensor) -> Tensor:
        """Scores of all items `[..., n]`, -inf where an item is hidden; they may be written over."""
        hidden = self._catalogue.hidden
        if hidden is None:
            return scores
        return scores.masked_fill_(torch.from_numpy(hidden).to(scores.device), -torch.inf)

    # --------------------------------------------------------------------------------------------- who is asked, when
    def _who(self, user: str | None, history: Sequence[Item] | None, unknown: Unknown = "refuse") -> Who:
        """Who is asked. unknown: "skip" leaves items of a history aside that are not in the catalogue."""
        check_user(user)
        UNKNOWN.check("unknown", unknown)
        if user is None and history is None:
            raise UserError("say who: a user's id (user), several (users), or a list of item ids (history)")
        users = np.array([-1 if user is None else self._known_user(user)])
        if history is None:
            return Who(users, self._histories(users), None, self._table)
        check_list(history, "history")
        new = [item for item in history if isinstance(item, Mapping)]
        table = self._extended(self._embed_rows(new)) if new else self._table
        following = iter(range(len(self._item_ids), len(self._item_ids) + len(new)))
        known = iter(self._known_rows([i for i in history if not isinstance(i, Mapping)], "history", unknown).tolist())
        found = [next(following) if isinstance(item, Mapping) else next(known) for item in history]
        rows, length = np.array([row for row in found if row >= 0], np.int64), self.system.samples.history
        past = np.full((1, length), -1, np.int64)
        recent = rows[-length:] if length else rows[:0]
        past[0, length - len(recent) :] = recent
        return Who(users, past, rows[rows < len(self._item_ids)], table)

    def _user_rows(self, users: Sequence[str]) -> np.ndarray:
        """Rows of known users. UserError for what is no list of ids, or an unknown one."""
        IDS.check("users", users)
        return self.people.user_rows([str(user) for user in users])

    def _user_names(self, users: np.ndarray) -> Sequence[str]:
        """Ids of the rows of known users."""
        return self.people.user_ids[users].tolist()

    def _known_to_model(self, users: np.ndarray) -> np.ndarray:
        """Rows of users as the model counts them, -1 for those who came after it."""
        return np.where(users < self.data.n_users, users, -1)

    def _known_user(self, user: str) -> int:
        try:
            return int(self.people.user_rows([str(user)])[0])
        except UserError as error:
            newer = self.people.version < self.people.newest
            hint = "Load with newest=True (--newest) for the newest version, or of" if newer else "Of"
            raise UserError(
                f"{error}. {hint} somebody new give a history (item ids) in the place of the user"
            ) from None

    def _now(self, users: np.ndarray, context: Mapping[str, Any] | None) -> Moments:
        """Users asked now, in a context, which is checked; what it lacks is told once."""
        users = self._known_to_model(users)
        if context is not None and not isinstance(context, Mapping):
            raise UserError(f"context={shown(context)}: give values by name, for example context={{'device': 'phone'}}")
        reader, context, query = self._context_reader(), dict(context or {}), None
        nobody = np.full(len(users), -1)
        if self._ranks_by_queries():
            query = context.pop(QUERY_NOW, None)
            if query is None:
                self._tell_lacking([QUERY_NOW])
            else:
                check_query(query, f"context: {QUERY_NOW}")
                query = self._read_query(query)
                if query is None:
                    self._tell("empty query", "the query is empty, so read as missing")
        if reader is None:
            if context:
                reads = f"{QUERY_NOW} alone" if self._ranks_by_queries() else "none"
                raise UserError(
                    f"context: this run reads {reads}; train a ranker with model.context={next(iter(context))} for it"
                )
            return Moments(users, None, nobody, query=query)
        self._tell_lacking(reader.lacking(context))
        clicked = _seen(context.pop(SEEN_NOW, ()))
        seen = self._known_rows(list(clicked), SEEN_NOW), sum(clicked.values())
        return Moments(users, None, nobody, context, seen=seen, query=query)

    def _moments(self, who: Who, context: Mapping[str, Any] | None) -> Moments:
        """The moment when somebody asks, see `_now`, and what the history is of, where it is the known one."""
        return self._now(who.users, context)._replace(past=self._events(who.users) if who.own is None else None)

    def _tell_lacking(self, names: Sequence[str]) -> None:
        """Warn, once of each, of what is read as missing."""
        lacking = [name for name in names if name not in self._told]
        if lacking:
            self._told.update(lacking)
            _warn(f"not in the context, so read as missing: {listed(lacking)}")

    def _tell(self, what: str, text: str) -> None:
        """Warn once of `what`."""
        if what not in self._told:
            self._told.add(what)
            _warn(text)

    @staticmethod
    def _warn(text: str) -> None:
        """Warn, at the place that called this room."""
        _warn(text)

    def _read_query(self, query: str) -> str | None:
        """A query as the model reads it, None where it is empty; what is not read of it is told."""
        queries = self._queries()
        if queries is None or not texts.join([query]):
            return None
        for lost, said in queries.unread(query).items():
            self._tell(f"{lost} query", said)
        return query

    def _reads_marks(self) -> bool:
        """Whether it matters which interactions a history is of."""
        return self.system.marks is not None

    def _queries(self) -> Queries | None:
        """What encodes queries, where the run has learned to."""
        return self.system.queries

    def _ranks_by_queries(self) -> bool:
        """Whether scores depend on what was typed."""
        return self.system.ranks_by_queries

    def _context_reader(self) -> ContextReader | None:
        return self.system.context

    def _known_rows(self, items: Sequence[str], what: str, unknown: Unknown = "refuse") -> np.ndarray:
        """Rows of items in the catalogue. Of those that are not there, a UserError tells the first, or -1 stands for
        them and a warning, which names `what`, tells how many they are."""
        items = list(items)  # which may be a set
        rows = self._rows
        try:  # what nearly all callers give takes a third of the time
            return np.array([rows[item] for item in items], np.int64)
        except (KeyError, TypeError):
            found = np.array([rows.get(str(item), -1) for item in items], np.int64)
        lacking = np.flatnonzero(found < 0)
        if len(lacking) and unknown == "skip":
            some = f"{what}: {len(lacking)} of {len(items)} items are not in the catalogue and were left aside, first "
            _warn(some + repr(str(items[int(lacking[0])])))
        elif len(lacking):
            self._refuse(items[int(lacking[0])], what)
        return found

    def _refuse(self, item: str, what: str) -> None:
        """UserError for an item that the catalogue lacks."""
        try:
            self._row(item)
        except UserError as error:
            hint = "" if what == SEEN_NOW else ". unknown='skip' (--skip-unknown) leaves such items aside"
            raise UserError(f"{what}: {error}{hint}") from None

    def excluded(self, exclude_seen: bool | Seen | None) -> Seen:
        """What lists leave out, see `recommend`; True is what is usual, positives where nothing is."""
        if exclude_seen is None or exclude_seen is True:
            return "positives" if exclude_seen and self._usual == "none" else self._usual
        wanted: Any = "none" if exclude_seen is False else exclude_seen
        if isinstance(wanted, str) and wanted in SEEN:
            return wanted  # pyright: ignore[reportReturnType]
        raise UserError(f"exclude_seen={shown(exclude_seen)}: use {', '.join(SEEN)}, True or False")

    def _seen_by(self, who: Who, exclude: Seen) -> tuple[np.ndarray, np.ndarray]:
        """What is left out of the list of one user, or of a history in the place of theirs, as `_left_out` has it."""
        if who.own is None:
            return self._left_out(who.users, exclude)
        seen = who.own if exclude != "none" else who.own[:0]
        return np.array([0, len(seen)]), seen

    def _left_out(self, users: np.ndarray, exclude: Seen) -> tuple[np.ndarray, np.ndarray]:
        """What is left out of the lists of users: ptr `[n + 1]` and item rows."""
        if exclude == "none":
            return np.zeros(len(users) + 1, np.int64), np.zeros(0, np.int64)
        source = self._past if exclude == "positives" else self._met
        lengths = source.ptr[users + 1] - source.ptr[users]
        ptr = np.concatenate([[0], np.cumsum(lengths)])
        return ptr, source.items[np.arange(ptr[-1]) + np.repeat(source.ptr[users] - ptr[:-1], lengths)]

    @property
    def _met(self) -> Histories:
        """All that users met, whatever the label."""
        if "met" not in self._made:
            users, items = (rows[self._met_rows] for rows in (self.people.users, self.people.items))
            self._made["met"] = Histories(users, items, None, self.people.n_users)
        return self._made["met"]

    def _rows_of(self, items: Sequence[Item]) -> tuple[list[int], list[Mapping[str, Any]]]:
        """Rows of items in the catalogue, the new ones following its end; and the new ones."""
        new = [item for item in items if isinstance(item, Mapping)]
        following = iter(range(len(self._item_ids), len(self._item_ids) + len(new)))
        return [next(following) if isinstance(item, Mapping) else self._row(item) for item in items], new

    def _rows_and_table(
        self, items: Sequence[Item], table: ContentTable | None
    ) -> tuple[list[int], ContentTable | None]:
        """Rows of items in the table, and the table, which new ones among them go on behind."""
        rows, new = self._rows_of(items)
        if not new:
            return rows, table
        made, n = self._embed_rows(new), len(self._item_ids)
        met = 0 if table is None else len(table.values) - n  # new items of a history come before these
        return [row + met if row >= n else row for row in rows], self._extended(made, table)

    def _row(self, item: str) -> int:
        row = self._rows.get(str(item))
        return int(self.data.item_rows([str(item)])[0]) if row is None else row

    def _model(self) -> str:
        return self.run.config().label

    def _lacking(self) -> str:
        """What an item without a vector lacks."""
        return "no content" if self._table is not None else "no training interaction"

    def _histories(self, users: np.ndarray) -> np.ndarray:
        """The latest positives of users, `[n, history]` item rows, as the model reads them."""
        return self._past.read(users, None, None, self.system.samples.history)

    def _events(self, users: np.ndarray) -> np.ndarray | None:
        """Which interactions these are, see `Moments.past`."""
        rows = self.system.past_of(self._past, users, None, None)
        return None if rows is None else np.where(rows < self.data.n_interactions, rows, -1)

    def _label(self, name: str | None) -> int:
        """The place of a label among those of the run; None: the main one. Raises UserError for another."""
        names = [] if name is None else self.run.config().data.label_names
        if name is not None and (not isinstance(name, str) or name not in names):
            raise UserError(f"label {shown(name)}: this run has learned {listed(names, name)}; see data.labels")
        return 0 if name is None else names.index(name)

    def _score_all(
        self,
        moments: Moments,
        past: np.ndarray,
        label: int = 0,
        only: Tensor | None = None,
        table: ContentTable | None = None,
    ) -> Tensor:
        """Of all items of the catalogue, or of rows `only`, `[users, items]`. table: in the place of the catalogue's,
        which it begins with."""
        if table is not None and table is not self._table and only is None:
            only = torch.arange(len(self._item_ids))
        return self.system.score_all(moments, past, self._table if table is None else table, label, only)

    def _shown(self, scores: np.ndarray) -> np.ndarray:
        """What the user sees of a model's scores, see `measure`."""
        return 1 / (1 + np.exp(-scores))

    def _scored(self, rows: np.ndarray, scores: np.ndarray, raw: bool = False) -> list[Scored]:
        good = (rows >= 0) & np.isfinite(scores)
        scores = scores if raw else self._shown(scores)
        return [Scored(self._item_ids[r], float(s)) for r, s in zip(rows[good], scores[good], strict=True)]

    def _vectors(self) -> tuple[Tensor, Tensor]:
        if self._table is not None:
            return self._table.values, self._table.valid
        values, valid = self.system.ranker.inputs.ids.item_vectors()
        return values[: self.n_items], valid[: self.n_items]

    def _extended(self, extra: ContentTable | None, table: ContentTable | None = None) -> ContentTable | None:
        """A table, the catalogue's unless another is given, which goes on with `extra`."""
        table = self._table if table is None else table
        if extra is None or table is None:
            return table
        columns = table.columns or self.system.ranker.inputs.columns
        assert extra.columns is not None
        return ContentTable(
            torch.cat([table.values, extra.values]),
            torch.cat([table.valid, extra.valid]),
            columns.extended(extra.columns),
            _joined(table.features, extra.features),
        )

    @torch.no_grad()
    def _embed_rows(self, items: Sequence[Mapping[str, Any]], first: int = 0) -> ContentTable:
        """Content and columns of new items; `first`: the number of the first one, for messages."""
        item_model = self.system.item_model
        if item_model is None:
            raise UserError(unseen(self._model()))
        parts = [self._embed_part(items[at : at + ENCODE], first + at) for at in range(0, len(items), ENCODE)]
        values, valid = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        features = None
        for part in parts:
            features = _joined(features, part[2])
        return ContentTable(values, valid, self.system.ranker.inputs.columns.of_new(items, first), features)

    def _embed_part(self, items: Sequence[Mapping[str, Any]], first: int) -> tuple[Tensor, Tensor, Features]:
        item_model = self.system.item_model
        assert item_model is not None
        features, present = item_model.features(new_columns(items, first, self.data.fields, item_model))
        content = self.system.read_content(item_model.fuse(features, present))
        kept = {name: (values, present[name].to(values.device)) for name, values in features.items()}
        return content, torch.stack(list(present.values())).any(0).to(self.system.device), kept


def _joined(one: Features | None, other: Features | None) -> Features | None:
    """Features of some items, followed by those of others."""
    if one is None or other is None:
        return other if one is None else one
    return {name: (torch.cat([v, other[name][0]]), torch.cat([p, other[name][1]])) for name, (v, p) in one.items()}


def _seen(given: Any) -> dict[str, bool]:
    """The items of a session and whether they were clicked, of a mapping, of a list, or of ids between commas."""
    if isinstance(given, Mapping):
        return {str(item): bool(clicked) for item, clicked in given.items()}
    items = given.split(",") if isinstance(given, str) else given
    return {str(item).strip(): False for item in items if str(item).strip()}


def check_query(query: Any, name: str) -> None:
    """UserError for what is no text."""
    if not isinstance(query, str):
        raise UserError(f"{name}={shown(query)}: give the text of a query")


def _warn(text: str) -> None:
    """A warning at the place that called this room."""
    level, frame, room = 1, sys._getframe(), str(Path(__file__).parent)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(room):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def cosines(vector: Tensor, vectors: Tensor, valid: Tensor) -> Tensor:
    """Of a vector `[dim]` with each of `vectors` `[n, dim]`, `[n]`; -inf where that is not `valid`."""
    found = nn.functional.normalize(vectors, dim=1) @ nn.functional.normalize(vector, dim=0)
    return found.masked_fill(~valid, -torch.inf)


def unseen(model: str) -> str:
    """What is said of an item that is not in the catalogue, by a model that serves no other."""
    return f"this run is of model `{model}`, which cannot judge an item it has never seen: train em3"
