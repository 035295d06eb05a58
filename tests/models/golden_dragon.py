import re
from collections.abc import Mapping
from typing import Any

from golden import Arrays, GoldenModel, Tensors, section
from rawrec.config.retrieval import DRAGONConfig
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.dragon import DRAGON

NAMES = {"v": "image", "t": "text", "preference": "preference", "MLP": "hidden", "MLP_1": "latent"}
UNUSED = r"(weight_i|MLP_.*|(image|text)_(embedding|trs)\..*)$"


class GoldenDRAGON(GoldenModel):
    config = DRAGONConfig

    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        assert hyper.get("aggr_mode", "add") == "add"
        return {**super().settings(hyper), "embedding_size": hyper["dim_latent"]}

    def parameters(self, arrays: Arrays) -> Tensors:
        return super().parameters(arrays) | section(arrays, "rand")

    def convert(self, tensors: Tensors) -> Tensors:
        """`v_gcn.MLP_1.weight` -> `image_latent.weight`; tables that the reference never reads are left out."""
        return {
            re.sub(r"^(v|t)_gcn\.(\w+)", lambda m: f"{NAMES[m[1]]}_{NAMES[m[2]]}", name): value
            for name, value in tensors.items()
            if not re.match(UNUSED, name)
        }

    def epoch_draws(self, arrays: Arrays) -> Tensors:
        return section(arrays, "rand")

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, DRAGON)
        return {"mm_adj": model.mm_adj.to_dense()}


CHECKS = {"dragon": GoldenDRAGON()}
