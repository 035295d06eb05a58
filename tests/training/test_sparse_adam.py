"""Two-tower retrieval models whose tables are touched by rows, in whole runs."""

from pathlib import Path

import pytest
import torch
from small_retrieval import make, settings

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.training.job import train

TABLES = {"bpr": {"user_embedding.weight", "item_embedding.weight"}, "vbpr": {"u_embedding", "i_embedding"}}


@pytest.mark.parametrize("model", list(TABLES))
def test_tables_are_updated_in_the_rows_of_the_batch(graph: Dataset, tmp_path: Path, model: str) -> None:
    loop = make(graph, tmp_path, model, train__optimizer="sparse_adam", train__batch_size=4)
    assert set(loop.optimiser.tables) == TABLES[model]
    before = {name: p.detach().clone() for name, p in loop.task.model.named_parameters()}
    loop._step(loop.task.begin_epoch(0)[:4])
    after = dict(loop.task.model.named_parameters())
    for name in TABLES[model]:
        changed = (after[name] != before[name]).any(1)
        assert 0 < int(changed.sum()) <= 8 < len(changed)


@pytest.mark.parametrize("model", list(TABLES))
def test_it_learns_as_well_as_dense_adam(graph: Dataset, tmp_path: Path, model: str) -> None:
    found = {}
    for kind in ("adam", "sparse_adam"):
        own = settings(model, train__optimizer=kind, train__epochs=5)
        losses = [line["loss"] for line in train(model, graph, tmp_path / kind, own).metrics_lines()]
        assert losses[-1] < losses[0]
        found[kind] = losses
    assert found["adam"] != found["sparse_adam"]
    assert abs(found["adam"][-1] - found["sparse_adam"][-1]) < 0.05


def test_a_model_that_propagates_over_the_graph_is_refused(graph: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.optimizer=sparse_adam: in model lightgcn every user and item"):
        make(graph, tmp_path, "lightgcn", train__optimizer="sparse_adam")


def test_a_resumed_run_goes_on_to_the_bit(graph: Dataset, tmp_path: Path) -> None:
    given = {"train__optimizer": "sparse_adam", "train__epochs": 2, "train__ema": 0.9, "train__checkpoint_share": 1.0}
    whole = make(graph, tmp_path / "whole", "bpr", **given)
    whole.train()
    part = make(graph, tmp_path / "part", "bpr", **given)
    part._epoch()
    part._end_of_epoch(1.0, 1, 1)
    again = make(graph, tmp_path / "again", "bpr", **given)
    again.run = part.run
    again.restore()
    again.train()
    for (name, one), other in zip(whole.optimiser.state().items(), again.optimiser.state().values(), strict=True):
        assert torch.equal(one, other), name
    for one, other in zip(whole.task.model.parameters(), again.task.model.parameters(), strict=True):
        assert torch.equal(one, other)
