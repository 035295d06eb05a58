"""The runs of a study: which are there, which come next, what became of them.

There is no journal: what stands in the run folders is what is done. A run that is half done is resumed, one that failed
is tried again by the next call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rawrec.config.metrics import lower_is_better
from rawrec.data.dataset import Dataset
from rawrec.training.processes import Outcome, Start, make_runs, threads_of
from rawrec.training.runs import RunFolder

KILLED = -9
Candidate = Mapping[str, Any]
"""What the study chooses: the settings of a run in which the candidates of a row differ."""


@dataclass(frozen=True)
class Job:
    """A run to make: of a row of a table, or the tuning of an encoder. columns: what it encodes before it begins."""

    path: Path
    what: str
    task: dict[str, Any] = field(hash=False, compare=False)
    columns: frozenset[tuple[str, ...]] = frozenset()
    metric: str = ""


@dataclass
class Planned:
    """The runs of something that is compared: a model under settings, with the seeds 0, 1 ...

    candidates: what is chosen by `metric` on the first seed, and all settings of a run but its seed. undefined: why
    there is no such thing. after: what must be made before. columns: what is encoded before a run begins.
    """

    words: str
    slug: str
    model: str
    seeds: int
    candidates: list[tuple[Candidate, dict[str, Any]]] = field(default_factory=list)
    metric: str = ""
    undefined: str | None = None
    after: Job | None = None
    columns: frozenset[tuple[str, ...]] = frozenset()
    by_seed: list[dict[str, Any]] = field(default_factory=list)
    """Settings that differ between the seeds, in the place of the candidates': what another row's run of the same seed
    has made. Empty: none."""

    @property
    def runs(self) -> int:
        return len(self.candidates) + self.seeds - 1 if self.candidates else 0


@dataclass
class Standing:
    """How far it is. state: finished, failed (see reason), undefined (see reason) or unfinished (not all of its
    runs are made). chosen: by validation. runs: of the chosen candidate, by seed. lost: candidates that failed, and
    why. tried: the others, and what each is worth on validation."""

    state: str
    reason: str = ""
    chosen: Candidate = field(default_factory=dict)
    runs: list[Path] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    tried: list[tuple[Candidate, float | None]] = field(default_factory=list)

    def dump(self, planned: Planned, out: Path) -> dict[str, Any]:
        """Plain values: what `study.json` says of it; paths of runs are those within `out`."""
        return {
            "state": self.state,
            "reason": self.reason,
            "candidates": len(planned.candidates),
            "metric": planned.metric,
            "chosen": dict(self.chosen),
            "tried": [{"settings": dict(chosen), planned.metric: value} for chosen, value in self.tried],
            "failed_candidates": self.lost,
            "seeds": planned.seeds,
            "runs": [str(path.relative_to(out)) for path in self.runs],
        }


class Runs:
    """The run folders of a study in `out`. planned: those whose runs are made; `standing` knows of all."""

    def __init__(self, data: Dataset, out: Path, planned: Sequence[Planned], jobs: int, observe: Callable[..., None]):
        self.data, self.out, self.planned, self.jobs, self.observe = data, out, planned, jobs, observe
        self.failed: dict[Path, str] = {}
        self.active: dict[Path, Job] = {}
        self._finished: dict[Path, bool] = {}
        self._values: dict[Path, float | None] = {}
        before = self._before()
        self.total = sum(one.runs for one in planned) + len(before)
        self.done = sum(self.finished(job.path) for job in before) + sum(map(self._made, planned))

    def make(self) -> None:
        """Make what is missing."""
        make_runs(self.jobs, self._next, self._ended)

    def _made(self, planned: Planned) -> int:
        """How many of its runs are finished."""
        first = [self.path(planned, given, 0) for _, given in planned.candidates]
        more = [self.path(planned, given, k) for _, given in planned.candidates for k in range(1, planned.seeds)]
        return sum(map(self.finished, first)) + min(sum(map(self.finished, more)), planned.seeds - 1)

    # ------------------------------------------------------------------------------------------------------ what stands
    def finished(self, path: Path) -> bool:
        """Whether a run is finished. Raises UserError where it is of other data."""
        if path not in self._finished:
            self._finished[path] = False
            if (path / "run.json").is_file():
                run = RunFolder.open(path)
                run.check(self.data)
                self._finished[path] = bool(run.info()["finished"])
        return self._finished[path]

    def path(self, planned: Planned, given: dict[str, Any], seed: int) -> Path:
        """The folder of a run, whose name does not depend on where the study is."""
        settings = json.dumps([planned.model, given], sort_keys=True, default=str).replace(str(self.out), "")
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return self.out / "runs" / f"{planned.slug}-{digest}-seed{seed}"

    def standing(self, planned: Planned) -> Standing:
        """How far it is, and which of its candidates validation chooses."""
        if planned.undefined is not None:
            return Standing("undefined", planned.undefined)
        if planned.after is not None and planned.after.path in self.failed:
            return Standing("failed", f"its encoder was not tuned: {self.failed[planned.after.path]}")
        first = [(chosen, given, self.path(planned, given, 0)) for chosen, given in planned.candidates]
        lost = [f"{_words(chosen)}: {self.failed[path]}" for chosen, _, path in first if path in self.failed]
        if len(lost) == len(first):
            return Standing("failed", lost[0].removeprefix(": "), lost=lost if len(first) > 1 else [])
        tried = [(chosen, given, path) for chosen, given, path in first if path not in self.failed]
        if not all(self.finished(path) for *_, path in tried):
            return Standing("unfinished", lost=lost)
        values = {path: self._value(path, planned.metric) for *_, path in tried}
        measured = [entry for entry in tried if values[entry[2]] is not None]
        if not measured:
            return Standing("failed", f"{planned.metric} is undefined on the validation part", lost=lost)
        better = min if lower_is_better(planned.metric) else max
        chosen, given, _ = better(measured, key=lambda entry: values[entry[2]] or 0.0)
        runs = [self.path(planned, given, seed) for seed in range(planned.seeds)]
        broken = next((path for path in runs if path in self.failed), None)
        known = [(chosen, values[path]) for chosen, _, path in tried]
        if broken is not None:
            return Standing("failed", f"{broken.name}: {self.failed[broken]}", chosen, [], lost, known)
        state = "finished" if all(map(self.finished, runs)) else "unfinished"
        return Standing(state, "", chosen, runs, lost, known)

    def _value(self, path: Path, metric: str) -> float | None:
        if path not in self._values:
            self._values[path] = RunFolder(path).metrics()["valid"].get(metric)
        return self._values[path]

    # ------------------------------------------------------------------------------------------------------- what comes
    def _before(self) -> list[Job]:
        """What must be made before the runs."""
        needed = (one.after for one in self.planned if one.undefined is None)
        return list(dict.fromkeys(job for job in needed if job is not None))

    def _missing(self) -> Iterator[Job]:
        """Runs that could be made, as far as can be told: of candidates, and of the seeds of chosen ones."""
        yield from (job for job in self._before() if not self._settled(job.path))
        for planned in self.planned:
            yield from self._of(planned)

    def _of(self, planned: Planned) -> Iterator[Job]:
        if planned.undefined is not None:
            return
        if planned.after is not None and not self.finished(planned.after.path):
            return
        paths = [(given, self.path(planned, given, 0)) for _, given in planned.candidates]
        missing = [(given, path) for given, path in paths if not self._settled(path)]
        for given, path in missing:
            yield self._job(planned, given, path, 0)
        if missing:
            return
        standing = self.standing(planned)
        for seed, path in enumerate(standing.runs):
            if not self._settled(path):
                given = next(given for chosen, given in planned.candidates if chosen == standing.chosen)
                yield self._job(planned, given, path, seed)

    def _settled(self, path: Path) -> bool:
        return path in self.failed or self.finished(path)

    def _job(self, planned: Planned, given: dict[str, Any], path: Path, seed: int) -> Job:
        chosen = next(chosen for chosen, its in planned.candidates if its is given)
        overrides = {**given, **(planned.by_seed[seed] if planned.by_seed else {}), "seed": seed}
        task = {"model": planned.model, "data": str(self.data.path), "run": str(path), "overrides": overrides}
        what = " ".join(part for part in (planned.words, _words(chosen), f"seed {seed}") if part)
        return Job(path, what, task, planned.columns, planned.metric)

    def _next(self) -> Start[Job] | None:
        """The next run that need not wait for another to encode the same things."""
        busy = {column for path, job in self.active.items() if not _encoded(path) for column in job.columns}
        for job in self._missing():
            if job.path not in self.active and not job.columns & busy:
                self.active[job.path] = job
                return Start(job, self._threaded(job.task), self.out / "logs" / f"{job.path.name}.txt")
        return None

    def _threaded(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """With its share of the threads, where it does not say how many it has."""
        where, key = ("settings", "threads") if "encoder" in task else ("overrides", "train.threads")
        return {**task, where: {key: threads_of(self.jobs), **task[where]}}

    def _ended(self, job: Job, outcome: Outcome) -> None:
        """A run is finished, or has failed alone."""
        del self.active[job.path]
        self._finished.pop(job.path, None)
        if outcome.end != "finished" or not self.finished(job.path):
            self.failed[job.path] = _reason(outcome, self.out / "logs" / f"{job.path.name}.txt")
        self.done += 1
        value = None if job.path in self.failed or not job.metric else self._value(job.path, job.metric)
        self.observe(
            "run", what=job.what, metric=job.metric, value=value, reason=self.failed.get(job.path, ""),
            done=self.done, total=self.total,
        )  # fmt: skip


def make_rows(
    data: Dataset, out: Path, planned: Mapping[str, Planned], jobs: int, observe: Callable[..., None]
) -> dict[str, Standing]:
    """How far rows are, by key, after all their runs that are missing were made; those that wait for others are left
    out."""
    runs = Runs(data, out, [one for one in planned.values() if one.candidates], jobs, observe)
    observe("note", text=f"rows: {len(planned)}; runs: {runs.total}, of which {runs.done} are done")
    runs.make()
    return {key: runs.standing(one) for key, one in planned.items() if one.candidates or one.undefined}


def make_row(data: Dataset, out: Path, planned: Planned, jobs: int, observe: Callable[..., None]) -> Standing:
    """The same of one row, which other rows' runs were needed for."""
    runs = Runs(data, out, [planned], jobs, observe)
    observe("note", text=f"{planned.words}: runs: {runs.total}, of which {runs.done} are done")
    runs.make()
    return runs.standing(planned)


