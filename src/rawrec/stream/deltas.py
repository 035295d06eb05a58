"""What has changed between two versions: rows of tensors, parts of plain values; and the later one made of both.

A table keeps its rows: those that changed, bit by bit, and those that are new go into a delta; what is small, or has
another shape than before, goes whole. `apply` of what `differ` found is the later version, bit by bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SMALL = 1024
"""Numbers of a tensor that goes whole where any of them changed."""
ROWS, VALUES, WHOLE = "rows.", "values.", "whole."

Plain = dict[str, Any]


def differ(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Plain]:
    """Tensors of a delta, and what else `apply` needs: lengths of tables, and names of tensors that are gone."""
    found: dict[str, Tensor] = {}
    lengths: dict[str, int] = {}
    for name, values in now.items():
        values, old = values.detach().cpu(), before.get(name)
        if old is None or values.dtype != old.dtype or values.ndim == 0 or values.shape[1:] != old.shape[1:]:
            if (
                old is None
                or values.dtype != old.dtype
                or values.shape != old.shape
                or bool(_unlike(values, old).any())
            ):
                found[WHOLE + name] = values
            continue
        both = min(len(values), len(old))
        rows = _unlike(values[:both], old[:both]).nonzero()[:, 0]
        if len(values) == len(old) and not len(rows):
            continue
        rows = torch.cat([rows, torch.arange(both, len(values))])
        if values.numel() <= SMALL or 2 * len(rows) > len(values) or len(values) < len(old):
            found[WHOLE + name] = values
        else:
            found[ROWS + name], found[VALUES + name], lengths[name] = rows, values[rows], len(values)
    return found, {"lengths": lengths, "gone": sorted(set(before) - set(now))}


def _unlike(one: Tensor, other: Tensor) -> Tensor:
    """Which rows differ in any bit, bool `[rows]`: of numbers alone, nan would differ from itself and 0 be -0."""
    count = len(one) if one.ndim else 1
    if not one.numel():
        return torch.zeros(count, dtype=torch.bool)
    bits = [part.contiguous().view(-1).view(torch.uint8).view(count, -1) for part in (one, other)]
    return (bits[0] != bits[1]).any(1)


def apply(before: Mapping[str, Tensor], delta: Mapping[str, Tensor], about: Mapping[str, Any]) -> dict[str, Tensor]:
    """The later version's tensors; those of `before` stay as they are. Raises KeyError, RuntimeError, IndexError where
    the delta is of another version."""
    found = {name: values for name, values in before.items() if name not in about["gone"]}
    for name, length in about["lengths"].items():
        old, rows = before[name], delta[ROWS + name]
        values = old.new_empty((length, *old.shape[1:]))
        values[: len(old)] = old
        values[rows] = delta[VALUES + name]
        found[name] = values
    return found | {name.removeprefix(WHOLE): values for name, values in delta.items() if name.startswith(WHOLE)}


# --------------------------------------------------------------------------------------------------------- plain values
def differ_plain(now: Any, before: Any) -> Plain | None:
    """What has changed between two values of JSON, for `apply_plain`; None: nothing."""
    if _same(now, before):
        return None
    if isinstance(now, dict) and isinstance(before, dict):
        parts = {key: part for key, value in now.items() if (part := _part(value, before, key)) is not None}
        return {"set": parts, "gone": [key for key in before if key not in now]}
    if isinstance(now, list) and isinstance(before, list):
        both = min(len(now), len(before))
        changed = [n for n in range(both) if not _same(now[n], before[n])]
        if 2 * (len(changed) + len(now) - both) <= len(now):
            return {"at": changed, "values": [now[n] for n in changed], "more": now[both:], "length": both}
    return {"value": now}


def _same(one: Any, other: Any) -> bool:
    """Whether two values have one text, but for the order of keys: 0, 0.0, -0.0 and false are equal to Python."""
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _part(value: Any, before: Mapping[str, Any], key: str) -> Plain | None:
    return differ_plain(value, before[key]) if key in before else {"value": value}


def apply_plain(before: Any, delta: Plain | None) -> Any:
    """The later value. Raises KeyError, IndexError, TypeError where the delta is of another one."""
    if delta is None:
        return before
    if "value" in delta:
        return delta["value"]
    if "set" in delta:
        gone = set(delta["gone"])
        found = {key: value for key, value in before.items() if key not in gone}
        return found | {key: apply_plain(before.get(key), part) for key, part in delta["set"].items()}
    found = before[: delta["length"]]
    for n, value in zip(delta["at"], delta["values"], strict=True):
        found[n] = value
    return found + delta["more"]
