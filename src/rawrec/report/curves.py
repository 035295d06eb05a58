"""What a run logged, by epoch."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from rawrec.config.metrics import lower_is_better
from rawrec.report import plots
from rawrec.report.metrics import BUCKET_NAMES
from rawrec.report.run import Run


def curves(mine: Run, other: Run | None) -> list[tuple[str, Markup]]:
    """Titles and plots of the training loss and of the validation metric by epoch."""
    found = []
    parts = weighted_parts(mine)
    losses = {"loss": mine.series("loss")} | (parts if len(parts) > 1 else {})
    if losses["loss"][0]:
        found.append(("Training loss", plots.lines("loss", losses, "epoch")))
    metric = mine.config.train.metric
    key = f"valid/{metric}"
    x, y = mine.series(key)
    if x:
        best = int(np.argmin(y) if lower_is_better(metric) else np.argmax(y))
        series = {"this run": (x, y)} | (
            {"stale bank": line} if (line := mine.series(f"valid/stale/{metric}"))[0] else {}
        )
        dashed = {other.name: line} if other and (line := other.series(key))[0] else None
        mark = (x[best], y[best], f"{y[best]:.4f}")
        found.append((f"Validation {metric}", plots.lines(key, series, "epoch", dashed, mark)))
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


def bank_health(mine: Run) -> list[tuple[str, str, Markup]]:
    """Title, meaning and plot of each side of the bank's health that the run logged."""
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
            found.append((title, meaning, plots.lines(title.lower(), series, "epoch", share=share)))
    return found
