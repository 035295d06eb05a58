# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # An encoder of your own
#
# The default encoder of pictures knows a thousand kinds of things from photos. Your pictures may need less, or something else. In
# the shop below colour is all that matters, so an encoder of colours is a good one, and has next to no weights.
#
# The shop is made here, in memory: 60 products in six colours, and 120 people who each like two of these. They click .8 of
# what has a colour that they like, .1 of the rest.

# %%
import io
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

import rawrec

folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
COLOURS = ["#c33", "#3a5", "#36b", "#ec4", "#84a", "#888"]


def photo(colour):
    """The bytes of a photo of a product in this colour."""
    picture, file = Image.new("RGB", (64, 64), "white"), io.BytesIO()
    ImageDraw.Draw(picture).ellipse((8, 8, 56, 56), fill=COLOURS[colour])
    picture.save(file, "JPEG")
    return file.getvalue()


likes = np.array([rng.permutation(6)[:2] for _ in range(120)])
who, what = np.array([(user, item) for user in range(120) for item in rng.permutation(60)[:40]]).T
clicked = rng.random(len(who)) < np.where((likes[who] == (what % 6)[:, None]).any(1), 0.8, 0.1)
clicks = pl.DataFrame({"user": who, "item": what, "when": 1_770_000_000 + rng.permutation(len(who)), "click": clicked})
items = pl.DataFrame({"item": range(60), "image": [photo(item % 6) for item in range(60)]})
data = rawrec.import_table(
    clicks,
    "user",
    "item",
    time="when",
    labels=["click"],
    items=items,
    image_column=["image"],
    out=folder / "data",
    progress=False,
)

# %% [markdown]
# ## Write it
#
# An encoder is a pile of layers, so that rawrec can cut it where you train it, and cache what lies below the cut. The feature
# is the mean of the last layer over the picture. Ours: how near each pixel is to 27 colours (no weights to learn), then a layer
# that may learn, with `content.image.train=top:1`.

# %%
import torch
from torch import nn

from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.stacks import ConvStack
from rawrec.data.images import Framing
from rawrec.testing import check_encoder


class Palette(nn.Module):
    """[n, 3, h, w], values of -1 to 1, to [n, 27, h, w]: how near each pixel is to each of 27 colours; they sum to 1."""

    def __init__(self):
        super().__init__()
        steps = torch.tensor([-0.8, 0.0, 0.8])
        self.register_buffer("colours", torch.cartesian_prod(steps, steps, steps))

    def forward(self, pixels):
        distance = (pixels[:, None] - self.colours[None, :, :, None, None]).square().sum(2)
        return torch.softmax(-8 * distance, dim=1)


@rawrec.register_encoder("palette", kind="image")
def palette(cfg):
    """Layers, the width of the feature, and how pixels of 0 to 255 are prepared."""
    mix = nn.Sequential(nn.Conv2d(27, 32, 1), nn.ReLU())
    pictures = Pictures(Framing(cfg.size or 32), mean=(127.5,) * 3, std=(127.5,) * 3)
    return ConvStack([Palette(), mix], width=32), pictures


# %% [markdown]
# ## Check it
#
# What every encoder must pass: the same features wherever the network is cut, alone and among others, today as tomorrow;
# only what shall learn learns, and all of that is stored. It raises `AssertionError` with what failed.

# %%
check_encoder("palette", kind="image", size=32)

# %% [markdown]
# ## Use it
#
# It has a name now, as every other encoder has.

# %%
shared = {"train.epochs": 3, "train.batch_size": 128, "content.fusion.kind": "concat", "eval.full_ranking": False}
shared |= {
    "train.warmup_steps": 0,
    "train.ema": 0.0,
    "model.dropout": 0.1,
    "train.threads": 1,
}  # for data as small as this
ours = {"content.image.encoder": "palette", "content.image.size": 32, "content.image.train": "top:1"}
for name, settings in (("ours, trained", ours), ("the default, frozen", {"paradigm": "hybrid"})):
    run = rawrec.train("em3", folder / "data", folder / name, shared | settings, progress=False)
    print(f"{name:20} AUC {run.metrics()['test']['auc']:.3f}")

# %% [markdown]
# The best that any model can reach is about .85. Both are near it; on your own pictures the one that sees what matters will
# be ahead.
#
# ## See what it sees
#
# Neighbours by this encoder's features alone are products of one colour.

# %%
rec = rawrec.Recommender.load(folder / "ours, trained")
print("colours of the neighbours of product 3:", [int(one.item) % 6 for one in rec.similar("3", k=5, by="image")])

# %% [markdown]
# To use it from the command line, make it a package with an entry point `rawrec.encoders`: docs/adding-an-encoder.md. A run folder
# says which package its encoder is of, and asks for it where it is missing.
