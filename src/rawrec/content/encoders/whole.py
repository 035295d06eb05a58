"""Encoders that take an item's pictures and texts together: the three passes of VLMo as three encoders of one network.

`image` reads the pictures, `text` the texts, `image_text` both; each makes one feature, the first token after the final
norm. They share the network: what one of them trains, the others use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.content.encoders import loading
from rawrec.content.encoders.base import Encoder, Kind, SideStack, Stack, hash_weights
from rawrec.content.encoders.one_field import PICTURES_AT_ONCE, ImageEncoder, PieceEncoder, TextEncoder, decoded
from rawrec.content.encoders.padding import pad
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.tokens import Words
from rawrec.content.encoders.vlmo import MODEL_TYPE, Vlmo, VlmoConfig, load_vlmo
from rawrec.content.encoders.vlmo import Kind as PassKind
from rawrec.data import texts
from rawrec.data.images import Framing
from rawrec.data.ragged import Ragged
from rawrec.data.texts import HashTokenizer
from rawrec.errors import UserError

WHOLE: dict[PassKind, tuple[Kind, ...]] = {"image": ("image",), "text": ("text",), "image_text": ("image", "text")}
"""The features that an encoder of whole items makes, and what each is made of."""
RANDOM = "random:vlmo"
HALF = (127.5,) * 3
Reading = tuple[Pictures, Words, str]
"""How pictures and texts are prepared, and the digest of the weights as they were loaded."""


def reads_whole_items(name: str) -> bool:
    """Whether the encoder takes an item's pictures and texts together, and not each field alone."""
    return name == RANDOM or (
        Path(name).is_dir() and loading.settings(Path(name) / "config.json").get("model_type") == MODEL_TYPE
    )


def whole(name: str, cfg: FieldConfig) -> tuple[Vlmo, Reading]:
    """The network `name`, in eval mode."""
    if name == RANDOM:
        size, length = cfg.size or 32, cfg.max_length or 16
        net = Vlmo(_small(size, length)).eval()
        return net, (_squashed(size), Words(HashTokenizer(net.cfg.vocabulary), length), hash_weights(net))
    net = load_vlmo(name, cfg.size)
    tokenizer, _ = loading.load_tokenizer(Path(name), name)
    length = loading.checked_length(cfg.max_length, net.cfg.max_text, net.cfg.max_text, name)
    return net, (_squashed(net.cfg.image_size), Words(tokenizer, length), hash_weights(net))


def _small(size: int, length: int) -> VlmoConfig:
    if size % 4:
        raise UserError(f"size={size}: {RANDOM} cuts pictures into 4 x 4 patches; use a multiple of 4")
    return VlmoConfig(
        width=32, depth=3, heads=4, hidden=64, patch=size // 4, image_size=size, vl_layer=1, vocabulary=2048,
        max_text=length, reach=max(length, 2), layer_scale=None,
    )  # fmt: skip


def _squashed(size: int) -> Pictures:
    return Pictures(Framing(size, None, "BICUBIC", quick=False), HALF, HALF)


def whole_encoder(
    kind: PassKind, name: str, net: Vlmo, reading: Reading, cfg: FieldConfig, seed: int, dtype: torch.dtype
) -> Encoder:
    """The encoder of one feature."""
    pictures, words, digest = reading
    stack: Stack = VlmoStack(net, kind, digest)
    if cfg.side:
        probe = torch.zeros(1, 3, net.cfg.image_size, net.cfg.image_size), torch.ones(1, 4, dtype=torch.int64)
        x = probe if kind == "image_text" else probe[kind == "text"]
        mask = None if kind == "image" else torch.ones(1, 4, dtype=torch.bool)
        torch.manual_seed(seed)
        stack = SideStack(stack, cfg.side, cfg.side_width, (x, mask), name)
    if kind == "image":
        return ImageEncoder(name, stack, pictures, cfg, seed, dtype)
    if kind == "text":
        return TextEncoder(name, stack, words, cfg, seed, dtype)
    return PairEncoder(name, stack, pictures, words, cfg, seed, dtype)


