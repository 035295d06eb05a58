# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Items that nobody has taken
#
# How good is a model on items that it never saw in training? We hold a fifth of the products of a small shop out, all of their clicks,
# and see what ids alone can say of them, and what photos can.
#
# The shop is made here, in memory: 60 products in six colours, and 120 people who each like two of these. They click .8 of
# what has a colour that they like, .1 of the rest.

# %%
import io
import subprocess
import sys
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
# ## Hold items out
#
# A split is stored with the data under a name, so that every run that names it is judged on the same rows. On the command line:
# `rawrec split DATA --name new --by new_items --share 0.2`.

# %%
split = f"split {folder}/data --name new --by new_items --share 0.2".split()
print(subprocess.run([sys.executable, "-m", "rawrec", *split], check=True, capture_output=True, text=True).stdout)

# %% [markdown]
# ## Two models

# %%
shared = {"data.split": "new", "train.epochs": 5, "train.batch_size": 128, "eval.full_ranking": False}
shared |= {
    "train.warmup_steps": 0,
    "train.ema": 0.0,
    "model.dropout": 0.1,
    "train.threads": 1,
}  # for data as small as this
content = {"paradigm": "hybrid", "content.fusion.kind": "concat"}
ids = rawrec.train("id", folder / "data", folder / "id", shared, progress=False)
em3 = rawrec.train("em3", folder / "data", folder / "em3", shared | content, progress=False)
for run in (ids, em3):
    test = run.metrics()["test"]
    print(f"{run.path.name:4} cold AUC {test['cold/auc']:.3f}, within each user {test['cold/gauc']:.3f}")

# %% [markdown]
# Ids say nothing of a product that they never saw: about one half within each user. The photo says nearly all that there is to know here.
#
# ## A product of this morning

# %%
rec = rawrec.Recommender.load(em3.path)
user = 7
liked, other = int(likes[user][0]), next(colour for colour in range(6) if colour not in likes[user])
scores = rec.score(str(user), items=[{"image": photo(liked)}, {"image": photo(other)}])
print("in a colour that they like, and in another:", [round(score, 2) for score in scores])

rec.add_items([{"item_id": "new1", "image": photo(liked)}, {"item_id": "new2", "image": photo(other)}])
print("among all products:", [one.item for one in rec.recommend(str(user), k=5, exclude_seen=False)])
print("of the two new ones:", [one.item for one in rec.recommend(str(user), k=2, items=["new1", "new2"])])
print("nearest to new1:", [f"{one.item}, colour {int(one.item) % 6}" for one in rec.similar("new1", k=3)], "of", liked)

# %% [markdown]
# What is added stays for as long as the process lives; `rec.save(folder)` keeps it, `Recommender.load(run, added=folder)`
# has it again, and `rawrec append` makes it a part of the dataset.
#
# ## Somebody new
#
# Needs nothing at all: anybody is served by what they took.

# %%
same = [str(item) for item in range(60) if item % 6 == other][:4]
print(
    "after four products of one colour:",
    [int(one.item) % 6 for one in rec.recommend(history=same, k=5, exclude=["new1", "new2"])],
    "of",
    other,
)
