"""What every retrieval model must do; a test class inherits `RetrievalMixin` and names its settings."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rawrec.config.retrieval import RetrievalConfig
from rawrec.models.graph import Interactions
from rawrec.models.retrieval import retrieval_model
from rawrec.models.retrieval.base import RetrievalModel

USERS, ITEMS = 24, 20
WIDTHS = {"image": 6, "text": 5, "audio": 4}


def checkerboard(share: float = 0.75) -> tuple[Interactions, Tensor]:
    """Users like items of their parity: training pairs, a share of these, and all liked `[USERS, ITEMS]` bool."""
    generator = torch.Generator().manual_seed(0)
    liked = (torch.arange(USERS)[:, None] + torch.arange(ITEMS)) % 2 == 0
    seen = liked & (torch.rand(USERS, ITEMS, generator=generator) < share)
    users, items = seen.nonzero(as_tuple=True)
    return Interactions(users, items, USERS, ITEMS), liked


def features_of(names: tuple[str, ...], n_items: int = ITEMS) -> dict[str, Tensor]:
    """Of the items, modality -> `[n_items, width]`: noise, and their parity in the first number."""
    generator = torch.Generator().manual_seed(1)
    features = {name: 0.3 * torch.randn(n_items, WIDTHS[name], generator=generator) for name in names}
    for table in features.values():
        table[:, 0] += 2.0 * (torch.arange(n_items) % 2) - 1
    return features


def train(model: RetrievalModel, epochs: int, lr: float, seed: int = 0, batch_size: int = 64) -> list[float]:
    """Adam on all pairs, one negative each, uniform over what the user has not met; the mean loss of each epoch."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    pairs, curve = model.pairs, []
    unseen = torch.ones(pairs.n_users, pairs.n_items)
    unseen[pairs.users, pairs.items] = 0
    for _ in range(epochs):
        model.begin_epoch(model.draw_epoch(generator))
        total = 0.0
        for rows in torch.randperm(len(pairs.users), generator=generator).split(batch_size):
            users, positives = pairs.users[rows], pairs.items[rows]
            negatives = None
            if model.uses_negatives:
                negatives = unseen[users].multinomial(1, generator=generator).squeeze(1)
            losses = model.loss(users, positives, negatives, model.draw(users, positives, negatives, generator))
            assert all(part.isfinite().all() and part.ndim == 0 for part in losses.values()), losses
            optimizer.zero_grad()
            losses["loss"].backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
            optimizer.step()
            total += losses["loss"].item() * len(rows)
        curve.append(total / len(pairs.users))
    return curve


def ranked_right(scores: Tensor, good: Tensor, bad: Tensor) -> float:
    """The share of (good, bad) item pairs of a user, over all users, in which the good one scores higher."""
    wins = (scores[:, :, None] > scores[:, None, :]) & good[:, :, None] & bad[:, None, :]
    return wins.sum().item() / (good[:, :, None] & bad[:, None, :]).sum().item()


