"""The runs below a folder, a line each: what `rawrec runs` shows."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from rawrec.arguments import checked, shown
from rawrec.config.metrics import lower_is_better
from rawrec.errors import UserError
from rawrec.reading import SETTINGS, read_json, read_yaml
from rawrec.training.runs import FINETUNE, RunFolder

State = Literal["running", "finished", "cut short", "stopped", "pruned", "damaged"]


@dataclass(frozen=True)
class RunLine:
    """A run. epochs: how many it has finished, of `of` at most. seconds: spent on it until it was last stopped or
    finished, of one that is running those of its epochs. metric: which one `valid` (of its best epoch) and `test` are;
    None where there is none yet. reason: why it is damaged."""

    path: Path
    state: State
    model: str = ""
    data: str = ""
    seed: int | None = None
    epochs: int = 0
    of: int | None = None
    seconds: float = 0.0
    metric: str = ""
    valid: float | None = None
    test: float | None = None
    started: str = ""
    reason: str = ""

    def dump(self) -> dict[str, Any]:
        """Plain values that fit into JSON."""
        return {**asdict(self), "path": str(self.path)}


@checked()
def list_runs(folder: str | Path, metric: str | None = None, by: str = "valid") -> list[RunLine]:
    """All runs in a folder and below it.

    metric: which one; None: of each run the one that its early stopping follows. by: valid (by data, then the best
    first, those without a value last), name, or started (the newest first). Raises UserError where there is no such
    folder.

    >>> [(run.path.name, run.state, run.valid) for run in rawrec.list_runs("runs")]
    """
    place = Path(folder)
    if not place.is_dir():
        raise UserError(f"{folder} is no folder; name one that has run folders in it")
    if by not in ("valid", "name", "started"):
        raise UserError(f"by={shown(by)}: use valid, name or started")
    lines = [line_of(path, metric) for path in _folders(place)]
    if by == "started":
        return sorted(lines, key=lambda line: (line.started, str(line.path)), reverse=True)
    return sorted(lines, key=lambda line: str(line.path) if by == "name" else _rank(line))


def _rank(line: RunLine) -> tuple[Any, ...]:
    value = line.valid
    worth = 0.0 if value is None else value if lower_is_better(line.metric) else -value
    return line.data, line.metric, value is None, worth, str(line.path)


def _folders(place: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "run.json" in files:
            folders.clear()
            yield Path(path)


LONGEST = 500
"""Characters of what is said of a run that cannot be read."""


def line_of(path: Path, metric: str | None = None) -> RunLine:
    """What there is to say of one run folder. It is read alone: a run of a package that is not installed counts."""
    try:
        return _line_of(path, metric)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:  # values of other kinds
        return RunLine(path, "damaged", reason=" ".join(str(error).split())[:LONGEST])


def _line_of(path: Path, metric: str | None) -> RunLine:
    run = RunFolder(path.absolute())
    info = run.info()
    cfg = read_yaml(path / "config.yaml", SETTINGS)
    train = cfg if info.get("task") == FINETUNE else cfg["train"]
    followed = metric or str(train["metric"])
    lines = run.metrics_lines()
    metrics = read_json(path / "metrics.json") if info["finished"] else {}
    reason = _damage(path, info)
    state: State = (
        "damaged" if reason
        else "running" if is_running(path)
        else "pruned" if info.get("pruned")
        else "stopped" if not info["finished"]
        else "cut short" if info.get("cut_short")
        else "finished"
    )  # fmt: skip
    values = [line[f"valid/{followed}"] for line in lines if isinstance(line.get(f"valid/{followed}"), int | float)]
    best = (min if lower_is_better(followed) else max)(values, default=None)
    return RunLine(
        path=path,
        state=state,
        model=str(info.get("model", "")),
        data=str(info.get("dataset_name") or Path(info["dataset"]).name),
        seed=cfg.get("seed"),
        epochs=len(lines),
        of=train.get("epochs"),
        seconds=float(info["seconds"]) if state != "running" else _seconds(lines),
        metric=followed,
        valid=_value(metrics.get("valid", {}), followed) if metrics else best,
        test=_value(metrics.get("test", {}), followed),
        started=str(info.get("started", "")),
        reason=reason,
    )


def _value(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return float(value) if isinstance(value, int | float) else None


def _seconds(lines: list[dict[str, Any]]) -> float:
    return sum(line.get("seconds", 0.0) + line.get("validation_seconds", 0.0) for line in lines)


def _damage(path: Path, info: Mapping[str, Any]) -> str:
    """What is missing or not whole of the files that a run must have; empty where all is well."""
    weights, last = path / "model.safetensors", path / "checkpoint" / "last.safetensors"
    if info["finished"] and not weights.is_file():
        return "model.safetensors is missing"
    for file in (weights, last):
        if file.is_file():
            try:
                with safe_open(file, "pt"):
                    pass
            except (OSError, SafetensorError) as error:
                return f"{file.name}: {error}"
    return ""


def is_running(path: Path) -> bool:
    """Whether a process has the lock of a run folder (`runs.running`)."""
    place = path.resolve()
    with suppress(OSError):
        lock = os.open(
            place.with_name(f".{place.name}.lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES)
        finally:
            os.close(lock)
    return False
