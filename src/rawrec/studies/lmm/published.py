"""The paper's own figures, for datasets that are the paper's."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from rawrec.data.dataset import Dataset
from rawrec.studies.datasets import NAMES, as_many_users, key_of
from rawrec.studies.table import Published


@cache
def figures() -> dict[str, Any]:
    """All that the paper printed."""
    text = resources.files("rawrec.studies.lmm").joinpath("published.json").read_text(encoding="utf-8")
    return json.loads(text)


def of(data: Dataset) -> tuple[dict[int, Published], str]:
    """The paper's tables by number where the dataset is one of the paper's, and what is to be said about it.

    It is by its source, an import of Amazon's reviews or of MMRec's files whose name says which, and as many users.
    """
    if (key := key_of(data)) is None:
        return {}, ""
    paper = figures()["statistics"][key]
    ours, theirs = (
        ", ".join(f"{of[what]:,} {what}" for what in ("users", "items", "interactions"))
        for of in (data.meta.counts, paper)
    )
    said = f"{NAMES[key]} has {theirs} in the paper, and {ours} here"
    if not as_many_users(data, paper["users"]):
        return {}, f"The paper's figures are not shown: {said} (rawrec import amazon --preset lmm takes its 5-core)."
    tables = figures()["tables"]
    return {
        int(number): Published(int(number), NAMES[key], table["columns"], table[key])
        for number, table in tables.items()
    }, f"{said}."
