"""The folder of a study: `study.yaml` (its settings), `encoders/` (those that were tuned, or learned in a first stage),
`runs/`, `logs/` (what each run said), `study.json` (everything), `tables.md`, `tables.tex`, `study.html`; and what is
said while it is made."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rawrec.config.records import Record
from rawrec.data.dataset import Dataset
from rawrec.files import write_text, yaml_text
from rawrec.report import plots
from rawrec.report.page import duration
from rawrec.studies import printing
from rawrec.studies.page import write_page
from rawrec.studies.table import Published, Table
from rawrec.training.processes import alone_in
from rawrec.training.state import write_json

SETTINGS = "study.yaml"
FOLDERS = ("runs", "logs", "encoders", "data", "read")
MADE = ("study.json", "tables.md", "tables.tex", "study.html")
Words = str | Sequence[str]


@dataclass(frozen=True)
class Study:
    """What a study found. found: what `study.json` holds."""

    path: Path
    found: dict[str, Any]
    tables: list[Table]
    notes: list[str]


@contextmanager
def begun(
    out: Path, cfg: Record, notes: Sequence[str], overwrite: bool, observe: Callable[..., None]
) -> Iterator[None]:
    """Inside, the folder is this study's alone and holds its settings; the notes are told. overwrite: what a study
    wrote there before is taken away. UserError, before anything runs, where what the page needs is not installed."""
    plots.loaded()
    with alone_in(out, SETTINGS, "study"):
        if overwrite:
            _empty(out)
        text = yaml_text(cfg.model_dump(mode="json"))
        write_text(out / SETTINGS, text)
        for note in notes:
            observe("note", text=note)
        yield


def _empty(out: Path) -> None:
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in MADE:
        (out / name).unlink(missing_ok=True)


def about(data: Dataset) -> dict[str, Any]:
    """What `study.json` says of the dataset."""
    return {
        "path": str(data.path.absolute()),
        "source": data.meta.source,
        "generated": data.meta.generated,
        "counts": data.meta.counts,
        "fingerprint": data.fingerprint(),
    }


def write(
    out: Path,
    title: str,
    tables: list[Table],
    papers: Mapping[int, Published],
    notes: list[str],
    found: dict[str, Any],
    pictures: Sequence[Mapping[str, Any]] = (),
) -> Study:
    """The results in all forms. pictures: as of `write_page`."""
    write_json(out / "study.json", found)
    write_text(out / "tables.md", printing.markdown(title, tables, papers, notes))
    write_text(out / "tables.tex", printing.latex(tables, papers))
    write_page(out / "study.html", title, tables, papers, notes, found, pictures)
    return Study(out, found, tables, notes)


def teller(console: Console) -> Callable[..., None]:
    """An observer that says a line about every run, and how long the others take if they are like those before."""
    started, made = time.monotonic(), 0

    def tell(event: str, **values: Any) -> None:
        nonlocal made
        if event == "note":
            text = values["text"]
        else:
            made += 1
            left = (values["total"] - values["done"]) * (time.monotonic() - started) / made
            ending = f"{values['metric']} {values['value']:.4f}" if values["value"] is not None else "finished"
            ending = f"failed: {values['reason']}" if values["reason"] else ending
            text = f"{values['done']} of {values['total']} runs: {values['what']}: {ending}"
            text += f" (about {duration(left)} left)" if values["done"] < values["total"] else ""
        console.print(text, markup=False, soft_wrap=True)

    return tell


def print_study(study: Study, console: Console) -> None:
    """The tables, what is to be known of them, and where they are."""
    printing.show(study.tables, study.notes, console)
    files = [name for name in MADE if (study.path / name).is_file()]
    console.print(f"\n{study.path}: {', '.join(files)}", markup=False, soft_wrap=True)
