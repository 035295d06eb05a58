"""Small runs that streams go on from, each trained once for a module; tests have copies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rawrec.data.dataset import Dataset
from streams import small_run


@pytest.fixture(scope="module")
def data(shop: Path) -> Dataset:
    return Dataset.open(shop)


@pytest.fixture(scope="module")
def runs(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a kind, see `small_run`."""
    folder, made = tmp_path_factory.mktemp("runs"), dict[str, Path]()

    def run(kind: str) -> Path:
        if kind not in made:
            made[kind] = small_run(folder / kind, data, kind)
        return made[kind]

    return run


@pytest.fixture
def copied(runs: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a run of a kind, which a test goes on with."""

    def copy(kind: str, name: str = "run") -> Path:
        return Path(shutil.copytree(runs(kind), tmp_path / name))

    return copy
