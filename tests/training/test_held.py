"""What a process is said to hold is what it holds, to the byte."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.training.held import held_bytes
from rawrec.training.loading import task_of
from rawrec.training.steps import Steps

SMALL = {"model.dim": 8, "train.device": "cpu", "content.image.encoder": "random:conv", "content.image.size": 32}
SMALL |= {"content.title.use": False, "content.description.use": False, "model.hidden": [16], "content.dim": 16}


def size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(
    "bank", [{}, {"bank.history": "bank", "bank.dtype": "int8", "bank.capacity": 20}], ids=["whole", "small"]
)
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_process_holds_what_is_said(shop: Path, tmp_path: Path, ema: float, bank: dict[str, object]) -> None:
    torch.set_num_threads(1)
    data = Dataset.open(shop)
    cfg = resolve("em3", {**SMALL, **bank, "paradigm": "hybrid", "train.ema": ema})
    said = held_bytes(cfg, data.n_users, data.n_items)
    task = task_of(cfg)(cfg, data, tmp_path)
    loop = Steps(task, tmp_path)
    loop._step(task.begin_epoch(0)[:64])
    tables = {name: table for name, table in loop.optimiser.tables.items() if ".ids." in name}
    assert len(tables) == 4 and said["ids"] == said["best"] == size(table.weight for table in tables.values())
    moments = [moment for table in tables.values() for moment in table.moments or ()]
    assert said["optimiser"] == size(moments)
    averages = [values for t in tables.values() for values in (t.average, t.averaged) if values is not None]
    assert said.get("averages", 0) == size(averages)
    assert task.bank is not None and said["bank"] == size(task.bank._content.state("").values())
    assert said["ages"] == size([task.bank.written, task.bank.encoded])


def test_shares_of_tables_are_smaller() -> None:
    whole, shared = (resolve("id", {"model.dim": 8, "model.tables": tables}) for tables in ("replicated", "sharded"))
    assert held_bytes(whole, 100, 50, 4) == held_bytes(whole, 100, 50)
    assert held_bytes(shared, 100, 50, 1) == held_bytes(whole, 100, 50)
    assert held_bytes(shared, 100, 50, 4)["ids"] == (26 + 13) * (8 + 1) * 4


@pytest.mark.parametrize(
    ("tables", "processes", "gb"), [("replicated", 8, 780), ("sharded", 8, 121), ("sharded", 64, 39)]
)
def test_figures_on_paper(tables: str, processes: int, gb: int) -> None:
    """Those of docs/scale.md."""
    held = held_bytes(resolve("em3", {"model.tables": tables}), 10**9, 10**8, processes)
    assert round(sum(held.values()) / 1e9) == gb
