"""What `rawrec convert` is given: a file of weights, or a folder of open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from rawrec.content.encoders.loading import settings
from rawrec.content.encoders.weight_files import read_weights
from rawrec.errors import UserError
from rawrec.shown import listed

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Checkpoint:
    """path: of the weights. tensors: by name, without wrappers. config: of the folder, empty if there is none. names:
    what the source and its training are called. left_out: what the file holds beside the weights."""

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def read(source: Path) -> Checkpoint:
    """The weights in a file, or in a folder of open_clip, and what stands beside them."""
    path = _weights(source) if source.is_dir() else source
    found = read_weights(path)
    names = (source.absolute().name, *([] if found.name is None else [found.name]))
    return Checkpoint(path, found.tensors, settings(path.parent / CONFIG), names, found.left_out)


def as_float32(state: Mapping[str, Tensor], path: Path, notes: list[str]) -> dict[str, Tensor]:
    """The weights as they are written, which is noted where they were of another type."""
    strange = [name for name, value in state.items() if not value.is_floating_point()]
    if strange:
        raise UserError(f"{path}: {strange[0]} is {state[strange[0]].dtype}, and weights are floating-point numbers")
    others = {str(value.dtype).removeprefix("torch.") for value in state.values()} - {"float32"}
    if others:
        notes.append(f"weights of {', '.join(sorted(others))} are written as float32")
    return {name: value.float().contiguous() for name, value in state.items()}


def _weights(folder: Path) -> Path:
    if not (folder / CONFIG).is_file():
        if (folder / "config.json").is_file():
            raise UserError(f"{folder} has a config.json: it is no folder of open_clip; use it as an encoder as it is")
        raise UserError(f"{folder} has no {CONFIG}: name the file of the weights")
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    found = found or sorted(folder.glob("*.safetensors"))
    if not found or (len(found) > 1 and found[0].name not in WEIGHTS):
        what = listed(p.name for p in found)
        raise UserError(f"{folder}: of files of weights there are {what}; name the one that is meant")
    return found[0]
