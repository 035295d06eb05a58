"""How a bank may keep its rows, which of a step's items are encoded, and what is told of the bank by popularity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rawrec.config import BankConfig, resolve
from rawrec.content.bank import Bank, BankView, Keeping
from rawrec.content.item_model import ItemModel
from rawrec.content.live import LiveContent
from rawrec.content.policy import LivePolicy
from rawrec.content.slots import Slots
from rawrec.content.stalest import Stalest
from rawrec.content.store import Store
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.training.tasks.impressions import ImpressionTask
from systems import STILL, content_of, live_of, system, trainer


def bank(items: int = 6, features: bool = False, **keeping: Any) -> Bank:
    """Items of width 2, all with media."""
    static = {
        "hidden/x": Ragged.from_lengths(torch.arange(float(items))[:, None], torch.ones(items, dtype=torch.int64))
    }
    return Bank(items, 2, static, {"x": 3} if features else None, keeping=Keeping(**keeping))


# --------------------------------------------------------------------------------------------------------- the numbers
@pytest.mark.parametrize(("kind", "error"), [("float32", 0), ("bf16", 1 / 256), ("int8", 1 / 254)])
def test_stored_rows_are_as_near_as_their_numbers_allow(kind: Any, error: float) -> None:
    made = Store(5, 40, kind)
    values = torch.randn(3, 40) * torch.tensor([1e-4, 1.0, 1e4])[:, None]
    made.write(torch.tensor([4, 0, 2]), values)
    off = (made.rows(torch.tensor([4, 0, 2])) - values).abs().amax(1) / values.abs().amax(1)
    assert (off <= error * 1.001).all() and (not error or (off > 0).all())
    assert torch.equal(made.dense()[[4, 0, 2]], made.rows(torch.tensor([4, 0, 2]))) and not made.dense()[[1, 3]].any()
    assert made.dense().dtype == torch.float32 and made.rows(torch.tensor([[4], [1]])).shape == (2, 1, 40)
    made.write(torch.tensor([4]), torch.zeros(1, 40))
    assert not made.rows(torch.tensor([4])).any()


def test_bytes_of_a_row() -> None:
    assert [Store(10, 64, kind).nbytes / 10 for kind in ("float32", "bf16", "int8")] == [256, 128, 68]


@pytest.mark.parametrize("kind", ["float32", "bf16", "int8"])
def test_all_reading_of_a_bank_is_of_what_is_stored(kind: Any) -> None:
    made = bank(features=True, kind=kind)
    rows = torch.tensor([1, 4])
    made.write_features(rows, {"x": torch.randn(2, 3)}, 2)
    made.write(rows, torch.randn(2, 2), 2)
    index = torch.tensor([[4, -1], [1, 1]])
    assert torch.equal(made.gather(index), made.content[index.clamp(min=0)])
    assert torch.equal(made.rows(rows), made.content[rows])
    assert torch.equal(made.feature_rows("x", rows), made.features["x"][rows])
    other = bank(features=True, kind=kind)
    other.load_state({name: values.clone() for name, values in made.state().items()})
    assert torch.equal(other.content, made.content) and torch.equal(other.features["x"], made.features["x"])
    before = made.snapshot()
    made.write(rows, torch.randn(2, 2), 3)
    assert not torch.equal(made.content, other.content)
    made.restore(before)
    assert torch.equal(made.content, other.content) and made.written.tolist() == other.written.tolist()
    fresh = torch.randn(6, 2)
    made.publish(fresh, 9)
    assert torch.equal(made.content, fresh) and made.made.tolist() == [9] * 6


def test_momentum_keeps_a_share_of_a_row() -> None:
    made = bank(momentum=0.75)
    made.write(torch.tensor([1, 2]), torch.full((2, 2), 4.0), 0)
    assert made.content[1:3].tolist() == [[4, 4]] * 2  # there was nothing to keep
    made.write(torch.tensor([2, 3]), torch.zeros(2, 2), 1)
    assert made.content[1:4].tolist() == [[4, 4], [3, 3], [0, 0]]
    view = BankView(made)
    view.write(torch.tensor([2]), torch.ones(1, 2), 2)
    assert view.content[2].tolist() == [1, 1] and made.content[2].tolist() == [3, 3]  # evaluation reads fresh rows


# ------------------------------------------------------------------------------------------------------------ capacity
def test_who_was_used_longest_ago_loses_its_slot() -> None:
    made = Slots(10, 3)
    assert made.take(torch.tensor([4, 7, 2]), 0).tolist() == []
    made.touch(torch.tensor([[7, -1], [4, 9]]), 1)
    assert made.take(torch.tensor([5]), 2).tolist() == [2]
    assert made.take(torch.tensor([7, 8]), 3).tolist() == [4]
    assert sorted(made.item.tolist()) == [5, 7, 8] and (made.of >= 0).nonzero()[:, 0].tolist() == [5, 7, 8]
    assert made.item[made.of[torch.tensor([5, 7, 8])]].tolist() == [5, 7, 8]
    assert made.take(torch.tensor([1, 2, 3]), 3).sort().values.tolist() == [5, 7, 8]


def test_slots_against_a_plain_list() -> None:
    generator, made, order = torch.Generator().manual_seed(0), Slots(30, 7), list[int]()
    last: dict[int, int] = {}
    for step in range(60):
        rows = torch.randperm(30, generator=generator)[: int(torch.randint(1, 8, (1,), generator=generator))]
        kept = [row for row in order if row in rows]
        oldest = sorted((row for row in order if row not in rows), key=lambda row: (last[row], int(made.of[row])))
        lost = oldest[: max(len(order) + len(rows) - len(kept) - 7, 0)]
        assert sorted(made.take(rows, step).tolist()) == sorted(lost)
        order = [row for row in order if row not in lost and row not in rows] + rows.tolist()
        last |= dict.fromkeys(rows.tolist(), step)
        assert (made.of >= 0).nonzero()[:, 0].tolist() == sorted(order)


def test_a_bank_that_holds_fewer_rows_than_there_are_items() -> None:
    made = bank(features=True, capacity=3)
    everything = torch.arange(6)
    made.write_features(torch.tensor([0, 1, 2]), {"x": torch.eye(3)}, 0)
    assert not made.content.any() and made.rows(everything).eq(0).all()  # a row without content yet
    made.write(torch.tensor([0, 1, 2]), torch.tensor([[1.0, 1], [2, 2], [3, 3]]), 0)
    made.touch(torch.tensor([0, 2]), 1)
    made.write_features(torch.tensor([4]), {"x": torch.full((1, 3), 7.0)}, 2)
    made.write(torch.tensor([4]), torch.tensor([[5.0, 5]]), 2)
    assert made.content.tolist() == [[1, 1], [0, 0], [3, 3], [0, 0], [5, 5], [0, 0]]
    assert torch.equal(made.rows(everything), made.content)
    assert torch.equal(made.gather(torch.tensor([[4, 1]])), made.content[[4, 1]][None])
    assert made.written.tolist() == made.encoded.tolist() == [0, -1, 0, -1, 2, -1]
    assert made.feature_rows("x", everything).sum(1).tolist() == [1, 0, 1, 0, 21, 0]
    assert made.health(2)["bank/coverage"] == 0.5 and made.stale(None, 0).tolist() == [1, 3, 5]
    other = bank(features=True, capacity=3)
    other.load_state({name: values.clone() for name, values in made.state().items()})
    assert torch.equal(other.content, made.content) and torch.equal(
        other.feature_rows("x", everything), made.feature_rows("x", everything)
    )
    view = BankView(made)
    view.write(everything, torch.ones(6, 2), 3)  # evaluation holds a row of every item
    assert view.content.eq(1).all() and made.content[1].eq(0).all()
    before = made.snapshot()
    made.write(torch.tensor([3, 5]), torch.ones(2, 2), 4)
    made.restore(before)
    assert torch.equal(made.content, other.content)
    made.publish(torch.full((6, 2), 2.0), 5)
    assert made.content.eq(2).all() and made.rows(everything).eq(2).all()


def test_a_bank_that_is_smaller_than_what_is_written_at_once() -> None:
    made = bank(capacity=2)
    made.write(torch.tensor([0, 3, 4, 5]), torch.arange(8.0).view(4, 2), 0)
    assert made.written.tolist() == [-1, -1, -1, -1, 0, 0]  # the last of them
    assert made.content[4:].tolist() == [[4, 5], [6, 7]] and not made.content[:4].any()


def test_a_capacity_for_all_items_is_none() -> None:
    assert bank(capacity=6).slots is None and bank(capacity=9).exact


# ------------------------------------------------------------------------------------------------------------ refresher
def test_the_oldest_rows_are_found_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against sorting all rows in every step, whatever is written meanwhile, and however few are found at once."""
    monkeypatch.setattr("rawrec.content.stalest.AHEAD", 8)
    generator, made = torch.Generator().manual_seed(0), torch.full((40,), -1)
    valid = torch.ones(40, dtype=torch.bool)
    valid[::7] = False
    queue = Stalest(40)
    for step in range(80):
        made[torch.randperm(40, generator=generator)[:3]] = step
        found = queue.take(2, made, lambda: valid)
        rows = valid.nonzero()[:, 0]
        expected = rows[(made[rows] * 40 + rows).argsort()[:2]]
        assert found.tolist() == expected.tolist()
        made[found] = step
    rows = valid.nonzero()[:, 0]
    assert queue.take(100, made, lambda: valid).tolist() == rows[(made[rows] * 40 + rows).argsort()].tolist()
    assert Stalest(3).take(5, torch.zeros(3, dtype=torch.int64), lambda: torch.ones(3).bool()).tolist() == [0, 1, 2]


