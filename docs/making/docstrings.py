"""Docstrings as the reference shows them: examples (`>>> `) as code, names of arguments in bold."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?:>>>|\.\.\.) ?.*\n?|^(?!\s*$).+\n?)*)+", re.MULTILINE)


def shown(text: str, arguments: list[str]) -> str:
    """The Markdown of a docstring."""
    parts, end = [], 0
    for found in EXAMPLE.finditer(text):
        parts += [_named(text[end : found.start()], arguments), f"```pycon\n{found[0].rstrip()}\n```\n"]
        end = found.end()
    return "".join([*parts, _named(text[end:], arguments)])


def _named(text: str, arguments: list[str]) -> str:
    for name in arguments:
        text = re.sub(rf"(^|[.:;,]\s|\n)({name})(?=(?:,\s[\w*]+)*:\s)", r"\1**\2**", text)
    return text


class Shown(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            arguments = [one.name for one in obj.parameters] if isinstance(obj, griffe.Function) else []
            obj.docstring.value = shown(obj.docstring.value, [name for name in arguments if name != "self"])
