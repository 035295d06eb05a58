from collections.abc import Mapping
from typing import Any

import torch
from golden_lattice import WeightedReg
from golden_mgcn import full_names

from golden import Arrays, Tensors, assert_close
from rawrec.config.retrieval import SMOREConfig
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.smore import SMORE


class GoldenSMORE(WeightedReg):
    config = SMOREConfig

    def convert(self, tensors: Tensors) -> Tensors:
        return full_names(tensors)

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, SMORE)
        graphs = {"norm_adj": model.norm_adj.to_dense(), "R": model.R.to_dense()}
        for view, graph in zip(model.views, model.item_graphs, strict=True):
            graphs[f"{view}_adj"] = graph.to_dense()  # type: ignore[operator]
        return graphs

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Behaviour, and the side representation as in training: dropout is in it where the fixture has masks."""
        model = self.build(about, arrays)
        assert isinstance(model, SMORE)
        with torch.no_grad():
            behaviour, views = model._views()
            side = model._side(behaviour, views, model.node_present, self.draws(arrays))
            assert_close(behaviour, arrays["out/content_embeddings"], "behaviour")
            assert_close(side, arrays["out/side_embeddings"], "side")


CHECKS = {"smore": GoldenSMORE()}
