"""A message that lists what there is stays short, however much there is: the nearest first, then how many more."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rawrec
from rawrec import UserError
from rawrec.shown import LONGEST_LIST, listed
from rawrec.sources.table import import_table

SOURCE = Path(rawrec.__file__).resolve().parent
OURS = "a list of rawrec's own"
NOT_OURS = "name not in METRICS or not METRICS[name].ours"
NEVER_MANY = {
    ("cli/use.py", "idle"): OURS,
    ("config/finetune.py", "self.loss"): "each is one of rawrec's own",
    (
        "config/metrics.py",
        "(f', {name}' for name in known if name not in METRICS or not METRICS[name].ours)",
    ): "plug-ins",
    ("content/encoders/hub.py", "(family.name for family in FAMILIES.values())"): OURS,
    ("content/encoders/joint.py", "(JOINT + size for size in SIZES)"): OURS,
    ("content/encoders/loading.py", "said"): "three parts of a sentence at most",
    ("content/finetuning/__init__.py", "cfg.loss"): "each is one of rawrec's own",
    ("content/finetuning/dual.py", "(family.name for family in hub.FAMILIES.values())"): OURS,
    ("sources/_videos.py", "names"): OURS,
    ("sources/microlens.py", "kinds"): OURS,
    ("stream/log.py", "(f'{name}:...' for name in KINDS)"): OURS,
    ("stream/tables.py", "missing"): "columns that rawrec needs",
    ("stream/versions.py", "(version.name for version in found.versions[-5:])"): "five",
    ("studies/em3/settings.py", "map(str, (*TABLES, LISTS))"): OURS,
    ("studies/lemur/settings.py", "(f'{number} ({name})' for number, name in TABLES.items())"): OURS,
    ("training/changing.py", "may"): OURS,
    ("training/runs.py", "missing"): "plug-ins",
    ("training/sweeps/search.py", "SweepConfig.model_fields"): OURS,
    ("training/tasks/learnable.py", "model.sqdc_mask"): "each is one of rawrec's own",
}
"""Module and what it joins -> why that is never much."""


def test_a_short_list_is_as_it_was() -> None:
    assert listed(["b", "a", 3]) == "b, a, 3" and listed([]) == "none" and listed((), none="nothing") == "nothing"


def test_of_many_the_nearest_come_first() -> None:
    names = [f"column {n}" for n in range(10_000)]
    said = listed(names, "columm 7731")
    assert said.startswith("column 7731, ") and len(said) < LONGEST_LIST + 30
    shown = said.split(" and ")[0].split(", ")
    assert said.endswith(f" and {len(names) - len(shown):,} more") and len(set(shown)) == len(shown)
    assert listed(names).startswith("column 0, column 1, ")


@given(st.lists(st.text(string.printable, max_size=300), max_size=60), st.text(max_size=300))
def test_it_is_short_whatever_the_names(names: list[str], near: str) -> None:
    assert len(listed(names, near)) < LONGEST_LIST + 30


def test_no_line_of_a_message_is_endless() -> None:
    """Whatever stands in it: the begin and the end say what is wrong, and what to do."""
    said = str(UserError(f"--to {'x' * 10**6} is unknown. Known: csv"))
    assert len(said) < 1500 and said.startswith("--to xxx") and said.endswith("is unknown. Known: csv")
    short = "a line\n" * 300
    assert (
        str(UserError(short)) == short and str(UserError("a", 1)) == str(Exception("a", 1)) and str(UserError()) == ""
    )


def test_a_wide_table_without_the_column(tmp_path: Path) -> None:
    columns = [f"{sign}{n}" for sign in string.ascii_lowercase for n in range(100)]
    table = tmp_path / "wide.csv"
    table.write_text(",".join(["user", "item", *columns]) + "\n" + ",".join(["1"] * (len(columns) + 2)) + "\n")
    with pytest.raises(UserError) as said:
        import_table(table, "user", "item", items=table, item_id="item", text=["q_55"], out=tmp_path / "out")
    assert len(str(said.value)) < 1000 and "more" in str(said.value)


def joined(node: ast.AST) -> Iterator[ast.expr]:
    """What `", ".join` and its like are given, anywhere below."""
    for one in ast.walk(node):
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "join":
            between = one.func.value
            if isinstance(between, ast.Constant) and between.value in (", ", ",", "; ", "\n", ""):
                yield one.args[0]


def messages() -> Iterator[tuple[str, str]]:
    """Module and what is joined in an error that is raised there, or in a text that stands in one."""
    for path in sorted(SOURCE.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            raised = [one for one in ast.walk(function) if isinstance(one, ast.Raise)]
            used = {one.id for node in raised for one in ast.walk(node) if isinstance(one, ast.Name)}
            for node in ast.walk(function):
                if isinstance(node, ast.Raise) or (
                    isinstance(node, ast.Assign) and used & {getattr(one, "id", "") for one in node.targets}
                ):
                    yield from ((path.relative_to(SOURCE).as_posix(), ast.unparse(arg)) for arg in joined(node))


def test_messages_list_by_the_one_helper() -> None:
    """No error joins what others have made but by `listed` and `several`. Names in capitals are rawrec's own."""
    found = {(module, what) for module, what in messages() if not what.isupper() and not what.endswith("]")}
    assert found == NEVER_MANY.keys()
