"""A run folder: a trained model and all that explains it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rawrec import __version__
from rawrec.config import Config, validate
from rawrec.config.finetune import FinetuneConfig, finetune_config
from rawrec.config.own import lacking, own_parts
from rawrec.content.caches import Cache
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.files import (
    alone,
    appending,
    clean,
    filling,
    is_partial,
    make_folder,
    move,
    partial_of,
    remove,
    remove_empty,
    sync,
    write_text,
    yaml_text,
)
from rawrec.folders import check_own_folder, discard, is_empty, is_within, swap, swap_keeping
from rawrec.reading import RECORD, SETTINGS, read_text, read_yaml
from rawrec.remote import local, origin, refuse
from rawrec.shown import visible
from rawrec.sums import check_file, file_sum
from rawrec.training.records import SUM, info_sum, read_epochs, read_info, read_metrics
from rawrec.training.state import write_json, written

FINETUNE = "finetune"
BEGINNING = ("run.json", "environment.json", "config.yaml")
"""What a run folder has before anything is trained, in the order in which they come into a folder that is there."""
OWN_FILES = {*BEGINNING, "metrics.jsonl", "metrics.json", "model.safetensors", "scores.parquet", "topk.parquet"}
OWN_FILES |= {"log.txt", "config.json", "digests.json", "manifest.json"}
"""What is never an export's name in a run folder."""
SUMMED = ("config.yaml", "metrics.json", "metrics.jsonl", "model.safetensors", "scores.parquet", "topk.parquet")
"""What of a finished run has check sums in `run.json`."""
Settings = Config | FinetuneConfig
PACKAGES = ("torch", "numpy", "transformers", "peft", "pylance", "pyarrow", "polars", "pillow")


