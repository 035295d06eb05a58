"""RankMixer and TokenMixer-Large: every number of the features is a token of width 1: pieces may cross fields."""

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from heads_golden import GoldenHead, take, tokens_of
from torch import Tensor, nn

from golden import Arrays, Tensors, section
from rawrec.config.heads import RANKERS
from rawrec.models import model_class
from rawrec.models.ranking.mixing import mix

SIZES = {"num_tokens": "tokens", "token_dim": "width", "num_layers": "layers", "ffn_multiplier": "multiplier"}


class TablesAndHead(nn.Module):
    """tables: rows and width of each; filled: the width that their vectors, side by side, are filled up to."""

    def __init__(self, name: str, settings: dict[str, Any], tables: list[tuple[int, int]], filled: int) -> None:
        super().__init__()
        self.tables = nn.ParameterList(torch.zeros(*shape) for shape in tables)
        self.filled = filled
        self.head = model_class(name)(RANKERS[name](dim=1, **settings), [str(k) for k in range(filled)], 1)

    def tokens(self, given: Tensors) -> Any:
        rows = [nn.functional.embedding(given[f"f{k}"], table) for k, table in enumerate(self.tables)]
        flat = torch.cat(rows, 1) if rows else given["flat"]
        return tokens_of(nn.functional.pad(flat, (0, self.filled - flat.shape[1]))[..., None])


class GoldenMixer(GoldenHead):
    head = ""
    fixed: Mapping[str, Any] = dict.fromkeys(("vocab", "embedding_dims", "chunk", "padded_width"), ...)

    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def build(self, about: Mapping[str, Any], arrays: Arrays) -> nn.Module:
        hyper = about["hyper_parameters"]
        tables = list(zip(hyper["vocab"], hyper["embedding_dims"], strict=True))
        assert hyper["padded_width"] == hyper["num_tokens"] * hyper["chunk"] >= sum(hyper["embedding_dims"])
        return TablesAndHead(self.head, self.settings(hyper), tables, hyper["padded_width"])

    def name(self, name: str) -> str:
        """Ours of a parameter of the head, without `head.`."""
        raise KeyError(name)

    def convert(self, about: Mapping[str, Any], tensors: Tensors) -> Tensors:
        """Biases of tokens are flat."""
        ours = {}
        for name, value in tensors.items():
            if found := re.fullmatch(r"tokenizer\.embeddings\.(\d+)\.weight", name):
                ours[f"tables.{found[1]}"] = value
            else:
                own = re.sub(r"^tokenizer\.proj\.(weight|bias)$", r"pieces.map.\1", name)
                flat = own.endswith("bias") or own == "token"
                ours[f"head.{own if own != name else self.name(name)}"] = value.flatten() if flat else value
        return {name: value.flatten() if name.endswith(("bias", ".token")) else value for name, value in ours.items()}

    def logits(self, model: Any, given: Tensors) -> Tensor:
        return model.head(model.tokens(given))[:, 0]

    def losses(self, model: Any, given: Tensors) -> Tensors:
        """Our own parts are sums over the batch, weighted by `loss_weights`."""
        head, tokens, labels = model.head, model.tokens(given), given["label"][:, None]
        logits = head(tokens)[:, 0]
        task = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        batch = SimpleNamespace(items=torch.zeros(len(labels), 1, dtype=torch.int64))
        parts = {name: value / len(labels) for name, value in head.losses(tokens, batch, labels).items()}
        weighted = {name: head.loss_weights[name] * value for name, value in parts.items()}
        return {"loss": task + sum(weighted.values()), "task": task} | self.parts(parts, weighted)

    def parts(self, parts: Tensors, weighted: Tensors) -> Tensors:
        return {}


class GoldenRankMixer(GoldenMixer):
    head = "rankmixer"

    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        known = SIZES | {"num_experts": "experts", "gate_penalty": "gate_penalty"}
        ours = {"projection": "shared", "readout": "norm_mean", "routers": "published"}
        return take(hyper, known, self.fixed) | ours

    def name(self, name: str) -> str:
        if found := re.fullmatch(r"blocks\.(\d+)\.(pffn|moe_pffn|norm1|norm2)\.(.+)", name):
            part = {"norm1": "mix_norm", "norm2": "norm"}.get(found[2], "network")
            inner = {"W1": "up.weight", "b1": "up.bias"}.get(found[3], found[3])
            last = {"W2": "down", "b2": "bias"} if found[2] == "moe_pffn" else {"W2": "down.weight", "b2": "down.bias"}
            inner = re.sub(r"^router_(train|infer)\.gate\.", r"\1_router.", last.get(inner, inner))
            return f"blocks.{found[1]}.{part}.{inner}"
        found = re.fullmatch(r"output\.([01])\.(weight|bias)", name)
        assert found, name
        return f"{('norm', 'out')[int(found[1])]}.{found[2]}"

    def convert(self, about: Mapping[str, Any], tensors: Tensors) -> Tensors:
        """Experts `[tokens, experts, ...]` lie side by side."""
        joined = {}
        for name, value in tensors.items():
            if name.endswith("moe_pffn.W1"):
                value = value.transpose(1, 2).flatten(2)
            elif name.endswith("moe_pffn.W2"):
                value = value.flatten(1, 2)
            joined[name] = value
        return super().convert(about, joined)

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        head, tokens = model.head, model.tokens(given)
        x = head.pieces(tokens.values.flatten(2).flatten(0, 1))
        block = head.blocks[0]
        below = block.mix_norm(x)
        found = {"tokens": x, "mixed": mix(below if block.pre else x)}
        if not block.pre:
            above = found["after_mixing_norm"] = block.mix_norm(mix(x) + x)
            found["ffn"] = block.network(above)
            if head.cfg.experts > 1:
                found["gates_inference"] = found["gates"] = block.network.routed(above)
        for k, layer in enumerate(head.blocks):
            x = found[f"block/{k}"] = layer(x)
        found = {name: value.transpose(0, 1) for name, value in found.items()}
        return found | {"pooled": x.mean(0), "logit": self.logits(model, given)}

    def parts(self, parts: Tensors, weighted: Tensors) -> Tensors:
        return {"gate_penalty_weighted": weighted["gates"]} if weighted else {}


