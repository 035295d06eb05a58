"""Many runs of one model on one dataset, and the choice among them.

A sweep folder holds `sweep.yaml` (its settings, complete), `trials.jsonl` (see `Trial`), `runs/<name>-seed<k>/`
(ordinary run folders), `logs/` (what each run said) and `sweep.json` (the choice). Each run is a process of its own. A
sweep that was killed goes on with the same command: what is finished stays, what is half done is resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rawrec.arguments import COUNT, checked, one_of, optional
from rawrec.data.dataset import Dataset
from rawrec.errors import RunStopped, UserError
from rawrec.files import remove, write_text, yaml_text
from rawrec.folders import discard
from rawrec.training.configuring import configure
from rawrec.training.processes import REPLACED, Outcome, Start, alone_in, make_runs, threads_of
from rawrec.training.runs import RunFolder
from rawrec.training.state import write_json
from rawrec.training.sweeps.on_ray import make_runs_on_ray
from rawrec.training.sweeps.search import Search, SweepConfig, load
from rawrec.training.sweeps.trial import Trial, curve_of, read_trials, write_trial

FILES = ("sweep.yaml", "trials.jsonl", "runs", "logs", "sweep.json")  # of a sweep folder
MAY_CHANGE = ("out", "data", "jobs", "trials")  # between two calls on the same sweep folder
BY_VALIDATION = "chosen by validation"
BY_TEST = "chosen by test, as published tables often were: too good, since the choice has seen what it reports"


@checked(jobs=optional(COUNT), on=one_of("ray", None))
def sweep(
    settings: str | Path | Mapping[str, Any],
    jobs: int | None = None,
    overwrite: bool = False,
    observer: Callable[..., None] | None = None,
    *,
    on: str | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """Run a sweep, or go on with it, and return what its `sweep.json` holds.

    settings: path of a sweep.yaml, or the same as a mapping (`SweepConfig`). jobs: in place of the setting. overwrite:
    begin anew where a sweep stands. observer: told of every trial's end. on: `ray`, where the runs are tasks of a
    cluster of Ray's (address: see `ray_cluster.cluster`); None: processes of this machine. Raises UserError for a
    mistake in settings, before anything runs; RunStopped where a run ends in a way that is not its settings' fault.

    >>> rawrec.sweep("sweep.yaml")["best"]["overrides"]
    """
    cfg = load(settings)
    if jobs is not None:
        cfg.jobs = jobs
    data = Dataset.open(cfg.data)
    search = Search(cfg, lambda overrides: configure(cfg.model, data, overrides))
    cfg.metric = search.metric
    cfg.data, cfg.out = data.path.absolute(), cfg.out.absolute()
    with _folder(cfg, overwrite):
        makes: Callable[..., None] = make_runs
        if on == "ray":
            makes = partial(make_runs_on_ray, address=address)
        return Sweep(search, data, observer or (lambda event, **values: None), makes).run()


@contextmanager
def _folder(cfg: SweepConfig, overwrite: bool) -> Iterator[None]:
    """The sweep folder, ours alone. Raises UserError where another sweep, or something else, stands there.

    A UserError before any trial has ended leaves what was there: nothing, or the sweep that was to be replaced.
    """
    with alone_in(cfg.out, "sweep.yaml", "sweep") as path:
        out = cfg.out
        replaced = out / REPLACED  # where a sweep stands that this one may replace
        if (replaced / path.name).is_file() and not path.is_file():  # killed while it was being moved there, or back
            _move(replaced, out)
        begins = overwrite or not path.is_file()
        if overwrite:
            discard(replaced)
            replaced.mkdir()
            _move(out, replaced)
        elif path.is_file():
            before, now = load(path).model_dump(), cfg.model_dump()
            changed = [key for key in now if key not in MAY_CHANGE and before[key] != now[key]]
            if changed:
                raise UserError(
                    f"{out} holds another sweep, with {changed[0]}: {before[changed[0]]}. Choose another `out`, or "
                    "begin anew with --overwrite"
                )
        write_text(path, yaml_text(cfg.model_dump(mode="json")))
        try:
            yield
        except UserError:
            if begins and not any(trial.state != "running" for trial in read_trials(out / "trials.jsonl")):
                _clear(out)
                if replaced.is_dir():
                    _move(replaced, out)
            raise
        finally:
            discard(replaced)


def _clear(out: Path) -> None:
    """Remove what a sweep has written."""
    for name in FILES:
        remove(out / name)


def _move(source: Path, target: Path) -> None:
    """Move what a sweep has written. Its settings go first when it leaves its place and come last when it returns, so
    that a sweep.yaml in its place says that all of the sweep is there."""
    for name in FILES if target.name == REPLACED else reversed(FILES):
        if os.path.lexists(source / name):
            remove(target / name)
            (source / name).rename(target / name)


class Sweep:
    """The trials of a sweep folder, from wherever they stand to the choice."""

    def __init__(
        self, search: Search, data: Dataset, observe: Callable[..., None], makes: Callable[..., None] = make_runs
    ):
        self.makes = makes
        self.search, self.cfg, self.data, self.observe = search, search.cfg, data, observe
        self.path = search.cfg.out
        self.journal, self.total = self.path / "trials.jsonl", search.total
        self.trials = read_trials(self.journal)
        self.waiting: deque[tuple[Trial, int]] = deque()  # runs to start
        self.active: set[tuple[int, int]] = set()  # (trial, seed) of runs that wait or go on
        self.threads = threads_of(self.cfg.jobs)

    def run(self) -> dict[str, Any]:
        """Make all runs, then choose."""
        for trial in self.trials:
            self._advance(trial)
        self.makes(self.cfg.jobs, more=self._next, ended=self._ended)
        return self._choose()

    # -------------------------------------------------------------------------------------------------------- trials
    def _more(self) -> bool:
        """Whether a run waits; where none does, the next trial is made."""
        while not self.waiting and len(self.trials) < self.total:
            found = self.search.next(self.trials)
            if found is None:  # there are fewer points than trials were asked for
                self.total = len(self.trials)
                break
            point, params = found
            trial = Trial(len(self.trials), _digest({**self.cfg.fixed, **point}), point, params)
            write_trial(self.journal, trial)
            self.trials.append(trial)
            self._advance(trial)
        return bool(self.waiting)

    def _advance(self, trial: Trial) -> None:
        """Put what a trial lacks in the queue, its first seed before the others; close it where it lacks nothing."""
        if trial.state != "running":
            return
        first, *others = self.cfg.seeds
        found = self._standing(trial, first)
        if found == "pruned":
            self._close(trial, "pruned")
            return
        wanted = [first] if found is None else [seed for seed in others if self._standing(trial, seed) is None]
        new = [(trial, seed) for seed in wanted if (trial.number, seed) not in self.active]
        self.waiting.extend(new)
        self.active |= {(trial.number, seed) for _, seed in new}
        if not wanted:
            self._close(trial, "finished")

    def _standing(self, trial: Trial, seed: int) -> str | None:
        """How a run ended; None: it has not."""
        path = self.run_path(trial, seed)
        if not (path / "run.json").is_file():
            return None
        run = RunFolder.open(path)
        run.check(self.data)
        info = run.info()
        return "finished" if info["finished"] else "pruned" if info.get("pruned") else None

    def run_path(self, trial: Trial, seed: int) -> Path:
        return self.path / "runs" / f"{trial.name}-seed{seed}"

    def _close(self, trial: Trial, state: Any, reason: str = "") -> None:
        """A trial's end, written down and told."""
        trial.state, trial.reason = state, reason
        self.waiting = deque(entry for entry in self.waiting if entry[0] is not trial)
        if state != "failed":
            trial.curve = curve_of(RunFolder(self.run_path(trial, self.cfg.seeds[0])), self.search.metric)
        if state == "finished":
            values = [self._metrics(trial, seed)["valid"].get(self.search.metric) for seed in self.cfg.seeds]
            if None in values:
                trial.state, trial.reason = "failed", f"{self.search.metric} is undefined on the validation part"
            else:
                trial.valid = values
        write_trial(self.journal, trial)
        done = sum(trial.state != "running" for trial in self.trials)
        best = trial in self._ranked()[:1]
        self.observe("trial", trial=trial, metric=self.search.metric, total=self.total, done=done, best=best)

    def _metrics(self, trial: Trial, seed: int) -> dict[str, Any]:
        return RunFolder(self.run_path(trial, seed)).metrics()

    # ----------------------------------------------------------------------------------------------------- processes
    def _next(self) -> Start[tuple[Trial, int]] | None:
        """The next run to start, with its share of threads."""
        if not self._more():
            return None
        trial, seed = self.waiting.popleft()
        overrides = {**self.cfg.fixed, **trial.overrides, "seed": seed}
        if self.search.resolve(trial.overrides).train.threads is None:
            overrides["train.threads"] = self.threads
        pruning = {
            "trials": str(self.journal),
            "metric": self.search.metric,
            "lower": self.search.lower,
            "warmup": self.search.warmup,
        }
        task = {
            "model": self.cfg.model,
            "data": str(self.data.path),
            "run": str(self.run_path(trial, seed)),
            "overrides": overrides,
            "pruning": pruning if self.cfg.pruning and seed == self.cfg.seeds[0] else None,
        }
        return Start((trial, seed), task, self.path / "logs" / f"{trial.name}-seed{seed}.txt")

    def _ended(self, key: tuple[Trial, int], outcome: Outcome) -> None:
        """What a run's end means for its trial, and for the sweep."""
        trial, seed = key
        self.active.discard((trial.number, seed))
        if outcome.end == "died":
            few = "" if "No space left" in outcome.reason else "; try fewer jobs if memory ran out"
            raise RunStopped(
                f"the run {self.run_path(trial, seed)} ended with {outcome.reason}. The same command goes on with the "
                f"sweep{few}"
            )
        if outcome.end in ("finished", "pruned"):
            self._advance(trial)
        elif outcome.end == "refused" and not any(t.state in ("finished", "pruned") for t in self.trials):
            raise UserError(outcome.reason)  # of the first trial: it will be so for all
        elif trial.state == "running":
            self._close(trial, "failed", outcome.reason)

    # -------------------------------------------------------------------------------------------------------- choice
    def _ranked(self) -> list[Trial]:
        """Finished trials, the best by validation first."""
        finished = [trial for trial in self.trials if trial.state == "finished"]
        return sorted(finished, key=lambda trial: trial.value or 0.0, reverse=not self.search.lower)

    def _choose(self) -> dict[str, Any]:
        """The best trial by validation with its test, and beside it the best by test; into `sweep.json`."""
        ranked, metric = self._ranked(), self.search.metric
        if not ranked:
            reasons = [trial.reason for trial in self.trials if trial.reason]
            raise RunStopped(f"no trial finished{f'; the first one: {reasons[0]}' if reasons else ''}")
        described = [self._describe(trial) for trial in ranked]
        tested = [one for one in described if one["test"].get(metric) is not None]
        tested.sort(key=lambda one: one["test"][metric]["mean"], reverse=not self.search.lower)
        result = {
            "model": self.cfg.model,
            "data": str(self.data.path),
            "metric": metric,
            "seeds": self.cfg.seeds,
            "trials": {state: sum(t.state == state for t in self.trials) for state in ("finished", "pruned", "failed")},
            "best": {"choice": BY_VALIDATION, **described[0]},
            "best_by_test": {"choice": BY_TEST, **tested[0]} if tested else None,
            "ranking": [{key: one[key] for key in ("trial", "overrides")} | {"valid": one["valid"][metric]}
                        for one in described],
        }  # fmt: skip
        write_json(self.path / "sweep.json", result)
        return result

    def _describe(self, trial: Trial) -> dict[str, Any]:
        metrics = [self._metrics(trial, seed) for seed in self.cfg.seeds]
        return {
            "trial": trial.number,
            "overrides": trial.overrides,
            "runs": [str(self.run_path(trial, seed).relative_to(self.path)) for seed in self.cfg.seeds],
            "valid": _spread([part["valid"] for part in metrics], self.search.metric),
            "test": _spread([part["test"] for part in metrics], self.search.metric),
        }


