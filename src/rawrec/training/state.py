"""Run folders and checkpoints: safetensors and JSON, each written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors import safe_open
from torch import Tensor

from rawrec.errors import UserError
from rawrec.files import replacing, write_tensors, write_text
from rawrec.reading import check_head, damaged, json_of, typed
from rawrec.sums import tensors_sum

OTHER_MODEL = (
    "the saved weights are not of this model: another version of rawrec made them, or config.yaml was changed. Train "
    "again with this version"
)


SUM = "sum"


class _Summed(BaseModel):
    """What is beside tensors: the state as text, and the check sum of both."""

    sum: str
    state: str


@dataclass
class Progress:
    """Where a run stands; with the tensors of a checkpoint, all that a resumed run needs."""

    epoch: int = 0  # epochs finished
    position: int = 0  # training samples of the current epoch that are done
    step: int = 0  # optimiser updates made
    best: float | None = None
    best_epoch: int = 0
    bad_epochs: int = 0
    finished: bool = False  # training, not the final evaluation
    sums: dict[str, float] = field(default_factory=dict)  # of the current epoch, for its line of metrics


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file; see `written`."""
    write_text(path, written(value, indent=1) + "\n")


def written(value: Any, indent: int | None = None) -> str:
    """A value as JSON. Its numbers that are none (nan, infinite) are null: JSON has no others, readers refuse them."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Tensors and a JSON-able state in one safetensors file, replaced atomically; the same input, the same bytes.

    Raises OSError where it cannot be written: disk full, read-only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One metadata key only: the order of several is not defined, and files must be equal byte by byte.
    text = json.dumps(state, sort_keys=True)
    with replacing(path) as partial:
        write_tensors(plain, partial, {"rawrec": json.dumps({SUM: tensors_sum(plain, text), "state": text})})


def load(
    path: Path, kind: type[BaseModel] | None = None, summed: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` wrote. kind: what the state must be. summed: compare with the check sum in it; False where the whole
    file has just been compared. Raises UserError for a file that is missing, or is not as it was written.

    A file that another process replaces meanwhile is read again: safetensors opens it twice, for its head and for its
    tensors, and would join the head of one with the tensors of another.
    """
    while True:
        before = _which(path)
        try:
            return _load(path, kind, summed)
        except UserError:
            if _which(path) == before:
                raise


def _which(path: Path) -> tuple[int, int, int] | None:
    """Which file stands at a path now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _load(path: Path, kind: type[BaseModel] | None, summed: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        state, text, total = _state(file, path, kind)
    if summed and total is not None and tensors_sum(tensors, text) != total:
        raise UserError(f"{path} is damaged: its check sum is not the one it was written with. {_way_out(path)}")
    return tensors, state


def load_state(path: Path, kind: type[BaseModel] | None = None) -> dict[str, Any]:
    """The state alone; raises as `load` does."""
    with _opened(path) as file:
        return _state(file, path, kind)[0]


def _state(file: Any, path: Path, kind: type[BaseModel] | None) -> tuple[dict[str, Any], str, str | None]:
    """The state, as text, too, and the check sum; None in files of earlier versions, which have none."""
    text = (file.metadata() or {}).get("rawrec")
    if text is None:
        raise UserError(f"{path} is not a file that rawrec wrote, or is damaged: it says nothing of where it stands")
    found, total = json_of(text), None
    if isinstance(found, dict) and not found.keys().isdisjoint(_Summed.model_fields):  # either name may be damaged
        summed = typed(_Summed, found, path)
        total, text = summed.sum, summed.state
        found = json_of(text)
    typed(dict[str, Any] if kind is None else kind, found, path)
    return found, text, total


def _way_out(path: Path) -> str:
    if path.parent.name == "checkpoint":
        return "Remove it: `rawrec resume` then begins the run anew; or bring it back from a copy"
    return "Bring it back from a copy, or train again"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        check_head(path)
        with damaged(path), safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: the run has not come so far; `rawrec resume` goes on with it"
        ) from None


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
