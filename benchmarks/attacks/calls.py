"""Misuse of the public functions: whatever is given, a message that names it or an answer, and nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from attacks.engine import Fault, Place, message


class Hostile:
    """An object whose methods raise."""

    def __repr__(self) -> str:
        raise RuntimeError("hostile")

    def __len__(self) -> int:
        raise RuntimeError("hostile")

    def __iter__(self) -> Any:
        raise RuntimeError("hostile")


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3.5, -0.0, float("nan"), float("inf"), 2**31, 2**63, 2**64, 2**70,
    10**4000, -(2**70), "", " ", "x", "u1", "p0001", "a\0b", "\x1b[2J", "\ud800", "x" * 10**6, "../../x", "1",
    "nan", "[1]", b"", b"u1", bytearray(b"x"), [], [None], [1], ["u1"], ["p0001"], ["p0001"] * 1000, ["x"],
    [b"x"], [[]], [[["x"]]], (), ("a", "b"), {}, {"a": 1}, {1: 2}, {None: None}, set(), {"u1"}, object(),
    Hostile(), int, print, lambda: 1, range(3), iter([1]), np.int64(3), np.float32(2), np.array([1, 2]),
    np.array("x"), np.array(None), np.nan, complex(1, 2), Ellipsis, Path("x"), Path(), Path("/nonexistent/x"),
    Path("/dev/null"), {"title": "a"}, [{"title": "a"}], [{"item_id": None}], {"image": b"x"}, {"image": "x"},
]  # fmt: skip
SETTINGS = [
    "train.epochs", "train.lr", "seed", "model.dim", "model.hidden", "train.device", "train.threads",
    "eval.topk", "train.metric", "data.history", "data.split", "content.image.encoder", "content.dim",
    "bank.micro_batch", "train.precision", "paradigm", "train.init", "nothing.there", "", "a.b.c", "content",
    "train", "model.name", "content.fusion.kind", "train.optimizer", "eval.bootstrap", "data.negatives",
    "train.batch_size",
]  # fmt: skip


@cache
def _loaded(path: Path) -> Any:
    import rawrec

    return rawrec.Recommender.load(path)


@cache
def _opened(path: Path) -> Any:
    from rawrec.data.dataset import Dataset

    return Dataset.open(path)


def functions(place: Place) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """What is called, and arguments that are right; those that are not there are put in by chance."""
    import rawrec
    from rawrec.report import build_report
    from rawrec.serving.encoding import encode
    from rawrec.sources.synthetic import import_synthetic

    origin, here = place.origin.path, place.here
    served, data = _loaded(origin / "em3-done"), _opened(origin / "shop")
    rows = [0, 1]
    return {
        "recommend": (
            served.recommend,
            {
                "user": "u1",
                "k": 3,
                "label": None,
                "exclude_seen": None,
                "items": ["p0001"],
                "exclude": ["p0002"],
                "diversity": 0.1,
                "unknown": "skip",
                "where": None,
                "max_per": None,
                "users": None,
                "history": None,
                "context": None,
                "explain": False,
            },
        ),
        "score": (
            served.score,
            {"user": "u1", "items": ["p0001"], "history": None, "context": None, "label": None, "unknown": "refuse"},
        ),
        "similar": (served.similar, {"item": "p0001", "k": 3, "by": None}),
        "embed": (served.embed, {"items": ["p0001"]}),
        "explain": (served.explain, {"user": "u1", "items": ["p0001"], "history": None}),
        "search": (served.search, {"query": "red", "user": "u1", "k": 3, "by": "score", "candidates": None}),
        "recommend_all": (
            served.recommend_all,
            {"out": here / "l.csv", "k": 2, "user_batch": 8, "users": ["u1"], "diversity": 0.0},
        ),
        "export_vectors": (served.export_vectors, {"out": here / "v.parquet", "index": None}),
        "export_features": (served.export_features, {"out": here / "f.npy", "field": "title", "index": None}),
        "save": (served.save, {"out": here / "kept"}),
        "restore": (served.restore, {"kept": here / "x"}),
        "load": (
            rawrec.Recommender.load,
            {"run": origin / "id-done", "data": None, "device": None, "newest": False, "added": None},
        ),
        "open": (rawrec.Dataset.open, {"path": origin / "shop", "version": None, "sums": True}),
        "images": (data.images, {"field": "image", "rows": rows}),
        "texts": (data.texts, {"field": "title", "rows": rows}),
        "split": (data.split, {"name": "default"}),
        "label": (data.label, {"name": "label"}),
        "numeric": (data.numeric, {"field": "price"}),
        "categorical": (data.categorical, {"field": "category"}),
        "item_rows": (data.item_rows, {"ids": ["p0001"]}),
        "column": (data.column, {"name": "user"}),
        "compare": (
            rawrec.compare,
            {
                "runs": [origin / "id-done", origin / "em3-done"],
                "baseline": None,
                "metrics": None,
                "level": 0.9,
                "bootstrap": 20,
            },
        ),
        "evaluate": (
            rawrec.evaluate,
            {"path": origin / "id-done", "split": "valid", "full_ranking": None, "data": None},
        ),
        "plan": (rawrec.plan, {"preset": "em3", "data": origin / "shop", "overrides": {}}),
        "settings": (rawrec.plan, {"preset": "em3", "data": origin / "shop", "overrides": _settings(place)}),
        "train": (
            rawrec.train,
            {"preset": "nothing", "data": origin / "shop", "out": here / "run", "overrides": {}, "overwrite": False},
        ),
        "resume": (rawrec.resume, {"path": origin / "id-done", "data": None, "overrides": None}),
        "list_runs": (rawrec.list_runs, {"folder": origin, "metric": None, "by": "valid"}),
        "import_synthetic": (
            import_synthetic,
            {
                "out": here / "shop",
                "items": 10,
                "users": 5,
                "impressions": 40,
                "seed": 0,
                "size": 32,
                "click_rate": 0.2,
                "overwrite": False,
                "progress": False,
            },
        ),
        "import_table": (
            rawrec.import_table,
            {
                "interactions": here / "x.csv",
                "user": "u",
                "item": "i",
                "out": here / "t",
                "time": None,
                "labels": [],
                "progress": False,
            },
        ),
        "append": (rawrec.append, {"path": here / "none", "interactions": None, "user": "u", "item": "i"}),
        "encode": (
            encode,
            {"data": origin / "shop", "encoder": "nothing", "field": "title", "out": here / "e.npy", "overrides": None},
        ),
        "report": (build_report, {"run": here / "none", "against": None, "out": here / "p.html"}),
        "sweep": (rawrec.sweep, {"settings": {"model": "id"}, "jobs": 1}),
    }


def _settings(place: Place) -> dict[str, Any]:
    return {place.rng.choice(SETTINGS): place.rng.choice(VALUES) for _ in range(place.rng.choice([1, 1, 2]))}


def misuse(place: Place) -> None:
    """One or two arguments of a call are others."""
    rng = place.rng
    made = functions(place)
    for _ in range(5):
        name = rng.choice([*sorted(made), "settings", "settings", "recommend"])
        function, right = (
            made[name] if name != "settings" else (made[name][0], made[name][1] | {"overrides": _settings(place)})
        )
        given = dict(right)
        if name != "settings":
            for key in rng.sample(sorted(right), min(len(right), rng.choice([1, 1, 2]))):
                given[key] = rng.choice(VALUES)
        if (
            any(given.get(key) is None for key in ("user",))
            and name == "recommend"
            and given.get("users") is None
            and given.get("history") is None
        ):
            given["history"] = []
        if (
            isinstance(given.get("out"), (str, Path, os.PathLike))
            and "out" in given
            and given["out"] != right.get("out")
        ):
            os.chdir(place.here)  # "x", "../../x"
            if str(given["out"]).startswith(("..", "/")):
                continue
        os.chdir(place.here)
        try:
            message(lambda function=function, given=given: function(**given), OSError)
        except Fault as fault:
            if "RuntimeError: hostile" in str(fault):  # its own words
                continue
            different = {key: repr_of(value) for key, value in given.items() if value is not right.get(key)}
            raise Fault(f"{name}({different}): {fault}") from None


def repr_of(value: Any) -> str:
    try:
        return repr(value)[:100]
    except Exception:
        return type(value).__name__
