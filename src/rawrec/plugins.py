"""What is found by name, and may come from other installed packages: models, encoders, fusions, metrics, sources.

A registry is a plain dict, name -> `Entry`. A package that brings something says so in its metadata, as an entry point
of the group `rawrec.models` and so on. Nothing of it is imported before its name is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from typing import Any, NamedTuple, TypeVar

from rawrec.errors import RunStopped, UserError

GROUPS = {"models": "model", "encoders": "encoder", "fusions": "fusion", "metrics": "metric", "sources": "source"}
"""Registry -> what one of its entries is called."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Entry:
    """what: a class or function, or where it is, as "module:Name", so that it is imported when first used."""

    what: Any

    @property
    def place(self) -> str:
        """As "module:Name"."""
        return self.what if isinstance(self.what, str) else f"{self.what.__module__}:{self.what.__qualname__}"

    @property
    def module(self) -> str:
        return self.place.partition(":")[0]

    @property
    def ours(self) -> bool:
        return _top(self.module) == "rawrec"

    def load(self) -> Any:
        """The class or function itself."""
        if not isinstance(self.what, str):
            return self.what
        module, _, name = self.what.partition(":")
        return getattr(import_module(module), name)


class Package(NamedTuple):
    """An installed package."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


E = TypeVar("E", bound=Entry)


def register(group: str, table: dict[str, E], name: str, entry: E) -> None:
    """Enter something under a name. Raises UserError where the name is taken, or is no name.

    The same class or function may come again, as when a cell of a notebook is run twice: the newer one is taken.
    """
    what = GROUPS[group]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{what} {name!r}: a name has letters, digits, _ and -, and begins with a letter")
    old = table.get(name)
    if old is not None and old.place != entry.place:
        raise UserError(
            f"{what} {name!r}, {_owner(entry.module)}: the name is taken by {_owner(old.module)}; choose another"
        )
    table[name] = entry


def find(group: str, table: dict[str, E], name: str, bring: Callable[[str, Any], object]) -> E | None:
    """The entry of a name, which is loaded here where an installed package brings it; None where nobody does.

    bring: registers what an entry point leads to, unless its module did so itself. Raises UserError where several
    packages bring the name, or the one that does cannot be loaded.
    """
    points, what = installed()[group].get(name, []), GROUPS[group]
    owners = bringers(group, name)
    if name in table:
        if strangers := [p for p in points if _top(p.module) != _top(table[name].module)]:
            owners = [_owner(table[name].module), *(_bringer(point) for point in strangers)]
        else:
            return table[name]
    if len(owners) > 1:
        raise UserError(f"{what} {name!r} is brought by {' and by '.join(owners)}: uninstall one of them")
    if not points:
        return None
    try:
        found = points[0].load()
        if name not in table:
            bring(name, found)
    except Exception as error:  # whatever a stranger's code raises
        raise UserError(
            f"{what} {name!r} of {owners[0]} ({points[0].value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return table[name]


def names(group: str, table: dict[str, E]) -> list[str]:
    """All names that can be asked for; nothing is loaded."""
    return list(dict.fromkeys([*table, *sorted(installed()[group])]))


@cache
def installed() -> dict[str, dict[str, list[metadata.EntryPoint]]]:
    """Registry -> name -> the entry points of installed packages: read once, from their metadata alone."""
    found: dict[str, dict[str, list[metadata.EntryPoint]]] = {group: {} for group in GROUPS}
    points = metadata.entry_points()
    for group, brought in found.items():
        for point in points.select(group=f"rawrec.{group}"):
            brought.setdefault(point.name, []).append(point)
    return found


def bringers(group: str, name: str) -> list[str]:
    """The installed packages that bring a name, in words; nothing is loaded."""
    return list(dict.fromkeys(_bringer(point) for point in installed()[group].get(name, [])))


def package_of(module: str) -> Package | None:
    """The installed package that a module belongs to; None for a script's or a notebook's own."""
    top = _top(module)
    for group in installed().values():
        for point in (point for points in group.values() for point in points):
            if _top(point.module) == top and point.dist is not None:
                return Package(point.dist.name, point.dist.version)
    for name in _distributions().get(top, []):
        return Package(name, metadata.version(name))
    return None


@cache
def _distributions() -> Mapping[str, list[str]]:
    """The installed packages of each module, read once: their lists of files are long."""
    return metadata.packages_distributions()


@contextmanager
def own_code(what: str, name: str) -> Iterator[None]:
    """Around a call of what a user registered: that it failed is told by its name, the cause behind it."""
    try:
        yield
    except (UserError, RunStopped):
        raise
    except Exception as error:
        raise UserError(f"{what} {name!r} failed: {type(error).__name__}: {error}") from error


def _bringer(point: metadata.EntryPoint) -> str:
    """The package of an entry point, in words."""
    return _owner(point.module) if point.dist is None else f"the package {point.dist.name} {point.dist.version}"


def _owner(module: str) -> str:
    """Who brings what is in a module, in words."""
    if _top(module) == "rawrec":
        return "rawrec itself"
    package = package_of(module)
    return f"the module {module}" if package is None else f"the package {package}"


def _top(module: str) -> str:
    return module.partition(".")[0]
