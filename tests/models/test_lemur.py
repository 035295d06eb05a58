"""LEMUR's content part beside every head; its decoder and similarity by hand; the search of long histories."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from ranking_mixin import RankingMixin, ServingMixin
from torch import nn

from rawrec.config import RANKERS, DotMlpConfig, resolve
from rawrec.config.lemur import LemurConfig
from rawrec.errors import UserError
from rawrec.models.ranking import lemur, search
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.columns import ItemColumns
from rawrec.models.ranking.content_part import Around
from rawrec.models.ranking.history import HistoryContent, TableHistory
from rawrec.models.ranking.lemur import Decoder, LemurContent, Similarity
from rawrec.models.ranking.ranker import Ranker
from rawrec.models.ranking.readouts import SimTier
from rawrec.models.ranking.search import LongHistory, Rows
from systems import STILL, live_of, system

LEMUR = {"dim": 8, "popularity": True, "content": "lemur"}
DEEP = {**LEMUR, "hidden": [32]}


# That each head learns by heart, and is what its seed makes it, is held with EM3's content (test_heads.py).


class TestLemur(RankingMixin):
    settings = {  # noqa: RUF012
        "model": {**LEMUR, "name": "lemur", "tokens": 4, "width": 16, "multiplier": 2},
        "paradigm": "hybrid",
    }
    reads_content = True
    by_heart = {"lr": 0.003, "epochs": 100}  # noqa: RUF012


class TestDotMlp(ServingMixin):
    settings = {"model": {**DEEP, "name": "dot_mlp"}, "paradigm": "frozen"}  # noqa: RUF012
    reads_content = True


class TestWideDeep(ServingMixin):
    settings = {"model": {**DEEP, "name": "wide_deep"}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestDeepFM(ServingMixin):
    settings = {"model": {**DEEP, "name": "deepfm"}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestDCNv2(ServingMixin):
    settings = {"model": {**DEEP, "name": "dcnv2"}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestDIN(ServingMixin):
    settings = {"model": {**DEEP, "name": "din", "attention_hidden": [8]}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestTokenMixerLarge(ServingMixin):
    settings = {  # noqa: RUF012
        "model": {**LEMUR, "name": "tokenmixer_large", "tokens": 3, "width": 16, "layers": 2, "residual_interval": 1},
        "paradigm": "hybrid",
    }
    reads_content = True


class TestSearch(RankingMixin):
    """A short sequence, and of a long one the items most similar to the candidate, by every read-out."""

    settings = {  # noqa: RUF012
        "model": {
            **DEEP,
            "name": "dot_mlp",
            "lemur": {
                "short": 2,
                "long": 6,
                "search": 3,
                "similarity": ["cosines", "sorted", "simtier", "sata"],
                "tiers": [0.2, 0.5],
                "attended": 2,
                "queries": 2,
            },
        },
        "paradigm": "hybrid",
    }
    reads_content = True


# ---------------------------------------------------------------------------------------------------------- the decoder
WIDTH, DIM = 5, 4
VALID = torch.tensor([[False, True, True, True], [True] * 4, [False] * 4])


def past(length: int = 4) -> HistoryContent:
    """Three histories, the third of them empty where they are 4 long."""
    bank = torch.randn(3, length, WIDTH, generator=torch.Generator().manual_seed(1))
    return HistoryContent(bank, VALID if length == 4 else torch.ones(3, length, dtype=torch.bool))


@pytest.mark.parametrize("queries", [1, 3])
def test_a_decoder_by_hand(queries: int) -> None:
    """Weights softmax(Q . d), values d: no projections, no scaling, queries that do not see each other."""
    torch.manual_seed(0)
    made, history, inputs = Decoder(LemurConfig(queries=queries, ffn=2), 7, WIDTH), past(), torch.randn(3, 2, 7)
    found = made(inputs, history)
    for user in range(3):
        rows = history.bank[user][history.valid[user]]
        for k in range(2):
            q = made.first(inputs[user, k]).view(queries, WIDTH)
            for first, _, second in made.networks:
                read = torch.softmax(q @ rows.T, 1) @ rows if len(rows) else torch.zeros_like(q)
                q = second(nn.functional.gelu(first(read)))
            torch.testing.assert_close(found[user, k], q.flatten())


def test_a_decoder_has_no_weights_but_those_of_its_networks() -> None:
    names = {name for name, _ in Decoder(LemurConfig(layers=2), 7, WIDTH).named_parameters()}
    layers = {f"networks.{k}.{j}.{part}" for k in range(2) for j in (0, 2) for part in ("weight", "bias")}
    assert names == {"first.weight", "first.bias"} | layers


def test_the_read_outs_stand_side_by_side() -> None:
    cfg = LemurConfig(similarity=["sorted", "simtier", "cosines", "sata"], tiers=[0.5, 0.2], attended=2)
    made, history, candidate = Similarity(cfg, WIDTH, 6), past(), torch.randn(3, 2, WIDTH)
    found = made(candidate, history)
    assert found.shape == (3, 2, made.width) and made.width == 6 + (6 + 12) + 6 + WIDTH
    cosines = history.cosines(candidate)
    assert torch.equal(found[..., 24:30], nn.functional.pad(cosines, (2, 0)))
    assert torch.equal(found[0, 0, :3], cosines[0, 0, 1:].sort(descending=True).values)
    assert not found[2, :, :30].any() and not found[2, :, 30:].any()
    assert isinstance(made.tiers[0], SimTier) and torch.equal(found[..., 6:12], made.tiers[0](cosines, VALID[:, None]))
    best = cosines.masked_fill(~VALID[:, None], -2).topk(2, dim=2).indices
    for user in range(2):
        for k in range(2):
            own = best[user, k]
            alone = made.sata(
                candidate[user, k][None],
                history.bank[user][own][None],
                torch.ones(1, 2).bool(),
                cosines[user, k][own][None],
            )
            torch.testing.assert_close(found[user, k, 30:], alone[0])


def test_the_read_outs_of_a_history_that_is_shorter_or_longer() -> None:
    cfg = LemurConfig(similarity=["cosines", "sorted"])
    made, candidate = Similarity(cfg, WIDTH, 2), torch.randn(3, 1, WIDTH)
    assert made(candidate, past(4)).shape == made(candidate, past(0)).shape == (3, 1, 4)
    assert not made(candidate, past(0)).any()
    longer = past(4)
    best = longer.cosines(candidate)[1, 0].sort(descending=True).values
    assert torch.equal(made(candidate, longer)[1, 0, 2:], best[:2])


def test_marks_are_vectors_added_to_the_rows() -> None:
    """Against a decoder over rows to which they were added; without a row of that size with a gradient."""
    torch.manual_seed(0)
    made = Decoder(LemurConfig(queries=2), 7, WIDTH, [4, 3]).eval()
    plain = Decoder(LemurConfig(queries=2), 7, WIDTH).eval()
    plain.load_state_dict({name: value for name, value in made.state_dict().items() if "marks" not in name})
    history, inputs = past(), torch.randn(3, 2, 7)
    history.marks = torch.stack([torch.randint(0, size, (3, 4)) for size in (4, 3)], 2)
    added = sum(table[codes] for table, codes in zip(made.marks, history.marks.unbind(2), strict=True))
    expected = plain(inputs, HistoryContent(history.bank + added, history.valid))
    torch.testing.assert_close(made(inputs, history), expected)
    nothing = made(inputs, HistoryContent(history.bank, history.valid))
    history.marks = torch.zeros_like(history.marks)
    torch.testing.assert_close(made(inputs, history), nothing)
    one = Decoder(LemurConfig(), 7, WIDTH, [2], dropout=0.5).train()
    history.marks = torch.ones(3, 4, 1, dtype=torch.int64)
    for _ in range(20):
        one(inputs, history).sum().backward()
    assert one.marks[0].grad is not None and one.marks[0].grad.any(1).all()  # nothing known of it, too, is learned


# ----------------------------------------------------------------------------------------------------------- the ranker
KNOWN = torch.ones(3, dtype=torch.bool), torch.ones(9, dtype=torch.bool)
COLUMNS = ItemColumns({}, torch.zeros(10, 0), torch.zeros(4, 0))
HISTORY = torch.tensor([[-1, 0, 4, 2], [-1, -1, -1, -1], [1, 2, 3, 5]])
TABLE = torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(2))


def ranker(name: str = "dot_mlp", queries: bool = False, history: int = 4, **settings: Any) -> Ranker:
    torch.manual_seed(0)
    given = {key: settings.pop(key) for key in ("item_id", "user_id", "cic_weight") if key in settings}
    cfg = RANKERS[name](dim=DIM, content="lemur", lemur=settings, **given)
    return Ranker(cfg, *KNOWN, COLUMNS, WIDTH, history=history, queries=queries).eval()


def batch(items: torch.Tensor, users: slice = slice(0, 3)) -> RankingBatch:
    history = HISTORY[users]
    content = HistoryContent(TABLE[history.clamp(min=0)], history >= 0)
    made = RankingBatch(torch.arange(3)[users], items, history, TABLE[items], content)
    made.long_history = LongHistory(history, history >= 0, Rows(TABLE))
    return made


def test_tokens_of_two_sequences() -> None:
    names = ranker(short=2).content.names
    assert names == ("content", "short_interest", "short_similarity", "long_interest", "long_similarity")
    assert ranker(short=20).content.names == (
        "content",
        "short_interest",
        "short_similarity",
    )  # all is in the short one
    assert ranker(short=0).content.names == ("content", "long_interest", "long_similarity")
    assert ranker(short=2, layers=0).content.names == ("content", "short_similarity", "long_similarity")
    assert ranker(short=2, similarity=[]).content.names == ("content", "short_interest", "long_interest")
    assert ranker(short=0, long=0).content.names == ("content",)
    assert ranker(short=2, queries=True).content.names[:3] == ("content", "query", "query_cosine")


def test_a_short_sequence_is_the_end_of_the_history() -> None:
    made, items = ranker(short=2, long=0), torch.tensor([[0, 3]] * 3)
    base = made(batch(items))
    for place in range(4):
        changed = batch(items)
        changed.history_content.bank[2, place] += 1
        moved = (made(changed) != base).any(1).tolist()
        assert moved == [False, False, place >= 2], place


def test_what_is_there_of_an_empty_history_and_of_an_item_without_content() -> None:
    made, given = ranker(short=2), batch(torch.tensor([[0, 3]] * 3))
    given.content[:, 1] = 0
    tokens = made.tokens(given)
    there = {name: tokens.mask[..., k].tolist() for k, name in enumerate(tokens.names)}
    assert there["content"] == [[True, False]] * 3
    assert there["long_interest"] == [[True] * 2, [False] * 2, [True] * 2]
    assert there["long_similarity"] == [[True, False], [False] * 2, [True, False]]
    assert tokens.values.isfinite().all()


@pytest.mark.parametrize("name", RANKERS)
@pytest.mark.parametrize("settings", [{"short": 2}, {"short": 2, "search": 2, "similarity": ["cosines", "sata"]}])
def test_an_impression_alone_is_scored_as_among_others(
    name: str, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one list of candidates is of all users, and where they go through piece by piece."""
    made, items = ranker(name, **settings), torch.tensor([[0, 3, 7]])
    with torch.no_grad():
        together = made(batch(items))
        assert together.shape == (3, 3) and together.std() > 0
        torch.testing.assert_close(made(batch(items.expand(3, -1))), together)
        torch.testing.assert_close(made(batch(items[:, 2:], slice(2, 3))), together[2:, 2:])
        monkeypatch.setattr(lemur, "AT_ONCE", 1)
        monkeypatch.setattr(search, "AT_ONCE", 1)
        torch.testing.assert_close(made(batch(items)), together)


