"""The page: numbers in words, the template filled, the file written."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from rawrec.errors import UserError
from rawrec.files import write_text
from rawrec.shown import visible


def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """A number for a table; – where it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def scale(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")


def count(value: float) -> str:
    """1234567 -> 1,234,567 with thin spaces."""
    return f"{int(value):,}".replace(",", "\u2009")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    words = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0) + [f"{rest} s"] * (not hours)
    return " ".join(words)


def words(value: Any) -> str:
    """Any plain value of run.json in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(sub)}" if not isinstance(sub, dict | list) else f"{key}: {words(sub)}"
                         for key, sub in value.items() if sub not in (None, [], {})) or "none"  # fmt: skip
    if isinstance(value, list | tuple):
        return ", ".join(words(v) for v in value) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return str(value)


def _shown(value: Any) -> Any:
    """What a template prints: text without control characters; markup, which is ours, as it is."""
    return visible(value) if type(value) is str else value


def render(context: dict[str, Any], package: str = "rawrec.report", template: str = "report.html") -> str:
    """The page as HTML: a package's template with what was gathered."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= {"number": number, "scale": scale, "count": count, "duration": duration, "words": words}
    source = resources.files(package).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(context)


def write(page: str, out: Path) -> Path:
    """The page is whole or not there."""
    try:
        write_text(out, page)
    except OSError as error:
        why = error.strerror or error
        raise UserError(
            f"the report cannot be written to {out}: {why}; name another place with --out (`out`)"
        ) from None
    return out