def test_a_bank_gives_its_oldest_rows() -> None:
    made = bank(capacity=4)
    made.write(torch.tensor([1, 3]), torch.ones(2, 2), 5)
    made.write(torch.tensor([4]), torch.ones(1, 2), 2)
    assert made.oldest(2).tolist() == [4, 1]  # of those that hold a row
    other = bank(capacity=4)
    other.load_state({name: values.clone() for name, values in made.state().items()})
    assert other.oldest(2).tolist() == made.oldest(2).tolist() == [3, 4]
    made = bank()
    made.valid[0] = False
    made.write(torch.tensor([1, 2]), torch.ones(2, 2), 5)
    assert made.oldest(2).tolist() == [3, 4]  # those that were never made come first


# ---------------------------------------------------------------------------------------------------------- live policy
def policy(counts: list[int] | None = None, **settings: Any) -> LivePolicy:
    return LivePolicy(BankConfig(**settings), np.array(counts or [1] * 100))


def drawn(made: LivePolicy, rows: torch.Tensor, seed: int) -> list[int]:
    return made.encoded(bank(100), rows, torch.Generator().manual_seed(seed)).tolist()


def test_a_share_of_the_candidates_is_encoded() -> None:
    rows = torch.arange(20, 70)
    made = policy(forward_rate=20)
    found = [drawn(made, rows, seed) for seed in range(200)]
    assert all(len(one) == 10 and one == sorted(one) and set(one) <= set(rows.tolist()) for one in found)
    assert drawn(made, rows, 3) == found[3] != found[4]
    counts = np.bincount(np.concatenate(found), minlength=100)[20:70]
    assert counts.min() > 20 and counts.max() < 62  # of 200 draws of one in five
    assert len(drawn(made, rows[:1], 0)) == 1 and drawn(made, rows[:0], 0) == []
    assert drawn(policy(), rows, 0) == rows.tolist()
    assert len(drawn(policy(forward_rate=20, live_budget=4), rows, 0)) == 4


