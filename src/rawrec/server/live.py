"""What the page shows of a server that runs: which version answers, how fresh it is, what was published and judged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rawrec.errors import UserError
from rawrec.reading import read_json_lines
from rawrec.server.guard import without_paths
from rawrec.server.holding import Serving
from rawrec.serving.published import Published
from rawrec.stream import versions
from rawrec.stream.trainer import FOLDER, METRICS

LATEST = 20
"""Versions that are told of."""
LINES = 400
"""Windows of prequential metrics, the latest."""
TOLD = ("auc", "gauc", "logloss", "pcoc", "served/auc", "served/logloss", "judged")


def live(serving: Serving) -> dict[str, Any]:
    """Plain values. counts are since the server was started; the page makes rates of them."""
    version, told = serving.now(), serving.told
    found: dict[str, Any] = {
        "served": version.served().model_dump(),
        "loaded": version.loaded,
        "items": version.rec.n_items,
        "hidden": len(version.rec.hidden),
        "waiting": len(serving.worker),
        "requests": told.total("rawrec_requests_total"),
        "events": None if serving.writer is None else told.total("rawrec_events_total"),
        "refused": told.total("rawrec_versions_refused_total"),
        "swaps": told.total("rawrec_version_swaps_total"),
        "versions": None,
        "windows": [],
    }
    if serving.watcher is not None:
        found |= _versions(serving.watcher.out)
    if isinstance(version.rec, Published):
        found["windows"] = _windows(Path(version.rec.about.folder) / FOLDER / METRICS)
    return found


def _versions(out: Path) -> dict[str, Any]:
    try:
        known = versions.listed(out)
    except UserError as error:
        return {"versions": [], "told": without_paths(str(error))}
    told = [
        {
            "name": one.name, "step": one.step, "events": one.events, "watermark": one.watermark, "items": one.items,
            "users": one.users, "refused": None if one.refused is None else without_paths(one.refused),
            "served": one.name == known.current,
        }
        for one in known.versions[-LATEST:]
    ]  # fmt: skip
    return {"versions": told[::-1], "count": len(known.versions), "held": known.held}


def _windows(path: Path) -> list[dict[str, float | None]]:
    """Prequential metrics of the latest windows; of a file that is not there or is being written, none."""
    try:
        lines = read_json_lines(path)[-LINES:]
    except (OSError, UserError):
        return []
    return [{name: _number(line.get(name)) for name in TOLD} for line in lines if isinstance(line, dict)]


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None
