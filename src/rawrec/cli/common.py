"""What commands share: the apps that they belong to, options, printing."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from rawrec.errors import UserError

if TYPE_CHECKING:
    from rawrec.data.splits import SplitSpec

ORDER = [
    "import",
    "append",
    "validate",
    "inspect",
    "split",
    "train",
    "resume",
    "sweep",
    "evaluate",
    "compare",
    "recommend",
    "similar",
]
ORDER += ["report", "export"]


class Ordered(TyperGroup):
    """Commands in the order in which one needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


# Everything heavy is imported inside the commands, so that --help is instant.
app = typer.Typer(
    help="Train recommenders end to end from pictures, words and clicks.",
    epilog="Example: rawrec import synthetic --out data/shop && rawrec train em3 --data data/shop --out runs/em3",
    cls=Ordered,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
importing = typer.Typer(
    help="Make a dataset folder from your data.",
    epilog="Example: rawrec import table --interactions clicks.csv --user user --item item --out data/x",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(importing, name="import")

Out = Annotated[Path, typer.Option("--out", help="folder to write")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what rawrec wrote there before")]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for machines")]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="time_user | time_global | random_user | leave_one_out | column:<name> | new_items[:<field>]",
    ),
]
Ratios = Annotated[str | None, typer.Option("--ratios", help="train, valid and test shares (default: 80,10,10)")]
SplitSeed = Annotated[int | None, typer.Option("--split-seed", help="seed of a random split (default: 0)")]
Feature = Annotated[
    list[str] | None,
    typer.Option("--feature", metavar="COLUMN[=FIELD]", help="column of vectors, of the items; repeatable"),
]
Vectors = Annotated[
    list[str] | None,
    typer.Option(
        "--vectors", metavar="FIELD=FILE", help="vectors by item id, for a feature: table, .npz, .npy; repeatable"
    ),
]
RunArgument = Annotated[Path, typer.Argument(help="run folder")]
Data = Annotated[Path | None, typer.Option("--data", help="where the run's dataset is now, if it has moved")]
K = Annotated[int, typer.Option("-k", min=1, help="number of items")]


def console() -> Console:
    """Tables: as wide as the terminal, or wide enough for a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() != "utf-8", indent=1))


def tell(text: str, value: dict[str, Any], as_json: bool) -> None:
    print_json(value) if as_json else print(text)


def vector_files(words: list[str] | None) -> dict[str, str]:
    """Field -> file, as `--vectors` says."""
    found: dict[str, str] = {}
    for word in words or []:
        field, _, file = word.partition("=")
        if not field or not file:
            raise UserError(f"--vectors {word!r}: give FIELD=FILE, for example --vectors clip=clip.npz")
        if field in found:
            raise UserError(f"--vectors: {found[field]} and {file} are both to be the feature {field!r}: name one")
        found[field] = file
    return found


def split_spec(split: str | None, option: str, ratios: str | None, **given: Any) -> SplitSpec | None:
    """What `--split` asks for. Options that say nothing to its kind are refused."""
    from rawrec.data.splits import SplitSpec

    values = {name: value for name, value in given.items() if value is not None}
    if ratios is not None:
        try:
            shares = [float(part) for part in ratios.replace("/", ",").split(",")]
        except ValueError:
            shares = []
        if len(shares) != 3 or not all(math.isfinite(s) and s >= 0 for s in shares) or sum(shares) <= 0:
            raise UserError(f"--ratios {ratios!r}: give three numbers, for example 80,10,10")
        values["ratios"] = tuple(share / sum(shares) for share in shares)
    if split is None:
        if values:
            raise UserError(f"--{next(iter(values))} needs {option}, for example {option} random_user")
        return None
    kind, _, name = split.partition(":")
    if name:
        values["column" if kind == "column" else "field"] = name
    spec = SplitSpec.model_validate({"kind": kind, **values})
    idle = [key for key in values if key not in spec.settings()]
    if idle:
        raise UserError(f"{option} {split}: {idle[0]} means nothing to a split of this kind, leave it out")
    return spec