class RetrievalMixin:
    """config: the model's record. settings: over its defaults, fit for a tiny set. epochs, lr: enough to learn it."""

    config: ClassVar[type[RetrievalConfig]]
    settings: ClassVar[Mapping[str, Any]] = {}
    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    epochs: ClassVar[int] = 40
    lr: ClassVar[float] = 0.02

    @pytest.fixture(autouse=True)
    @classmethod
    def one_thread(cls) -> Iterator[None]:
        """Tiny tensors on several threads take many times as long."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)

    @classmethod
    def make(
        cls,
        pairs: Interactions | None = None,
        features: dict[str, Tensor] | None = None,
        present: dict[str, Tensor] | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> RetrievalModel:
        """The model with weights of this seed; by default of the checkerboard."""
        torch.manual_seed(seed)
        size = {"embedding_size": 8} if "embedding_size" in cls.config.model_fields else {}
        cfg = cls.config(**{**size, **cls.settings, **settings})
        pairs = checkerboard()[0] if pairs is None else pairs
        features = features_of(cls.modalities, pairs.n_items) if features is None else features
        return retrieval_model(str(cfg.model_dump()["name"]))(cfg, pairs, features, present)

    @classmethod
    def scores(cls, model: RetrievalModel) -> Tensor:
        users, items = model.embeddings()
        assert users.shape == (model.n_users, items.shape[1]) and items.shape[0] == model.n_items
        assert users.isfinite().all() and items.isfinite().all()
        assert not users.requires_grad and not items.requires_grad
        return users @ items.T

    def test_learns_a_checkerboard(self) -> None:
        pairs, liked = checkerboard()
        model = self.make(pairs)
        train(model, self.epochs, self.lr)
        held_out = liked.clone()
        held_out[pairs.users, pairs.items] = False
        assert ranked_right(self.scores(model), held_out, ~liked) > 0.95

    def test_overfits_a_tiny_set(self) -> None:
        """Random likes, which nothing but memory explains."""
        seen = torch.rand(8, 10, generator=torch.Generator().manual_seed(3)) < 0.3
        users, items = seen.nonzero(as_tuple=True)
        model = self.make(Interactions(users, items, 8, 10))
        before = ranked_right(self.scores(model), seen, ~seen)
        curve = train(model, 3 * self.epochs, self.lr)
        assert ranked_right(self.scores(model), seen, ~seen) > max(0.95, before)
        assert curve[-1] < curve[0]

    def test_is_the_same_twice_with_one_seed(self) -> None:
        runs = []
        for seed in (4, 4, 5):
            model = self.make(seed=seed)
            runs.append((train(model, 2, self.lr, seed), self.scores(model)))
        assert runs[0][0] == runs[1][0] and runs[0][1].equal(runs[1][1])
        assert runs[0][0] != runs[2][0]

    def test_state_dict_round_trip(self) -> None:
        model, other = self.make(seed=0), self.make(seed=1)
        train(model, 2, self.lr)
        other.load_state_dict(model.state_dict())
        assert self.scores(model).equal(self.scores(other))
        generators = [torch.Generator().manual_seed(7) for _ in range(2)]
        losses = []
        for one, generator in zip((model, other), generators, strict=True):
            one.begin_epoch(one.draw_epoch(generator))
            users, items = one.pairs.users[:8], one.pairs.items[:8]
            negatives = (items + 1) % ITEMS if one.uses_negatives else None
            losses.append(one.loss(users, items, negatives, one.draw(users, items, negatives, generator))["loss"])
        assert losses[0].equal(losses[1])

    @pytest.mark.parametrize("names", [("image",), ("image", "text", "audio")], ids=["one", "three"])
    def test_any_number_of_modalities(self, names: tuple[str, ...]) -> None:
        if not self.modalities:
            pytest.skip("reads no features")
        model = self.make(features=features_of(names))
        train(model, 3, self.lr)
        self.scores(model)

    def test_a_missing_modality(self) -> None:
        """What stands where nothing is known has no influence, be it NaN."""
        if not self.modalities:
            pytest.skip("reads no features")
        generator = torch.Generator().manual_seed(2)
        present = {name: torch.rand(ITEMS, generator=generator) < 0.7 for name in self.modalities}
        for known in present.values():
            known[:3] = torch.tensor([False, True, True])  # the first item lacks all
        results = []
        for filling in (0.0, float("nan")):
            features = features_of(self.modalities)
            for name, known in present.items():
                features[name][~known] = filling
            model = self.make(features=features, present=present)
            train(model, 3, self.lr)
            results.append(self.scores(model))
        assert results[0].equal(results[1])

    def test_nodes_without_training_interactions(self) -> None:
        """The last user and the last item have none; they get numbers, and the others are trained."""
        pairs, _ = checkerboard()
        kept = (pairs.users < USERS - 1) & (pairs.items < ITEMS - 1)
        model = self.make(Interactions(pairs.users[kept], pairs.items[kept], USERS, ITEMS))
        curve = train(model, 10, self.lr)
        self.scores(model)
        assert curve[-1] < curve[0]

    def test_constant_features(self) -> None:
        if not self.modalities:
            pytest.skip("reads no features")
        for constant in (0.0, 1.0):
            model = self.make(features={name: torch.full((ITEMS, WIDTHS[name]), constant) for name in self.modalities})
            train(model, 3, self.lr)
            self.scores(model)
