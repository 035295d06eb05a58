# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # From a raw folder to recommendations
#
# A folder of photos, a table of products, a table of clicks: what a small shop has. We make such a folder, so that the
# notebook runs anywhere; in its place put your own, and begin at *Look at it*. Everything goes into a temporary folder.

# %%
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

import rawrec

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)

# %% [markdown]
# ## A shop
#
# 60 products in six colours, and 120 people who each like two of these. What they are shown is random; what they click is
# not: .8 of what has a colour that they like, .1 of the rest. A model that can see should find that out.

# %%
COLOURS = {"red": "#c33", "green": "#3a5", "blue": "#36b", "yellow": "#ec4", "purple": "#84a", "grey": "#888"}
SHAPES = ["mug", "bag", "lamp"]
(folder / "photos").mkdir()
names = []
for product in range(60):
    colour, shape = list(COLOURS)[product % 6], SHAPES[product % 3]
    photo = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(photo).ellipse((8, 8, 56, 56), fill=COLOURS[colour])
    photo.save(folder / "photos" / f"p{product}.jpg")
    names.append(f"A {shape}, number {product}")  # the name does not say the colour
likes = np.array([rng.permutation(6)[:2] for _ in range(120)])
rows = [(person, product) for person in range(120) for product in rng.permutation(60)[:40]]
who, what = np.array(rows).T
clicked = rng.random(len(rows)) < np.where((likes[who] == (what % 6)[:, None]).any(1), 0.8, 0.1)

pl.DataFrame({"product": [f"p{i}" for i in range(60)], "name": names}).write_csv(folder / "products.csv")
pl.DataFrame(
    {
        "person": [f"c{i}" for i in who],
        "product": [f"p{i}" for i in what],
        "when": 1_770_000_000 + 60 * rng.permutation(len(rows)),
        "clicked": clicked.astype(int),
    }
).write_csv(folder / "clicks.csv")

# %% [markdown]
# ## Import
#
# One call, and a report of what was read and what was not. The same on the command line: `rawrec import table`.

# %%
data = rawrec.import_table(
    folder / "clicks.csv",
    "person",
    "product",
    time="when",
    labels=["clicked"],
    items=folder / "products.csv",
    text=["name"],
    image_dir=folder / "photos",
    out=folder / "data",
    progress=False,
)
print(data.report)

# %% [markdown]
# ## Look at it
#
# Always look at what a model will see. Photos are stored as they came.

# %%
import io

sheet = Image.new("RGB", (10 * 64, 64))
for place in range(10):
    (photo,) = data.images("image", [place])[0]
    sheet.paste(Image.open(io.BytesIO(photo)), (64 * place, 0))
sheet

# %% [markdown]
# ## Train
#
# `id` knows who clicked what, and nothing of what it is. `em3` reads photo and name beside that. With `paradigm=hybrid`
# they are encoded once by pretrained networks, and everything behind these learns.

# %%
settings = {"train.epochs": 5, "train.batch_size": 128, "eval.topk": [5], "train.threads": 1}
settings |= {"train.warmup_steps": 0, "train.ema": 0.0, "model.dropout": 0.1}  # for data as small as this
content = {"paradigm": "hybrid", "content.fusion.kind": "concat"}
ids = rawrec.train("id", data, folder / "id", settings, progress=False)
em3 = rawrec.train("em3", data, folder / "em3", settings | content, progress=False)
for run in (ids, em3):
    print(run.path.name, {name: round(run.metrics()["test"][name], 3) for name in ("auc", "gauc", "recall@5")})

# %% [markdown]
# The AUC says how often what was clicked stands above what was not. Given who likes what, the best that any model can
# reach here is about .85, for clicks are drawn by chance. The photos bring `em3` near it; what people clicked, so few
# times, does not bring `id` there.
#
# ## Use it

# %%
rec = rawrec.Recommender.load(em3.path)
person = "c7"
print(person, "likes", [list(COLOURS)[colour] for colour in likes[7]])
for one in rec.recommend(person, k=5):
    print(f"  {one.item:4} {list(COLOURS)[int(one.item[1:]) % 6]:8} {one.score:.2f}")

# %% [markdown]
# A product of this morning: a photo and a name, and nobody has clicked it. It has a score at once.

# %%
new = {"name": "A mug, number 60", "image": folder / "photos" / f"p{likes[7][0]}.jpg"}
other = {"name": "A mug, number 61", "image": folder / "photos" / f"p{(set(range(6)) - set(likes[7])).pop()}.jpg"}
print(
    "of a colour that they like, and of another:", [round(score, 2) for score in rec.score(person, items=[new, other])]
)

# %% [markdown]
# And a page for those who do not read notebooks: `rawrec report FOLDER/em3 --against FOLDER/id`. Where to go on:
# your own data, cold start and lists for every night are pages of the documentation.
