"""The piles of layers that encoders are made of."""

from __future__ import annotations

import inspect
import json
from typing import Any

import torch
from torch import Tensor, nn

from rawrec.content.encoders.base import Kind, Stack
from rawrec.content.encoders.padding import pad
from rawrec.content.encoders.tried import Probe, TriedStack
from rawrec.content.encoders.views import answering, noting, twin, view
from rawrec.data.ragged import Ragged
from rawrec.data.texts import Tokenizer
from rawrec.errors import UserError

UNSAID = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


class ConvStack(Stack):
    """Layers one after the other; the feature is the mean over the picture of what the last one puts out."""

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # faster on CPUs and GPUs
        self.width = width
        self.depth = len(layers)

    def run(self, x: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        for layer in self.layers[first:last]:
            x = layer(x)
        return x.float().mean((2, 3)) if last == self.depth else x

    def can_split(self, boundary: int) -> bool:
        return True

    def above(self, boundary: int | None) -> list[nn.Parameter]:
        return [p for layer in self.layers_above(boundary or 0) for p in layer.parameters()]

    def below(self, boundary: int) -> list[nn.Parameter]:
        return [p for layer in self.layers[:boundary] for p in layer.parameters()]

    def layers_above(self, boundary: int) -> list[nn.Module]:
        return list(self.layers[boundary:])


class TransformerStack(TriedStack):
    """A transformers model with a list of layers, such as BERT, ViT, CLIP's towers, Swin, ConvNeXt.

    The model's own `forward` runs every part of the way: in a view of the model, which itself stays as it is, the list
    of layers is shortened to those wanted, and what comes from below the boundary is put in at the first of them.
    Whether a model stands this is tried out, with the whole model as the judge, before it is relied upon. What the
    model's last layer puts out becomes the feature in `feature`, which subclasses say.
    """

    def __init__(self, model: nn.Module, kind: Kind, probe: Probe, tower: str = "") -> None:
        """probe: to try the model with; pictures have its size. tower: the part of the model that has the embeddings
        and the layers; all, if not said."""
        super().__init__()
        self.model = model
        self.kind = kind
        self._probe, self._mask = probe
        self._size = self._probe.shape[-1]
        self._tower = tower
        self._owner, self._attribute = _find_layers(model, tower)
        self._configs = _configs(model)
        self.depth = len(self._layers())
        self.description = f"{type(self).__name__} {_described(model)}"
        model.eval()
        self.width = self.run(self._probe, self._mask, 0, self.depth).shape[-1]

    def feature(self, inputs: dict[str, Any], mask: Tensor | None) -> Tensor:
        """`model` run on `inputs` and pooled, `[batch, width]`."""
        raise NotImplementedError

    def stand_ins(self, mask: Tensor) -> Tensor:
        """Token ids `[batch, tokens]` in the place of those that are known below the boundary only."""
        return torch.ones(mask.shape, dtype=torch.int64, device=mask.device)

    def attention_mask(self, mask: Tensor) -> dict[str, Tensor]:
        """What the model is told of padding."""
        return {"attention_mask": mask.long()}

    def _layers(self) -> nn.ModuleList:
        return getattr(self.model.get_submodule(self._owner), self._attribute)

    def run(self, x: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        self._attend(x.device.type)
        inputs: dict[str, Any]
        if self.kind == "text":
            assert mask is not None
            inputs = {"input_ids": self.stand_ins(mask) if first else x, **self.attention_mask(mask)}
        else:
            pixels = x if first == 0 else x.new_zeros(1).expand(len(x), 3, self._size, self._size)
            inputs = {"pixel_values": pixels, **self.positions()}
        outputs: list[Tensor] = []
        feature = self._part(x, first, last, outputs).feature(inputs, mask)
        return feature if last == self.depth else outputs[0]

    def _attend(self, device: str) -> None:
        """On a CPU the fused attention's backward takes longer than the layer beside it: plain attention there, on
        other devices that which the model was loaded with."""
        for config, loaded in self._configs:
            wanted = "eager" if device == "cpu" else loaded
            if config._attn_implementation != wanted:
                config._attn_implementation = wanted

    def positions(self) -> dict[str, bool]:
        """Pictures of another size than the model's own need positions in between, where it can make them."""
        tower = self.model.get_submodule(self._tower)
        if "interpolate_pos_encoding" not in inspect.signature(tower.forward).parameters:
            return {}
        return {"interpolate_pos_encoding": self._size != (native_size(tower) or self._size)}

    def _part(self, x: Tensor, first: int, last: int, outputs: list[Tensor]) -> TransformerStack:
        """This stack with layers `first` to `last` only. It starts from `x` if `first > 0`, and adds what the last one
        puts out to `outputs` where that is not the model's own last."""
        layers, put = self._layers(), dict[nn.Module, nn.Module]()
        part = list(layers[first:last])
        if last < self.depth:
            part[-1] = noting(part[-1], outputs)
        if first:

            def start(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
                return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

            part[0] = twin(part[0])
            part[0].register_forward_pre_hook(start, with_kwargs=True)
            embeddings = getattr(self.model.get_submodule(self._tower), "embeddings", None)
            if embeddings is not None:  # saves the work: the first layer is given `x` anyway
                put[embeddings] = answering(embeddings, lambda *args, **kwargs: x)
        if first or last < self.depth:
            put[layers] = nn.ModuleList(part)
        return view(self, put)


def probe_tokens(tokenizer: Tokenizer) -> Probe:
    """Two texts of different lengths."""
    ids, _ = tokenizer(["a small probe of words", "a probe"], 8)
    x = Ragged.from_lengths(
        torch.tensor([token for one in ids for token in one]), torch.tensor([len(one) for one in ids])
    )
    return pad(x)


def probe_pixels(size: int) -> Probe:
    return torch.linspace(-1, 1, 3 * size * size).view(1, 3, size, size).sin(), None


def native_size(model: Any) -> int | None:
    """The side of the pictures that a network was made for; None where it takes any, or they are no squares."""
    size = getattr(model.config, "image_size", None)
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    return size if isinstance(size, int) else None


def _configs(model: nn.Module) -> list[tuple[Any, str | None]]:
    """Every config that a part of `model` reads, and the attention that it was loaded with."""
    found = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    return [(c, c._attn_implementation) for c in found.values() if hasattr(c, "_attn_implementation")]


def _described(model: Any) -> str:
    """All that the model's config says of the way from the input to the output: heads, activation, epsilons ..."""
    said = {key: value for key, value in model.config.to_dict().items() if key not in UNSAID}
    return json.dumps(said, sort_keys=True, default=str)


def _find_layers(model: nn.Module, tower: str) -> tuple[str, str]:
    """Owner and attribute of the longest list of layers of `tower` that lies in no other list."""
    part = model.get_submodule(tower)
    lists = {name: len(module) for name, module in part.named_modules() if isinstance(module, nn.ModuleList)}
    outer = {n: c for n, c in lists.items() if not any(n.startswith(other + ".") for other in lists)}
    if not outer:
        raise UserError(f"{type(part).__name__} has no list of layers; choose another encoder")
    owner, _, attribute = max(outer, key=lambda n: outer[n]).rpartition(".")
    return ".".join(name for name in (tower, owner) if name), attribute
