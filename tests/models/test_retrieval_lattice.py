from typing import Any

import pytest
import torch
from retrieval_mixin import ITEMS, RetrievalMixin, checkerboard, features_of, train

from rawrec.config.retrieval import LATTICEConfig
from rawrec.errors import UserError
from rawrec.models.retrieval.lattice import LATTICE

ROWS = torch.arange(8)


def step(model: LATTICE) -> dict[str, bool]:
    """A training step without update: which parameters have a gradient."""
    model.zero_grad()
    model.loss(ROWS, ROWS, ROWS + 9, {})["loss"].backward()
    return {name: p.grad is not None and bool(p.grad.any()) for name, p in model.named_parameters()}


class TestLATTICE(RetrievalMixin):
    config = LATTICEConfig
    settings = {"knn_k": 4, "feat_embed_dim": 8, "train_batch_size": 64}  # noqa: RUF012

    def lattice(self, **settings: Any) -> LATTICE:
        model = self.make(**settings)
        assert isinstance(model, LATTICE)
        return model

    def test_the_first_batch_of_an_epoch_trains_the_graph(self) -> None:
        model = self.lattice()
        for _ in range(2):
            model.begin_epoch({})
            assert all(step(model).values())
            later = step(model)
            assert [name for name, reached in later.items() if reached] == [
                "user_embedding.weight",
                "item_id_embedding.weight",
            ]

    def test_evaluation_leaves_the_epoch_s_graph_alone(self) -> None:
        model = self.lattice()
        step(model)
        graph = model.item_graph
        model.embeddings()
        assert model.item_graph is graph

    def test_each_step_may_rebuild(self) -> None:
        model = self.lattice(rebuild="step")
        step(model)
        assert all(step(model).values())

    def test_live_features_get_gradient_in_every_step(self) -> None:
        """With live rows equal to the features the graph is the same; only edges at which they stand are recomputed."""
        features, rows = features_of(("image", "text")), torch.tensor([2, 5, 11])
        model = self.lattice(features=features, train_features=False)
        live = {name: table[rows].clone().requires_grad_() for name, table in features.items()}
        model.live = {name: (rows, values) for name, values in live.items()}
        first, later, last = [], [], []
        for gradients in (first, later):
            loss = model.loss(ROWS, ROWS, ROWS + 9, {})["loss"]
            gradients += [loss, *torch.autograd.grad(loss, list(live.values()))]
        model.live = {}
        last.append(model.loss(ROWS, ROWS, ROWS + 9, {})["loss"])
        assert torch.allclose(first[0], later[0]) and torch.allclose(first[0], last[0])
        assert all(torch.allclose(a, b, atol=1e-6) and a.abs().max() > 1e-6 for a, b in zip(first, later, strict=True))

    @pytest.mark.parametrize(
        "settings",
        [
            {"cf_model": "ngcf", "weight_size": [8, 8], "mess_dropout": [0.1, 0.0]},
            {"cf_model": "mf"},
            {"normalise_learned": "each", "adjacency": "symmetric", "n_layers": 2},
        ],
        ids=["ngcf", "mf", "paper"],
    )
    def test_other_settings_learn(self, settings: dict[str, Any]) -> None:
        model = self.lattice(**settings)
        curve = train(model, 10, self.lr)
        assert curve[-1] < curve[0]
        self.scores(model)

    def test_weights_are_renormalised_over_what_an_item_has(self) -> None:
        """Where no item has texts but a few, the others' edges are those of pictures alone."""
        known = torch.ones(ITEMS, dtype=torch.bool)
        few = known.logical_not().index_fill(0, torch.arange(4), True)
        pairs, features = checkerboard()[0], features_of(("image", "text"))
        both = self.lattice(pairs=pairs, features=features, present={"image": known, "text": few}, lambda_coeff=1.0)
        alone = self.lattice(pairs=pairs, features={"image": features["image"]}, lambda_coeff=1.0)
        graphs = []
        for model in (both, alone):
            step(model)
            assert model.item_graph is not None
            graphs.append(model.item_graph.to_dense())
        assert torch.allclose(graphs[0][4:], graphs[1][4:], atol=1e-6)
        assert not torch.allclose(graphs[0][:4], graphs[1][:4], atol=1e-3)

    def test_impossible_settings_are_refused(self) -> None:
        with pytest.raises(UserError, match=r"model\.weight_size=\[8, 4\]"):
            self.make(cf_model="ngcf", weight_size=[8, 4])
        with pytest.raises(UserError, match=r"model\.mess_dropout"):
            self.make(cf_model="ngcf", weight_size=[8], mess_dropout=[0.1, 0.1])
        with pytest.raises(UserError, match=r"model\.knn_k=21: the catalogue has 20 items"):
            self.make(knn_k=21)
