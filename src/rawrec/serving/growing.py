"""A catalogue that grows: items that are added, kept in a folder, or come with a newer version of the dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rawrec.arguments import ID, IDS, PATH, shown
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.lazily import Lazily
from rawrec.serving import added as folder
from rawrec.serving.known import Known
from rawrec.serving.served import ENCODE, Catalogue, of_one_state, unseen
from rawrec.shown import counted
from rawrec.training.tasks.step_impressions import ContentTable

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")


class Growing(Known):
    """`add_items` and `save` of a recommender."""

    def make_encoders(self) -> None:
        """Make what reads pictures and texts of new items, which is otherwise made when the first one comes and takes
        seconds. UserError where an encoder is gone, or has changed since the run was trained.

        >>> rec.make_encoders()
        """
        if self.system.item_model is not None:
            self.system.item_model.make_encoders()

    def add_items(self, items: Iterable[Mapping[str, Any]] | pl.DataFrame) -> int:
        """Take new items into the catalogue of this recommender (not of the dataset); how many they are.

        Each has `item_id` and any of the dataset's fields, see `Item`. Either all of them are taken or, after a
        UserError, none; who asks from another thread meanwhile sees the catalogue without them, or with all of them.

        >>> rec.add_items([{"item_id": "new1", "title": "A new film", "poster": "new.jpg"}])
        """
        if isinstance(items, str | Mapping):
            raise UserError("give a list of items, each with an item_id and its fields")
        ids: dict[str, None] = {}
        tables: list[ContentTable] = []
        values: list[dict[str, Any]] = []
        following = items.iter_rows(named=True) if isinstance(items, pl.DataFrame) else iter(items)
        while part := [dict(item) for item in islice(following, ENCODE)]:
            for row in part:
                value = row.pop("item_id", None)
                if value is not None:
                    ID.check(f"new item {len(ids)}: item_id", value)
                name = "" if value is None else str(value).strip()
                if not name:
                    raise UserError(f"new item {len(ids)} has no item_id")
                if name in self._rows or name in ids:
                    raise UserError(f"new item {len(ids)}: the catalogue has an item {shown(name)} already")
                values.append(self._columns.values_of(row, f"new item {len(ids)}"))
                ids[name] = None
            tables.append(self._embed_rows(part, len(ids) - len(part)))
        self._take(list(ids), tables, values)
        return len(ids)

    def check_new(self, item: Mapping[str, Any]) -> None:
        """UserError where raw fields of an item, new or changed, are none that this recommender could read."""
        row = {name: value for name, value in item.items() if name != "item_id"}
        self._columns.values_of(row, "item")
        self._embed_rows([row])

    def _take(self, ids: list[str], tables: list[ContentTable], values: Sequence[Mapping[str, Any]]) -> None:
        """New items behind the others, all at once for who reads. UserError where another thread has taken one."""
        with self._adding:
            for n, name in enumerate(ids):
                if name in self._rows:
                    raise UserError(f"new item {n}: the catalogue has an item {shown(name)} already")
            old, new = self._catalogue, copy(self)
            for table in tables:
                new._catalogue = new._catalogue._replace(table=new._extended(table))
            rows = old.rows | {name: len(old.ids) + n for n, name in enumerate(ids)}
            hidden = old.hidden if old.hidden is None else np.pad(old.hidden, (0, len(ids)))
            self._catalogue = Catalogue([*old.ids, *ids], rows, new._table, old.columns.extended(values), hidden)

    # --------------------------------------------------------------------------------------------------------- hidden
    def hide(self, items: Sequence[str]) -> None:
        """From now on no list holds these items: of `recommend`, `recommend_all`, `search` and `similar`. They may
        still be scored, and stand in histories. Out of stock, for example. UserError for an id that is not there.

        >>> rec.hide(["p0001"]); rec.show(["p0001"])
        """
        self._hide(items, True)

    def show(self, items: Sequence[str] | None = None) -> None:
        """Lists may hold these items again; None: all. UserError for an id that is not there."""
        self._hide(self._item_ids if items is None else items, False)

    @property
    def hidden(self) -> list[str]:
        """Ids of the items that no list may hold."""
        at = self._catalogue
        return [] if at.hidden is None else [at.ids[row] for row in np.flatnonzero(at.hidden).tolist()]

    def _hide(self, items: Sequence[str], hide: bool) -> None:
        IDS.check("items", items)
        with self._adding:
            old = self._catalogue
            hidden = np.zeros(len(old.ids), bool) if old.hidden is None else old.hidden.copy()
            hidden[[self._row(item) for item in items]] = hide
            self._catalogue = old._replace(hidden=hidden if hidden.any() else None)

    # ----------------------------------------------------------------------------------------------------------- kept
    @of_one_state
    def save(self, out: str | Path) -> Path:
        """Keep the items that were added in the folder `out`, for `Recommender.load(run, added=out)`.

        The folder is made where it is not there; what `save` wrote there before is replaced, all at once. It holds the
        items' contents as this run made them (safetensors) and their ids, categories and numbers (Parquet), no
        pictures and no texts, and is good for this run alone. Raises UserError for a model that takes no new items.
        """
        PATH.check("out", out)
        at, table = self._catalogue, self._table
        if table is None or not self._encodes():
            raise UserError(unseen(self._model()))
        first, behind = self.people.n_items, self.people.n_items - self.data.n_items
        features = {name: (v[behind:], there[behind:]) for name, (v, there) in (table.features or {}).items()}
        contents = table.values[first:], table.valid[first:]
        kept = folder.Added(at.ids[first:], at.columns.added[behind:], *contents, features)
        return folder.write_added(kept, Path(out), self.fingerprint())

    def restore(self, kept: str | Path) -> None:
        """Take in the items that `save` wrote into a folder; those that the catalogue has by now are left out, with a
        warning. Raises UserError where the folder is of another run, or damaged."""
        PATH.check("kept", kept)
        if not self._encodes():
            raise UserError(unseen(self._model()))
        found = folder.read_added(Path(kept), self.fingerprint())
        new = [n for n, item in enumerate(found.ids) if item not in self._rows]
        if len(new) < len(found.ids):
            some = next(item for item in found.ids if item in self._rows)
            self._warn(
                f"{kept}: {len(found.ids) - len(new)} of {len(found.ids)} items are in the catalogue already and were "
                f"left out, first {some!r}"
            )
        if new:
            rows, device = torch.tensor(new), self.system.device
            values = [found.columns[n] for n in new]
            features = {name: (v[rows].to(device), p[rows].to(device)) for name, (v, p) in found.features.items()}
            columns = self.system.ranker.inputs.columns.of_new(values)
            table = ContentTable(found.values[rows].to(device), found.valid[rows].to(device), columns, features)
            self._take([found.ids[n] for n in new], [table], values)

    def fingerprint(self) -> str:
        """32 hex digits of the weights that scores and contents are made by."""
        with (self.run.path / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()

    # --------------------------------------------------------------------------------------------------------- newest
    def read_newest(self) -> None:
        """From now on users, what they did, and items are those of the dataset's newest version."""
        newest = Dataset.open(self.data.path)
        if newest.version == self.data.version:
            return
        more = newest.n_items - self.data.n_items
        if more and self._encodes():
            self.add_items(_raw_items(newest, self.data.n_items))
        elif more:
            self._warn(
                f"{counted(more, 'item')} came after version {self.data.version} of {newest.path}, which this run, of "
                f"model `{self._model()}`, cannot judge: such are left aside, in histories too; train again, or train "
                "em3"
            )
        self._read_people(newest, newest.positive(self.run.config().data.label))

    def _encodes(self) -> bool:
        """Whether new items can be judged."""
        return self.system.item_model is not None


def _raw_items(data: Dataset, first: int) -> Iterator[dict[str, Any]]:
    """The items of a dataset from `first` on, as `add_items` takes them, some at a time."""
    fields, ids = data.fields, data.item_ids
    categories = {name: data.categorical(name) for name in fields.categorical}
    numbers = {name: data.numeric(name) for name in fields.numeric}
    features = {name: data.feature(name) for name in fields.feature}
    for at in range(first, data.n_items, ENCODE):
        rows = np.arange(at, min(at + ENCODE, data.n_items))
        media = {name: data.images(name, rows) for name in fields.image}
        media |= {name: data.texts(name, rows) for name in fields.text}
        for n, row in enumerate(rows.tolist()):
            item: dict[str, Any] = {"item_id": str(ids[row]), **{name: values[n] for name, values in media.items()}}
            for name, (ptr, codes, words) in categories.items():
                item[name] = [words[code] for code in codes[ptr[row] : ptr[row + 1]]]
            item |= {name: float(values[row]) for name, values in numbers.items()}
            item |= {name: values[row] if there[row] else None for name, (values, there) in features.items()}
            yield item
