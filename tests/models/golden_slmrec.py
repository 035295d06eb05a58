from collections.abc import Mapping
from typing import Any

import torch

from golden import Arrays, GoldenModel, Tensors, assert_close
from rawrec.config.retrieval import SLMRecConfig
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.slmrec import SLMRec

NAMES = {
    "v_dense": "image_dense",
    "t_dense": "text_dense",
    "g_i_iv": "chain.0.0",
    "g_iv_iva": "chain.1.0",
    "g_iva_ivat": "chain.1.1",
    "g_v_iv": "image_align",
    "g_t_ivat": "text_align",
}


def square(users_by_items: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix of users, then items, that has this block."""
    users, items = users_by_items.shape
    upper = torch.cat([torch.zeros(users, users), users_by_items], 1)
    return torch.cat([upper, torch.cat([users_by_items.T, torch.zeros(items, items)], 1)])


class GoldenSLMRec(GoldenModel):
    config = SLMRecConfig
    zero_gradient = r"_align\.bias$"  # the same for every logit of a row

    def convert(self, tensors: Tensors) -> Tensors:
        """Without g_a_iva, the map of an audio field, which nothing reads."""
        split = {name: name.rsplit(".", 1) for name in tensors if not name.startswith("g_a_iva")}
        return {f"{NAMES.get(layer, layer)}.{kind}": tensors[name] for name, (layer, kind) in split.items()}

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, SLMRec)
        dense = model.adjacency.to_dense()
        return {"norm_adj": square(dense) if model.cfg.adj_type == "pre" else dense}

    def scores(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(users @ items.T)

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        model = self.build(about, arrays)
        assert isinstance(model, SLMRec)
        for name, key in self.features.items():
            assert_close(model.feature(name), arrays[f"out/normalised_{key}"], key)
        _, items = model.branches_of(model.starts())
        for name, branch in zip(("id", *model.modalities), items.split(model.dim, 1), strict=True):
            assert_close(branch, arrays[f"out/item_{name}_branch"], name)


CHECKS = {"slmrec": GoldenSLMRec()}
