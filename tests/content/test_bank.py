"""The rules of the bank, where it meets a batch and a training step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rawrec.content.bank import Bank
from rawrec.content.item_model import ItemModel
from rawrec.data.ragged import Ragged
from rawrec.errors import RunStopped
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.history import HistoryContent
from rawrec.training.tasks.impressions import ImpressionTask
from systems import STILL, content_of, live_of, system, trainer, weights


@pytest.fixture
def bank() -> Bank:
    """Six items of width 2; item 3 has no media."""
    lengths = torch.tensor([1, 1, 1, 0, 1, 1])
    return Bank(6, 2, {"feature/x": Ragged.from_lengths(torch.arange(5.0)[:, None], lengths)})


@pytest.fixture
def trained(bank: Bank) -> Bank:
    """The same, but a trained encoder makes features of width 3."""
    return Bank(6, 2, bank.static, {"x": 3})


@pytest.fixture
def features_only(bank: Bank) -> Bank:
    """The same items, whose features are read as they are: there is no content."""
    return Bank(6, 0, {"hidden/x": bank.static["feature/x"]}, {"x": 3})


def test_locate_finds_positions_and_leaves_no_trace(bank: Bank) -> None:
    live = torch.tensor([4, 1, 5])
    wanted = torch.tensor([[1, -1, 0], [4, 5, 4]]), torch.tensor([3, 5])
    found = bank.locate(live, *wanted)
    assert found[0].tolist() == [[1, -1, -1], [0, 2, 0]] and found[1].tolist() == [-1, 2]
    (again,) = bank.locate(torch.tensor([0]), torch.arange(6))
    assert again.tolist() == [0, -1, -1, -1, -1, -1]


def test_written_rows_are_detached_and_dated(bank: Bank) -> None:
    content = torch.ones(2, 2, requires_grad=True) * 3
    bank.write(torch.tensor([4, 0]), content, 7)
    assert not bank.content.requires_grad
    assert bank.written.tolist() == [7, -1, -1, -1, 7, -1]
    assert bank.content.sum(1).tolist() == [6, 0, 0, 0, 6, 0]


def test_gather_reads_into_one_memory(bank: Bank) -> None:
    bank.write(torch.arange(6), torch.randn(6, 2), 0)
    rows = torch.tensor([[5, -1, 0], [3, 3, 2]])
    first = bank.gather(rows)
    assert torch.equal(first, bank.content[rows.clamp(min=0)])
    weights = torch.ones(2, 1, 3, requires_grad=True)
    mixed = (weights @ first).sum()
    again = bank.gather(rows.flip(0))
    assert again.data_ptr() == first.data_ptr() and torch.equal(again, bank.content[rows.flip(0).clamp(min=0)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # never a wrong gradient
        mixed.backward()
    assert bank.gather(torch.zeros(4, 0, dtype=torch.int64)).shape == (4, 0, 2)
    assert bank.gather(torch.tensor([1])).tolist() == bank.content[1:2].tolist()


def test_stale_rows_are_those_with_media_written_before(bank: Bank) -> None:
    bank.write(torch.tensor([0, 1]), torch.ones(2, 2), 4)
    bank.write(torch.tensor([2]), torch.ones(1, 2), 5)
    assert bank.stale(None, 5).tolist() == [0, 1, 4, 5]
    assert bank.stale(torch.tensor([[2, 3, -1], [5, 0, 5]]), 5).tolist() == [0, 5]
    assert bank.stale(None, 6).tolist() == [0, 1, 2, 4, 5]
    assert bank.stale(None, 0).tolist() == [4, 5]


def test_with_trained_encoders_age_is_that_of_the_encoding(trained: Bank) -> None:
    trained.write(torch.arange(6), torch.ones(6, 2), 4)
    assert trained.stale(None, 0).tolist() == [0, 1, 2, 4, 5]
    features = torch.ones(2, 3, requires_grad=True) * 2
    trained.write_features(torch.tensor([5, 1]), {"x": features}, 3)
    assert trained.features["x"].sum(1).tolist() == [0, 6, 0, 0, 0, 6] and not trained.features["x"].requires_grad
    assert trained.encoded.tolist() == [-1, 3, -1, -1, -1, 3]
    assert trained.stale(None, 3).tolist() == [0, 2, 4] and trained.stale(None, 4).tolist() == [0, 1, 2, 4, 5]
    trained.write_features(torch.arange(6), {"x": torch.ones(6, 3)}, 6)
    assert trained.health(10)["bank/age_mean"] == 4


def test_health_by_hand(bank: Bank) -> None:
    assert bank.health(0) == {"bank/coverage": 0, "bank/age_mean": None, "bank/age_p95": None, "bank/drift": None}
    bank.write(torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]), 2)
    bank.write(torch.tensor([0, 1, 4]), torch.tensor([[0.0, 5.0], [0.0, 1.0], [1.0, 1.0]]), 6)
    bank.write(torch.tensor([5]), torch.ones(1, 2), 10)
    health = bank.health(10)
    assert health["bank/coverage"] == pytest.approx(4 / 5)
    assert health["bank/age_mean"] == pytest.approx((4 + 4 + 4 + 0) / 4)
    assert health["bank/age_p95"] == 4
    assert health["bank/drift"] == pytest.approx(((1 - 0) + (1 - 1)) / 2)  # item 0 turned by 90 degrees, item 1 stayed
    assert bank.health(10)["bank/drift"] is None


def test_health_without_content_is_that_of_features(features_only: Bank) -> None:
    bank = features_only
    assert bank.health(0)["bank/coverage"] == 0 and bank.stale(None, 0).tolist() == [0, 1, 2, 4, 5]
    bank.write_features(torch.tensor([0, 3, 4]), {"x": torch.eye(3) * torch.tensor([1.0, 0.0, 1.0])}, 2)
    bank.write_features(torch.tensor([3, 4, 0]), {"x": torch.tensor([[0.0] * 3, [0, 0, 5], [0, 1, 0]])}, 6)
    health = bank.health(8)
    assert health["bank/coverage"] == pytest.approx(2 / 5) and health["bank/age_mean"] == 2
    assert health["bank/drift"] == pytest.approx(((1 - 1) + (1 - 0)) / 2)  # item 3 has nothing that could drift


def test_stalest(features_only: Bank) -> None:
    features_only.encoded[:] = torch.tensor([5, 2, 7, -1, 5, 5])
    rows = torch.tensor([0, 1, 2, 4, 5])
    picked = [features_only.stalest(rows, 2, torch.Generator().manual_seed(seed)).tolist() for seed in range(20)]
    assert sorted({tuple(p) for p in picked}) == [(0, 1), (1, 4), (1, 5)]  # ties at random
    assert features_only.stalest(rows, 4, torch.Generator()).tolist() == [0, 1, 4, 5]
    assert torch.equal(features_only.stalest(rows, None, torch.Generator()), rows)


def test_state_round_trip(bank: Bank) -> None:
    bank.write(torch.tensor([0, 2]), torch.randn(2, 2), 3)
    bank.write(torch.tensor([0]), torch.randn(1, 2), 4)
    other = Bank(6, 2, bank.static)
    other.load_state({k: v.clone() for k, v in bank.state().items()})
    assert torch.equal(other.content, bank.content) and torch.equal(other.written, bank.written)
    assert other.health(9) == bank.health(9)


def test_state_holds_the_features_of_trained_encoders(trained: Bank) -> None:
    trained.write_features(torch.tensor([1, 2]), {"x": torch.randn(2, 3)}, 5)
    other = Bank(6, 2, trained.static, {"x": 3})
    other.load_state({k: v.clone() for k, v in trained.state().items()})
    assert torch.equal(other.features["x"], trained.features["x"]) and torch.equal(other.encoded, trained.encoded)


# --------------------------------------------------------------------------------------------------- histories' content
@pytest.mark.parametrize("length", [0, 3, 40])
@pytest.mark.parametrize("n_live", [0, 1, 7])
def test_history_content_is_the_plain_substitution(length: int, n_live: int) -> None:
    """Both ways (live rows kept apart or put in) against index arithmetic: values and gradients."""
    torch.manual_seed(length + n_live)
    batch, candidates, dim = 4, 2, 3
    bank = torch.randn(batch, length, dim)
    position = torch.randint(-1, n_live, (batch, length)) if n_live else torch.full((batch, length), -1)
    weights, query = torch.randn(batch, candidates, length), torch.randn(batch, candidates, dim)
    results = []
    for way in ("class", "plain"):
        live = torch.linspace(-1, 1, n_live * dim).view(n_live, dim).requires_grad_()
        q = query.clone().requires_grad_()
        if way == "class":
            made = HistoryContent(bank.clone(), position >= -1, position, live)
            if n_live and length:
                assert made.split == (n_live <= 2 * length)
            scores, mixed = made.scores(q), made.mix(weights)
        else:
            full = bank.clone()
            full = torch.where(position[..., None] >= 0, live[position.clamp(min=0)], full) if n_live else full
            scores, mixed = torch.einsum("bcd,bhd->bch", q, full), torch.einsum("bch,bhd->bcd", weights, full)
        loss = (scores * weights).sum() + mixed.square().sum()
        if loss.requires_grad:
            loss.backward()
        grad = torch.zeros_like(live) if live.grad is None else live.grad
        results.append((scores.detach(), mixed.detach(), q.grad if length else torch.zeros_like(q), grad))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    if n_live and (position >= 0).any():
        assert results[0][3].any()


# ---------------------------------------------------------------------------------------------------------- in a system
def some_batch(made: ImpressionTask, n: int = 48) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = made.samples.rows(0)[-n:]
    return made.tensors(made.samples.impressions(rows, 0, np.random.default_rng(0)), 0)


@pytest.mark.parametrize("history_grad", ["live", "none"])
def test_live_rows_stand_in_for_the_banks(shop: Path, tmp_path: Path, history_grad: str) -> None:
    made = system(shop, tmp_path, bank__history_grad=history_grad, **STILL)
    made.refresh(None, 0)
    users, items, history = some_batch(made)
    rows = torch.unique(items)[::2]
    rows = rows[made.bank.valid[rows]]
    live = live_of(made, rows)
    with torch.no_grad():
        live.leaf += 1  # now a live row differs from the bank's
    batch = made.live.batch(users, items, history, live)
    position = dict(zip(rows.tolist(), live.leaf.detach(), strict=True))
    for row, content in zip(items.flatten().tolist(), batch.content.flatten(0, 1), strict=True):
        torch.testing.assert_close(content.detach(), position.get(row, made.bank.content[row]), rtol=0, atol=0)

    past = batch.history_content
    one_hot = torch.eye(history.shape[1]).expand(len(history), -1, -1)
    read = past.mix(one_hot)
    for row, content in zip(history.flatten().tolist(), read.detach().flatten(0, 1), strict=True):
        if row >= 0:
            torch.testing.assert_close(content, position.get(row, made.bank.content[row]))
    known = (history >= 0) & made.bank.valid[history.clamp(min=0)]
    assert torch.equal(past.valid, known)

    used = torch.isin(history, rows)
    assert used.any() and not made.bank.content.requires_grad
    assert read.requires_grad == (history_grad == "live")
    if read.requires_grad:
        read.sum().backward()
        in_history = torch.isin(rows, history)
        assert torch.equal(live.leaf.grad.any(1), in_history)


def test_candidates_learn_without_gradient_in_histories(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path, bank__history_grad="none", **STILL)
    made.refresh(None, 0)
    users, items, history = some_batch(made)
    rows = torch.unique(items)
    rows = rows[made.bank.valid[rows]]
    grads = {}
    for name, candidates in (("all", items), ("first", items[:1])):
        live = live_of(made, rows)
        size = len(candidates)
        made.ranker(made.live.batch(users[:size], candidates, history[:size], live)).sum().backward()
        grads[name] = live.leaf.grad.any(1)
    assert torch.equal(rows[grads["first"]], items[0])
    assert grads["all"].all()


def test_a_row_never_written_is_not_read(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path, **STILL)
    users, items, history = some_batch(made)
    made.refresh(history[history >= 0][:3], 0)
    live = live_of(made, torch.zeros(0, dtype=torch.int64))
    batch = made.live.batch(users, items, history, live)
    written = (history >= 0) & (made.bank.written[history.clamp(min=0)] >= 0)
    assert written.any() and torch.equal(batch.history_content.valid, written)
    assert not made.table().valid[made.bank.written < 0].any()


def test_hybrid_has_histories_live_too_and_end_to_end_has_not(shop: Path, tmp_path: Path) -> None:
    items, history = torch.tensor([[5], [7], [5]]), torch.tensor([[9, -1], [7, 11]])
    for paradigm, expected in (("end_to_end", [5, 7]), ("hybrid", [5, 7, 9, 11])):
        made = system(shop, tmp_path, paradigm=paradigm)
        made.bank.valid[:] = True
        rows, encoded = made.live.rows(items, history, torch.Generator().manual_seed(0))
        assert rows.tolist() == expected and encoded.tolist() == (expected if paradigm == "end_to_end" else [])
        made.bank.valid[7] = False
        assert 7 not in made.live.rows(items, history, torch.Generator().manual_seed(0))[0]


def test_a_live_budget_encodes_the_stalest(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path, bank__live_budget=4)
    made.bank.valid[:] = True
    made.bank.encoded[:] = 9
    made.bank.encoded[torch.tensor([3, 30, 17])] = torch.tensor([2, -1, 5])
    items = torch.arange(60).repeat(2)
    none = torch.zeros(0, dtype=torch.int64)
    live = [made.live.rows(items, none, torch.Generator().manual_seed(seed)) for seed in range(20)]
    picked = [encoded for _, encoded in live]
    assert all(len(p) == 4 and {3, 17, 30} <= set(p.tolist()) and p.tolist() == sorted(p.tolist()) for p in picked)
    assert len({tuple(p.tolist()) for p in picked}) > 5  # ties are broken at random
    assert all(rows.tolist() == list(range(60)) for rows, _ in live)  # the others are fused from the bank's features
    again = made.live.rows(items, none, torch.Generator().manual_seed(0))
    assert torch.equal(picked[0], again[1])
    assert len(made.live.rows(torch.tensor([1, 2, 3]), none, torch.Generator())[1]) == 3
    made.bank.encoded[torch.arange(40, 60)] = -1
    rows, encoded = made.live.rows(items, none, torch.Generator().manual_seed(0))
    assert set(rows.tolist()) == set(range(40)) - {30} | set(encoded.tolist())  # without features: left out


def test_a_step_writes_each_live_row_once_after_the_checks(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(shop, tmp_path, train__accumulate=3, train__batch_size=20, bank__micro_batch=7, **STILL)
    bank, rows, writes = made.task.bank, made.task.samples.rows(0)[:60], []
    address, optimizer_step = bank.content.data_ptr(), made.optimiser.torch.step
    monkeypatch.setattr(made.optimiser.torch, "step", lambda: (writes.append("update"), optimizer_step()))
    write = bank.write
    monkeypatch.setattr(bank, "write", lambda r, c, s: (writes.append((r.clone(), c, s)), write(r, c, s)))
    before, expected = bank.content.clone(), content_of(made.task, torch.arange(60)).detach()
    made._step(rows)
    assert len(writes) == 2 and writes[0] == "update"
    written, _, step = writes[1]
    items = np.unique(made.task.data.items[rows])
    assert written.tolist() == items[bank.valid.numpy()[items]].tolist() and step == 0
    assert bank.content.data_ptr() == address and not bank.content.requires_grad
    torch.testing.assert_close(bank.content[written], expected[written])  # the content that the loss has seen
    untouched = np.setdiff1d(np.arange(60), written)
    assert torch.equal(bank.content[untouched], before[untouched])


def test_the_table_is_never_copied_in_a_step(shop: Path, tmp_path: Path) -> None:
    """No operation of a step makes or reads-and-copies a tensor with a row for every item of the bank."""
    from torch.utils._python_dispatch import TorchDispatchMode

    made = trainer(shop, tmp_path, train__batch_size=8, **STILL)
    made.optimiser.torch.zero_grad()
    size, large = made.task.bank.content.numel(), []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.layout != torch.strided:  # gradients of id tables
                return out
            same = isinstance(out, torch.Tensor) and out.data_ptr() == made.task.bank.content.data_ptr()
            if isinstance(out, torch.Tensor) and out.shape == made.task.bank.content.shape and not same:
                large.append(str(function))
            return out

    with Watch():
        made._step(made.task.samples.rows(0)[:8])
    assert size == 60 * 16 and large == []


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nothing_is_written_when_a_step_is_not_finite(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    made = trainer(shop, tmp_path, **STILL)
    forward = made.task.ranker.label_logits

    def broken(batch: RankingBatch) -> torch.Tensor:
        logits = forward(batch)
        if what == "loss":
            return logits * torch.nan
        logits.register_hook(lambda grad: grad * torch.inf)
        return logits

    monkeypatch.setattr(made.task.ranker, "label_logits", broken)
    before, content, written = weights(made.task), made.task.bank.content.clone(), made.task.bank.written.clone()
    with pytest.raises(RunStopped, match=f"the {what} of step 0"):
        made._step(made.task.samples.rows(0)[:32])
    after = weights(made.task)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(made.task.bank.content, content) and torch.equal(made.task.bank.written, written)


def test_refresh_encodes_exactly_the_stale_rows(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = system(shop, tmp_path, content__fusion__dropout=0.5)
    made.refresh(None, 0)
    encoded: list[int] = []
    encode = ItemModel.encode
    monkeypatch.setattr(ItemModel, "encode", lambda self, b, r: (encoded.extend(r.tolist()), encode(self, b, r))[1])
    made.bank.encoded[torch.tensor([4, 8])] = 3
    wanted = torch.tensor([[8, 9], [-1, 10]])
    wanted_valid = [r for r in (9, 10) if made.bank.valid[r]]
    made.train()
    assert made.refresh(wanted, 3) == len(wanted_valid)
    assert encoded == wanted_valid and made.training
    encoded.clear()
    assert made.refresh(wanted, 3) == 0 and encoded == []
    made.refresh(None, 4)
    assert sorted(encoded) == made.bank.valid.nonzero()[:, 0].tolist()
    made.eval()
    fresh = content_of(made, torch.arange(60))  # dropout was off
    torch.testing.assert_close(made.bank.content, fresh.detach())
