"""What every retrieval model must do: `rawrec.testing`. A test class inherits `RetrievalMixin`, names its settings."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rawrec.config.retrieval import RetrievalConfig
from rawrec.models.graph import Interactions
from rawrec.models.retrieval import retrieval_model
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.testing import retrieval as checks
from rawrec.testing.retrieval import ITEMS, USERS, WIDTHS, checkerboard, features_of, ranked_right, train

__all__ = ["ITEMS", "USERS", "WIDTHS", "RetrievalMixin", "checkerboard", "features_of", "ranked_right", "train"]


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
        with checks.one_thread():
            yield

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
    def make_from(cls, pairs: Interactions, features: dict[str, Tensor], present: Any = None) -> RetrievalModel:
        """The model with weights of torch's present seed."""
        return cls.make(pairs, features, present, seed=torch.initial_seed())

    @classmethod
    def scores(cls, model: RetrievalModel) -> Tensor:
        return checks.scores_of(model)

    def test_learns_a_checkerboard(self) -> None:
        checks.learns_a_checkerboard(self.make_from, self.modalities, self.epochs, self.lr)

    def test_overfits_a_tiny_set(self) -> None:
        checks.overfits_a_tiny_set(self.make_from, self.modalities, self.epochs, self.lr)

    def test_is_the_same_twice_with_one_seed(self) -> None:
        checks.is_the_same_twice(self.make_from, self.modalities, self.lr)

    def test_state_dict_round_trip(self) -> None:
        checks.survives_save_and_load(self.make_from, self.modalities, self.lr)

    @pytest.mark.parametrize("names", [("image",), ("image", "text", "audio")], ids=["one", "three"])
    def test_any_number_of_modalities(self, names: tuple[str, ...]) -> None:
        if not self.modalities:
            pytest.skip("reads no features")
        checks.reads_any_number_of_modalities(self.make_from, names, self.lr)

    def test_a_missing_modality(self) -> None:
        if not self.modalities:
            pytest.skip("reads no features")
        checks.stands_a_missing_modality(self.make_from, self.modalities, self.lr)

    def test_nodes_without_training_interactions(self) -> None:
        checks.stands_cold_users_and_items(self.make_from, self.modalities, self.lr)

    def test_constant_features(self) -> None:
        if not self.modalities:
            pytest.skip("reads no features")
        checks.stands_constant_features(self.make_from, self.modalities, self.lr)
