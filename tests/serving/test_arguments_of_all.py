"""Every public function names an argument that is of the wrong kind, in one short message, before it does anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_recommender import TINY

import rawrec
from rawrec import Dataset, Recommender, UserError
from rawrec.report import build_report
from rawrec.serving.encoding import encode
from rawrec.sources.movielens import import_movielens
from rawrec.sources.synthetic import import_synthetic

LONG = "x" * 10**6


@pytest.fixture(scope="module")
def served(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    settings = {key: value for key, value in TINY.items() if "image" not in key}
    settings |= {"paradigm": "frozen", "content.image.use": False}
    return Recommender.load(rawrec.train("em3", shop, tmp_path_factory.mktemp("run") / "em3", settings).path)


def refused(function: Callable[..., Any], name: str, value: Any, **more: Any) -> None:
    with pytest.raises(UserError) as caught:
        function(**{name: value}, **more)
    said = str(caught.value)
    assert len(said) < 600 and LONG[:200] not in said, said[:300]
    if len(repr(value)) < 100:
        assert name.removesuffix("s") in said or repr(value) in said or str(value) in said, said


def test_paths_and_flags(shop: Path, tmp_path: Path) -> None:
    out: dict[str, Any] = {"out": tmp_path / "x"}
    for function, more in (
        (rawrec.train, {"preset": "id", "data": shop, **out}),
        (rawrec.finetune, {"data": shop, "encoder": "pair:a+b", **out}),
        (import_synthetic, out),
        (import_movielens, {"folder": shop, **out}),
        (rawrec.import_table, {"interactions": "a.csv", "user": "u", "item": "i", **out}),
        (rawrec.study_em3, {"data": shop, **out}),
        (rawrec.study_lemur, {"data": shop, **out}),
        (rawrec.study_lmm, {"data": shop, **out}),
    ):
        for value in (7, b"bytes", "", "a\0b", None):
            refused(function, "out", value, **{key: given for key, given in more.items() if key != "out"})
        refused(function, "overwrite", "yes", **more)
    for value in (7, b"x", ["a"], None):
        refused(rawrec.train, "data", value, preset="id", **out)
        refused(rawrec.resume, "path", value)
        refused(rawrec.finish, "path", value)
        refused(rawrec.evaluate, "path", value)
        refused(Recommender.load, "run", value)
        refused(build_report, "run", value)
        refused(encode, "data", value)
        refused(Dataset.open, "path", value)
    assert not list(tmp_path.iterdir())


def test_numbers_and_names(shop: Path, tmp_path: Path) -> None:
    made: dict[str, Any] = {"preset": "id", "data": shop, "out": tmp_path / "x"}
    for value in ([("train.epochs", 1)], "train.epochs=1", {1: 2}, 7):
        refused(rawrec.train, "overrides", value, **made)
    for value in (7, None, ["id"], b"id"):
        refused(rawrec.train, "preset", value, data=shop, out=tmp_path / "x")
    refused(rawrec.train, "observer", "bars", **made)
    for seed in (-1, 2**64, "1", 1.0, True, None):
        refused(import_synthetic, "seed", seed, out=tmp_path / "x")
    for count in (2**70, "10", 2.5, None):
        refused(import_synthetic, "items", count, out=tmp_path / "x")
    for jobs in (0, -1, "2", 2.0, 2**70):
        refused(rawrec.sweep, "jobs", jobs, settings={"model": "id"})
        refused(rawrec.study_em3, "jobs", jobs, data=shop, out=tmp_path / "x")
    for level in (0, 1, "x", float("nan"), None):
        refused(rawrec.compare, "level", level, runs=[])
    for bootstrap in (0, 2.0, "10", 2**70):
        refused(rawrec.compare, "bootstrap", bootstrap, runs=[])
    refused(rawrec.compare, "runs", "runs/a")
    refused(rawrec.compare, "metrics", "auc", runs=[])
    refused(rawrec.evaluate, "split", 7, path="runs/a")
    refused(Dataset.open, "version", "2", path=shop)
    refused(Dataset.open(shop).add_split, "name", 7, spec=None)
    assert not list(tmp_path.iterdir())


def test_what_is_asked_of_a_recommender(served: Recommender, tmp_path: Path) -> None:
    for k in ("3", None, 2.0, 0, -1, 2**70, True, float("nan")):
        for ask, more in (
            (served.recommend, {"user": "u1"}), (served.similar, {"item": "p0001"}),
            (served.recommend_all, {"out": tmp_path / "lists.csv"}),
        ):  # fmt: skip
            refused(ask, "k", k, **more)
    for size in (0, -1, "64", None, 2.5, 2**70):
        refused(served.recommend_all, "user_batch", size, out=tmp_path / "lists.csv")
    for user in (b"u1", 2.0, True, ["u1"], LONG):
        refused(served.recommend, "user", user)
        refused(served.score, "user", user, items=["p0001"])
    for history in ("p0001", b"p0001", [b"p0001"], [None], [2.5], 7, [LONG]):
        refused(served.recommend, "history", history)
    for items in ("p0001", b"x", 7, [b"p0001"], [None], [2.5], [LONG]):
        refused(served.score, "items", items, user="u1")
        refused(served.embed, "items", items)
    for item in (b"p0001", None, 2.5, ["p0001"], LONG):
        refused(served.similar, "item", item)
    for label in (b"x", 7, LONG, np.array([1, 2])):
        refused(served.recommend, "label", label, user="u1")
    refused(served.recommend, "context", "phone", user="u1")
    for seen in ("all", "", 0, 1, [], np.array([1, 2])):
        refused(served.recommend, "exclude_seen", seen, user="u1")
    for share in (10**400, -1, 1.5, float("nan"), "0.5", True, np.array([0.5, 0.5])):
        refused(served.recommend, "diversity", share, user="u1")
        refused(served.recommend_all, "diversity", share, out=tmp_path / "lists.csv")
    for name in ("items", "exclude"):
        with pytest.raises(UserError, match=f"{name}: .*'nobody' is not in"):
            served.recommend("u1", **{name: {"nobody"}})
    for by in (7, [], np.array([1, 2])):
        refused(served.similar, "by", by, item="p0001")
    refused(served.recommend_all, "out", 7)
    refused(served.export_vectors, "out", b"x")
    refused(served.export_vectors, "index", 7, out=tmp_path / "v.parquet")
    for value in (b"new", 2.5, LONG and None, ["a"]):
        refused(served.add_items, "items", [{"item_id": value, "title": "a"}])
    assert not list(tmp_path.iterdir())


def test_public_functions_are_checked() -> None:
    """Those of the package's own names; registering has checks of its own."""
    functions = [getattr(rawrec, name) for name in rawrec.__all__ if inspect.isfunction(getattr(rawrec, name))]
    for function in functions:
        if not function.__name__.startswith("register_"):
            assert function.__code__.co_filename.endswith("arguments.py"), function.__name__
