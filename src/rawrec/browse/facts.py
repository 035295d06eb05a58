"""What is said of the items of a catalogue beside their scores: title, picture, values, how often training saw them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawrec.data.splits import BUCKETS
from rawrec.errors import UserError
from rawrec.report.page import plain
from rawrec.report.pictures import titles
from rawrec.serving.recommender import Recommender
from rawrec.shown import visible

MOST_TITLES = 300_000
"""Items whose titles are searched; of more their ids are."""
WORDS, LONGEST, TEXT = 30, 60, 2000
"""Values of a category that can be chosen; characters of a value, and of a text, that are shown."""
SHOWN_COLUMNS = 6

Fact = dict[str, Any]


class Facts:
    """Of the items of `rec`, as they are when they are first asked for."""

    def __init__(self, rec: Recommender) -> None:
        self.rec, self.data = rec, rec.people

    @cached_property
    def train(self) -> NDArray[np.int64]:
        """Training rows of every item of the catalogue, `[n]`."""
        counts = np.asarray(self.rec.task.train_counts, np.int64)[: self.rec.n_items]
        return np.pad(counts, (0, self.rec.n_items - len(counts)))

    @cached_property
    def pictured(self) -> NDArray[np.bool_]:
        """Which items of the dataset have a picture."""
        found = np.zeros(self.data.n_items, bool)
        for name in self.data.fields.image:
            found |= self.data.present(name)
        return found

    def prepare(self) -> None:
        """Read what is then held of every item, but for the titles."""
        _ = self.train, self.pictured

    def bucket_rows(self, bucket: str) -> NDArray[np.bool_]:
        """Which items are in a bucket, `[n]`. UserError for an unknown one."""
        if bucket not in BUCKETS:
            raise UserError(f"bucket: use {', '.join(BUCKETS)}")
        low, high = BUCKETS[bucket]
        return (self.train >= low) & (self.train <= (np.inf if high is None else high))

    def of(self, items: Iterable[str]) -> dict[str, Fact]:
        """Facts by id; those that are not in the catalogue are left out."""
        ids = list(dict.fromkeys(items))
        places = self.rec.places(ids)
        ids, places = [item for item, at in zip(ids, places, strict=True) if at >= 0], places[places >= 0]
        own = places[places < self.data.n_items]
        named, values = titles(self.data, own), self._values(places)
        fields = [name for names in (self.data.fields.image, self.data.fields.text) for name in names]
        lacks = {name: ~self.data.present(name) for name in fields}
        found = {}
        for n, (item, at) in enumerate(zip(ids, places.tolist(), strict=True)):
            inside = at < self.data.n_items
            count = int(self.train[at]) if at < len(self.train) else 0
            found[item] = {
                "title": named.get(at, ""),
                "picture": bool(inside and self.pictured[at]),
                "values": values[n],
                "train": count,
                "bucket": next(name for name, (low, _) in reversed(BUCKETS.items()) if count >= low),
                "lacks": [name for name in fields if inside and lacks[name][at]],
                "added": not inside,
            }
        return found

    def whole(self, item: str) -> Fact:
        """All that is known of one item. UserError where it is not in the catalogue."""
        if item not in self.rec:
            raise UserError("there is no such item")
        row = int(self.rec.places([item])[0])
        texts: dict[str, list[str]] = {}
        pictures: dict[str, int] = {}
        if row < self.data.n_items:
            for name in self.data.fields.text:
                found = self.data.texts(name, [row])[0]
                if found:
                    texts[name] = [visible(one)[:TEXT] for one in found[:5]]
            for name in self.data.fields.image:
                if self.data.present(name)[row]:
                    pictures[name] = int(self.data.counts(name)[row])
        return {"item": item, "texts": texts, "pictures": pictures, "facts": self.of([item])}

    def find(
        self, find: str, where: Mapping[str, Any] | None = None, bucket: str | None = None, at: int = 0, k: int = 40
    ) -> Fact:
        """Items whose id or title has all words of `find`, those that training saw most first; `where`: as of lists."""
        mask = np.ones(self.rec.n_items, bool)
        if where:
            mask &= self.rec.columns.where(where)[: len(mask)]
        if bucket:
            mask &= self.bucket_rows(bucket)[: len(mask)]
        wanted = find.casefold().split()
        rows = np.flatnonzero(mask)
        if wanted:
            texts = self._searched
            hits = [row for row in rows.tolist() if all(word in texts[row] for word in wanted)]
            rows = np.array(hits, np.int64)
        rows = rows[np.argsort(-self.train[rows], kind="stable")]
        exact = int(self.rec.places([find])[0]) if find else -1
        if exact in rows:
            rows = np.concatenate([[exact], rows[rows != exact]])
        found = [self.rec.item_ids[row] for row in rows[at : at + k].tolist()]
        return {"found": found, "count": len(rows), "at": at, "facts": self.of(found)}

    def by_popularity(self, items: Iterable[str]) -> list[str]:
        """The same items, those that training saw most first."""
        ids = list(items)
        return [ids[at] for at in np.argsort(-self.train[self.rec.places(ids)], kind="stable").tolist()]

    @cached_property
    def _searched(self) -> list[str]:
        """Id and title of every item, without case."""
        ids = self.rec.item_ids
        rows = np.arange(self.data.n_items if len(ids) <= MOST_TITLES else 0)
        named = titles(self.data, rows)
        return [f"{item} {named.get(row, '')}".casefold() for row, item in enumerate(ids)]

    def columns(self) -> list[dict[str, Any]]:
        """By which columns lists can be filtered: the commonest values of categories, the range of numbers."""
        found: list[dict[str, Any]] = []
        columns = self.rec.columns
        for name in columns.categorical:
            groups = columns.groups(name)
            words, counts = list(groups.words), np.bincount(groups.codes, minlength=len(groups.words))
            order = np.argsort(-counts, kind="stable")[:WORDS].tolist()
            chosen = [[words[code], int(counts[code])] for code in order if counts[code]]
            if chosen:
                found.append({"name": name, "kind": "category", "words": chosen, "of": int((counts > 0).sum())})
        for name in columns.numeric:
            numbers = columns.numbers(name)
            numbers = numbers[np.isfinite(numbers)]
            if len(numbers):
                least, most = float(numbers.min()), float(numbers.max())
                found.append({"name": name, "kind": "number", "least": least, "most": most})
        return found

    def _values(self, places: NDArray[np.int64]) -> list[str]:
        """Categories and numbers of items in words."""
        found: list[list[str]] = [[] for _ in places]
        columns = self.rec.columns
        for name in columns.categorical[:SHOWN_COLUMNS]:
            groups = columns.groups(name)
            words = list(groups.words)
            for n, codes in enumerate(groups.of(places)):
                own = [words[code] for code in codes.tolist() if code >= 0]
                if own:
                    found[n].append(visible(f"{name} {', '.join(own[:3])}")[:LONGEST])
        for name in columns.numeric[:SHOWN_COLUMNS]:
            for n, value in enumerate(columns.numbers(name)[places].tolist()):
                if np.isfinite(value):
                    found[n].append(f"{name} {plain(value)}")
        return ["; ".join(one) for one in found]
