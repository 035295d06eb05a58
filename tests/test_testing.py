"""What is public for tests of own models: what is right passes, and what is wrong is told."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rawrec
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.stacks import ConvStack
from rawrec.data.images import Framing
from rawrec.errors import UserError
from rawrec.models.losses import bpr_loss
from rawrec.testing import check_encoder, check_fusion, check_model
from registries import registries  # noqa: F401

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
pytestmark = pytest.mark.usefixtures("registries")


class OwnConfig(rawrec.RetrievalConfig):
    """Ids alone."""

    dim: int = 8

    def reads_features(self) -> bool:
        return False


class Own(rawrec.RetrievalModel):
    def __init__(self, cfg: Any, pairs: Any, features: Any, present: Any = None):
        super().__init__(cfg, pairs, features, present)
        self.user, self.item = nn.Embedding(self.n_users, cfg.dim), nn.Embedding(self.n_items, cfg.dim)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Any) -> dict[str, Tensor]:
        assert negatives is not None
        u, p, n = self.user(users), self.item(positives), self.item(negatives)
        return {"loss": bpr_loss((u * p).sum(1), (u * n).sum(1))}

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.user.weight, self.item.weight


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import an example from its folder, anew."""
    monkeypatch.syspath_prepend(str(EXAMPLES / name))
    sys.modules.pop(f"rawrec_{name}", None)
    importlib.import_module(f"rawrec_{name}")


def test_a_model_that_is_right() -> None:
    rawrec.register_model("own", OwnConfig, Own)
    check_model(Own)
    with pytest.raises(UserError, match="no registered model"):
        check_model("other")


def test_the_example_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    load("fism", monkeypatch)
    with pytest.raises(AssertionError, match="by heart"):  # an item may not explain itself
        check_model("fism", {"dim": 8})
    check_model("fism", {"dim": 8}, memorises=False)


def test_heads_of_rankers(monkeypatch: pytest.MonkeyPatch) -> None:
    check_model("dot_mlp", {"dim": 8, "hidden": [32], "dropout": 0.0})
    load("crossed", monkeypatch)
    check_model("crossed", {"dim": 8})


class Constant(Own):
    """Learns nothing."""

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        return torch.ones(self.n_users, 2), torch.ones(self.n_items, 2)


class Random(Own):
    """Draws where it must not."""

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Any) -> dict[str, Tensor]:
        loss = super().loss(users, positives, negatives, draws)["loss"]
        return {"loss": loss * (1 + 0.01 * torch.rand((), generator=GENERATOR))}


class Forgetful(Own):
    """Keeps something beside its state."""

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.user.weight + self.kept, self.item.weight

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.kept = torch.randn(self.n_users, self.cfg.dim) * 0.01


class WithGradient(Own):
    def embeddings(self) -> tuple[Tensor, Tensor]:
        return 2 * self.user.weight, self.item.weight


class NoLoss(Own):
    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Any) -> dict[str, Tensor]:
        return {"bpr": super().loss(users, positives, negatives, draws)["loss"]}


GENERATOR = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Constant, "held-out pairs of a checkerboard"),
        (Random, "two runs of one seed differ"),
        (Forgetful, "not all in state_dict"),
        (WithGradient, "no gradient"),
        (NoLoss, "a dict with 'loss'"),
    ],
)
def test_what_is_wrong_with_a_model_is_told(cls: type[Any], said: str) -> None:
    rawrec.register_model("own", OwnConfig, cls)
    with pytest.raises(AssertionError, match=said):
        check_model("own")


def test_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    load("tiles", monkeypatch)
    check_encoder("tiles", kind="image", size=32)
    check_encoder("random:bert", kind="text", max_length=16)


class Blind(ConvStack):
    """Sees no picture."""

    def run(self, x: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        found = super().run(x, mask, first, last)
        return torch.ones_like(found) if last == self.depth else found


class Shifted(ConvStack):
    """Another feature where it is cut."""

    def run(self, x: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        return super().run(x, mask, first, last) + first


@pytest.mark.parametrize(("cls", "said"), [(Blind, "two different items"), (Shifted, "other features than train=none")])
def test_what_is_wrong_with_an_encoder_is_told(cls: type[ConvStack], said: str) -> None:
    @rawrec.register_encoder("wrong", kind="image")
    def wrong(cfg: Any) -> Any:
        pictures = Pictures(Framing(cfg.size), (127.0,) * 3, (128.0,) * 3)
        return cls([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)], 4), pictures

    with pytest.raises(AssertionError, match=said):
        check_encoder("wrong", kind="image", size=32)


def test_fusions(monkeypatch: pytest.MonkeyPatch) -> None:
    load("gate", monkeypatch)
    check_fusion("gate")

    @rawrec.register_fusion("careless")
    class Careless(nn.Module):
        def __init__(self, dim: int, modalities: int, cfg: Any):
            super().__init__()
            self.out = nn.Linear(dim, dim)

        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            return self.out(tokens.mean(1))

    with pytest.raises(AssertionError, match="lacks a modality"):
        check_fusion("careless")
