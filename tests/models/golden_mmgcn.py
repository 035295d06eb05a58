import re
from collections.abc import Mapping
from typing import Any

import torch

from golden import Arrays, GoldenModel, Tensors, assert_close, section
from rawrec.config.retrieval import MMGCNConfig
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.mmgcn import MMGCN, MeanGraph

NAMES = {
    r"^v_gcn\.": "image.",
    r"^t_gcn\.": "text.",
    r"\.preference$": "_preference",
    r"\.MLP\.": "_branch.reduce.",
    r"\.conv_embed_(\d+)\.weight$": r"_branch.layers.\1.conv",
    r"\.linear_layer(\d+)\.": r"_branch.layers.\1.linear.",
    r"\.g_layer(\d+)\.": r"_branch.layers.\1.g.",
    r"(?<=layers\.)\d+": lambda found: str(int(found[0]) - 1),  # ours count from 0
}


class GoldenMMGCN(GoldenModel):
    """The depth and the reduced width are those of the parameters; the reference does not read its own n_layers."""

    config = MMGCNConfig
    trained = False

    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        return super().settings(hyper) | self.shape | {"train_ids": self.trained}

    def build(self, about: Mapping[str, Any], arrays: Arrays) -> RetrievalModel:
        depth = sum(name.startswith("param/v_gcn.conv_embed") for name in arrays)
        sizes = [len(arrays[key]) if (key := f"param/{m}_gcn.MLP.weight") in arrays else 0 for m in "vt"]
        self.shape = {"n_layers": depth, "latent_sizes": sizes}
        return super().build(about, arrays)

    def parameters(self, arrays: Arrays) -> Tensors:
        return super().parameters(arrays) | section(arrays, "unregistered")

    def convert(self, tensors: Tensors) -> Tensors:
        renamed = {}
        for name, tensor in tensors.items():
            for pattern, ours in NAMES.items():
                name = re.sub(pattern, ours, name)
            renamed[name] = tensor
        return renamed

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, MMGCN)
        graph = model.get_submodule("image_graph")
        assert isinstance(graph, MeanGraph)
        dense = torch.zeros([model.n_users + model.n_items] * 2)
        dense[: model.n_users, model.n_users :] = graph.to_users.to_dense()
        dense[model.n_users :, : model.n_users] = graph.to_items.to_dense()
        return {"mean_adj": dense}

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Each branch; and the gradients that ids and preferences would have."""
        model = self.build(about, arrays)
        for name in model.modalities:
            graph, branch = (model.get_submodule(f"{name}_{kind}") for kind in ("graph", "branch"))
            ids = model.get_buffer("id_embedding").split([model.n_users, model.n_items])
            preferences = model.get_buffer(f"{name}_preference")
            out = branch(graph, preferences, model.feature(name), model.present(name), ids, (None, None))
            assert_close(torch.cat(out), arrays[f"out/{name}_branch"], name)

        trained = type(self)()
        trained.trained = True
        model = trained.build(about, arrays)
        trained.loss(model, arrays)["loss"].backward()
        expected = section(arrays, "grad") | section(arrays, "grad_unregistered")
        trained.check_gradients(model, trained.convert(expected))


CHECKS = {"mmgcn": GoldenMMGCN()}
