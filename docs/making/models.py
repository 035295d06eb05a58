"""A page for each model, made of its docstring and of the record of its settings, and the list of all."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import rawrec
from rawrec.config.listing import Model, models, page
from rawrec.config.models import MODELS, model_entry
from rawrec.config.page import Setting
from rawrec.config.ranking import ABOUT, PRESETS

EXPLAINED = ("retrieval.md", "ranking.md", "lemur.md", "models.md")
"""Pages of docs/ that tell models' equations, under headings that begin with their names."""
SOURCE = Path(rawrec.__file__).resolve().parent.parent
KINDS = {"ranking": "Ranking models", "retrieval": "Retrieval models"}


def ours() -> list[Model]:
    """The models of rawrec itself, whatever is installed beside it."""
    return [model for model in models() if model.package == "rawrec"]


def navigation() -> dict[str, list[str]]:
    return {title: [f"model/{one.name}.md" for one in ours() if one.kind == kind] for kind, title in KINDS.items()}


def pages(explained: Mapping[str, str]) -> dict[str, str]:
    """The pages by their place on the site. explained: the texts of `EXPLAINED`."""
    found = {f"model/{model.name}.md": _page(model, explained) for model in ours()}
    return {"model/index.md": _index(), **found}


def _index() -> str:
    lines = [
        "# All models",
        "",
        "A **ranking model** judges one impression: how likely is a click? A **retrieval model** scores the whole",
        "catalogue for a user at once.",
        "`rawrec models` prints this list, with those of [packages of your own](../adding-a-model.md).",
    ]
    for kind, title in KINDS.items():
        lines += ["", f"## {title}", "", "| model | what it is |", "|---|---|"]
        lines += [f"| [`{one.name}`]({one.name}.md) | {_line(one)} |" for one in ours() if one.kind == kind]
    return "\n".join(lines) + "\n"


def _line(model: Model) -> str:
    return page(model.name, {}).what.partition("\n")[0] if model.name in PRESETS else model.what


def _page(model: Model, explained: Mapping[str, str]) -> str:
    told = page(model.name, {})
    head = PRESETS.get(model.name, (model.name, ""))[0]
    what = told.what
    if model.name not in PRESETS:  # a head alone is no preset, whatever its defaults make of it
        what = next((what.removeprefix(about).strip() for about in ABOUT.values() if what.startswith(about)), what)
    lines = [f"# {model.name}", "", what, ""]
    if where := _where(model.name, explained) or _where(head, explained):
        title = re.findall(r"^# (.*)$", explained[where.partition("#")[0]], re.MULTILINE)[0]
        lines += [f"Its equations, and where paper and code differ: [{title}](../{where}).", ""]
    lines += ["```bash", f"rawrec train {model.name} --data data/shop --out runs/{model.name}", "```", ""]
    entry = model_entry(head)
    assert entry is not None
    given = {"content": PRESETS[model.name][1]} if model.name in PRESETS else {}
    reads = getattr(MODELS[head].record(name=head, **given), "reads_features", None)
    if reads is not None:
        needs = "interactions and features of the items" if reads() else "interactions alone"
        lines += [f"It reads {needs}.", ""]
    lines += ["## In its own words", "", *_docstrings(str(entry.what)), ""]
    lines += ["## Its settings", "", *_table(told.settings), ""]
    if told.shared:
        lines += ["## Settings of all models that it sets", ""]
        lines += ["| setting | value |", "|---|---|"]
        lines += [f"| `{key}` | `{value}` |" for key, value in told.shared.items()]
        lines += [""]
    lines += ["All others are on the page of [settings](../settings.md)."]
    return "\n".join(lines) + "\n"


def _table(settings: list[Setting]) -> list[str]:
    lines = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    for name, values, default, meaning in settings:
        bar = "\\|"
        lines.append(f"| `{name}` | {values.replace('|', bar)} | `{default}` | {meaning.replace('|', bar)} |")
    return lines


def _where(name: str, explained: Mapping[str, str]) -> str | None:
    """The page and heading that tell of a model: `retrieval.md#freedom`."""
    for file, text in explained.items():
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
            if re.match(rf"`?{re.escape(name)}\b", heading):
                return f"{file}#{slug(heading)}"
    return {"em3": "models.md", "id": "models.md", "dot_mlp": "models.md"}.get(name)


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub and the site name it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _docstrings(place: str) -> list[str]:
    """What the model's file and class say of themselves. place: `module:Class`."""
    module, _, name = place.partition(":")
    tree = ast.parse((SOURCE / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8"))
    said = [ast.get_docstring(tree)]
    said += [ast.get_docstring(node) for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return ["\n\n".join(text for text in said if text), "", f"Source: `src/{module.replace('.', '/')}.py`"]
