"""Damage: bits, blocks, ends of the files of a dataset, a run, a cache, a checkpoint. A message, or the same
numbers."""

from __future__ import annotations

import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from attacks.engine import Fault, Place, message
from attacks.origin import digest


def damage(place: Place, path: Path) -> str:
    """Change a file a little; how."""
    rng, whole = place.rng, bytearray(path.read_bytes())
    way = rng.choice(["bit"] * 5 + ["end", "zeros", "byte", "cut", "more", "blocks"]) if whole else "more"
    at = rng.choice([rng.randrange(len(whole) or 1), rng.randrange(min(len(whole), 64) or 1)])
    if way == "bit":
        whole[at] ^= 1 << rng.randrange(8)
    elif way == "end":
        whole[-1 - rng.randrange(min(64, len(whole)))] ^= 1 << rng.randrange(8)
    elif way == "zeros":
        whole[at : at + 512] = bytes(len(whole[at : at + 512]))
    elif way == "byte":
        whole[at] = rng.randrange(256)
    elif way == "cut":
        del whole[at:]
    elif way == "more":
        whole += bytes(rng.randrange(1, 600))
    else:  # two blocks have changed places
        other = rng.randrange(len(whole))
        one, two = bytes(whole[at : at + 64]), bytes(whole[other : other + 64])
        whole[at : at + len(two)], whole[other : other + len(one)] = two, one
    path.write_bytes(whole)
    return f"{way} at {at} of {path.name}"


def data(place: Place) -> None:
    path = place.copy("shop")
    shutil.rmtree(path / "cache", ignore_errors=True)
    files = [
        one
        for one in path.rglob("*")
        if one.is_file() and one.name != "import.json" and "_transactions" not in one.parts
    ]
    how = damage(place, place.rng.choice(sorted(files)))
    told: list[str] = []
    said = message(lambda: told.append(digest(path)))
    if said is None and told[0] != place.origin.known["shop"]:
        raise Fault(f"other data without a word: {how}")


def runs(place: Place) -> None:
    """What a finished run answers, and what is read of it."""
    name = place.rng.choice(["id", "em3", "live", "lightgcn"])
    run = place.copy(f"{name}-done", "run")
    names = (
        "config.yaml",
        "metrics.json",
        "metrics.jsonl",
        "model.safetensors",
        "scores.parquet",
        "topk.parquet",
        "run.json",
    )
    files = [run / one for one in names if (run / one).is_file()]
    wanted = _answers(place.origin.path / f"{name}-done")
    how = damage(place, place.rng.choice(files))
    if how.endswith("run.json"):
        import rawrec

        message(lambda: rawrec.Recommender.load(run).recommend("u1", k=5))
        return
    found: list[Any] = []
    if message(lambda: found.append(answers(run))) is None and found[0] != wanted:
        raise Fault(f"other answers without a word: {how}")


@cache
def _answers(run: Path) -> Any:
    return answers(run)


def answers(run: Path) -> Any:
    from rawrec import Recommender
    from rawrec.report.run import Run

    said = Run(run)
    lists = None if said.topk is None else said.topk.to_dict(as_series=False)
    scores = said.test.to_dict(as_series=False) if (run / "scores.parquet").exists() else None
    return repr(
        [Recommender.load(run).recommend("u1", k=5), said.metrics, said.epochs, scores, lists, said.config.dump()]
    )


def checkpoints(place: Place) -> None:
    from rawrec.training import state

    name = place.rng.choice(["id", "em3", "live", "lightgcn"])
    path = place.copy(f"{name}-stopped", "run") / "checkpoint" / "last.safetensors"
    whole = _state(place.origin.path / f"{name}-stopped" / "checkpoint" / "last.safetensors")
    how = damage(place, path)
    found: list[Any] = []
    if message(lambda: found.append(_said(state.load(path)))) is None and found[0] != whole:
        raise Fault(f"another state without a word: {how}")


@cache
def _state(path: Path) -> str:
    from rawrec.training import state

    return _said(state.load(path))


def _said(loaded: Any) -> str:
    tensors, about = loaded
    return repr([sorted((name, str(value.dtype), value.tolist()) for name, value in tensors.items()), about])


def caches(place: Place) -> None:
    """A damaged column is told and made anew."""
    files = _columns(place)
    cache_folder = place.here / "cache"
    shutil.copytree(place.origin.path.parent / "columns", cache_folder)
    columns = sorted(cache_folder.glob("*.safetensors"))
    how = damage(place, place.rng.choice(columns))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = _made(place, cache_folder)
    if found != files:
        raise Fault(f"other columns: {how}")
    said = [str(one.message) for one in told if "damaged" in str(one.message)]
    if (
        not said
        and sorted(one.read_bytes() for one in columns)
        != sorted(one.read_bytes() for one in (place.origin.path.parent / "columns").glob("*.safetensors"))
        and "more" not in how
    ):
        raise Fault(f"a damaged column was taken without a word: {how}")


_whole: list[str] = []


def _columns(place: Place) -> str:
    if not _whole:
        _whole.append(_made(place, place.origin.path.parent / "columns"))
    return _whole[0]


def _made(place: Place, folder: Path) -> str:
    from rawrec.content.building import build_item_model
    from rawrec.content.columns import static_columns
    from rawrec.content.units import content_units
    from rawrec.data.dataset import Dataset
    from systems import config

    opened, cfg = Dataset.open(place.origin.path / "shop"), config()
    model = build_item_model(cfg, opened.fields, content_units(cfg, opened.fields))
    made, _ = static_columns(model, opened, folder)
    return repr([(name, column.values.tolist(), column.ptr.tolist()) for name, column in sorted(made.items())])
