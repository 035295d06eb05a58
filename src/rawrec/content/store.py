"""Rows of numbers as a bank keeps them: float32, or smaller. Read and written as float32."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["float32", "bf16", "int8"]
STORED: dict[Kind, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
LARGEST = 127


def rows_of(values: Tensor, index: Tensor) -> Tensor:
    """`values[index]` `[*index.shape, *values.shape[1:]]`, as torch copies rows on a CPU in a third of the time."""
    return values.index_select(0, index.flatten()).view(*index.shape, *values.shape[1:])


class Store:
    """`[n, width]` numbers, zeros at first. int8: whole numbers from -127 to 127 times a scale of each row's own, so
    that what is read is off by at most 1/254 of the row's largest number."""

    def __init__(self, n: int, width: int, kind: Kind = "float32", device: torch.device | str = "cpu"):
        self.kind: Kind = kind
        self.values = torch.zeros(n, width, dtype=STORED[kind], device=device)
        self.scale = torch.zeros(n, device=device) if kind == "int8" else None

    @classmethod
    def of(cls, values: Tensor) -> Store:
        """One that keeps the very tensor `[n, width]` float32."""
        made = cls(0, 0)
        made.values = values
        return made

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def nbytes(self) -> int:
        """Of all that is kept."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state("").values())

    def rows(self, index: Tensor) -> Tensor:
        """`[*index.shape, width]` float32, in memory of its own."""
        return self._read(rows_of(self.values, index), None if self.scale is None else self.scale[index])

    def dense(self) -> Tensor:
        """All rows, float32: the very tensor where that is how they are kept."""
        return self._read(self.values, self.scale)

    @staticmethod
    def _read(values: Tensor, scale: Tensor | None) -> Tensor:
        return values.float() if scale is None else values.float() * scale[..., None]

    def write(self, index: Tensor, values: Tensor) -> None:
        """Overwrite the rows `index` `[n]`, unique, with `values` `[n, width]`."""
        if self.scale is None:
            self.values[index] = values.to(self.values.dtype)
            return
        scale = values.abs().amax(1) / LARGEST if values.shape[1] else values.new_zeros(len(values))
        self.scale[index] = scale
        small = (values / scale.masked_fill(scale == 0, 1.0)[:, None]).round().clamp(-LARGEST, LARGEST)
        self.values[index] = small.to(torch.int8)

    def grow(self, n: int) -> None:
        """Rows for `n`, zeros behind those that are there."""
        self.values = torch.cat([self.values, self.values.new_zeros(n - len(self), self.width)])
        if self.scale is not None:
            self.scale = torch.cat([self.scale, self.scale.new_zeros(n - len(self.scale))])

    def state(self, name: str) -> dict[str, Tensor]:
        """What a checkpoint must hold of it, under the name `name`."""
        return {name: self.values} | ({} if self.scale is None else {f"{name}.scale": self.scale})
