"""What every encoder is: raw pictures or texts -> cached hidden states -> features.

An encoder is a pile of layers, a `Stack`, cut in two: `lower` is frozen and its output can be cached, `upper` learns.
Or nothing of the pile learns, and `upper` is a small network beside it (`SideStack`).
Both sides speak `Ragged`, so the one who caches need not know what is inside: an image row is one picture, a text row
one token, and a frozen encoder's row is the feature itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rawrec.config import FieldConfig
from rawrec.content import lora
from rawrec.content.encoders.names import without_place
from rawrec.content.encoders.padding import mean
from rawrec.content.encoders.side import SideNetwork, evenly
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError

Kind = Literal["image", "text"]
VERSION = 2  # part of every fingerprint: raise it when an encoder's output changes
TOLERANCE = 1e-4  # between a network that is run as a whole and the same in parts


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

    def pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states of any layer `[batch, ...]`, pooled as those of the last one are, `[batch, their width]`."""
        if hidden.ndim == 4:
            return hidden.float().mean((2, 3))
        return hidden.float().mean(1) if mask is None else mean(hidden, mask)

    def states(self, x: Tensor, mask: Tensor | None, at: Sequence[int]) -> list[Tensor]:
        """Of an input (as `run` takes it): the pooled hidden states at the boundaries `at`, ascending; the feature."""
        found, first = [], 0
        for boundary in at:
            x = self.run(x, mask, first, boundary)
            found.append(self.pooled(x, mask))
            first = boundary
        return [*found, self.run(x, mask, first, self.depth)]


class SideStack(Stack):
    """A network that stays as it is, and a small one beside it, which alone learns (`train=side:<n>`).

    The n layers stand at even distances; the last of them is the network's last, of which the feature is taken. What
    `run` puts out is what they say, pooled, `[batch, width]`, side by side: it can be cached, and `side` makes the
    feature of it.
    """

    def __init__(self, inner: Stack, layers: int, inside: int, probe: tuple[Any, Tensor | None], name: str) -> None:
        """inside: width of the network beside. probe: an input to try the network with. name: of the encoder."""
        super().__init__()
        if layers > inner.depth:
            raise UserError(
                f"train=side:{layers}: the encoder {name} has {inner.depth} layers; use at most side:{inner.depth}"
            )
        self.inner, self.depth = inner.eval(), inner.depth
        self.at = evenly(layers, inner.depth)[:-1]
        widths = [state.shape[1] for state in self._tried(layers, probe, name)]
        self.width = sum(widths)
        self.side = SideNetwork(widths, inside)
        self.description = f"{inner.description} states {self.at}"
        self.digest = inner.digest = inner.digest or hash_weights(inner)

    @torch.no_grad()
    def _tried(self, layers: int, probe: tuple[Any, Tensor | None], name: str) -> list[Tensor]:
        """States of the probe; UserError where the network has other ones than are known here."""
        try:
            states = self.inner.states(*probe, self.at)
            whole = self.inner.run(*probe, 0, self.depth)
            fits = len(states) == layers and all(s.ndim == 2 and len(s) == len(whole) for s in states)
        except Exception:  # the network's code may be anyone's
            fits, states = False, []
        if fits and torch.allclose(states[-1].float(), whole.float(), rtol=TOLERANCE, atol=TOLERANCE):
            return states
        raise UserError(
            f"train=side:{layers}: what single layers of the encoder {name} say cannot be read; use side:1, which "
            "reads the feature alone, or top:<n>"
        )

    def run(self, x: Any, mask: Tensor | None, first: int, last: int) -> Tensor:
        assert (first, last) == (0, self.depth)
        return torch.cat([state.float() for state in self.inner.states(x, mask, self.at)], 1)

    def can_split(self, boundary: int) -> bool:
        return False

    def above(self, boundary: int | None) -> list[nn.Parameter]:
        return list(self.side.parameters())

    def below(self, boundary: int) -> list[nn.Parameter]:
        return list(self.inner.parameters())

    def layers_above(self, boundary: int) -> list[nn.Module]:
        return []


