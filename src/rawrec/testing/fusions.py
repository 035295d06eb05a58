"""What every fusion must do: give one embedding per item, of what the item has and of nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rawrec.config import FusionConfig
from rawrec.content.fusion import make_fusion

ITEMS = 6


def check_fusion(kind: str, dim: int = 8, modalities: int = 3, **settings: Any) -> None:
    """That a fusion's output does not depend on what an item lacks, nor on other items; that it is finite for an item
    without anything; that all of it learns, from every token; and that it is the same with one seed, after loading, and
    outside training whatever the dropout.

    kind: a registered name. settings: of `content.fusion`. Raises AssertionError that says what failed.
    """
    tokens = torch.randn(ITEMS, modalities, dim, generator=torch.Generator().manual_seed(1))
    mask = torch.rand(ITEMS, modalities, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[0], mask[1] = True, False
    made, again, other = (_made(kind, dim, modalities, seed, settings) for seed in (0, 0, 1))
    found = _output(made, tokens, mask)
    assert found.shape == (ITEMS, dim), f"it must give {[ITEMS, dim]}: {list(found.shape)}"
    assert found.isfinite().all(), "it must be finite, also for an item that has nothing"
    assert found.equal(_output(again, tokens, mask)), "made twice with one seed it gives other embeddings"
    other.load_state_dict(made.state_dict())
    assert found.equal(_output(other, tokens, mask)), "what it learned is not all in state_dict()"
    filled = tokens.masked_fill(~mask[..., None], 1e3)
    assert torch.allclose(found[mask.any(1)], _output(made, filled, mask)[mask.any(1)], atol=1e-5), (
        "what stands where an item lacks a modality changes its embedding: see the mask"
    )
    alone = torch.cat([_output(made, t[None], m[None]) for t, m in zip(tokens, mask, strict=True)])
    assert torch.allclose(found, alone, atol=1e-5), "an item has another embedding alone than among others"
    learns(made, tokens, mask)


def learns(made: nn.Module, tokens: Tensor, mask: Tensor) -> None:
    """Every token that is there, and every parameter, gets gradient; no other token does."""
    given = tokens.clone().requires_grad_()
    direction = torch.randn(len(tokens), tokens.shape[2], generator=torch.Generator().manual_seed(3))
    (made(given, mask) * direction)[mask.any(1)].sum().backward()
    assert given.grad is not None
    reached = given.grad.abs().sum(2) > 0
    assert not (mask & ~reached).any(), "a token that is there has no influence"
    assert not (reached & ~mask).any(), "a token that is not there has influence"
    still = [name for name, p in made.named_parameters() if p.grad is None]
    assert not still, f"no gradient reaches {', '.join(still)}"


def _made(kind: str, dim: int, modalities: int, seed: int, settings: dict[str, Any]) -> nn.Module:
    torch.manual_seed(seed)
    return make_fusion(dim, modalities, FusionConfig.model_validate({"kind": kind, **settings})).eval()


def _output(fusion: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        return fusion(tokens, mask)