def test_a_query_is_a_token_and_so_is_its_cosine() -> None:
    made, given = ranker(queries=True), batch(torch.tensor([[0, 3]] * 3))
    given.query_content = torch.stack([TABLE[0], torch.zeros(WIDTH), -TABLE[3]])[:, None]
    tokens, part = made.tokens(given), made.content
    assert isinstance(part, LemurContent) and part.query is not None and part.query_cosine is not None
    values = dict(zip(tokens.names, tokens.values.unbind(2), strict=True))
    there = dict(zip(tokens.names, tokens.mask.unbind(2), strict=True))
    torch.testing.assert_close(values["query"], part.query(given.query_content).expand(3, 2, -1))
    torch.testing.assert_close(values["query_cosine"][0, 0], part.query_cosine(torch.ones(1)))
    torch.testing.assert_close(values["query_cosine"][2, 1], part.query_cosine(-torch.ones(1)))
    assert there["query"].tolist() == there["query_cosine"].tolist() == [[True] * 2, [False] * 2, [True] * 2]
    given.query_content = None
    assert not made.tokens(given).mask[..., tokens.names.index("query")].any()
    assert made.tokens(given).values.isfinite().all()


def test_a_decoder_needs_something_to_begin_with() -> None:
    with pytest.raises(UserError, match=r"there are none; set model\.item_id=true .*model\.lemur\.layers=0"):
        ranker(item_id=False, user_id=False)
    assert ranker(item_id=False, user_id=False, layers=0)(batch(torch.tensor([[0, 3]] * 3))).isfinite().all()