class Encoder(nn.Module):
    """What makes one feature of an item, out of its pictures, its texts or both.

    Always in eval mode (`train()` has no effect): no dropout, running statistics stay frozen, so that computing a thing
    again gives the same thing.

    kinds: what it reads, in the order of `prepare`'s arguments. width: of the feature. stack: frozen, but for what
    other encoders that share it train already. fingerprint: changes with the weights it starts from, its settings and
    the boundary, but not with training: the key of a cache of `lower`'s output. lower_is_identity: nothing is worth
    caching, `lower` hands its input on. pooled: none of the layers learns, `lower` makes one row of an item.

    `to` leaves a network of which nothing learns where it is: `lower` takes it to where its input is, `rest` brings it
    back.
    """

    kinds: tuple[Kind, ...]
    _place: Tensor

    def __init__(
        self, name: str, stack: Stack, cfg: FieldConfig, setting: object, seed: int, hidden_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.name = name
        self.stack = stack
        self.width = stack.width if self.side is None else self.side.width
        self.register_buffer("_place", torch.zeros(0), persistent=False)  # where `to` brought it
        self.hidden_dtype = hidden_dtype
        cut = _cut(name, cfg, stack.depth)
        self.boundary = cut if cut == stack.depth or stack.can_split(cut) else 0
        self.pooled = cut == stack.depth
        self.lower_is_identity = self.boundary == 0
        stack.digest = stack.digest or hash_weights(stack)
        kind, dtype = "+".join(self.kinds), str(hidden_dtype)
        key = (VERSION, kind, without_place(name), setting, stack.description, self.boundary, dtype, stack.digest)
        self.fingerprint = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
        self._freeze(cut, cfg, seed)
        self.train()

    def _freeze(self, cut: int, cfg: FieldConfig, seed: int) -> None:
        others = self.trained_parameters()  # of encoders that share the network
        if cfg.train == "lora":
            layers = self.stack.layers_above(cut)
            trained = lora.adapters(self.stack) or lora.inject(self.stack, layers, cfg.lora_rank, seed)
        elif self.side is not None:
            trained = list(self.side.parameters())
        else:
            trained = [] if self.pooled else self.stack.above(None if cfg.train == "all" else cut)
        if trained and self.boundary:  # what layers on both sides share: `lower` would move under its cached output
            frozen = {id(parameter) for parameter in self.stack.below(self.boundary)}
            trained = [parameter for parameter in trained if id(parameter) not in frozen]
            if not trained:
                raise UserError(
                    f"train={cfg.train}: the encoder {self.name} shares all of it with frozen layers; use train=all"
                )
        inside = {id(p) for layer in self.stack.layers_above(0) for p in layer.parameters()}
        self._lowest = set()
        if any(id(p) not in inside for p in trained):
            self._lowest = {id(p) for p in self.stack.below(1)} - inside
        self.stack.requires_grad_(False)
        for parameter in (*others, *trained):
            parameter.requires_grad_(True)
        if cfg.recompute:
            for layer in self.stack.layers_above(self.boundary):
                recompute(layer)

    def train(self, mode: bool = True) -> Encoder:
        super().train(False)
        return self

    @property
    def side(self) -> SideNetwork | None:
        """The network beside the layers, which learns in their place."""
        return self.stack.side if isinstance(self.stack, SideStack) else None

    @property
    def device(self) -> torch.device:
        return self._place.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Encoder:
        owner, name = (self.stack, "inner") if self.side is not None else (self, "stack")
        network = owner._modules[name]
        owner._modules[name] = None if self.pooled else network
        try:
            return super()._apply(fn, recurse)
        finally:
            owner._modules[name] = network

    def _still(self) -> nn.Module:
        """The network of which nothing learns, where all is `pooled`."""
        return self.stack.inner if isinstance(self.stack, SideStack) else self.stack

    def rest(self) -> None:
        """Bring a network that only `lower` needs back to the CPU."""
        if self.pooled:
            self._still().to("cpu")

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

        If none of the layers is trained, the item's feature, or what a network beside them reads: one row, or none for
        an item without pieces.
        """
        if self.lower_is_identity:
            return x
        if not self.pooled:
            return Ragged(self._hidden(x), x.ptr)
        self._still().to(x.values.device)
        present = x.lengths > 0
        return Ragged.from_lengths(self._store(self._features(x, 0)[present]), present.long().cpu()).to(x.ptr.device)

    def upper(self, hidden: Ragged) -> Tensor:
        """The rest, with gradient into the trained layers: features `[n, width]` float32, zeros without pieces."""
        if not self.pooled:
            return self._features(hidden, self.boundary)
        present = hidden.lengths > 0
        features = torch.zeros(len(hidden), self.width, device=hidden.values.device)
        rows = hidden.values.float()
        features[present] = rows if self.side is None else self.side(rows)
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
        """From boundary `first` to features `[n, width of the stack]` float32."""
        raise NotImplementedError

    def _store(self, x: Tensor) -> Tensor:
        limit = torch.finfo(self.hidden_dtype).max
        return x.clamp(-limit, limit).to(self.hidden_dtype)

    # ----------------------------------------------------------------------------------------------------- training
    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters that learn; none for `train: none`."""
        return [p for p in self.stack.parameters() if p.requires_grad]

    def levels(self) -> dict[int, int]:
        """Of each trained parameter, by id, how many layers lie above its own.

        None above what stands over the last layer; all of them above embeddings, and above what the layers share.
        """
        layers = self.stack.layers_above(0)
        found = dict.fromkeys(self._lowest, len(layers))
        for above, layer in enumerate(reversed(layers)):
            found |= dict.fromkeys((id(p) for p in layer.parameters()), above)
        return {id(p): found.get(id(p), 0) for p in self.trained_parameters()}

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
                f"{self.name}: the saved weights do not fit the encoder's settings (train, lora_rank, lora_layers, "
                f"side_width): {len(wrong)} differ, first {min(wrong)}. Use the settings of the run that saved them."
            )
        for name, parameter in self.stack.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state[name])


# ----------------------------------------------------------------------------------------------------------- helpers
def _cut(name: str, cfg: FieldConfig, depth: int) -> int:
    """The boundary below which nothing is trained."""
    if cfg.train == "none" or cfg.side:
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


def recompute(layer: nn.Module) -> None:
    """Let `layer` keep nothing for the backward pass but its input, of which it is computed again there."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        own = type(layer).forward
        if not torch.is_grad_enabled():
            return own(layer, *args, **kwargs)
        return checkpoint(own, layer, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    layer.forward = forward


def hash_weights(module: nn.Module) -> str:
    """A digest of all of a network's weights and their names."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
