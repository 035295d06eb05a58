"""The benchmarks stand beside the package and follow it: the one that makes its own data runs on a small graph."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import forked
from systems import small_dataset

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = """
import sys
sys.path.insert(0, sys.argv[1])
import retrieval
retrieval.measure(sys.argv[2], retrieval.Graph(80, 40, 900, {"image": 8, "text": 4}), {}, epochs=1, threads=1)
"""
FORKING = """
import runpy, subprocess, sys
sys.path.insert(0, sys.argv[1])
import forked
subprocess.run, subprocess.Popen = forked.run, forked.Process
sys.argv = sys.argv[2:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def printed(benchmark: str, *words: str) -> list[dict[str, Any]]:
    """The lines of a benchmark; processes that it starts are forked, too."""
    return lines(["-c", FORKING, str(Path(__file__).parent), str(BENCHMARKS / benchmark), *words])


def lines(words: list[str]) -> list[dict[str, Any]]:
    done = forked.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("model", ["bpr", "lattice"])
def test_speed_of_retrieval_models(model: str) -> None:
    (found,) = lines(["-c", SMALL, str(BENCHMARKS), model])
    assert found["model"] == model
    assert found["pairs"] > 0
    assert min(found[name] for name in ("epoch", "epoch_floor", "evaluation", "evaluation_floor")) > 0


@pytest.mark.parametrize("model", ["id", "negatives", "em3", "bpr"])
def test_step_cost_by_size(model: str) -> None:
    script = SMALL.splitlines()
    code = "\n".join([*script[:3], "import pathlib, scale, tempfile", "scale.EACH = 20"])
    code += "\nscale.measure(sys.argv[2], 3000, 8, 1, 2, pathlib.Path(tempfile.mkdtemp()))\n"
    (found,) = lines(["-c", code, str(BENCHMARKS), model])
    assert found["model"] == model and found["users"] == 3000
    assert min(found["step_ms"], found["step_ms_2000"], found["ratio"]) > 0


def test_what_several_processes_send() -> None:
    words = ("--processes", "2", "--items", "60", "--cases", "bpr", "--steps", "3", "--batch", "64")
    (found,) = printed("world.py", *words)
    assert found["processes"] == 2
    assert 0 < sum(found["sent"].values()) <= 1.2 * sum(found["needed"].values())


def test_a_stream_whose_processes_are_killed_at_instants_and_points() -> None:
    *rounds, last = lines([str(BENCHMARKS / "killing.py"), "--kills", "10", "--requests", "40", "--seed", "3"])
    assert rounds[-1]["kills"] + rounds[-1]["servers"] + rounds[-1]["failures"] >= 10
    assert all(line["same_log"] and line["same"] and line["once"] and not line["wrong_lists"] for line in rounds)
    assert all(line["lists"] for line in rounds) and last["points"] and last["wrong"] == 0


def test_two_revisions_by_turns(tmp_path: Path) -> None:
    """The same checkout twice: every answer belongs to its question."""
    rows = [(user, (user + k) % 9, k, 1.0) for user in range(12) for k in range(5)]
    small_dataset(tmp_path / "data", rows, 9, labelled=False, parts=["train", "train", "train", "valid", "test"] * 12)
    root = str(BENCHMARKS.parent)
    words = [root, root, "bpr:train.batch_size=20", "--data", str(tmp_path / "data"), "--turns", "3", "--warmup", "1"]
    found = printed("revisions.py", *words, "--what", "step", "epoch", "evaluation")
    assert [line["what"] for line in found] == ["step", "epoch", "evaluation"]
    for line in found:
        middle, low, high = line["cpu_ratio"]
        assert line["turns"] == 3 and 0 < low <= middle <= high and min(line["wall_ms"]) > 0


def test_a_network_beside_frozen_encoders(tmp_path: Path) -> None:
    """Each run is a process of its own; here there is one."""
    words = "--arms side:2 --rates 1e-3 --seeds 2 --items 60 --impressions 500 --epochs 1 -- content.image.size=32"
    words += " content.image.encoder=random:conv content.text.encoder=random:bert"
    found, other = printed("side.py", "--data", str(tmp_path), *words.split())
    assert found["arm"] == "side:2" and 0 < found["score"] < 1
    assert (found["seed"], other["seed"]) == (0, 1) and found["score"] != other["score"]
    assert min(found["epoch"], found["encode"]) > 0 and found["peak_mib"] > found["over_mib"]


@pytest.mark.parametrize(
    ("scores", "noise", "equal", "met"),
    [
        ([0.75, 0.79], 2 * 0.0008**0.5, True, True),
        ([0.60, 0.64], 2 * 0.0008**0.5, False, False),
        ([0.60], None, None, True),
    ],
)
def test_side_is_held_to_an_equal_score(
    scores: list[float], noise: float | None, equal: bool | None, met: bool
) -> None:
    runs = [
        {"epoch": epoch, "over_mib": over, "scores": each}
        for epoch, over, each in ((40, 100, [0.76, 0.80]), (1, 5, scores))
    ]
    code = "import sys, json\nsys.path.insert(0, sys.argv[1])\nimport side\n"
    code += (
        "print(json.dumps(side.compared('all', *json.loads(sys.argv[2])[:1], 'side:2', json.loads(sys.argv[2])[1])))"
    )
    (found,) = lines(["-c", code, str(BENCHMARKS), json.dumps(runs)])
    assert found["score_noise"] == (None if noise is None else pytest.approx(noise))
    assert (found["equal"], found["met"]) == (equal, met)
    assert found["score_against"] == pytest.approx(0.78) and found["score_gain"] == pytest.approx(found["score"] - 0.78)


@pytest.mark.parametrize("model", ["dcnv2:model.cross=mixture", "din", "rankmixer:model.experts=2", "tokenmixer_large"])
def test_heads_beside_bare_torch(model: str) -> None:
    """Both have as many parameters."""
    words = "--batch 8 --tokens 4 --history 3 --turns 2 --steps 1 --threads 1"
    (found,) = printed("rankers.py", *words.split(), model)
    assert found["model"] == model and found["parameters"] == found["parameters_bare"]
    assert min(found[name] for name in ("samples_per_second", "samples_per_second_bare", "ratio")) > 0


def test_all_weights_against_low_rank_ones() -> None:
    words = "--histories 2 4 --dim 16 --width 8 --rank 2 --items 3000 --batch 16 --steps 1 --warmup 1 --rounds 1"
    found = printed("lora.py", *words.split())
    cases = [(line["case"], line["history"]) for line in found if "case" in line]
    assert cases == [("full", 2), ("full", 4), ("lora", 2), ("lora", 4)]
    ratios = [line["parameters"] for line in found if "figure" in line]
    assert ratios[:2] == [1, 1] and ratios[2] == ratios[3] < 0.6


def test_inputs_of_impressions_beside_bare_numpy() -> None:
    """The benchmark checks itself that both make the same."""
    words = "--rows 3000 --users 30 --items 200 --batch 500 --turns 1"
    found = printed("features.py", *words.split())
    assert [line["what"] for line in found] == ["counts", "session", "context"]
    for line in found:
        assert 2000 < line["rows"] < 3000
        assert min(line[name] for name in ("rows_per_second", "rows_per_second_bare", "ratio", "making_seconds")) > 0
