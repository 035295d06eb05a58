"""`dataset.yaml`: what a dataset has, split by split and version by version; read, checked and replaced whole."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rawrec.arguments import shown
from rawrec.data.disk import Lock
from rawrec.data.names import is_name
from rawrec.data.queries import ASKED, SCHEMAS, asked_file, has_file
from rawrec.data.splits import PARTS, SplitSpec
from rawrec.errors import UserError
from rawrec.files import write_text, yaml_text
from rawrec.folders import beside, restore
from rawrec.reading import DESCRIPTION, check_plain, damaged, read_table, read_text, yaml_of
from rawrec.shown import listed
from rawrec.sums import check_file, check_text, end_sum, file_sum, sealed, sums_in

SCHEMA_VERSION = 5
WITHOUT_QUERIES = 3
"""The schema version of a dataset that has nothing of what came later: queries and sessions with version 4, `rated`
with version 5. A dataset is of the version that it needs."""
WITH_QUERIES = 4
Rated = Literal["seen", "unseen"]
"""Whether an item that a user rated counts as taken, whatever the label: `seen`, it is known to the user and need not
come back; `unseen`, the label says whether it was taken (what was shown and not clicked may be shown again)."""
T = TypeVar("T")
MOST = 2**31 - 1
"""Users, items, interactions and versions are numbered with 32 bits."""
WIDEST = 2**20
"""Numbers of a feature."""
Number = Annotated[int, Field(ge=0, le=MOST)]
RESERVED = {"user", "item", "user_id", "item_id", "timestamp", "split"}
"""Columns of the interactions that are no labels and no further ones."""
MILLISECOND = "timestamp_millisecond"
"""A further column of the interactions, int16, where times had fractions of a second: thousandths of the second in
`timestamp`, which order the rows of one second."""
ITEMS, ROWS, USERS = "items.lance", "interactions.parquet", "users.parquet"
ITEM_FILES, SUMMED = ("_versions", "data", "_deletions"), (".manifest", ".lance", ".arrow", ".bin")
"""Where the files of items are that have check sums, and how their names end."""


class Fields(BaseModel):
    """The named fields of an item, by kind; `feature` maps a ready-made feature column to its width."""

    model_config = ConfigDict(extra="forbid")

    image: list[str] = Field(default_factory=list)
    text: list[str] = Field(default_factory=list)
    categorical: list[str] = Field(default_factory=list)
    numeric: list[str] = Field(default_factory=list)
    feature: dict[str, int] = Field(default_factory=dict)

    @field_validator("feature")
    @classmethod
    def _widths(cls, feature: dict[str, int]) -> dict[str, int]:
        """UserError, also for who writes a dataset: widths are those of a user's file."""
        for name, width in feature.items():
            if not 1 <= width <= WIDEST:
                raise UserError(f"feature {name!r} has width {width}: it must be 1 to {WIDEST:,}")
        return feature

    def names(self) -> list[str]:
        return [*self.image, *self.text, *self.categorical, *self.numeric, *self.feature]


class Columns(BaseModel):
    """Columns of users, or of interactions (the context of an impression), that a ranker may read, by kind."""

    model_config = ConfigDict(extra="forbid")

    categorical: list[str] = Field(default_factory=list)
    numeric: list[str] = Field(default_factory=list)

    def names(self) -> list[str]:
        return [*self.categorical, *self.numeric]


