"""Names and ids that a dataset does or does not have; what is unknown is told with what is near it."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawrec.arguments import ANYTHING, many, shown
from rawrec.errors import UserError
from rawrec.shown import listed

NAMES = "letters, digits, - and _, and begin with a letter"
"""What names of fields, columns and splits are made of. Letters are those of any script, with their marks."""


LIST = many(ANYTHING)
LONGEST = 200
"""Characters of a name that are compared with those there are."""


def is_letter(sign: str) -> bool:
    """Whether a character is a letter of any script."""
    return unicodedata.category(sign)[0] == "L"


def fits_name(sign: str) -> bool:
    """Whether a character may stand in a name."""
    kind = unicodedata.category(sign)
    return sign in "_-" or kind[0] in "LM" or kind == "Nd"


def is_name(name: str) -> bool:
    """Whether a field, a column or a split may be called so."""
    return bool(name) and (is_letter(name[0]) or name[0] == "_") and all(map(fits_name, name))


def known(what: str, name: str, names: Sequence[str], path: Path) -> None:
    """UserError where `name` is none of the names of the dataset at `path`."""
    if not isinstance(name, str):
        raise UserError(f"{what} {shown(name)}: give its name, a string")
    if name not in names:
        raise UserError(unknown_name(f"{path}: {what}", name, names))


def unknown_name(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:LONGEST], known, n=1)
    hint = f"; did you mean {shown(near[0])}?" if near else "."
    return f"{what} {shown(name)} does not exist{hint} There are: {listed(known, name)}"


def lookup(what: str, ids: Sequence[str], table: dict[str, int], where: str) -> NDArray[np.int64]:
    if not LIST.fits(ids):
        raise UserError(f"{what}s {shown(ids)}: give a list of ids")
    rows = np.fromiter((table.get(str(i), -1) for i in ids), np.int64, len(ids))
    if (rows < 0).any():
        unknown = str(list(ids)[int(np.argmax(rows < 0))])
        near = difflib.get_close_matches(unknown[:LONGEST], list(table)[:20_000], n=3)
        hint = f"; close to it: {listed(near)}" if near else ""
        raise UserError(f"{what} {shown(unknown)} is not in {where}{hint}")
    return rows


def row_numbers(rows: Sequence[int] | NDArray[np.integer[Any]], n: int) -> NDArray[np.int64]:
    """Rows of items as an array, each from 0 to n - 1; UserError for what are none."""
    try:
        found = np.asarray(rows)
    except Exception:  # of lists within lists, and of what others' objects raise
        found = np.array(None)
    if found.size == 0 and found.ndim == 1:
        return np.zeros(0, np.int64)
    if found.dtype.kind not in "iu" or found.ndim != 1:
        raise UserError(f"rows={shown(rows)}: give a list of whole numbers, rows of items")
    if found.min() < 0 or found.max() >= n:
        raise UserError(f"item rows must be in 0..{n - 1}, found {found.min()}..{found.max()}")
    return found.astype(np.int64)