class VlmoStack(Stack):
    """One pass of a VLMo network that others may share."""

    def __init__(self, net: Vlmo, kind: PassKind, digest: str) -> None:
        super().__init__()
        self.kind: PassKind = kind
        self.net, self.digest = net, digest
        self.width, self.depth = net.cfg.width, net.cfg.depth
        self.description = f"VLMo {kind} {net.cfg.model_dump_json()}"

    def run(self, x: Tensor | tuple[Tensor, Tensor], mask: Tensor | None, first: int, last: int) -> Tensor:
        """x: where `first` is 0, pixels, token ids, or both; mask: of the text, or of all tokens above boundary 0."""
        if first == 0:
            pixels, ids = self._inputs(x)
            states, mask, _ = self.net.embed(pixels, ids, mask)
        else:
            assert isinstance(x, Tensor)
            states = x
        states = self.net.run(states, mask, self.kind, first, last)
        return self.net.norm(states)[:, 0] if last == self.depth else states

    def states(self, x: Tensor | tuple[Tensor, Tensor], mask: Tensor | None, at: Sequence[int]) -> list[Tensor]:
        pixels, ids = self._inputs(x)
        states, mask, _ = self.net.embed(pixels, ids, mask)
        found = []
        for first, last in pairwise([0, *at, self.depth]):
            states = self.net.run(states, mask, self.kind, first, last)
            found.append(states[:, 0])
        return [*found[:-1], self.net.norm(states)[:, 0]]

    def _inputs(self, x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Pixels and token ids."""
        return x if isinstance(x, tuple) else (None, x) if self.kind == "text" else (x, None)

    def can_split(self, boundary: int) -> bool:
        return True

    def above(self, boundary: int | None) -> list[nn.Parameter]:
        used = [] if boundary is not None else self._embeddings()
        return (
            used + [p for k in range(boundary or 0, self.depth) for p in self._block(k)] + [*self.net.norm.parameters()]
        )

    def below(self, boundary: int) -> list[nn.Parameter]:
        return self._embeddings() + [p for k in range(boundary) for p in self._block(k)]

    def layers_above(self, boundary: int) -> list[nn.Module]:
        return list(self.net.blocks[boundary:])

    def _embeddings(self) -> list[nn.Parameter]:
        net, found = self.net, [cast(nn.Parameter, self.net.kinds.weight)]
        if self.kind != "text":
            found += [*net.patches.parameters(), net.image_cls]
            found += [] if net.image_positions is None else [net.image_positions]
        if self.kind != "image":
            found += [net.words.weight, net.segments.weight, *net.text_norm.parameters()]
            found += [] if net.text_positions is None else [net.text_positions.weight]
        return found  # type: ignore[return-value]

    def _block(self, number: int) -> list[nn.Parameter]:
        """Of a layer, what this pass uses."""
        block: Any = self.net.blocks[number]
        both = self.kind == "image_text"
        experts = {"vl"} if both and "vl" in block.experts else {"text", "image"} if both else {self.kind}
        idle = {id(p) for name, expert in block.experts.items() if name not in experts for p in expert.parameters()}
        return [p for p in block.parameters() if id(p) not in idle]


class PairEncoder(PieceEncoder):
    """Each of an item's pictures together with its text: the item's feature is the mean over its pictures.

    An item that lacks the one or the other has none. A prepared row is the pixels of a picture and the token ids of the
    text, all as bytes.
    """

    kinds = ("image", "text")
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        stack: Stack,
        pictures: Pictures,
        words: Words,
        cfg: FieldConfig,
        seed: int,
        hidden_dtype: torch.dtype,
    ) -> None:
        setting = (pictures, cfg.max_images, words.max_length, words.tokenizer.identity)
        super().__init__(name, stack, cfg, setting, seed, hidden_dtype)
        self.framing, self.size, self.max_images = pictures.framing, pictures.framing.side, cfg.max_images
        self.register_buffer("mean", torch.tensor(pictures.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pictures.std).view(3, 1, 1), persistent=False)
        self.tokenizer, self.max_length = words.tokenizer, words.max_length

    def prepare(self, *raw: Sequence[Sequence[Any]]) -> tuple[Ragged, dict[str, Tensor]]:
        given, strings = raw
        pictures, lost = decoded(given, self.framing, self.max_images)
        tokens, truncated = texts.tokenise(self.tokenizer, [texts.join(each) for each in strings], self.max_length)
        ids, _ = pad(tokens)
        filled = torch.zeros(len(ids), self.max_length, dtype=torch.int32)
        filled[:, : ids.shape[1]] = ids
        said = tokens.lengths > 0
        owners = pictures.owners()
        kept = said[owners]
        pixels = pictures.values[kept].flatten(1)
        rows = torch.cat([pixels, filled[owners[kept]].view(torch.uint8)], 1)
        lengths = torch.where(said, pictures.lengths, 0)
        return Ragged.from_lengths(rows, lengths), {**lost, "truncated": truncated}

    def _run(self, rows: Tensor, first: int, last: int) -> Iterator[Tensor]:
        """Of prepared rows, or of states with zeros where there is no token."""
        stack: Any = self.stack  # of this kind alone it takes pixels and token ids
        for part in rows.split(PICTURES_AT_ONCE.get(rows.device.type, 256)):
            if first:
                yield stack.run(part.float(), part.any(-1), first, last)
                continue
            pixels, ids = part.split([3 * self.size**2, 4 * self.max_length], 1)
            pixels = (pixels.reshape(-1, 3, self.size, self.size).float() - self.mean) / self.std
            ids = ids.contiguous().view(torch.int32).long()
            made = stack.run((pixels, ids), ids > 0, first, last)
            if last < stack.depth:
                made[:, : ids.shape[1]] *= (ids > 0)[..., None]
            yield made

    def _blank(self, device: torch.device) -> Tensor:
        return torch.zeros(1, 3 * self.size**2 + 4 * self.max_length, dtype=torch.uint8, device=device)
