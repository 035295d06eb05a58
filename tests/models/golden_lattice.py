from collections.abc import Mapping
from typing import Any

import torch

from golden import Arrays, GoldenModel, Tensors, assert_close, section
from rawrec.config.retrieval import LATTICEConfig
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.lattice import LATTICE


def dense(weights: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Weights of neighbours (-1 = none, weight 0) `[n, k]` as a matrix `[n, n]`."""
    return weights.new_zeros(len(weights), len(weights)).scatter_add_(1, neighbours.clamp(min=0), weights)


class WeightedReg(GoldenModel):
    """Of fixtures that hold the regulariser times its weight."""

    def part(self, name: str) -> str | None:
        return name.removesuffix("_unweighted")

    def loss(self, model: RetrievalModel, arrays: Arrays) -> Tensors:
        losses = super().loss(model, arrays)
        return losses | {"reg_weighted": model.cfg.reg_weight * losses["reg"]}


class GoldenLATTICE(WeightedReg):
    config = LATTICEConfig

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, LATTICE)
        with torch.no_grad():
            tokens = model._tokens()
            neighbours = model._search(tokens)
            similarities = model._similarities(tokens, neighbours)
            graphs = {
                "norm_adj": model.norm_adj.to_dense(),
                "item_adj": model._constant(*model._mix(similarities, neighbours)).to_dense(),
            }
        for m, name in enumerate(model.modalities):
            graphs[f"{name}_original_adj"] = dense(model.frozen_weights[m], model.frozen_neighbours[m])
            graphs[f"{name}_learned_knn"] = dense(similarities[m], neighbours[m])
        return graphs

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """The later batches of an epoch: the item graph is a constant."""
        model = self.build(about, arrays)
        self.loss(model, arrays)
        losses = self.loss(model, arrays)
        assert_close(losses["loss"], arrays["out/loss_frozen_graph"], "loss of a later batch")
        losses["loss"].backward()
        self.check_gradients(model, self.convert(section(arrays, "grad_frozen_graph")))


CHECKS = {"lattice": GoldenLATTICE()}
