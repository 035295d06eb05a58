"""A process that is forked from one that has read data: a recommender answers, reading is refused and never waits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import forked
import rawrec

FORKING = """
import json, os, sys, threading, time, warnings
warnings.simplefilter("ignore")
import rawrec
from rawrec.report import build_report
run, other, out = sys.argv[1:]
served = rawrec.Recommender.load(run)
data = served.data
item, user = str(data.item_ids[0]), str(data.user_ids[0])
data.texts("title", [0])
rawrec.compare([run, other])
works = {
    "recommend": lambda: served.recommend(user, k=2)[0].item,
    "similar": lambda: served.similar(item, k=2)[0].item,
    "embed": lambda: served.embed([item, {"title": "a red mug"}]).shape,
    "lists": lambda: served.recommend_all(f"{out}/lists.csv", k=2).name,
    "texts": lambda: data.texts("title", [0, 1]),
    "open": lambda: rawrec.Dataset.open(data.path),
    "load": lambda: rawrec.Recommender.load(run),
    "report": lambda: build_report(run, out=f"{out}/page.html"),
    "compare": lambda: rawrec.compare([run, other]),
    "evaluate": lambda: rawrec.evaluate(run, "valid"),
    "train": lambda: rawrec.train("id", str(data.path), f"{out}/run", {"train.epochs": 1}),
}
for name, work in works.items():
    here = works[name]() if name in ("recommend", "similar", "embed") else None
    process = os.fork()
    if not process:
        threading.Timer(20, lambda: os._exit(9)).start()
        try:
            said = ["done", work() if here is None else work() == here]
        except rawrec.UserError as error:
            said = ["refused", str(error)]
        print(json.dumps([name, *said], default=str), flush=True)
        os._exit(0)
    if (code := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])):
        print(json.dumps([name, "died", code]), flush=True)
"""


@pytest.fixture(scope="module")
def said(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("forks")
    quick: dict[str, Any] = {"train.epochs": 1, "train.threads": 1, "train.device": "cpu", "content.image.use": False}
    quick |= {"paradigm": "hybrid", "content.text.encoder": "random:bert", "content.text.train": "none"}
    for dim, name in ((4, "run"), (8, "other")):
        rawrec.train("em3", shop, folder / name, quick | {"content.text.max_length": 8, "model.dim": dim})
    words = [sys.executable, "-c", FORKING, *map(str, (folder / "run", folder / "other", folder))]
    done = forked.run(words, stdout=subprocess.PIPE, text=True)
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", ["recommend", "similar", "embed"])
def test_what_was_loaded_answers(said: dict[str, list[Any]], name: str) -> None:
    assert said[name] == ["done", True]


@pytest.mark.parametrize("name", ["texts", "open", "load", "report", "compare", "evaluate", "train", "lists"])
def test_reading_is_refused(said: dict[str, list[Any]], name: str) -> None:
    assert said[name][0] == "refused" and "this process was forked from one that had read data" in said[name][1]
