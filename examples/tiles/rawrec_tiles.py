"""An encoder of pictures: colours of 4 x 4 tiles, then a layer that can be trained (content.image.train=top:1)."""

from torch import nn

import rawrec
from rawrec.content.encoders.convolution import ConvStack


@rawrec.register_encoder("tiles", kind="image")
def tiles(size):
    """Layers, of which the mean over the picture is the feature, its width, and how pixels of 0 to 255 are scaled."""
    colours = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, 16, 1), nn.ReLU())
    shapes = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
    return ConvStack([colours, shapes], width=32), [127.0] * 3, [128.0] * 3
