"""Items that a recommender took in, in a folder: `added.json`, which names a Parquet file and a safetensors file."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rawrec.errors import UserError
from rawrec.files import write_table
from rawrec.reading import damaged, read_json, read_table, typed
from rawrec.training import state

NAME, FORMAT = "added.json", 1
COLUMN = "column/"
PLAIN = r"^(items|contents)-[0-9a-f]{8}\.(parquet|safetensors)$"
"""Names of the files: what a stranger's folder names leads nowhere else."""


class Added(NamedTuple):
    """Items behind those of a dataset. columns: of each, categories (lists of words) and numbers by name; values
    `[n, dim]` and valid `[n]`: contents, as the ranker reads them; features: of each field `[n, width]` and `[n]`."""

    ids: Sequence[str]
    columns: Sequence[Mapping[str, Any]]
    values: Tensor
    valid: Tensor
    features: Mapping[str, tuple[Tensor, Tensor]]


def write_added(added: Added, out: Path, run: str) -> Path:
    """Write a folder, or replace what is in it: the file that names the others is written last. run: the fingerprint of
    the run that made the contents."""
    if out.exists() and not (out.is_dir() and ((out / NAME).is_file() or not any(out.iterdir()))):
        raise UserError(f"{out} is there already and holds no added items: give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    before = _named(out)
    token = secrets.token_hex(4)
    files = {"items": f"items-{token}.parquet", "contents": f"contents-{token}.safetensors"}
    columns = list(dict.fromkeys(name for item in added.columns for name in item))
    arrays = {f"{COLUMN}{name}": pa.array([item.get(name) for item in added.columns]) for name in columns}
    write_table(pa.table({"item_id": pa.array(list(added.ids), pa.string()), **arrays}), out / files["items"])
    tensors = {"values": added.values, "valid": added.valid}
    for name, (values, there) in added.features.items():
        tensors |= {f"feature/{name}": values, f"there/{name}": there}
    state.save(out / files["contents"], {name: tensor.clone() for name, tensor in tensors.items()}, {"run": run})
    state.write_json(out / NAME, {"format": FORMAT, "run": run, "n": len(added.ids), **files})
    for name in before:
        with suppress(OSError):
            (out / name).unlink()
    return out


def read_added(path: Path, run: str) -> Added:
    """What `write_added` wrote. UserError where it is of another run, is not there, or is damaged."""
    if not (path / NAME).is_file():
        raise UserError(f"{path} holds no added items: it has no {NAME}, as Recommender.save writes it")
    known = _Known.read(path)
    if known.format != FORMAT:
        raise UserError(
            f"{path / NAME} is of format {known.format}, which this version does not read: save the items again"
        )
    if known.run != run:
        raise UserError(f"{path} holds contents that another run made: add the items to this run's recommender again")
    table = read_table(path / known.items)
    tensors, _ = state.load(path / known.contents)
    with damaged(path, ". Add the items again and save them"):
        columns = [
            {name.removeprefix(COLUMN): value for name, value in row.items() if name != "item_id" and value is not None}
            for row in table.to_pylist()
        ]
        ids = table["item_id"].to_pylist()
        features = {
            name.removeprefix("feature/"): (values, tensors["there/" + name.removeprefix("feature/")])
            for name, values in tensors.items()
            if name.startswith("feature/")
        }
        added = Added(ids, columns, tensors["values"], tensors["valid"], features)
    if not {len(ids)} == {len(added.values), len(added.valid), known.n}:
        raise UserError(f"{path} is damaged: its files are of different items; add them again and save them")
    return added


class _Known(BaseModel):
    """`added.json`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    run: str
    n: int
    items: str = Field(pattern=PLAIN)
    contents: str = Field(pattern=PLAIN)

    @classmethod
    def read(cls, folder: Path) -> _Known:
        return typed(cls, read_json(folder / NAME), folder / NAME)


def _named(out: Path) -> list[str]:
    """The files that a folder's `added.json` names."""
    with suppress(OSError, UserError):
        known = _Known.read(out)
        return [known.items, known.contents]
    return []
