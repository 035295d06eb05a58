from typing import Any

import pytest
import torch
from retrieval_mixin import ITEMS, RetrievalMixin, checkerboard, features_of, ranked_right, train
from torch.nn.functional import cosine_similarity

from rawrec.config.retrieval import BM3Config
from rawrec.models.graph import Interactions
from rawrec.models.retrieval.bm3 import BM3

USERS, POSITIVES = torch.tensor([0, 3, 3, 5, 0]), torch.tensor([2, 7, 9, 7, 2])


class TestBM3(RetrievalMixin):
    config = BM3Config

    def bm3(self, **settings: Any) -> BM3:
        model = self.make(**settings)
        assert isinstance(model, BM3)
        return model

    def test_overfits_a_tiny_set(self) -> None:
        """Without negatives nothing keeps random likes apart; pairs of one user and one item can be told."""
        users = torch.arange(8)
        items = users * 3 % 8
        model = self.bm3(pairs=Interactions(users, items, 8, 8), dropout=0.0, cl_weight=0.0, reg_weight=0.0)
        curve = train(model, 3 * self.epochs, self.lr)
        own = torch.zeros(8, 8, dtype=torch.bool)
        own[users, items] = True
        assert ranked_right(self.scores(model), own, ~own) > 0.95
        assert curve[-1] < 0.05 * curve[0]

    def test_a_node_has_one_view(self) -> None:
        model = self.bm3(embedding_size=500, dropout=0.3)
        draws = model.draw(USERS, POSITIVES, None, torch.Generator().manual_seed(0))
        assert set(draws) == {"keep_user", "keep_item", "keep_image", "keep_text"}
        for name, rows in (("user", USERS), ("item", POSITIVES), ("image", POSITIVES), ("text", POSITIVES)):
            keep = draws[f"keep_{name}"]
            assert keep.shape == (5, 500) and abs(keep.float().mean() - 0.7) < 0.05
            same = (keep[:, None] == keep[None]).all(2)
            assert same.equal(rows[:, None] == rows[None])
        assert not draws["keep_item"].equal(draws["keep_image"])

    def test_terms_of_a_modality_are_of_the_items_that_have_it(self) -> None:
        known = torch.ones(ITEMS, dtype=torch.bool).index_fill(0, torch.tensor([7]), False)
        model = self.bm3(present={"image": known, "text": torch.ones(ITEMS, dtype=torch.bool)})
        draws = model.draw(USERS, POSITIVES, None, torch.Generator().manual_seed(0))
        parts = model.loss(USERS, POSITIVES, None, draws)
        has = POSITIVES != 7
        e = model.get_submodule("image_trs")(model.feature("image", POSITIVES[has]))
        view = e * draws["keep_image"][has] / 0.5
        expected = 1 - cosine_similarity(model.predictor(e), view).mean()
        torch.testing.assert_close(parts["image_to_image"], expected)
        nothing = model.loss(USERS[1:2], POSITIVES[1:2], None, {k: v[1:2] for k, v in draws.items()})
        assert nothing["image_to_image"] == nothing["image_to_item"] == 0 < nothing["text_to_text"]

    @pytest.mark.parametrize("train_features", [True, False])
    def test_features_are_trained_or_not(self, train_features: bool) -> None:
        model = self.bm3(train_features=train_features)
        before = model.feature("image").clone()
        train(model, 2, self.lr)
        assert model.feature("image").equal(before) != train_features

    def test_what_is_held_down(self) -> None:
        model = self.bm3(reg_norm="squared", reg_on="batch")
        u, i = model.representations()
        draws = model.draw(USERS, POSITIVES, None, torch.Generator().manual_seed(0))
        expected = (u[USERS].square().sum() + i[POSITIVES].square().sum()) / 10
        torch.testing.assert_close(model.loss(USERS, POSITIVES, None, draws)["reg"], expected)

    def test_live_features_get_gradient(self) -> None:
        features = features_of(("image", "text"))
        model = self.bm3(pairs=checkerboard()[0], features=features, train_features=False)
        draws = model.draw(USERS, POSITIVES, None, torch.Generator().manual_seed(0))
        before = model.loss(USERS, POSITIVES, None, draws)["loss"]
        values = features["image"][[9, 2]].requires_grad_()
        model.live = {"image": (torch.tensor([9, 2]), values)}
        loss = model.loss(USERS, POSITIVES, None, draws)["loss"]
        torch.testing.assert_close(loss, before)
        loss.backward()
        assert values.grad is not None and values.grad.abs().sum(1).gt(0).all()
