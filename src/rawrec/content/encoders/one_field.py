"""Encoders of one field: pictures, or texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rawrec import cores
from rawrec.config import FieldConfig
from rawrec.content.encoders.base import Encoder, Stack
from rawrec.content.encoders.padding import buckets, mean, pad, rows
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.tokens import Words
from rawrec.data import images, texts
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError

PICTURES_AT_ONCE = {"cpu": 32, "cuda": 256}


class PieceEncoder(Encoder):
    """Each of an item's pieces runs on its own; an item's feature is the mean over its pieces."""

    def _run(self, pieces: Tensor, first: int, last: int) -> Iterator[Tensor]:
        """From boundary `first` to `last`, some pieces at a time."""
        raise NotImplementedError

    def _blank(self, device: torch.device) -> Tensor:
        """One prepared piece `[1, ...]`, for the shape of what it becomes."""
        raise NotImplementedError

    def _hidden(self, x: Ragged) -> Tensor:
        pieces = x.values if len(x.values) else self._blank(x.values.device)
        parts = [self._store(part) for part in self._run(pieces, 0, self.boundary)]
        with torch.autocast(pieces.device.type, enabled=False):  # which would not put float16 parts together
            return torch.cat(parts)[: len(x.values)]

    def _features(self, x: Ragged, first: int) -> Tensor:
        if not len(x.values):
            return torch.zeros(len(x), self.stack.width, device=x.values.device)
        features = torch.cat([part.float() for part in self._run(x.values, first, self.stack.depth)])
        padded, mask = pad(Ragged(features, x.ptr))
        return mean(padded, mask)


class ImageEncoder(PieceEncoder):
    """Pictures: each runs on its own, an item's feature is the mean over its pictures."""

    kinds = ("image",)
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        stack: Stack,
        pictures: Pictures,
        cfg: FieldConfig,
        seed: int,
        hidden_dtype: torch.dtype,
    ) -> None:
        super().__init__(name, stack, cfg, (pictures, cfg.max_images), seed, hidden_dtype)
        self.framing, self.size, self.max_images = pictures.framing, pictures.framing.side, cfg.max_images
        self.register_buffer("mean", torch.tensor(pictures.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pictures.std).view(3, 1, 1), persistent=False)

    def prepare(self, *raw: Sequence[Sequence[bytes]]) -> tuple[Ragged, dict[str, Tensor]]:
        return decoded(raw[0], self.framing, self.max_images)

    def _run(self, values: Tensor, first: int, last: int) -> Iterator[Tensor]:
        for part in values.split(PICTURES_AT_ONCE.get(values.device.type, 256)):
            x = part.float()
            yield self.stack.run((x - self.mean) / self.std if first == 0 else x, None, first, last)

    def _blank(self, device: torch.device) -> Tensor:
        return torch.zeros(1, 3, self.size, self.size, dtype=torch.uint8, device=device)


def decoded(
    given: Sequence[Sequence[bytes]], framing: images.Framing, max_images: int
) -> tuple[Ragged, dict[str, Tensor]]:
    """The pictures of each item, the first `max_images`, as pixels, and what was lost: see `Encoder.prepare`."""
    kept = [pictures[:max_images] for pictures in given]
    flat = [picture for pictures in kept for picture in pictures]
    pixels, valid = images.decode_many(flat, framing, cores.usable())
    pieces = Ragged.from_lengths(torch.from_numpy(valid), torch.tensor([len(p) for p in kept], dtype=torch.int64))
    lengths = torch.zeros(len(given), dtype=torch.int64).index_add(0, pieces.owners(), pieces.values.long())
    counts = torch.tensor([len(pictures) for pictures in given], dtype=torch.int64)
    lost = {"undecodable": (pieces.lengths - lengths).int(), "cut_images": (counts - pieces.lengths).int()}
    return Ragged.from_lengths(torch.from_numpy(pixels if valid.all() else pixels[valid]), lengths), lost


def words_known(stack: Stack) -> int | None:
    """How many tokens a network knows; None where it does not say."""
    model, tower = getattr(stack, "model", None), getattr(stack, "_tower", "")
    if not isinstance(model, nn.Module):
        return None
    part: Any = model.get_submodule(tower)
    try:
        return getattr(part.get_input_embeddings(), "num_embeddings", None)
    except (AttributeError, NotImplementedError):
        return None


class TextEncoder(Encoder):
    """Texts: run in buckets of similar length, so that little is computed for padding."""

    kinds = ("text",)

    def __init__(
        self,
        name: str,
        stack: Stack,
        words: Words,
        cfg: FieldConfig,
        seed: int,
        hidden_dtype: torch.dtype,
    ) -> None:
        super().__init__(name, stack, cfg, (words.max_length, words.tokenizer.identity), seed, hidden_dtype)
        self.tokenizer, self.max_length = words.tokenizer, words.max_length

    def prepare(self, *raw: Sequence[Sequence[str]]) -> tuple[Ragged, dict[str, Tensor]]:
        (given,) = raw
        tokens, truncated = texts.tokenise(self.tokenizer, [texts.join(strings) for strings in given], self.max_length)
        known = words_known(self.stack)
        if known is not None and len(tokens.values) and (most := int(tokens.values.max())) >= known:
            raise UserError(
                f"encoder {self.name}: its tokenizer makes the token {most}, and its network knows {known:,}: they are "
                "not of one model; copy all files again from where its weights come from"
            )
        return tokens, {"truncated": truncated}

    def _hidden(self, x: Ragged) -> Tensor:
        hidden = None
        for items in buckets(x.lengths):
            ids, mask = pad(x.select(items))
            part = self._store(self.stack.run(ids, mask, 0, self.boundary)[mask])
            if hidden is None:
                hidden = part.new_empty(len(x.values), *part.shape[1:])
            hidden[rows(x.ptr, items)] = part
        return torch.zeros(0, self.width, dtype=self.hidden_dtype, device=x.values.device) if hidden is None else hidden

    def _features(self, x: Ragged, first: int) -> Tensor:
        features = torch.zeros(len(x), self.stack.width, device=x.values.device)
        order, parts = [], []
        for items in buckets(x.lengths):
            values, mask = pad(x.select(items))
            values = values.float() if values.is_floating_point() else values.long()
            parts.append(self.stack.run(values, mask, first, self.stack.depth).float())
            order.append(items)
        return features.index_copy(0, torch.cat(order), torch.cat(parts)) if parts else features
