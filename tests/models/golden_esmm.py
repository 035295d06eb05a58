"""ESMM: the product and the loss are ours, the towers are the reference's, made here (linear maps and batch norm)."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from heads_golden import GoldenHead, take, tokens_of
from torch import Tensor, nn

from golden import Arrays, Tensors
from rawrec.models.ranking.esmm import ESMM
from rawrec.models.ranking.tokens import Head, Tokens

TOWERS = {"cvr": "conversion", "ctr": "click"}


class Tower(Head):
    """For each hidden size linear, batch norm, ReLU and dropout; then a linear map to 1: by the reference's numbers."""

    def __init__(self, widths: list[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(dropout)]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, tokens: Tokens) -> Tensor:
        return self.mlp(tokens.values[:, 0].flatten(1))[:, None]


class TablesAndESMM(nn.Module):
    def __init__(self, hyper: Mapping[str, Any]) -> None:
        super().__init__()
        features, dim = [*hyper["user_features"], *hyper["item_features"]], hyper["embedding_dim"]
        self.names = [feature["name"] for feature in features]
        self.tables = nn.ParameterDict({f["name"]: torch.zeros(f["vocab_size"], dim) for f in features})
        width = len(features) * dim
        towers = [Tower([width, *hyper[f"{name}_hidden_units"]], hyper["dropout"]) for name in ("ctr", "cvr")]
        self.esmm = ESMM(*towers)

    def tokens(self, given: Tensors) -> Any:
        return tokens_of(torch.stack([self.tables[name][given[name]] for name in self.names], 1))


class GoldenESMM(GoldenHead):
    def build(self, about: Mapping[str, Any], arrays: Arrays) -> nn.Module:
        hyper = about["hyper_parameters"]
        read = ("user_features", "item_features", "embedding_dim", "cvr_hidden_units", "ctr_hidden_units")
        take(hyper, {}, dict.fromkeys(read, ...) | {"activation": "ReLU", "batch_norm": True, "dropout": 0})
        return TablesAndESMM(hyper)

    def convert(self, about: Mapping[str, Any], tensors: Tensors) -> Tensors:
        ours = {}
        for name, value in tensors.items():
            if found := re.fullmatch(r"embedding\.embed_dict\.(.+)\.weight", name):
                ours[f"tables.{found[1]}"] = value
            else:
                found = re.fullmatch(r"tower_(cvr|ctr)\.(mlp\..+)", name)
                assert found, name
                ours[f"esmm.{TOWERS[found[1]]}.{found[2]}"] = value
        return ours

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        tokens = model.tokens(given)
        logits = model.esmm(tokens)
        found = {name: value[:, 0] for name, value in logits.probabilities().items()}
        return found | {
            "cvr_logit": logits.conversion,
            "ctr_logit": logits.click,
            "tower_input": tokens.values[:, 0].flatten(1),
        }

    def losses(self, model: Any, given: Tensors) -> Tensors:
        """Ours are sums over the batch."""
        labels = (given[name][:, None] for name in ("click", "conversion"))
        parts = model.esmm.losses(model.esmm(model.tokens(given)), *labels)
        parts = {name: value / len(given["click"]) for name, value in parts.items()}
        return {"loss": parts["ctr"] + parts["ctcvr"], **parts}


CHECKS = {"esmm": GoldenESMM()}
