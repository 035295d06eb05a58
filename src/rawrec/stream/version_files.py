"""The files of a version, or of what has changed since another one.

`model.safetensors`: weights, rows of ids, content and columns of items. `items.json`: plain values.
`histories.parquet`: what users took in the stream, oldest first; of a delta, of those users whose history changed, null
where it is forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from torch import Tensor

from rawrec.files import write_table, write_text
from rawrec.reading import read_table, read_text
from rawrec.stream import deltas
from rawrec.stream.saved import LARGEST
from rawrec.sums import tensors_sum
from rawrec.training import state as checkpoint

TENSORS, PLAIN, HISTORIES = "model.safetensors", "items.json", "histories.parquet"
PAST = "histories"
"""Of the plain values: user -> times and items, in order of time."""
SCHEMA = pa.schema([("user", pa.string()), ("items", pa.list_(pa.string())), ("times", pa.list_(pa.float64()))])


class Whole(NamedTuple):
    """All that a version comes to. plain: values of JSON, of which `histories` stand in a file of their own."""

    name: str
    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]

    @property
    def sum(self) -> str:
        plain = {name: tensor.detach().cpu() for name, tensor in self.tensors.items()}
        return tensors_sum(plain, json.dumps(self.plain, sort_keys=True))


def write(folder: Path, whole: Whole, base: Whole | None) -> None:
    """The files of a version, or of what has changed since `base`."""
    plain = {name: value for name, value in whole.plain.items() if name != PAST}
    past: Mapping[str, Any] = whole.plain.get(PAST, {})
    about: dict[str, Any] = {"version": whole.name}
    if base is None:
        tensors, text = whole.tensors, plain
    else:
        tensors, more = deltas.differ(whole.tensors, base.tensors)
        about |= {"base": base.name, **more}
        text = deltas.differ_plain(plain, {name: value for name, value in base.plain.items() if name != PAST})
        before = base.plain.get(PAST, {})
        gone = dict.fromkeys(user for user in before if user not in past)
        past = {user: events for user, events in past.items() if before.get(user) != events} | gone
    checkpoint.save(folder / TENSORS, tensors, about)
    write_text(folder / PLAIN, json.dumps(text, ensure_ascii=True, allow_nan=False))
    items = [None if events is None else [item for _, item in events] for events in past.values()]
    times = [None if events is None else [time for time, _ in events] for events in past.values()]
    columns = [pa.array(list(past), pa.string()), pa.array(items, SCHEMA.types[1]), pa.array(times, SCHEMA.types[2])]
    write_table(pa.table(columns, schema=SCHEMA), folder / HISTORIES)


def read_one(folder: Path, name: str, base: Whole | None) -> Whole:
    """What the files of a version come to, with what its base does. Raises what `deltas.apply` does, ValueError and
    UserError where they are not what was written."""
    tensors, about = checkpoint.load(folder / TENSORS, summed=False)
    plain, table = json.loads(read_text(folder / PLAIN, LARGEST)), read_table(folder / HISTORIES)
    if about.get("version") != name or about.get("base") != (None if base is None else base.name):
        raise ValueError("it is of another version")
    users, items, times = (table[column].to_pylist() for column in SCHEMA.names)
    past: dict[str, Any] = {}
    if base is not None:
        tensors = deltas.apply(base.tensors, tensors, about)
        plain = deltas.apply_plain({key: value for key, value in base.plain.items() if key != PAST}, plain)
        past = dict(base.plain.get(PAST, {}))
    for user, own, when in zip(users, items, times, strict=True):
        if own is None:
            past.pop(user, None)
        else:
            past[user] = [[time, item] for time, item in zip(when, own, strict=True)]
    return Whole(name, tensors, plain | {PAST: past})
