"""Runs one after another, in one process or several: `python world_runs.py DATA JSON...`, of COMMAND, OUT, SETTINGS."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import torch

import rawrec
from systems import FAST

SMALL = {name: value for name, value in FAST.items() if not name.startswith("content.text") and name != "model.name"}
SMALL |= {"paradigm": "hybrid", "content.image.train": "none"}
SMALL |= {f"content.{name}.use": False for name in ("title", "description")}


def do(data: str, command: str, out: str, settings: Mapping[str, object]) -> None:
    torch.set_num_threads(1)
    if command == "train":
        rawrec.train("em3", data, out, {**SMALL, **settings})
    else:
        rawrec.resume(out, overrides=settings)


if __name__ == "__main__":
    for action in sys.argv[2:]:
        do(sys.argv[1], *json.loads(action))
