"""Pictures as tokens of LEMUR's transformer of documents (ours: the published system reads text only).

A picture is cut into pieces, each of which is a token: raw patches, or the grid that an image encoder, which stays as
it is, has below its last layer. Pieces travel as bytes, a multiple of `WORD` each, beside the words of their item.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rawrec.content.encoders.base import Stack
from rawrec.content.encoders.joint_rows import WORD
from rawrec.content.encoders.one_field import PICTURES_AT_ONCE
from rawrec.content.encoders.pictures import Pictures
from rawrec.data.images import Framing
from rawrec.errors import UserError

HALF = 127.5


class Pieces(nn.Module):
    """framing: of pictures. given: pieces of a picture as it is prepared; count: as it is cached; width: of what
    `values` makes of one."""

    framing: Framing
    given: int
    count: int
    width: int
    description: str

    def cut(self, pixels: Tensor) -> Tensor:
        """`[pictures, 3, side, side]` uint8 -> `[pictures, given, bytes]` uint8."""
        raise NotImplementedError

    def lower(self, pieces: Tensor) -> Tensor:
        """What is cached of them, `[pictures, count, bytes]` uint8."""
        return pieces

    def values(self, pieces: Tensor) -> Tensor:
        """Of what is cached, `[pictures, count, width]` float32."""
        raise NotImplementedError


class Patches(Pieces):
    """Squares of `patch` pixels, values from -1 to 1."""

    def __init__(self, size: int, patch: int) -> None:
        super().__init__()
        if size % patch:
            raise UserError(
                f"size={size}: pictures are cut into patches of {patch} x {patch}; use a multiple of {patch}"
            )
        self.framing, self.patch = Framing(size), patch
        self.given = self.count = (size // patch) ** 2
        self.width = 3 * patch**2
        self.description = f"patches {size} {patch}"

    def cut(self, pixels: Tensor) -> Tensor:
        rows = pixels.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)
        return _filled(rows.permute(0, 2, 3, 1, 4, 5).reshape(len(pixels), self.count, self.width))

    def values(self, pieces: Tensor) -> Tensor:
        return pieces[..., : self.width].float() / HALF - 1


class Grid(Pieces):
    """What an image encoder has below its last layer, in float16; made once, without gradient."""

    mean: Tensor
    std: Tensor

    def __init__(self, stack: Stack, pictures: Pictures, name: str) -> None:
        super().__init__()
        self.stack, self.framing, self.given = stack.requires_grad_(False), pictures.framing, 1
        self.name = name
        self.register_buffer("mean", torch.tensor(pictures.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pictures.std).view(3, 1, 1), persistent=False)
        side = pictures.framing.side
        if stack.depth < 2 or not stack.can_split(stack.depth - 1):
            raise UserError(f"encoder {name}: what is below its last layer cannot be read; use another, or patches")
        _, self.count, self.width = self._grid(torch.zeros(1, 3, side, side, dtype=torch.uint8)).shape
        self.description = f"grid {pictures} {stack.description}"

    @torch.no_grad()
    def _grid(self, pixels: Tensor) -> Tensor:
        states = self.stack.run((pixels.float() - self.mean) / self.std, None, 0, self.stack.depth - 1)
        return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states

    def cut(self, pixels: Tensor) -> Tensor:
        return _filled(pixels.flatten(1)[:, None])

    @torch.no_grad()
    def lower(self, pieces: Tensor) -> Tensor:
        side = self.framing.side
        made = [torch.zeros(0, self.count, self.width, dtype=torch.float16, device=pieces.device)]
        for part in pieces.split(PICTURES_AT_ONCE.get(pieces.device.type, 256)) if len(pieces) else ():
            grid = self._grid(part[:, 0, : 3 * side * side].reshape(-1, 3, side, side))
            made.append(grid.half())
        return _filled(torch.cat(made).contiguous().view(torch.uint8))

    def values(self, pieces: Tensor) -> Tensor:
        return pieces[..., : 2 * self.width].contiguous().view(torch.float16).float()


def _filled(pieces: Tensor) -> Tensor:
    """Filled up with zeros to a multiple of WORD bytes."""
    return nn.functional.pad(pieces, (0, -pieces.shape[2] % WORD))
