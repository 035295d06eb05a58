"""Files of weights, as they were published. Nothing in them is executed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rawrec.content.encoders.loading import first_line
from rawrec.errors import UserError
from rawrec.shown import listed

PICKLED = (".pt", ".pth", ".bin")
WRAPPERS = ("state_dict", "module", "model")
PREFIXES = ("module.", "_orig_mod.")  # of models trained by several processes, and compiled


class WeightFile(NamedTuple):
    """tensors: by name, without wrappers. left_out: what the file holds beside them. name: what its training was."""

    tensors: dict[str, Tensor]
    left_out: tuple[str, ...]
    name: str | None


def read_weights(path: Path) -> WeightFile:
    """UserError for what does not exist, is damaged, or holds more than weights and plain values."""
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():
        raise UserError(f"{path} is no file")
    if path.suffix == ".safetensors":
        found: Any = _safetensors(path)
    elif path.suffix in PICKLED:
        found = _pickled(path)
    else:
        raise UserError(
            f"{path}: weights are read from .safetensors and {', '.join(PICKLED)}, not from {path.suffix!r}"
        )
    named = found.get("name") if isinstance(found, Mapping) else None
    return WeightFile(*_unwrapped(found, path), named if isinstance(named, str) else None)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file, or not whole: {first_line(error)}") from None


def _pickled(path: Path) -> Any:
    try:
        zipped = zipfile.is_zipfile(path)
        program = zipped and _is_program(path)
        found = None if program else torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of the many ways in which a file is none of ours, all have one way out
        raise UserError(
            f"{path} is not whole, or holds more than weights and plain values, and nothing in it is executed "
            f"({first_line(error)}). Save its state_dict alone, or as safetensors"
        ) from None
    if program:
        raise UserError(
            f"{path} is a TorchScript archive, as OpenAI published CLIP: a program, and programs are not executed. Use "
            "the same weights from a folder: of transformers, as openai/clip-vit-base-patch32, or of open_clip, as "
            "timm/vit_base_patch32_clip_224.openai"
        )
    return found


def _is_program(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any(name.endswith("/constants.pkl") or "/code/" in name for name in names)


def _unwrapped(found: Any, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights by name, and the names of what stood beside them."""
    left_out: tuple[str, ...] = ()
    if isinstance(found, Mapping):
        wrapper = next((key for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if wrapper is not None:
            left_out = tuple(str(key) for key in found if key != wrapper)
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{path} holds no weights by name, but {_kind(found)}")
    others = [str(key) for key, value in found.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise UserError(
            f"{path}: weights by name are expected, at the top or under {', '.join(WRAPPERS)}; found beside them "
            f"{len(others)} others ({listed(others[:3])})"
        )
    state = {key: value.detach() for key, value in found.items()}
    for prefix in (*PREFIXES, *PREFIXES):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state, left_out


def _kind(found: Any) -> str:
    return "nothing" if isinstance(found, Mapping) else f"a {type(found).__name__}"