class Version(BaseModel):
    """What one import or append brought.

    file: its interactions. counts: users, items and interactions that it added; replaced: items whose content it
    changed. items_version: the version of items.lance after it. part: where its interactions are in the default split
    (an append's; an import splits). moved: part -> part, what it made of the default split of earlier interactions.
    users: the file of the users' attributes, of all users that there were then, where it brought some.
    digest: `ContentDigest` of what it added ("": it was imported when there was none); replaced_digest: of what it put
    in place of items' content. time: when it was (an append).
    """

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1, le=MOST)]
    file: str = Field(pattern=r"^interactions(-\d+)?\.parquet$")
    counts: dict[str, Number]
    items_version: Annotated[int, Field(ge=1, le=MOST)]
    digest: str
    source: str
    users: str | None = Field(default=None, pattern=r"^users(-\d+)?\.parquet$")
    replaced: int = 0
    replaced_digest: str = ""
    part: Literal["train", "valid", "test"] | None = None
    moved: dict[Literal["train", "valid", "test"], Literal["train", "valid", "test"]] = Field(default_factory=dict)
    time: str | None = None


class Meta(BaseModel):
    """`dataset.yaml`.

    labels: label columns; empty means positive-only data. digest: of all items and interactions, as they came.
    extra: further columns of the interactions; context: those of them that a ranker may read, by kind.
    users: the attributes of users.
    splits: name -> the `SplitSpec`, a statement of it in words with counts, and the version that it was made of.
    versions: all up to this one, 1 being the import; a dataset of schema version 1 has that one only. Before schema
    version 3 there were no context and no attributes of users, before version 4 no queries and no sessions, before
    version 5 no `rated` (see `Rated`), which is written where it is `seen`.
    counts: of users, items and interactions; of queries and of sessions, where the interactions have them.
    sums: file -> its check sum, see `files_of`; in comments behind the values, none of a dataset of an earlier version.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = WITHOUT_QUERIES
    source: str
    generated: bool = False
    fields: Fields
    labels: list[str]
    label_rule: str = ""
    extra: list[str] = Field(default_factory=list)
    context: Columns = Field(default_factory=Columns)
    users: Columns = Field(default_factory=Columns)
    rated: Rated = "unseen"
    has_time: bool
    counts: dict[str, Number]
    splits: dict[str, dict[str, Any]]
    digest: str
    version: Annotated[int, Field(ge=1, le=MOST)] = 1
    versions: list[Version] = Field(default_factory=list)
    sums: dict[str, str] = Field(default_factory=dict, exclude=True)

    @model_validator(mode="after")
    def _complete(self) -> Meta:
        if not self.versions and {"users", "items", "interactions"} <= self.counts.keys():
            values = {"counts": self.counts, "digest": "", "source": self.source}
            self.versions = [Version.model_validate({"version": 1, "file": ROWS, "items_version": 1, **values})]
        if self.asked:
            self.schema_version = max(self.schema_version, WITH_QUERIES)
        if self.rated != "unseen":
            self.schema_version = SCHEMA_VERSION
        if lacking := {"users", "items", "interactions"} - self.counts.keys():
            raise ValueError(f"counts lacks {listed(sorted(lacking))}")
        for what, count in self.counts.items() if self.versions else ():
            if count != sum(entry.counts.get(what, 0) for entry in self.versions):
                raise ValueError(f"the {what} of the versions are not {count} together")
        for name in self.context.names():
            if name not in [*self.extra, *self.asked]:
                raise ValueError(f"context names {name!r}, which is no further column of the interactions (extra)")
        names = [*self.labels, *self.extra]
        if twice := [name for name in names if names.count(name) > 1 or name in RESERVED]:
            raise ValueError(f"{twice[0]!r} is no name of a label or a further column, or is there twice")
        fields = self.fields.names()
        if twice := [name for name in fields if fields.count(name) > 1]:
            raise ValueError(f"two fields are named {twice[0]!r}")
        for name, entry in self.splits.items():
            _check_split(name, entry, [*names, *self.asked])
        if self.versions and [entry.version for entry in self.versions] != [*range(1, self.version + 1)]:
            raise ValueError(f"version is {self.version}, and versions does not list 1 to {self.version}")
        return self

    @property
    def asked(self) -> list[str]:
        """Which of `query` and `session` the interactions have."""
        return [column for column, what in ASKED.items() if what in self.counts]


def _check_split(name: str, entry: dict[str, Any], columns: list[str]) -> None:
    """ValueError where a split is not described as `split_entry` does it."""
    if not is_name(name):
        raise ValueError(f"{name!r} is no name of a split")
    counts, history = entry.get("counts"), entry.get("history")
    if not isinstance(entry.get("statement"), str) or not isinstance(entry.get("kind"), str):
        raise ValueError(f"split {name!r} does not say what it is (statement, kind)")
    if not isinstance(counts, dict) or not all(type(counts.get(part)) is int and counts[part] >= 0 for part in PARTS):
        raise ValueError(f"split {name!r} does not say how many rows its parts have")
    if history is not None and history not in columns:
        raise ValueError(f"split {name!r} names the column {history!r}, which the interactions do not have")
    if type(entry.get("version", 1)) is not int:
        raise ValueError(f"split {name!r} does not say of which version it is")


# ------------------------------------------------------------------------------------------------------------- the file
def again(path: Path) -> AbstractContextManager[None]:
    """Inside, what readers of the files of a dataset say, or cry, becomes a UserError: the dataset is damaged."""
    return damaged(path, says="is damaged, import it again", missing=True)


def read_version(path: Path, name: str = "dataset.yaml") -> dict[str, Any]:
    """What `dataset.yaml` holds, known to have a schema version. Raises UserError where `path` is no dataset."""
    file = path / name
    if not os.path.lexists(path) and beside(path.absolute()).is_dir():
        _bring_back(path.absolute())
    if not file.is_file():
        what = f"is not a rawrec dataset (it holds no {name})" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}: make one with `rawrec import`")
    text = read_text(file, DESCRIPTION, links=True)
    check_text(text, file, "Bring it back from a copy, or import the data again")
    with damaged(file):
        values = yaml_of(text)
    if not isinstance(values, dict) or not isinstance(values.get("schema_version"), int):
        raise UserError(f"{file} is not the description of a rawrec dataset (no schema_version)")
    return {**values, "sums": sums_in(text)}


def _bring_back(path: Path) -> None:
    """Put a dataset in its place whose replacement was killed between two renames."""
    for _ in range(50):
        with suppress(UserError), Lock(path):  # else another process is about to end such a replacement
            restore(path)
        if os.path.lexists(path):
            return
        time.sleep(0.1)


def read_meta(path: Path, name: str = "dataset.yaml") -> Meta:
    """What `dataset.yaml`, or what it was at an earlier version, says. Raises UserError where it is damaged."""
    values = read_version(path, name)
    if values["schema_version"] > SCHEMA_VERSION:
        version = values["schema_version"]
        raise UserError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}: update rawrec")
    try:
        return Meta.model_validate(values)
    except ValidationError as error:
        where, why = ".".join(str(p)[:60] for p in error.errors()[0]["loc"]), error.errors()[0]["msg"]
        raise UserError(f"{path}/{name} is damaged at {where!r} ({why}): import the data again") from None


def write_meta(meta: Meta, folder: Path, name: str = "dataset.yaml") -> None:
    """Replace `dataset.yaml`: whole, or not at all, and on the disk."""
    unsaid = {"rated"} if meta.rated == "unseen" else set[str]()
    text = yaml_text(meta.model_dump(mode="json", exclude=unsaid))
    write_text(folder / name, sealed(text, _with_new_files(meta, folder)))


def _with_new_files(meta: Meta, folder: Path) -> dict[str, str]:
    """The check sums of a dataset's files: those that are known, and of what has come since. A dataset that was written
    without goes on so: nobody can say what its files were."""
    if not meta.sums and (folder / "dataset.yaml").exists():
        return {}
    new = [name for name in files_of(meta, folder) if name not in meta.sums]
    return meta.sums | {n: (end_sum if n.endswith(".parquet") else file_sum)(folder / n) for n in new}


def files_of(meta: Meta, folder: Path) -> list[str]:
    """The files that a dataset consists of, as they stand in `folder`: tables, and the parts and manifests of items."""
    asked = [asked_file(c, v.version) for c in meta.asked for v in meta.versions if has_file(c, v.version, v.counts)]
    tables = [v.file for v in meta.versions] + [v.users for v in meta.versions if v.users] + asked
    tables += [split_file(name) for name in meta.splits if name != "default"]
    items = (file for part in ITEM_FILES for file in sorted((folder / ITEMS / part).glob("*")))
    names = [*dict.fromkeys(tables), *(f"{ITEMS}/{f.parent.name}/{f.name}" for f in items if f.suffix in SUMMED)]
    return [name for name in names if (folder / name).is_file()]


def split_file(name: str) -> str:
    """Where a further split is stored."""
    return f"splits/{name}.parquet"


def check_part(path: Path, meta: Meta, name: str) -> None:
    """UserError where a file of the dataset is not as it was written."""
    check_file(path / name, meta.sums.get(name), "import the data again, or bring it back from a copy", links=True)


def check_asked(path: Path, meta: Meta, column: str) -> None:
    """UserError where interactions have no `query`, or no `session`."""
    if column not in meta.asked:
        raise UserError(f"{path} has no {ASKED[column]}: import it anew with {column} (--{column} COLUMN)")


def read_asked(path: Path, meta: Meta, column: str) -> pa.Table:
    """The table of the queries or of the sessions of all versions, see `queries.py`. UserError where there is none, and
    where it is damaged."""
    check_asked(path, meta, column)
    found = [v.version for v in meta.versions if has_file(column, v.version, v.counts)]
    with again(path):
        for version in found:
            check_part(path, meta, asked_file(column, version))
        files = [read_table(path / asked_file(column, version), links=True) for version in found]
        tables = [table.cast(SCHEMAS[column]) for table in files]
    table, count = pa.concat_tables(tables), meta.counts[ASKED[column]]
    if len(table) != count:
        what = ASKED[column]
        raise UserError(f"{path} is damaged, import it again: it holds {len(table)} {what}, dataset.yaml says {count}")
    return table


def split_entry(spec: SplitSpec, statement: str, parts: NDArray[np.int8]) -> dict[str, Any]:
    counts = {name: int((parts == i).sum()) for i, name in enumerate(PARTS)}
    return {**spec.settings(), "statement": statement, "counts": counts}


# ---------------------------------------------------------------------------------------------- what must agree with it
def rows_of(file: Path, meta: Meta) -> int:
    """How many interactions a file has. ValueError where columns are missing that `dataset.yaml` names."""
    check_plain(file, links=True)
    head = pq.read_metadata(file)
    names = {"user", "item", "user_id", "item_id", "split", *["timestamp"] * meta.has_time}
    if missing := sorted({*names, *meta.labels, *meta.extra, *meta.asked} - set(head.schema.to_arrow_schema().names)):
        raise ValueError(f"{file.name} has no column {missing[0]!r}, which dataset.yaml names")
    return head.num_rows


def check_fields(path: Path, meta: Meta, schema: pa.Schema) -> None:
    """UserError where items lack a field that `dataset.yaml` names, or have it in another form."""
    fields = meta.fields
    for name in ["item_id", *fields.names(), *(f"count/{name}" for name in (*fields.image, *fields.text))]:
        if name not in schema.names:
            raise UserError(
                f"{path} is damaged, import it again: its items have no {shown(name)}, which dataset.yaml names"
            )
    for name, width in fields.feature.items():
        kind = schema.field(name).type
        if not pa.types.is_fixed_size_list(kind) or kind.list_size != width:
            raise UserError(f"{path} is damaged, import it again: feature {name!r} is no vector of {width} numbers")


def each(path: Path, batches: Iterable[T]) -> Iterator[T]:
    """The batches of a reader of the dataset at `path`, see `again`."""
    following = iter(batches)
    while True:
        with again(path):
            batch = next(following, None)
        if batch is None:
            return
        yield batch
