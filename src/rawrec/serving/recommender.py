"""A trained run, in use: recommend, score, find similar items, embed; ids in and out are the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from torch import Tensor, nn

from rawrec.config.training import Seen
from rawrec.content.encoders import JointEncoder
from rawrec.content.joint_writing import write_joint
from rawrec.data.dataset import Dataset
from rawrec.data.exporters import mmrec_items
from rawrec.data.lists import LIST_FORMS, LISTS, write_lists
from rawrec.data.sampling import Histories
from rawrec.data.vectors import VECTOR_FORMS, Vectors, check_form, write_vectors
from rawrec.errors import UserError
from rawrec.evaluation.topk import rank_all
from rawrec.models.ranking.context import SEEN_NOW, ContextReader, Moments
from rawrec.serving.new_items import Item, check_list, new_columns
from rawrec.training.evaluate import teller
from rawrec.training.job import load_task
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.step_impressions import ContentTable, mark

SEEN: tuple[Seen, ...] = get_args(Seen)
QUERY_NOW = "query"
"""The key by which a given context says what was typed, for a model that reads queries."""
OWN_FILES = ("model.safetensors", "metrics.jsonl", "scores.parquet", "topk.parquet")
ENCODE = 256  # new items read and encoded at once
WRITTEN = 4096  # users or items whose lists or vectors are written at once


class Scored(NamedTuple):
    """An item's original id and its score: a click probability, a retrieval model's score, or a cosine similarity."""

    item: str
    score: float


class Recommender:
    """Serves a finished run. Make one with `Recommender.load`.

    Users that training never saw are served by their history alone; items it never saw, by their content. What a known
    user did is every positive interaction of the dataset, whatever part of the split it is in.

    >>> rec = rawrec.Recommender.load("runs/em3")
    >>> rec.recommend(user="42", k=10)
    >>> rec.recommend(history=["260", "1196"], k=10)
    >>> rec.score(user="42", items=["1", {"title": "A new film", "poster": "new.jpg"}])
    >>> rec.recommend(user="42", context={"device": "phone", "time": 1767225600})
    >>> rec.similar("260", k=5)

    Of a run of several labels (`data.labels`) everything is by the main one, and `label` asks for another.
    """

    measure = "probability"
    """What a recommendation's score is: a click probability, or for a retrieval model a score without a scale."""
    _workers = 1  # threads that make lists side by side

    def __init__(self, system: ImpressionTask, run: RunFolder):
        self.system = system.eval()
        self._open(system.data, run, system.samples.positive)
        self._table = system.table()

    def _open(self, data: Dataset, run: RunFolder, positive: np.ndarray) -> None:
        """The dataset's ids, and what its users did: the interactions that are `positive`, in order of time."""
        self.data, self.run = data, run
        self._told: set[str] = set()
        self._usual: Seen = run.config().eval.exclude_seen
        self._table: ContentTable | None = None
        self._item_ids: list[str] = [str(i) for i in data.item_ids]
        self._rows = {item: row for row, item in enumerate(self._item_ids)}
        times = None if data.timestamps is None else data.timestamps[positive]
        rows = np.flatnonzero(positive) if self._reads_marks() else None
        self._past = Histories(data.users[positive], data.items[positive], times, data.n_users, rows=rows)

    @classmethod
    def load(cls, run: str | Path, data: Dataset | str | Path | None = None, device: str | None = None) -> Recommender:
        """The recommender of a finished run. data: where its dataset is now, if it has moved. device: as train.device.

        Raises UserError for a folder that is no finished run, or a dataset that is gone or has changed.

        >>> rec = rawrec.Recommender.load("runs/em3", device="cpu")
        """
        folder = RunFolder.open(run)
        system = load_task(folder, data, device)
        if isinstance(system, ImpressionTask):
            return cls(system, folder)
        from rawrec.serving.retriever import Retriever  # which builds on this class

        return Retriever(system, folder)

    # ------------------------------------------------------------------------------------------------------ recommend
    def recommend(
        self,
        user: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        exclude_seen: bool | Seen | None = None,
        context: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> list[Scored]:
        """The `k` best items of the whole catalogue, best first, with click probabilities (or scores, see `measure`).

        user: a known user's id. history: item ids, oldest first; alone, for someone new; with `user`, instead of what
        is known of them. exclude_seen: what is left out: "positives" that the user has, all their "interactions"
        whatever the label, or "none"; of a `history`, that or none of it. None, the default: as `eval.exclude_seen` of
        the run says; False: none. Fewer than `k` come back where the catalogue ends.
        context: values by column, where the model reads a context (`model.context`); `time`, seconds since 1970, says
        hour and weekday, and `seen` what was met in the session (`model.session`): items, oldest first, in a list, or
        with whether they were clicked in a mapping; `query` is what was typed, any text, where the model reads queries.
        What is not given is missing, which a warning tells once. label: by the probability of which label; None: the
        main one. Under `model.multi_label=esmm` the second one is a click
        that converts.
        """
        _check_k(k)
        exclude = self._excluded(exclude_seen)
        users, past = self._who(user, history)
        if history is None:
            ptr, seen = self._left_out(users, exclude)
        else:
            seen = self._known_rows(history if exclude != "none" else ())
            ptr = np.array([0, len(seen)])
        count, place = min(k, len(self._item_ids)), self._label(label)
        moments = self._now(users, context)._replace(past=self._events(users) if history is None else None)
        top = rank_all(lambda u: self._score_all(moments, past, place), users, ptr, seen, count)
        return self._scored(top.items[0], top.scores[0])

    def recommend_all(
        self,
        out: str | Path,
        k: int = 10,
        exclude_seen: bool | Seen | None = None,
        user_batch: int = 64,
        context: Mapping[str, Any] | None = None,
        observer: Callable[..., None] | None = None,
        label: str | None = None,
    ) -> Path:
        """Lists for every user, the same as `recommend` gives user by user, in the form that the suffix of `out` names.

        `.parquet`, `.jsonl`: `user_id` and, best first, `items` (ids) and `scores` (see `measure`). `.csv`: a row
        user_id, rank, item_id, score per item. Also `.csv.gz`, `.jsonl.gz`. `user_batch` users are scored at once,
        all in one `context`; label: as in `recommend`. observer: told how many users are done, as that of
        `rawrec.train`.
        """
        _check_k(k)
        exclude, place, path = self._excluded(exclude_seen), self._label(label), self._target(out, LIST_FORMS)
        size = max(user_batch, WRITTEN)
        users = np.arange(self.data.n_users)
        parts = (users[at : at + size] for at in range(0, len(users), size))
        now = self._now(users, context)
        tell = None if observer is None else teller(observer, "lists of users", len(users))
        write_lists((self._lists(part, k, exclude, user_batch, now, tell, place) for part in parts), path)
        return path

    def _lists(
        self,
        users: np.ndarray,
        k: int,
        exclude: Seen,
        user_batch: int,
        now: Moments,
        tell: Callable[[int], None] | None,
        label: int,
    ) -> pa.Table:
        """Lists of some users with consecutive rows, as `LISTS` has them."""
        ptr, seen = self._left_out(users, exclude)

        def score(u: np.ndarray) -> Tensor:
            moments = now._replace(users=u, rows=np.full(len(u), -1), past=self._events(u))
            return self._score_all(moments, self._histories(u), label)

        top = rank_all(
            score,
            users,
            ptr,
            seen,
            min(k, len(self._item_ids)),
            user_batch,
            self._workers,
            tell,
        )
        found = (top.items >= 0) & np.isfinite(top.scores)
        offsets = pa.array(np.concatenate([[0], found.sum(1).cumsum()]).astype(np.int32))
        items = pa.array(self._item_ids, pa.string()).take(pa.array(top.items[found]))
        scores = pa.array(self._shown(top.scores[found]).astype(np.float32))
        rows = [pa.ListArray.from_arrays(offsets, values) for values in (items, scores)]
        return pa.Table.from_arrays([pa.array(self.data.user_ids[users], pa.string()), *rows], schema=LISTS)

    def score(
        self,
        user: str | None = None,
        items: Sequence[Item] = (),
        history: Sequence[str] | None = None,
        context: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> list[float]:
        """Click probabilities of items, known ones by id or new ones by their fields; or those of another `label`.

        Who is asked, and in which context: see `recommend`. A new item has the score that it would have as an item of
        the dataset without a training interaction.
        """
        check_list(items, "items")
        users, past = self._who(user, history)
        place = self._label(label)
        if not len(items):
            return []
        rows, new = self._rows_of(items)
        table = self._extended(self._embed_rows(new)) if new else self._table
        device, moments = self.system.device, self._now(users, context)
        batch = self.system.batch_of(
            torch.from_numpy(users).to(device),
            torch.tensor([rows], dtype=torch.int64, device=device),
            torch.from_numpy(past).to(device),
            table,
            self.system.context_of(moments, np.array([rows]), table),
        )
        batch.query_content = self.system.query_content(moments)
        moments = moments._replace(past=self._events(users) if history is None else None)
        mark(batch, self.system.marks_of(moments))
        with torch.no_grad():
            return torch.sigmoid(self.system.ranker(batch, place))[0].tolist()

    def similar(self, item: Item, k: int = 10) -> list[Scored]:
        """The items whose content is nearest (cosine), without the item itself.

        For a model on ids alone: nearest id embeddings, and only among items that training saw.
        """
        _check_k(k)
        vectors, valid = self._vectors()
        if not isinstance(item, Mapping):
            row = self._row(item)
            if not valid[row]:
                raise UserError(f"item {item!r} has {self._lacking()}, so there is nothing to compare")
            query = vectors[row]
        else:
            made = self._embed_rows([item])
            if not made.valid[0]:
                raise UserError("the new item has no content that this model reads, so there is nothing to compare")
            row, query = -1, made.values[0]
        scores = nn.functional.normalize(vectors, dim=1) @ nn.functional.normalize(query, dim=0)
        scores = scores.masked_fill(~valid, -torch.inf)
        if row >= 0:
            scores[row] = -torch.inf
        best = scores.topk(min(k, len(scores)))
        return self._scored(best.indices.cpu().numpy(), best.values.cpu().numpy(), raw=True)

    # ---------------------------------------------------------------------------------------------------- new content
    def embed(self, items: Sequence[Item]) -> np.ndarray:
        """Content embeddings `[n, dim]` float32 of items, known (id) or new (fields); zeros where there is no content.

        >>> rec.embed(["260", {"title": "A new film"}]).shape
        """
        check_list(items, "items")
        if self._table is None:
            raise UserError(f"this run is of model `{self._model()}`, which has no content embeddings: train em3")
        rows, new = self._rows_of(items)
        index = torch.tensor(rows, dtype=torch.int64, device=self.system.device)
        known = index < len(self._item_ids)
        table = self._table
        values = torch.zeros(len(rows), table.values.shape[1], device=self.system.device)
        values[known] = table.values[index[known]] * table.valid[index[known]][:, None]
        if new:
            made = self._embed_rows(new)
            values[~known] = made.values * made.valid[:, None]
        return values.cpu().numpy()

    def add_items(self, items: Iterable[Mapping[str, Any]] | pl.DataFrame) -> int:
        """Take new items into the catalogue of this recommender (not of the dataset); how many they are.

        Each has `item_id` and any of the dataset's fields, see `Item`. Either all of them are taken or, after a
        UserError, none.

        >>> rec.add_items([{"item_id": "new1", "title": "A new film", "poster": "new.jpg"}])
        """
        if isinstance(items, str | Mapping):
            raise UserError("give a list of items, each with an item_id and its fields")
        ids: dict[str, int] = {}
        tables: list[ContentTable] = []
        following = items.iter_rows(named=True) if isinstance(items, pl.DataFrame) else iter(items)
        while part := [dict(item) for item in islice(following, ENCODE)]:
            for row in part:
                value = row.pop("item_id", None)
                name = "" if value is None else str(value).strip()
                if not name:
                    raise UserError(f"new item {len(ids)} has no item_id")
                if name in self._rows or name in ids:
                    raise UserError(f"new item {len(ids)}: the catalogue has an item {name!r} already")
                ids[name] = len(self._item_ids) + len(ids)
            tables.append(self._embed_rows(part, len(ids) - len(part)))
        for table in tables:
            self._table = self._extended(table)
        self._rows |= ids
        self._item_ids += ids
        return len(ids)

    # ------------------------------------------------------------------------------------------------------------ out
    def export_vectors(self, out: str | Path, index: str | None = None) -> Path:
        """Vectors of all items with their ids: content embeddings, or id embeddings for a model on ids alone.

        The suffix of `out` names the form: `.parquet` (item_id, vector, valid), `.npy` or `.safetensors` (vectors;
        beside them `<name>.ids.jsonl`, a line (item_id, valid) per row) or `.faiss` (an index of the items that have a
        vector, whose scores are the cosines of `similar`; beside it `<name>.ids.parquet`, the item_id of each Faiss
        id). `valid` is False where an item has no vector. index: kind of Faiss index, `flat` (the default), `hnsw` or
        `ivf`.
        """
        path = self._target(out, VECTOR_FORMS)
        check_form(path, index)
        values, valid = self._vectors()
        split = zip(values.split(WRITTEN), valid.split(WRITTEN), strict=True)
        pieces = ((part.float().cpu().numpy(), there.cpu().numpy()) for part, there in split)
        write_vectors(Vectors(self._item_ids, values.shape[1], pieces), path, index)
        return path

    def export_features(self, out: str | Path, field: str | None = None, index: str | None = None) -> Path:
        """What the encoder of `field` makes of every item of the dataset, in the forms of `export_vectors`.

        That is the pooled output of the run's encoder, trained or frozen, before any projection and fusion, or the
        ready-made feature. field: may be left out where the model reads one only. A file `<field>_feat.npy` in a folder
        of MMRec has its rows in the order of the items there, and the mean of the others where an item has no feature.
        """
        path = self._target(out, VECTOR_FORMS)
        check_form(path, index)
        known = self._feature_widths()
        if not known:
            raise UserError(f"this run is of model `{self._model()}`, which reads no features: train em3")
        if field is None and len(known) == 1:
            field = next(iter(known))
        if field not in known:
            wrong = "this run has several fields" if field is None else f"field {field!r}: this run does not read it"
            raise UserError(f"{wrong}. Name one of {', '.join(known)}")
        ids = [str(item) for item in self.data.item_ids]
        order = mmrec_items(path, ids)
        rows = torch.arange(len(ids)) if order is None else torch.from_numpy(order)
        pieces = (self._features(field, part) for part in rows.split(WRITTEN))
        named = [ids[row] for row in rows.tolist()]
        given = Vectors(named, known[field], pieces, mean_for_missing=order is not None)
        write_vectors(given, path, index)
        return path

    def export_encoder(self, out: str | Path) -> Path:
        """The transformers of documents and queries that the run trained (`content.item.encoder=joint:...`), as the
        folder of an encoder: `content.item.encoder=joint:FOLDER` of another run begins as they are, or keeps them.

        >>> rec.export_encoder("encoders/lemur")
        """
        item_model, path = self.system.item_model, Path(out)
        encoders = {} if item_model is None else dict(item_model.raw_encoders())
        document = next((one for one in encoders.values() if isinstance(one, JointEncoder)), None)
        if item_model is None or document is None:
            raise UserError(
                f"{self.run.path}: only what content.item.encoder=joint:... trained is written as an encoder; this run "
                f"reads items by {', '.join(one.name for one in encoders.values()) or 'no encoder'}"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"--out {path} is there already: give a new folder")
        write_joint(document, item_model.query, path)
        return path

    # --------------------------------------------------------------------------------------------------------- inside
    def _who(self, user: str | None, history: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
        """User row `[1]` and history `[1, n]` as the model reads it."""
        if user is None and history is None:
            raise UserError("say who: a user's id (user), or a list of item ids (history)")
        row = int(self.data.user_rows([str(user)])[0]) if user is not None else -1
        if history is None:
            return np.array([row]), self._histories(np.array([row]))
        check_list(history, "history")
        rows, length = self._known_rows(history), self.system.samples.history
        past = np.full((1, length), -1, np.int64)
        recent = rows[-length:] if length else rows[:0]
        past[0, length - len(recent) :] = recent
        return np.array([row]), past

    def _now(self, users: np.ndarray, context: Mapping[str, Any] | None) -> Moments:
        """Users asked now, in a context, which is checked; what it lacks is told once."""
        reader, context, query = self._context_reader(), dict(context or {}), None
        nobody = np.full(len(users), -1)
        if self._ranks_by_queries():
            query = context.pop(QUERY_NOW, None)
            if query is not None and not isinstance(query, str):
                raise UserError(f"context: {QUERY_NOW}={query!r}: give the text of a query")
            self._tell_lacking([QUERY_NOW] if query is None else [])
        if reader is None:
            if context:
                reads = f"{QUERY_NOW} alone" if self._ranks_by_queries() else "none"
                raise UserError(
                    f"context: this run reads {reads}; train a ranker with model.context={next(iter(context))} for it"
                )
            return Moments(users, None, nobody, query=query)
        self._tell_lacking(reader.lacking(context))
        clicked = _seen(context.pop(SEEN_NOW, ()))
        seen = self._known_rows(list(clicked)), sum(clicked.values())
        return Moments(users, None, nobody, context, seen=seen, query=query)

    def _tell_lacking(self, names: Sequence[str]) -> None:
        """Warn, once of each, of what is read as missing."""
        lacking = [name for name in names if name not in self._told]
        if lacking:
            self._told.update(lacking)
            warnings.warn(f"not in the context, so read as missing: {', '.join(lacking)}", stacklevel=4)

    def _reads_marks(self) -> bool:
        """Whether it matters which interactions a history is of."""
        return self.system.marks is not None

    def _ranks_by_queries(self) -> bool:
        return self.system.ranks_by_queries

    def _context_reader(self) -> ContextReader | None:
        return self.system.context

    def _known_rows(self, items: Sequence[str]) -> np.ndarray:
        return np.array([self._row(item) for item in items], np.int64)

    def _excluded(self, exclude_seen: bool | Seen | None) -> Seen:
        """What lists leave out; True is what is usual, positives where nothing is."""
        if exclude_seen is None or exclude_seen is True:
            return "positives" if exclude_seen and self._usual == "none" else self._usual
        for known in SEEN:
            if known == (exclude_seen or "none"):
                return known
        raise UserError(f"exclude_seen={exclude_seen!r}: use {', '.join(SEEN)}, True or False")

    def _left_out(self, users: np.ndarray, exclude: Seen) -> tuple[np.ndarray, np.ndarray]:
        """What is left out of the lists of users with consecutive rows: ptr `[n + 1]` and item rows."""
        if exclude == "none":
            return np.zeros(len(users) + 1, np.int64), np.zeros(0, np.int64)
        source = self._past if exclude == "positives" else self._met
        ptr = source.ptr[users[0] : users[-1] + 2]
        return ptr - ptr[0], source.items[ptr[0] : ptr[-1]]

    @cached_property
    def _met(self) -> Histories:
        """All that users met, whatever the label."""
        return Histories(self.data.users, self.data.items, None, self.data.n_users)

    def _rows_of(self, items: Sequence[Item]) -> tuple[list[int], list[Mapping[str, Any]]]:
        """Rows of items in the catalogue, the new ones following its end; and the new ones."""
        new = [item for item in items if isinstance(item, Mapping)]
        following = iter(range(len(self._item_ids), len(self._item_ids) + len(new)))
        return [next(following) if isinstance(item, Mapping) else self._row(item) for item in items], new

    def _target(self, out: str | Path, suffixes: Sequence[str]) -> Path:
        """A file to write: its folder made, its name checked, and none of the run's and the dataset's own files."""
        path = Path(out)
        if not any(path.name.endswith(suffix) and path.name != suffix for suffix in suffixes):
            known = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
            raise UserError(f"{path.name or path}: use a name that ends in {known}")
        if path.is_dir():
            raise UserError(f"{path} is a folder: give the name of a file")
        if path.absolute().parent == self.run.path and path.name in OWN_FILES:
            raise UserError(f"{path} is a file of the run itself: give another name")
        if path.resolve().parent == self.data.path.resolve():
            raise UserError(f"{path} is in the folder of the dataset: give another one")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

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
        return self.system.past_of(self._past, users, None, None)

    def _label(self, name: str | None) -> int:
        """The place of a label among those of the run; None: the main one. Raises UserError for another."""
        names = [] if name is None else self.run.config().data.label_names
        if name is not None and name not in names:
            raise UserError(f"label {name!r}: this run has learned {', '.join(names)}; see data.labels")
        return 0 if name is None else names.index(name)

    def _score_all(self, moments: Moments, past: np.ndarray, label: int = 0) -> Tensor:
        return self.system.score_all(moments, past, self._table, label)

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
        return self.system.ranker.inputs.ids.item_vectors()

    def _feature_widths(self) -> dict[str, int]:
        """Field -> width of its features, for all that the model reads."""
        return {} if self.system.item_model is None else self.system.item_model.widths

    @torch.no_grad()
    def _features(self, field: str, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Features `[n, width]` of the dataset's items `rows` on the CPU, zeros where missing; and which are there."""
        item_model, bank = self.system.item_model, self.system.bank
        assert item_model is not None and bank is not None
        values = torch.cat([item_model.feature(bank, field, part) for part in rows.split(ENCODE)])
        return values.cpu().numpy(), bank.present[item_model.column(field)].cpu()[rows].numpy()

    def _extended(self, extra: ContentTable | None) -> ContentTable | None:
        if extra is None or self._table is None:
            return self._table
        columns = self._table.columns or self.system.ranker.inputs.columns
        assert extra.columns is not None
        return ContentTable(
            torch.cat([self._table.values, extra.values]),
            torch.cat([self._table.valid, extra.valid]),
            columns.extended(extra.columns),
        )

    @torch.no_grad()
    def _embed_rows(self, items: Sequence[Mapping[str, Any]], first: int = 0) -> ContentTable:
        """Content and columns of new items; `first`: the number of the first one, for messages."""
        item_model = self.system.item_model
        if item_model is None:
            raise UserError(unseen(self._model()))
        parts = [self._embed_part(items[at : at + ENCODE], first + at) for at in range(0, len(items), ENCODE)]
        values, valid = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return ContentTable(values, valid, self.system.ranker.inputs.columns.of_new(items, first))

    def _embed_part(self, items: Sequence[Mapping[str, Any]], first: int) -> tuple[Tensor, Tensor]:
        item_model = self.system.item_model
        assert item_model is not None
        columns = new_columns(items, first, self.data.fields, item_model)
        valid = torch.stack([columns[item_model.column(name)].lengths > 0 for name in item_model.fields]).any(0)
        return self.system.read_content(item_model(columns)), valid.to(self.system.device)


def _seen(given: Any) -> dict[str, bool]:
    """The items of a session and whether they were clicked, of a mapping, of a list, or of ids between commas."""
    if isinstance(given, Mapping):
        return {str(item): bool(clicked) for item, clicked in given.items()}
    items = given.split(",") if isinstance(given, str) else given
    return {str(item).strip(): False for item in items if str(item).strip()}


def _check_k(k: int) -> None:
    if k < 1:
        raise UserError(f"k={k}: ask for at least one item")


def unseen(model: str) -> str:
    """What is said of an item that is not in the catalogue, by a model that serves no other."""
    return f"this run is of model `{model}`, which cannot judge an item it has never seen: train em3"
