from typing import Any

import pytest
import torch
from retrieval_mixin import ITEMS, USERS, RetrievalMixin, checkerboard, features_of, train
from torch.nn.functional import leaky_relu

from rawrec.config.retrieval import MMGCNConfig
from rawrec.models.retrieval.mmgcn import MMGCN, Layer

ROWS = torch.tensor([0, 3, 3, 5]), torch.tensor([2, 7, 9, 7]), torch.tensor([1, 4, 4, 8])


class TestMMGCN(RetrievalMixin):
    config = MMGCNConfig
    settings = {"latent_sizes": [4], "reg_weight": 1e-3}  # noqa: RUF012

    def mmgcn(self, **settings: Any) -> MMGCN:
        model = self.make(**settings)
        assert isinstance(model, MMGCN)
        return model

    @pytest.mark.parametrize(
        "settings",
        [
            {"train_ids": True, "reg_preferences": "all"},
            {"combine": "add", "n_layers": 2},
            {"latent_sizes": [], "n_layers": 1},
            {"latent_sizes": [0, 3, 5]},
        ],
        ids=["train_ids", "add", "one layer", "second reduced"],
    )
    def test_other_settings_learn(self, settings: dict[str, Any]) -> None:
        model = self.mmgcn(**settings)
        curve = train(model, 10, self.lr)
        assert curve[-1] < curve[0]
        self.scores(model)

    @pytest.mark.parametrize("train_ids", [False, True])
    def test_ids_are_part_of_the_state_and_trained_if_asked(self, train_ids: bool) -> None:
        model = self.mmgcn(train_ids=train_ids)
        before = {name: model.state_dict()[name].clone() for name in ("id_embedding", "text_preference")}
        train(model, 2, self.lr)
        assert all(model.state_dict()[name].equal(table) != train_ids for name, table in before.items())

    def test_rows_asked_for_are_those_of_the_whole(self) -> None:
        model = self.mmgcn()
        whole, some = model.representations(), model.representations(ROWS[:2])
        for rows, all_of_them, ours in zip(ROWS[:2], whole, some, strict=True):
            torch.testing.assert_close(ours, all_of_them[rows])

    def test_the_node_may_be_added_after_the_map(self) -> None:
        torch.manual_seed(0)
        layer = Layer(5, MMGCNConfig(embedding_size=3, combine="add"))
        means, x, ids = torch.randn(4, 5), torch.randn(4, 5), torch.randn(4, 3)
        expected = leaky_relu(layer.g(leaky_relu(means)) + leaky_relu(layer.linear(x)) + ids)
        torch.testing.assert_close(layer.combine(means, x, ids), expected)

    def test_a_graph_is_of_the_items_that_have_its_modality(self) -> None:
        """And an item is the mean of the branches that it has; what the others make of it is left out."""
        image, text = torch.ones(2, ITEMS, dtype=torch.bool)
        image[[2, 3]], text[[3, 4]] = False, False
        pairs = checkerboard()[0]
        model = self.mmgcn(pairs=pairs, present={"image": image, "text": text})
        clicks = torch.zeros(USERS, ITEMS)
        clicks[pairs.users, pairs.items] = 1
        clicks[:, ~image] = 0
        graph = model.get_submodule("image_graph")
        torch.testing.assert_close(graph.to_users.to_dense(), clicks / clicks.sum(1, keepdim=True))
        torch.testing.assert_close(graph.to_items.to_dense(), (clicks / clicks.sum(0).clamp(min=1)).T)
        expected = torch.full((ITEMS, 2), 0.5)
        expected[2], expected[4] = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
        assert model.mix.equal(expected)
        assert self.mmgcn().get_submodule("image_graph") is not graph

    def test_live_features_get_gradient(self) -> None:
        features = features_of(("image", "text"))
        model = self.mmgcn(features=features)
        before = model.loss(*ROWS, {})["loss"]
        values = {name: table[[9, 2]].requires_grad_() for name, table in features.items()}
        model.live = {name: (torch.tensor([9, 2]), value) for name, value in values.items()}
        loss = model.loss(*ROWS, {})["loss"]
        torch.testing.assert_close(loss, before)
        loss.backward()
        assert all(v.grad is not None and v.grad.abs().sum(1).gt(0).all() for v in values.values())
