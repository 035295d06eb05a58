"""Datasets that papers have figures of, known by their source."""

from __future__ import annotations

import re

from rawrec.data.dataset import Dataset

NAMES = {"sports": "Amazon Sports", "clothing": "Amazon Clothing", "baby": "Amazon Baby"}
NEAR = 0.01  # by so large a share the numbers of users may differ: papers' counts are not those of their sources


def key_of(data: Dataset) -> str | None:
    """sports, clothing or baby, for an import of Amazon's reviews or of MMRec's files whose name says which."""
    found = re.match(r"(?:Amazon|MMRec) .*?(baby|sports|clothing)", data.meta.source, re.IGNORECASE)
    return found[1].lower() if found else None


def as_many_users(data: Dataset, users: int) -> bool:
    return abs(data.n_users - users) <= NEAR * users
