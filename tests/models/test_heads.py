"""The heads of rankers: each learns, resumes and is told; what their equations say where no fixture does."""

from __future__ import annotations

import pytest
import torch
from heads_golden import tokens_of
from ranking_mixin import RankingMixin
from torch import nn

from rawrec.config import resolve
from rawrec.config.heads import DCNv2Config, DINConfig
from rawrec.errors import UserError
from rawrec.models.ranking import din
from rawrec.models.ranking.dcnv2 import DCNv2, MixtureLayer
from rawrec.models.ranking.deepfm import DeepFM
from rawrec.models.ranking.din import AttentionUnit
from rawrec.models.ranking.history import HistoryContent
from rawrec.models.ranking.layers import Dice, PReLU, mlp

CONTENT = {"dim": 8, "popularity": True}
SMALL = {**CONTENT, "hidden": [32]}


class TestWideDeep(RankingMixin):
    settings = {"model": {**SMALL, "name": "wide_deep"}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestDeepFM(RankingMixin):
    settings = {"model": {**SMALL, "name": "deepfm"}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestDCNv2(RankingMixin):
    settings = {"model": {**SMALL, "name": "dcnv2"}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestDCNv2Mixture(RankingMixin):
    settings = {  # noqa: RUF012
        "model": {**SMALL, "name": "dcnv2", "cross": "mixture", "rank": 4, "experts": 2, "structure": "stacked"},
        "paradigm": "frozen",
    }
    reads_content = True

    test_overfits_a_tiny_set = None


class TestDIN(RankingMixin):
    settings = {"model": {**SMALL, "name": "din", "attention_hidden": [8]}, "paradigm": "hybrid"}  # noqa: RUF012
    reads_content = True


class TestDINOnIds(RankingMixin):
    settings = {  # noqa: RUF012
        "model": {"dim": 8, "hidden": [32], "name": "din", "content": "none", "softmax": True, "activation": "prelu"},
        "train": {"epochs": 40, "patience": 40},
    }
    reads_content = False


# ---------------------------------------------------------------------------------------------------------------- DCNv2
def dcn(**settings) -> DCNv2:
    torch.manual_seed(0)
    made = DCNv2(DCNv2Config(hidden=[5], cross_layers=2, rank=3, **settings), ["a", "b"], 4).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def test_low_rank_crosses_are_full_ones_of_that_rank() -> None:
    made, full = dcn(cross="low_rank", structure="cross"), dcn(structure="cross")
    for low, layer in zip(made.cross, full.cross, strict=True):
        layer.map.weight.data = (low.map.weight @ low.down.weight).detach()
        layer.map.bias.data = low.map.bias.detach()
    full.out.load_state_dict(made.out.state_dict())
    tokens = tokens_of(torch.randn(3, 2, 4))
    torch.testing.assert_close(made(tokens), full(tokens))


def test_a_cross_layer_alone_is_a_polynomial_of_second_degree() -> None:
    made = DCNv2(DCNv2Config(structure="cross", cross_layers=1), ["a"], 2)
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    made.cross[0].map.load_state_dict({"weight": weight, "bias": torch.tensor([0.5, -1.0])})
    x = torch.tensor([2.0, 3.0])
    expected = torch.tensor([2 * (2 + 6 + 0.5) + 2, 3 * (6 + 12 - 1) + 3])
    torch.testing.assert_close(made.crossed(x), expected)


def test_one_impression_goes_through_a_mixture() -> None:
    """The published code squeezes the batch away where it is one."""
    made, tokens = dcn(cross="mixture"), torch.randn(3, 2, 4)
    torch.testing.assert_close(made(tokens_of(tokens[:1])), made(tokens_of(tokens))[:1])


def test_experts_begin_alike() -> None:
    layer = MixtureLayer(200, 50, 3)
    layer.begin()
    deviations = [m.std().item() for m in (*layer.V.chunk(3, 0), *layer.U.chunk(3, 1))]
    assert deviations == pytest.approx([(2 / 250) ** 0.5] * 6, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"model.cross": "full"}, "model.rank"),
        ({"model.cross": "low_rank"}, "model.experts"),
        ({"model.structure": "cross"}, "model.dropout"),
    ],
)
def test_settings_of_parts_that_are_not_there_are_refused(settings: dict, key: str) -> None:
    value = 0.2 if key == "model.dropout" else 2
    with pytest.raises(UserError, match=f"{key}={value} would do nothing"):
        resolve("dcnv2", {**settings, key: value})


# --------------------------------------------------------------------------------------------------------------- DeepFM
def test_second_order_is_the_sum_over_pairs() -> None:
    values = torch.randn(3, 5, 4)
    pairs = sum((values[:, i] * values[:, j]).sum(1) for i in range(5) for j in range(i))
    torch.testing.assert_close(DeepFM.second_order(values), pairs)


# ------------------------------------------------------------------------------------------------------------------ DIN
def unit(**settings) -> AttentionUnit:
    torch.manual_seed(0)
    return AttentionUnit(DINConfig(attention_hidden=[6, 5], **settings), 4)


