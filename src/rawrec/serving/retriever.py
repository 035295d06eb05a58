"""A trained retrieval model in use: users and items are vectors, a score is their product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rawrec.arguments import shown
from rawrec.content.item_model import ItemModel
from rawrec.content.new_items import Item, new_columns
from rawrec.data.vectors import VECTOR_FORMS, Vectors, write_vectors
from rawrec.errors import UserError
from rawrec.models.ranking.context import Moments
from rawrec.models.retrieval.base import field_of
from rawrec.serving.asked import UNKNOWN, Unknown, check_list, check_user
from rawrec.serving.explaining import Asking
from rawrec.serving.recommender import WRITTEN, Recommender
from rawrec.serving.served import Features, Who, unseen
from rawrec.serving.similar import KINDS
from rawrec.threads import count
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.pairs import PairTask, product
from rawrec.training.tasks.step_impressions import ContentTable

USER_FORMS = tuple(form for form in VECTOR_FORMS if form != ".faiss")
"""A Faiss index is searched by users, not in them; and its vectors are of length 1."""
SMALL = 2000
"""Items of which all are scored, whatever a list may hold."""


class Retriever(Recommender):
    """The `Recommender` of a retrieval model, which `Recommender.load` makes of such a run.

    It knows the users that training has seen, by their id, and the items of the dataset. Scores have no scale: they
    order the items of one user. Histories of its own and new items are refused.
    """

    measure = "score"

    @property
    def _few(self) -> float:
        """Rows from anywhere take longer than rows in order, and all of a small catalogue no time."""
        return 0.2 if self.n_items > SMALL else 0.0

    def __init__(self, system: PairTask, run: RunFolder):
        data, self._retrieval = system.data, system
        self._open(data, run, system.positive)
        nothing = torch.empty(0, device=system.device)
        self._users, self._items = system.embeddings() if system.model.by_vectors else (nothing, nothing)
        self._alike = system.alike(self._items) if system.model.by_vectors else nothing.long()
        self._valid = torch.from_numpy(system.described | system.known_items).to(self._items.device)
        self._valid[self._alike] = False
        self._is_alike = torch.zeros_like(self._valid).index_fill_(0, self._alike, True)
        self._encoders: list[ItemModel] = []  # one, once a new item was asked for
        self._workers = count() if self._items.device.type == "cpu" else 1

    def score(
        self,
        user: str | None = None,
        items: Sequence[Item] = (),
        history: Sequence[Item] | None = None,
        context: Mapping[str, Any] | None = None,
        label: str | None = None,
        unknown: Unknown = "refuse",
    ) -> list[float]:
        """The model's scores of items, given by their ids, for a user whom training has seen."""
        check_list(items, "items")
        users = self._who(user, history, unknown).users
        self._label(label)
        rows, new = self._rows_of(items)
        if new:
            self._embed_rows(new)
        past = self._histories(users)
        return self._score_all(self._now(users, context), past, only=torch.tensor(rows, dtype=torch.int64))[0].tolist()

    @property
    def task(self) -> PairTask:
        return self._retrieval

    @property
    def reads_histories(self) -> bool:
        return False

    @property
    def history_length(self) -> int:
        return 0

    def _context_reader(self) -> None:
        return None

    def _reads_marks(self) -> bool:
        return False

    def _queries(self) -> None:
        return None

    def _ranks_by_queries(self) -> bool:
        return False

    def _who(self, user: str | None, history: Sequence[Item] | None, unknown: Unknown = "refuse") -> Who:
        check_user(user)
        UNKNOWN.check("unknown", unknown)
        if history is not None:
            raise UserError(
                f"this run is of model `{self._model()}`, which knows users by their id and reads no history: "
                "give a user's id, or train em3"
            )
        if user is None:
            raise UserError("say who: a user's id (user), or several (users)")
        row = int(self.people.user_rows([str(user)])[0])
        if row >= self.data.n_users or not self._retrieval.known_users[row]:
            raise UserError(
                f"user {shown(user)} has no training interaction, so model `{self._model()}` knows nothing of them; "
                "em3 serves such users by their history"
            )
        return Who(np.array([row]), self._histories(np.array([row])), None, None)

    def _histories(self, users: np.ndarray) -> np.ndarray:
        return np.empty((len(users), 0), np.int64)

    def _events(self, users: np.ndarray) -> None:
        return None

    def _score_all(
        self,
        moments: Moments,
        past: np.ndarray,
        label: int = 0,
        only: Tensor | None = None,
        table: ContentTable | None = None,
    ) -> Tensor:
        """`[users, items]`; -inf for users whom training has not seen, who get no list."""
        users, items, alike = moments.users, self._items, self._alike
        rows = torch.from_numpy(users).to(items.device)
        known = torch.from_numpy(self._retrieval.known_users[users] & (users >= 0)).to(rows.device)
        if not self._retrieval.model.by_vectors:
            with torch.no_grad():
                scores = self._retrieval.model.scores(rows).masked_fill_(~known[:, None], -torch.inf)
            return scores if only is None else scores[:, only.to(scores.device)]
        if only is not None:
            only = only.to(items.device)
            items, alike = items.index_select(0, only), self._is_alike[only].nonzero().squeeze(1)
        return product(self._users[rows], items, alike).masked_fill_(~known[:, None], -torch.inf)

    def _read(self, who: Who) -> np.ndarray:
        """All positives of the user."""
        user = int(who.users[0])
        return self._past.items[self._past.ptr[user] : self._past.ptr[user + 1]]

    @torch.no_grad()
    def _parts(self, asking: Asking, scores: np.ndarray) -> dict[str, np.ndarray]:
        if not self._retrieval.model.by_vectors:
            raise UserError(
                f"this run is of model `{self._model()}`, which has scores alone and gives no reasons for them: leave "
                "out --explain (explain=True), or train for example bpr"
            )
        system, rows = self._retrieval, asking.rows.to(self._items.device)
        model, filling = copy(system.model), system.cfg.untrained_ids  # a copy: its parts are left out for us alone
        lacking = model.untaught[:0] if filling == "as_is" else model.untaught
        fill: Literal["zero", "mean"] = "zero" if filling == "as_is" else filling
        without: dict[str, np.ndarray] = {}

        def score() -> np.ndarray:
            users, items = model.embeddings()
            user = torch.from_numpy(asking.who.users).to(users.device)
            return product(users[user], items[rows], rows[:0])[0].float().cpu().numpy()

        with model.without_ids(torch.cat([lacking, rows]).unique(), fill):
            without["ids"] = score()
        if system.described[asking.rows.numpy()].any():
            own = rows.unique()
            model.live = {name: (own, own.new_zeros(len(own), model.width(name)).float()) for name in model.modalities}
            with model.without_ids(lacking, fill):
                without["content"] = score()
        return {name: scores - values for name, values in without.items()}

    def _shown(self, scores: np.ndarray) -> np.ndarray:
        return scores

    def _vectors(self) -> tuple[Tensor, Tensor]:
        if not self._retrieval.model.by_vectors:
            raise UserError(
                f"this run is of model `{self._model()}`, which has scores alone, no vectors of users and items: they "
                "cannot be exported, compared, or used for diversity; train for example bpr"
            )
        return self._items, self._valid

    def _feature_widths(self) -> dict[str, int]:
        model = self._retrieval.model
        return {name: model.width(name) for name in model.modalities}

    @torch.no_grad()
    def _features(self, field: str, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        model = self._retrieval.model
        rows = rows.to(self._items.device)
        return model.feature(field, rows).cpu().numpy(), model.present(field)[rows].cpu().numpy()

    def _encodes(self) -> bool:
        return False

    def _vectors_by(self, by: str | None) -> tuple[Tensor, Tensor]:
        if by is not None:
            raise UserError(
                f"by={shown(by)}: of model `{self._model()}` an item has one vector, made of all that is known of it: "
                "leave it out, or name image, text or a field"
            )
        return self._vectors()

    def _ways_by_vector(self) -> list[str]:
        return [""] if self._retrieval.model.by_vectors else []

    def _kinds_of_features(self) -> dict[str, str]:
        fields = self.data.fields
        kinds = dict.fromkeys(fields.image, "image") | dict.fromkeys(fields.text, "text")
        return {name: kinds.get(field_of(name), name if name in KINDS else "") for name in self._feature_widths()}

    @torch.no_grad()
    def _features_of_new(self, item: Mapping[str, Any]) -> Features:
        model = self._retrieval.model
        if model.train_features and set(model.modalities) - model.followed:
            raise UserError(
                f"model `{self._model()}` learned the features of its items themselves (model.train_features), so that "
                "a new picture or text has none: give an item's id"
            )
        if not self._encoders:
            self._encoders.append(self._retrieval.item_model or self._retrieval.encoders_anew())
        encoders = self._encoders[0]
        made, present = encoders.features(new_columns([item], 0, self.data.fields, encoders))
        return {name: (values, present[name]) for name, values in made.items()}

    def export_user_vectors(self, out: str | Path) -> Path:
        path = self._target(out, USER_FORMS)
        self._vectors()  # which not every model has
        known = torch.from_numpy(self._retrieval.known_users)
        split = zip(self._users.split(WRITTEN), known.split(WRITTEN), strict=True)
        pieces = ((part.float().cpu().numpy(), there.numpy()) for part, there in split)
        ids = [str(user) for user in self.data.user_ids]
        write_vectors(Vectors(ids, self._users.shape[1], pieces, of="user"), path)
        return path

    def _lacking(self) -> str:
        reads = self._retrieval.reads_features and self._retrieval.model.content_in_vectors
        return "no training interaction" + (" and no features" if reads else "")

    def _embed_rows(self, items: Sequence[Mapping[str, Any]], first: int = 0) -> ContentTable:
        raise UserError(unseen(self._model()))
