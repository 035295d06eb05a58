"""Run folders and datasets of strangers: texts, values, tensors, tables, files that are none, links."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from attacks.engine import Fault, Place, left, message

TEXTS = [
    "",
    "null",
    "[1]",
    "x",
    "3",
    "{",
    "\xff\xfe",
    '{"seed": 1e999}',
    "NaN",
    "a: b: c",
    "\0",
    "- &a x\n- *a",
    "!!python/object:os.system x",
]
TEXTS += [
    "[" * 50_000,
    '{"a":' * 50_000,
    '"' * 9999,
    "---\n---\n",
    "%YAML 9.9\n",
    "\ufeff{}",
    "{}\n" * 9999,
    "1" * 5000,
]
LINKS = ["/dev/zero", "/dev/stdin", "x", "/etc/passwd", "."]


def values() -> list[Any]:
    from test_strange_runs import VALUES

    many = [
        "../../x",
        "/etc/passwd",
        "x" * 100_000,
        float("nan"),
        2**63,
        -(2**63),
        0,
        False,
        "1",
        [1] * 5000,
        "a\0b",
        "\ud800",
    ]
    return [*VALUES, *many, KeyError]


# ---------------------------------------------------------------------------------------------------------------- runs
def runs(place: Place) -> None:
    """A run of somebody, finished or stopped, of which one or two files are strange."""
    from rawrec.training.runs import RunFolder

    rng = place.rng
    name = rng.choice(["id-done"] * 4 + ["id-stopped"] * 2 + ["em3-done", "lightgcn-done", "live-stopped"])
    run = place.copy(name, "run")
    shutil.copytree(place.origin.path / "id-done", place.here / "other")
    if rng.random() < 0.8:
        RunFolder(run).write_info(files={})  # as if somebody had made the sums, too
    for _ in range(rng.choice([1, 1, 1, 2])):
        files = sorted(
            path
            for path in run.rglob("*")
            if path.is_file() and not path.is_symlink() and "tensorboard" not in path.parts
        )
        change(place, rng.choice(files))
    for use in rng.sample(uses(place, run), 2):
        message(use)
    if left(place.here):
        raise Fault(f"left: {left(place.here)}")


def uses(place: Place, run: Path) -> list[Callable[[], Any]]:
    from test_strange_runs import reported

    import rawrec
    from rawrec.report import build_report

    data, here = place.origin.path / "shop", place.here
    made: dict[str, Any] = {"train.epochs": 1, "train.threads": 1, "train.init": str(run)}
    return [
        lambda: rawrec.Recommender.load(run, data).recommend(user="u1", k=2),
        lambda: rawrec.Recommender.load(run).recommend(history=[], k=2),
        lambda: rawrec.Recommender.load(run).similar(item="p0001", k=2),
        lambda: rawrec.Recommender.load(run).export_vectors(here / "vectors.parquet"),
        lambda: rawrec.Recommender.load(run).recommend_all(here / "lists.csv", k=2),
        lambda: reported(run),
        lambda: reported(run),
        lambda: build_report(run, out=here / "report.html"),
        lambda: rawrec.compare([run, here / "other"]),
        lambda: rawrec.resume(run, data=data),
        lambda: rawrec.resume(run),
        lambda: rawrec.finish(run),
        lambda: rawrec.evaluate(run, "valid"),
        lambda: rawrec.list_runs(here),
        lambda: rawrec.train("id", data, here / "new", made),
    ]


def change(place: Place, path: Path) -> None:
    """Make a file strange, in a way that is drawn."""
    rng, text = place.rng, path.suffix in (".yaml", ".json", ".jsonl")
    ways: list[Callable[[Place, Path], None]] = [none, mutated, swapped]
    if text:
        ways += [texts, texts, cells, cells, cells, cells]
    elif path.suffix == ".safetensors":
        ways += [tensors, tensors, tensors, heads, heads]
    elif path.suffix == ".parquet":
        ways += [tables, tables, tables]
    try:
        rng.choice(ways)(place, path)
    except Exception:  # it was strange already
        return


def none(place: Place, path: Path) -> None:
    """In the place of the file there is none: a pipe, a folder, a socket, a link."""
    rng = place.rng
    path.unlink()
    links = [lambda target=target: path.symlink_to(target) for target in [*LINKS, place.outside / "run.json"]]
    rng.choice([lambda: os.mkfifo(path), path.mkdir, lambda: bound(path), lambda: sparse(path), lambda: None, *links])()


def bound(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name[:90])
    os.chdir(before)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def mutated(place: Place, path: Path) -> None:
    """Bytes changed, cut, sizes."""
    import mutations

    way = place.rng.choice([mutations.flips, mutations.cut, mutations.sizes])
    path.write_bytes(way(path.read_bytes(), place.rng))


def swapped(place: Place, path: Path) -> None:
    """What another file of the folder holds."""
    others = [one for one in path.parent.iterdir() if one.is_file() and one != path]
    if others:
        shutil.copyfile(place.rng.choice(sorted(others)), path)


def texts(place: Place, path: Path) -> None:
    from test_strange_runs import BOMB

    path.write_text(
        place.rng.choice([*TEXTS, BOMB]), encoding="utf-8" if place.rng.random() < 0.5 else "latin-1", errors="replace"
    )


def cells(place: Place, path: Path) -> None:
    """Values in the place of others, or gone."""
    import yaml
    from test_strange_runs import places, put, read

    rng, text, name = place.rng, path.read_text(), path.name
    if path.suffix == ".yaml" and "*a" in text:  # a bomb already, which takes hours and a memory to be looked at
        return
    if path.suffix == ".yaml":
        name = "config.yaml"
    value = read(text, name)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        found = places(value)
        if found:
            put(value, rng.choice(found), rng.choice(values()))
    made = yaml.safe_dump(value) if path.suffix == ".yaml" else json.dumps(value)
    rest = text.splitlines()[1:] if path.suffix == ".jsonl" else []
    path.write_bytes("\n".join([made, *rest]).encode("utf-8", "surrogatepass"))


def tensors(place: Place, path: Path) -> None:
    """Tensors of other shapes, kinds and values, more of them or fewer."""
    import torch
    from safetensors import safe_open

    from rawrec.files import write_tensors

    rng = place.rng
    with safe_open(path, "pt") as file:
        found, about = {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata()  # noqa: SIM118
    if not found:
        return
    for _ in range(rng.choice([1, 1, 2])):
        name = rng.choice(sorted(found))
        one = found[name]
        ways: list[Callable[[], Any]] = [
            lambda one=one: one[:1], lambda one=one: one.reshape(-1), lambda one=one: one[None],
            lambda one=one: one.long(), lambda one=one: one.double(), lambda one=one: one.bool(),
            lambda one=one: one.float() * torch.nan, lambda one=one: one.float() * torch.inf,
            lambda one=one: one.float() * 1e38, lambda: torch.zeros(0), lambda: torch.tensor(1.0),
            lambda one=one: torch.zeros([*one.shape, 0]), lambda one=one: -one.to(torch.int64) - 7,
        ]  # fmt: skip
        new = rng.choice(["change", "change", "change", "drop", "more", "swap"])
        if new == "change":
            found[name] = rng.choice(ways)()
        elif new == "drop":
            del found[name]
        elif new == "more":
            found[rng.choice(["more", "x" * 5000, "", "\x1b[2J", "bank.content"])] = torch.ones(2)
        else:
            found[name] = found[rng.choice(sorted(found))]
        if not found:
            break
    write_tensors(found, path, about or None)


def heads(place: Place, path: Path) -> None:
    """The head of a safetensors file, and the state within it."""
    from test_strange_runs import places, put

    rng, whole = place.rng, path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    head, rest = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    about = head.get("__metadata__") or {}
    if about and rng.random() < 0.7:
        key = rng.choice(sorted(about))
        with suppress(ValueError):
            inner = json.loads(about[key])
            if found := places(inner):
                put(inner, rng.choice(found), rng.choice(values()))
            about[key] = json.dumps(inner)
        if rng.random() < 0.2:
            about[key] = rng.choice(TEXTS)
    else:
        found = places(head)
        put(head, rng.choice(found), rng.choice(values()))
    text = rng.choice([json.dumps(head)] * 9 + TEXTS).encode("utf-8", "surrogatepass")
    length = rng.choice([len(text)] * 12 + [1 << 60, 0, len(text) + 9, 2**64 - 1])
    path.write_bytes(length.to_bytes(8, "little") + text + rest)


def tables(place: Place, path: Path) -> None:
    """Columns of other types and values, gone, or more of them."""
    import polars as pl

    rng = place.rng
    frame = pl.read_parquet(path, glob=False)
    name = rng.choice(frame.columns)
    ways: list[Callable[[], pl.DataFrame]] = [
        lambda: frame.drop(name),
        lambda: frame.with_columns(pl.lit("x").alias(name)),
        lambda: frame.with_columns(pl.lit(None).alias(name)),
        lambda: frame.with_columns(pl.lit(None, pl.Int32).alias(name)),
        lambda: frame.with_columns(pl.lit(-1, pl.Int32).alias(name)),
        lambda: frame.with_columns(pl.lit(10**6, pl.Int32).alias(name)),
        lambda: frame.with_columns(pl.lit(float("nan"), pl.Float32).alias(name)),
        lambda: frame.with_columns(pl.lit(float("inf")).alias(name)),
        lambda: frame.with_columns(pl.lit(2**62).alias(name)),
        lambda: frame.with_columns(pl.lit("x").alias("\x1b[2J\\input{x}")),
        lambda: frame.with_columns(pl.lit([1, 2], pl.List(pl.Int64)).alias(name)),
        lambda: frame.rename({name: name + "2"}),
        lambda: frame.head(0), lambda: frame.head(1), lambda: pl.concat([frame, frame]),
        lambda: frame.sample(fraction=1.0, shuffle=True, seed=1), lambda: pl.DataFrame(),
        lambda: frame.select(sorted(frame.columns, reverse=True)),
    ]  # fmt: skip
    rng.choice(ways)().write_parquet(path)


# ------------------------------------------------------------------------------------------------------------ datasets
def datasets(place: Place) -> None:
    """A dataset of somebody, of which one or two files are strange."""
    from systems import unsealed

    rng = place.rng
    data = place.copy("shop")
    shutil.rmtree(data / "cache", ignore_errors=True)
    files = sorted(path for path in data.rglob("*") if path.is_file() and "items.lance" not in path.parts)
    lance = sorted((data / "items.lance").rglob("*"))
    for _ in range(rng.choice([1, 1, 1, 2])):
        path = rng.choice([*files, *[data / "dataset.yaml"] * len(files), *(one for one in lance if one.is_file())])
        if not path.is_file() or path.is_symlink():
            continue
        if path.name == "dataset.yaml" and rng.random() < 0.5:
            with suppress(OSError, ValueError, MemoryError):
                path.write_text(unsealed(path))
        change(place, path)
    for use in rng.sample(uses_of_data(place, data), 2):
        message(use)
    if left(place.here):
        raise Fault(f"left: {left(place.here)}")


def uses_of_data(place: Place, data: Path) -> list[Callable[[], Any]]:
    from test_damage import content
    from test_strange_runs import opened

    import rawrec
    from rawrec.data.dataset import Dataset
    from rawrec.data.inspect import inspect
    from rawrec.data.splits import SplitSpec
    from rawrec.data.validate import validate
    from rawrec.serving.encoding import encode

    quick: dict[str, Any] = {"train.epochs": 1, "train.threads": 1, "train.device": "cpu"}
    rows = {"user_id": ["u1", "u2"], "item_id": ["p0001", "p0002"], "timestamp": [10**9, 10**9], "label": [1, 0]}
    more = pa.table(rows | {"probability": [0.5, 0.5]})
    return [
        lambda: opened(data), lambda: opened(data), lambda: opened(data),
        lambda: content(data), lambda: content(data),
        lambda: inspect(data),
        lambda: validate(data, progress=False),
        lambda: rawrec.train("id", data, place.here / "new", quick),
        lambda: rawrec.plan("em3", data),
        lambda: rawrec.Recommender.load(place.copy("id-done"), data).recommend(user="u1", k=2),
        lambda: Dataset.open(data).add_split("more", SplitSpec()),
        lambda: encode(data, "random:bert", field="title", out=place.here / "f.npy"),
        lambda: rawrec.append(data, more, time="timestamp", labels=["label"], extra=["probability"]),
        lambda: Dataset.open(data, version=1).split(),
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- links
def links(place: Place) -> None:
    """Links in the place of files and folders of a run and a dataset, and of all that one could foresee; nothing of the
    user behind them is touched."""
    from test_canary import PREDICTABLE, RUN_FILES, link, work

    rng = place.rng
    data = place.copy("shop", "data")
    done, stopped = place.copy("id-done", "done"), place.copy("live-stopped", "stopped")
    runs = (done, stopped)
    named = [run / form.format(name) for run in runs for name in RUN_FILES for form in PREDICTABLE]
    named += [run / name for run in runs for name in RUN_FILES] + [stopped / "checkpoint" / "last.safetensors"]
    named += [data / name for name in ("dataset.yaml", "interactions.parquet", "items.lance", "import.json")]
    named += [
        place.here / f".{name}.{end}"
        for name in ("data", "done", "stopped", "new")
        for end in ("lock", "checked", "new", "replaced", "old")
    ]
    folders = [run / name for run in runs for name in ("checkpoint", "cache", "tensorboard")]
    folders += [data / name for name in ("cache", "splits", "items.lance", "items.lance/data", "items.lance/_versions")]
    for path in rng.sample([*named, *folders * 4], rng.choice([1, 2, 3, 6])):
        if not path.parent.is_dir() or path.parent.is_symlink():
            continue
        target = (
            place.outside if path in folders and rng.random() < 0.8 else rng.choice(sorted(place.outside.iterdir()))
        )
        if path not in folders and rng.random() < 0.2 and not path.exists():
            path.hardlink_to(target)
        else:
            link(path, target)
    for one in rng.sample(work(place.here), 2):
        message(one, OSError)


# ------------------------------------------------------------------------------------------------------------ encoders
def encoders(place: Place) -> None:
    """A folder of an encoder that somebody has made: shapes, values, sizes, settings of other types."""
    import rawrec
    from rawrec.serving.encoding import encode

    rng = place.rng
    words, data = place.copy("words"), place.copy("shop")
    for _ in range(rng.choice([1, 1, 2])):
        path = rng.choice([words / "config.json", words / "model.safetensors", *sorted(words.iterdir())])
        if path.is_file() and not path.is_symlink():
            change(place, path)
    if rng.random() < 0.8:
        found = message(lambda: encode(data, str(words), field="title", out=place.here / "f.npy"))
    else:
        settings = {
            "content.image.use": False,
            "content.text.encoder": str(words),
            "train.epochs": 1,
            "train.threads": 1,
        }
        found = message(lambda: rawrec.train("em3", data, place.here / "new", settings))
    if found is None and (place.here / "f.npy").is_file():
        import numpy as np

        if not np.isfinite(np.load(place.here / "f.npy", allow_pickle=False)).all():
            raise Fault("features that are no numbers were written")
