"""Fusions: what an item lacks has no influence, what it has does, and gradients reach the shared queries."""

from typing import Any

import pytest
import torch

from rawrec.config import FusionConfig
from rawrec.config.parts import FUSIONS
from rawrec.content.fusion import make_fusion
from rawrec.content.fusion.flows import OneFlowFusion, TwoFlowFusion
from rawrec.content.fusion.fqformer import FQFormer, FQFormerFusion, MaskedFQFormerFusion
from rawrec.errors import UserError
from rawrec.testing import check_fusion

DIM, MODALITIES = 8, 3


ATTENTIVE = ("fqformer", "masked_fq_former", "one_flow", "two_flow")


def make(kind: str, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return make_fusion(DIM, MODALITIES, FusionConfig(kind=kind, **settings)).eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(5, MODALITIES, DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", FUSIONS)
def test_only_what_is_there_has_influence(kind: str, tokens: torch.Tensor) -> None:
    fusion = make(kind, layers=2) if kind in ATTENTIVE else make(kind)
    mask = torch.ones(5, MODALITIES, dtype=torch.bool)
    mask[0, 1] = mask[3, 0] = mask[3, 2] = False
    tokens.requires_grad_()
    out = fusion(tokens, mask)
    assert out.shape == (5, DIM)
    out.square().sum().backward()
    reached = tokens.grad.abs().sum(2) > 0
    assert torch.equal(reached, mask)

    other = torch.where(mask[..., None], tokens.detach(), 1e3)
    torch.testing.assert_close(fusion(other, mask), out)


@pytest.mark.parametrize("kind", FUSIONS)
def test_an_item_does_not_depend_on_its_neighbours(kind: str, tokens: torch.Tensor) -> None:
    fusion = make(kind)
    mask = torch.tensor([[True, False, True]] * 5)
    alone = torch.cat([fusion(t[None], m[None]) for t, m in zip(tokens, mask, strict=True)])
    torch.testing.assert_close(fusion(tokens, mask), alone)


def test_a_missing_modality_is_not_a_zero_one(tokens: torch.Tensor) -> None:
    """A masked token differs from a token of zeros: absence is told apart from emptiness."""
    for kind in FUSIONS:
        fusion = make(kind)
        zeroed = tokens.clone()
        zeroed[:, 1] = 0
        there = torch.ones(5, MODALITIES, dtype=torch.bool)
        lacking = there.clone()
        lacking[:, 1] = False
        assert (fusion(zeroed, there) - fusion(zeroed, lacking)).abs().amax(1).min() > 1e-4, kind


def test_sum_is_the_mean_of_what_is_there(tokens: torch.Tensor) -> None:
    mask = torch.ones(5, MODALITIES, dtype=torch.bool)
    mask[1, 0] = False
    mask[2] = False
    out = make("sum")(tokens, mask)
    torch.testing.assert_close(out[0], tokens[0].mean(0))
    torch.testing.assert_close(out[1], tokens[1, 1:].mean(0))
    assert not out[2].any()


def test_output_is_projected_from_the_queries_alone(tokens: torch.Tensor) -> None:
    fusion = make("fqformer", queries=3)
    assert isinstance(fusion, FQFormerFusion)
    mask = torch.ones(5, MODALITIES, dtype=torch.bool)
    inner = fusion.fusion(tokens, mask)
    assert inner.shape == (5, 3 + MODALITIES, DIM)
    torch.testing.assert_close(fusion(tokens, mask), fusion.mm_proj(inner[:, :3].reshape(5, 3 * DIM)))


def test_attention_by_hand(tokens: torch.Tensor) -> None:
    """One layer written out with softmax and matrix products, a head at a time."""
    torch.manual_seed(0)
    model = FQFormer(DIM, queries=2, layers=1, heads=4).eval()
    layer = model.layers[0]
    x = torch.cat([model.queries.expand(5, -1, -1), tokens], 1)
    q, k, v = layer.self.query(x), layer.self.key(x), layer.self.value(x)
    heads = []
    for h in range(4):
        at = slice(h * 2, h * 2 + 2)
        weights = torch.softmax(q[..., at] @ k[..., at].transpose(1, 2) / (2 + 1e-5) ** 0.5, 2)
        heads.append(weights @ v[..., at])
    dense = layer.output.dense(torch.cat(heads, 2))
    torch.testing.assert_close(model(tokens), torch.nn.functional.layer_norm(x + dense, (DIM,)))


def test_queries_learn(tokens: torch.Tensor) -> None:
    fusion = make("fqformer", queries=2, layers=2)
    fusion(tokens, torch.ones(5, MODALITIES, dtype=torch.bool)).square().sum().backward()
    grad = fusion.fusion.queries.grad
    assert (grad.abs().amax(2) > 1e-6).all()
    assert not torch.allclose(grad[0, 0], grad[0, 1])


def test_feed_forward_is_an_option(tokens: torch.Tensor) -> None:
    mask = torch.ones(5, MODALITIES, dtype=torch.bool)
    plain, wide = make("fqformer"), make("fqformer", ffn=True)
    extra = {name for name, _ in wide.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert {name.split(".")[3] for name in extra} == {"intermediate", "ffn_output"}
    wide.load_state_dict(plain.state_dict(), strict=False)
    assert not torch.allclose(wide(tokens, mask), plain(tokens, mask))
    wide(tokens, mask).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in wide.named_parameters() if name in extra)


@pytest.mark.parametrize("kind", FUSIONS)
def test_dropout_only_while_training(kind: str, tokens: torch.Tensor) -> None:
    fusion, mask = make(kind, dropout=0.5), torch.ones(5, MODALITIES, dtype=torch.bool)
    torch.testing.assert_close(fusion(tokens, mask), fusion(tokens, mask), rtol=0, atol=0)
    fusion.train()
    assert not torch.equal(fusion(tokens, mask), fusion(tokens, mask))


@pytest.mark.parametrize("kind", ATTENTIVE)
def test_heads_must_divide_the_width(kind: str) -> None:
    with pytest.raises(UserError, match=r"content\.fusion\.heads=3.*content\.dim=8"):
        make(kind, heads=3)


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("settings", [{}, {"layers": 2, "ffn": True, "dropout": 0.3}])
def test_every_fusion_passes_the_public_check(kind: str, settings: dict) -> None:
    check_fusion(kind, **settings)
    check_fusion(kind, modalities=2, **settings)


def attention(layer: Any, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """A layer of four heads of two dimensions, written out: softmax and matrix products, a head at a time."""
    q, k, v = layer.self.query(x), layer.self.key(source), layer.self.value(source)
    heads = []
    for h in range(4):
        at = slice(h * 2, h * 2 + 2)
        weights = torch.softmax(q[..., at] @ k[..., at].transpose(1, 2) / (2 + 1e-5) ** 0.5, 2)
        heads.append(weights @ v[..., at])
    return torch.nn.functional.layer_norm(x + layer.output.dense(torch.cat(heads, 2)), (DIM,))


def test_masked_queries_are_no_keys(tokens: torch.Tensor) -> None:
    """c = W [q' = LN(q + Attn(q -> tokens))], the queries' own keys and values having no part."""
    fusion = make("masked_fq_former")
    assert isinstance(fusion, MaskedFQFormerFusion)
    queries = fusion.fusion.queries.expand(5, -1, -1)
    out = attention(fusion.fusion.layers[0], queries, tokens)
    mask = torch.ones(5, MODALITIES, dtype=torch.bool)
    torch.testing.assert_close(fusion(tokens, mask), fusion.mm_proj(out.flatten(1)))
    torch.testing.assert_close(fusion.fusion(tokens), fusion.fusion(tokens, mask))

    plain = make("fqformer")
    plain.load_state_dict(fusion.state_dict())
    assert not torch.allclose(plain(tokens, mask), fusion(tokens, mask))


def test_an_item_without_anything_sees_the_queries(tokens: torch.Tensor) -> None:
    fusion, plain = make("masked_fq_former", layers=2), make("fqformer", layers=2)
    plain.load_state_dict(fusion.state_dict())
    nothing = torch.zeros(5, MODALITIES, dtype=torch.bool)
    torch.testing.assert_close(fusion(tokens, nothing), plain(tokens, nothing))


def test_one_flow_by_hand(tokens: torch.Tensor) -> None:
    """c = W [LN(x + Attn(x -> x))], outputs side by side, zeros for what is not there."""
    fusion = make("one_flow")
    assert isinstance(fusion, OneFlowFusion)
    mask = torch.ones(5, MODALITIES, dtype=torch.bool)
    mask[:, 1] = False
    there = tokens[:, [0, 2]]
    out = attention(fusion.layers[0], there, there)
    padded = torch.stack([out[:, 0], torch.zeros(5, DIM), out[:, 1]], 1)
    torch.testing.assert_close(fusion(tokens, mask), fusion.mm_proj(padded.flatten(1)))


def test_one_flow_wherever_its_padding_stands(tokens: torch.Tensor) -> None:
    """A token's output is the same among any number of padding tokens, and in any order of the others."""
    fusion = make("one_flow", layers=2)
    assert isinstance(fusion, OneFlowFusion)
    alone = fusion.outputs(tokens, torch.ones(5, MODALITIES, dtype=torch.bool))
    padded = torch.full((5, MODALITIES + 3, DIM), 1e3)
    places = [4, 0, 2]
    padded[:, places] = tokens
    mask = torch.zeros(5, MODALITIES + 3, dtype=torch.bool)
    mask[:, places] = True
    out = fusion.outputs(padded, mask)
    torch.testing.assert_close(out[:, places], alone)
    assert not out[:, [1, 3, 5]].any()


def test_two_flows_by_hand(tokens: torch.Tensor) -> None:
    """Both flows, each begun by its learned token, cross, then see themselves; the text flow's first output is kept."""
    fusion = make("two_flow")
    assert isinstance(fusion, TwoFlowFusion)
    layer: Any = fusion.texts[0]
    first = fusion.queries[:, None].expand(2, 5, 1, DIM)
    pictures, texts = torch.cat([first[0], tokens[:, :1]], 1), torch.cat([first[1], tokens[:, 1:]], 1)
    crossed = attention(layer.cross, texts, pictures)
    out = attention(layer.own, crossed, crossed)
    mask = torch.ones(5, MODALITIES, dtype=torch.bool)
    torch.testing.assert_close(fusion(tokens, mask), fusion.mm_proj(out[:, 0]))


def test_which_tokens_are_of_the_text_flow(tokens: torch.Tensor) -> None:
    """With the flows exchanged, so are the tokens: the second one alone is the picture flow."""
    torch.manual_seed(0)
    cfg = FusionConfig(kind="two_flow", layers=2)
    fusion, other = make_fusion(DIM, MODALITIES, cfg, [0, 2]).eval(), make_fusion(DIM, MODALITIES, cfg).eval()
    other.load_state_dict(fusion.state_dict())
    mask = torch.ones(5, MODALITIES, dtype=torch.bool)
    torch.testing.assert_close(fusion(tokens, mask), other(tokens[:, [1, 0, 2]], mask))
    with pytest.raises(UserError, match=r"flow of pictures has no field.*text_flow"):
        make_fusion(DIM, MODALITIES, cfg, [0, 1, 2])
    with pytest.raises(UserError, match=r"flow of texts has no field"):
        make_fusion(DIM, 1, cfg)


@pytest.mark.parametrize("kind", ["fqformer", "masked_fq_former", "two_flow", "sum"])
def test_tokens_have_no_order(kind: str, tokens: torch.Tensor) -> None:
    """Of the same flow, in two_flow; one_flow and concat put them side by side, so that they have."""
    fusion = make(kind)
    mask = torch.tensor([[True, False, True]] * 5)
    order = [0, 2, 1]
    torch.testing.assert_close(fusion(tokens[:, order], mask[:, order]), fusion(tokens, mask))
