# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Five models, compared so that it means something
#
# A table of five recalls is quickly made and proves little. Here: a line to beat, several seeds where chance is at work, a
# test over users, a look at what the lists are like, and the choice by validation.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

import rawrec

folder = Path(tempfile.mkdtemp())
shop = f"import synthetic --items 100 --users 80 --impressions 6000 --size 32 --out {folder}/shop".split()
subprocess.run([sys.executable, "-m", "rawrec", *shop], check=True, capture_output=True)
data = rawrec.Dataset.open(folder / "shop")

# %% [markdown]
# ## Train
#
# `pop` gives everybody the most popular items, `itemknn` and `ease` are linear in what users took and fitted in one go, `bpr` and
# `lightgcn` learn vectors. The last two begin at random, so two seeds each.

# %%
quick = {"train.threads": 1, "eval.topk": [5, 10], "train.metric": "recall@10"}
learned = {**quick, "train.epochs": 15, "train.lr": 0.01}
for model in ("pop", "itemknn", "ease"):
    rawrec.train(model, data, folder / "runs" / model, quick, progress=False)
for model in ("bpr", "lightgcn"):
    for seed in (0, 1):
        out = folder / "runs" / f"{model}-{seed}"
        rawrec.train(model, data, out, {**learned, "seed": seed}, progress=False)

# %% [markdown]
# ## What validation says
#
# Choose here; test is for the end.

# %%
for line in rawrec.list_runs(folder / "runs", metric="recall@10"):
    print(f"{line.path.name:12} recall@10 of validation {line.valid:.4f}")

# %% [markdown]
# ## Is it real?
#
# Every model against `pop`, over the same users. Seeds of one model count as one. p-values are corrected for the number of
# comparisons (Holm).

# %%
paths = sorted((folder / "runs").iterdir(), key=lambda path: path.name != "pop")
found = rawrec.compare(paths, baseline="pop", metrics=["recall@10"])
for result in found.results:
    sure = (
        ""
        if result.contrast is None
        else f"difference {result.contrast.difference:+.4f}, p {result.contrast.p_holm:.3f}"
    )
    print(f"{result.model:10} {result.metric} {result.mean:.4f} {sure}")

# %% [markdown]
# With 80 users few differences are sure, and that is the right answer: a shop of this size cannot tell such models apart.
#
# ## What are the lists like?

# %%
rows = []
for path in paths:
    test = rawrec.evaluate(path)
    rows.append(
        {
            "run": path.name,
            **{name: test[f"{name}@10"] for name in ("recall", "coverage", "personalisation", "novelty")},
        }
    )
print(pl.DataFrame(rows))

# %% [markdown]
# Two models of equal recall can differ widely here, and this is what users see: `pop` shows a third of the catalogue, and
# everybody nearly the same. The table for a paper: `rawrec compare RUNS --latex table.tex`.
