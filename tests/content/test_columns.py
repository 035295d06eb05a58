"""The cache of static columns: what a version of a dataset shares with another is encoded once."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from rawrec.content import column_files
from rawrec.content import columns as cache_module
from rawrec.content.building import build_item_model
from rawrec.content.columns import static_columns
from rawrec.content.item_model import ItemModel
from rawrec.content.units import content_units
from rawrec.data.dataset import Dataset
from rawrec.data.ragged import Ragged
from rawrec.sources.append import append
from systems import config

Made = tuple[dict[str, Ragged], dict[str, dict[str, int]]]


@pytest.fixture
def data(shop: Path, tmp_path: Path) -> Dataset:
    shutil.copytree(shop, tmp_path / "shop", ignore=shutil.ignore_patterns("cache"))
    return Dataset.open(tmp_path / "shop")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Field and number of items of every batch that went through an encoder."""
    monkeypatch.setattr(cache_module, "CHUNK", 16)
    found, prepare = [], ItemModel.prepare
    monkeypatch.setattr(
        ItemModel, "prepare", lambda self, name, raw: (found.append((name, len(raw[0]))), prepare(self, name, raw))[1]
    )
    return found


def columns(data: Dataset, cache: Path, **settings: str) -> Made:
    torch.set_num_threads(1)
    cfg = config(content__image__max_images=1, **settings)
    return static_columns(build_item_model(cfg, data.fields, content_units(cfg, data.fields)), data, cache)


def counted(encoded: list[tuple[str, int]]) -> dict[str, int]:
    """Items encoded of each field since the last call."""
    total: dict[str, int] = {}
    for field, count in encoded:
        total[field] = total.get(field, 0) + count
    encoded.clear()
    return total


def assert_same(found: Made, expected: Made) -> None:
    assert found[0].keys() == expected[0].keys() and found[1] == expected[1]
    for name, column in expected[0].items():
        assert torch.equal(found[0][name].ptr, column.ptr) and found[0][name].values.dtype == column.values.dtype
        torch.testing.assert_close(found[0][name].values, column.values, rtol=2e-3, atol=2e-4, msg=name)


def appended(data: Dataset, rows: dict[str, tuple[str, bytes | None]], name: str) -> Dataset:
    """Items with a title and a picture, known or new, as the next version."""
    pictures = data.path.parent / f"pictures-{name}"
    pictures.mkdir()
    table = data.path.parent / f"{name}.tsv"
    table.write_text("item_id\ttitle\n" + "".join(f"{item}\t{title}\n" for item, (title, _) in rows.items()))
    for item, (_, picture) in rows.items():
        if picture is not None:
            (pictures / f"{item}.jpg").write_bytes(picture)
    return append(data.path, items=table, image_dir=pictures, update=True, progress=False)


