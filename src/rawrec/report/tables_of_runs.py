"""The tables of a run folder, `scores.parquet` and `topk.parquet`: their columns are what they should be, or a message
says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from rawrec.errors import UserError
from rawrec.reading import damaged, read_table
from rawrec.training.runs import RunFolder

Kind = tuple[str, Callable[[pl.DataType], bool]]
"""What a column holds, in words, and whether a type is that."""


def _numbers(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind == pl.Boolean


WHOLE: Kind = ("whole numbers", lambda kind: kind.is_integer())
NUMBERS: Kind = ("numbers", _numbers)
ITEMS: Kind = ("lists of whole numbers", lambda kind: isinstance(kind, pl.List | pl.Array) and kind.inner.is_integer())  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
SCORES = {"row": WHOLE, "user": WHOLE, "item": WHOLE, "label": NUMBERS, "score": NUMBERS, "split": WHOLE}
LISTS = {"user": WHOLE, "items": ITEMS}


def read_frame(path: Path, kinds: Mapping[str, Kind], others: Kind = NUMBERS) -> pl.DataFrame:
    """The table at `path`, of columns of these kinds, and of the kind `others` all that are not named. Raises UserError
    where it is damaged, or something else, and FileNotFoundError where there is none."""
    run = RunFolder(path.absolute().parent)
    if path.exists() and (run.path / "run.json").is_file():
        run.check_file(path.name)
    table = read_table(path)
    with damaged(path):
        frame = pl.DataFrame(table)
    if missing := kinds.keys() - set(frame.columns):
        raise UserError(f"{path} lacks the columns {sorted(missing)}: evaluate the run again")
    for name, kind in frame.schema.items():
        words, fits = kinds.get(name, others)
        if not fits(kind):
            raise UserError(f"{path} is damaged: column {name!r} holds no {words}")
        if name in kinds and frame[name].null_count():
            raise UserError(f"{path} is damaged: column {name!r} has empty places")
    return frame
