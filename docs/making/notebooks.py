"""The notebooks of examples/notebooks as pages of the site."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jupytext

FOLDER, INDEX = "examples/notebooks", "notebooks/index.md"


class Notebook(NamedTuple):
    """A notebook in the form `py:percent`."""

    file: Path

    @property
    def place(self) -> str:
        return f"notebooks/{self.file.stem}.md"

    def page(self) -> str:
        """Its cells in Markdown, and how to run it."""
        cells = jupytext.read(self.file).cells
        parts = [cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```" for cell in cells]
        name = f"{FOLDER}/{self.file.name}"
        run = (
            f"A notebook of the repository: `python {name}` runs it as it is, `jupytext --to notebook {name}` makes an "
            "`.ipynb` of it (`pip install jupytext`)."
        )
        title, _, rest = parts[0].partition("\n")
        return "\n\n".join([title, run, rest.strip(), *parts[1:]]) + "\n"


def all_of(root: Path) -> list[Notebook]:
    return [Notebook(path) for path in sorted((root / FOLDER).glob("*.py"))]


def place_of(file: str) -> str | None:
    """Where the site has a notebook, or the folder of all, by its path in the repository."""
    if file == FOLDER:
        return INDEX
    path = Path(file)
    return f"notebooks/{path.stem}.md" if str(path.parent) == FOLDER and path.suffix == ".py" else None


def index(root: Path) -> str:
    """The page that lists them."""
    lines = [
        "# Notebooks",
        "",
        "Each runs anywhere, on data that it makes, within half a minute, and writes to a temporary folder.",
        "",
    ]
    for one in all_of(root):
        title, _, rest = jupytext.read(one.file).cells[0].source.partition("\n")
        lines.append(f"- [{title.lstrip('# ')}]({one.file.stem}.md): {' '.join(rest.split())}")
    return "\n".join(lines) + "\n"
