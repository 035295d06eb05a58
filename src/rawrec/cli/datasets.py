"""Commands for a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rawrec.cli.common import Json, Ratios, app, console, print_json, split_spec, tell


@app.command(epilog="Example: rawrec split data/ml --name new0 --by new_items:poster --share 0.2 --fold 0")
def split(
    dataset: Annotated[Path, typer.Argument(help="dataset folder")],
    name: Annotated[str, typer.Option(help="name of the new split; train with data.split=<name>")],
    by: Annotated[str, typer.Option(help="as --split of the importers")],
    ratios: Ratios = None,
    seed: Annotated[int | None, typer.Option(help="seed of a random split (default: 0)")] = None,
    share: Annotated[float | None, typer.Option(help="new_items: share of the items held out (default: 0.2)")] = None,
    fold: Annotated[int | None, typer.Option(help="new_items: which of the disjoint folds (default: 0)")] = None,
    folds: Annotated[int | None, typer.Option(help="new_items: number of folds (default: 5)")] = None,
    as_json: Json = False,
) -> None:
    """Store a further split beside a dataset's own."""
    from rawrec.data.dataset import Dataset

    data = Dataset.open(dataset)
    spec = split_spec(by, "--by", ratios, seed=seed, share=share, fold=fold, folds=folds)
    assert spec is not None
    data.add_split(name, spec)
    stored = Dataset.open(dataset).meta.splits[name]
    tell(f"{name}: {stored['statement']}", {"name": name, **stored}, as_json)


@app.command(epilog="Example: rawrec inspect data/x")
def inspect(dataset: Annotated[Path, typer.Argument(help="dataset folder")], as_json: Json = False) -> None:
    """Show counts, coverage per modality, buckets and problems."""
    from rawrec.data.inspect import inspect as work
    from rawrec.data.inspect import print_inspection

    found = work(dataset)
    if as_json:
        print_json(found)
    else:
        print_inspection(found, console())
