"""Items are made anew beside those of a step, within a budget, and what that costs is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rawrec.data.dataset import Dataset
from rawrec.errors import IdleSetting
from rawrec.stream.trainer import Trainer
from rawrec.training.runs import RunFolder
from streams import SETTINGS, check_same, events_of, go_on, write

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "online" / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["hybrid", "end_to_end"])
def test_refreshed_items_are_fresher_and_counted(
    kind: str, copied: Callable[..., Path], data: Dataset, tmp_path: Path
) -> None:
    url = f"sqlite:{tmp_path / 'events.db'}"
    end = write(url, events_of(data, 40))
    whole, pieces, without = copied(kind, "whole"), copied(kind, "pieces"), copied(kind, "without")
    given: dict[str, Any] = {"refresh_share": 0.5, "refresh_popular": 0.4, "data": data}
    found = go_on(whole, url, **given)
    for until in (12, 50, end):
        go_on(pieces, url, until, **given)
    check_same(whole, pieces)
    quiet = go_on(without, url, data=data)
    made, more = found["counts"]["made_items"], found["counts"]["refreshed_items"]
    assert 0 < more <= 0.5 * made + found["step"] and "refreshed_items" not in quiet["counts"]
    assert quiet["counts"]["made_items"] == made
    one, other = lines_of(whole), lines_of(without)
    assert one[-1]["refreshed_items"] > 0 == other[-1]["refreshed_items"]
    assert one[-1]["bank/age_mean"] < other[-1]["bank/age_mean"]


def test_a_part_of_the_budget_is_of_what_is_popular_now(copied: Callable[..., Path], data: Dataset) -> None:
    run = copied("hybrid")
    (run / "online").mkdir()
    given = SETTINGS | {"refresh_share": 1.0, "refresh_popular": 0.5}
    task = Trainer(RunFolder.open(run), run / "online", given, data).task
    assert task.bank is not None
    none = torch.zeros(0, dtype=torch.int64)
    task.bank.encoded[:] = 5
    task.bank.written[:] = 5
    task.bank.encoded[[7, 8, 9]] = 1
    task.bank.written[[7, 8, 9]] = 1
    assert task.refreshed(none, 6, 3).tolist() == [7, 8, 9]  # nothing was popular yet
    task._popularity([20] * 30 + [21] * 30)
    task.bank._stalest = None
    rows = task.refreshed(none, 6, 3)
    assert {7, 8, 9} < set(rows.tolist()) <= {7, 8, 9, 20, 21} and torch.equal(rows, rows.unique())
    assert not set(task.refreshed(torch.tensor([20, 21]), 6, 3).tolist()) & {20, 21}  # the step made them itself
    task._popularity(list(range(5000)))
    assert int(task._latest.min()) == 5000 - 4096


def test_a_refresher_without_work_is_refused(copied: Callable[..., Path], data: Dataset) -> None:
    for kind, given, said in (
        ("id", {"refresh_share": 1.0}, "reads no content"),
        ("frozen", {"online.refresh_share": 1.0}, "never becomes stale"),
        ("hybrid", {"refresh_popular": 0.5}, "no item is refreshed"),
    ):
        run = copied(kind, kind)
        (run / "online").mkdir()
        with pytest.raises(IdleSetting, match=said):
            Trainer(RunFolder.open(run), run / "online", given, data)
