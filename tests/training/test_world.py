"""Several processes that train one model: the same as one, within rounding; and how they end together."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import worlds
from safetensors.torch import load_file
from world_runs import do
from world_steps import save

import forked
import rawrec
from rawrec.config import resolve
from rawrec.errors import UserError
from rawrec.training.ranks import RESTARTS, check_shared
from rawrec.world import World, shared
from systems import digest

HERE = Path(__file__).parent
CASES = ("id", "few", "sharded", "few_sharded", "hybrid", "end_to_end", "few_pairs", "bpr_rows", "vbpr", "sasrec")
STEPS = 20


@pytest.fixture(scope="module")
def made(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The losses and the state of every case after some steps, by 1, 2 and 4 processes."""
    out = tmp_path_factory.mktemp("steps")
    save(World(), shop, out, STEPS, CASES)
    for size in (2, 4):
        found = worlds.together(size, [str(HERE / "world_steps.py"), str(shop), str(out), str(STEPS), *CASES])
        assert [one.code for one in found] == [0] * size, found
    return out


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_several_processes_train_what_one_does(case: str, size: int, made: Path) -> None:
    one, several = load_file(made / f"{case}-1-0"), load_file(made / f"{case}-{size}-0")
    assert one.keys() == several.keys() and len(one["losses"]) == STEPS
    for name, value in one.items():
        if "key.bias" not in name:  # which softmax takes out: its gradient is rounding, of which Adam makes whole steps
            torch.testing.assert_close(several[name], value, rtol=1e-5, atol=1e-5, msg=f"{name}: {{}}".format)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_all_processes_hold_the_same_bits(case: str, size: int, made: Path) -> None:
    first, *others = (load_file(made / f"{case}-{size}-{rank}") for rank in range(size))
    for other in others:
        alike = [name for name in first if "sharded" not in case or "inputs.ids." not in name]
        assert other.keys() == first.keys() and all(torch.equal(other[name], first[name]) for name in alike)


@pytest.mark.parametrize("size", [2, 4])
def test_processes_hold_shares_of_the_rows_of_tables(size: int, made: Path) -> None:
    """The first one's were put together; each of the others holds every so many rows, of the optimiser's state too."""
    whole = load_file(made / f"sharded-{size}-0")
    for rank in range(1, size):
        own = load_file(made / f"sharded-{size}-{rank}")
        tables = [name for name in own if "inputs.ids." in name]
        assert len(tables) == 4 * 7  # weight, average, two moments, uses, last use, where the average stands
        assert all(torch.equal(own[name], whole[name][rank::size]) for name in tables)


# --------------------------------------------------------------------------------------------------------------- draws
class Part(World):
    """The middle one of three processes, in no company."""

    def __init__(self) -> None:
        super().__init__(1, 3)


def test_a_part_of_a_batch_draws_what_the_whole_would() -> None:
    x, share = torch.randn(10, 4, 3), Part().share(10)
    torch.manual_seed(0)
    dropped, drawn = torch.nn.functional.dropout(x, 0.5), torch.rand(10, 2)
    torch.manual_seed(0)
    with share.drawing(x.device):
        own = torch.nn.functional.dropout(x[share.part], 0.5), torch.rand(share.stop - share.start, 2)
    torch.testing.assert_close(own[0], dropped[share.part])
    assert torch.equal(own[1], drawn[share.part])


def test_draws_of_another_kind_are_refused() -> None:
    with shared(Part(), torch.arange(2), 6), pytest.raises(UserError, match=r"bernoulli.*one process"):
        torch.bernoulli(torch.ones(2))
    with shared(Part(), torch.arange(2), 6), pytest.raises(UserError, match=r"shape \[3\] for 2 samples"):
        torch.rand(3)


def test_every_sample_is_of_one_process() -> None:
    for count in (1, 2, 7, 9):
        shares = [World(rank, 4).share(count) for rank in range(4)]
        weighted = [sample for share in shares if share.weight for sample in range(share.start, share.stop)]
        assert weighted == list(range(count))
        assert all(share.stop > share.start for share in shares)