def test_popular_candidates_are_encoded_more_often() -> None:
    rows = torch.arange(40)
    made = policy([0] * 10 + [1] * 10 + [9] * 20 + [0] * 60, forward_rate=25, sampling="popularity")
    counts = np.bincount(np.concatenate([drawn(made, rows, seed) for seed in range(300)]), minlength=100)
    assert counts[20:40].mean() > 4 * counts[:20].mean() and counts[:10].min() > 0  # cold ones count as once shown
    assert abs(counts[:10].mean() - counts[10:20].mean()) < 8


def test_a_gradient_goes_through_a_share_of_what_is_encoded() -> None:
    items, generator = torch.arange(-1, 50).view(3, 17), torch.Generator().manual_seed(0)
    encoded = torch.arange(0, 50, 2)
    found, count = policy(forward_rate=50, backward_rate=20).learning(bank(100), encoded, items, generator)
    assert count == 10 and sorted(found.tolist()) == encoded.tolist() and found.tolist() != encoded.tolist()
    assert found[:10].tolist() == sorted(found[:10].tolist())
    for settings in ({}, {"forward_rate": 20}, {"backward_rate": 100}):
        found, count = policy(**settings).learning(bank(100), encoded, items, generator)
        assert count is None and found is encoded


@pytest.mark.parametrize("micro_batch", [2, 3, 100])
def test_what_has_no_backward_pass_is_made_all_the_same(micro_batch: int) -> None:
    weight, seen = torch.ones(3, requires_grad=True), []

    def encode(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append((rows.tolist(), torch.is_grad_enabled()))
        return {"x": rows[:, None] * weight}

    encoded = torch.tensor([5, 2, 7, 1, 3])
    live = LiveContent(
        encode, lambda rows, encoded, features: 2 * features["x"], encoded, encoded, micro_batch, 0, learning=2
    )
    assert live.content[:, 0].tolist() == [10, 4, 14, 2, 6] and live.features["x"][:, 0].tolist() == [5, 2, 7, 1, 3]
    assert {row for rows, grad in seen if not grad for row in rows} >= {7, 1, 3}
    (live.leaf * torch.arange(1.0, 6)[:, None]).sum().backward()
    live.backward()
    assert weight.grad is not None and weight.grad.tolist() == [2 * (1 * 5 + 2 * 2)] * 3
    assert {row for rows, grad in seen if grad for row in rows} == {5, 2}


def test_a_rate_of_what_is_not_encoded_is_refused() -> None:
    with pytest.raises(UserError, match=r"bank.*backward_rate=50.*bank\.forward_rate=20"):
        resolve("em3", {"bank.forward_rate": 20, "bank.backward_rate": 50})
    assert resolve("em3", {"bank.forward_rate": 20}).bank.backward_rate is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"paradigm": "hybrid", "bank.forward_rate": 20}, "encodes nothing in a step"),
        ({"bank.sampling": "popularity"}, "all candidates are encoded"),
        ({"paradigm": "frozen", "bank.momentum": 0.5}, "writes every row once"),
        ({"paradigm": "frozen", "bank.capacity": 5}, "writes every row once"),
        ({"paradigm": "hybrid", "bank.dtype": "int8"}, "use bank.history=bank"),
        ({"paradigm": "hybrid", "bank.refresh_share": 0.1}, "use bank.history=bank"),
    ],
)
def test_settings_of_the_bank_that_would_do_nothing(words: dict, reason: str) -> None:
    with pytest.raises(UserError, match="would do nothing") as caught:
        resolve("em3", words)
    assert reason in str(caught.value)
    for key in ("momentum", "dtype", "capacity", "forward_rate", "sampling", "refresh_share"):
        value = {"dtype": "bf16", "sampling": "popularity", "capacity": 3}.get(key, 0.5)
        with pytest.raises(UserError, match="a setting of ranking models"):
            resolve("vbpr", {"paradigm": "end_to_end", f"bank.{key}": value})


