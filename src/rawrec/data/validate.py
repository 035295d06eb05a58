"""`rawrec validate`: is a dataset folder whole, and does everything in it agree?"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rawrec.data._validate_items import check_items
from rawrec.data._validate_rows import check_rows
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset
from rawrec.data.digest import combined
from rawrec.data.findings import Validation
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import ITEMS, check_part, read_meta, read_version
from rawrec.data.parts import item_schema


def validate(path: str | Path, quick: bool = False, progress: bool = True) -> Validation:
    """Check the dataset at `path` whole; quick: 1,000 pictures of a field instead of all, and no digests.

    Everything is read: every picture is decoded, ids, numbers, parts and counts are compared, and digests of the
    content are computed again where it was imported with one. Memory: some 64 MiB of media, ids as numbers, and 9 bytes
    per interaction and stored split.

    Raises UserError where there is no dataset at all.
    """
    path = Path(path)
    found = Validation(str(path), quick)
    if not (path / "dataset.yaml").is_file():
        read_version(path)  # which says what is wrong
    data = None
    with found.reading(str(path)):
        opened = Dataset.open(path, sums=False)  # what is wrong in a file is said better than that it was changed
        held, expected = opened.item_table(0, 0).schema, item_schema(opened.fields, opened.has_launched)
        found.add(ITEMS, f"its columns are not those of the fields in dataset.yaml: {held.names}", held != expected)
        data = opened if found.sound else None
    if data is None:
        return found
    found.version = data.version
    _check_files(data, found)
    with Bar(progress) as bar:
        check_rows(data, found, check_items(data, found, bar), bar)
    if found.sound:
        meta = read_meta(path)
        for name in meta.sums:
            if not (quick and name.startswith(ITEMS)) and (path / name).is_file():
                with found.reading(name):
                    check_part(path, meta, name)
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