# ---------------------------------------------------------------------------------------------------------------- runs
def words(data: Path, *actions: tuple[str, Path, dict[str, Any]]) -> list[str]:
    return [str(HERE / "world_runs.py"), str(data), *(json.dumps([c, str(out), given]) for c, out, given in actions)]


def test_a_run_with_shares_of_tables_goes_on_with_any_number_of_processes(shop: Path, tmp_path: Path) -> None:
    run, straight, cut, alone = (tmp_path / name for name in ("run", "straight", "cut", "alone"))
    one, two, three = ({"train.epochs": epochs} for epochs in (1, 2, 3))
    given = {"model.tables": "sharded", "train.lr": 3e-4}
    actions: list[tuple[int, list[tuple[str, Path, dict[str, Any]]]]] = [
        (4, [("train", run, {**one, **given})]),
        (2, [("resume", run, two), ("train", straight, {**two, **given}), ("train", cut, {**one, **given})]),
        (2, [("resume", cut, two)]),
    ]
    for size, several in actions:
        found = worlds.together(size, words(shop, *several))
        assert [tuple(ended) for ended in found] == [(0, "", "")] * size
    assert digest(straight) == digest(cut)
    do(str(shop), "resume", str(run), three)
    do(str(shop), "train", str(alone), {**three, "train.lr": 3e-4})
    expected, here = (load_file(path / "model.safetensors") for path in (alone, run))
    assert expected.keys() == here.keys()
    for name, value in expected.items():
        if "key.bias" not in name:
            torch.testing.assert_close(here[name], value, rtol=1e-4, atol=1e-4)
    scores = [rawrec.evaluate(path)["auc"] for path in (run, alone)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_runs_go_on_with_any_number_of_processes(shop: Path, tmp_path: Path) -> None:
    straight, cut, other = tmp_path / "straight", tmp_path / "cut", tmp_path / "other"
    one, two, three = ({"train.epochs": epochs} for epochs in (1, 2, 3))
    actions: list[tuple[int, list[tuple[str, Path, dict[str, Any]]]]] = [
        (3, [("train", other, one)]),
        (2, [("train", straight, two), ("train", cut, one), ("resume", cut, two), ("resume", other, two)]),
    ]
    for size, several in actions:
        found = worlds.together(size, words(shop, *several))
        assert [tuple(one) for one in found] == [(0, "", "")] * size
    assert digest(straight) == digest(cut)
    do(str(shop), "resume", str(other), three)
    do(str(shop), "train", str(tmp_path / "alone"), three)
    alone, changing = (load_file(path / "model.safetensors") for path in (tmp_path / "alone", other))
    for name, value in alone.items():
        if "key.bias" not in name:
            torch.testing.assert_close(changing[name], value, rtol=1e-4, atol=1e-4)
    assert {path.name for path in other.iterdir()} == {path.name for path in (tmp_path / "alone").iterdir()}


# ------------------------------------------------------------------------------------------------------- how they end
def train(out: Path, shop: Path, *settings: str) -> list[str]:
    given = ("model.dim=8", "train.batch_size=64", "train.epochs=1", "train.threads=1", *settings)
    return ["train", "id", "--data", str(shop), "--out", str(out), *given]


@pytest.mark.parametrize(
    ("fault", "rank", "codes", "told"),
    [
        ("kill", 1, [1, -9, 1], "process 1 of 3 is gone, in step 5"),
        ("kill", 0, [-9, 1], "process 0 of 2 is gone, in step 5"),
        ("error", 1, [1, 1], "process 1 of 2 has stopped in step 5: No space left on device: somewhere"),
        ("nan", 1, [1, 1], "the loss of step 5 (epoch 1) is nan"),
        ("drift", 1, [1, 1], "after epoch 1 the weights of process 1 are not those of process 0"),
        ("signal", 1, [130, 130], "interrupted in epoch 1 of 1 (6 steps); the checkpoint is written"),
    ],
)
def test_what_ends_one_process_ends_all_and_is_told_once(
    fault: str, rank: int, codes: list[int], told: str, shop: Path, tmp_path: Path
) -> None:
    command = [str(HERE / "world_faults.py"), fault, str(rank), "5", *train(tmp_path / "run", shop)]
    found = worlds.together(len(codes), command)
    assert [one.code for one in found] == codes
    assert_told_once(found, told)


def assert_told_once(found: list[worlds.Ended], told: str) -> None:
    messages = [line for one in found for line in one.err.splitlines() if line.startswith("rawrec: ")]
    assert len(messages) == 1 and told in messages[0]


def test_a_launcher_that_ends_all_and_starts_them_again(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, run = (
        train(tmp_path / "run", shop, "train.checkpoint_every=3", "train.checkpoint_share=1"),
        tmp_path / "run",
    )
    found = worlds.together(2, [str(HERE / "world_faults.py"), "kill_by_launcher", "1", "5", *command])
    assert [one.code for one in found] == [1, -9]
    assert_told_once(found, "process 1 of 2 is gone, in step 5")
    monkeypatch.setenv(RESTARTS, "1")
    found = worlds.together(2, ["-m", "rawrec", *command])
    assert [one.code for one in found] == [0, 0] and found[1].err == found[1].out == ""
    log = (run / "log.txt").read_text()
    assert "resumed at epoch 1, step 3" in log and log.count("finished") == log.count("evaluating") == 1
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def test_processes_that_were_started_unlike_are_refused_with_the_difference(shop: Path, tmp_path: Path) -> None:
    command = ["-m", "rawrec", *train(tmp_path / "run", shop)]
    first, second = worlds.together(2, command, own={1: ["train.lr=0.5"]})
    assert (first.code, second.code, second.err) == (2, 2, "")
    assert "process 1 of 2 differs from process 0 in train.lr: 0.5 instead of 0.003: start all alike" in first.err
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_in_use_is_named(shop: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (first,) = worlds.together(2, ["-m", "rawrec", *train(tmp_path, shop)], port=port, ranks=[0])
    assert first.code == 2 and f"port {port} (MASTER_PORT)" in first.err and "in use" in first.err


@pytest.mark.parametrize(
    ("model", "settings", "told"),
    [
        ("id", {"train.batch_size": 3}, "4 processes share a batch, and train.batch_size=3 has fewer samples"),
        ("lightgcn", {}, "model lightgcn is made of all interactions at once.*bpr, vbpr, sasrec and rankers"),
        ("pop", {}, "model pop is made of all interactions at once"),
        ("din", {}, "model.activation=dice standardises by statistics of a batch.*prelu"),
    ],
)
def test_what_several_processes_cannot_train_is_refused(model: str, settings: dict[str, Any], told: str) -> None:
    cfg = resolve(model, settings)
    check_shared(cfg, World())
    with pytest.raises(UserError, match=told):
        check_shared(cfg, World(0, 4))


def test_the_command_line_starts_the_processes(shop: Path, tmp_path: Path) -> None:
    done = forked.run(
        [sys.executable, "-m", "rawrec", *train(tmp_path / "run", shop, "train.processes=2")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1 of 1") == 1 and done.stdout.count("run folder: ") == 1
    assert (tmp_path / "run" / "metrics.json").is_file()


SLOW = """
import os
from rawrec.training import ranks
if os.environ["RANK"] != "0":
    ranks.LOOK = 1.0  # so that the first one, which holds the store, is done long before they look
with ranks.joined() as world:
    pass
"""


def test_the_first_process_stays_until_the_others_know_that_all_is_done() -> None:
    assert [one.code for one in worlds.together(3, ["-c", SLOW])] == [0, 0, 0]