# --------------------------------------------------------------------------------------------------------------- health
BUCKETS = {"cold": torch.tensor([1, 1, 0, 0, 0, 0]).bool(), "warm": torch.tensor([0, 0, 1, 1, 1, 1]).bool()}


def test_health_by_bucket() -> None:
    made = bank()
    made.group(BUCKETS)
    made.valid[5] = False
    made.write(torch.tensor([0, 2, 3]), torch.tensor([[1.0, 0], [1, 0], [0, 1]]), 2)
    made.write(torch.tensor([2, 3, 4]), torch.tensor([[0.0, 1], [0, 2], [1, 1]]), 6)
    found = made.health(8)
    assert found["bank/coverage"] == pytest.approx(4 / 5)
    assert found["bank/coverage/cold"] == 0.5 and found["bank/coverage/warm"] == 1
    assert found["bank/age_mean/cold"] == found["bank/age_p95/cold"] == 6 and found["bank/age_mean/warm"] == 2
    assert found["bank/drift"] == found["bank/drift/warm"] == 0.5 and found["bank/drift/cold"] is None
    assert made.health(8)["bank/drift/warm"] is None
    other = bank()
    other.group(BUCKETS)
    made.write(torch.tensor([0]), torch.tensor([[0.0, 1]]), 9)
    state = {name: values.clone() for name, values in made.state(health=True).items()}
    other.load_state(state)
    assert other.health(9)["bank/drift/cold"] == 1
    other.load_state(
        {name: values for name, values in state.items() if name != "drift.buckets"}
    )  # an earlier version's
    assert other.health(9)["bank/drift"] == 1


def test_likeness_to_fresh_rows_by_bucket() -> None:
    made = bank()
    made.group(BUCKETS | {"rare": torch.zeros(6, dtype=torch.bool)})
    made.write(torch.tensor([0, 2, 3]), torch.tensor([[1.0, 0], [1, 0], [0, 1]]), 2)
    view = BankView(made)
    view.write(torch.arange(6), torch.tensor([[2.0, 0], [1, 1], [0, 1], [0, 3], [1, 1], [1, 1]]), 3)
    made.compare(view, torch.arange(6))  # what was never written is not compared
    found = made.likeness()
    assert found == {
        "bank/cosine": pytest.approx(2 / 3),
        "bank/cosine/cold": 1,
        "bank/cosine/warm": 0.5,
        "bank/cosine/rare": None,
    }
    assert made.likeness()["bank/cosine"] is None


