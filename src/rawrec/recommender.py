"""A trained run, in use: recommend, score, find similar items, embed; ids in and out are the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rawrec.data import images
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.evaluation.topk import rank_all
from rawrec.training.job import load_system
from rawrec.training.run import RunFolder
from rawrec.training.system import ContentTable, System

Item = str | Mapping[str, Any]
"""An item: its id, or what is known of a new one, as `{"title": "...", "poster": "file.jpg"}` by field name."""


class Scored(NamedTuple):
    """An item's original id and its score: a click probability, or a cosine similarity."""

    item: str
    score: float


class Recommender:
    """Serves a finished run. Make one with `Recommender.load`.

    Users that training never saw are served by their history alone; items it never saw, by their content.
    """

    def __init__(self, system: System, run: RunFolder | None = None):
        self.system, self.data, self.run = system.eval(), system.data, run
        self._table = system.table()
        self._item_ids: list[str] = [str(i) for i in self.data.item_ids]
        self._rows = {item: row for row, item in enumerate(self._item_ids)}
        positive = system.samples.labels > 0
        times = None if system.samples.times is None else system.samples.times[positive]
        users, items = self.data.users[positive], self.data.items[positive]
        order = np.lexsort((times, users)) if times is not None else np.argsort(users, kind="stable")
        self._past = items[order].astype(np.int64)
        counts = np.bincount(users, minlength=self.data.n_users)
        self._past_ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @classmethod
    def load(cls, run: str | Path, data: Dataset | None = None, device: str | None = None) -> Recommender:
        """Raises UserError for a folder that is no finished run, or a dataset that has changed or moved (`data`)."""
        folder = RunFolder.open(run)
        return cls(load_system(folder, data, device), folder)

    # ------------------------------------------------------------------------------------------------------ recommend
    def recommend(
        self,
        user: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        exclude_seen: bool = True,
    ) -> list[Scored]:
        """The `k` best items of the whole catalogue, best first, with click probabilities.

        user: a known user's id. history: item ids, oldest first; alone, for someone new; with `user`, instead of what
        is known of them. exclude_seen leaves out the history. Fewer than `k` come back where the catalogue ends.
        """
        users, past, seen = self._who(user, history)
        ptr = np.array([0, len(seen) if exclude_seen else 0])
        count = min(k, len(self._item_ids))
        if k < 1:
            raise UserError(f"k={k}: ask for at least one item")
        top = rank_all(lambda u: self._score_all(users, past), users, ptr, seen[: ptr[1]], count)
        return self._scored(top.items[0], top.scores[0])

    def recommend_all(self, out: str | Path, k: int = 10, exclude_seen: bool = True, user_batch: int = 64) -> Path:
        """Lists for every user as Parquet: `user_id` and, best first, `items` (ids) and `scores`."""
        users = np.arange(self.data.n_users)
        ptr = self._past_ptr if exclude_seen else np.zeros_like(self._past_ptr)
        past = self.system.samples.eval_histories.read(users, None, None, self.system.samples.history)
        top = rank_all(lambda u: self._score_all(u, past[u]), users, ptr, self._past, k, user_batch)
        ids = np.append(np.array(self._item_ids, dtype=object), None)
        frame = pl.DataFrame(
            {
                "user_id": [str(u) for u in self.data.user_ids],
                "items": [ids[row[row >= 0]].tolist() for row in top.items],
                "scores": [_sigmoid(s[np.isfinite(s)]).tolist() for s in top.scores],
            },
            schema={"user_id": pl.String, "items": pl.List(pl.String), "scores": pl.List(pl.Float32)},
        )
        path = _parent(out)
        frame.write_parquet(path.with_name(path.name + ".partial"))
        path.with_name(path.name + ".partial").replace(path)
        return path

    def score(
        self, user: str | None = None, items: Sequence[Item] = (), history: Sequence[str] | None = None
    ) -> list[float]:
        """Click probabilities of items, known ones by id or new ones as picture and text; see `recommend` for who."""
        users, past, _ = self._who(user, history)
        new = [item for item in items if not isinstance(item, str)]
        extra = self._embed_rows(new) if new else None
        table = self._extended(extra)
        rows, following = [], len(self._item_ids)
        for item in items:
            if isinstance(item, str):
                rows.append(self._row(item))
            else:
                rows.append(following)
                following += 1
        device = self.system.device
        batch = self.system.batch_of(
            torch.from_numpy(users).to(device),
            torch.tensor([rows], dtype=torch.int64, device=device),
            torch.from_numpy(past).to(device),
            table,
        )
        with torch.no_grad():
            return torch.sigmoid(self.system.ranker(batch))[0].tolist()

    def similar(self, item: Item, k: int = 10) -> list[Scored]:
        """The items whose content is nearest (cosine), without the item itself.

        For a model on ids alone: nearest id embeddings, and only among items that training saw.
        """
        if k < 1:
            raise UserError(f"k={k}: ask for at least one item")
        vectors, valid = self._vectors()
        if isinstance(item, str):
            row = self._row(item)
            if not valid[row]:
                why = "no content" if self._table is not None else "no training interaction"
                raise UserError(f"item {item!r} has {why}, so there is nothing to compare")
            query = vectors[row]
        else:
            row, query = -1, self._embed_rows([item]).values[0]
        scores = nn.functional.normalize(vectors, dim=1) @ nn.functional.normalize(query, dim=0)
        scores = scores.masked_fill(~valid, -torch.inf)
        if row >= 0:
            scores[row] = -torch.inf
        best = scores.topk(min(k, len(scores)))
        return self._scored(best.indices.cpu().numpy(), best.values.cpu().numpy(), probabilities=False)

    # ---------------------------------------------------------------------------------------------------- new content
    def embed(self, items: Sequence[Item]) -> np.ndarray:
        """Content embeddings `[n, dim]` float32 of items, known (id) or new (fields); see `Item`."""
        if self._table is None:
            raise UserError("this run is of model `id`, which has no content embeddings: train em3")
        result = torch.zeros(len(items), self._table.values.shape[1], device=self.system.device)
        known = [i for i, item in enumerate(items) if isinstance(item, str)]
        if known:
            result[known] = self._table.values[[self._row(str(items[i])) for i in known]]
        new = [i for i, item in enumerate(items) if not isinstance(item, str)]
        if new:
            result[new] = self._embed_rows([items[i] for i in new]).values
        return result.cpu().numpy()

    def add_items(self, items: Iterable[Mapping[str, Any]] | pl.DataFrame) -> int:
        """Take new items into the catalogue of this recommender (not of the dataset); how many they are.

        Each has `item_id` and any of the dataset's fields; pictures as file path or bytes, or a list of them.
        """
        rows = items.to_dicts() if isinstance(items, pl.DataFrame) else [dict(item) for item in items]
        ids = []
        for i, row in enumerate(rows):
            name = str(row.pop("item_id", "") or "")
            if not name:
                raise UserError(f"new item {i} has no item_id")
            if name in self._rows or name in ids:
                raise UserError(f"new item {i}: the catalogue has an item {name!r} already")
            ids.append(name)
        self._table = self._extended(self._embed_rows(rows))
        for name in ids:
            self._rows[name] = len(self._item_ids)
            self._item_ids.append(name)
        return len(ids)

    def export_vectors(self, out: str | Path) -> Path:
        """Vectors of all items with their ids: `.parquet` (item_id, vector, valid), or `.npy` with `<name>.ids.json`.

        Content embeddings, or id embeddings for a model on ids alone; `valid` is False where an item has none.
        """
        vectors, valid = self._vectors()
        array, path = vectors.float().cpu().numpy(), _parent(out)
        partial = path.with_name(path.name + ".partial")
        if path.suffix == ".parquet":
            pl.DataFrame(
                {"item_id": self._item_ids, "vector": array, "valid": valid.cpu().numpy()},
                schema_overrides={"vector": pl.Array(pl.Float32, array.shape[1])},
            ).write_parquet(partial)
        elif path.suffix == ".npy":
            with partial.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            pl.DataFrame({"item_id": self._item_ids, "valid": valid.cpu().numpy()}).write_ndjson(
                path.with_suffix(".ids.jsonl")
            )
        elif path.suffix == ".safetensors":
            save_file({"vectors": vectors.float().cpu().contiguous(), "valid": valid.cpu()}, partial)
        else:
            raise UserError(f"{path.name}: use a name that ends in .parquet, .npy or .safetensors")
        partial.replace(path)
        return path

    # --------------------------------------------------------------------------------------------------------- inside
    def _who(self, user: str | None, history: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """User row `[1]`, history `[1, n]` as the model reads it, and all rows that the person has seen."""
        if user is None and history is None:
            raise UserError("say who: a user's id, or a history of item ids")
        row = int(self.data.user_rows([user])[0]) if user is not None else -1
        if history is not None:
            seen = np.array([self._row(item) for item in history], np.int64)
        else:
            seen = self._past[self._past_ptr[row] : self._past_ptr[row + 1]]
        length = self.system.samples.history
        past = np.full((1, length), -1, np.int64)
        recent = seen[-length:] if length else seen[:0]
        past[0, length - len(recent) :] = recent
        return np.array([row]), past, seen

    def _row(self, item: str) -> int:
        row = self._rows.get(str(item))
        return int(self.data.item_rows([str(item)])[0]) if row is None else row

    def _score_all(self, users: np.ndarray, past: np.ndarray) -> Tensor:
        return self.system.score_all(users, past, self._table)

    def _scored(self, rows: np.ndarray, scores: np.ndarray, probabilities: bool = True) -> list[Scored]:
        good = (rows >= 0) & np.isfinite(scores)
        scores = _sigmoid(scores) if probabilities else scores
        return [Scored(self._item_ids[r], float(s)) for r, s in zip(rows[good], scores[good], strict=True)]

    def _vectors(self) -> tuple[Tensor, Tensor]:
        if self._table is not None:
            return self._table.values, self._table.valid
        ranker = self.system.ranker
        return ranker.item.weight[1:].detach(), ranker.known_items

    def _extended(self, extra: ContentTable | None) -> ContentTable | None:
        if extra is None or self._table is None:
            return self._table
        return ContentTable(
            torch.cat([self._table.values, extra.values]), torch.cat([self._table.valid, extra.valid])
        )

    @torch.no_grad()
    def _embed_rows(self, items: Sequence[Item]) -> ContentTable:
        tower = self.system.tower
        if tower is None:
            raise UserError("this run is of model `id`, which cannot judge an item it has never seen: train em3")
        fields = [name for name, _ in tower.raw_encoders()]
        raw: dict[str, list[list[Any]]] = {name: [[] for _ in items] for name in fields}
        for i, item in enumerate(items):
            assert not isinstance(item, str)
            for key, value in item.items():
                name = self._field(key, fields)
                if name is not None:
                    read = _pictures if name in self.data.fields.image else _strings
                    raw[name][i] = read(value, f"new item {i}, {key}")
        columns = tower.raw_columns(raw) if items else {}
        if not items:
            return ContentTable(self._vectors()[0][:0], self._vectors()[1][:0])
        valid = torch.stack([column.lengths > 0 for column in columns.values()]).any(0).to(self.system.device)
        return ContentTable(self.system.read_content(tower(columns)), valid)

    def _field(self, key: str, fields: list[str]) -> str | None:
        """The field that a new item's key means: its name, or `image` / `text` where there is one of that kind only."""
        if key in fields:
            return key
        all_fields = self.data.fields
        kind = {"image": all_fields.image, "text": all_fields.text}.get(key, [])
        used = [name for name in kind if name in fields]
        if len(used) == 1:
            return used[0]
        if key in all_fields.names():
            return None  # a column that this model's content is not made from
        raise UserError(f"a new item has the field {key!r}, which this model does not know. Known: {', '.join(fields)}")


def _pictures(value: Any, where: str) -> list[bytes]:
    result = []
    for picture in value if isinstance(value, list | tuple) else [value]:
        if picture is None:
            continue
        if isinstance(picture, str | Path):
            if not Path(picture).is_file():
                raise UserError(f"{where}: there is no file {picture}")
            picture = Path(picture).read_bytes()
        reason = images.check(picture)
        if reason:
            raise UserError(f"{where}: the picture cannot be used: {reason}")
        result.append(picture)
    return result


def _strings(value: Any, where: str) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    for text in values:
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}: expected text, found {text!r}")
    return [text for text in values if text]


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _parent(out: str | Path) -> Path:
    path = Path(out)
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
