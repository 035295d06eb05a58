"""All that a stream's trainer is at a position, on disk as one folder that takes its place in one step.

`state.safetensors` has the tensors (weights, optimiser, rows of the bank, columns and raw content of items that came),
`stream.json` the plain values (positions, what waits in the joiner with its predictions, histories, ids, counts), and
`manifest.json` the check sums of both, the run that it goes on from and its format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from rawrec.errors import UserError
from rawrec.files import write_text
from rawrec.folders import placing, restore
from rawrec.reading import damaged, read_json, read_text, typed
from rawrec.sums import check_file, file_sum
from rawrec.training import state as checkpoint

FORMAT = 2
TENSORS, PLAIN, MANIFEST = "state.safetensors", "stream.json", "manifest.json"
LARGEST = 1 << 34
"""Bytes of `stream.json`; impressions that wait have some hundred each."""


class Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    run: str
    step: int
    positions: dict[str, int]
    files: dict[str, str]


def save(
    folder: Path,
    tensors: Mapping[str, Tensor],
    plain: Mapping[str, Any],
    run: str,
    step: int,
    positions: dict[str, int],
) -> None:
    """Replace what stands at `folder`, whole or not at all. run: the fingerprint of the run that it goes on from."""
    with placing(folder) as fresh:
        checkpoint.save(fresh / TENSORS, tensors, {"format": FORMAT})
        write_text(fresh / PLAIN, json.dumps(plain, ensure_ascii=True, allow_nan=False))
        sums = {name: file_sum(fresh / name) for name in (TENSORS, PLAIN)}
        manifest = Manifest(format=FORMAT, run=run, step=step, positions=positions, files=sums)
        checkpoint.write_json(fresh / MANIFEST, manifest.model_dump())


def load(folder: Path, run: str) -> tuple[dict[str, Tensor], dict[str, Any], Manifest] | None:
    """What `save` wrote; None where nothing is. Raises UserError where it is damaged, or goes on from another run."""
    restore(folder)
    if not folder.is_dir():
        return None
    anew = f"bring it back from a copy, or remove {folder.parent} to begin anew from the run"
    try:
        manifest: Manifest = typed(Manifest, read_json(folder / MANIFEST), folder / MANIFEST)
    except FileNotFoundError:
        raise UserError(f"{folder} is damaged: it has no {MANIFEST}; {anew}") from None
    if manifest.format != FORMAT:
        raise UserError(f"{folder} has format {manifest.format}, and this version of rawrec reads {FORMAT}; {anew}")
    if manifest.run != run:
        raise UserError(f"{folder} goes on from other weights than the run has now: train anew elsewhere; {anew}")
    for name in (TENSORS, PLAIN):
        if name not in manifest.files:
            raise UserError(f"{folder / MANIFEST} is damaged: it names no {name}; {anew}")
        check_file(folder / name, manifest.files[name], anew)
    tensors, _ = checkpoint.load(folder / TENSORS, summed=False)
    with damaged(folder / PLAIN, f"; {anew}"):
        plain = json.loads(read_text(folder / PLAIN, LARGEST))
        if not isinstance(plain, dict):
            raise ValueError("it holds no values by name")
    return tensors, plain, manifest
