"""The heads of rankers: each learns, resumes and is told; what their equations say where no fixture does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from heads_golden import tokens_of
from ranking_mixin import RankingMixin, checkerboard
from torch import nn

from rawrec.config import resolve
from rawrec.config.heads import RANKERS, DCNv2Config, DINConfig, RankMixerConfig, TokenMixerLargeConfig
from rawrec.errors import UserError
from rawrec.models import model_class
from rawrec.models.ranking import din
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.dcnv2 import DCNv2, MixtureLayer
from rawrec.models.ranking.deepfm import DeepFM
from rawrec.models.ranking.din import AttentionUnit
from rawrec.models.ranking.history import HistoryContent
from rawrec.models.ranking.layers import Dice, PReLU, mlp
from rawrec.models.ranking.mixing import Pieces, mix
from rawrec.models.ranking.rankmixer import Experts, RankMixer
from rawrec.models.ranking.tokenmixer_large import TokenMixerLarge
from rawrec.training.job import resume, train
from systems import Stop, digest, stopping_after

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
        "train": {"lr": 0.01, "epochs": 20, "patience": 20},
    }
    reads_content = False


class TestRankMixer(RankingMixin):
    settings = {  # noqa: RUF012
        "model": {**CONTENT, "name": "rankmixer", "tokens": 4, "width": 16, "multiplier": 2},
        "paradigm": "hybrid",
    }
    reads_content = True
    by_heart = {"lr": 0.01, "epochs": 50}  # noqa: RUF012


class TestRankMixerOfExperts(RankingMixin):
    settings = {  # noqa: RUF012
        "model": {**CONTENT, "name": "rankmixer", "tokens": 4, "width": 16, "multiplier": 2, "experts": 3},
        "paradigm": "frozen",
    }
    reads_content = True

    test_overfits_a_tiny_set = None  # the penalty keeps the gates down


class TestTokenMixerLarge(RankingMixin):
    settings = {  # noqa: RUF012
        "model": {**CONTENT, "name": "tokenmixer_large", "tokens": 3, "width": 16, "layers": 2, "residual_interval": 1},
        "paradigm": "hybrid",
    }
    reads_content = True

    test_overfits_a_tiny_set = None  # takes as many epochs as that of RankMixer, each twice as long


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


def sequence(history: HistoryContent) -> tuple[torch.Tensor, torch.Tensor]:
    return history.rows(), history.valid


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("live", [True, False])
def test_a_unit_is_an_mlp_of_four_vectors_side_by_side(softmax: bool, live: bool) -> None:
    made, history, t = unit(softmax=softmax).train(), past(live), torch.randn(3, 2, 4)
    assert history.split == live
    ours = made(t, *sequence(history))
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
    whole = made(t, *sequence(history))
    assert whole.shape == (3, 7, 4)
    monkeypatch.setattr(din, "AT_ONCE", 3 * 4 * 16 * 2)
    with torch.no_grad():
        torch.testing.assert_close(made.in_pieces(t, *sequence(history)), whole)


def test_padding_counts_in_dice_only_where_it_is_asked_for() -> None:
    short, t = past(False), torch.randn(3, 2, 4)
    longer = HistoryContent(nn.functional.pad(short.bank, (0, 0, 2, 0)), nn.functional.pad(short.valid, (2, 0)))
    for counts in (True, False):
        alone, padded = (unit(dice_padding=counts).train()(t, *sequence(history)) for history in (short, longer))
        assert torch.allclose(alone, padded, atol=1e-6) != counts


def test_din_needs_a_history() -> None:
    with pytest.raises(UserError, match=r"set model\.item_id=true or model\.content=em3"):
        din.DIN(DINConfig(), ["user"], 4)
    with pytest.raises(UserError, match="dice_padding=true would do nothing"):
        resolve("din", {"model.attention_activation": "relu", "model.dice_padding": True})


# ------------------------------------------------------------------------------------------------------------ RankMixer
def test_mixing_exchanges_pieces_and_undoes_itself() -> None:
    x = torch.arange(3 * 2 * 6.0).view(3, 2, 6)
    mixed = mix(x)
    assert mixed[1, 0].tolist() == [*x[0, 0, 2:4].tolist(), *x[1, 0, 2:4].tolist(), *x[2, 0, 2:4].tolist()]
    assert torch.equal(mix(mixed), x)


@pytest.mark.parametrize("projection", ["each", "shared"])
def test_pieces_are_filled_with_zeros(projection: str) -> None:
    made, flat = Pieces(7, 3, 4, projection), torch.randn(2, 7)
    x = made(flat)
    assert x.shape == (3, 2, 4) and made.piece == 3
    last = nn.functional.pad(flat[:, 6:], (0, 2))
    weight, bias = made.map.weight, made.map.bias
    expected = last @ weight[2] + bias[8:] if projection == "each" else last @ weight.T + bias
    torch.testing.assert_close(x[2], expected)


def mixer(**settings) -> RankMixer:
    torch.manual_seed(0)
    return RankMixer(RankMixerConfig(tokens=2, width=4, **settings), ["a", "b", "c"], 4)


def test_experts_that_are_open_equally_are_their_sum() -> None:
    made = Experts(2, 4, 6, 3, "both").eval()
    nn.init.normal_(made.bias)
    nn.init.zeros_(made.infer_router.weight)
    made.infer_router.bias.data = torch.tensor([1.0, 0.5, -2.0])
    x = torch.randn(2, 5, 4)
    expected = torch.zeros(2, 5, 4)
    for t in range(2):
        for e, gate in enumerate((1.0, 0.5, 0.0)):
            part = slice(6 * e, 6 * e + 6)
            inner = x[t] @ made.up.weight[t, :, part] + made.up.bias.view(2, 18)[t, part]
            out = nn.functional.gelu(inner) @ made.down[t, part] + made.bias.view(2, 3, 4)[t, e]
            expected[t] += gate * out
    torch.testing.assert_close(made(x), expected)


@pytest.mark.parametrize("routers", ["both", "published"])
def test_which_router_learns_from_the_task(routers: str) -> None:
    made = mixer(experts=3, routers=routers, gate_penalty=0.5).train()
    values, items = torch.randn(4, 3, 4), torch.tensor([[0], [1], [-1], [2]])
    tokens, batch = tokens_of(values), RankingBatch(torch.arange(4), items, torch.zeros(4, 0, dtype=torch.int64))
    made(tokens).sum().backward()
    router = made.blocks[0].network.infer_router.weight
    assert (router.grad is not None) == (routers == "both")
    assert made.loss_weights == {"gates": 0.5}
    penalty = made.losses(tokens, batch, torch.zeros(4, 1))["gates"]
    made(tokens)
    gates = sum(block.network.take_gates() for block in made.blocks)
    torch.testing.assert_close(penalty, gates[:, [0, 1, 3]].sum(2).mean(0).sum())


def test_what_has_no_decay_is_flat() -> None:
    """Biases of all tokens are one vector, as biases are."""
    for name in ("rankmixer", "tokenmixer_large"):
        made = model_class(name)(RANKERS[name](**({"experts": 2} if name == "rankmixer" else {})), ["a"], 4)
        for key, parameter in made.named_parameters():
            assert (parameter.ndim == 1) == (key.endswith("bias") or "norm" in key or key == "token"), key


@pytest.mark.parametrize(("name", "said"), [("rankmixer", "tokens=8"), ("tokenmixer_large", r"tokens \+ 1 = 8")])
def test_tokens_divide_the_width(name: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"multiple of model\.{said}, found 65"):
        resolve(name, {"model.width": 65})


def test_gates_need_experts() -> None:
    with pytest.raises(UserError, match="experts=1 has no gates"):
        resolve("rankmixer", {"model.gate_penalty": 0.1})
    assert mixer().loss_weights == mixer(experts=2, gate_penalty=0).loss_weights == {}


# ----------------------------------------------------------------------------------------------------- TokenMixer-Large
def test_where_long_residuals_and_auxiliary_scores_are() -> None:
    def joints(layers: int, interval: int) -> list[str]:
        cfg = TokenMixerLargeConfig(tokens=1, width=2, layers=layers, residual_interval=interval)
        return list(TokenMixerLarge(cfg, ["a"], 2).auxiliary)

    assert joints(4, 2) == ["1"] and joints(5, 2) == ["1", "3"] and joints(3, 1) == ["0", "1"] and joints(2, 2) == []
    with pytest.raises(UserError, match="no auxiliary scores"):
        resolve("tokenmixer_large", {"model.layers": 2, "model.auxiliary_weight": 0.2})


def test_the_auxiliary_loss_is_over_real_candidates() -> None:
    made = TokenMixerLarge(TokenMixerLargeConfig(tokens=1, width=2, layers=3), ["a"], 2).train()
    tokens, labels = tokens_of(torch.randn(3, 1, 2)), torch.tensor([[1.0], [0.0], [1.0]])
    made(tokens)
    logits = made._auxiliary[..., 0].detach()
    batch = RankingBatch(torch.arange(3), torch.tensor([[4], [-1], [2]]), torch.zeros(3, 0, dtype=torch.int64))
    expected = nn.functional.binary_cross_entropy_with_logits(logits[[0, 2]], labels[[0, 2]], reduction="sum")
    torch.testing.assert_close(made.losses(tokens, batch, labels)["auxiliary"], expected)


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


# ------------------------------------------------------------------------------------------------------------ resuming
@pytest.mark.parametrize("model", [{"name": "din", "hidden": [8]}, {"name": "rankmixer", "tokens": 2, "experts": 2}])
def test_a_stopped_run_ends_as_one_that_was_not(model: dict, tmp_path: Path) -> None:
    """Running statistics of Dice and the gates' penalty, too."""
    board = checkerboard(tmp_path / "data")
    tree = {**TestDIN.config(epochs=3, checkpoint_every=2, checkpoint_share=1), "paradigm": "hybrid"}
    tree["model"] = {**CONTENT, **model}
    whole = digest(train(tree, board, tmp_path / "whole").path)
    with pytest.raises(Stop):
        train(tree, board, tmp_path / "run", observer=stopping_after(7))
    assert digest(resume(tmp_path / "run").path) == whole
