"""The notebooks of examples/notebooks run from the first cell to the last, and jupytext makes notebooks of them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

import forked

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    (tmp_path / "here").mkdir()
    done = forked.run([sys.executable, str(notebook)], cwd=tmp_path / "here", env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout, "it shows nothing"
    assert not list((tmp_path / "here").iterdir()), "it leaves files where it is run"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_jupytext_makes_a_notebook(notebook: Path) -> None:
    jupytext = pytest.importorskip("jupytext", reason="of the extra docs")
    made = jupytext.read(notebook)
    kinds = [cell.cell_type for cell in made.cells]
    assert kinds[0] == "markdown" and made.cells[0].source.startswith("# ")
    assert kinds.count("code") >= 4 and kinds.count("markdown") >= 4 and set(kinds) == {"code", "markdown"}
    with tempfile.TemporaryDirectory() as folder:
        jupytext.write(made, f"{folder}/made.ipynb")
        assert json.loads(Path(folder, "made.ipynb").read_text())["nbformat"] == 4


def test_four_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"raw_folder", "cold_items", "five_models", "own_encoder"}
