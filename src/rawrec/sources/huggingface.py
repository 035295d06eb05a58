"""`rawrec import huggingface`: datasets of the Hugging Face hub, or folders of the same layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rawrec.arguments import checked
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.sources.catalogue import Catalogue
from rawrec.sources.download.hub import find
from rawrec.sources.download.hub_table import PART, HubTable
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.table import import_sources
from rawrec.sources.tables import Batch, Source
from rawrec.sources.tables.convert import ids
from rawrec.sources.tables.fields import columns_in
from rawrec.sources.tables.label_columns import Positive, numeric_labels
from rawrec.sources.tables.vector_files import vector_files
from rawrec.sources.users import Users


@checked()
def import_huggingface(
    interactions: str,
    user: str,
    item: str,
    *,
    out: str | Path,
    time: str | None = None,
    time_format: str | None = None,
    labels: Sequence[str] = (),
    positive: Positive | None = None,
    rated: str | None = None,
    items: str | None = None,
    item_id: str | None = None,
    text: Sequence[str] = (),
    category: Sequence[str] = (),
    numeric: Sequence[str] = (),
    feature: Sequence[str] = (),
    vectors: Mapping[str, str | Path] | None = None,
    image: Sequence[str] = (),
    image_url: Sequence[str] = (),
    launched: str | None = None,
    pictures: UrlPictures | None = None,
    extra: Sequence[str] = (),
    context_category: Sequence[str] = (),
    context_numeric: Sequence[str] = (),
    query: str | None = None,
    session: str | None = None,
    users: str | None = None,
    user_id: str | None = None,
    user_category: Sequence[str] = (),
    user_numeric: Sequence[str] = (),
    encoding: str | None = None,
    split: SplitSpec | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import interactions, and items where there are some, of datasets as the hub has them.

    interactions, items: `NAME[:config][@split]`, NAME being a folder (of `save_to_disk`, or of Parquet, Arrow, CSV or
    JSON lines files) or a dataset of the hub, which is downloaded into the hub's own cache. Without @split all splits
    are read, one after the other.
    user, item, time, labels, extra, context_category, context_numeric, query, session: columns of the interactions, as
    of `import_table`, positive, rated and time_format, too; without labels every row is a positive.
    item_id (default: the same name as `item`), text, category, numeric, feature, image: columns of the items. Without
    `items` they are columns of the interactions, and the first row of an item describes it. image: pictures as bytes,
    or as paths of files in the folder; stored as they are. Class labels become their names, but for labels, times and
    numbers, where they stay numbers. feature, vectors: as of `import_table`. image_url: columns of the addresses of
    pictures. pictures: how these are downloaded; or a table of addresses.
    users: a dataset of users, as interactions and items; user_id (default: the same name as `user`), user_category,
    user_numeric: its columns.
    encoding: of the tables that are text (default: UTF-8, else as each is found to be).
    split: default as the splits of the interactions say where there are several, else by time per user where there are
    times, else at random per user.

    Needs the library `datasets`, as `rawrec[huggingface]` installs it. Raises UserError where it is missing, for what
    cannot be found, reached or read, for absent configs, splits and columns, and when nothing is left to import.
    """
    report = ImportReport(source=f"Hugging Face {interactions}")
    plain = columns_in([*user_numeric, *numeric, *context_numeric, *filter(None, [time])])
    plain |= numeric_labels(labels, positive)
    of_pictures = columns_in(image)
    rows = HubTable(interactions, find(interactions), report, of_pictures, plain, encoding)
    wanted = [*text, *category, *numeric, *feature, *image, *image_url]
    source: Source | None = None
    if items is not None:
        source = HubTable(items, find(items), report, of_pictures, plain, encoding)
    elif wanted:
        source = _FirstRows(rows, item)
    catalogue = Catalogue(
        report, source, item_id or item, text=text, category=category, numeric=numeric, feature=feature,
        vectors=vector_files(vectors, item_id or item, encoding), image_column=image, image_url=image_url,
        pictures=pictures, launched=launched,
    )  # fmt: skip
    if split is None and rows.parts:
        split = SplitSpec.model_validate({"kind": "column", "column": PART})
    table = HubTable(users, find(users), report, (), plain, encoding) if users is not None else None
    people = Users(report, table, user_id or user, user_category, user_numeric)
    return import_sources(
        rows, user, item, catalogue, out=out, time=time, time_format=time_format, labels=labels, positive=positive,
        rated=rated, extra=extra, context_category=context_category, context_numeric=context_numeric, query=query,
        session=session, users=people, split=split, allow_empty=allow_empty,
        overwrite=overwrite, progress=progress,
    )  # fmt: skip


class _FirstRows(Source):
    """Of a table of interactions the row in which each item is first; rows without an item are left out."""

    holds_bytes = True

    def __init__(self, rows: HubTable, item: str) -> None:
        super().__init__(rows.path, rows.report)
        rows.require("item", [item])
        self.rows, self.item = rows.again(), item
        self.rows.values = rows.report  # rows that cannot be read are counted with the interactions, values here
        self.columns, self.format = rows.columns, rows.format

    def seek(self, names: Sequence[str | None]) -> None:
        self.rows.seek(names)
        self.columns = self.rows.columns

    def again(self) -> _FirstRows:
        other = super().again()
        assert isinstance(other, _FirstRows)
        other.rows = self.rows.again()
        return other

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        seen: set[str] = set()
        for batch in self.rows.batches(list(dict.fromkeys([self.item, *columns]))):
            self.fraction = self.rows.fraction
            found, good = ids(batch.columns[self.item], f"{batch.file}: {self.item}")
            good &= batch.readable(self.item)
            coded = found.dictionary_encode()
            words, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
            new = np.array([word not in seen for word in words], bool)
            seen.update(words)
            first = np.zeros(len(found), bool)
            first[np.unique(codes, return_index=True)[1]] = True
            if (keep := first & good & new[codes]).any():
                yield batch.keep(keep)
