"""A fixture for tests that register things of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rawrec.config.metrics import METRICS
from rawrec.config.models import MODELS
from rawrec.config.parts import ENCODERS, FUSIONS
from rawrec.config.sources import SOURCES


@pytest.fixture
def registries() -> Iterator[None]:
    """What a test registers is gone after it."""
    tables = (MODELS, METRICS, ENCODERS, FUSIONS, SOURCES)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)  # pyright: ignore[reportArgumentType, reportCallIssue]
