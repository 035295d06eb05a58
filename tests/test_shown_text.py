"""Text that leaves: what others have written commands neither a terminal nor a table."""

from __future__ import annotations

import ast
import io
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

import rawrec
from rawrec import shown
from rawrec.report.page import _shown

SEED = 3
EVIL = "\x1b[2J\x1b]0;mine\x07 \x9b31m \u202egpj.exe\u2066 | a \\ b\r\n\n\\input{x}"
EVIL += " <img src=x> [l](http://x) ![p](x) *b* `c` & $ # % _u_"
SIGNS = "ab |\\`*_{}[]<>#+-.!~&$%^\"'/:@\n\r\t\x00\x1b\x9b\x7f\u202e\u2028é用😀"


def samples() -> list[str]:
    rng = random.Random(SEED)
    return [EVIL, *("".join(rng.choices(SIGNS, k=rng.randrange(1, 30))) for _ in range(300))]


def test_control_characters_are_signs() -> None:
    assert shown.visible("a\x1b[31mb\x9bc\u202ed\x7f\n\te") == "a␛[31mb<U+009B>c<U+202E>d␡\n\te"
    assert shown.line("a\nb\tc") == "a␊b␉c" and shown.visible("用户 é 😀") == "用户 é 😀"
    for text in samples():
        assert not shown.CONTROL.search(shown.visible(text)) and len(shown.line(text).splitlines()) <= 1


def test_one_of_a_kind_is_no_several() -> None:
    assert [shown.counted(n, "item") for n in (0, 1, 2, 1234)] == ["0 items", "1 item", "2 items", "1,234 items"]
    assert shown.counted(1, "entry", "entries") == "1 entry" and shown.counted(3, "entry", "entries") == "3 entries"


def test_no_text_breaks_a_table_of_markdown() -> None:
    for text in samples():
        made = shown.markdown(text)
        assert "\n" not in made and not re.search(r"(?<!\\)(\\\\)*[|<>`*\[\]!]", made), made
        assert re.sub(r"\\(.)", r"\1", made) == shown.line(text)
    assert shown.markdown("www.x https://x a_b _c_") == r"www\.x https:\//x a_b \_c\_"


def test_no_text_commands_latex() -> None:
    for text in samples():
        made = shown.latex(text)
        plain = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]", "", made)
        assert "\n" not in made and not re.search(r"[\\~^&%$#_{}]", plain), made


def test_json_says_what_it_said() -> None:
    for text in samples():
        made = shown.json_text(json.dumps({text: text}, ensure_ascii=False))
        assert json.loads(made) == {text: text} and not shown.CONTROL.search(made)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_console_keeps_its_own_commands_alone(terminal: bool) -> None:
    console, file = shown.console(width=300), io.StringIO()
    console.file, console._force_terminal = file, terminal
    table = Table("a", "[b]b[/b]")
    for text in samples()[:40]:
        table.add_row(text.replace("[", "("), "x")
    console.print(table)
    console.print(EVIL, markup=False)
    left = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).replace("\n", "") if terminal else file.getvalue()
    assert not shown.CONTROL.search(left)


def test_pages_show_signs_and_load_nothing() -> None:
    """One page's frame has the policy and the script; all pages stand in it, and what they bring else is data."""
    assert _shown("a\x1b") == "a␛" and _shown(1) == 1
    folder = Path(rawrec.__file__).parent
    text = (folder / "report" / "base.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy and policy[1].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert "'unsafe-inline'" not in policy[1].partition("script-src")[2]
    assert re.findall(r"<script[^>]*>.*?</script>", text) == ["<script>{{ script }}</script>"]  # named by its hash
    pages = [path for room in ("report", "studies") for path in (folder / room).glob("*.html")]
    assert {path.name for path in pages} >= {"base.html", "macros.html", "report.html", "study.html"}
    for path in pages:
        text = path.read_text()
        assert not re.search(r"\son[a-z]+=", text) and "| safe" not in text
        if path.name not in ("base.html", "macros.html") and not path.name.startswith("part_"):
            assert text.startswith('{% extends "base.html" %}') and "Content-Security-Policy" not in text
            scripts = re.findall(r"<script.*?</script>", text, re.DOTALL)
            assert all(re.fullmatch(r'<script type="application/json" id="\w+">{{ \w+ \| tojson }}</script>', one)
                       for one in scripts)  # fmt: skip


def run(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **options.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.run(
        [sys.executable, "-m", "rawrec", *words], env=environment, stderr=subprocess.PIPE, check=False, timeout=120,
        **options,  # type: ignore[call-overload]
    )  # fmt: skip


def test_printing_never_fails() -> None:
    """In an encoding without the signs, to a closed stream, to one that nobody reads, and of a path with commands."""
    done = run(
        "inspect", "Żółw 用户 \x1b[2J\udcff", stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    )
    assert done.returncode == 2 and b"does not exist" in done.stderr
    assert b"Traceback" not in done.stderr and b"\x1b" not in done.stderr
    closed = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'rawrec', 'models'])"
    done = subprocess.run([sys.executable, "-c", closed], stderr=subprocess.PIPE, check=False, timeout=120)
    assert done.returncode in (0, 1) and done.stderr == b""
    read, write = os.pipe()
    os.close(read)
    done = run("settings", "train", stdout=write)
    os.close(write)
    assert done.stderr == b"" and done.returncode == 1


def test_nothing_prints_but_through_the_door() -> None:
    """And nothing makes a console of its own."""
    source, found = Path(rawrec.__file__).parent, set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("print", "Console"):
                found.add(path.relative_to(source).as_posix())
    assert found == {"shown.py", "config/__main__.py", "training/processes.py"}  # a page; a line for the starter
