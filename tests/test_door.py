"""One door for what is written: nothing but `files.py` and `folders.py` opens, copies or renames in a way that follows
links or leaves half a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import rawrec

SOURCE = Path(rawrec.__file__).resolve().parent
DOOR = {"files.py", "folders.py"}
WRITING = {"write_text", "write_bytes", "save_file", "mkstemp", "NamedTemporaryFile", "copyfile", "copy2", "copytree"}
WRITING |= {"symlink_to", "hardlink_to", "rename", "savetxt", "savez", "to_csv", "sink_parquet", "write_parquet"}
LIBRARIES = {"ParquetWriter", "write_table", "write_dataset"}
"""Writers of libraries, which take a path: inside `replacing`, or into a folder that this process has just made."""

RENAMES = "a folder or file of our own, within the right to write there"
KNOWN = {
    ("shown.py", "open"): "stdout and stderr, by their numbers",
    ("memory.py", "write_text"): "/proc/self/clear_refs, which is no file",
    ("training/runs.py", "rename"): RENAMES,
    ("training/sweeps/sweep.py", "rename"): RENAMES,
    ("data/writer.py", "rename"): RENAMES,
    ("data/parts.py", "ParquetWriter"): "into the folder of an import or append",
    ("data/parts.py", "write_table"): "into the folder of an import or append",
    ("data/appender.py", "write_table"): "into the folder of an append",
    ("data/dataset.py", "write_table"): "inside replacing",
    ("data/lists.py", "ParquetWriter"): "inside replacing",
    ("data/lists.py", "write_table"): "inside replacing",
    ("data/vectors.py", "ParquetWriter"): "inside replacing",
    ("data/vectors.py", "write_table"): "inside replacing",
    ("studies/em3/content_data.py", "write_dataset"): "inside placing",
}


def calls() -> Iterator[tuple[str, str]]:
    """File and name of every call that can write, outside the door."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if name not in DOOR else ():
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            method = isinstance(function, ast.Attribute)
            if called == "open" and any(_writes(arg) for arg in (*node.args, *(k.value for k in node.keywords))):
                yield name, "open"
            elif method and called in WRITING | LIBRARIES and not (called == "rename" and _is_frame(node)):
                yield name, called
            elif method and called == "replace" and len(node.args) == 1 and not node.keywords:
                yield name, "replace"


def _writes(arg: ast.expr) -> bool:
    """Whether it is a mode in which something is written."""
    text = arg.value if isinstance(arg, ast.Constant) and isinstance(arg.value, str) else ""
    return 0 < len(text) < 4 and set(text) <= set("rwaxbt+") and bool(set(text) & set("wax+"))


def _is_frame(node: ast.Call) -> bool:
    """A table's columns are renamed, not a file: it is given a mapping."""
    return bool(node.args) and isinstance(node.args[0], ast.Dict | ast.DictComp)


def test_nothing_is_written_but_through_the_door() -> None:
    found = set(calls())
    assert {call for call in found if call not in KNOWN and call[1] != "replace"} == set()
    assert {name for name, called in found if called == "replace"} <= {"content/column_files.py"}
    assert not set(KNOWN) - found, "a line of KNOWN that is no longer needed"


def test_no_reader_takes_a_name_for_a_pattern() -> None:
    """Names with `[`, `*` or `?` are what they are; and a folder is no table."""
    found = set()
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                said = {word.arg for word in node.keywords}
                of = getattr(node.func.value, "id", "")
                pattern = node.func.attr.startswith(("read_", "scan_")) and of == "pl" and "glob" not in said
                if pattern or (of == "pq" and node.func.attr == "read_table"):
                    found.add((path.relative_to(SOURCE).as_posix(), node.func.attr))
    assert not found