def past(live: bool) -> HistoryContent:
    """Three histories of four items, one of them empty; some rows are live."""
    bank = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    valid = torch.tensor([[False, True, True, True], [True] * 4, [False] * 4])
    if not live:
        return HistoryContent(bank, valid)
    position = torch.tensor([[-1, 0, -1, 1], [1, -1, -1, -1], [-1] * 4])
    return HistoryContent(bank, valid, position, torch.full((2, 4), 0.5, requires_grad=True))


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("live", [True, False])
def test_a_unit_is_an_mlp_of_four_vectors_side_by_side(softmax: bool, live: bool) -> None:
    made, history, t = unit(softmax=softmax).train(), past(live), torch.randn(3, 2, 4)
    assert history.split == live
    ours = made(t, history)
    rows = history.bank
    if history.live is not None and history.position is not None:
        rows = torch.where((history.position >= 0)[..., None], history.live[history.position.clamp(min=0)], rows)
    h, c = rows[:, None].expand(3, 2, 4, 4), t[:, :, None].expand(3, 2, 4, 4)
    real = history.valid[:, None].expand(3, 2, 4)
    x = torch.cat([c, h, c - h, c * h], 3)[real]  # without padding, whose statistics are not counted
    x = made.others[0](made.activations[0](made.first(x)))
    x = made.others[1](made.activations[1](x))[:, 0]
    logits = torch.full((3, 2, 4), -torch.inf).masked_scatter(real, x)
    weights = torch.softmax(logits, 2).nan_to_num() if softmax else logits.masked_fill(~real, 0)
    torch.testing.assert_close(ours, weights @ rows)
    assert not ours[2].any()


def test_a_unit_works_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    made, history, t = unit().eval(), past(False), torch.randn(1, 7, 4)
    whole = made(t, history)
    assert whole.shape == (3, 7, 4)
    monkeypatch.setattr(din, "AT_ONCE", 3 * 4 * 6 * 2)
    with torch.no_grad():
        torch.testing.assert_close(made.in_pieces(t, history), whole)


def test_padding_counts_in_dice_only_where_it_is_asked_for() -> None:
    short, t = past(False), torch.randn(3, 2, 4)
    longer = HistoryContent(nn.functional.pad(short.bank, (0, 0, 2, 0)), nn.functional.pad(short.valid, (2, 0)))
    for counts in (True, False):
        alone, padded = (unit(dice_padding=counts).train()(t, history) for history in (short, longer))
        assert torch.allclose(alone, padded, atol=1e-6) != counts


def test_din_needs_a_history() -> None:
    with pytest.raises(UserError, match=r"set model\.item_id=true or model\.content=em3"):
        din.DIN(DINConfig(), ["user"], 4)
    with pytest.raises(UserError, match="dice_padding=true would do nothing"):
        resolve("din", {"model.attention_activation": "relu", "model.dice_padding": True})


# --------------------------------------------------------------------------------------------------------------- layers
def test_prelu_is_torchs() -> None:
    made, theirs, x = PReLU(3), nn.PReLU(3, 0.25), torch.randn(4, 3)
    torch.testing.assert_close(made(x), theirs(x))


def test_an_mlp_ends_with_its_last_width() -> None:
    assert mlp([6, 5, 4], 0.1, "dice")(torch.randn(2, 3, 6)).shape == (2, 3, 4)
    assert len(mlp([6], 0.1)) == 0


def test_dice_standardises_what_is_counted() -> None:
    made, x = Dice(2), torch.randn(4, 3, 2)
    made.alpha.data = torch.tensor([0.3, -0.2])
    counted = torch.tensor([[True, True, False]] * 3 + [[False] * 3])
    rows = x[counted]
    p = torch.sigmoid((x - rows.mean(0)) / (rows.var(0, correction=0) + 1e-9).sqrt())
    torch.testing.assert_close(made(x, counted), p * x + made.alpha * (1 - p) * x)
    torch.testing.assert_close(made.mean, rows.mean(0))
    torch.testing.assert_close(made.var, rows.var(0))
    torch.testing.assert_close(made(x, torch.ones(4, 3, dtype=torch.bool)), made(x))


def test_dice_remembers_the_mean_of_the_first_batches_and_then_forgets_slowly() -> None:
    made, batches = Dice(1), torch.randn(150, 6, 1)
    mean = torch.zeros(1)
    for k, batch in enumerate(batches):
        made(batch)
        mean = mean + (batch.mean(0) - mean) * max(1 / (k + 1), 0.01)
    torch.testing.assert_close(made.mean, mean)
    before = made.state_dict() | {}
    for few in (torch.randn(1, 1), torch.randn(0, 1)):  # one vector has no variance
        assert made(few).isfinite().all()
    assert all(torch.equal(made.state_dict()[name], value) for name, value in before.items())
    x = torch.randn(3, 1)
    assert not torch.equal(made.eval()(x), made.train()(x))
