from collections.abc import Mapping
from typing import Any

from golden import Arrays, GoldenModel, Tensors, assert_close, section
from rawrec.config.retrieval import FREEDOMConfig
from rawrec.models.graph import edge_weights
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.freedom import EPSILON, FREEDOM, frozen_item_graph


class GoldenFREEDOM(GoldenModel):
    config = FREEDOMConfig
    zero_gradient = r"_trs\.bias$"

    def epoch_draws(self, arrays: Arrays) -> Tensors:
        return section(arrays, "rand")

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, FREEDOM)
        return {
            "norm_adj": model.adjacency.to_dense(),
            "masked_adj": model.pruned.to_dense(),
            "mm_adj": model.item_graph.to_dense(),
            "edge_sampling_weights": edge_weights(model.pairs, epsilon=EPSILON),
        }

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        model = self.build(about, arrays)
        assert isinstance(model, FREEDOM)
        users, items = model.propagate(model.pruned)
        assert_close(users, arrays["out/train_user_embeddings"], "users on the pruned graph")
        assert_close(items, arrays["out/train_item_embeddings"], "items on the pruned graph")
        k = about["hyper_parameters"]["knn_k"]
        for name in model.modalities:
            model.modalities = (name,)
            assert_close(frozen_item_graph(model, k, 1.0).to_dense(), arrays[f"graph/{name}_adj"], name)


CHECKS = {"freedom": GoldenFREEDOM()}
