"""The benchmarks stand beside the package and follow it: the one that makes its own data runs on a small graph."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = """
import sys
sys.path.insert(0, sys.argv[1])
import retrieval
retrieval.measure(sys.argv[2], retrieval.Graph(80, 40, 900, {"image": 8, "text": 4}), {}, epochs=1, threads=1)
"""


@pytest.mark.parametrize("model", ["bpr", "lattice"])
def test_speed_of_retrieval_models(model: str) -> None:
    done = subprocess.run([sys.executable, "-c", SMALL, str(BENCHMARKS), model], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["model"] == model
    assert found["pairs"] > 0
    assert min(found[name] for name in ("epoch", "epoch_floor", "evaluation", "evaluation_floor")) > 0


@pytest.mark.parametrize("model", ["id", "negatives", "em3", "bpr"])
def test_step_cost_by_size(model: str) -> None:
    script = SMALL.splitlines()
    code = "\n".join([*script[:3], "import pathlib, scale, tempfile"])
    code += "\nscale.measure(sys.argv[2], 3000, 8, 1, 2, pathlib.Path(tempfile.mkdtemp()))\n"
    done = subprocess.run([sys.executable, "-c", code, str(BENCHMARKS), model], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["model"] == model and found["users"] == 3000
    assert min(found["step_ms"], found["step_ms_2000"], found["ratio"]) > 0


def test_a_network_beside_frozen_encoders(tmp_path: Path) -> None:
    """Each run is a process of its own; here there is one."""
    words = "--arms side:2 --rates 1e-3 --items 60 --impressions 500 --epochs 1 content.image.size=32"
    words += " content.image.encoder=random:conv content.text.encoder=random:bert"
    command = [sys.executable, str(BENCHMARKS / "side.py"), "--data", str(tmp_path), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["arm"] == "side:2" and 0 < found["score"] < 1
    assert min(found["epoch"], found["encode"]) > 0 and found["peak_mib"] > found["over_mib"]
