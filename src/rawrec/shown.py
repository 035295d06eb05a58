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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]")
"""What is no sign of its own, but for line ends and tabs."""
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {sign: "\\" + sign for sign in "&%$#_{}"}
MARKDOWN = re.compile(r"[\\`*\[\]<>|~!&]|(?<![^\W_])_|_(?![^\W_])|^#|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
"""What Markdown, as GitHub reads it, may take for something else than itself."""
LONGEST_LIST, LONGEST_NAME = 500, 60
"""Characters of all names of a list in a message, and of one of them."""
SEVERAL, LONGEST_MISTAKE = 10, 1000
"""Mistakes that are told at once, and characters of one of them."""
COMPARED = 20_000
"""Names that are compared with one that is none of them."""


def visible(text: str) -> str:
    """The text with control characters as signs: ESC as ␛, others by their number. Line ends and tabs stay."""
    return CONTROL.sub(_sign, text)


def line(text: str) -> str:
    """The same in one line: line ends are signs, too."""
    return visible(text).replace("\n", "␊").replace("\t", "␉")


def listed(names: Iterable[object], near: object = "", none: str = "none") -> str:
    """Names in a message, which stays short however many they are and however long: all of them in their order, or the
    nearest to `near` first, as many as there is room for, and how many more there are. none: said of an empty list.
    """
    found = [str(name) for name in names]
    words = [_cut(name) for name in found]
    if sum(map(len, words)) + 2 * len(words) <= LONGEST_LIST:
        return ", ".join(words) or none
    import difflib

    compared = {name[:LONGEST_NAME]: n for n, name in reversed([*enumerate(found[:COMPARED])])}
    word = near[:LONGEST_NAME] if isinstance(near, str) else ""
    nearest = difflib.get_close_matches(word, compared, n=3, cutoff=0.5)
    order = dict.fromkeys([*(compared[name] for name in nearest), *range(len(words))])
    room, taken = LONGEST_LIST, []
    for n in order:
        room -= len(words[n]) + 2
        if room < 0:
            break
        taken.append(words[n])
    return f"{', '.join(taken)} and {len(words) - len(taken):,} more"


def counted(n: int, one: str, many: str = "") -> str:
    """So many of something, in words: `1 item`, `1,234 items`. many: of those that do not end in s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def several(told: Iterable[str], between: str = "\n") -> str:
    """What is told of several mistakes at once: each once, the first ten, and how many more there are."""
    found = list(dict.fromkeys(told))
    more = [f"... and {len(found) - SEVERAL:,} more"] if len(found) > SEVERAL else []
    return between.join([*(_cut(one, LONGEST_MISTAKE) for one in found[:SEVERAL]), *more])


def _cut(name: str, most: int = LONGEST_NAME) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


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


@contextmanager
def libraries_in_lines() -> Iterator[None]:
    """Inside, errors that nobody can catch, since a library's own thread, the end of an object or a logger without a
    reader has them, are lines on stderr in the place of tracebacks. For the command line."""
    import logging
    import threading

    from rawrec.errors import in_a_line

    def of_thread(args: Any) -> None:
        if not issubclass(args.exc_type, SystemExit):
            name = args.thread.name if args.thread is not None else "unknown"
            _quietly(f"rawrec: the thread {name} ended: {in_a_line(args.exc_value or args.exc_type())}")

    def of_end(args: Any) -> None:
        told = in_a_line(args.exc_value) if args.exc_value is not None else args.exc_type.__name__
        _quietly(f"rawrec: {args.err_msg or 'an error that nobody hears of'}: {told}")

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            told = [str(record.getMessage()).partition("\n")[0]]
            if record.exc_info and record.exc_info[1] is not None:
                told.append(in_a_line(record.exc_info[1]))
            return visible(f"{record.name}: {': '.join(told)}")

    last = logging.lastResort
    before = threading.excepthook, sys.unraisablehook, last.formatter if last else None
    threading.excepthook, sys.unraisablehook = of_thread, of_end
    if last:
        last.formatter = Lines()
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before[:2]
        if last:
            last.formatter = before[2]


def _quietly(text: str) -> None:
    with suppress(Exception):  # where stderr is gone there is nobody to tell
        say(text, error=True)


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