def picture(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("train", ["none", "top:1", "all"])
def test_only_what_is_new_or_changed_is_encoded(
    data: Dataset, tmp_path: Path, encoded: list[tuple[str, int]], train: str
) -> None:
    settings = {"content__image__train": train, "content__text__train": "top:1" if train == "none" else train}
    first = columns(data, tmp_path / "cache", **settings)
    assert counted(encoded) == dict.fromkeys(("image", "title", "description"), data.n_items)
    known = data.item_ids[[3, 40]].tolist()
    long = "a title of far more words than the encoder reads, and on and on it goes"
    rows = {"n1": (long, picture("red")), known[0]: (long, None), known[1]: ("", picture("blue")), "n2": ("Two", None)}
    second = appended(data, rows, "second")
    files = {file.name for file in (tmp_path / "cache").iterdir()}
    got = columns(second, tmp_path / "cache", **settings)
    assert counted(encoded) == {"image": 3, "title": 3, "description": 2}
    assert files < {file.name for file in (tmp_path / "cache").iterdir()}
    fresh = columns(second, tmp_path / "fresh", **settings)
    assert_same(got, fresh)
    assert fresh[1]["title"]["truncated"] == first[1]["title"]["truncated"] + 2
    encoded.clear()
    assert_same(columns(second, tmp_path / "cache", **settings), got)
    assert_same(columns(data, tmp_path / "cache", **settings), first)  # of the run that was trained on it
    assert encoded == []


def test_rows_come_from_whichever_version_has_them(
    data: Dataset, tmp_path: Path, encoded: list[tuple[str, int]]
) -> None:
    """Version 2 was never trained on; and an old version is made of a later one."""
    columns(data, tmp_path / "cache")
    files = list((tmp_path / "cache").iterdir())
    appended(data, {"n1": ("One", None)}, "second")
    third = appended(data, {"n2": ("Two", picture("green"))}, "third")
    encoded.clear()
    got = columns(third, tmp_path / "cache")
    assert counted(encoded) == dict.fromkeys(("image", "title", "description"), 2)
    for file in files:
        file.unlink()
    again = columns(Dataset.open(data.path, version=2), tmp_path / "cache")
    assert counted(encoded) == {}
    for name, column in again[0].items():
        assert torch.equal(column.values, got[0][name].values[: len(column.values)])
        assert len(column) == third.n_items - 1


def test_another_encoder_shares_nothing(data: Dataset, tmp_path: Path, encoded: list[tuple[str, int]]) -> None:
    columns(data, tmp_path / "cache")
    second = appended(data, {"n1": ("One", None)}, "second")
    encoded.clear()
    columns(second, tmp_path / "cache", content__image__size="48")
    assert counted(encoded) == {"image": second.n_items, "title": 1, "description": 1}


def test_a_damaged_file_is_made_again(data: Dataset, tmp_path: Path, encoded: list[tuple[str, int]]) -> None:
    columns(data, tmp_path / "cache")
    for file in (tmp_path / "cache").iterdir():
        os.truncate(file, file.stat().st_size // 2 if file.name.startswith("image") else 3)
    second = appended(data, {"n1": ("One", None)}, "second")
    encoded.clear()
    with pytest.warns(UserWarning, match="is damaged, or nothing that rawrec wrote: what it holds is made anew"):
        assert len(columns(second, tmp_path / "cache")[0]["hidden/title"]) == second.n_items
    assert set(counted(encoded).values()) == {second.n_items}
    with pytest.warns(UserWarning, match="made anew"):
        assert_same(columns(data, tmp_path / "cache"), columns(data, tmp_path / "fresh"))


def test_nothing_is_left_of_a_column_that_was_not_finished(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "CHUNK", 16)

    def cut(text: str, starts: range) -> Iterator[int]:
        yield starts[0]
        raise KeyboardInterrupt

    cfg = config()
    item_model = build_item_model(cfg, data.fields, content_units(cfg, data.fields))
    with pytest.raises(KeyboardInterrupt):
        static_columns(item_model, data, tmp_path / "cache", cut)
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_was_made_before_a_kill_is_not_made_again(
    data: Dataset, tmp_path: Path, encoded: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole shards stay, in their order; the column is that of one go."""
    whole = columns(data, tmp_path / "whole")
    encoded.clear()
    monkeypatch.setattr(column_files, "SECONDS", 0.0)
    cfg = config(content__image__max_images=1)
    item_model = build_item_model(cfg, data.fields, content_units(cfg, data.fields))
    cache = tmp_path / "cache"

    def cut(text: str, starts: range) -> Iterator[int]:
        yield from starts[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        static_columns(item_model, data, cache, cut)
    (folder,) = cache.iterdir()
    shards = sorted(file.name for file in folder.iterdir())
    assert "0.safetensors" in shards and "16.safetensors" in shards and len(encoded) >= 3
    (folder / "32.partial").write_bytes(b"half")
    encoded.clear()
    assert_same(columns(data, cache), whole)
    assert counted(encoded)[folder.name[1:].split("-")[0]] <= data.n_items - 32, (
        "shards that were whole were made again"
    )
    assert all(file.suffix == ".safetensors" for file in cache.iterdir()), "shards stay beside the column"


def test_a_damaged_shard_and_those_behind_it_are_made_again(data: Dataset, tmp_path: Path) -> None:
    rows = Ragged.from_lengths(torch.arange(6.0)[:, None], torch.ones(6, dtype=torch.int64))
    path = tmp_path / "column.safetensors"
    shards = column_files.Shards(path)
    for start in (0, 2, 4):
        at = torch.arange(start, start + 2)
        shards.add(rows.select(at), {"cut": torch.ones(2, dtype=torch.int32)}, torch.zeros(2, 16, dtype=torch.uint8))
        shards._end()
    shards.close()
    (shards.folder / "2.safetensors").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="made anew"):
        again = column_files.Shards(path)
    assert again.done == 2 and sorted(f.name for f in again.folder.iterdir()) == ["0.safetensors", "lock"]
    again.add(
        rows.select(torch.arange(2, 6)), {"cut": torch.ones(4, dtype=torch.int32)}, torch.ones(4, 16, dtype=torch.uint8)
    )
    again.join()
    again.close()
    stored = column_files.read(path)
    assert stored is not None and torch.equal(stored.column.values, rows.values) and stored.stats == {"cut": 6}
    assert not again.folder.exists()


def test_two_processes_may_make_the_same_column(tmp_path: Path) -> None:
    path = tmp_path / "column.safetensors"
    one, other = column_files.Shards(path), column_files.Shards(path)
    assert one.folder != other.folder
    rows = Ragged.from_lengths(torch.ones(2, 1), torch.ones(2, dtype=torch.int64))
    for shards in (one, other):
        shards.add(rows, {}, torch.zeros(2, 16, dtype=torch.uint8))
        shards.join()
        shards.close()
    assert [file.name for file in tmp_path.iterdir()] == ["column.safetensors"]
