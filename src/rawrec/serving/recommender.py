"""A trained run, in use: recommend, score, find similar items, embed; ids in and out are the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from rawrec.arguments import ANYTHING, COUNT, IDS, PATH, YES_OR_NO, checked, optional, shown
from rawrec.config.training import Seen
from rawrec.content.encoders import JointEncoder
from rawrec.content.new_items import Item
from rawrec.data.dataset import Dataset
from rawrec.data.lists import LIST_FORMS, LISTS, write_lists
from rawrec.data.vectors import VECTOR_FORMS, Vectors, check_form, write_vectors
from rawrec.errors import UserError
from rawrec.models.ranking.context import Moments
from rawrec.serving.asked import Asked, Unknown, check_list
from rawrec.serving.choosing import Choice, choose
from rawrec.serving.explaining import Explained
from rawrec.serving.filters import Where
from rawrec.serving.growing import Growing
from rawrec.serving.served import Scored, of_one_state
from rawrec.shown import listed
from rawrec.training.evaluate import teller
from rawrec.training.loading import load_task
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.pairs import PairTask

WRITTEN = 4096  # users or items whose lists or vectors are written at once
SCORED = 64  # users scored at once


class Further(TypedDict, total=False):
    """The arguments of `recommend` that say what a list is of."""

    exclude_seen: bool | Seen | None
    context: Mapping[str, Any] | None
    label: str | None
    items: Sequence[str] | None
    exclude: Sequence[str] | None
    where: Where | None
    max_per: Mapping[str, int] | None
    diversity: float
    unknown: Unknown


class Recommender(Growing):
    """Serves a finished run. Make one with `Recommender.load`.

    Users that training never saw are served by their history alone; items it never saw, by their content. What a known
    user did is every positive interaction of the dataset, whatever part of the split it is in.

    >>> rec = rawrec.Recommender.load("runs/em3")
    >>> rec.recommend(user="42", k=10)
    >>> rec.recommend(history=["260", "1196"], k=10)
    >>> rec.score(user="42", items=["1", {"title": "A new film", "poster": "new.jpg"}])
    >>> rec.recommend(user="42", context={"device": "phone", "time": 1767225600})
    >>> rec.search("a film about bees", user="42")
    >>> rec.similar("260", k=5)

    Of a run of several labels (`data.labels`) everything is by the main one, and `label` asks for another.

    Any number of threads may ask one recommender at once, and add items to it.
    """

    @classmethod
    @checked()
    def load(
        cls,
        run: str | Path,
        data: Dataset | str | Path | None = None,
        device: str | None = None,
        *,
        newest: bool = False,
        added: str | Path | None = None,
    ) -> Recommender:
        """The recommender of a finished run. data: where its dataset is now, if it has moved. device: as train.device.

        newest: users, what they did, and items are read from the dataset's newest version, which may have been added to
        since the run was trained; the model stays as it is. A user whom training never saw is served by their history
        and reads the row of unknown users; a new item is encoded from its raw fields. Of a model that cannot judge new
        items they are left aside, with a warning; a retrieval model leaves out of lists what its users did since, and
        serves no new one. added: a folder that `save` wrote, whose items are taken in again.

        Raises UserError for a folder that is no finished run, or a dataset that is gone or has changed.

        >>> rec = rawrec.Recommender.load("runs/em3", device="cpu")
        """
        YES_OR_NO.check("newest", newest)
        optional(PATH).check("added", added)
        folder = RunFolder.open(run)
        system = load_task(folder, data, device)
        if isinstance(system, ImpressionTask):
            made = cls(system, folder)
        else:
            from rawrec.serving.retriever import Retriever  # which builds on this class

            made = Retriever(system, folder)
        if newest:
            made.read_newest()
        if added is not None:
            made.restore(added)
        return made

    # ------------------------------------------------------------------------------------------------------ recommend
    @overload
    def recommend(
        self, user: str | None = None, history: Sequence[Item] | None = None, k: int = 10, *,
        explain: Literal[False] = False, **more: Unpack[Further],
    ) -> list[Scored]: ...  # fmt: skip

    @overload
    def recommend(
        self, user: str | None = None, history: Sequence[Item] | None = None, k: int = 10, *,
        explain: Literal[True], **more: Unpack[Further],
    ) -> list[Explained]: ...  # fmt: skip

    @overload
    def recommend(
        self, user: None = None, history: None = None, k: int = 10, *, users: Sequence[str], **more: Unpack[Further],
    ) -> pa.Table: ...  # fmt: skip

    @of_one_state
    def recommend(
        self,
        user: str | None = None,
        history: Sequence[Item] | None = None,
        k: int = 10,
        exclude_seen: bool | Seen | None = None,
        context: Mapping[str, Any] | None = None,
        label: str | None = None,
        *,
        users: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        where: Where | None = None,
        max_per: Mapping[str, int] | None = None,
        diversity: float = 0.0,
        unknown: Unknown = "refuse",
        explain: bool = False,
    ) -> list[Scored] | list[Explained] | pa.Table:
        """The `k` best items of the whole catalogue, best first, with click probabilities (or scores, see `measure`).

        user: a known user's id. history: items, oldest first, ids or new ones by their fields; alone, for someone new;
        with `user`, instead of what is known of them. users: ids of several known users in their place, whose lists are
        a table as `recommend_all` writes it, a row per user in the same order. exclude_seen: what is left out:
        "positives" that the user has, all their "interactions" whatever the label, or "none"; of a `history`, that or
        none of it. None, the default: as `eval.exclude_seen` of the run says; False: none. Fewer than `k` come back
        where the catalogue, or what is left of it, ends.
        context: values by column, where the model reads a context (`model.context`); `time`, seconds since 1970, says
        hour and weekday, and `seen` what was met in the session (`model.session`): items, oldest first, in a list, or
        with whether they were clicked in a mapping; `query` is what was typed, any text, where the model reads queries.
        What is not given is missing, which a warning tells once. label: by the probability of which label; None: the
        main one. Under `model.multi_label=esmm` the second one is a click
        that converts.

        items: ids of the only ones that may be in a list; exclude: of those that may not. where: column -> what an item
        must have there, all of it: `{"category": ["lamp", "chair"], "in_stock": True, "price": (None, 20.0)}`, see
        `rawrec.serving.filters.Where`. max_per: categorical column -> how many items with one value of it a list may
        hold; an item with several counts for each.
        diversity: w from 0 to 1, the weight of unlikeness to what is in the list already (maximal marginal relevance).
        One after the other the item is taken that has the largest `(1 - w) r_i - w max over j taken of cos(c_i, c_j)`.
        r_i is its score, brought to 0 to 1 over the 10 k best items (100 at least) that may be in the list, among which
        is chosen; c its content embedding (that of its id for a model on ids alone, a retrieval model's vector); a
        cosine with an item that has none is 0.
        unknown: "skip" leaves ids that are not in the catalogue, and values of `where` that no item has, aside with a
        warning; otherwise they are refused. explain: with what is behind each item, see `Recommender.explain`.
        """
        YES_OR_NO.check("explain", explain)
        wanted = Asked(k, items, exclude, where, max_per, diversity, unknown).check()
        left_out, place = self.excluded(exclude_seen), self._label(label)
        if users is not None:
            if user is not None or history is not None:
                raise UserError("users=[...] are several at once: leave out user and history")
            if explain:
                raise UserError("explain=True is of one list: give user or history in the place of users")
            rows = self._user_rows(users)
            if not len(rows):
                return LISTS.empty_table()
            return self._lists(rows, self._choice(wanted), left_out, SCORED, self._now(rows, context), None, place)
        who = self._who(user, history, unknown)
        ptr, seen = self._seen_by(who, left_out)
        moments = self._moments(who, context)

        def score(_: np.ndarray, only: Tensor | None) -> Tensor:
            return self._score_all(moments, who.past, place, only, who.table)

        top = choose(score, self._shown, who.users, ptr, seen, self._choice(wanted))
        found = self._scored(top.items[0], top.scores[0])
        if not explain:
            return found
        rows = top.items[0][: len(found)].tolist()
        return self._explained([one.item for one in found], rows, who, who.table, moments, place, history)

    @checked(users=ANYTHING, items=ANYTHING, exclude=ANYTHING, where=ANYTHING, max_per=ANYTHING)
    @of_one_state
    def recommend_all(
        self,
        out: str | Path,
        k: int = 10,
        exclude_seen: bool | Seen | None = None,
        user_batch: int = SCORED,
        context: Mapping[str, Any] | None = None,
        observer: Callable[..., None] | None = None,
        label: str | None = None,
        *,
        users: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        where: Where | None = None,
        max_per: Mapping[str, int] | None = None,
        diversity: float = 0.0,
        unknown: Unknown = "refuse",
    ) -> Path:
        """Lists for every user, the same as `recommend` gives user by user, in the form that the suffix of `out` names.

        `.parquet`, `.jsonl`: `user_id` and, best first, `items` (ids) and `scores` (see `measure`). `.csv`: a row
        user_id, rank, item_id, score per item. Also `.csv.gz`, `.jsonl.gz`. `user_batch` users are scored at once,
        all in one `context`. users: those alone, in their order. observer: told how many users are done, as that of
        `rawrec.train`. All else: as in `recommend`.
        """
        wanted = Asked(k, items, exclude, where, max_per, diversity, unknown).check()
        COUNT.check("user_batch", user_batch)
        left_out, place, path = self.excluded(exclude_seen), self._label(label), self._target(out, LIST_FORMS)
        rows = np.arange(self.people.n_users) if users is None else self._user_rows(users)
        choice, size = self._choice(wanted), max(user_batch, WRITTEN)
        parts = (rows[at : at + size] for at in range(0, len(rows), size))
        now = self._now(rows, context)
        tell = None if observer is None else teller(observer, "lists of users", len(rows))
        write_lists((self._lists(part, choice, left_out, user_batch, now, tell, place) for part in parts), path)
        return path

    def _choice(self, wanted: Asked) -> Choice:
        """What lists are chosen by. UserError for columns, values and items that the catalogue lacks."""
        n, skipped = len(self._item_ids), list[str]()
        masks, barred = [], []
        if wanted.where:
            kept = self._columns.kept(wanted.where, None if wanted.unknown == "refuse" else skipped)
            for said in skipped:
                self._warn(said)
            if kept.left_out is None:
                masks.append(kept.mask)
            else:
                barred.append(kept.left_out)
        if wanted.items is not None:
            chosen, rows = np.zeros(n, bool), self._known_rows(wanted.items, "items", wanted.unknown)
            chosen[rows[rows >= 0]] = True
            masks.append(chosen)
        if wanted.exclude is not None and len(wanted.exclude):
            rows = self._known_rows(wanted.exclude, "exclude", wanted.unknown)
            barred.append(rows[rows >= 0])
        if self._catalogue.hidden is not None:
            masks.append(~self._catalogue.hidden)
        limits = self._columns.limits(wanted.max_per or {})
        vectors = self._vectors() if wanted.diversity else None
        allowed = np.logical_and.reduce(masks) if masks else None
        rows = np.concatenate(barred) if barred else None
        return Choice(wanted.k, n, allowed, rows, limits, wanted.diversity, vectors, self._few)

    def _lists(
        self,
        users: np.ndarray,
        choice: Choice,
        exclude: Seen,
        user_batch: int,
        now: Moments,
        tell: Callable[[int], None] | None,
        label: int,
    ) -> pa.Table:
        """Lists of some users, as `LISTS` has them."""
        ptr, seen = self._left_out(users, exclude)

        def score(u: np.ndarray, only: Tensor | None) -> Tensor:
            moments = now._replace(users=self._known_to_model(u), rows=np.full(len(u), -1), past=self._events(u))
            return self._score_all(moments, self._histories(u), label, only)

        top = choose(score, self._shown, users, ptr, seen, choice, user_batch, self._workers, tell)
        found = (top.items >= 0) & np.isfinite(top.scores)
        offsets = pa.array(np.concatenate([[0], found.sum(1).cumsum()]).astype(np.int32))
        items = pa.array(self._item_ids, pa.string()).take(pa.array(top.items[found]))
        scores = pa.array(self._shown(top.scores[found]).astype(np.float32))
        rows = [pa.ListArray.from_arrays(offsets, values) for values in (items, scores)]
        return pa.Table.from_arrays([pa.array(self._user_names(users), pa.string()), *rows], schema=LISTS)

    @of_one_state
    def score(
        self,
        user: str | None = None,
        items: Sequence[Item] = (),
        history: Sequence[Item] | None = None,
        context: Mapping[str, Any] | None = None,
        label: str | None = None,
        unknown: Unknown = "refuse",
    ) -> list[float]:
        """Click probabilities of items, known ones by id or new ones by their fields; or those of another `label`.

        Who is asked, and in which context: see `recommend`. A new item has the score that it would have as an item of
        the dataset without a training interaction.
        """
        check_list(items, "items")
        who = self._who(user, history, unknown)
        place = self._label(label)
        if not len(items):
            return []
        rows, table = self._rows_and_table(items, who.table)
        logits = self._score_all(self._moments(who, context), who.past, place, torch.tensor(rows), table)
        return torch.sigmoid(logits)[0].tolist()

    # ---------------------------------------------------------------------------------------------------- new content
    @of_one_state
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

    @of_one_state
    def item_vectors(self, items: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Vectors `[n, dim]` float32 of items of the catalogue, and which of them have one, `[n]` bool: content, of a
        model on ids alone those of ids, of a retrieval model what its scores are made of. As `export_vectors` writes
        them. UserError where the model has none.

        >>> vectors, there = rec.item_vectors(["260", "1196"])
        """
        IDS.check("items", items)
        values, valid = self._vectors()
        index = torch.as_tensor(self._known_rows(items, "items", "refuse"), dtype=torch.int64, device=values.device)
        return values[index].float().cpu().numpy(), valid[index].cpu().numpy()

    @property
    def task(self) -> ImpressionTask | PairTask:
        """What was trained: the model with its data, as evaluation reads it."""
        return self.system

    # ------------------------------------------------------------------------------------------------------------ out
    @checked()
    @of_one_state
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

    @checked()
    def export_user_vectors(self, out: str | Path) -> Path:
        """Vectors of all users with their ids, for a store of vectors that makes lists: of retrieval models alone.

        A user's score of an item is the inner product of this vector and the item's, as `export_vectors` writes it:
        nothing is added and nothing is brought to length 1, biases being among the numbers of the vectors. Forms:
        `.parquet` (user_id, vector, valid), `.npy` or `.safetensors` with `<name>.ids.jsonl` beside. `valid` is False
        for users whom training has not seen. Raises UserError for a ranking model.
        """
        raise UserError(
            f"this run is of model `{self._model()}`, a ranking model, which scores user and item together and has no "
            "vector of a user; train a retrieval model (rawrec models), or write lists with recommend_all"
        )

    @checked()
    def export_features(self, out: str | Path, field: str | None = None, index: str | None = None) -> Path:
        """What the encoder of `field` makes of every item of the dataset, in the forms of `export_vectors`.

        That is the pooled output of the run's encoder, trained or frozen, before any projection and fusion, or the
        ready-made feature. field: may be left out where the model reads one only. A file `<field>_feat.npy` in a folder
        of MMRec has its rows in the order of the items there, and the mean of the others where an item has no feature.
        """
        from rawrec.data.exporters import mmrec_items

        path = self._target(out, VECTOR_FORMS)
        check_form(path, index)
        known = self._feature_widths()
        if not known:
            raise UserError(f"this run is of model `{self._model()}`, which reads no features: train em3")
        if field is None and len(known) == 1:
            field = next(iter(known))
        if field not in known:
            wrong = (
                "this run has several fields" if field is None else f"field {shown(field)}: this run does not read it"
            )
            raise UserError(f"{wrong}. Name one of {listed(known, field)}")
        ids = [str(item) for item in self.data.item_ids]
        order = mmrec_items(path, ids)
        rows = torch.arange(len(ids)) if order is None else torch.from_numpy(order)
        pieces = (self._features(field, part) for part in rows.split(WRITTEN))
        named = [ids[row] for row in rows.tolist()]
        given = Vectors(named, known[field], pieces, mean_for_missing=order is not None)
        write_vectors(given, path, index)
        return path

    @checked()
    def export_encoder(self, out: str | Path) -> Path:
        """The transformers of documents and queries that the run trained (`content.item.encoder=joint:...`), as the
        folder of an encoder: `content.item.encoder=joint:FOLDER` of another run begins as they are, or keeps them.

        >>> rec.export_encoder("encoders/lemur")
        """
        from rawrec.content.joint_writing import write_joint

        item_model, path = self.system.item_model, Path(out)
        encoders = {} if item_model is None else dict(item_model.raw_encoders())
        document = next((one for one in encoders.values() if isinstance(one, JointEncoder)), None)
        if item_model is None or document is None:
            raise UserError(
                f"{self.run.path}: only what content.item.encoder=joint:... trained is written as an encoder; this run "
                f"reads items by {listed((one.name for one in encoders.values()), none='no encoder')}"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"--out {path} is there already: give a new folder")
        self.run.check_export(path, self.data)
        write_joint(document, item_model.query, path)
        return path

    # --------------------------------------------------------------------------------------------------------- inside
    def _target(self, out: str | Path, suffixes: Sequence[str]) -> Path:
        """A file to write: its folder made, its name checked, and none of the run's and the dataset's own files."""
        path = Path(out)
        if not any(path.name.endswith(suffix) and path.name != suffix for suffix in suffixes):
            known = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
            raise UserError(f"{path.name or path}: use a name that ends in {known}")
        if path.is_dir():
            raise UserError(f"{path} is a folder: give the name of a file")
        self.run.check_export(path, self.data)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
