"""EM3's ranker, and the same on ids alone."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ranking_mixin import RankingMixin

from rawrec.config import DotMlpConfig
from rawrec.config.ranking import InputsConfig
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.models.losses import ContentIdContrast, draw_negatives
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.columns import ItemColumns, item_columns, mean_vectors
from rawrec.models.ranking.history import HistoryContent, attend
from rawrec.models.ranking.ranker import Ranker
from systems import small_dataset, system

MODEL = {"dim": 8, "hidden": [32], "dropout": 0.0}


class TestId(RankingMixin):
    """Parities are found late: from ids near zero, products of two ids are what has to grow."""

    settings = {  # noqa: RUF012
        "model": {**MODEL, "name": "id", "popularity": False},
        "train": {"epochs": 10, "patience": 10},
    }
    reads_content = False


class TestHybrid(RankingMixin):
    settings = {"model": {**MODEL, "name": "em3", "popularity": True}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestFrozen(RankingMixin):
    settings = {"model": {**MODEL, "name": "em3", "popularity": True}, "paradigm": "frozen"}  # noqa: RUF012
    reads_content = True


class TestContentAlone(RankingMixin):
    """Without item ids and popularity, and histories without gradient."""

    settings = {  # noqa: RUF012
        "model": {**MODEL, "name": "em3", "item_id": False, "popularity": False, "cic_weight": 0.0},
        "paradigm": "hybrid",
        "bank": {"history_grad": "none", "micro_batch": 8},
    }
    reads_content = True

    test_overfits_a_tiny_set = None  # two items in one history position and no id: not all labels can be told apart


# ----------------------------------------------------------------------------------------------------------- the ranker
NO_COLUMNS = ItemColumns({}, torch.zeros(10, 0), torch.zeros(5, 0))
KNOWN_USERS = torch.tensor([True, True, False, True])
KNOWN_ITEMS = torch.tensor([True] * 6 + [False] * 3)


def ranker(content: int | None = 5, columns: ItemColumns = NO_COLUMNS, **settings) -> Ranker:
    torch.manual_seed(0)
    made = Ranker(DotMlpConfig(dim=4, hidden=[8], **settings), KNOWN_USERS, KNOWN_ITEMS, columns, content).eval()
    for table in (made.inputs.ids.user_bias, made.inputs.ids.item_bias):
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
    ids = made.inputs.ids.item_codes(torch.tensor([0, 5, 6, 8, -1]))
    assert ids.tolist() == [1, 6, 0, 0, 0]
    base = made(batch([2, 2, 2], [[6, 7], [7, 8], [8, 0]]))
    other = made(batch([-1, 2, -1], [[6, 7], [7, 8], [8, 0]]))
    assert torch.equal(base, other)  # a user without training rows is as unknown as one not in the data
    assert not torch.equal(base, made(batch([0, 0, 0], [[6, 7], [7, 8], [8, 0]])))
    with torch.no_grad():
        made.inputs.ids.user.weight[3] += 1
        made.inputs.ids.item.weight[7:] += 1  # rows of unknown users and items are never read
    assert torch.equal(base, made(batch([2, 2, 2], [[6, 7], [7, 8], [8, 0]])))
    with torch.no_grad():
        made.inputs.ids.item.weight[0] += 1
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
    share = (made.inputs.ids.item_codes(many.items) == 0).float().mean()
    assert 0.35 < share < 0.65
    made(many).sum().backward()
    for table in (made.inputs.ids.item, made.inputs.ids.user):
        assert table.weight.grad.coalesce().indices()[0].tolist() == [0, 1]
        assert table.weight.grad.coalesce().values().any(1).all()
    made.eval()
    assert made.inputs.ids.item_codes(many.items).min() == 1


def test_one_list_of_candidates_for_all_users() -> None:
    """`[1, candidates]`, as a full ranking gives them, is the same as the list repeated."""
    codes = ItemColumns(
        {"kind": (torch.tensor([1, 2, 0, 1, 2, 2, 1, 1]), torch.tensor([0, 2, 2, 3, 4, 4, 5, 6, 7, 8]), 3)},
        torch.randn(10, 2, generator=torch.Generator().manual_seed(5)),
        torch.randn(5, 1, generator=torch.Generator().manual_seed(6)),
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
    got = attend(history, made.content.query(given.content) @ made.content.key.weight, 4)
    for user in range(3):
        valid = history.valid[user]
        past = history.bank[user][valid]
        for k in range(2):
            scores = made.content.key(past) @ made.content.query(given.content[user, k]) / 4**0.5
            expected = torch.softmax(scores, 0) @ past
            torch.testing.assert_close(got[user, k], expected)
    empty = HistoryContent(torch.ones(1, 3, 5), torch.zeros(1, 3, dtype=torch.bool))
    assert not attend(empty, torch.ones(1, 2, 5), 4).any()


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
    table = made.inputs.ids.user if switch == "user_id" else made.inputs.ids.item
    bias = made.inputs.ids.user_bias if switch == "user_id" else made.inputs.ids.item_bias
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


def negatives_by_hand(loss: ContentIdContrast, content: torch.Tensor, ids: torch.Tensor, masks: Any) -> torch.Tensor:
    """Eq. 12-14 of the negatives in `masks`, two of bool `[n, n]`, a row at a time."""
    c = torch.nn.functional.normalize(loss.content(content), dim=1)
    i = torch.nn.functional.normalize(loss.id(ids), dim=1)
    terms = []
    for a, b, mask in ((c, i, masks[0]), (i, c, masks[1])):
        for k in range(len(a)):
            logits = torch.cat([(a[k] @ b[k])[None], b[mask[k]] @ a[k]]) / loss.temperature
            terms.append(-logits.log_softmax(0)[0])
    return torch.stack(terms).mean()


def test_contrast_with_some_of_the_batch() -> None:
    """H others of each item and direction, drawn anew by torch's generator, never one of equal content."""
    torch.manual_seed(0)
    loss = ContentIdContrast(5, 4, temperature=0.3, negatives=2)
    content, ids = torch.randn(6, 5), torch.randn(6, 4)
    same = torch.tensor([0, 1, 0, 2, 3, 4])
    apart = same[:, None] != same
    torch.manual_seed(7)
    got = loss(content, ids, same)
    torch.manual_seed(7)
    masks = [draw_negatives(apart, 2) for _ in range(2)]
    assert not masks[0].equal(masks[1])
    for mask in masks:
        assert (mask.sum(1) == 2).all() and not (mask & ~apart).any()
    torch.testing.assert_close(got, negatives_by_hand(loss, content, ids, masks))
    few = torch.zeros(3, 3, dtype=torch.bool)
    few[0, 1] = few[1, 2] = few[1, 0] = True
    assert draw_negatives(few, 2).equal(few) and draw_negatives(few, 9).equal(few)
    assert draw_negatives(few, 1).sum(1).tolist() == [1, 1, 0]


