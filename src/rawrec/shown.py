"""The one door for text that leaves: titles, ids and names are other people's words, and a terminal, Markdown or LaTeX
takes some signs for commands.

Control characters (of ESC sequences, which clear screens, name windows and hide links) and those that change the
direction of writing are shown as signs; a table keeps its columns whatever stands in it; printing never fails for a
sign that the terminal does not have. This module imports next to nothing: it is there before anything can go wrong.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]")
"""What is no sign of its own, but for line ends and tabs."""
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {sign: "\\" + sign for sign in "&%$#_{}"}
MARKDOWN = re.compile(r"[\\`*\[\]<>|~!&]|(?<![^\W_])_|_(?![^\W_])|^#|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
"""What Markdown, as GitHub reads it, may take for something else than itself."""


def visible(text: str) -> str:
    """The text with control characters as signs: ESC as ␛, others by their number. Line ends and tabs stay."""
    return CONTROL.sub(_sign, text)


def line(text: str) -> str:
    """The same in one line: line ends are signs, too."""
    return visible(text).replace("\n", "␊").replace("\t", "␉")


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"<U+{code:04X}>"


def markdown(text: str) -> str:
    """Text that means itself in Markdown, also in a cell of a table."""
    return MARKDOWN.sub(lambda found: "\\" + found[0], line(text))


def latex(text: str) -> str:
    """Text that means itself in LaTeX, also in a cell of a table."""
    return re.sub(r"[\\~^&%$#_{}]", lambda found: LATEX[found[0]], line(text))


def json_text(text: str) -> str:
    """JSON in which control characters beyond ASCII are written by their numbers; it says what it said."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# --------------------------------------------------------------------------------------------------------- the terminal
def say(text: str = "", error: bool = False) -> None:
    """Print a text, on stdout or on stderr."""
    print(visible(text), file=sys.stderr if error else sys.stdout)


def console(stderr: bool = False, width: int | None = None, **more: Any) -> Console:
    """A console on which what others have written is never a command of the terminal. more: of rich's console."""
    from rich.console import Console
    from rich.segment import Segment

    class Shown(Console):
        def render(self, *args: Any, **kwargs: Any) -> Any:
            for one in super().render(*args, **kwargs):
                yield one if one.control or not CONTROL.search(one.text) else Segment(visible(one.text), one.style)

    return Shown(stderr=stderr, highlight=False, width=width, **more)


def prepare_streams() -> None:
    """Make printing safe: no sign is an error, and a closed stream is written to nowhere. For the command line."""
    for number in (0, 1, 2):  # else the next file that is opened would be taken for the closed one
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            with suppress(OSError, ValueError):
                reconfigure(errors="backslashreplace")


def close_streams() -> bool:
    """Write out what was printed; False where nobody reads it any more, about which nothing is said."""
    read = True
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError):
            read = False
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return read
