"""`rawrec import webdataset`: items as samples of tar shards, interactions of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rawrec.arguments import checked
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources.catalogue import Catalogue
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.media.shards import KEY, Shards, expand
from rawrec.sources.table import import_sources
from rawrec.sources.tables import open_source
from rawrec.sources.tables.convert import stored_name
from rawrec.sources.tables.label_columns import Positive
from rawrec.sources.tables.vector_files import vector_files
from rawrec.sources.users import Users, open_users


@checked()
def import_webdataset(
    shards: str | Sequence[str],
    interactions: str | Path,
    user: str,
    item: str,
    *,
    out: str | Path,
    time: str | None = None,
    time_format: str | None = None,
    labels: Sequence[str] = (),
    positive: Positive | None = None,
    rated: str | None = None,
    item_key: str | None = None,
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
    users: str | Path | None = None,
    user_id: str | None = None,
    user_category: Sequence[str] = (),
    user_numeric: Sequence[str] = (),
    encoding: str | None = None,
    split: SplitSpec | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import items from tar shards (plain or gzipped), and interactions from a table as of `import_table`.

    shards: paths, which may hold `{000..009}`, `{a,b}`, `*` and `?`. The files of a sample follow one another and share
    what stands before the first dot, the key, which is the item's id, or `item_key` names a key of the JSON that is.
    `.jpg` and other pictures become the field `image` (`.front.jpg`: `image_front`), `.txt` a text `text`, `.cls` a
    category `cls`. image: take only these, for example `jpg` and `front.jpg`. text, category, numeric, feature,
    image_url: keys of `.json`; of image_url the values are addresses of pictures, of feature vectors. pictures: how
    these are downloaded; or a table of addresses. vectors: as of `import_table`.
    user, item, time, labels, extra, context_category, context_numeric, query, session: columns of the interactions, as
    of `import_table`, positive, rated and time_format, too. users, user_id, user_category, user_numeric, encoding,
    split: as there.
    allow_empty: as of `import_table`.

    Nothing is unpacked to disk. Raises UserError for absent files and columns, and when nothing is left to import.
    """
    names = [shards] if isinstance(shards, str) else list(shards)
    report = ImportReport(source=f"WebDataset {' '.join(names)}")
    rows = open_source(Path(interactions), report, encoding)
    samples = Shards(expand(names), names[0], image, report, encoding)
    known = {stored_name(word.rpartition("=")[2]) for word in (*text, *category, *numeric)}
    own = {kind: [n for n, k in samples.fields.items() if k == kind] for kind in ("image", "text", "cls")}
    if both := [name for name in own["image"] + own["text"] + own["cls"] if name in known]:
        raise UserError(
            f"the shards hold files of a field {both[0]!r}, and so is a key of the JSON called: leave it out"
        )
    catalogue = Catalogue(
        report, samples, item_key or KEY, text=[*own["text"], *text], category=[*own["cls"], *category],
        numeric=numeric, feature=feature, vectors=vector_files(vectors, item, encoding), image_column=own["image"],
        image_url=image_url, pictures=pictures, launched=launched,
    )  # fmt: skip
    if unused := [name for name in samples.keys if name not in catalogue.columns]:
        report.note(f"keys of the JSON that were not asked for: {listed(unused)}")
    found = {name for names in own.values() for name in names}
    needed = [*own["image"]] if image else []
    needed += [name for name in catalogue.fields.names() if name not in found]
    people = Users(report, open_users(users, report, encoding), user_id or user, user_category, user_numeric)
    return import_sources(
        rows, user, item, catalogue, out=out, time=time, time_format=time_format, labels=labels, positive=positive,
        rated=rated, extra=extra, context_category=context_category, context_numeric=context_numeric, query=query,
        session=session, users=people, split=split, needed=needed, allow_empty=allow_empty, overwrite=overwrite,
        progress=progress,
    )  # fmt: skip