def test_items_of_equal_content_are_no_negatives() -> None:
    torch.manual_seed(0)
    loss = ContentIdContrast(5, 4, temperature=0.3)
    content, ids = torch.randn(4, 5), torch.randn(4, 4)
    same = torch.tensor([5, 2, 5, 1])
    apart = same[:, None] != same
    torch.testing.assert_close(loss(content, ids, same), negatives_by_hand(loss, content, ids, (apart, apart)))
    assert loss(content, ids, torch.arange(4)).equal(loss(content, ids))


def test_contrast_leaves_untrained_ids_out() -> None:
    made = ranker()
    content = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    got = made.contrast(torch.tensor([0, 7, 3, 8, 5]), content)
    expected = made.content.cic(content[[0, 2, 4]], made.inputs.ids.item.weight[torch.tensor([1, 4, 6])])
    torch.testing.assert_close(got, expected)


# -------------------------------------------------------------------------------------------------------------- columns
def counts(items: Sequence[int], users: Sequence[int]) -> Any:
    """Training rows of items and of users, as `item_columns` reads them."""
    return SimpleNamespace(train_counts=np.array(items), train_users=np.array(users))


def test_item_columns_are_made_of_training_items(tmp_path: Path) -> None:
    rows = [(0, i, i, float(i % 2)) for i in range(4)]
    kinds = [["a", "b"], ["b"], [], ["c"], ["d", "a"], ["d"]]
    data = small_dataset(tmp_path / "d", rows, 6, categorical=kinds)
    trained = counts([1, 1, 1, 1, 0, 0], [4])
    columns = item_columns(data, trained, InputsConfig(columns=["kind"]))
    codes, ptr, size = columns.bags["kind"]
    assert size == 1 + 3 and columns.numbers.shape == (7, 0) and columns.users.shape == (2, 0)
    bags = [codes[ptr[k] : ptr[k + 1]].tolist() for k in range(6)]
    assert bags[4][0] == 0 and bags[5] == [0] and bags[2] == []  # d was never seen in training
    assert bags[4][1] == bags[0][0] and bags[0][1] == bags[1][0]
    assert len({bags[0][0], bags[0][1], bags[3][0]}) == 3 and 0 not in (*bags[0], *bags[1], *bags[3])
    assert item_columns(data, trained, InputsConfig(columns="all")).bags.keys() == {"kind"}
    assert not item_columns(data, trained, InputsConfig()).bags
    with pytest.raises(UserError, match=r"model\.columns.*'kid'.*Known: kind"):
        item_columns(data, trained, InputsConfig(columns=["kid"]))


