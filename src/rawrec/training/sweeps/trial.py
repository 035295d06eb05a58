"""A trial of a sweep: what is written of it, and when it is stopped early."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rawrec.files import appending
from rawrec.reading import RECORD, damaged, json_of, read_bytes, typed
from rawrec.training.runs import RunFolder

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

STARTUP_TRIALS = 5  # so many trials finish before one is pruned


@dataclass
class Trial:
    """A point of the search space. `trials.jsonl` has a line whenever its state changes; the last one counts."""

    number: int
    name: str  # digest of its settings; its runs are `runs/<name>-seed<k>`
    overrides: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)  # the point in Optuna's words
    state: Literal["running", "finished", "pruned", "failed"] = "running"
    valid: list[float] = field(default_factory=list)  # of the best epoch, per seed
    curve: list[float | None] = field(default_factory=list)  # of every epoch, of the first seed
    reason: str = ""

    @property
    def value(self) -> float | None:
        """Mean over seeds; None unless the trial is finished."""
        return sum(self.valid) / len(self.valid) if self.state == "finished" else None


def read_trials(path: Path) -> list[Trial]:
    """The trials of a sweep, by number. A last line that was not written to its end is left out."""
    text, _, _ = read_bytes(path, RECORD).rpartition(b"\n") if os.path.lexists(path) else (b"", b"", b"")
    with damaged(path):
        found = typed(list[Trial], [json_of(line) for line in text.decode().splitlines()], path)
    last = {trial.number: trial for trial in found}
    return [last[number] for number in sorted(last)]


def write_trial(path: Path, trial: Trial) -> None:
    """Append a line and see it on the disk. What a killed process left of a line is cut off first."""
    with appending(path, readable=True) as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(asdict(trial)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def study(
    trials: Sequence[Trial],
    lower: bool,
    distributions: Mapping[str, BaseDistribution] | None = None,
    sampler: BaseSampler | None = None,
) -> Study:
    """Optuna's study of the trials so far, in memory. lower: less is better. distributions: None: of curves alone."""
    import optuna
    from optuna.trial import TrialState

    states = {
        "running": TrialState.RUNNING,
        "finished": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(direction="minimize" if lower else "maximize", sampler=sampler)
    for trial in trials:
        frozen = optuna.trial.create_trial(
            state=states[trial.state],
            value=trial.value,
            params=trial.params if distributions else {},
            distributions=dict(distributions or {}),
            intermediate_values=_steps(trial.curve),
        )
        made.add_trial(frozen)
    return made


def _steps(curve: Sequence[float | None]) -> dict[int, float]:
    return {epoch: value for epoch, value in enumerate(curve) if value is not None}


class Pruned(Exception):
    """The run is worse than most, and stops."""


class MedianRule:
    """An observer that raises `Pruned` after an epoch whose best value so far is worse than the median of the finished
    trials at that epoch."""

    def __init__(self, run: Path, trials: str, metric: str, lower: bool, warmup: int):
        self.run, self.trials, self.metric, self.lower, self.warmup = run, Path(trials), metric, lower, warmup

    def __call__(self, event: str, **values: Any) -> None:
        if event != "validated":
            return
        import optuna

        finished = [trial for trial in read_trials(self.trials) if trial.state == "finished"]
        steps = _steps(curve_of(RunFolder(self.run), self.metric))
        here = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, intermediate_values=steps)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=self.warmup)
        if pruner.prune(study(finished, self.lower), here):
            raise Pruned


def curve_of(run: RunFolder, metric: str) -> list[float | None]:
    """The validation metric of every epoch."""
    return [line.get(f"valid/{metric}") for line in run.metrics_lines()]
