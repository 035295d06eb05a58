"""What pages say is so: settings, metrics, options and names that they name are there, what they say is missing is
missing, what they count is as many, and the commands and calls of docs/tasks.md are the command line's and Python's."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

import rawrec
import rawrec.testing
from rawrec import cli
from rawrec.config.content import FieldConfig, FusionConfig, LoraConfig
from rawrec.config.finetune import FinetuneConfig
from rawrec.config.heads import RANKERS
from rawrec.config.lemur import LemurConfig
from rawrec.config.models import RETRIEVAL, model_names
from rawrec.config.resolution import parse_overrides, resolve
from rawrec.config.run import Config
from rawrec.errors import UserError
from test_pages import CODE, PAGES, ROOT, commands, text_of

DOCS = ROOT / "docs"
MAKING = DOCS / "making"
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")


def inline(page: Path) -> list[str]:
    """What stands between single backticks in a page's text."""
    return INLINE.findall(FENCED.sub("", text_of(page)))


# ------------------------------------------------------------------------------------------------------------ settings
def settings() -> set[str]:
    """Every setting by its dotted name; a field of the dataset is `<field>`."""
    models = {f"model.{key}" for record in (*RANKERS.values(), *RETRIEVAL.values()) for key in record.model_fields}
    lemur = {f"model.lemur.{key}" for key in LemurConfig.model_fields}
    fields = {f"content.<field>.{key}" for key in FieldConfig.model_fields}
    parts = {f"content.fusion.{key}" for key in FusionConfig.model_fields}
    parts |= {f"content.lora.{key}" for key in LoraConfig.model_fields}
    found = models | lemur | fields | parts | set(FinetuneConfig.model_fields) | {"content.item"}
    for key, field in Config.model_fields.items():
        record = field.annotation
        if isinstance(record, type) and issubclass(record, BaseModel):
            found |= {f"{key}.{name}" for name in record.model_fields}
    return found


KNOWN = settings()
NAMED = re.compile(r"(?<![\w./])(model|train|eval|data|bank|content)\.([a-z_<>*.]+[a-z_<>*])(?![\w(/])")
OF_EXAMPLES = {"model.alpha", "model.alfa", "model.masked_by", "model.contrast", "model.layers", "train.learning_rate"}
"""Settings of the packages in examples/, and one of which a page says that it is none."""
FILES = {"html", "db", "yaml", "json", "jsonl", "safetensors", "parquet", "npz", "md", "py", "csv", "txt", "log"}


