"""The page: numbers in words, the template filled, the file written."""

from __future__ import annotations

import base64
import hashlib
import math
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

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
    """1234567 -> 1,234,567, as in all that rawrec prints."""
    return f"{int(value):,}"


def plain(value: float) -> str:
    """A number as it is: 1995, 12.5, 12,500."""
    whole = value == round(value) and abs(value) < 1e12
    text = f"{value:.0f}" if whole else f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    return (f"{float(text):,.0f}" if abs(value) >= 10_000 else text).replace("-", "−")


def share(value: float | None, digits: int = 1) -> str:
    """0.1234 -> 12.3 %."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def p_value(value: float | None) -> str:
    """0.0123 -> p 0.012; what is smaller than it can be written is said to be small."""
    return "–" if value is None else "p < 0.001" if value < 0.001 else f"p {value:.3f}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    words = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0) + [f"{rest} s"] * (not hours)
    return " ".join(words)


def size(count_of_bytes: float) -> str:
    """12345678 -> 12.3 MB."""
    value = float(count_of_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.{0 if unit == 'B' else 1}f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


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


def asset(name: str, package: str = "rawrec.report") -> Markup:
    """A style sheet or a script of a package, to stand in a page as it is."""
    return Markup(resources.files(package).joinpath(name).read_text(encoding="utf-8").strip())


def source_hash(script: str) -> str:
    """What a page's policy names a script by, so that it runs no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def render(context: dict[str, Any], package: str = "rawrec.report", template: str = "report.html") -> str:
    """The page as HTML: a package's template with what was gathered. What several pages share, `base.html` and
    `macros.html`, is this package's, and so are the one style sheet and the one script."""

    def source(name: str) -> str | None:
        places = (resources.files(place).joinpath(name) for place in dict.fromkeys((package, "rawrec.report")))
        return next((place.read_text(encoding="utf-8") for place in places if place.is_file()), None)

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
        loader=FunctionLoader(source),
    )
    environment.filters |= {
        "number": number,
        "scale": scale,
        "count": count,
        "duration": duration,
        "words": words,
        "size": size,
        "share": share,
        "p": p_value,
        "plain": plain,
    }
    script = asset("report.js")
    own = {"style": asset("report.css"), "script": script, "script_hash": source_hash(script)}
    return environment.get_template(template).render(own | context)


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
