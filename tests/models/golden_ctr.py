"""DCN V2, DeepFM and Wide & Deep: tokens are the fields, the first-order tables are the linear part."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from heads_golden import GoldenHead, take, tokens_of
from torch import Tensor, nn

from golden import Arrays, Tensors
from rawrec.config.heads import RANKERS
from rawrec.models import model_class

TABLE = re.compile(r"embedding_layer\.(?:embedding_layer\.)?embedding_layers\.(.+)\.weight")
FIRST = re.compile(r"(?:fm\.)?lr_layer\.(?:embedding_layer\.)+embedding_layers\.(.+)\.weight")


class Fields(nn.Module):
    """Vectors of features: a row of a table by id (0 has none), or a vector times the value."""

    def __init__(self, features: list[Mapping[str, Any]], dim: int) -> None:
        super().__init__()
        self.features = features
        shapes = {
            feature["name"]: (dim, 1) if feature["type"] == "numeric" else (feature["vocab_size"], dim)
            for feature in features
            if "share_embedding" not in feature
        }
        self.tables = nn.ParameterDict({name: torch.zeros(*shape) for name, shape in shapes.items()})

    def vector(self, feature: Mapping[str, Any], value: Tensor) -> Tensor:
        table = self.tables[feature.get("share_embedding", feature["name"])]
        if feature["type"] == "numeric":
            return value[:, None] * table[:, 0]
        return nn.functional.embedding(value, table, padding_idx=0)

    def forward(self, given: Tensors) -> Tensor:
        return torch.stack([self.vector(feature, given[feature["name"]]) for feature in self.features], 1)


class FieldsAndHead(nn.Module):
    """first: 1-wide tables too; biased: a bias of the first-order part."""

    def __init__(
        self, name: str, settings: dict[str, Any], hyper: Mapping[str, Any], first: bool, biased: bool
    ) -> None:
        super().__init__()
        features, dim = hyper["features"], hyper["embedding_dim"]
        assert {feature["type"] for feature in features} <= {"categorical", "numeric"}
        self.fields = Fields(features, dim)
        self.first = Fields(features, 1) if first else None
        self.bias = nn.Parameter(torch.zeros(1)) if biased else None
        names = [feature["name"] for feature in features]
        self.head = model_class(name)(RANKERS[name](dim=dim, **settings), names, dim)

    def linear(self, given: Tensors) -> Tensor | None:
        if self.first is None:
            return None
        return self.first(given).sum((1, 2)) + (0 if self.bias is None else self.bias)

    def tokens(self, given: Tensors) -> Any:
        return tokens_of(self.fields(given), self.linear(given))


def of_mlp(prefix: str, name: str, spacing: int = 2) -> str | None:
    """`<prefix>.mlp.<k>.weight` -> `head.mlp.<j>.weight`: ours has a dropout after each activation."""
    found = re.fullmatch(rf"{prefix}\.mlp\.(\d+)\.(.+)", name)
    return found and f"head.mlp.{int(found[1]) // spacing * 3 + int(found[1]) % spacing}.{found[2]}"


class GoldenFields(GoldenHead):
    head = ""
    first = biased = False

    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        known = {"hidden_units": "hidden"}
        fixed = {"features": ..., "embedding_dim": ..., "hidden_activations": "ReLU", "batch_norm": False, "dropout": 0}
        return take(hyper, known, fixed)

    def build(self, about: Mapping[str, Any], arrays: Arrays) -> nn.Module:
        hyper = about["hyper_parameters"]
        return FieldsAndHead(self.head, self.settings(hyper), hyper, self.first, self.biased)

    def name(self, about: Mapping[str, Any], name: str) -> str:
        """Ours of a parameter of the head."""
        raise KeyError(name)

    def convert(self, about: Mapping[str, Any], tensors: Tensors) -> Tensors:
        ours = {}
        for name, value in tensors.items():
            if found := TABLE.fullmatch(name):
                ours[f"fields.tables.{found[1]}"] = value
            elif found := FIRST.fullmatch(name):
                ours[f"first.tables.{found[1]}"] = value
            elif re.fullmatch(r"(fm\.)?lr_layer\.bias", name):
                ours["bias"] = value
            else:
                ours[self.name(about, name)] = value
        return ours

    def losses(self, model: Any, given: Tensors) -> Tensors:
        logits = model.head(model.tokens(given))[:, 0, 0]
        return {"loss": nn.functional.binary_cross_entropy_with_logits(logits, given["label"])}

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        probability = torch.sigmoid(model.head(model.tokens(given))[:, 0])
        loss = nn.functional.binary_cross_entropy(probability[:, 0], given["label"])
        return {"y_pred": probability, "loss_evaluation": loss}


class GoldenDCNv2(GoldenFields):
    head = "dcnv2"

    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        known = {
            "structure": "structure",
            "num_cross_layers": "cross_layers",
            "low_rank": "rank",
            "num_experts": "experts",
            "dnn_hidden_units": "hidden",
        }
        fixed = {
            "features": ...,
            "embedding_dim": ...,
            "low_rank_mixture": ...,
            "dnn_activations": "ReLU",
            "batch_norm": False,
            "dropout": 0,
        }
        structure = {"crossnet_only": "cross"}.get(hyper["structure"], hyper["structure"])
        return take(hyper, known, fixed) | {
            "cross": "mixture" if hyper["low_rank_mixture"] else "full",
            "structure": structure,
        }

    def name(self, about: Mapping[str, Any], name: str) -> str:
        if ours := of_mlp("(?:parallel|stacked)_dnn", name):
            return ours
        if name.startswith("fc."):
            return name.replace("fc.", "head.out.")
        found = re.fullmatch(r"crossnet\.cross_layers\.(\d+)\.(weight|bias)", name)
        assert found, name
        return f"head.cross.{found[1]}.map.{found[2]}"

    def convert(self, about: Mapping[str, Any], tensors: Tensors) -> Tensors:
        """Matrices of experts lie side by side, gates are rows of one matrix."""
        mixture = {
            name: value for name, value in tensors.items() if re.match(r"crossnet\.(U_|V_|C_|bias|gating)", name)
        }
        ours = super().convert(about, {name: value for name, value in tensors.items() if name not in mixture})
        gates = {}
        for name, value in mixture.items():
            _, kind, layer = name.split(".")[:3]
            if kind == "gating":
                gates[int(layer)] = value[0]
            else:
                at = f"head.cross.{layer}."
                ours |= {
                    "U_list": lambda: {at + "U": value.transpose(0, 1).flatten(1)},
                    "V_list": lambda: {at + "V": value.transpose(1, 2).flatten(0, 1)},
                    "C_list": lambda: {at + "C": value},
                    "bias": lambda: {at + "bias": value[:, 0]},
                }[kind]()
        if gates:
            ours["head.gates.weight"] = torch.stack([gates[k] for k in range(len(gates))])
        return ours

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        head, first = model.head, model.tokens(given).values.flatten(2)
        crossed = head.crossed(first)
        below = crossed if head.cfg.structure == "stacked" else first
        found = {"cross_input": first, "cross_output": crossed, "dnn_output": head.mlp(below)}
        if head.gates is not None:
            found["gates_first_layer"] = torch.softmax(head.gates(first), -1)
        return {name: value[:, 0] for name, value in found.items()} | super().outputs(model, given)


class GoldenWideDeep(GoldenFields):
    head, first = "wide_deep", True

    def name(self, about: Mapping[str, Any], name: str) -> str:
        """The last linear map is ours apart."""
        last = 2 * len(about["hyper_parameters"]["hidden_units"])
        if name in (f"{self.prefix}.mlp.{last}.weight", f"{self.prefix}.mlp.{last}.bias"):
            return name.replace(f"{self.prefix}.mlp.{last}", "head.out")
        return of_mlp(self.prefix, name) or super().name(about, name)

    prefix = "dnn"

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        tokens = model.tokens(given)
        return super().outputs(model, given) | {
            "wide": tokens.linear,
            "deep": model.head.deep(tokens)[:, 0],
            "deep_input": tokens.values[:, 0].flatten(1),
        }


class GoldenDeepFM(GoldenWideDeep):
    head, prefix, biased = "deepfm", "mlp", True

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        tokens = model.tokens(given)
        return super().outputs(model, given) | {
            "first_order": tokens.linear,
            "second_order": model.head.second_order(tokens.values),
            "fields": tokens.values[:, 0],
        }


CHECKS = {"dcnv2": GoldenDCNv2(), "widedeep": GoldenWideDeep(), "deepfm": GoldenDeepFM()}