def test_numbers_are_standardised_by_training_items(shop: Path) -> None:
    data = Dataset.open(shop)
    trained = np.arange(60) < 30
    numbers = item_columns(
        data, counts(trained * 2, np.ones(data.n_users)), InputsConfig(columns=["price"])
    ).numbers.numpy()
    assert numbers.shape == (61, 2)
    price = data.numeric("price")
    base = price[trained & np.isfinite(price)]
    expected = np.clip((price - base.mean()) / base.std(), -5, 5)
    there = np.isfinite(price)
    np.testing.assert_allclose(numbers[:60][there, 0], expected[there], 1e-5, 1e-5)
    assert (numbers[:60, 1] == ~there).all() and not numbers[:60][~there, 0].any()
    assert numbers[60].tolist() == [0, 1]  # an item outside the catalogue has no price


def test_popularity_is_the_log_of_training_rows(shop: Path) -> None:
    data = Dataset.open(shop)
    rng = np.random.default_rng(0)
    trained = counts(rng.integers(0, 9, 60), rng.integers(0, 9, data.n_users))
    columns = item_columns(data, trained, InputsConfig(popularity=True))
    for found, rows in ((columns.numbers, trained.train_counts), (columns.users, trained.train_users)):
        assert found.shape == (len(rows) + 1, 1) and (rows == 0).any() and (rows == 1).any()
        logs = np.log(rows[rows > 0])
        expected = (np.log(np.append(rows, 1).clip(1)) - logs.mean()) / logs.std()
        np.testing.assert_allclose(found[:, 0], expected.clip(-5, 5), 1e-5, 1e-6)
        once = np.flatnonzero(rows == 1)[0]  # what training never saw is as popular as what it saw once
        assert (found[np.append(rows, 0) == 0] == found[once]).all()
    both = item_columns(data, trained, InputsConfig(columns=["price"], popularity=True)).numbers
    assert torch.equal(both[:, :1], columns.numbers) and both.shape == (61, 3)


