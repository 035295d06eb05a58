from collections.abc import Mapping
from typing import Any

import torch

from golden import Arrays, GoldenModel, Tensors, assert_close, section
from rawrec.config.retrieval import EM3FreedomConfig
from rawrec.models.graph import edge_weights
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.em3_freedom import EM3
from rawrec.models.retrieval.freedom import EPSILON

OURS = {"v_linear": "image_linear", "t_linear": "text_linear", "fusion": "content.fusion", "mm_proj": "content.mm_proj"}


class GoldenEM3(GoldenModel):
    config = EM3FreedomConfig
    zero_gradient = r"key\.bias$"

    def convert(self, tensors: Tensors) -> Tensors:
        """Tables of features, to which no gradient comes, are no parameters of ours."""
        converted = {}
        for name, tensor in tensors.items():
            first, _, rest = name.partition(".")
            if first not in ("image_embedding", "text_embedding"):
                converted[f"{OURS.get(first, first)}.{rest}"] = tensor
        return converted

    def epoch_draws(self, arrays: Arrays) -> Tensors:
        return {name: value for name, value in section(arrays, "rand").items() if name == "kept_edges"}

    def draws(self, arrays: Arrays) -> Tensors:
        """Beside the contrast samples, masks of the fusion's dropout `[n_items, tokens, dim]`, layer by layer."""
        drawn = section(arrays, "rand")
        masks = [
            mask
            for name in sorted(drawn.keys() - {"kept_edges", "cic_negatives"})
            for mask in drawn[name].reshape(-1, *drawn[name].shape[-3:])
        ]
        return {"cic_negatives": drawn["cic_negatives"], **{f"fusion_kept_{k}": mask for k, mask in enumerate(masks)}}

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, EM3)
        return {
            "norm_adj": model.adjacency.to_dense(),
            "masked_adj": model.pruned.to_dense(),
            "mm_adj": model.item_graph.to_dense(),
            "edge_sampling_weights": edge_weights(model.pairs, epsilon=EPSILON),
        }

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        model = self.build(about, arrays)
        assert isinstance(model, EM3)
        with torch.no_grad():
            tables = model.propagate(model.pruned, model.fuse(self.draws(arrays)))
        for kind, table in zip(("user", "item"), tables, strict=True):
            for path, part in zip(("id", "mm"), table.chunk(2, 1), strict=True):
                assert_close(part, arrays[f"out/train_{path}_{kind}"], f"{path} of {kind}s on the pruned graph")


CHECKS = {"em3": GoldenEM3()}
