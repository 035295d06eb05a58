import re
from collections.abc import Mapping
from typing import Any

import torch
from golden_lattice import WeightedReg

from golden import Arrays, Tensors, assert_close
from rawrec.config.retrieval import MGCNConfig
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.mgcn import MGCN

MODALITIES = {"v": "image", "t": "text", "f": "fusion"}


def full_names(tensors: Tensors) -> Tensors:
    """`gate_v` and `query_t` by the modalities' names."""
    return {
        re.sub(r"^(gate|query)_(v|t|f)\b", lambda m: f"{m[1]}_{MODALITIES[m[2]]}", k): v for k, v in tensors.items()
    }


class GoldenMGCN(WeightedReg):
    config = MGCNConfig

    def convert(self, tensors: Tensors) -> Tensors:
        return full_names(tensors)

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, MGCN)
        graphs = {"norm_adj": model.norm_adj.to_dense(), "R": model.R.to_dense()}
        for name, graph in zip(model.modalities, model.item_graphs, strict=True):
            graphs[f"{name}_adj"] = graph.to_dense()  # type: ignore[operator]
        return graphs

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """The two representations that the final one is the sum of."""
        model = self.build(about, arrays)
        assert isinstance(model, MGCN)
        with torch.no_grad():
            behaviour, views = model._views()
            assert_close(behaviour, arrays["out/content_embeddings"], "behaviour")
            assert_close(model._side(behaviour, views, model.node_present), arrays["out/side_embeddings"], "side")


CHECKS = {"mgcn": GoldenMGCN()}
