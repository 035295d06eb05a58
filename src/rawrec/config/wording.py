"""Words that messages about settings share."""

from __future__ import annotations

import difflib
import reprlib
from typing import Any

from pydantic import BaseModel

from rawrec.shown import listed


def unknown(where: str, word: str, known: list[str]) -> str:
    """That `word` is none of the known ones, and which of them is meant."""
    near = nearest(word[:200], known)
    hint = f"; did you mean {near}?" if near else "."
    return f"{where[:200]}: {short(word)!r} is unknown{hint} Known: {listed(known, word)}"


def nearest(word: str, known: list[str]) -> str | None:
    """The one of the known words that is meant, whatever its case: LightGCN is near lightgcn."""
    folded = {_folded(name): name for name in reversed(known)}
    near = difflib.get_close_matches(_folded(word), folded, n=1)
    return folded[near[0]] if near else None


def _folded(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace(" ", "")


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 3, 60, 60, 60
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = 20


def _few(value: Any) -> str:
    """A value as Python writes it, of a large one the beginning alone."""
    return _REPR.repr(value) if isinstance(value, list | tuple | dict | set) else str(value)


def short(value: Any) -> str:
    """A value as a user writes it, at most 60 characters."""
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, str) else _few(value)
    return text if len(text) <= 60 else text[:59] + "…"


def has_settings(where: str, value: Any, record: type[BaseModel]) -> str:
    """That a value stands in place of a record, and which settings the record has."""
    names = ", ".join(f"{where}.{name}" for name in record.model_fields)
    return f"{where}={short(value)}: {where} holds settings of its own: {names}"
