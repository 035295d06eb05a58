"""What a run took: time, memory, parameters, under names that a reader knows."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from rawrec.report.page import count, duration, size
from rawrec.report.run import Run

PARAMETERS = {
    "encoder": "encoders of pictures and texts",
    "encoders": "encoders of pictures and texts",
    "id": "tables of ids",
    "rest": "all other layers",
    "plain": "biases, norms and queries",
}
"""The groups of the optimiser, in words."""


@dataclass(frozen=True)
class Cost:
    """A line of the table; None: the run does not tell it."""

    name: str
    run: str | None
    baseline: str | None


def cost(mine: Run, other: Run | None) -> list[Cost]:
    """The lines that at least one of the runs has something to tell in."""
    found = [told(run) if run else {} for run in (mine, other)]
    names = list(dict.fromkeys([*found[0], *found[1]]))
    first = [name for name in names if name.startswith("Learned numbers")]
    names = [name for name in names if name not in first] + first  # what is in groups stands together
    return [Cost(name, found[0].get(name), found[1].get(name)) for name in names]


def told(run: Run) -> dict[str, str]:
    """What a run took, by the name of the line."""
    found = {"Time in all": duration(run.info["seconds"]) if "seconds" in run.info else None}
    if started := run.info.get("started"):
        found["Begun"] = str(started)
    found["Epochs"] = count(len(run.epochs)) if run.epochs else None
    for name, key in (("Training, an epoch", "seconds"), ("Validation, an epoch", "validation_seconds")):
        if values := run.series(key)[1]:
            found[name] = _seconds(statistics.fmean(values))
    if speeds := run.series("samples_per_second")[1]:
        found["Samples a second"] = count(statistics.median(speeds))
    peaks = [value for key in _memory(run) for value in run.series(key)[1]]
    if peaks:
        found["Memory at most"] = size(max(peaks) * 2**20)
    weights = run.path / "model.safetensors"
    if weights.is_file():
        found["Weights on disk"] = size(weights.stat().st_size)
    groups = run.info.get("parameters", {})
    if groups:
        found["Learned numbers (parameters)"] = count(sum(groups.values()))
    for key, value in groups.items():
        if value:
            found[f"Learned numbers: {PARAMETERS.get(key, key)}"] = count(value)
    return {name: value for name, value in found.items() if value is not None}


def _memory(run: Run) -> list[str]:
    return sorted({key for epoch in run.epochs for key in epoch if key.endswith("memory_mb")})


def _seconds(value: float) -> str:
    return duration(value) if value >= 60 else f"{value:.{1 if value >= 1 else 2}f} s"
