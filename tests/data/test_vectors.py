"""Vectors written in every form are read back as they were, by the tools that the forms are for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from rawrec.data.vectors import INDEXES, VECTOR_FORMS, Vectors, check_form, write_vectors
from rawrec.errors import UserError

ODD_IDS = ["a,b", 'say "x"', "two\nlines", "😀", "001", " null", "Ünïcode/é", "[b]"]


def vectors(n: int = len(ODD_IDS), width: int = 5, piece: int = 3, missing: tuple[int, ...] = (2,)) -> Vectors:
    """n vectors in pieces, those of the items `missing` not there."""
    values = np.random.default_rng(1).normal(size=(n, width)).astype(np.float32)
    valid = ~np.isin(np.arange(n), missing)
    values[~valid] = 0
    ids = ODD_IDS if n == len(ODD_IDS) else [f"i{k}" for k in range(n)]
    return Vectors(ids, width, [(values[at : at + piece], valid[at : at + piece]) for at in range(0, n, piece)])


def whole(given: Vectors) -> tuple[np.ndarray, np.ndarray]:
    values, valid = zip(*given.pieces, strict=True)
    return np.concatenate(values), np.concatenate(valid)


def beside(path: Path) -> tuple[list[str], list[bool]]:
    lines = [json.loads(line) for line in path.with_suffix(".ids.jsonl").read_text("utf-8").splitlines()]
    return [line["item_id"] for line in lines], [line["valid"] for line in lines]


def test_parquet(tmp_path: Path) -> None:
    given = vectors()
    write_vectors(given, tmp_path / "v.parquet")
    values, valid = whole(given)
    table = pl.read_parquet(tmp_path / "v.parquet")
    assert table.columns == ["item_id", "vector", "valid"]
    assert table["item_id"].to_list() == ODD_IDS and table["valid"].to_list() == valid.tolist()
    np.testing.assert_array_equal(table["vector"].to_numpy(), values)
    assert pq.read_schema(tmp_path / "v.parquet").field("vector").type.list_size == 5


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_plain_numbers_and_the_ids_beside(suffix: str, tmp_path: Path) -> None:
    given, path = vectors(), tmp_path / f"my.item{suffix}"
    write_vectors(given, path)
    values, valid = whole(given)
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(path, allow_pickle=False), values)
    else:
        read = load_file(path)
        assert read.keys() == {"vectors", "valid"}
        np.testing.assert_array_equal(read["vectors"], values)
        np.testing.assert_array_equal(read["valid"], valid)
    assert beside(path) == (ODD_IDS, valid.tolist())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "my.item.ids.jsonl"])


def test_the_mean_stands_for_what_is_missing(tmp_path: Path) -> None:
    given = vectors(missing=(0, 4))
    values, valid = whole(given)
    given.mean_for_missing = True
    write_vectors(given, tmp_path / "image_feat.npy")
    read = np.load(tmp_path / "image_feat.npy")
    np.testing.assert_array_equal(read[valid], values[valid])
    np.testing.assert_allclose(read[~valid], np.stack([values[valid].mean(0)] * 2), rtol=1e-6)
    assert beside(tmp_path / "image_feat.npy")[1] == valid.tolist()
    nothing = vectors(missing=tuple(range(len(ODD_IDS))))
    nothing.mean_for_missing = True
    write_vectors(nothing, tmp_path / "text_feat.npy")
    assert not np.load(tmp_path / "text_feat.npy").any()


@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_finds_every_item_by_its_own_vector(kind: str, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    given = vectors(n=500, width=12, piece=64, missing=(0, 7, 499))
    write_vectors(given, tmp_path / "v.faiss", kind)
    values, valid = whole(given)
    index = faiss.read_index(str(tmp_path / "v.faiss"))
    ids = pl.read_parquet(tmp_path / "v.ids.parquet")["item_id"].to_list()
    assert ids == [i for i, there in zip(given.ids, valid, strict=True) if there] and index.ntotal == 497
    query = values[valid] / np.linalg.norm(values[valid], axis=1, keepdims=True)
    np.testing.assert_allclose(index.reconstruct(9), query[9], rtol=1e-5)
    scores, found = index.search(query, 5)
    assert (found[:, 0] == np.arange(497)).mean() > (0.999 if kind == "flat" else 0.98)
    np.testing.assert_allclose(scores[found[:, 0] == np.arange(497), 0], 1, rtol=1e-5)
    cosines = query @ query.T
    best = np.argsort(-cosines, 1)[:, :5]
    recall = np.mean([len(set(f) & set(b)) / 5 for f, b in zip(found, best, strict=True)])
    assert recall == 1 if kind == "flat" else recall > 0.5


@pytest.mark.parametrize("kind", INDEXES)
def test_a_tiny_index(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    faiss = pytest.importorskip("faiss")
    write_vectors(vectors(n=2, missing=()), tmp_path / "v.faiss", kind)
    assert faiss.read_index(str(tmp_path / "v.faiss")).ntotal == 2
    assert "WARNING" not in capfd.readouterr().err
    with pytest.raises(UserError, match="no item has a vector"):
        write_vectors(vectors(n=2, missing=(0, 1)), tmp_path / "w.faiss", kind)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.faiss", "v.ids.parquet"]


@pytest.mark.parametrize("suffix", VECTOR_FORMS)
def test_nothing_is_left_of_what_fails(suffix: str, tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield np.ones((2, 3), np.float32), np.ones(2, bool)
        raise OSError("the disk is full")

    path = tmp_path / f"v{suffix}"
    path.write_bytes(b"as it was")
    with pytest.raises(OSError, match="disk is full"):
        write_vectors(Vectors(["a", "b", "c"], 3, failing()), path)
    assert path.read_bytes() == b"as it was" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr("rawrec.data.vectors.create", lambda path: Path("/dev/full").open("wb"))  # noqa: SIM115
    many = vectors(n=20_000, width=8, piece=4096, missing=())
    with pytest.raises(OSError, match="No space left"):
        write_vectors(many, tmp_path / "v.faiss")
    assert list(tmp_path.iterdir()) == []


def test_forms_are_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in VECTOR_FORMS:
        check_form(Path(f"v{suffix}"), None)
    check_form(Path("v.faiss"), "hnsw")
    with pytest.raises(UserError, match=r"index='hnsw': v.npy is no Faiss index"):
        check_form(Path("v.npy"), "hnsw")
    with pytest.raises(UserError, match=r"index='lsh' is unknown. Known: flat, hnsw, ivf"):
        check_form(Path("v.faiss"), "lsh")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'rawrec\[faiss\]'"):
        check_form(Path("v.faiss"), None)
    check_form(Path("v.npy"), None)
