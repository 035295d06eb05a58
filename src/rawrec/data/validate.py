"""`rawrec validate`: is a dataset folder whole, and does everything in it agree?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rawrec.data.bar import Bar
from rawrec.data.dataset import ITEMS, Dataset, read_meta, read_version
from rawrec.data.digest import ContentDigest, combined
from rawrec.data.disk import first_line
from rawrec.data.import_report import ImportReport
from rawrec.data.parts import item_schema
from rawrec.errors import UserError

EXAMPLES = 5
AGAIN = "import the data again, or take the folder from a backup"


@dataclass
class Problem:
    """Where it is, what is wrong there, how often, the first examples, and what to do."""

    where: str
    what: str
    advice: str
    count: int = 1
    examples: list[str] = field(default_factory=list)


@dataclass
class Validation:
    """What was looked at (how many of each), what is wrong, and what is worth knowing but not wrong."""

    path: str
    quick: bool
    version: int | None = None
    checked: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    digests: dict[int, ContentDigest | None] = field(default_factory=dict, repr=False)
    """Of the versions, as far as their content has been read."""

    @property
    def sound(self) -> bool:
        return not self.problems

    def count(self, what: str, number: int) -> None:
        self.checked[what] = self.checked.get(what, 0) + int(number)

    def add(self, where: str, what: str, count: int, examples: Iterable[Any] = (), advice: str = AGAIN) -> None:
        """A problem that occurs `count` times (0: none); one that is there already becomes larger."""
        if not count:
            return
        entry = next((p for p in self.problems if (p.where, p.what) == (where, what)), None)
        if entry is None:
            entry = Problem(where, what, advice, 0)
            self.problems.append(entry)
        entry.count += int(count)
        entry.examples += [str(e) for e in list(examples)[: EXAMPLES - len(entry.examples)]]

    @contextlib.contextmanager
    def reading(self, where: str) -> Iterator[None]:
        """Damaged bytes make readers raise nearly everything, a panic of compiled code included: each is a problem."""
        try:
            yield
        except UserError as error:
            self.add(where, str(error), 1)
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self.add(where, f"cannot be read: {first_line(error)[:300]}", 1)

    def as_dict(self) -> dict[str, Any]:
        shown = {name: value for name, value in vars(self).items() if name not in ("problems", "digests")}
        return {"sound": self.sound, **shown, "problems": [asdict(problem) for problem in self.problems]}


def validate(path: str | Path, quick: bool = False, progress: bool = True) -> Validation:
    """Check the dataset at `path` whole; quick: 1,000 pictures of a field instead of all, and no digests.

    Everything is read: every picture is decoded, ids, numbers, parts and counts are compared, and digests of the
    content are computed again where it was imported with one. Memory: some 64 MiB of media, ids as numbers, and 9 bytes
    per interaction and stored split.

    Raises UserError where there is no dataset at all.
    """
    from rawrec.data._validate_items import check_items  # which build on this module
    from rawrec.data._validate_rows import check_rows

    path = Path(path)
    found = Validation(str(path), quick)
    if not (path / "dataset.yaml").is_file():
        read_version(path)  # which says what is wrong
    data = None
    with found.reading(str(path)):
        opened = Dataset.open(path)
        held, expected = opened.item_table(0, 0).schema, item_schema(opened.fields, opened.has_launched)
        found.add(ITEMS, f"its columns are not those of the fields in dataset.yaml: {held.names}", held != expected)
        data = opened if found.sound else None
    if data is None:
        return found
    found.version = data.version
    _check_files(data, found)
    with Bar(progress) as bar:
        check_rows(data, found, check_items(data, found, bar), bar)
    return found


def _check_files(data: Dataset, found: Validation) -> None:
    """The accounts of imports, and what dataset.yaml said before each append."""
    newest = data.meta
    first, *later = newest.versions
    digest = first.digest
    for entry in later:
        digest = combined([digest, entry.digest, entry.replaced_digest])
    if first.digest:
        found.add("dataset.yaml", "its digest is not that of its versions", digest != newest.digest)
    for number in range(1, data.version + 1):
        account = "import.json" if number == 1 else f"import-{number}.json"
        with found.reading(account):
            ImportReport.load(data.path / account)
        found.count("accounts of imports", 1)
        if number == data.version:
            continue
        name = f"dataset-{number}.yaml"
        with found.reading(name):
            earlier = read_meta(data.path, name)
            same = earlier.versions[1:] == newest.versions[1:number] and earlier.fields == newest.fields
            found.add(
                name, "does not say what dataset.yaml says of that version", not same or earlier.version != number
            )


# -------------------------------------------------------------------------------------------------------------- tables
def print_validation(found: Validation, console: Console) -> None:
    """The result of `validate` as tables."""
    table = Table("checked", title=f"{found.path}, version {found.version or 'unknown'}", title_justify="left")
    table.add_column("number", justify="right")
    for what, number in found.checked.items():
        table.add_row(what, f"{number:,}")
    console.print(table)
    if found.problems:
        table = Table("where", "what is wrong", title="Problems", title_justify="left")
        table.add_column("count", justify="right")
        table.add_column("for example", overflow="fold")
        table.add_column("what to do")
        for problem in found.problems:  # values come from the user's files: never markup
            words = (problem.where, problem.what, f"{problem.count:,}", "\n".join(problem.examples), problem.advice)
            table.add_row(*(Text(word) for word in words))
        console.print(table)
    for text in found.notes:
        console.print(f"- {text}", markup=False, highlight=False)
    if found.sound:
        console.print("The dataset is sound.")