def _digest(overrides: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()[:10]


def _spread(parts: list[dict[str, Any]], metric: str) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation over seeds, of the metrics of all items and of the one that chooses."""
    result: dict[str, dict[str, float | None]] = {}
    for name in parts[0]:
        values = [part[name] for part in parts if part.get(name) is not None]
        if (name == metric or "/" not in name) and len(values) == len(parts):
            deviation = statistics.stdev(values) if len(values) > 1 else None
            result[name] = {"mean": statistics.fmean(values), "deviation": deviation}
    return result


def words(overrides: Mapping[str, Any]) -> str:
    """Settings as one types them, numbers short."""
    return " ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
                    for key, value in overrides.items())  # fmt: skip


def teller(console: Console) -> Callable[..., None]:
    """An observer that says a line about every trial."""

    def tell(event: str, trial: Trial, metric: str, done: int, total: int, best: bool) -> None:
        ends = {
            "finished": f"{metric} {trial.value or 0:.4f}{', the best so far' * best}",
            "pruned": f"pruned after {len(trial.curve)} epochs",
            "failed": f"failed: {trial.reason}",
        }
        console.print(f"{done} of {total}: {words(trial.overrides)}: {ends[trial.state]}", markup=False, soft_wrap=True)

    return tell


def print_sweep(result: Mapping[str, Any], console: Console, shown: int = 10) -> None:
    """The best trials by validation, and test for the chosen ones only."""
    metric = result["metric"]
    table = Table("trial", "settings", f"valid {metric}", box=None, pad_edge=False)
    for entry in result["ranking"][:shown]:
        table.add_row(str(entry["trial"]), Text(words(entry["overrides"])), _plus_minus(entry["valid"]))
    console.print(table)
    console.print(", ".join(f"{count} {state}" for state, count in result["trials"].items() if count), "trials")
    for key in ("best", "best_by_test"):
        chosen = result[key]
        if chosen is None:
            continue
        if key == "best_by_test" and chosen["trial"] == result["best"]["trial"]:
            console.print(Text(f"\n{chosen['choice']}:\n  the same trial"), soft_wrap=True)
            continue
        test = ", ".join(f"{n} {_plus_minus(chosen['test'][n])}" for n in _main(chosen["test"], metric))
        lines = [
            f"\n{chosen['choice']}:",
            f"  trial {chosen['trial']}, {words(chosen['overrides'])}",
            f"  valid {metric} {_plus_minus(chosen['valid'][metric])}; test {test}",
        ]
        console.print(Text("\n".join(lines)), soft_wrap=True)


def _main(test: Mapping[str, Any], metric: str) -> list[str]:
    names = [metric, "auc", "gauc", "qauc", "logloss", "recall@10", "recall@20", "ndcg@10", "ndcg@20"]
    return [name for name in dict.fromkeys(names) if name in test]


def _plus_minus(value: Mapping[str, float | None]) -> str:
    deviation = value["deviation"]
    return f"{value['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
