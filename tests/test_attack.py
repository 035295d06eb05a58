"""The attack in its bounded form: some tries of every kind, none of which finds a fault."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import forked

ATTACK = Path(__file__).resolve().parents[1] / "benchmarks" / "attack.py"


def attacked(work: Path, *words: str) -> list[dict[str, object]]:
    done = forked.run([sys.executable, str(ATTACK), "--work", str(work), *words], capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines, done.stderr[-2000:])
    return lines


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attack")


def test_no_fault_of_any_kind(work: Path) -> None:
    """Those that run within one process; the others are in the tests of what they attack."""
    kinds = ["strange: runs", "strange: datasets", "strange: links", "strange: encoders", "strange: sources"]
    kinds += ["damage: dataset", "damage: run", "damage: checkpoint", "damage: cache", "signs: texts", "calls"]
    kinds += ["addresses: policy", "addresses: requests"]
    *each, whole = attacked(work, "--tries", "60", "--kinds", *kinds)
    assert [line["kind"] for line in each] == kinds and all(line["faults"] == 0 for line in each)
    assert whole["kind"] == "all" and 50 <= int(str(whole["tries"])) <= 70


def test_what_was_tried_is_not_tried_again(work: Path) -> None:
    before = attacked(work, "--tries", "2", "--kinds", "signs: texts")
    again = attacked(work, "--tries", "2", "--kinds", "signs: texts")
    assert again == before and before[-1]["tries"] == 2
    tries = [json.loads(line) for line in (work / "tries.jsonl").read_text().splitlines()]
    assert [one["try"] for one in tries if one["kind"] == "signs: texts"][:2] == [0, 1]
