from collections.abc import Mapping
from typing import Any

from golden import Arrays, GoldenModel, Tensors, assert_close, section
from rawrec.config.retrieval import BM3Config
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.bm3 import BM3


class GoldenBM3(GoldenModel):
    config = BM3Config

    def draws(self, arrays: Arrays) -> Tensors:
        """The reference's masks are of whole tables."""
        batch = section(arrays, "batch")
        rows = {"keep_user": batch["users"]}
        return {name: keep[rows.get(name, batch["pos"])] for name, keep in section(arrays, "rand").items()}

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, BM3)
        return {"norm_adj": model.adjacency.to_dense()}

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        model = self.build(about, arrays)
        assert isinstance(model, BM3)
        for ours, kind in zip(model.representations(), ("user", "item"), strict=True):
            assert_close(ours, arrays[f"out/online_{kind}_before_predictor"], kind)


CHECKS = {"bm3": GoldenBM3()}
