"""Names of picture files, made from the id of an item: `{item}.jpg`, `{item:.3}/{item}.jpg`, `{item}/*.jpg`."""

from __future__ import annotations

import fnmatch
import glob
import re
from bisect import bisect_left
from pathlib import PurePosixPath

from rawrec.errors import UserError

_PLACE = re.compile(r"\{item(?::([^{}]*))?\}")
_FORM = re.compile(r"(?:[^{}/]?[<>^])?(?:[1-9]\d{0,2})?(?:\.[1-9]\d{0,2})?")
HELP = "{item} is the item's id, {item:.3} its first three characters, {item:0>10} the id with zeros in front"


class ImageName:
    """A name with `{item}` in place of the id, as often as one likes, `{item:FORM}` for Python's form of a text; `*`,
    `?` and `[...]` outside of it stand for what they do in a shell, in one part of the path each.

    suffix: what the name ends on, in small letters, "" where that is not fixed. UserError for a name without `{item}`,
    with other words in braces, or with `**`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        rest = _PLACE.sub("", text)
        if not _PLACE.search(text):
            raise UserError(f"image name {text!r} must hold {{item}} in place of the item's id, as in '{{item}}.jpg'")
        if "{" in rest or "}" in rest or not all(_FORM.fullmatch(form or "") for form in _PLACE.findall(text)):
            raise UserError(f"image name {text!r} has something in braces that is not known: {HELP}")
        if "**" in rest:
            raise UserError(f"image name {text!r}: ** is not known, a * for each folder on the way is")
        self.is_glob = glob.has_magic(rest)
        self.suffix = "" if glob.has_magic(PurePosixPath(text).suffix) else suffix_of(text)

    def of(self, item_id: str) -> str:
        """The name for an item; of a glob the pattern, in which the id stands for itself."""
        given = glob.escape(item_id) if self.is_glob else item_id

        def made(match: re.Match[str]) -> str:
            if not match[1]:
                return given
            value = format(item_id, match[1])
            return glob.escape(value) if self.is_glob else value

        return _PLACE.sub(made, self.text)


def suffix_of(name: str) -> str:
    """`jpg` of `x.JPG`."""
    return PurePosixPath(name).suffix.lower().lstrip(".")


def with_suffix(name: str, suffix: str) -> str:
    """The name, or pattern, with another suffix in the place of its own."""
    return f"{name.rpartition('.')[0]}.{suffix}"


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def matching(pattern: str, names: list[str]) -> list[str]:
    """Of some names, which are sorted, those that fit one part of a pattern, frame2 before frame10; those with a dot in
    front only where it has one."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    some = names[bisect_left(names, fixed) : bisect_left(names, fixed + chr(0x10FFFF))]
    fits = re.compile(fnmatch.translate(pattern)).match
    return sorted((name for name in some if (fixed or not name.startswith(".")) and fits(name)), key=natural)