def told(planned: Mapping[str, Planned], standings: Mapping[str, Standing]) -> list[str]:
    """Which rows there are, and which are missing and why."""
    states = [standing.state for standing in standings.values()]
    kinds = ("finished", "failed", "unfinished", "undefined")
    said = [f"Rows: {', '.join(f'{states.count(state)} {state}' for state in kinds if state in states) or 'none'}."]
    for key, standing in standings.items():
        words = planned[key].words
        if standing.state == "failed":
            said.append(f"Failed: {words}: {standing.reason}")
        if standing.state == "undefined":
            said.append(f"Not defined: {words}: {standing.reason}")
        said += [f"Failed: {words}, candidate {lost}" for lost in standing.lost]
    return said


def _encoded(path: Path) -> bool:
    """Whether a run is past encoding: `run.json` says what it read."""
    try:
        return "parameters" in json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _reason(outcome: Outcome, log: Path) -> str:
    """Why a run failed, in one line."""
    if outcome.end != "died":
        return " ".join(outcome.reason.split())
    said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    if outcome.reason.startswith(f"exit code {KILLED}:"):
        return f"its process was killed, as where memory ran out ({outcome.reason})"
    return f"its process ended with {outcome.reason}{f' ({last})' if last else ''}"


def _words(chosen: Candidate) -> str:
    return " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in chosen.items()
    )