class GoldenPreNorm(GoldenRankMixer):
    """The last map is a fixed vector."""

    fixed = dict.fromkeys(("group_widths", "token_size"), ...)

    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        return take(hyper, SIZES, self.fixed) | {"norm": "pre", "readout": "flat"}

    def build(self, about: Mapping[str, Any], arrays: Arrays) -> nn.Module:
        hyper = about["hyper_parameters"]
        assert sum(hyper["group_widths"]) == hyper["num_tokens"] * hyper["token_size"]
        model = TablesAndHead(self.head, self.settings(hyper), [], sum(hyper["group_widths"]))
        model.head.out.requires_grad_(False)
        return model

    def loaded(self, about: Mapping[str, Any], arrays: Arrays) -> nn.Module:
        model: Any = self.build(about, arrays)
        fixed = section(arrays, "input")["head"]
        last = {"head.out.weight": fixed[None], "head.out.bias": torch.zeros(1)}
        model.load_state_dict(self.convert(about, section(arrays, "param")) | last)
        return model

    def convert(self, about: Mapping[str, Any], tensors: Tensors) -> Tensors:
        """One projection per token: `[outputs, inputs]` of each, ours `[tokens, inputs, outputs]`."""
        of_piece = re.compile(r"tokenizer\.proj\.(\d+)\.(weight|bias)")
        pieces: dict[str, dict[int, Tensor]] = {"weight": {}, "bias": {}}
        others = {}
        for name, value in tensors.items():
            if found := of_piece.fullmatch(name):
                pieces[found[2]][int(found[1])] = value.T if found[2] == "weight" else value
            else:
                others[re.sub(r"^output_norm\.", "output.0.", name).replace(".ffn.", ".pffn.")] = value
        ours = super().convert(about, others)
        for kind, values in pieces.items() if pieces["bias"] else ():
            stacked = torch.stack([values[k] for k in range(len(values))])
            ours[f"head.pieces.map.{kind}"] = stacked if kind == "weight" else stacked.flatten()
        return ours

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        found = super().outputs(model, given)
        x = found[f"block/{len(model.head.blocks) - 1}"].transpose(0, 1)
        return found | {"representation": model.head.read(x), "logit": found["logit"][:, 0]}


class GoldenTokenMixerLarge(GoldenMixer):
    head = "tokenmixer_large"

    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        known = SIZES | {"residual_interval": "residual_interval", "auxiliary_weight": "auxiliary_weight"}
        assert hyper["with_global_token"] == hyper["num_tokens"] + 1
        return take(hyper, known, {**self.fixed, "with_global_token": ...}) | {"projection": "shared"}

    def name(self, name: str) -> str:
        if name == "global_token":
            return "token"
        if found := re.fullmatch(r"blocks\.(\d+)\.(norm|pswiglu)_(mix|revert)\.(.+)", name):
            if found[2] == "norm":
                assert found[4] == "gamma", name
                return f"blocks.{found[1]}.{'mixed_norm' if found[3] == 'mix' else 'norm'}.weight"
            kind, part = found[4].split("_")
            half = {"mix": "mixed", "revert": "reverted"}[found[3]]
            return f"blocks.{found[1]}.{half}.{part}.{ {'W': 'weight', 'b': 'bias'}[kind] }"
        found = re.fullmatch(r"(?:aux_heads\.(\d+)|output_head)\.([01])\.(gamma|weight|bias)", name)
        assert found, name
        place = "score" if found[1] is None else f"auxiliary.{found[1]}"
        return f"{place}.norm.weight" if found[3] == "gamma" else f"{place}.map.{found[3]}"

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        head, tokens = model.head, model.tokens(given)
        x = before = head.begin(tokens)
        found = {"tokens": x[1:], "mixed": mix(x), "after_mixed_half": head.blocks[0].half(x)}
        for k, block in enumerate(head.blocks):
            x = found[f"block/{k}"] = block(x)
            if str(k) in head.auxiliary:
                x = before = x + before
        found = {name: value.transpose(0, 1) for name, value in found.items()}
        found["logit"] = self.logits(model, given)
        model.train()
        self.logits(model, given)
        model.eval()
        return found | {"auxiliary_logit": head._auxiliary[:, 0]}

    def parts(self, parts: Tensors, weighted: Tensors) -> Tensors:
        return {"auxiliary_unweighted": parts["auxiliary"]} if parts else {}


CHECKS = {
    "rankmixer": GoldenRankMixer(),
    "rankmixer-prenorm": GoldenPreNorm(),
    "tokenmixer-large": GoldenTokenMixerLarge(),
}