# ---------------------------------------------------------------------------------------------------------- in a system
def test_a_step_encodes_and_learns_from_its_shares(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(shop, tmp_path, bank__forward_rate=50, bank__backward_rate=25, train__batch_size=48, **STILL)
    task, rows = made.task, made.task.samples.rows(0)[:48]
    candidates = np.unique(task.data.items[rows])
    candidates = candidates[task.bank.valid.numpy()[candidates]]
    seen: list[tuple[list[int], bool]] = []
    encode = ItemModel.encode
    monkeypatch.setattr(
        ItemModel,
        "encode",
        lambda self, b, r: (seen.append((r.tolist(), torch.is_grad_enabled())), encode(self, b, r))[1],
    )
    made._step(rows)
    learned, others = ([row for r, grad in seen if grad is way for row in r] for way in (True, False))
    n = len(candidates)
    assert len(learned) == -(-n // 4) and len(learned) + len(others) == -(-n // 2)
    assert set(learned) | set(others) <= set(candidates.tolist()) and not set(learned) & set(others)
    assert (task.bank.encoded[task.bank.valid] == 0).all()  # as the warm start wrote them, too
    made._step(rows)
    assert int((task.bank.encoded == 1).sum()) == -(-n // 2)


def test_the_refresher_makes_the_oldest_rows_anew(shop: Path, tmp_path: Path) -> None:
    made = trainer(shop, tmp_path, bank__refresh_share=0.5, bank__forward_rate=20, **STILL)
    task = made.task
    task.bank.encoded[task.bank.valid] = 3
    old = task.bank.valid.nonzero()[:, 0][torch.tensor([2, 5, 9])]
    task.bank.encoded[old] = torch.tensor([0, 1, 2])
    made.progress.step = 7
    rows = task.samples.rows(0)[:256]
    made._step(rows)
    fresh = (task.bank.encoded == 7).nonzero()[:, 0]
    assert torch.isin(old, fresh).all()
    encoded = -(-len(np.unique(task.data.items[rows])) // 5)
    assert encoded < len(fresh) <= encoded + -(-encoded // 2)
    task.eval()
    torch.testing.assert_close(task.bank.content[old], content_of(task, old).detach())  # by the weights after the step


def test_an_oracle_makes_every_row_anew(shop: Path, tmp_path: Path) -> None:
    made = trainer(shop, tmp_path, bank__refresh_share="all", bank__forward_rate=20, **STILL)
    task = made.task
    for at in range(2):
        made._step(task.samples.rows(0)[64 * at : 64 * (at + 1)])
    task.eval()
    rows = task.bank.valid.nonzero()[:, 0]
    torch.testing.assert_close(task.bank.content[rows], content_of(task, rows).detach())
    assert task.bank.health(made.progress.step)["bank/age_mean"] == 1


def test_small_numbers_are_read_as_they_are_stored(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path, bank__dtype="int8", **STILL)
    made.refresh(None, 0)
    users, items = torch.arange(4), torch.arange(4)[:, None]
    history = torch.arange(10, 30).view(4, 5)
    given = made.live.batch(users, items, history, live_of(made, torch.zeros(0, dtype=torch.int64)))
    exact = content_of(made.eval(), torch.arange(60)).detach()
    off = (given.content[:, 0] - exact[:4]).abs().amax(1) / exact[:4].abs().amax(1)
    assert 0 < off.max() <= 1 / 254 * 1.1
    assert torch.equal(given.history_content.bank, made.bank.rows(history))
    with made.view(None, 1):  # evaluation reads fresh rows, whole
        torch.testing.assert_close(made.table().values, exact)


def test_a_capacity_below_the_catalogue_in_a_step(shop: Path, tmp_path: Path) -> None:
    made = trainer(shop, tmp_path, bank__capacity=30, train__batch_size=64, **STILL)
    task: ImpressionTask = made.task
    assert task.bank.slots is not None and int((task.bank.written >= 0).sum()) == 30
    made._step(task.samples.rows(0)[:64])
    items = np.unique(task.data.items[task.samples.rows(0)[:64]])
    items = items[task.bank.valid.numpy()[items]][-30:]
    assert (task.bank.written[items] == 0).all() and int((task.bank.written >= 0).sum()) == 30
    fresh = system(shop, tmp_path / "other", bank__capacity=10)
    fresh.begin()
    popular = np.argsort(-np.where(fresh.bank.valid.numpy(), fresh.train_counts, -1), kind="stable")[:10]
    assert sorted(popular.tolist()) == (fresh.bank.written >= 0).nonzero()[:, 0].tolist()
