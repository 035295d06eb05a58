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
from rawrec.models.ranking.history import HistoryContent
from rawrec.models.ranking.tokens import Past

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


def of_mlp(prefix: str, name: str) -> str | None:
    """`<prefix>.mlp.<k>.weight` -> `head.mlp.<j>.weight`: ours has a dropout after each activation."""
    found = re.fullmatch(rf"{prefix}\.mlp\.(\d+)\.(.+)", name)
    if found is None:
        return None
    layer, activation = divmod(int(found[1]), 2)
    return f"head.mlp.{3 * layer + activation}.{'alpha' if activation and found[2] == 'weight' else found[2]}"


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
        of_mixture = re.compile(r"crossnet\.(U_list|V_list|C_list|bias|gating)\.(\d+)(\.weight)?")
        mixture = {name: value for name, value in tensors.items() if of_mixture.fullmatch(name)}
        ours = super().convert(about, {name: value for name, value in tensors.items() if name not in mixture})
        gates = {}
        for name, value in mixture.items():
            _, kind, layer = name.split(".")[:3]
            at = f"head.cross.{layer}."
            if kind == "gating":
                gates[int(layer)] = value[0]
            elif kind == "U_list":
                ours[at + "U"] = value.transpose(0, 1).flatten(1)
            elif kind == "V_list":
                ours[at + "V"] = value.transpose(1, 2).flatten(0, 1)
            else:
                ours[at + kind.removesuffix("_list")] = value if kind == "C_list" else value[:, 0]
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


def units_of(hyper: Mapping[str, Any]) -> list[tuple[list[str], list[str]]]:
    """Target fields and sequence fields of every attention unit; one field may stand without a list."""
    pairs = zip(hyper["target_fields"], hyper["sequence_fields"], strict=True)
    return [tuple([part] if isinstance(part, str) else part for part in pair) for pair in pairs]  # type: ignore[misc]


class FieldsAndDIN(nn.Module):
    def __init__(self, settings: dict[str, Any], hyper: Mapping[str, Any]) -> None:
        super().__init__()
        features, self.dim = hyper["features"], hyper["embedding_dim"]
        assert {feature["type"] for feature in features} <= {"categorical", "numeric", "sequence"}
        self.fields = Fields(features, self.dim)
        self.by_name = {feature["name"]: feature for feature in features}
        self.single = [feature["name"] for feature in features if feature["type"] != "sequence"]
        self.units = units_of(hyper)
        widths = {str(k): len(targets) * self.dim for k, (targets, _) in enumerate(self.units)}
        cfg = RANKERS["din"](dim=self.dim, **settings)
        self.head = model_class("din")(cfg, self.single, self.dim, 1, widths)

    def vectors(self, names: list[str], given: Tensors) -> Tensor:
        return torch.cat([self.fields.vector(self.by_name[name], given[name]) for name in names], -1)

    def tokens(self, given: Tensors) -> Any:
        values = torch.stack([self.vectors([name], given) for name in self.single], 1)
        histories = {}
        for k, (targets, sequences) in enumerate(self.units):
            history = HistoryContent(self.vectors(sequences, given), given[sequences[0]] != 0)
            histories[str(k)] = Past(self.vectors(targets, given)[:, None], history)
        return tokens_of(values, None, histories)

    def order(self) -> list[int]:
        """For each column of the reference's MLP input, in the order of its features, the column of ours."""
        ours = [*self.single, *(name for _, sequences in self.units for name in sequences)]
        return [ours.index(name) * self.dim + k for name in self.by_name for k in range(self.dim)]


class GoldenDIN(GoldenFields):
    """Dice of the units counts padding, and running statistics forget as after many batches."""

    activations = {"Dice": "dice", "PReLU": "prelu", "ReLU": "relu"}  # noqa: RUF012

    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        known = {
            "attention_hidden_units": "attention_hidden",
            "attention_hidden_activations": "attention_activation",
            "use_softmax": "softmax",
            "dnn_hidden_units": "hidden",
            "dnn_activations": "activation",
        }
        fixed = dict.fromkeys(("features", "embedding_dim", "target_fields", "sequence_fields"), ...)
        fixed |= {"attention_output_activation": None, "batch_norm": False, "dropout": 0}
        settings = take(hyper, known, fixed) | {"dice_padding": True}
        for name in ("attention_activation", "activation"):
            settings[name] = self.activations[settings[name]]
        return settings

    def build(self, about: Mapping[str, Any], arrays: Arrays) -> nn.Module:
        return FieldsAndDIN(self.settings(about["hyper_parameters"]), about["hyper_parameters"])

    def convert(self, about: Mapping[str, Any], tensors: Tensors) -> Tensors:
        aliases = about["aliases"]
        ours = super().convert(about, {name: value for name, value in tensors.items() if name not in aliases})
        for name in ours:
            if name.endswith(".batches"):
                ours[name] = torch.tensor(1000)
        if "head.mlp.0.weight" in ours:
            theirs = ours["head.mlp.0.weight"]
            order = self.build(about, {}).order()  # type: ignore[operator]
            ours["head.mlp.0.weight"] = torch.empty_like(theirs).index_copy_(1, torch.tensor(order), theirs)
        return ours

    def name(self, about: Mapping[str, Any], name: str) -> str:
        hyper = about["hyper_parameters"]
        name = re.sub(r"\.bn\.num_batches_tracked$", ".batches", re.sub(r"\.bn\.running_(mean|var)$", r".\1", name))
        found = re.fullmatch(r"attention_layers\.(\d+)\.attention_layer\.mlp\.(\d+)\.(.+)", name)
        if found is None:
            last = f"dnn.mlp.{2 * len(hyper['dnn_hidden_units'])}."
            if name.startswith(last):
                return name.replace(last, "head.out.")
            return of_mlp("dnn", name) or super().name(about, name)
        layer, rest = int(found[2]), "alpha" if found[3] == "weight" and int(found[2]) % 2 else found[3]
        part = f"activations.{layer // 2}" if layer % 2 else f"others.{layer // 2 - 1}" if layer else "first"
        return f"head.units.{found[1]}.{part}.{rest}"

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        found, tokens = {}, model.tokens(given)
        for name, (candidate, history) in tokens.histories.items():
            t, h = candidate.expand_as(history.bank), history.bank
            unit, sequence = model.head.units[name], (history.rows(), history.valid)
            found[f"attention_input/{name}"] = torch.cat([t, h, t - h, t * h], 2).flatten(0, 1)
            found[f"attention_logit/{name}"] = unit.logits(candidate, *sequence)[:, 0].reshape(-1, 1)
            if not model.training:
                found[f"pooled/{name}"] = unit(candidate, *sequence)[:, 0]
        if model.training:
            return found | {"y_pred": torch.sigmoid(model.head(tokens)[:, 0])}
        found["dnn_input"] = model.head.inputs(tokens)[:, 0, model.order()]
        return found | super().outputs(model, given)


CHECKS = {"dcnv2": GoldenDCNv2(), "widedeep": GoldenWideDeep(), "deepfm": GoldenDeepFM(), "din": GoldenDIN()}
