"""Objects as lines of text that strict JSON has not, and all the same are read every day, made into strict JSON."""

from __future__ import annotations

import ast
import json
import math
import warnings
from typing import Any

from rawrec.sources.tables.marks import mark_halves

MAX_LITERAL = 1 << 18
"""Characters of the longest line that is read as a Python literal."""
SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""Whole numbers that keep all digits where JSON is read; others become texts."""
NO_NUMBERS = ("nan", "inf", "NaN", "Infinity")


class Reader:
    """Makes lines into strict JSON. `no_numbers`: whether some held NaN or Infinity, which are null then."""

    def __init__(self, literals: bool) -> None:
        self.literals = literals
        self.no_numbers = False

    def __call__(self, line: str) -> str | None:
        """The line as strict JSON; None for what is no object. Nothing is executed.

        Halves of pairs become marks. A whole number that is too large for JSON's readers becomes a text.
        """
        value = self.value(line)
        if value is None:
            return None
        try:
            return mark_halves(json.dumps(value, ensure_ascii=False, allow_nan=False))
        except (ValueError, TypeError, RecursionError):
            return None

    def value(self, line: str) -> dict[str, Any] | None:
        """The object of a line, which may have halves of pairs."""
        if not line.startswith("{"):
            return None
        found = self._json(line)
        if found is None and self.literals:
            found = self._literal(line)
        return found if isinstance(found, dict) else None

    def _json(self, line: str) -> Any:
        try:
            return json.loads(
                line, strict=False, parse_constant=self._constant, parse_float=self._float, parse_int=_whole
            )
        except (ValueError, RecursionError):
            return None

    def _constant(self, _: str) -> None:
        self.no_numbers = True

    def _float(self, text: str) -> float | None:
        value = float(text)
        self.no_numbers |= math.isinf(value)
        return None if math.isinf(value) else value

    def _literal(self, line: str) -> Any:
        """A Python dict of plain values."""
        if len(line) > MAX_LITERAL:
            return None
        try:
            with warnings.catch_warnings():  # of odd escapes in strings
                warnings.simplefilter("ignore")
                tree = _Plain(self).visit(ast.parse(line, mode="eval"))
                return _without_large(ast.literal_eval(tree))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None


class _Plain(ast.NodeTransformer):
    """`nan` and `inf`, with a sign or without, as None."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        inner = self.visit(node.operand)
        return inner if isinstance(inner, ast.Constant) and inner.value is None else node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id not in NO_NUMBERS:
            return node
        self.reader.no_numbers = True
        return ast.copy_location(ast.Constant(None), node)


def _whole(text: str) -> int | str:
    if len(text) > 18 and not (len(text) < 22 and SMALLEST <= int(text) <= LARGEST):
        return text
    return int(text)


def _without_large(value: Any) -> Any:
    """The value with texts for whole numbers that are too large, None for floats that are not finite."""
    if isinstance(value, dict):
        return {key: _without_large(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_large(part) for part in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if SMALLEST <= value <= LARGEST else str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