def test_em3s_contrast_can_be_added() -> None:
    assert RANKERS["rankmixer"](content="lemur").cic_weight == 0 and RANKERS["rankmixer"]().cic_weight > 0
    assert ranker().content.cic is None and not ranker().step_losses(torch.arange(3), TABLE[:3])
    made = ranker(cic_weight=0.2)
    assert made.loss_weights["cic"] == 0.2 and made.step_losses(torch.arange(3), TABLE[:3])["cic"] > 0


# ----------------------------------------------------------------------------------------------------------- the search
def long_history(items: int, length: int, **live: Any) -> LongHistory:
    generator = torch.Generator().manual_seed(3)
    rows = torch.stack([torch.randperm(max(items, length), generator=generator)[:length] for _ in range(4)]) % items
    rows[:, ::5] = rows[3] = -1
    valid = (rows >= 0) & (rows % 7 != 0)
    return LongHistory(rows, valid, Rows(torch.randn(items, WIDTH, generator=generator)), **live)


@pytest.mark.parametrize(("items", "by_row"), [(10, 64), (500, 64), (500, 1)])
@pytest.mark.parametrize("at_once", [1, 100, 1 << 24])
def test_a_search_finds_the_most_similar(
    items: int, by_row: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the table of all items, and through the histories: the same as sorting all cosines."""
    monkeypatch.setattr(search, "AT_ONCE", at_once)
    monkeypatch.setattr(search, "BY_ROW", by_row)
    history, candidates = long_history(items, 30), torch.randn(4, 3, WIDTH)
    found = history.search(candidates, 6)
    assert found.bank.shape == (12, 6, WIDTH) and found.live is None
    for user in range(4):
        rows = history.items[user][history.valid[user]]
        for k in range(3):
            own = user * 3 + k
            mine = found.bank[own][found.valid[own]]
            cosines = torch.cosine_similarity(candidates[user, k][None], history.table.rows(rows), dim=1)
            best = cosines.argsort(descending=True)[:6]
            torch.testing.assert_close(
                torch.cosine_similarity(candidates[user, k][None], mine, dim=1).sort(descending=True).values,
                cosines[best],
            )
            if items == 500 and len(rows):  # no item twice, so that the order can be told
                torch.testing.assert_close(mine, history.table.rows(rows[best.sort().values]))
    assert not found.valid[9:].any() and history.search(candidates, 99).bank.shape[1] == 30
    history.marks = torch.stack([history.items, torch.arange(30).expand(4, -1)], 2) + 1
    again = history.search(candidates, 6)
    assert again.marks is not None and torch.equal(again.marks[..., 0] - 1 >= 0, found.valid)
    torch.testing.assert_close(history.table.rows((again.marks[..., 0] - 1).clamp(min=0)), again.bank)
    places = again.marks[..., 1][found.valid.all(1)]
    assert len(places) and (places.diff(dim=1) > 0).all()  # oldest first


def test_what_is_found_is_read_live_where_it_is_live() -> None:
    live = torch.ones(2, WIDTH, requires_grad=True)

    def locate(rows: torch.Tensor) -> torch.Tensor:
        return torch.where(rows == 5, 0, torch.where(rows == 6, 1, -1))

    history = long_history(500, 30, live=live, locate=locate)
    history.items[0, 3], history.items[1, 4] = 5, 6
    history.valid[0, 3] = history.valid[1, 4] = True
    candidates = history.table.rows(torch.tensor([[5], [6], [8], [9]]))
    found = history.search(candidates, 2)
    assert (found.position == 0).sum(1).tolist() == [1, 0, 0, 0] and (found.position == 1).sum(1).tolist() == [
        0,
        1,
        0,
        0,
    ]
    found.mix(torch.ones(4, 1, 2)).sum().backward()
    assert live.grad is not None and live.grad.tolist() == [[1.0] * WIDTH] * 2


# --------------------------------------------------------------------------------------------------------- in a system
LONG = {"model__name": "dot_mlp", "model__content": "lemur", "data__history": 8}


@pytest.mark.parametrize("paradigm", ["end_to_end", "hybrid", "frozen"])
def test_of_a_searched_history_the_short_end_alone_is_read_whole(shop: Path, tmp_path: Path, paradigm: str) -> None:
    words = {**LONG, "model__lemur": {"short": 3, "search": 2}, "paradigm": paradigm, **STILL}
    made = system(shop, tmp_path, **{k: v for k, v in words.items() if paradigm != "frozen" or "fusion" not in k})
    made.refresh(None, 0)
    users, items = torch.arange(6), torch.arange(6)[:, None]
    history = torch.arange(10, 58).view(6, 8)
    live = made.live.content(items, history, 0)
    assert torch.isin(history[:, :5], live.rows).sum() == 0
    given = made.live.batch(users, items, history, live)
    assert given.history_content is not None and given.history_content.bank.shape[1] == 3
    assert given.long_history is not None and torch.equal(given.long_history.items, history)
    made.ranker(given).sum().backward()
    assert live.leaf.grad is not None and live.leaf.grad.any()
    table = made.table()
    scores = made.ranker(made.batch_of(users, items, history, table))
    assert scores.shape == (6, 1) and scores.isfinite().all()


def test_live_rows_without_gradient_are_put_in_their_places(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the rows, or into the table of all items."""
    users, items = torch.arange(4), torch.arange(4)[:, None]
    history = torch.arange(32).view(4, 8) % 20
    history[0, :3] = -1
    read = []
    for content, times in (("em3", 4), ("lemur", 0), ("lemur", 20)):
        monkeypatch.setattr("rawrec.training.tasks.past.TABLE", times)
        words = {**LONG, "model__content": content, "bank__history_grad": "none"}
        made = system(shop, tmp_path, **words, **STILL)
        made.refresh(None, 0)
        live = live_of(made, torch.arange(10)[made.bank.valid[:10]])
        with torch.no_grad():
            live.leaf.copy_(torch.arange(float(live.leaf.numel())).view_as(live.leaf))
        past = made.live.batch(users, items, history, live).history_content
        assert past is not None and (past.live is None) == (content == "lemur")
        assert isinstance(past, TableHistory) == (times == 20)
        read.append(past.rows())
    in_step = torch.isin(history, live.rows)
    assert in_step.any() and all(torch.equal(read[0][in_step], other[in_step]) for other in read[1:])


def test_live_rows_of_a_history_carry_gradient_through_both_parts(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for settings, times in product(({"layers": 0}, {"similarity": []}, {"similarity": ["sata"], "layers": 0}), (0, 20)):
        monkeypatch.setattr("rawrec.training.tasks.past.TABLE", times)
        made = system(shop, tmp_path, **LONG, model__lemur={"short": 0, **settings}, **STILL)
        made.refresh(None, 0)
        rows = torch.arange(20)[made.bank.valid[:20]]
        live = live_of(made, rows)
        history = rows[:8].repeat(4, 1)
        items = rows[8:12, None]
        made.ranker(made.live.batch(torch.arange(4), items, history, live)).sum().backward()
        grad = live.leaf.grad.any(1)
        assert grad[:8].all() and grad[8:12].all() and not grad[12:].any(), settings


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"model.content": "em3", "model.lemur.short": 4}, "this is em3"),
        ({"model.content_side": "item"}, "a setting of model.content=em3"),
        ({"data.history": 10, "model.lemur.short": 11}, "no more than data.history=10"),
        ({"data.history": 10, "model.lemur.long": 11}, "no more than data.history=10"),
        ({"model.lemur.layers": 0, "model.lemur.queries": 2}, "switches the decoder off"),
        ({"model.lemur.layers": 0, "model.lemur.marks": ["gap"]}, "switches the decoder off"),
        ({"model.lemur.tiers": [0.2]}, "only simtier"),
        ({"model.lemur.attended": 20}, "only sata"),
        ({"data.history": 10, "model.lemur.search": 5}, "the long sequence has 0 items"),
        ({"data.history": 30, "model.lemur.search": 30}, "the long sequence has 30 items"),
        ({"model.cic_temperature": 0.2}, "model.cic_weight=0"),
    ],
)
def test_settings_that_would_do_nothing(words: dict, reason: str) -> None:
    with pytest.raises(UserError, match="would do nothing") as caught:
        resolve("lemur", words)
    assert reason in str(caught.value)


def test_the_preset_is_rankmixer_with_lemurs_content() -> None:
    cfg = resolve("lemur")
    assert cfg.label == "lemur" and cfg.model.name == "rankmixer" and cfg.model.content == "lemur"
    assert cfg.model.whole(cfg.longest_history) == 1000 and cfg.bank.history_grad == "none"
    searched = resolve("lemur", {"data.history": 100_000, "model.lemur.search": 50}).model
    assert searched.whole(100_000) == 20 and searched.searched(100_000) == 100_000
    assert DotMlpConfig().whole(30) == 30 and not DotMlpConfig().searched(30)
    with pytest.raises(UserError, match=r"model\.lemur\.similarity"):
        resolve("lemur", {"model.lemur.similarity": ["euclid"]})


def test_content_parts_say_what_is_around_them() -> None:
    part = LemurContent(DotMlpConfig(content="lemur", dim=DIM), Around(WIDTH, DIM, inputs=3, history=50))
    assert [s.length for _, s in part.named_sequences()] == [20, 50] and part.histories == {"content": WIDTH}
