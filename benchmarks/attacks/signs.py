"""Names and titles that a terminal, Markdown, LaTeX, HTML or a table takes for commands."""

from __future__ import annotations

import csv
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa

from attacks.engine import Fault, Place, child, command, message, sound

PARTS = [
    "\x1b[2J", "\x1b]0;x\x07", "\x1b]8;;http://x\x1b\\", "\x9b2J", "\x90x\x9c", "\r", "\n", "\t", "\x7f",
    "\x08" * 5, "\u202e", "\u2066", "\u2028", "\u200f", "\ufeff", "\u061c", "\ufff9",
    "<script>alert(1)</script>", "<img src=x onerror=y>", "</td></table>", "<!--", "]]>", "&lt;",
    "&#x3c;b&#x3e;", "' onmouseover='x", "\" style=\"x", "javascript:x", "<svg/onload=x>", "|", "`", "**x**",
    "__x__", "_", "[a](http://x)", "![a](http://x)", "<http://x>", "http://x.y", "www.x.y", "~~x~~", "# x",
    "- x", "\\", "\\input{x}", "\\write18{x}", "$x$", "%", "&", "#", "_", "{", "}", "~", "^", "^^5c", "\\\\",
    "=1+1", "+1", "@SUM(A1)", "-1", "=cmd|' /C calc'!A0", ",", ";", '"', "\"\"", "'", "[bold]", "[/]",
    "[link=x]y[/link]", "{{x}}", "{%x%}", "${x}", "%s%n", "\\ud800", "😀", "é", "\u0301" * 40, "x" * 300, " ",
    "  ", "a", "Title", "null", "NaN", "0", "../../x", "/etc",
]  # fmt: skip
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]")


def payload(rng: Any, least: int = 1) -> str:
    return "".join(rng.choice(PARTS) for _ in range(rng.randrange(least, 5)))


def texts(place: Place) -> None:
    """The functions of the door, judged by readers that are not ours."""
    from rich.table import Table
    from rich.text import Text

    from rawrec import shown

    for _ in range(10):
        text = payload(place.rng)
        if CONTROL.search(shown.visible(text)) or re.search(r"[\n\t]", shown.line(text)):
            raise Fault(f"visible: {text!r}")
        _markdown(text, shown.markdown(text), shown.line(text))
        _latex(text, shown.latex(text))
        file = io.StringIO()
        table = Table("a")
        table.add_row(Text(text))
        console = shown.console(file=file, force_terminal=place.rng.random() < 0.5, width=200)
        console.print(table)
        said = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
        if CONTROL.search(said) or (not console.is_terminal and "\x1b" in file.getvalue()):
            raise Fault(f"terminal: {text!r}")


def _markdown(text: str, escaped: str, wanted: str) -> None:
    from markdown_it import MarkdownIt

    tokens = (
        MarkdownIt("commonmark", {"html": True})
        .enable(["table", "strikethrough"])
        .parse(f"| a |\n| --- |\n| {escaped} |\n")
    )
    kinds = [token.type for token in tokens]
    cells = [token for token in tokens if token.type == "inline"]
    inner = [one for cell in cells for one in cell.children or []]
    strange = {one.type for one in inner} - {"text", "text_special"}
    said = "".join(one.content for cell in cells[1:] for one in cell.children or [])
    if "table_open" not in kinds or strange or said.split() != wanted.split():
        raise Fault(f"Markdown: {text!r} becomes {strange} {said[:100]!r}")


def _latex(text: str, escaped: str) -> None:
    rest = re.sub(r"\\(?:[&%$#_{}]|textbackslash\{\}|textasciitilde\{\}|textasciicircum\{\})", "", escaped)
    if re.search(r"[\\&%$#_{}~^\n\r]", rest):
        raise Fault(f"LaTeX: {text!r} becomes {escaped[:100]!r}")


