"""Data flows one way: no room of the package imports a higher one, and no two modules import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import rawrec

SOURCE = Path(rawrec.__file__).resolve().parent

GROUND = {"arguments", "errors", "files", "folders", "progress", "cores", "threads", "memory", "onednn", "plugins"}
GROUND |= {
    "distinct",
    "extras",
    "faults",
    "forks",
    "interruption",
    "lazily",
    "randomness",
    "reading",
    "shown",
    "sums",
    "world",
    "ray_cluster",
    "remote",
}
"""Modules below all rooms; they import each other at most."""

ABOVE_THE_GROUND = {
    "config": set(),
    "data": set(),
    "sources": {"data", "config"},
    "content": {"data", "config"},
    "models": {"content", "data", "config"},
    "evaluation": set(),
    "training": {"evaluation", "models", "content", "data", "config"},
    "stream": {"training", "models", "evaluation", "content", "data", "config"},
    "serving": {"stream", "training", "evaluation", "models", "content", "data", "config"},
    "report": {"serving", "training", "evaluation", "models", "content", "data", "config"},
    "browse": {"report", "serving", "stream", "training", "data"},
    "server": {"browse", "serving", "stream", "training", "sources", "data"},
    "studies": {"report", "serving", "training", "evaluation", "content", "data", "config"},
    "testing": {"training", "models", "content", "data", "config"},
    "__main__": {"cli"},
    "cli": {
        "browse",
        "server",
        "studies",
        "report",
        "serving",
        "stream",
        "training",
        "evaluation",
        "models",
        "content",
        "sources",
        "data",
        "config",
    },
}
"""Which rooms a room imports, beside the ground.

`evaluation` is metrics alone: of the ground it takes `errors`, `threads` and `plugins` (metrics of other packages).
"""

WITHIN_SOURCES = {
    "tables": set(),
    "media": {"tables"},
    "download": {"media", "tables"},
}
"""The same of the sub-packages of `sources`; its modules import all of them."""

KNOWN = {
    ("evaluation", "rawrec.data.splits"),
}
"""What still imports a higher room. A line goes when the import has gone: the list only becomes shorter."""

KNOWN_CIRCLES = {
    "rawrec.serving.recommender and rawrec.serving.retriever",
}
"""Modules that still import each other; only becomes shorter, too."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by its full name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("rawrec", *path.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """The modules of the package that a file imports, anywhere in it: for type checkers and inside functions, too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: name modules in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "rawrec":
                yield name if name in modules() else name.rpartition(".")[0]


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def allowed(of: str) -> set[str]:
    """The rooms and ground that code of a room may import, itself included."""
    ground = {"errors", "threads", "plugins"} if of == "evaluation" else GROUND
    return {of} | ground | (set() if of in GROUND else ABOVE_THE_GROUND[of])


def violations() -> set[tuple[str, str, str]]:
    """Room, importing module, imported module."""
    return {
        (room(module), module, target)
        for module, path in modules().items()
        if module != "rawrec"  # the public names are those of all rooms
        for target in imports(path)
        if target != "rawrec" and room(target) not in allowed(room(module))
    }


def test_every_module_belongs_to_a_room() -> None:
    assert {room(module) for module in modules()} - {""} == GROUND | set(ABOVE_THE_GROUND)


def test_no_room_imports_a_higher_one() -> None:
    found = {(name, module, target) for name, module, target in violations() if (name, target) not in KNOWN}
    assert not found


def test_known_exceptions_still_exist() -> None:
    gone = KNOWN - {(name, target) for name, _, target in violations()}
    assert not gone, f"these imports are gone, strike them from KNOWN: {gone}"


def test_the_rooms_of_sources_stand_on_each_other() -> None:
    for module, path in modules().items():
        if module.startswith("rawrec.sources.") and (here := module.split(".")[2]) in WITHIN_SOURCES:
            for target in imports(path):
                if room(target) == "sources":
                    assert target.split(".")[2] in WITHIN_SOURCES[here] | {here}, f"{module} imports {target}"


def circles() -> set[frozenset[str]]:
    """Modules that reach each other by imports, inside functions too, where a circle is only hidden."""
    edges = {module: set(imports(path)) - {module} for module, path in modules().items()}
    edges["rawrec"] = set()  # whose names are imported when they are first used

    def reached(module: str) -> set[str]:
        found, left = set(), {module}
        while left:
            left = set().union(*(edges[name] for name in left)) - found
            found |= left
        return found

    after = {module: reached(module) for module in edges}
    return {
        frozenset({module} | {other for other in found if module in after[other]})
        for module, found in after.items()
        if module in found
    }


def test_no_modules_import_each_other() -> None:
    found = {" and ".join(sorted(circle)) for circle in circles()}
    assert found == KNOWN_CIRCLES, "a new circle, or one that is gone: strike it from KNOWN_CIRCLES"


@pytest.mark.parametrize(
    "line",
    [
        "from rawrec.data import dataset",
        "def f():\n    import rawrec.data.dataset",
        "from rawrec.data.dataset import x",
    ],
)
def test_imports_are_found_wherever_they_stand(line: str, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(f"import rawrecorder, os.path\n{line}\n", encoding="utf-8")
    assert list(imports(file)) == ["rawrec.data.dataset"]