def test_popularity_reaches_the_score() -> None:
    generator = torch.Generator().manual_seed(5)
    columns = ItemColumns({}, torch.randn(10, 1, generator=generator), torch.randn(5, 1, generator=generator))
    made, given = ranker(columns=columns), batch([0, 2, -1], [[0, 8, -1]] * 3)
    base = made(given)

    def changes(table: torch.Tensor, row: int) -> list[list[bool]]:
        kept = table.clone()
        table[row] += 1
        result = made(given) != base
        table.copy_(kept)
        return result.tolist()

    for row, column in ((0, 0), (8, 1), (9, 2)):  # the last row is that of an item outside the catalogue
        assert changes(columns.numbers, row) == [[k == column for k in range(3)]] * 3
    for row, line in ((0, 0), (2, 1), (4, 2)):  # and of a user outside the data
        assert changes(columns.users, row) == [[k == line] * 3 for k in range(3)]


def test_an_id_that_is_dropped_takes_its_popularity_along() -> None:
    """Training meets unknown ids as evaluation does: with the popularity of what was never seen, the last row."""
    generator = torch.Generator().manual_seed(5)
    columns = ItemColumns({}, torch.randn(10, 2, generator=generator), torch.randn(5, 1, generator=generator))
    made, given = ranker(columns=columns, popularity=True, id_dropout=0.999), batch([0, 2, -1], [[0, 8, -1]] * 3)

    def scores(training: bool) -> torch.Tensor:
        torch.manual_seed(0)  # by which every id is dropped
        return made.train(training)(given)

    base = {training: scores(training) for training in (True, False)}
    columns.numbers[:-1, 0] += 1
    columns.users[:-1] += 1
    assert torch.equal(scores(True), base[True]) and not torch.equal(scores(False), base[False])
    columns.numbers[:-1, 1] += 1  # any other number stays
    assert not torch.equal(scores(True), base[True])


def test_the_id_history_is_the_end_of_the_history() -> None:
    """Ids further back than model.id_history are not read; content is, to the whole length of the history."""
    for content in (None, 5):
        made, given = ranker(content, id_history=2), batch([0, 1, 3], [[0, 1]] * 3, content)
        base = made(given)
        given.history = torch.cat([torch.tensor([[8, 8]] * 3), given.history[:, -2:]], 1)
        assert torch.equal(base, made(given))
        given.history = torch.cat([given.history[:, :-2], torch.tensor([[3, 5]] * 3)], 1)
        assert (made(given) != base).all()
    whole = ranker(id_history=20)
    given = batch([0, 1, 3], [[0, 1]] * 3)
    base = whole(given)
    given.history[:, 0] = 5
    assert (whole(given) != base).all()
    made, given = ranker(id_history=2), batch([0, 1, 3], [[0, 1]] * 3)
    base = made(given)
    given.history_content.bank[2, 0] += 1
    assert (made(given) != base).any(1).tolist() == [False, False, True]


KINDS = ItemColumns(
    {
        "kind": (torch.tensor([1, 2, 0, 1, 2, 2, 1, 1]), torch.tensor([0, 2, 2, 3, 4, 4, 5, 6, 7, 8]), 3),
        "brand": (torch.tensor([1, 1, 0]), torch.tensor([0, 1, 2, 2, 2, 2, 2, 2, 2, 3]), 2),
    },
    torch.zeros(10, 0),
    torch.zeros(5, 0),
)


def test_no_ids_of_the_history_are_read_where_it_has_no_length() -> None:
    made = ranker(None, KINDS, id_history=0)
    assert "item" in made.inputs.names and "interest" not in made.inputs.names and not made.inputs.histories
    given = batch([0, 1, 3], [[0, 1]] * 3, None)
    base = made(given)
    given.history[:, 0] = 5
    assert torch.equal(made(given), base)


def bag_sum(made: Ranker, item: int) -> torch.Tensor:
    """The sum over columns of the mean vector of an item's values, one by one."""
    total = torch.zeros(4)
    for name, (codes, ptr, _) in KINDS.bags.items():
        own = codes[ptr[item] : ptr[item + 1]]
        if len(own):
            total = total + made.inputs.bags[name].weight[own].mean(0)
    return total


