"""Runs on the odd shop, made once for all tests of the page."""

from pathlib import Path

import pytest

from odd_shop import odd_runs


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs of `em3`, `bpr` and `id`; not to be changed by a test."""
    return odd_runs(tmp_path_factory.mktemp("odd"))
