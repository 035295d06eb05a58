"""An encoder of pictures: colours of 4 x 4 tiles, then a layer that can be trained (content.image.train=top:1)."""

from torch import nn

import rawrec
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.stacks import ConvStack
from rawrec.data.images import Framing


@rawrec.register_encoder("tiles", kind="image")
def tiles(cfg):
    """Layers, of which the mean over the picture is the feature, its width, and how pixels of 0 to 255 are prepared."""
    colours = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, 16, 1), nn.ReLU())
    shapes = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
    pictures = Pictures(Framing(cfg.size or 64), mean=(127.0,) * 3, std=(128.0,) * 3)
    return ConvStack([colours, shapes], width=32), pictures
