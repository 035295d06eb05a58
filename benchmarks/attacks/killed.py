"""Commands that are killed, at an exact operation on files or at a moment that is drawn, and typed again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from attacks.engine import Fault, Place, begin, child, done, left, wait
from attacks.origin import RUNS, digest, outcome

OPERATIONS = ("rename", "replace", "mkdir", "unlink", "rmdir", "open", "fsync", "ftruncate")
_lengths: dict[str, tuple[int, float]] = {}
"""Of a work: how many operations it makes, and how many seconds it takes."""


def killed(place: Place, name: str, work: Callable[[], Any]) -> bool:
    """Do the work in a process that is killed, half of the times before an operation, else at a moment; whether it
    was."""
    if name not in _lengths:
        count = place.here.parent / "count"
        started = time.monotonic()
        _counted(place, count, work, 10**9)
        _lengths[name] = int(count.read_text()), time.monotonic() - started
        return False
    operations, seconds = _lengths[name]
    if place.rng.random() < 0.5:
        return _counted(place, None, work, place.rng.randrange(operations + 1)) == 9
    process = begin(work, place.outside.parent / "killed")
    time.sleep(place.rng.uniform(0, seconds * 1.1))
    code = wait(process, 0)
    return code in (None, -signal.SIGKILL)


def _counted(place: Place, count: Path | None, work: Callable[[], Any], number: int) -> int | None:
    """The exit code of a process that is killed before its operation of that number. count: where it writes how many
    there were."""

    def counting() -> None:
        from kill_points import kill_before

        left = kill_before(number, OPERATIONS)
        work()
        if count is not None:
            count.write_text(str(number - left[0]))

    return wait(begin(counting, place.outside.parent / "killed"), 45)


# ---------------------------------------------------------------------------------------------------------------- data
@dataclass(frozen=True)
class Data:
    """A command that changes a dataset: does it there be one before it, and what it does."""

    there: bool
    work: Callable[[Path], Any]


def _import(path: Path, seed: int, overwrite: bool = False) -> None:
    from rawrec.sources.synthetic import import_synthetic

    import_synthetic(path, items=20, users=10, impressions=200, size=32, seed=seed, progress=False, overwrite=overwrite)


def _append(path: Path) -> None:
    import rawrec

    rows = {"user_id": ["u1", "new"], "item_id": ["p0001", "more"], "timestamp": [10**9, 10**9 + 1], "label": [1, 0]}
    items = pa.table({"item_id": ["more"], "title": ["a new one"]})
    more = pa.table(rows | {"probability": [0.5, 0.5]})
    rawrec.append(path, more, time="timestamp", labels=["label"], extra=["probability"], items=items, text=["title"])


def _update(path: Path) -> None:
    import rawrec

    items = pa.table({"item_id": ["p0001"], "title": ["another title"]})
    rawrec.append(path, items=items, text=["title"], update=True)


def _split(path: Path) -> None:
    from rawrec.data.dataset import Dataset
    from rawrec.data.splits import SplitSpec

    data = Dataset.open(path)
    if "more" not in data.meta.splits:
        data.add_split("more", SplitSpec(kind="random_user"))


COMMANDS = {
    "import": Data(False, lambda path: _import(path, 1)),
    "overwrite": Data(True, lambda path: _import(path, 1, overwrite=True)),
    "append": Data(True, _append),
    "update": Data(True, _update),
    "split": Data(True, _split),
}
_digests: dict[str, list[str]] = {}
"""Of a command: what the dataset says before and after it."""


def data(place: Place) -> None:
    """A dataset is the old one or the new one, and the same command makes the new one."""
    name = place.rng.choice(sorted(COMMANDS))
    kind, path = COMMANDS[name], place.here / "data"
    if name not in _digests:
        _digests[name] = _before_and_after(place, name)
    old, new = _digests[name]
    if kind.there:
        done(child(place, lambda: _import(path, 0)))
    killed(place, f"data {name}", lambda: kind.work(path))

    def check() -> None:
        from rawrec.data.disk import clean_lance
        from rawrec.errors import UserError
        from rawrec.files import alone, clean

        found = digest(path) if path.exists() else ""
        if found not in (old, new):
            raise Fault("neither the old dataset nor the new one is there")
        if found == old or name == "overwrite":
            kind.work(path)
        elif name == "import":
            with contextlib.suppress(UserError):
                kind.work(path)
        if digest(path) != new:
            raise Fault("the same command made another dataset")
        with alone(path, "held"):  # as whatever writes next
            clean(path.parent)
            clean_lance(path / "items.lance")
        ours = {"data", ".data.new"} if found == new else {"data"}  # the next append removes the other
        if names := sorted({one.name for one in place.here.iterdir()} - ours):
            raise Fault(f"left beside it: {names}")
        if names := sorted({*left(place.here)} - ours):
            raise Fault(f"left by {name}: {names}")

    done(child(place, check))


def _before_and_after(place: Place, name: str) -> list[str]:
    path, kind, found = place.here / "first", COMMANDS[name], place.here.parent / "digests"

    def work() -> None:
        said = [""]
        if kind.there:
            _import(path, 0)
            said = [digest(path)]
        kind.work(path)
        found.write_text(" ".join([*said, digest(path)]))

    done(child(place, work))
    shutil.rmtree(path)
    return found.read_text().split(" ")


# ---------------------------------------------------------------------------------------------------------------- runs
def runs(place: Place) -> None:
    """A training that is killed once or twice and resumed ends as one that was not."""
    rng, path = place.rng, place.here / "run"
    name = rng.choice(sorted(RUNS))
    preset, settings = RUNS[name]
    shop, known = place.origin.path / "shop", place.origin.known
    if rng.random() < 0.3:  # the other run that stands there is replaced
        place.copy(_other(name), "run")
    over = path.exists()
    started = f"training {name} {over}"

    def train() -> None:
        import rawrec

        rawrec.train(preset, shop, path, settings, overwrite=over)

    def resume() -> None:
        import rawrec

        rawrec.resume(path)

    killed(place, started, train)
    config = path / "config.yaml"
    other = (place.origin.path / _other(name) / "config.yaml").read_text()
    begun = config.is_file() and not (over and config.read_text() == other)  # else the other run still stands there
    if begun and rng.random() < 0.3:
        killed(place, f"resume {name}", resume)
        begun = config.is_file()

    def check() -> None:
        resume() if begun else train()
        found, wanted = outcome(path), known[name]
        if different := [key for key in wanted if key != "files" and found[key] != wanted[key]]:
            raise Fault(f"the resumed run has other {', '.join(different)}")
        if found["files"] != wanted["files"]:
            raise Fault(f"the resumed run has the files {found['files']}")
        from rawrec.training.runs import running

        with running(path):  # as whatever writes next
            pass
        if names := sorted(one.name for one in place.here.iterdir() if one.name != "run"):
            raise Fault(f"left beside it: {names}")
        if left(place.here):
            raise Fault(f"left: {left(place.here)}")

    done(child(place, check))


def _other(name: str) -> str:
    return f"{'id' if name != 'id' else 'em3'}-done"


# -------------------------------------------------------------------------------------------------------------- others
def others(place: Place) -> None:
    """Exports, lists, reports, what a recommender keeps: the old file is there or the new one, and nothing else."""
    rng, run, out = place.rng, place.origin.path / "em3-done", place.here / "out"
    out.mkdir()
    shop = place.copy("shop")

    def served(run: Path = run) -> Any:
        import rawrec

        return rawrec.Recommender.load(run)

    def page() -> None:
        from rawrec.report import build_report

        build_report(run, out=out / "page.html")

    def features() -> None:
        from rawrec.serving.encoding import encode

        encode(shop, "random:bert", field="title", out=out / "page.npy")

    name, work = rng.choice(sorted({
        "vectors": lambda: served().export_vectors(out / "page.parquet"),
        "users": lambda: served(place.origin.path / "lightgcn-done").export_user_vectors(out / "page.parquet"),
        "lists": lambda: served().recommend_all(out / "page.csv", k=3),
        "parquet": lambda: served().recommend_all(out / "page.parquet", k=3),
        "report": page, "features": features,
    }.items()))  # fmt: skip
    known = place.origin.path.parent / f"whole-{name}"
    if not known.is_dir():
        done(child(place, work))
        shutil.copytree(out, known)
    shutil.rmtree(out)
    shutil.copytree(known, out) if rng.random() < 0.5 else out.mkdir()
    for file in out.iterdir():
        file.write_text("old")
    killed(place, f"export {name}", work)
    for file in out.iterdir():
        if (
            not file.name.startswith(".")
            and file.read_bytes() not in (b"old", (known / file.name).read_bytes())
            and name != "report"
        ):
            raise Fault(f"{file.name} is half written")
    done(child(place, work))
    if sorted(one.name for one in out.iterdir()) != sorted(one.name for one in known.iterdir()):
        raise Fault(f"left: {sorted(one.name for one in out.iterdir())}")
    for file in known.iterdir():
        same = (out / file.name).read_bytes() == file.read_bytes()
        if not same and not (name == "report" and (out / file.name).read_bytes().rstrip().endswith(b"</html>")):
            raise Fault(f"{file.name} is another than without a kill")


# -------------------------------------------------------------------------------------------------------------- sweeps
def sweeps(place: Place) -> None:
    """A sweep that is killed goes on with the same command, and chooses the same."""
    out, shop = place.here / "sweep", place.origin.path / "shop"
    wanted = place.origin.path.parent / "sweep.txt"

    def work() -> None:
        import subprocess
        from types import SimpleNamespace

        import rawrec
        from processes_here import Here
        from rawrec.training import processes

        Here.tasks = []
        processes.subprocess = SimpleNamespace(Popen=Here, PIPE=subprocess.PIPE)  # type: ignore[attr-defined]
        search: dict[str, Any] = {"train.lr": [0.01, 0.1], "model.dim": [4]}
        base = {"train.epochs": 1, "train.threads": 1, "train.device": "cpu", "eval.topk": [5]}
        settings = {"model": "id", "data": str(shop), "out": str(out), "search": search, "fixed": base, "seeds": [0]}
        print(sorted(rawrec.sweep(settings).get("best", {}).items(), key=str))

    if not wanted.is_file():
        first = done(child(place, work))
        shutil.rmtree(out)
        wanted.write_text(first.out.strip())
    killed(place, "sweep", work)
    found = done(child(place, work))
    if found.out.strip().splitlines()[-1] != wanted.read_text().splitlines()[-1]:
        raise Fault(f"another choice: {found.out.strip()[-300:]}")
    if left(place.here) not in ([], ["sweep/.lock"]):
        raise Fault(f"left: {left(place.here)}")
