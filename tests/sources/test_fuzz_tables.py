"""Damaged rows and damaged datasets: what was good is in, and a dataset that is there stays whole.

RAWREC_FUZZ says how many cases each test gets.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import source_samples
from mutations import CASES, cases, cell, flips, limit
from rawrec.data.dataset import Dataset
from rawrec.data.splits import SplitSpec
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.mmrec import import_mmrec
from rawrec.sources.table import import_table

NAMES = ["user", "item", "time", "label"]
ROWS = [[f"u{i % 5}", f"i{i % 7}", 1_700_000_000 + i, i % 2] for i in range(40)]


def import_rows(path: Path, out: Path) -> set[tuple[str, str, int]]:
    """The table's (user, item, time), imported and read back."""
    data = import_table(
        path, "user", "item", time="time", labels=["label"], out=out, split=SplitSpec(kind="random_user"),
        overwrite=True, progress=False,
    )  # fmt: skip
    times = data.timestamps
    assert times is not None
    return set(zip(data.user_ids[data.users], data.item_ids[data.items], times.tolist(), strict=True))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_rows_beside_a_damaged_one_are_in(suffix: str, tmp_path: Path) -> None:
    if suffix == "jsonl":
        lines = [json.dumps(dict(zip(NAMES, row, strict=True))).encode() for row in ROWS]
    else:
        lines = [("," if suffix == "csv" else "\t").join(map(str, row)).encode() for row in [NAMES, *ROWS]]
    first = len(lines) - len(ROWS)
    for seed in range(CASES):
        chance = random.Random(f"{suffix} {seed}")
        at = chance.randrange(len(ROWS))
        damaged = [*lines[: first + at], cell(lines[first + at], chance), *lines[first + at + 1 :]]
        path = tmp_path / f"clicks.{suffix}"
        path.write_bytes(b"\n".join(damaged) + b"\n")
        with limit():
            found = import_rows(path, tmp_path / "out")
        untouched = {(user, item, time) for user, item, time, _ in ROWS[:at] + ROWS[at + 1 :]}
        assert untouched <= found, (seed, damaged[first + at], untouched - found)


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).map(lambda text: f"x{text}x")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@given(rows=st.lists(st.tuples(WORDS, WORDS, st.integers(1, 10**7), st.just(1)), min_size=1, max_size=5))
@settings(max_examples=CASES, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
def test_any_text_comes_back(suffix: str, rows: list[tuple[str, str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clicks.{suffix}"
        if suffix == "jsonl":
            lines = [json.dumps(dict(zip(NAMES, row, strict=True)), ensure_ascii=len(rows) % 2 > 0) for row in rows]
            path.write_text("\n".join(lines), encoding="utf-8")
        elif suffix == "parquet":
            pl.DataFrame(rows, NAMES, orient="row").write_parquet(path)
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, delimiter="," if suffix == "csv" else "\t").writerows([NAMES, *rows])
        assert import_rows(path, Path(folder) / "out") == {row[:3] for row in rows}


# --------------------------------------------------------------------------------------------- a dataset that is there
@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset data/books, and tables to append to it."""
    folder = tmp_path_factory.mktemp("books")
    source_samples.append(folder)
    import_table(
        folder / "clicks.csv", "user", "book", time="when", labels=["clicked"], extra=["channel"],
        items=folder / "books.tsv", text=["title"], category=["genres"], numeric=["price"],
        image_dir=folder / "covers", out=folder / "data" / "books", progress=False,
    )  # fmt: skip
    return folder


def test_appending_damaged_tables(tmp_path: Path, books: Path) -> None:
    for chance, folder in cases("append", books, tmp_path):
        data = folder / "data" / "books"
        name = chance.choice(["monday.csv", "clicks.csv"])
        items = chance.choice([None, folder / "new_books.tsv", folder / "books.tsv"])
        version = 1
        try:
            with limit():
                appended = append(
                    data, folder / name, "user", "book", time="when", items=items, update=chance.random() < 0.5,
                    image_dir=folder / "covers", progress=False,
                )  # fmt: skip
            version = appended.version
            assert version == 2
        except UserError as error:
            assert "\n" not in str(error), (folder, str(error))
        assert Dataset.open(data).version == version
        assert validate(data, progress=False).problems == [], folder


@pytest.fixture(scope="module")
def baby(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset data/baby, and vectors to append to it."""
    folder = tmp_path_factory.mktemp("baby")
    source_samples.append_vectors(folder)
    import_mmrec(folder / "baby", out=folder / "data" / "baby", progress=False)
    shutil.rmtree(folder / "baby")
    return folder


def test_appending_damaged_vectors(tmp_path: Path, baby: Path) -> None:
    for chance, folder in cases("vectors", baby, tmp_path):
        data = folder / "data" / "baby"
        files = [("image", "image.npz"), ("text", "text.parquet"), ("image", "again.npy")]
        vectors = {field: folder / name for field, name in chance.sample(files, 2)}
        log = chance.choice([None, folder / "day.csv"])
        version = 1
        try:
            with limit():
                settings: dict[str, Any] = {"time": "when"} if log else {}
                version = append(
                    data, log, "user", "asin", vectors=vectors, update=chance.random() < 0.5, progress=False, **settings
                ).version
            assert version == 2
        except UserError as error:
            assert "\n" not in str(error), (folder, str(error))
        assert Dataset.open(data).version == version
        assert validate(data, progress=False).problems == [], folder


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) within."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from leaves(value[key])


VALUES: list[Any] = [None, -1, 0, 2**63, 10**30, 1.5, float("nan"), "", "x" * 9999, "../../x", "\0", [], {}, [{}], True]
VALUES += [
    "interactions-2.parquet",
    "/etc/passwd",
    {"": ""},
    [1, "a"],
    b"\xff",
    "train",
    {"kind": "column", "column": "x"},
]


DEEP = 1000
"""Of lists in lists: more than Python can follow; many more take no other way and much longer."""


def test_opening_a_dataset_with_a_damaged_account(tmp_path: Path, books: Path) -> None:
    data = tmp_path / "books"
    shutil.copytree(books / "data" / "books", data)
    whole, marker = (data / "dataset.yaml").read_bytes(), tmp_path / "executed"
    aliases = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [%s]\n" % (i, i, b"*%c," % (i - 1) * 9) for i in range(98, 107))
    hostile = [
        f"!!python/object/apply:os.mkdir ['{marker}']\n".encode(),
        aliases,
        b"[" * DEEP, b"&a [*a]", b"&a {source: *a}", b"", b"\0", b"- " * 3000, b"? " * 3000, b"x", b"\xff\xfe",
        b"schema_version: 2\nsource: 2024-99-99", b"schema_version: 2\n? [a]\n: b", b"{" * DEEP,
    ]  # fmt: skip
    for seed in range(CASES + len(hostile)):
        chance = random.Random(f"yaml {seed}")
        if seed >= CASES:
            text = hostile[seed - CASES]
        elif seed % 2:
            text = flips(whole, chance)
        else:
            account = yaml.safe_load(whole)
            holder, key = chance.choice(list(leaves(account)))
            if isinstance(holder, dict) and chance.random() < 0.2:
                holder[chance.choice(["x", 1, None, "version"])] = holder.pop(key)
            else:
                holder[key] = chance.choice(VALUES)
            text = yaml.safe_dump(account).encode()
        (data / "dataset.yaml").write_bytes(text)
        with limit():
            for read in (lambda: Dataset.open(data).fingerprint(), lambda: validate(data, progress=False)):
                try:
                    read()
                except UserError as error:
                    assert "\n" not in str(error), (seed, str(error))
        assert not marker.exists(), text
