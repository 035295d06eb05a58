"""Two or three commands on one folder at once: each comes to its end or is told who is there, and nothing is mixed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attacks.engine import Ended, Fault, Place, begin, child, done, left, sound, wait
from attacks.killed import COMMANDS, _import
from attacks.origin import RUNS, digest, outcome


def at_once(place: Place, *works: Callable[[], Any], codes: tuple[int, ...] = (0, 1, 2)) -> list[Ended]:
    """The works in processes that begin within some hundredths of a second of each other."""
    read, write = os.pipe()

    def begun(work: Callable[[], Any], pause: float) -> Callable[[], Any]:
        def going() -> None:
            os.close(write)
            os.read(read, 1)
            time.sleep(pause)
            work()

        return going

    streams = [place.outside.parent / f"together-{number}" for number in range(len(works))]
    pauses = [place.rng.choice([0.0, 0.0, place.rng.uniform(0, 0.3)]) for _ in works]
    processes = [begin(begun(work, pause), file) for work, pause, file in zip(works, pauses, streams, strict=True)]
    os.close(write)
    os.close(read)
    ended = [
        Ended(wait(one, 50), *(Path(f"{file}.{end}").read_text() for end in ("out", "err")))
        for one, file in zip(processes, streams, strict=True)
    ]
    for one in ended:
        sound(one, codes)
    return ended


def trainings(place: Place) -> None:
    """One run folder: train, resume, overwrite."""
    import rawrec

    rng, path = place.rng, place.here / "run"
    name = rng.choice(["id", "lightgcn", "em3"])
    preset, settings = RUNS[name]
    shop, known = place.origin.path / "shop", place.origin.known[name]
    if rng.random() < 0.7:
        place.copy(f"{name}-{rng.choice(['stopped', 'done'])}", "run")
    works = {
        "train": lambda: rawrec.train(preset, shop, path, settings),
        "overwrite": lambda: rawrec.train(preset, shop, path, settings, overwrite=True),
        "resume": lambda: rawrec.resume(path),
        "evaluate": lambda: rawrec.evaluate(path, "valid"),
        "recommend": lambda: rawrec.Recommender.load(path).recommend(history=[], k=2),
    }
    chosen = [rng.choice(sorted(works)) for _ in range(rng.choice([2, 2, 3]))]
    at_once(place, *(works[one] for one in chosen))

    def check() -> None:
        rawrec.resume(path) if (path / "run.json").is_file() else works["train"]()
        found = outcome(path)
        if different := [key for key in known if key != "files" and found[key] != known[key]]:
            raise Fault(f"after {chosen} the run has other {', '.join(different)}")
        if left(place.here):
            raise Fault(f"after {chosen} left: {left(place.here)}")

    done(child(place, check))


def datasets(place: Place) -> None:
    """One dataset: imports, appends, splits, readers, a training."""
    import rawrec

    rng, path = place.rng, place.here / "data"
    chosen = [rng.choice([*sorted(COMMANDS), "read", "train"]) for _ in range(rng.choice([2, 2, 3]))]
    if any(one != "import" for one in chosen):
        done(child(place, lambda: _import(path, 0)))
    quick: dict[str, Any] = {"train.epochs": 1, "train.threads": 1, "train.device": "cpu", "eval.topk": [5]}

    def work(number: int, name: str) -> Callable[[], Any]:
        if name == "read":
            return lambda: digest(path)
        if name == "train":
            return lambda: rawrec.train("id", path, place.here / f"run{number}", quick)
        return lambda: COMMANDS[name].work(path)

    at_once(place, *(work(number, name) for number, name in enumerate(chosen)))

    def check() -> None:
        from rawrec.data.validate import validate

        if not path.exists():
            _import(path, 1)
        digest(path)
        if not validate(path, progress=False).sound:
            raise Fault(f"after {chosen} the dataset is not sound")
        for number, name in enumerate(chosen):
            if name == "train" and (place.here / f"run{number}").exists() and "overwrite" not in chosen:
                rawrec.resume(place.here / f"run{number}")
        if left(place.here):
            raise Fault(f"after {chosen} left: {left(place.here)}")

    done(child(place, check))


def exports(place: Place) -> None:
    """One file that several write, each whole: the last one's counts."""
    import rawrec

    rng, out = place.rng, place.here / "out"
    out.mkdir()
    runs = [place.origin.path / name for name in ("em3-done", "id-done", "lightgcn-done")]
    name, end = rng.choice([("lists", "csv"), ("lists", "parquet"), ("vectors", "parquet")])

    def work(run: Path, file: Path) -> Callable[[], Any]:
        if name == "lists":
            return lambda: rawrec.Recommender.load(run).recommend_all(file, k=3)
        return lambda: rawrec.Recommender.load(run).export_vectors(file)

    known = place.origin.path.parent / f"together-{name}-{end}"
    for run in runs:
        if not (known / run.name).is_file():
            known.mkdir(exist_ok=True)
            file = place.here / f"first.{end}"
            done(child(place, work(run, file)))
            shutil.move(file, known / run.name)
    for one in at_once(place, *(work(rng.choice(runs), out / f"x.{end}") for _ in range(3))):
        done(one)
    if [one.name for one in out.iterdir()] != [f"x.{end}"]:
        raise Fault(f"left: {sorted(one.name for one in out.iterdir())}")
    if (out / f"x.{end}").read_bytes() not in [(known / run.name).read_bytes() for run in runs]:
        raise Fault("the file is none of those that were written")