class Page(HTMLParser):
    """What a page would do."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            outside = name in ("src", "href", "xlink:href", "action") and not (value or "").startswith(
                ("#", "data:image/")
            )
            if name.startswith("on") or outside or tag in ("iframe", "object", "embed", "base", "form"):
                self.wrong.append(f"{tag} {name}={value}"[:200])


def commands(place: Place) -> None:
    """A shop and runs with such names, through the command line, the page and the tables."""
    rng, here = place.rng, place.here
    folder = re.sub(r"[/\0]", "", payload(rng))[:60].strip(". ") or "x"
    run = here / folder

    def make() -> None:
        import json

        import rawrec

        users = [f"{number}{payload(rng, 0)}"[:200] for number in range(4)]
        items = [f"{number}{payload(rng, 0)}"[:200] for number in range(6)]
        (here / "names.json").write_text(json.dumps([users, items]))
        rows = [
            (user, item, 10**9 + number) for number, (user, item) in enumerate((u, i) for u in users for i in items)
        ]
        clicks = pa.table({"u": [r[0] for r in rows], "i": [r[1] for r in rows], "t": [r[2] for r in rows]})
        books = pa.table({"i": items, "title": [payload(rng) for _ in items], "kind": [payload(rng) for _ in items]})
        rawrec.import_table(
            clicks,
            "u",
            "i",
            time="t",
            items=books,
            item_id="i",
            text=["title"],
            category=["kind"],
            out=here / "data",
            progress=False,
        )
        settings = {
            "train.epochs": 1,
            "train.threads": 1,
            "train.device": "cpu",
            "eval.topk": [2],
            "train.metric": "recall@2",
        }
        rawrec.train("bpr", here / "data", run, settings)
        shutil.copytree(run, here / "other")

    made = sound(child(place, make))
    if made.code:
        return  # names that an import refuses, with a message
    import json

    users, items = json.loads((here / "names.json").read_text())
    user, item = rng.choice(users), rng.choice(items)
    words: list[list[Any]] = [
        ["recommend", run, "--user", user, "-k", 3], ["similar", run, "--item", item, "-k", 3],
        ["inspect", here / "data"],
        ["validate", here / "data"], ["runs", here], ["recommend", run, "--user", payload(rng)],
        ["compare", run, here / "other"],
        ["train", payload(rng), "--data", here / "data", "--out", here / "n"], ["evaluate", run],
        ["recommend", here / payload(rng).replace("\0", ""), "--user", "x"],
    ]  # fmt: skip
    for one in rng.sample(words, 2):
        words_given = [str(word).replace("\0", "").encode("utf-8", "replace").decode() for word in one]
        if any(word.startswith("-") for word in words_given[1:2]):
            continue
        ended = sound(child(place, command(*words_given)))
        if found := CONTROL.search(ended.out + ended.err):
            raise Fault(f"{words_given[0]} prints {found[0]!r}")

    def rest() -> None:
        _pages(place, run, items)

    ended = child(place, rest)
    if "Fault: " in ended.err:
        raise Fault(ended.err.rpartition("Fault: ")[2].strip())
    sound(ended)


def _pages(place: Place, run: Path, items: list[str]) -> None:
    import rawrec
    from rawrec.report import build_report, tables

    here = place.here
    if place.rng.random() < 0.5:
        page = Page()
        build_report(run, against=here / "other", out=here / "page.html")
        page.feed((here / "page.html").read_text())
        if page.wrong or page.scripts != 1:
            raise Fault(f"page: {page.scripts} scripts, {page.wrong}")
    served = rawrec.Recommender.load(run)
    if message(lambda: served.recommend_all(here / "lists.csv", k=2)) is None:
        with (here / "lists.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        if not {row[1] for row in rows[1:]} <= {*items} and not {row[2] for row in rows[1:]} <= {*items}:
            raise Fault("the lists have other ids")
    found: list[Any] = []
    groups = {payload(place.rng).replace("\0", ""): [run], "b": [here / "other"]}
    if message(lambda: found.append(rawrec.compare(groups=groups))) is None:
        text = tables.markdown(found[0])
        lines = text.partition("\n\n")[0].splitlines()
        if len(lines) != 4 or any(re.search(r"(?<!\\)<|(?<!\\)!\[", line) for line in lines):
            raise Fault(f"Markdown: {text[:300]!r}")
        latex = tables.latex(found[0])
        if r"\input" in latex or r"\write" in latex or CONTROL.search(latex + text):
            raise Fault(f"LaTeX: {latex[:300]!r}")
