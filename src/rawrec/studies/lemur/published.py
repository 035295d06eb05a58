"""The paper's own figures, of confidential data, as far as readings of it agree."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

from rawrec.studies.table import Published


@cache
def figures() -> dict[str, Any]:
    """All that is known."""
    text = resources.files("rawrec.studies.lemur").joinpath("published.json").read_text(encoding="utf-8")
    return json.loads(text)


def of(numbers: Iterable[int]) -> dict[int, Published]:
    """Tables by number, those that the paper has."""
    found = figures()["tables"]
    return {number: Published(number, **found[str(number)]) for number in numbers if str(number) in found}
