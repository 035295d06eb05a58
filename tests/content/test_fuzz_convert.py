"""Damaged weights, configs and tokenizers: a folder that can be read, or one message; nothing is executed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from mutations import CASES, cases, limit
from rawrec.content.convert import convert
from rawrec.content.encoders.vlmo import load_vlmo
from rawrec.errors import UserError
from weight_samples import as_published, clip, open_clip_folder, small_vlmo, words_of_clip, wrapped

ODD = [None, True, False, 0, -1, 1, 2.5, 1e400, 10**30, "", "64", "shortest", [], [1, 2, 3], {}, {"x": 1}, [[]]]
SOURCES = ["open_clip", "clip.pt", "legacy.pt", "vlmo.pt"]


def whole(folder: Path, source: str) -> None:
    if source == "open_clip":
        words_of_clip(open_clip_folder(folder, clip()))
        return
    folder.mkdir()
    if source == "vlmo.pt":
        torch.save({"module": as_published(small_vlmo())}, folder / source)
        (folder / "vocab.txt").write_text("".join(f"w{k}\n" for k in range(30)))
    else:
        (folder / "vocab.json").write_text("{}")  # nothing is read of it without merges.txt
        torch.save(wrapped(clip().state_dict()), folder / source, _use_new_zipfile_serialization=source == "clip.pt")


def tried(source: Path, out: Path, **options: Any) -> bool:
    """Whether it was converted; a mistake is one line."""
    with limit():
        try:
            convert(source, out, **options)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            assert not out.exists()
            return False
    return True


@pytest.mark.filterwarnings("ignore")  # of torch, about old files
@pytest.mark.parametrize("source", SOURCES)
def test_damaged_files(tmp_path: Path, source: str) -> None:
    whole(tmp_path / "whole", source)
    options = {"activation": "gelu"} if source in ("clip.pt", "legacy.pt") else {}
    assert tried(tmp_path / "whole" / ("" if source == "open_clip" else source), tmp_path / "out", **options)
    for chance, folder in cases(source, tmp_path / "whole", tmp_path):
        place = folder if source == "open_clip" else folder / source
        tried(place, tmp_path / f"out{chance.random()}", **options)


def test_damaged_folders_of_vlmo(tmp_path: Path) -> None:
    whole(tmp_path / "in", "vlmo.pt")
    convert(tmp_path / "in" / "vlmo.pt", tmp_path / "whole")
    for _, folder in cases("vlmo folder", tmp_path / "whole", tmp_path):
        with limit():
            try:
                load_vlmo(folder)
            except UserError as error:
                assert "\n" not in str(error)


def leaves(tree: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else []
    return ([place] if place else []) + [leaf for key, value in inner for leaf in leaves(value, (*place, key))]


def changed(path: Path, chance: random.Random) -> None:
    """One value of a JSON file replaced by an odd one."""
    tree = json.loads(path.read_text())
    *places, last = chance.choice(leaves(tree))
    inner = tree
    for place in places:
        inner = inner[place]
    inner[last] = chance.choice(ODD)
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize("name", ["open_clip_config.json", "tokenizer.json", "config.json"])
def test_odd_values_in_configs(tmp_path: Path, name: str) -> None:
    whole(tmp_path / "whole", "open_clip")
    if name == "config.json":
        whole(tmp_path / "in", "vlmo.pt")
        convert(tmp_path / "in" / "vlmo.pt", tmp_path / "vlmo")
    folder = tmp_path / ("vlmo" if name == "config.json" else "whole")
    text = (folder / name).read_text()
    for seed in range(10 * CASES):
        (folder / name).write_text(text)
        changed(folder / name, random.Random(f"{name} {seed}"))
        if name == "config.json":
            with limit():
                try:
                    load_vlmo(folder)
                except UserError as error:
                    assert "\n" not in str(error), seed
        else:
            tried(folder, tmp_path / f"out{seed}")
