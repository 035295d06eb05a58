"""The loop of retrieval models: steps, rates, stopping, what is kept and said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from small_retrieval import make, settings

from rawrec import RunStopped, UserError
from rawrec.data.dataset import Dataset
from rawrec.data.negatives import Negatives
from rawrec.models.graph import Interactions
from rawrec.training.job import train
from rawrec.training.optimiser import DECAY_EPOCHS
from rawrec.training.tasks.base import Result
from systems import TIMES


def test_the_best_epoch_is_kept(graph: Dataset, tmp_path: Path) -> None:
    run = train("bpr", graph, tmp_path / "run", settings("bpr", train__epochs=8, train__lr=0.3))
    values = [line["valid/recall@20"] for line in run.metrics_lines()]
    assert run.info()["best_epoch"] == int(np.argmax(values)) + 1
    assert json.loads((run.path / "metrics.json").read_text())["valid"]["recall@20"] == max(values)
    lines = pl.read_parquet(run.path / "topk.parquet")
    assert lines.columns[:2] == ["user", "items"] and "recall@20" in lines.columns


@pytest.mark.parametrize(("protocol", "epochs"), [("default", 4), ("mmrec", 5)])
def test_early_stopping(graph: Dataset, tmp_path: Path, protocol: str, epochs: int) -> None:
    """Weights that stand still: the first epoch is the best; three, or the fourth, without improvement end it."""
    still = {"train.lr": 1e-30, "train.patience": 3, "train.epochs": 50, "eval.protocol": protocol}
    run = train("bpr", graph, tmp_path / "run", settings("bpr") | still)
    assert len(run.metrics_lines()) == epochs and run.info()["best_epoch"] == 1


def test_only_mmrec_rounds_before_it_compares(graph: Dataset, tmp_path: Path) -> None:
    for protocol, expected in (("default", 0.12344), ("mmrec", 0.1234)):
        trainer = make(graph, tmp_path, eval__protocol=protocol)
        assert trainer._monitored(Result({"recall@20": 0.12344})) == expected


def test_users_who_have_taken_everything_give_no_negatives(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path)
    assert 0 in trainer.task.known.users and 0 not in trainer.task.pairs.users
    all_of_it = Interactions(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2, 2)
    trainer.task.known = all_of_it
    with pytest.raises(UserError, match="every user of the training part has taken all items"):
        trainer.task._with_negatives(Negatives(*all_of_it, pool=torch.arange(2)))


def test_models_without_negatives_learn_from_every_pair(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path, "bm3")
    assert trainer.task.negatives is None and len(trainer.task.pairs.users) == (graph.split() == 0).sum()


def test_three_steps_are_those_of_dense_adam(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path, train__weight_decay=0.01, train__lr=0.01)
    plain = make(graph, tmp_path / "plain", train__weight_decay=0.01)
    optimizer = torch.optim.Adam(plain.optimiser.parameters, lr=0.01, weight_decay=0.01, fused=False, foreach=False)
    for rows in torch.randperm(len(trainer.task.pairs.users), generator=torch.Generator().manual_seed(0)).split(70)[:3]:
        draw = trainer.task.negatives.draw
        drawn: list[torch.Tensor] = []
        trainer.task.negatives.draw = lambda *a, f=draw, drawn=drawn: drawn.append(f(*a)) or drawn[0]  # type: ignore
        trainer._step(rows)
        trainer.task.negatives.draw = draw  # type: ignore[method-assign]
        optimizer.zero_grad()
        plain.task.model.loss(plain.task.pairs.users[rows], plain.task.pairs.items[rows], drawn[0], {})[
            "loss"
        ].backward()
        optimizer.step()
    for ours, theirs in zip(trainer.optimiser.parameters, plain.optimiser.parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_falls(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path, train__lr_decay=0.5, train__lr=0.1)
    rates = []
    for epoch in (0, DECAY_EPOCHS // 2, DECAY_EPOCHS):
        trainer.progress.epoch, trainer.progress.position = epoch, 0
        trainer._epoch()
        rates.append(trainer.optimiser.torch.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1 * 0.5**0.5, 0.05])


def test_a_loss_that_is_not_finite_stops_the_run(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path)
    with torch.no_grad():
        trainer.optimiser.parameters[0].fill_(torch.inf)
    before = [p.detach().clone() for p in trainer.optimiser.parameters]
    with pytest.raises(RunStopped, match=r"no checkpoint yet.*lower train\.lr"):
        trainer._epoch()
    assert (
        all(torch.equal(a, b) for a, b in zip(before, trainer.optimiser.parameters, strict=True))
        and not trainer.progress.step
    )


def test_metrics_of_every_epoch(graph: Dataset, tmp_path: Path) -> None:
    events: list[tuple[str, dict]] = []
    run = train("freedom", graph, tmp_path / "run", settings("freedom"), observer=lambda e, **v: events.append((e, v)))
    line = run.metrics_lines()[-1]
    assert {"epoch", "step", "loss", "valid/recall@20", "valid/ndcg@5", "valid/map@5", *TIMES} <= line.keys()
    assert any(key.startswith("loss/") for key in line)
    assert [e for e, _ in events if e not in ("step", "note")] == ["epoch", "validated"] * 3 + [
        "evaluating",
        "evaluated",
    ]
    assert events[0][0] == "note" and "without a negative, left out" in events[0][1]["text"]
    assert list((run.path / "tensorboard").iterdir())
    info = run.info()
    assert info["paradigm"] == "hybrid" and info["parameters"]["model"] > 0 and info["steps"] == line["step"]
