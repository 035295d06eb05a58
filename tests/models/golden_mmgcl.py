from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from golden_slmrec import square
from torch.nn.functional import normalize

from golden import Arrays, GoldenModel, Tensors, assert_close, section
from rawrec.config.retrieval import MMGCLConfig
from rawrec.models.graph import user_item_matrix
from rawrec.models.losses import info_nce
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.branches import propagate_sides
from rawrec.models.retrieval.mmgcl import MMGCL


class GoldenMMGCL(GoldenModel):
    config = MMGCLConfig

    def convert(self, tensors: Tensors) -> Tensors:
        return {
            name.replace("v_dense", "image_dense").replace("t_dense", "text_dense"): t for name, t in tensors.items()
        }

    def draws(self, arrays: Arrays) -> Tensors:
        """The reference numbers the edges by user, then item."""
        order = torch.from_numpy(np.lexsort((arrays["train_items"], arrays["train_users"])))
        return {name: order[rows] if "edges" in name else rows for name, rows in section(arrays, "rand").items()}

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, MMGCL)
        return {"norm_adj": square(model.matrix.to_dense())}

    def part(self, name: str) -> str | None:
        return None if name.startswith("view") else super().part(name)

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Both views and what the published code computes of them and leaves out of its loss."""
        model, draws, batch = self.build(about, arrays), self.draws(arrays), section(arrays, "batch")
        assert isinstance(model, MMGCL)
        starts = model.starts()
        first = model.edge_view(starts, draws["view1_kept_edges"])
        kept = [draws["view1_kept_edges"]]
        if model.cfg.ssl_task == "ED":
            second = model.edge_view(starts, draws["view2_kept_edges"])
            kept.append(draws["view2_kept_edges"])
        else:
            clean = propagate_sides(model.matrix, *starts, model.cfg.layer_num)
            second = model.masking_view(starts, clean, draws)
            kept.append(model._undropped(draws))
        for k, (view, edges) in enumerate(zip((first, second), kept, strict=True), 1):
            graph = square(user_item_matrix(model._pairs(edges)).to_dense())
            assert_close(graph, arrays[f"graph/view{k}_adj"], f"graph of view {k}")
            u, i = model.read(view, batch["users"], batch["pos"])
            assert_close(normalize(u), arrays[f"out/view{k}_users"], f"users in view {k}")
            assert_close(normalize(i), arrays[f"out/view{k}_items"], f"positives in view {k}")
            contrast = info_nce(u, i, model.cfg.ssl_temp)
            assert_close(contrast, arrays[f"out/loss/view{k}_contrast"], f"contrast in view {k}")
            others = 1 if k == 1 else len(model.modalities)
            if f"out/view{k}_negative_items" in arrays:
                composed = model.compose(view[1], batch["pos"], batch["neg"], others)
                assert_close(normalize(composed), arrays[f"out/view{k}_negative_items"], f"composed in view {k}")
            if f"out/loss/view{k}_negative_contrast_unused" in arrays:
                rows = batch["users"], batch["pos"], batch["neg"]
                unused = model.composed_contrast(view, *rows, others)
                assert_close(unused, arrays[f"out/loss/view{k}_negative_contrast_unused"], f"negatives in view {k}")


CHECKS = {"mmgcl": GoldenMMGCL()}
