"""Formulas as MathML, which browsers draw without a script."""

from __future__ import annotations

import html as escapes
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])\s*</\1>', re.DOTALL)


def as_mathml(html: str) -> str:
    """The page with its formulas, which `pymdownx.arithmatex` has marked, as MathML."""

    def drawn(found: re.Match[str]) -> str:
        return convert(escapes.unescape(found[2]), display="inline" if found[1] == "span" else "block")

    return FORMULA.sub(drawn, html)
