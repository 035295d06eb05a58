"""EM3's ranker, and the same on ids alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ranking_mixin import RankingMixin

from rawrec.config import RankerConfig
from rawrec.errors import UserError
from rawrec.models.losses import ContentIdContrast
from rawrec.models.ranking.em3 import HistoryContent, ItemColumns, Ranker, RankingBatch
from rawrec.training.system import item_columns
from systems import small_dataset

MODEL = {"dim": 8, "hidden": [32], "dropout": 0.0}


class TestId(RankingMixin):
    settings = {"model": {**MODEL, "name": "id"}}  # noqa: RUF012
    reads_content = False


class TestHybrid(RankingMixin):
    settings = {"model": {**MODEL, "name": "em3"}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestFrozen(RankingMixin):
    settings = {"model": {**MODEL, "name": "em3"}, "paradigm": "frozen"}  # noqa: RUF012
    reads_content = True


class TestContentAlone(RankingMixin):
    """Without item ids, and histories without gradient."""

    settings = {  # noqa: RUF012
        "model": {**MODEL, "name": "em3", "item_id": False, "cic_weight": 0.0},
        "paradigm": "hybrid",
        "bank": {"history_grad": "none", "micro_batch": 8},
    }
    reads_content = True

    test_overfits_a_tiny_set = None  # two items in one history position and no id: not all labels can be told apart


# ----------------------------------------------------------------------------------------------------------- the ranker
NO_COLUMNS = ItemColumns({}, torch.zeros(9, 0))
KNOWN_USERS = torch.tensor([True, True, False, True])
KNOWN_ITEMS = torch.tensor([True] * 6 + [False] * 3)


def ranker(content: int | None = 5, columns: ItemColumns = NO_COLUMNS, **settings) -> Ranker:
    torch.manual_seed(0)
    made = Ranker(RankerConfig(dim=4, hidden=[8], **settings), KNOWN_USERS, KNOWN_ITEMS, columns, content).eval()
    for table in (made.user_bias, made.item_bias):
        torch.nn.init.normal_(table.weight)
    return made


def batch(users: list[int], items: list[list[int]], content: int | None = 5) -> RankingBatch:
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(9, content or 1, generator=generator)
    history = torch.tensor([[-1, 0, 4, 2], [-1, -1, -1, 7], [1, 2, 3, 4]])[: len(users)]
    rows = torch.tensor(items)
    past = HistoryContent(table[history.clamp(min=0)], history >= 0)
    if content is None:
        return RankingBatch(torch.tensor(users), rows, history)
    return RankingBatch(torch.tensor(users), rows, history, table[rows.clamp(min=0)], past)


def test_the_unknown_share_one_row() -> None:
    made = ranker()
    ids = made._ids(torch.tensor([0, 5, 6, 8, -1]), KNOWN_ITEMS)
    assert ids.tolist() == [1, 6, 0, 0, 0]
    base = made(batch([2, 2, 2], [[6, 7], [7, 8], [8, 0]]))
    other = made(batch([-1, 2, -1], [[6, 7], [7, 8], [8, 0]]))
    assert torch.equal(base, other)  # a user without training rows is as unknown as one not in the data
    assert not torch.equal(base, made(batch([0, 0, 0], [[6, 7], [7, 8], [8, 0]])))
    with torch.no_grad():
        made.user.weight[3] += 1
        made.item.weight[7:] += 1  # rows of unknown users and items are never read
    assert torch.equal(base, made(batch([2, 2, 2], [[6, 7], [7, 8], [8, 0]])))
    with torch.no_grad():
        made.item.weight[0] += 1
    assert not torch.equal(base, made(batch([2, 2, 2], [[6, 7], [7, 8], [8, 0]])))


def test_cold_items_differ_by_content_alone() -> None:
    cold = [[6, 7, 8]] * 3
    ids_only = ranker(None)(batch([0, 1, -1], cold, None))
    assert torch.equal(ids_only, ids_only[:, :1].expand_as(ids_only))
    with_content = ranker()(batch([0, 1, -1], cold))
    assert (with_content[:, 0] - with_content[:, 1]).abs().min() > 1e-5


def test_id_dropout_trains_the_unknown_rows() -> None:
    made = ranker(None, id_dropout=0.5)
    made.train()
    torch.manual_seed(0)
    many = RankingBatch(
        torch.zeros(200, dtype=torch.int64),
        torch.zeros(200, 1, dtype=torch.int64),
        torch.full((200, 1), -1),
    )
    share = (made._ids(many.items, KNOWN_ITEMS) == 0).float().mean()
    assert 0.35 < share < 0.65
    made(many).sum().backward()
    assert made.item.weight.grad.any(1).tolist() == [True, True] + [False] * 8
    assert made.user.weight.grad.any(1).tolist()[:2] == [True, True]
    made.eval()
    assert made._ids(many.items, KNOWN_ITEMS).min() == 1


def test_one_list_of_candidates_for_all_users() -> None:
    """`[1, candidates]`, as a full ranking gives them, is the same as the list repeated."""
    codes = ItemColumns(
        {"kind": (torch.tensor([1, 2, 0, 1, 2, 2, 1, 1]), torch.tensor([0, 2, 2, 3, 4, 4, 5, 6, 7, 8]), 3)},
        torch.randn(9, 2, generator=torch.Generator().manual_seed(5)),
    )
    for content, columns in ((None, NO_COLUMNS), (5, NO_COLUMNS), (5, codes)):
        made = ranker(content, columns)
        wide = made(batch([0, 1, 3], [[0, 7, 3, -1]] * 3, content))
        narrow = made(batch([0, 1, 3], [[0, 7, 3, -1]], content))
        assert wide.shape == (3, 4)
        torch.testing.assert_close(wide, narrow)
        single = torch.cat([made(batch([0, 1, 3], [[i]] * 3, content)) for i in (0, 7, 3, -1)], 1)
        torch.testing.assert_close(wide, single)


def test_interest_by_hand() -> None:
    """Equations 7 and 8: softmax over the history's valid items of (W_q c)(W_k h) / sqrt(d), sum of their content."""
    made, given = ranker(), batch([0, 1, 3], [[0, 1]] * 3)
    history = given.history_content
    got = made._attend(history, made.query(given.content) @ made.key.weight)
    for user in range(3):
        valid = history.valid[user]
        past = history.bank[user][valid]
        for k in range(2):
            scores = made.key(past) @ made.query(given.content[user, k]) / 4**0.5
            expected = torch.softmax(scores, 0) @ past
            torch.testing.assert_close(got[user, k], expected)
    empty = HistoryContent(torch.ones(1, 3, 5), torch.zeros(1, 3, dtype=torch.bool))
    assert not made._attend(empty, torch.ones(1, 2, 5)).any()


