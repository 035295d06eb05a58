"""What every encoder is: raw pictures or texts -> cached hidden states -> features.

An encoder is a pile of layers, a `Stack`, cut in two: `lower` is frozen and its output can be cached, `upper` learns.
Both sides speak `Ragged`, so the one who caches need not know what is inside: an image row is one picture, a text row
one token, and a frozen encoder's row is the feature itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.content import lora
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError

Kind = Literal["image", "text"]
VERSION = 2  # part of every fingerprint: raise it when an encoder's output changes


class Stack(nn.Module):
    """A network as a pile of `depth` layers; boundary `k` is what layer `k - 1` puts out, boundary 0 is the input."""

    width: int
    depth: int
    description: str = ""
    """What decides the output beside the weights and the settings of its field."""
    digest: str | None = None
    """Of the weights as they were loaded, once it was taken: encoders that share a network change it afterwards."""

    def run(self, x: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        """From boundary `first` to boundary `last`, or to the pooled feature `[batch, width]` if `last == depth`.

        x: normalised pictures `[batch, 3, size, size]` or token ids `[batch, tokens]` where `first` is 0, else the
        hidden states there. mask: `[batch, tokens]` bool, true for tokens that are no padding (texts only).
        """
        raise NotImplementedError

    def can_split(self, boundary: int) -> bool:
        """Whether `run` can stop and start at `boundary`."""
        raise NotImplementedError

    def above(self, boundary: int | None) -> list[nn.Parameter]:
        """The parameters of the layers between `boundary` and the feature; None: all that the feature depends on."""
        raise NotImplementedError

    def below(self, boundary: int) -> list[nn.Parameter]:
        """The parameters that the hidden states at `boundary` depend on."""
        raise NotImplementedError

    def layers_above(self, boundary: int) -> list[nn.Module]:
        """The layers between `boundary` and the feature."""
        raise NotImplementedError


class Encoder(nn.Module):
    """What makes one feature of an item, out of its pictures, its texts or both.

    Always in eval mode (`train()` has no effect): no dropout, running statistics stay frozen, so that computing a thing
    again gives the same thing.

    kinds: what it reads, in the order of `prepare`'s arguments. width: of the feature. stack: frozen, but for what
    other encoders that share it train already. fingerprint: changes with the weights it starts from, its settings and
    the boundary, but not with training: the key of a cache of `lower`'s output. lower_is_identity: nothing is worth
    caching, `lower` hands its input on.
    """

    kinds: tuple[Kind, ...]

    def __init__(
        self, name: str, stack: Stack, cfg: FieldConfig, setting: object, seed: int, hidden_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.name = name
        self.stack = stack
        self.width = stack.width
        self.hidden_dtype = hidden_dtype
        cut = _cut(name, cfg, stack.depth)
        self.boundary = cut if cut == stack.depth or stack.can_split(cut) else 0
        self.pooled = cut == stack.depth
        self.lower_is_identity = self.boundary == 0
        stack.digest = stack.digest or hash_weights(stack)
        kind, dtype = "+".join(self.kinds), str(hidden_dtype)
        key = (VERSION, kind, name, setting, stack.description, self.boundary, dtype, stack.digest)
        self.fingerprint = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
        self._freeze(cut, cfg, seed)
        self.train()

    def _freeze(self, cut: int, cfg: FieldConfig, seed: int) -> None:
        others = self.trained_parameters()  # of encoders that share the network
        if cfg.train == "lora":
            layers = self.stack.layers_above(cut)
            trained = lora.adapters(self.stack) or lora.inject(self.stack, layers, cfg.lora_rank, seed)
        else:
            trained = [] if self.pooled else self.stack.above(None if cfg.train == "all" else cut)
        if trained and self.boundary:  # what layers on both sides share: `lower` would move under its cached output
            frozen = {id(parameter) for parameter in self.stack.below(self.boundary)}
            trained = [parameter for parameter in trained if id(parameter) not in frozen]
            if not trained:
                raise UserError(
                    f"train={cfg.train}: the encoder {self.name} shares all of it with frozen layers; use train=all"
                )
        self.stack.requires_grad_(False)
        for parameter in (*others, *trained):
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> Encoder:
        super().train(False)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.stack.parameters()).device

    # ------------------------------------------------------------------------------------------------------ the two
    def prepare(self, *raw: Sequence[Sequence[Any]]) -> tuple[Ragged, dict[str, Tensor]]:
        """Bytes or strings of each item, decoded on the CPU, and what each item lost on the way, `[n]` int32.

        raw: for each of `kinds` the pieces of every item.

        Images: `[pictures, 3, size, size]` uint8; pictures `undecodable` and `cut_images` (beyond `max_images`).
        Texts: `[tokens]` int32; `truncated`, 1 where the text was longer than `max_length` tokens.
        """
        raise NotImplementedError

    @torch.no_grad()
    def lower(self, x: Ragged) -> Ragged:
        """The frozen part, without gradient, in `hidden_dtype`: pictures or tokens at the boundary.

        If nothing is trained, the item's feature: one row, or none for an item without pieces.
        """
        if self.lower_is_identity:
            return x
        if not self.pooled:
            return Ragged(self._hidden(x), x.ptr)
        present = x.lengths > 0
        return Ragged.from_lengths(self._store(self._features(x, 0)[present]), present.long().cpu()).to(x.ptr.device)

    def upper(self, hidden: Ragged) -> Tensor:
        """The rest, with gradient into the trained layers: features `[n, width]` float32, zeros without pieces."""
        if not self.pooled:
            return self._features(hidden, self.boundary)
        present = hidden.lengths > 0
        features = torch.zeros(len(hidden), self.width, device=hidden.values.device)
        features[present] = hidden.values.float()
        return features

    @torch.no_grad()
    def encode(self, *raw: Sequence[Sequence[Any]], at_once: int = 256) -> Tensor:
        """Features `[n, width]` of raw items, without gradient, `at_once` items in memory at a time."""
        parts = [torch.zeros(0, self.width, device=self.device)]
        for start in range(0, len(raw[0]), at_once):
            x, _ = self.prepare(*(one[start : start + at_once] for one in raw))
            parts.append(self.upper(self.lower(x.to(self.device))))
        return torch.cat(parts)

    def _hidden(self, x: Ragged) -> Tensor:
        """Hidden states of every piece at the boundary, `[pieces, ...]`."""
        raise NotImplementedError

    def _features(self, x: Ragged, first: int) -> Tensor:
        """From boundary `first` to features `[n, width]` float32."""
        raise NotImplementedError

    def _store(self, x: Tensor) -> Tensor:
        limit = torch.finfo(self.hidden_dtype).max
        return x.clamp(-limit, limit).to(self.hidden_dtype)

    # ----------------------------------------------------------------------------------------------------- training
    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters that learn; none for `train: none`."""
        return [p for p in self.stack.parameters() if p.requires_grad]

    def trained_state(self) -> dict[str, Tensor]:
        """All that training changes, by name, contiguous: what a checkpoint holds beside the config."""
        return {name: p.detach().contiguous() for name, p in self.stack.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Put a `trained_state` back; UserError if it is of an encoder with other settings."""
        own = self.trained_state()
        wrong = [
            n for n in own.keys() | state.keys() if n not in own or n not in state or own[n].shape != state[n].shape
        ]
        if wrong:
            raise UserError(
                f"{self.name}: the saved weights do not fit the encoder's settings (train, lora_rank, lora_layers): "
                f"{len(wrong)} differ, first {min(wrong)}. Use the settings of the run that saved them."
            )
        for name, parameter in self.stack.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state[name])


# ----------------------------------------------------------------------------------------------------------- helpers
def _cut(name: str, cfg: FieldConfig, depth: int) -> int:
    """The boundary below which nothing is trained."""
    if cfg.train == "none":
        return depth
    if cfg.train == "all":
        return 0
    if cfg.train == "lora":
        count, setting = cfg.lora_layers or depth, "lora_layers"
    else:
        count, setting = int(cfg.train.removeprefix("top:")), "train"
    if count > depth:
        value = f"top:{count}" if setting == "train" else count
        raise UserError(f"{setting}={value}: the encoder {name} has {depth} layers; use at most {depth}, or train=all")
    return depth - count


def hash_weights(module: nn.Module) -> str:
    """A digest of all of a network's weights and their names."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
