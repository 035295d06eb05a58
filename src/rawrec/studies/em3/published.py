"""The paper's own figures. Its data of tables 1 to 9 are confidential: the figures are of other data than ours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

from rawrec.data.dataset import Dataset
from rawrec.studies.datasets import NAMES, as_many_users, key_of
from rawrec.studies.table import Published


@cache
def figures() -> dict[str, Any]:
    """All that the paper printed."""
    text = resources.files("rawrec.studies.em3").joinpath("published.json").read_text(encoding="utf-8")
    return json.loads(text)


def of(numbers: Iterable[int]) -> dict[int, Published]:
    """Tables 1 to 9 by number."""
    found = figures()["tables"]
    return {number: Published(number, **found[str(number)]) for number in numbers if str(number) in found}


def of_lists(data: Dataset) -> dict[int, Published]:
    """Table 10, where the dataset is one of the paper's."""
    found, key = figures()["amazon"], key_of(data)
    if key is None or key not in found["users"] or not as_many_users(data, found["users"][key]):
        return {}
    return {10: Published(10, NAMES[key], found["columns"], found[key])}