def test_padding_has_no_influence() -> None:
    made, given = ranker(), batch([0, 1, 3], [[0, 1]] * 3)
    base = made(given)
    given.history_content.bank[given.history < 0] = 100.0
    assert torch.equal(base, made(given))


@pytest.mark.parametrize("switch", ["user_id", "item_id"])
def test_ids_can_be_left_out(switch: str) -> None:
    made = ranker(**{switch: False})
    given = batch([0, 1, 3], [[0, 1]] * 3)
    base = made(given)
    table = made.user if switch == "user_id" else made.item
    bias = made.user_bias if switch == "user_id" else made.item_bias
    with torch.no_grad():
        table.weight += 1
        bias.weight += 1
    assert torch.equal(base, made(given))


def test_a_ranker_must_read_something() -> None:
    with pytest.raises(UserError, match=r"model\.user_id=false and model\.item_id=false"):
        ranker(None, user_id=False, item_id=False)


# ------------------------------------------------------------------------------------------------------------- contrast
def test_contrast_by_hand() -> None:
    torch.manual_seed(0)
    loss = ContentIdContrast(5, 4, temperature=0.3)
    content, ids = torch.randn(6, 5), torch.randn(6, 4)
    c = torch.nn.functional.normalize(loss.content(content), dim=1)
    i = torch.nn.functional.normalize(loss.id(ids), dim=1)
    total = 0.0
    for a, b in ((c, i), (i, c)):
        for k in range(6):
            logits = a[k] @ b.T / 0.3
            total -= float((logits[k] - torch.logsumexp(logits, 0)).detach()) / 6 / 2
    assert float(loss(content, ids).detach()) == pytest.approx(total, abs=1e-5)
    single = loss(content[:1].requires_grad_(), ids[:1])
    single.backward()
    assert single.item() == 0


def test_contrast_leaves_untrained_ids_out() -> None:
    made = ranker()
    content = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    got = made.contrast(torch.tensor([0, 7, 3, 8, 5]), content)
    expected = made.cic(content[[0, 2, 4]], made.item.weight[torch.tensor([1, 4, 6])])
    torch.testing.assert_close(got, expected)


# -------------------------------------------------------------------------------------------------------------- columns
def test_item_columns_are_made_of_training_items(tmp_path: Path) -> None:
    rows = [(0, i, i, float(i % 2)) for i in range(4)]
    kinds = [["a", "b"], ["b"], [], ["c"], ["d", "a"], ["d"]]
    data = small_dataset(tmp_path / "d", rows, 6, categorical=kinds)
    trained = np.array([True, True, True, True, False, False])
    columns = item_columns(data, trained, ["kind"])
    codes, ptr, size = columns.bags["kind"]
    assert size == 1 + 3 and columns.numbers.shape == (6, 0)
    bags = [codes[ptr[k] : ptr[k + 1]].tolist() for k in range(6)]
    assert bags[4][0] == 0 and bags[5] == [0] and bags[2] == []  # d was never seen in training
    assert bags[4][1] == bags[0][0] and bags[0][1] == bags[1][0]
    assert len({bags[0][0], bags[0][1], bags[3][0]}) == 3 and 0 not in (*bags[0], *bags[1], *bags[3])
    assert item_columns(data, trained, "all").bags.keys() == {"kind"} and not item_columns(data, trained, "none").bags
    with pytest.raises(UserError, match=r"model\.columns.*'kid'.*Known: kind"):
        item_columns(data, trained, ["kid"])


def test_numbers_are_standardised_by_training_items(shop: Path) -> None:
    from rawrec.data.dataset import Dataset

    data = Dataset.open(shop)
    trained = np.arange(60) < 30
    numbers = item_columns(data, trained, ["price"]).numbers.numpy()
    price = data.numeric("price")
    base = price[trained & np.isfinite(price)]
    expected = np.clip((price - base.mean()) / base.std(), -5, 5)
    there = np.isfinite(price)
    np.testing.assert_allclose(numbers[there, 0], expected[there], 1e-5, 1e-5)
    assert (numbers[:, 1] == ~there).all() and not numbers[~there, 0].any()


def test_columns_reach_the_score(shop: Path, tmp_path: Path) -> None:
    from systems import system

    made = system(shop, tmp_path, model__columns="all").eval()
    made.refresh(None, 0)
    items, history = torch.arange(60)[None], torch.full((1, 5), -1)
    given = made.batch_of(torch.tensor([0]), items, history, made.table())
    base = made.ranker(given)
    made.ranker.columns.numbers[:, 0] += 1
    assert (made.ranker(given) - base).abs().min() > 0
    outside = made.ranker(
        RankingBatch(given.users, torch.full((1, 60), -1), history, given.content, given.history_content)
    )
    assert outside.isfinite().all()