def test_categories_are_sums_of_mean_vectors() -> None:
    made = ranker(columns=KINDS)
    wanted = torch.tensor([[0, 1, 8], [-1, 8, 2]]), torch.tensor([7, 0, -1, 1])
    found = made.inputs._categories(KINDS, *wanted)
    for rows, values in zip(wanted, found, strict=True):
        assert values.shape == (*rows.shape, 4)
        for row, value in zip(rows.flatten().tolist(), values.view(-1, 4), strict=True):
            torch.testing.assert_close(value, bag_sum(made, row) if row >= 0 else torch.zeros(4))


def test_categories_are_part_of_the_ids_of_the_history() -> None:
    """The interest in ids is of id vectors plus categories, which cold items share with known ones."""
    made, given = ranker(None, columns=KINDS), batch([0, 1, 3], [[0, 1]] * 3, None)
    candidate, history = made.tokens(given).histories["ids"]
    for user, rows in enumerate(given.history.tolist()):
        for k, row in enumerate(rows):
            if row >= 0:
                own = made.inputs.ids.item.weight[row + 1 if KNOWN_ITEMS[row] else 0]
                torch.testing.assert_close(history.bank[user, k], own + bag_sum(made, row))
    for k, row in enumerate((0, 1)):
        torch.testing.assert_close(candidate[0, k], made.inputs.ids.item.weight[row + 1] + bag_sum(made, row))
    base = made(given)
    with torch.no_grad():
        made.inputs.bags["kind"].weight[0] += 1  # of item 2 alone, which is in two of the three histories
    assert (made(given) != base).any(1).tolist() == [True, False, True]


def test_categories_are_part_of_the_contrast() -> None:
    made = ranker(columns=KINDS)
    content = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    got = made.contrast(torch.tensor([0, 7, 3, 8, 5]), content)
    ids = torch.stack([made.inputs.ids.item.weight[row + 1] + bag_sum(made, row) for row in (0, 3, 5)])
    torch.testing.assert_close(got, made.content.cic(content[[0, 2, 4]], ids))
    got.backward()
    assert made.inputs.bags["kind"].weight.grad.any(1).tolist() == [False, True, True]
    assert made.contrast(torch.tensor([7, 8]), content[:2]).item() == 0  # no trained id among them


def test_columns_reach_the_score(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path, model__columns="all", model__popularity=True).eval()
    made.refresh(None, 0)
    items, history = torch.arange(60)[None], torch.full((1, 5), -1)
    given = made.batch_of(torch.tensor([0]), items, history, made.table())
    base = made.ranker(given)
    made.ranker.inputs.columns.numbers[:, 1] += 1  # the price; the first is popularity
    assert (made.ranker(given) - base).abs().min() > 0
    outside = made.ranker(
        RankingBatch(given.users, torch.full((1, 60), -1), history, given.content, given.history_content)
    )
    assert outside.isfinite().all()


def test_ids_side_by_side_in_the_contrast() -> None:
    """cic_id=concat: f'_CIC reads [item id, category]; the ranker's own ids stay sums."""
    made = ranker(columns=KINDS, cic_id="concat")
    assert made.content is not None
    content = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    got = made.contrast(torch.tensor([0, 7, 3, 8, 5]), content)
    own = made.inputs.ids.item.weight[torch.tensor([1, 4, 6])]
    bags = [mean_vectors(made.inputs.bags, {name: bag}, torch.tensor([0, 3, 5])) for name, bag in KINDS.bags.items()]
    torch.testing.assert_close(torch.stack(bags).sum(0), torch.stack([bag_sum(made, row) for row in (0, 3, 5)]))
    assert len(bags) > 1 and made.content.cic.id.weight.shape == (4, 4 * (1 + len(bags)))
    torch.testing.assert_close(got, made.content.cic(content[[0, 2, 4]], torch.cat([own, *bags], 1)))
    assert made.contrast(torch.tensor([7, 8]), content[:2]).item() == 0