def unknown_settings(page: Path) -> list[str]:
    found = []
    for words in inline(page):
        for part, rest in NAMED.findall(words):
            name = f"{part}.{rest}"
            if (
                rest.rpartition(".")[2] in FILES
                or name in KNOWN
                or name in OF_EXAMPLES
                or "*" in rest
                or rest[0] == "<"
            ):
                continue
            of_field = re.sub(r"^content\.[\w<>]+\.", "content.<field>.", name)
            group = any(known.startswith(f"{name}.") for known in KNOWN)
            if not (part == "content" and of_field in KNOWN) and not group and not hasattr(rawrec.Dataset, rest):
                found.append(name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_exist(page: Path) -> None:
    assert not unknown_settings(page)


def test_settings_that_are_none_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`train.epochs=3` and `train.epoch=3`, `content.poster.train=top:1`, `content.poster.trian`\n")
    assert unknown_settings(page) == ["train.epoch", "content.poster.trian"]


def trained(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Model and settings of each `rawrec train` in a page, if the model is ours."""
    for words in commands(page):
        if words[:1] == ["train"] and len(words) > 1 and words[1] in model_names():
            yield words[1], [word for word in words[2:] if re.match(r"[\w.<>]+=", word)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_of_commands_have_an_effect(page: Path) -> None:
    """Unknown ones, impossible values and those that would do nothing are refused, as they would be typed."""
    wrong = []
    for model, words in trained(page):
        try:
            resolve(model, parse_overrides(words), KINDS)
        except UserError as error:
            wrong.append(f"rawrec train {model} {shlex.join(words)}: {error}")
    assert not wrong


KINDS = {"image": "image", "poster": "image", "text": "text", "title": "text", "plot": "text", "description": "text"}
"""Fields of the datasets that pages speak of."""


# ------------------------------------------------------------------------------------------------------------- options
def all_options() -> set[str]:
    found, waiting = {"--help", "--version", "--install-completion", "--show-completion"}, [cli.app.group()]
    while waiting:
        command: Any = waiting.pop()
        found |= {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        waiting += getattr(command, "commands", {}).values()
    return found


OF_OTHERS = {"--logdir", "--to", "--no-deps", "--max-restarts", "--local-dir", "--repo-type", "--log-file", "--no-x"}
"""Options of other programs that pages name, and of a source that a page tells how to make."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_the_text_exist(page: Path) -> None:
    known = all_options() | OF_OTHERS
    texts = [words for words in inline(page) if "benchmarks/" not in words]
    found = [word for words in texts for word in re.findall(r"(?<![\w-])--[a-z][\w-]+", words)]
    own = set(re.findall(r"benchmarks/\w+\.py", text_of(page)))  # of a page of results: options of its benchmarks
    known |= {word for path in own for word in re.findall(r"--[a-z][\w-]+", (ROOT / path).read_text(encoding="utf-8"))}
    assert not [word for word in found if word not in known]


# -------------------------------------------------------------------------------------------------------------- Python
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_python_exist(page: Path) -> None:
    found = set(re.findall(r"\brawrec\.([A-Za-z_]+)\b(?!\.(?:py|md))", " ".join(CODE.findall(text_of(page)))))
    known = {*rawrec.__all__, "__version__", "__all__", "testing"}
    entry_points = {"models", "encoders", "fusions", "metrics", "sources", "losses"}
    rooms = {path.stem for path in (ROOT / "src" / "rawrec").iterdir()}
    assert not found - known - entry_points - rooms


OWN = set(re.findall(r"^::: rawrec\.(\w+)$", text_of(DOCS / "api" / "own.md"), re.M)) | {
    "RunStart",
    "StepRecord",
    "EpochRecord",
    "RunEnd",
}
"""Names that the first page of the reference does not list one by one."""


def test_the_reference_has_every_public_name() -> None:
    shown = re.findall(r"^::: (\S+)$", "\n".join(text_of(page) for page in (DOCS / "api").glob("*.md")), re.M)
    public = {f"rawrec.{name}" for name in rawrec.__all__}
    assert sorted(shown) == sorted(public | {f"rawrec.testing.{name}" for name in rawrec.testing.__all__})
    linked = set(re.findall(r"#(rawrec\.\w+)\)", text_of(DOCS / "api" / "index.md")))
    assert linked | {name for name in public if name.partition(".")[2] in OWN} == public


# --------------------------------------------------------------------------------------------------------------- tasks
TASKS = DOCS / "tasks.md"
SETTING = re.compile(r"(?:train|eval|model|content|data)\.[\w.]+=|paradigm=")
ROWS = [
    [cell.strip() for cell in row.strip("|").split("|")]
    for row in re.findall(r"^\|(?!---)(.+)\|$", text_of(TASKS), re.MULTILINE)
    if row.count("|") == 3 and "you want" not in row
]


def test_tasks_are_read() -> None:
    assert len(ROWS) >= 30 and all(len(row) == 4 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row[0])[:40])
def test_a_task(row: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    typed, calls = INLINE.findall(row[2]), INLINE.findall(row[3])
    assert typed or calls
    for words in map(shlex.split, typed):
        assert words[0] == "rawrec"
        command: Any = cli.app.group()
        words = words[1:]
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        monkeypatch.setattr(command, "callback", lambda **_: None)
        with click.Context(command) as context:
            command.parse_args(context, list(words))  # raises for what the command has not
        if settings := [word for word in words if SETTING.match(word)]:
            resolve(words[0] if words[0] in model_names() else "em3", parse_overrides(settings), KINDS)
    for call in calls:
        fits(call)
    if (count := row[1].partition(",")[0]) != "none" and len(typed) > 1:
        assert count in {str(len(typed)), "1"}  # 1: one of them


def fits(call: str) -> None:
    """Whether the arguments of `rawrec.f(...)` or `rec.f(...)` are those of the function."""
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    path = ast.unparse(node.func).split(".")
    target: Any = rawrec.Recommender if path[0] == "rec" else rawrec
    for name in path[1:]:
        target = getattr(target, name)
    signature = inspect.signature(target)
    own = [None] if path[0] == "rec" else []
    signature.bind(*own, *map(ast.literal_eval, node.args), **{one.arg: one.value for one in node.keywords if one.arg})


def test_calls_that_do_not_fit_are_found() -> None:
    with pytest.raises(TypeError):
        fits('rec.recommend("u1", top=3)')
    with pytest.raises(AttributeError):
        fits('rawrec.fit("em3")')


# -------------------------------------------------------------------------------------------------- what is said of us
def test_what_is_said_to_be_missing_is_missing() -> None:
    """Where a page lists what is not there, and it has come, the page has to change."""
    commands = cli.app.group().commands
    there = {
        "documentation site": (ROOT / "mkdocs.yml").exists(),
        "notebooks": (ROOT / "examples" / "notebooks").exists(),
        "loss curves": (ROOT / "tests" / "curves").exists(),
        "serving over HTTP": "serve" in commands,
        "online learning": "online" in commands,
        "online training": "online" in commands,
        "publishing": "versions" in commands,
        "data page": "--html" in {name for option in commands["inspect"].params for name in option.opts},
    }
    said = [
        *re.findall(r"^## Not there yet\n\n(.*?)\n\n", text_of(ROOT / "README.md"), re.DOTALL | re.MULTILINE),
        *re.findall(r"^Not there:\n\n(.*?)\n\n", text_of(DOCS / "development.md"), re.DOTALL | re.M),
    ]
    assert len(said) == 2
    for text in said:
        assert not [name for name, come in there.items() if come and name in text]


def test_counts_are_right() -> None:
    lines = {"pop", "random", "itemknn", "ease", "sasrec"}
    numbers = {"fourteen": 14, "ten": 10}
    papers = set(RETRIEVAL) - lines
    said = re.findall(r"(\w+) (?:retrieval models|from papers)", text_of(DOCS / "retrieval.md"))
    assert len(papers) in [numbers.get(word) for word in said]
    beside = re.search(
        r"(\d+) retrieval models from papers, (\d+) lines to judge by, (\d+) ranking heads",
        text_of(DOCS / "comparison.md"),
    )
    assert beside and [int(n) for n in beside.groups()] == [len(papers), len(lines), len(RANKERS)]
    named = re.search(r"BPR, LightGCN, VBPR, FREEDOM and \[(\w+)\s+others\]", text_of(ROOT / "README.md"))
    assert named and numbers[named[1]] == len(papers) - 4


def test_one_python_everywhere() -> None:
    wanted = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["requires-python"].removeprefix(">=")
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", DOCS / "versioning.md"):
        said = re.findall(r"Python (3\.\d+) ", text_of(page))
        assert said and set(said) == {wanted}, page.name


def test_every_page_of_docs_is_on_the_site() -> None:
    named = set(re.findall(r"^ +- ([\w/-]+\.md)\b", text_of(ROOT / "mkdocs.yml"), re.MULTILINE))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert pages <= named
    assert named - pages == {
        "index.md",
        "commands.md",
        "changelog.md",
        "contributing.md",
        "security.md",
        "model/index.md",
    }


# ------------------------------------------------------------------------------------------------- what makes the site
@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = [path.stem for path in MAKING.glob("*.py")]
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    monkeypatch.syspath_prepend(str(MAKING))
    yield
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


@pytest.mark.usefixtures("making")
def test_faults_of_a_site_are_found(tmp_path: Path) -> None:
    import checks

    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#part">b</a><img src="p.png" alt="a picture">')
    (tmp_path / "b.html").write_text('<h2 id="part">B</h2><a href="https://example.org">a link is no fetch</a>')
    (tmp_path / "p.png").write_bytes(b"")
    assert checks.faults(tmp_path) == []
    (tmp_path / "b.html").write_text(
        '<script src="https://example.org/x.js"></script><link rel="stylesheet" href="//fonts.example.org/f.css">'
        '<link rel="canonical" href="https://example.org/b"><a href="c.html">c</a><img src="p.png">'
    )
    (tmp_path / "s.css").write_text("@import 'https://example.org/s.css'; a { background: url(p.png) }")
    assert checks.faults(tmp_path) == [
        "a.html: b.html#part leads to a page without that part",
        "b.html: fetches https://example.org/x.js",
        "b.html: fetches //fonts.example.org/f.css",
        "b.html: the picture p.png has no words",
        "b.html: c.html leads nowhere",
        "s.css: fetches https://example.org/s.css",
    ]


@pytest.mark.usefixtures("making")
def test_every_model_has_a_page() -> None:
    import models

    told = {name: text_of(DOCS / name) for name in models.EXPLAINED}
    pages = models.pages(told)
    assert {f"model/{one.name}.md" for one in models.ours()} | {"model/index.md"} == set(pages)
    freedom = pages["model/freedom.md"]
    assert "rawrec train freedom" in freedom and "| `model.knn_k` | integer, >= 1 | `10` |" in freedom
    assert "(../retrieval.md#freedom)" in freedom and "The item graph is frozen before training" in freedom
    assert "It reads interactions alone." in pages["model/id.md"] and "features" in pages["model/em3.md"]
    for place, text in pages.items():
        for file, part in re.findall(r"\]\(\.\./([\w-]+\.md)(?:#([\w-]+))?\)", text):
            anchors = {models.slug(heading) for heading in re.findall(r"^#+ (.*)$", text_of(DOCS / file), re.MULTILINE)}
            assert not part or part in anchors, f"{place}: {file}#{part}"
    listed = set(itertools.chain.from_iterable(models.navigation().values()))
    assert listed == set(pages) - {"model/index.md"}


@pytest.mark.usefixtures("making")
def test_every_command_is_on_its_page() -> None:
    import commands

    text = commands.page()
    alone = {name for name, command in cli.app.group().commands.items() if not hasattr(command, "commands")}
    assert set(re.findall(r"^## rawrec (\S+)$", text, re.M)) == alone
    assert "## rawrec import table\n\n```text\nUsage: rawrec import table [OPTIONS]" in text


@pytest.mark.usefixtures("making")
def test_formulas_and_docstrings() -> None:
    pytest.importorskip("latex2mathml", reason="of the extra docs")
    pytest.importorskip("griffe", reason="of the extra docs")
    import docstrings
    import formulas

    page = formulas.as_mathml('<p><span class="arithmatex">\\(x_i \\le k\\)</span> and <code>\\(</code></p>')
    assert page.startswith("<p><math") and "<msub><mi>x</mi><mi>i</mi></msub>" in page and "<code>\\(</code>" in page
    text = "Train.\n\npreset,\nmore: a name. out: a folder, not preset.\n\n>>> train(\n...     1\n... )\n2\n\nMore.\n"
    assert docstrings.shown(text, ["preset", "out", "more"]) == (
        "Train.\n\n**preset**,\n**more**: a name. **out**: a folder, not preset.\n\n"
        "```pycon\n>>> train(\n...     1\n... )\n2\n```\n\nMore.\n"
    )


def test_the_wording_of_llms_txt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(MAKING))
    import llms

    page = "# A title\n\n<!-- test -->\n```bash\nrawrec\n```\n\n| a | b |\n\n"
    page += "See [the page](x.md) of **all**: it has\nmore. And more.\n"
    assert llms.first(page) == "See the page of all: it has more."
    assert "<!--" not in llms.plain(page)
    assert llms.places(["a.md", {"B": ["b.md", {"C": "c.md"}]}]) == ["a.md", "b.md", "c.md"]
