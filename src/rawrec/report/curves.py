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
    parts = sorted({key for epoch in mine.epochs for key in epoch if key.startswith("loss/")})
    losses = {key.removeprefix("loss/"): line for key in parts if any((line := mine.series(key))[1])}
    losses = {"loss": mine.series("loss")} | (losses if len(losses) > 1 else {})
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
