"""LoRA on projections and fusion (EM3 eq. 9): two phases of one run, exact to resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import systems
from rawrec.content import lora
from rawrec.errors import UserError
from rawrec.onednn import Linear
from rawrec.training import state as checkpoint
from rawrec.training.job import load_task, resume, train
from rawrec.training.runs import RunFolder
from systems import Stop, config, digest, settings, stopping_after, system

PHASES: dict[str, Any] = {
    "paradigm": "hybrid",
    "train__epochs": 2,
    "train__checkpoint_every": 3,
    "content__lora__handover": "epoch:1",
    "content__lora__rank": 2,
    "content__lora__history": 9,
    "content__image__train": "none",
    "content__text__train": "none",
}


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "TIMES", (*systems.TIMES, "lora/memory_mb", "lora/step_seconds"))


# ----------------------------------------------------------------------------------------------------------- equation 9
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_equation_9(stop_gradient: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(6, 4), torch.randn(5, 6)
    before = layer(x)
    lora.adapt([layer], 2, stop_gradient, seed=3)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-6)
    assert isinstance(layer, lora.LowRankLinear)
    with torch.no_grad():
        layer.lora_b.normal_()
    given = x.clone().requires_grad_()
    direction = torch.randn(5, 4)
    out = layer(given)
    torch.testing.assert_close(out, before + x @ layer.lora_a.T @ layer.lora_b.T)
    (out * direction).sum().backward()
    through_low_rank = direction @ layer.lora_b @ layer.lora_a
    expected = through_low_rank if stop_gradient else through_low_rank + direction @ layer.weight
    torch.testing.assert_close(given.grad, expected.detach())
    assert layer.weight.grad is None and all(p.grad is not None for p in (layer.lora_a, layer.lora_b, layer.bias))
    lora.release([layer])
    torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-6)
    assert type(layer) is Linear and set(dict(layer.named_parameters())) == {"weight", "bias"}


# --------------------------------------------------------------------------------------------------------------- a run
@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings(**PHASES), shop, tmp_path_factory.mktemp("phases") / "run").path


def test_both_phases_are_told(run: Path) -> None:
    first, second = lines_of(run)
    assert [line["lora/active"] for line in (first, second)] == [0, 1]
    assert [line["lora/history"] for line in (first, second)] == [5, 9]
    assert second["lora/parameters"] < first["lora/parameters"]
    for line in (first, second):
        assert line["lora/memory_mb"] > 0 and line["lora/step_seconds"] > 0


def test_matrices_are_frozen_at_their_averages_and_low_rank_ones_learn(shop: Path, tmp_path: Path) -> None:
    tree = settings(**PHASES, train__metric="logloss")
    seen: dict[str, Any] = {}

    def observe(event: str, **values: Any) -> None:
        path = tmp_path / "run" / "checkpoint" / "last.safetensors"
        if event == "epoch" and values["epoch"] == 1:
            seen.update(checkpoint.load(path)[0])

    train(tree, shop, tmp_path / "run", observer=observe)
    end = checkpoint.load(tmp_path / "run" / "checkpoint" / "last.safetensors")[0]
    frozen = [name for name in end if name.startswith("model.") and name.endswith(".lora_a")]
    assert len(frozen) == 3 + 4 + 1  # projections, attention, mm_proj
    for name in frozen:
        weight = name.replace("lora_a", "weight")
        assert torch.equal(seen[weight], end[weight])
        assert not any(name.startswith(f"optim.{weight.removeprefix('model.')}") for name in end)
        b = name.replace("lora_a", "lora_b")
        assert not seen[b].any() and end[b].any()
    first = seen["model.tower.fusion.mm_proj.weight"], seen["best.tower.fusion.mm_proj.weight"]
    assert torch.equal(*first)  # what is frozen is what was evaluated
    assert not torch.equal(seen["model.ranker.head.mlp.0.weight"], end["model.ranker.head.mlp.0.weight"])


def test_what_is_served_reads_what_it_learned_from(run: Path, shop: Path, tmp_path: Path) -> None:
    """The best epoch's phase: with LoRA, histories are long; else they are those of the first phase."""
    task = load_task(RunFolder.open(run))
    best = RunFolder.open(run).info()["best_epoch"]
    assert task.item_model is not None and task.item_model.adapted == (best == 2)
    assert task.samples.history == (9 if best == 2 else 5)  # type: ignore[union-attr]
    other = system(shop, tmp_path, **PHASES)
    assert other.item_model is not None
    plain = {name: value.clone() for name, value in other.state().items()}
    other.item_model.adapt()
    adapted = {name: value.clone() for name, value in other.state().items()}
    for state, length in ((plain, 5), (adapted, 9), (plain, 5)):
        other.load_state(state)
        assert other.item_model.adapted == (length == 9) and other.samples.history == length
        assert other.state().keys() == state.keys()


@pytest.mark.parametrize("handover", ["epoch:1", "settled"])
@pytest.mark.parametrize("paradigm", ["hybrid", "end_to_end"])
def test_resumed_in_either_phase(shop: Path, tmp_path: Path, handover: str, paradigm: str) -> None:
    own = {"paradigm": paradigm, "content__lora__handover": handover, "train__lr": 1e-4, "train__epochs": 3}
    if paradigm == "end_to_end":
        own["content__image__train"] = "top:1"
    tree = settings(**{**PHASES, **own, "train__batch_size": 512, "train__checkpoint_every": 2})
    whole = train(tree, shop, tmp_path / "whole").path
    active = [line["lora/active"] for line in lines_of(whole)]
    assert active[0] == 0 and active[-1] == 1
    with pytest.raises(Stop):
        train(tree, shop, tmp_path / "run", observer=stopping_after(6))
    stops = 0
    while True:
        try:
            resume(tmp_path / "run", stopping_after(7))
            break
        except Stop:
            stops += 1
    assert stops >= 2
    assert digest(tmp_path / "run") == digest(whole)


def test_early_stopping_ends_the_first_phase_only(shop: Path, tmp_path: Path) -> None:
    """Nothing gets better at a learning rate of next to nothing; the run goes on with LoRA, and stops then."""
    own = {"train__lr": 1e-12, "train__patience": 1, "train__epochs": 9, "content__lora__handover": "epoch:7"}
    tree = settings(**{**PHASES, **own, "train__batch_size": 2048, "train__ema": 0.0})
    active = [line["lora/active"] for line in lines_of(train(tree, shop, tmp_path / "run").path)]
    assert 0 < active.count(0) < 7 and active[-1] == 1 and len(active) < 9


def test_a_phase_that_never_came_is_told(shop: Path, tmp_path: Path) -> None:
    tree = settings(**{**PHASES, "content__lora__handover": "settled", "train__epochs": 1})
    run = train(tree, shop, tmp_path / "run")
    assert "training ended before the second phase" in (run.path / "log.txt").read_text()


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"content__lora__rank": 17}, r"content\.lora\.rank=17 is above the width content\.dim=16"),
        ({"content__lora__handover": "epoch:2"}, r"train\.epochs=2 leave no epoch after it; use train\.epochs=3"),
        ({"content__lora__handover": "step:2"}, r"use none, settled, or epoch:<n>"),
        ({"content__lora__history": 4}, r"content\.lora\.history=4 is shorter than data\.history=5"),
    ],
)
def test_impossible_settings(own: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**{**PHASES, **own})


def test_a_rank_above_a_narrow_feature(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"content\.lora\.rank=4: the matrix proj\.x makes 16 numbers of 3"):
        lora.check_rank([("proj.x", Linear(3, 16))], 4)
