"""One name for one encoder: folders by their real place, however they were given."""

from __future__ import annotations

from pathlib import Path

PAIR = "pair:"
JOINT = "joint:"
"""How names of LEMUR's transformer begin; behind it stands a size, or the text encoder that it begins as."""
LIBRARIES = ("timm:", "open_clip:")
"""How names of networks of other libraries begin; behind @ stand their weights."""


def whole_name(name: str) -> str:
    """The name, with every folder and file in it as its absolute real path; what is none stays as it is.

    So links, relative paths, a slash at the end and `~` are one encoder, and a run may be resumed from another place.
    """
    if name.startswith(PAIR):
        return PAIR + "+".join(map(whole_name, name.removeprefix(PAIR).split("+")))
    if name.startswith(JOINT):
        return JOINT + whole_name(name.removeprefix(JOINT))
    if name.startswith(LIBRARIES):
        model, at, weights = name.partition("@")
        return model + at + _place(weights, files=True)
    return _place(name)


def _place(name: str, files: bool = False) -> str:
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)
    return str(path.resolve()) if name and (path.is_dir() or (files and path.is_file())) else name


def without_place(name: str) -> str:
    """What a name says beside where files lie: of those the weights tell, wherever they are moved."""
    if name.startswith(LIBRARIES):
        return name.partition("@")[0]
    if name.startswith(JOINT):
        return JOINT + without_place(name.removeprefix(JOINT))
    return "" if Path(name).is_dir() else name