@cache
def _version(package: str) -> str | None:
    """The version that is installed, if any."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@contextmanager
def running(path: str | Path) -> Iterator[None]:
    """Inside, no other process trains into the run folder `path`: it hears a UserError. Folders above it are made, and
    taken back where nothing comes to be in them.

    Where the place around the folder cannot be written, or its file system knows no locks, nobody is kept out.
    """
    place = Path(path).resolve()  # one lock whatever link leads there
    busy = f"another run is going on in {place} now: wait until it is done, or choose another place with --out"
    made = make_folder(place.parent)
    try:
        with alone(place, busy):
            clean(place.parent)  # a run that was replaced, of which a kill has left a part
            yield
    finally:
        remove_empty(made)


class RunFolder:
    """`config.yaml`, `run.json`, `metrics.jsonl` (a line per epoch), `metrics.json`, `model.safetensors`,
    `checkpoint/`, `scores.parquet`, `topk.parquet`, `environment.json`, `log.txt`, `tensorboard/`.

    `model.safetensors` and `metrics.json` appear when the run is finished, never before. Of `rawrec finetune` it is the
    folder of the tuned encoder as well, whose weights `model.safetensors` then is.
    """

    def __init__(self, path: Path):
        self.path = path
        place = path.resolve()
        self._replaced = place.with_name(f".{place.name}.replaced")  # where a run stands that this one may replace
        self.begun = False  # this process has made a step of it

    def __repr__(self) -> str:
        """Path, model, whether it is finished, and its metric of early stopping on valid and test. Of a damaged folder
        the path."""
        words: list[str] = []
        try:
            info = self.info()
            words = [str(info.get("model") or info.get("task") or "run")]
            words.append(f"ended after {cut}" if (cut := cut_short(info)) else
                         "finished" if info["finished"] else "not finished")  # fmt: skip
            cfg = self.settings()
            metric = cfg.metric if isinstance(cfg, FinetuneConfig) else cfg.train.metric
            for part, values in (self.metrics() if info["finished"] else {}).items():
                if part in ("valid", "test") and isinstance(value := values.get(metric), int | float):
                    words.append(f"{part} {metric} {value:.4f}")
        except (UserError, KeyError, TypeError, AttributeError):
            pass
        return f"RunFolder({str(self.path)!r}{': ' if words else ''}{', '.join(words)})"

    @classmethod
    def create(cls, path: str | Path, cfg: Settings, data: Dataset, overwrite: bool = False) -> RunFolder:
        """A new run folder. Raises UserError where one stands in the way (`overwrite` replaces runs, nothing else)."""
        refuse(path, "a run of this kind")
        run = cls(Path(path).absolute())
        run._recover()
        place = run.path.resolve()
        stands = place.exists() and not (place.is_dir() and is_empty(place))
        if stands and not run._is_beginning():
            if not (place / "run.json").is_file():
                raise UserError(f"{path} exists and is no run folder: choose another place with --out")
            if not overwrite:
                raise UserError(
                    f"{path} holds a run already: go on with `rawrec resume {path}`, choose another --out, "
                    "or replace it with --overwrite"
                )
            if place.is_mount():
                raise UserError(
                    f"{path} is a mount point, which cannot be replaced: choose a folder within it with --out"
                )
        with filling(run.path):
            place.parent.mkdir(parents=True, exist_ok=True)
            clean(place.parent)
            inside = place.is_dir() and (is_empty(place) or run._is_beginning())
            fresh = cls(partial_of(place / "run" if inside else place))
            try:
                fresh.path.mkdir()
                fresh._begin(cfg, data)
                if inside:
                    for name in BEGINNING:
                        move(fresh.path / name, place / name)
                elif place.exists():
                    swap_keeping(fresh.path, place, run._replaced)
                else:
                    fresh.path.rename(place)
                    sync(place.parent)
            finally:
                remove(fresh.path)
        return run

    def _is_beginning(self) -> bool:
        """Whether all that stands here is what a process wrote that was killed while it made the run folder."""
        names = {path.name for path in self.path.iterdir() if not is_partial(path.name)} if self.path.is_dir() else {""}
        return "run.json" in names and names < set(BEGINNING)

    def _recover(self) -> None:
        """Put right what a process left that was killed while it replaced a run: the old one is at its place again
        where the new one has made no step. For who has the lock."""
        place, old = self.path.resolve(), self._replaced
        if not os.path.lexists(old):
            return
        if old.is_symlink() or not (old / "run.json").is_file():
            discard(old)
        elif not place.exists() or (place.is_dir() and is_empty(place)):
            discard(place)
            old.rename(place)
        elif place.is_dir() and not self._has_steps():
            swap(old, place)
        elif (place / "run.json").is_file():
            discard(old)

    def _has_steps(self) -> bool:
        """Whether a run here has come far enough to be worth something, or what is here is not of a run at all."""
        names = {path.name for path in self.path.iterdir() if not is_partial(path.name)}
        if "run.json" not in names:
            return not names <= set(BEGINNING)
        lines = self.path / "metrics.jsonl"
        return "checkpoint" in names or self.info()["finished"] or (lines.is_file() and lines.stat().st_size > 0)

    def _begin(self, cfg: Settings, data: Dataset) -> None:
        """Write what a run is of: settings, dataset, environment."""
        self.write_config(cfg)
        self.write_info(
            dataset=origin(data.path),
            dataset_name=data.path.name,
            dataset_fingerprint=data.fingerprint(),
            dataset_version=data.version,
            model=cfg.label,
            generated=data.meta.generated,
            fields=data.fields.model_dump(),
            **self._of_model(cfg, data),
            label_rule=data.meta.label_rule,
            started=time.strftime("%Y-%m-%d %H:%M:%S"),
            finished=False,
            seconds=0.0,
        )
        own = [] if isinstance(cfg, FinetuneConfig) else own_parts(cfg)
        named = (*PACKAGES, *(used.package for used in own if used.package))
        write_json(
            self.path / "environment.json",
            {
                "python": platform.python_version(),
                "platform": platform.platform(),
                "processor": platform.processor() or platform.machine(),
                "cpu_threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                "packages": {"rawrec": __version__} | {name: _version(name) for name in named},
            },
        )

    @staticmethod
    def _of_model(cfg: Settings, data: Dataset) -> dict[str, Any]:
        """What is said of models alone; `task` says that it is none."""
        if isinstance(cfg, FinetuneConfig):
            return {"task": FINETUNE}
        return {
            "paradigm": cfg.paradigm if cfg.retrieval or cfg.reads_content else None,
            "registered": [used._asdict() for used in own_parts(cfg)],
            "split": data.meta.splits[cfg.data.split].get("statement", ""),
        }

    def settle(self) -> None:
        """The new run has begun: the one that it replaces goes."""
        self.begun = True
        discard(self._replaced)

    def withdraw(self) -> None:
        """Take back a new run that could not begin, and put the one that it would have replaced back in its place."""
        if self._replaced.is_dir():
            swap(self._replaced, self.path.resolve())
        else:
            discard(self.path.resolve())

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        run = cls(local(path, "run").absolute())
        if not (run.path / "run.json").is_file() and (run._replaced / "run.json").is_file():
            with running(run.path):  # a process was killed while it replaced the run
                run._recover()
        if not (run.path / "run.json").is_file():
            raise UserError(f"{path} is no run folder (it has no run.json); `rawrec train` makes one")
        return run

    def lacks(self) -> list[str]:
        """Which files a finished run should have and has not; `resume` makes them again."""
        return [name for name in ("model.safetensors", "metrics.json") if not (self.path / name).is_file()]

    def check_whole(self, *names: str) -> None:
        """UserError where a run that is finished lacks what it has made. names: what must be there; none: all."""
        if missing := [name for name in self.lacks() if not names or name in names]:
            there = (self.path / "checkpoint" / "last.safetensors").is_file()
            way = f"`rawrec resume {self.path}` makes it again of the run's last state"
            raise UserError(
                f"{self.path / missing[0]} is missing, though the run is finished: "
                + (way if there else "bring it back, or train again; its last state (checkpoint/) is gone, too")
            )

    # ------------------------------------------------------------------------------------------------------- contents
    def config(self) -> Config:
        """The settings of the run of a model, complete; see `settings`. UserError where it is of no model."""
        found = self.settings()
        if isinstance(found, FinetuneConfig):
            raise UserError(
                f"{self.path} is a tuned encoder, no model: name it as one, content.item.encoder={self.path}; its "
                "metrics are in metrics.json"
            )
        return found

    def tables(self) -> dict[str, tuple[int, int]]:
        """Tables of results that stand in the folder, and which files they are."""
        found = ((name, self.path / name) for name in SUMMED if name.endswith(".parquet"))
        stats = ((name, path.lstat()) for name, path in found if path.is_symlink() or path.exists())
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats}

    def remove_stale(self, before: Mapping[str, tuple[int, int]]) -> None:
        """Remove the tables that are as they were `before` the run was ended: of other weights, or a stranger's."""
        for name, which in self.tables().items():
            if before.get(name) == which:
                discard(self.path / name)

    def sums(self) -> dict[str, str]:
        """Check sums of the files that a finished run consists of."""
        return {name: file_sum(self.path / name) for name in SUMMED if (self.path / name).is_file()}

    def check_file(self, name: str, info: Mapping[str, Any] | None = None) -> None:
        """UserError where a file of a finished run is not as it was when the run was finished. info: `run.json`; a run
        that has none yet is not finished."""
        if info is None and not (self.path / "run.json").exists():
            return
        info = self.info() if info is None else info
        if info["finished"]:
            then = "bring it back from a copy, or train again"
            if name == "config.yaml":
                then += "; whoever has changed it on purpose removes it from `files` in run.json"
            check_file(self.path / name, info["files"].get(name), then)

    def settings(self) -> Settings:
        """The settings of the run, complete. Raises UserError where the file was changed, or is damaged."""
        path, info = self.path / "config.yaml", self.info()
        missing = [text for used in info.get("registered", []) if (text := lacking(used))]
        if missing:
            raise UserError(f"{self.path}: " + "\n".join(missing))
        try:
            tree = read_yaml(path, SETTINGS)
            self.check_file("config.yaml", info)
        except FileNotFoundError:
            raise UserError(f"{path} is missing: train again with the same command") from None
        if not isinstance(tree, dict) or not all(isinstance(name, str) for name in tree):
            raise UserError(f"{path} is damaged: it holds no settings by name")
        try:
            return finetune_config(tree) if info.get("task") == FINETUNE else validate(tree)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def write_config(self, cfg: Settings) -> None:
        write_text(self.path / "config.yaml", yaml_text(cfg.dump()))

    def info(self) -> dict[str, Any]:
        """What `run.json` says. UserError where it is missing or damaged."""
        try:
            return read_info(self.path / "run.json")
        except FileNotFoundError:
            raise UserError(f"{self.path} is no run folder (it has no run.json); `rawrec train` makes one") from None

    def write_info(self, **values: Any) -> None:
        """Add to or change what `run.json` says."""
        old = self.info() if (self.path / "run.json").is_file() else {}
        new = json.loads(written(old | values))  # as it is read again
        write_json(self.path / "run.json", new | {SUM: info_sum(new)})

    def dataset(self, at: Dataset | str | Path | None = None) -> Dataset:
        """The dataset of the run, from its new place `at` where it has moved.

        Where interactions or items were appended since, it is the version that the run was trained on: its metrics stay
        what they were, and what is new is unknown to it. Raises UserError where the dataset is not there, or its items
        or interactions have changed.
        """
        info = self.info()
        if isinstance(at, Dataset):
            data = at
        else:
            path = local(at or info["dataset"], "dataset")
            if at is None and not path.is_dir():
                raise UserError(
                    f"the dataset of this run, {path}, is not there: put it back or give its new place (--data)"
                )
            data = Dataset.open(path)
        version = info.get("dataset_version", 1)
        if data.version > version:
            data = Dataset.open(data.path, version=version)
        self.check(data)
        return data

    def check(self, data: Dataset) -> None:
        if data.fingerprint() != self.info()["dataset_fingerprint"]:
            raise UserError(
                f"{data.path} has changed since the run {self.path.name} was trained on it: its rows no longer mean "
                "the same items. Train again, or bring back the dataset as it was"
            )

    def prepare(self) -> None:
        """Before anything is written: what killed processes left is removed; UserError where a folder of the run is a
        link, which could lead anywhere."""
        clean(self.path)
        for name in ("checkpoint", "tensorboard", "cache"):
            check_own_folder(self.path / name)
            clean(self.path / name)
        for left in (self.path / "checkpoint").glob(".tmp??????"):  # of safetensors, as earlier versions used it
            remove(left)

    def cache_of(self, data: Dataset) -> Cache:
        """Where static columns are kept: beside the dataset `data`, shared by its runs; in the run where that is
        read-only. Where `run.json` says that the dataset is does not count: nobody has seen a dataset there."""
        return Cache(data.path.absolute() / "cache", self.path / "cache")

    def check_export(self, path: Path, data: Dataset | None = None) -> None:
        """UserError where a file that is exported to `path` would stand among what the run, or its dataset, consists
        of, whatever links lead there. Beside the run's own files it may stand, under another name."""
        if is_within(path, self.path):
            top = path.absolute().parent.resolve() == self.path.resolve()
            if not top or path.name.casefold() in OWN_FILES or path.name.startswith("."):
                raise UserError(f"{path} is a file of the run itself, or among them: give another name")
        if data is not None and is_within(path, data.path):
            raise UserError(f"{path} is in the folder of the dataset: give another one")

    # -------------------------------------------------------------------------------------------------------- metrics
    def append_metrics(self, line: dict[str, Any]) -> None:
        """One line of `metrics.jsonl`."""
        with appending(self.path / "metrics.jsonl") as file:
            file.write((written(line) + "\n").encode("utf-8", "backslashreplace"))

    def keep_metrics(self, lines: int) -> None:
        """Cut `metrics.jsonl` back to its first lines: those that the checkpoint knows of."""
        path = self.path / "metrics.jsonl"
        text = read_text(path, RECORD) if os.path.lexists(path) else ""
        write_text(path, "".join(text.splitlines(keepends=True)[:lines]))

    def metrics_lines(self) -> list[dict[str, Any]]:
        """What `metrics.jsonl` holds. UserError where it is damaged."""
        self.check_file("metrics.jsonl")
        return read_epochs(self.path / "metrics.jsonl")

    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds, see `read_metrics`. UserError where it is missing or damaged."""
        try:
            found = read_metrics(self.path / "metrics.json")
            self.check_file("metrics.json")
            return found
        except FileNotFoundError:
            raise UserError(f"{self.path}/metrics.json is missing: train the run again") from None

    def log(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {visible(text)}\n"
        with appending(self.path / "log.txt") as file:
            file.write(line.encode("utf-8", "backslashreplace"))


def not_finished(path: Path) -> str:
    """What is said of a run that is not finished, with the ways on."""
    return f"is not finished: `rawrec resume {path}` goes on, `rawrec finish {path}` ends it with its best epoch so far"


def cut_short(info: Mapping[str, Any]) -> str:
    """After how many epochs a run was ended before it was done, of what its `run.json` says; empty where it was not."""
    found = info.get("cut_short")
    return f"{found['epochs']} of {found['of']} epochs" if found else ""
