"""Texts of web pages without their HTML."""

from __future__ import annotations

import html
import re

ELEMENTS = """a abbr acronym address applet area article aside audio b base basefont bdi bdo big blockquote body br
button canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir div dl dt em embed
fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html i iframe img input
ins kbd label legend li link main map mark marquee menu meta meter nav nobr noframes noscript object ol optgroup
option output p param picture pre progress q rp rt ruby s samp script section select small source span strike
strong style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track tt u ul var
video wbr"""
NAME = "|".join(sorted(ELEMENTS.split(), key=len, reverse=True))
FLAGS = "checked|compact|controls|disabled|hidden|ismap|multiple|noshade|nowrap|readonly|required|reversed|selected"
ATTRIBUTE = rf"""\s+(?:[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+)|(?:{FLAGS})(?=[\s/>]))"""
TAG = re.compile(
    rf"<!--.*?-->|<!doctype[^>]*>|<(script|style)\b[^>]*>.*?</\1\s*>|</?(?:{NAME})(?:{ATTRIBUTE})*\s*/?>",
    re.IGNORECASE | re.DOTALL,
)
"""Comments, what scripts and styles say, and tags of known elements. What else stands between < and > is text."""
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
ROUNDS = 4
"""How often a text is looked through, for what was escaped several times."""


def without_html(text: str) -> str:
    """The text without tags, entities as the characters that they stand for, however often it was escaped; single
    blanks for all white space. A `<` that begins no tag of HTML is text."""
    for _ in range(ROUNDS):
        if "<" not in text and "&" not in text:
            break
        plain = ENTITY.sub(lambda entity: html.unescape(entity[0]), TAG.sub(" ", text))
        if plain == text:
            break
        text = plain
    return " ".join(text.split())
