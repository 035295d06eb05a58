"""What a run logged, by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from rawrec.config.metrics import lower_is_better
from rawrec.report import plots
from rawrec.report.metrics import BUCKET_NAMES
from rawrec.report.run import Run


@dataclass(frozen=True)
class Chart:
    """One side of a run over its epochs: a drawing, or the values alone where there is no course to draw."""

    title: str
    meaning: str
    plot: Markup | None
    values: list[tuple[str, float]]

    @staticmethod
    def of(
        title: str,
        meaning: str,
        series: Mapping[str, plots.Line],
        dashed: Mapping[str, plots.Line] | None = None,
        mark: tuple[float, float, str] | None = None,
        share: bool = False,
    ) -> Chart:
        """Drawn where a line has several epochs and is not the same in all of them; else its last values are kept."""
        known = {**series, **(dashed or {})}
        if any(len(set(y)) > 1 for _, y in known.values()):
            return Chart(title, meaning, plots.lines(title, series, "epoch", dashed, mark, share), [])
        return Chart(title, meaning, None, [(name, y[-1]) for name, (_, y) in known.items() if y])


def curves(mine: Run, other: Run | None) -> list[Chart]:
    """The training loss, with the weighted parts that add up to it; what training lowers beside the same on the
    validation part, where that is measured; and the metric that the epochs are chosen by."""
    found = []
    parts = weighted_parts(mine)
    losses = {"loss": mine.series("loss")} | (parts if len(parts) > 1 else {})
    if losses["loss"][0]:
        meaning = "mean over an epoch's samples" + ("; its parts times their weights" if len(parts) > 1 else "")
        found.append(Chart.of("Training loss", meaning, losses))
    trained, valid = mine.series("loss/bce"), mine.series("valid/logloss")
    if trained[0] and valid[0]:
        meaning = "logloss; where the second rises while the first falls, the model learns by heart"
        found.append(Chart.of("Training against validation", meaning, {"training": trained, "validation": valid}))
    metric = mine.config.train.metric
    x, y = mine.series(f"valid/{metric}")
    if x:
        best = int(np.argmin(y) if lower_is_better(metric) else np.argmax(y))
        series = {"this run": (x, y)} | (
            {"stale bank": line} if (line := mine.series(f"valid/stale/{metric}"))[0] else {}
        )
        dashed = {other.name: line} if other and (line := other.series(f"valid/{metric}"))[0] else None
        mark = (x[best], y[best], f"{y[best]:.4f}")
        meaning = "the epoch with the best value is kept"
        found.append(Chart.of(f"Validation {metric}", meaning, series, dashed, mark))
    return found


def weighted_parts(mine: Run) -> dict[str, plots.Line]:
    """The parts of the training loss by name, each times its weight, so that they add up to it; those that are zero
    throughout are left out. Empty where the weights are not known: unweighted parts would say nothing beside the loss.
    """
    keys = sorted({key for epoch in mine.epochs for key in epoch if key.startswith("loss/")})
    weights, settings = mine.info.get("loss_weights", {}), mine.config.model
    found: dict[str, plots.Line] = {}
    for key in keys:
        name = key.removeprefix("loss/")
        of_old_runs = mine.config.content.itc_weight if name == "itc" else getattr(settings, f"{name}_weight", 1.0)
        x, y = mine.series(key)
        found[name] = x, [value * float(weights.get(name, of_old_runs)) for value in y]
    x, loss = mine.series("loss")
    if not found or any(line[0] != x for line in found.values()):
        return {}
    total = np.sum([line[1] for line in found.values()], 0)
    if not np.allclose(total, loss, rtol=0.02, atol=1e-6):
        return {}
    return {name: line for name, line in found.items() if any(line[1])}


def bank_health(mine: Run) -> list[Chart]:
    """Each side of the bank's health that the run logged."""
    groups = [
        ("Coverage", "share of the rows that were ever written", {"bank/coverage": "coverage"}, True),
        (
            "Age",
            "steps since a row was last written",
            {"bank/age_mean": "mean", "bank/age_p95": "95th percentile"},
            False,
        ),
        ("Drift", "1 - cosine of a row before and after it is rewritten", {"bank/drift": "drift"}, False),
        (
            "Live share",
            "share of the samples whose item was encoded in the step, by popularity",
            {f"live_share/{bucket}": bucket for bucket in BUCKET_NAMES if bucket},
            True,
        ),
    ]
    found = []
    for title, meaning, keys, share in groups:
        series = {label: line for key, label in keys.items() if (line := mine.series(key))[0]}
        if series:
            found.append(Chart.of(title, meaning, series, share=share))
    return found
