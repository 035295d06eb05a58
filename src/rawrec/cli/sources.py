"""How a source becomes a command of `rawrec import`: ours, and those of other packages."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer
from rich.table import Table
from rich.text import Text

from rawrec import plugins
from rawrec.cli.common import App, Group, app, columns_of, console, print_json, split_spec, vector_files
from rawrec.cli.options import AllowEmpty, Json, Out, Overwrite, Ratios, Split, SplitSeed
from rawrec.cli.pictures import parameters, picture_options, with_signature
from rawrec.errors import UserError
from rawrec.shown import say

if TYPE_CHECKING:
    from rawrec.config.sources import SourceOptions

Work = Callable[..., Any]
"""Reads a source and writes a dataset, which it returns."""
COLUMN_LISTS = {"context_category", "context_numeric", "user_category", "user_numeric", "columns", "item_columns"}
"""Options whose values are columns between commas."""
OWN = "own_"
"""Before the names of the options of an own source, which may be any."""


class Sources(Group):
    """Our sources, and those of installed packages, which are loaded when they are asked for by name."""

    def list_commands(self, ctx: Any) -> list[str]:
        ours = super().list_commands(ctx)
        return [*ours, *sorted(name for name in plugins.installed()["sources"] if name not in ours)]

    def summary(self, name: str) -> str:
        return super().summary(name) if name in self.commands else f"Of {', '.join(plugins.bringers('sources', name))}."

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name.startswith("-") or (cmd_name in self.commands and cmd_name not in plugins.installed()["sources"]):
            return super().get_command(ctx, cmd_name)
        from rawrec.config.sources import source_entry, source_names
        from rawrec.config.wording import unknown

        entry = source_entry(cmd_name)
        if entry is None:
            raise UserError(unknown("source", cmd_name, source_names()))
        return super().get_command(ctx, cmd_name) if entry.record is None else own_command(cmd_name, entry.record)


importing = App(
    help="Make a dataset folder from your data.",
    epilog="Example: rawrec import table --interactions clicks.csv --user user --item item --out data/x",
    cls=Sources,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(importing, name="import")


def source(
    name: str, example: str, preset_split: str | None = None, group: App = importing
) -> Callable[[Callable[..., Work]], Work]:
    """Make a function the command `rawrec import NAME`.

    Its parameters are the options that the source has of its own; those that all sources have are added here: where
    to write, the split, pictures by address. It gives the function that does the work, which it imports only then, so
    that --help is instant. That gets the value of every option under the name of its parameter; for what is not given
    its own defaults hold.

    preset_split: how `--preset` divides where `--split` does not say.
    """

    def add(command: Callable[..., Work]) -> Work:
        def run(*, as_json: bool, split: str | None, ratios: str | None, split_seed: int | None, **given: Any) -> None:
            if split is None and given.get("preset"):
                split = preset_split
            given["split"] = split_spec(split, "--split", ratios, seed=split_seed)
            if "vectors" in given:
                given["vectors"] = vector_files(given["vectors"])
            for name in COLUMN_LISTS & given.keys():
                given[name] = columns_of(given[name])
            work = command(**{parameter.name: given[parameter.name] for parameter in own})
            imported(work(**{name: value for name, value in given.items() if value is not None}), as_json)

        own = parameters(command)
        shared = {parameter.name: parameter for parameter in parameters(_shared)}
        needed = [parameter for parameter in own if parameter.default is parameter.empty]
        options = [*needed, shared.pop("out"), *(p for p in own if p not in needed), *shared.values()]
        with_signature(run, options, command)
        return group.command(name, epilog=f"Example: {example}")(picture_options(run))

    return add


def _shared(
    out: Out,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    allow_empty: AllowEmpty = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """The options of every source but the generated shop."""


def imported(data: Any, as_json: bool) -> None:
    """Tell what an import has read, kept and skipped."""
    from rawrec.data.import_report import ImportReport

    path = data.path / "import.json"
    if as_json:
        print_json({"dataset": str(data.path), **json.loads(path.read_text())})
        return
    ImportReport.load(path).print_table(console())
    say(f"wrote {data.path}; look at it with: rawrec inspect {data.path}")


# ------------------------------------------------------------------------------------------------- of other packages
def own_command(name: str, record: type[SourceOptions]) -> Any:
    """The command of a source that rawrec has not: an option for every field of its record."""
    from rawrec.config.sources import option

    def command(**_: Any) -> Work:
        def work(*, out: Any, **given: Any) -> Any:
            from rawrec.sources.own import import_own

            options = {key.removeprefix(OWN): value for key, value in given.items() if key.startswith(OWN)}
            shared = {key: value for key, value in given.items() if not key.startswith(OWN)}
            return import_own(name, options, out=out, **shared)

        return work

    fields = record.model_fields
    options = [_parameter(key, field) for key, field in fields.items()]
    command.__dict__["__signature__"] = inspect.Signature(options)
    command.__name__, command.__doc__ = name, inspect.cleandoc(record.__doc__ or "")
    needed = [f"--{option(key)} {key.upper()}" for key, field in fields.items() if field.is_required()]
    alone = App(add_completion=False, rich_markup_mode=None)
    source(name, " ".join(["rawrec import", name, *needed, "--out data/x"]), group=alone)(command)
    return typer.main.get_command(alone)


def _parameter(key: str, field: Any) -> inspect.Parameter:
    """A field of a record as an option. Its values are words, which the record makes into what they are."""
    from rawrec.config.page import values_of, written
    from rawrec.config.sources import option

    kind, needed = field.annotation, field.is_required()
    many = any(get_origin(part) is list for part in (kind, *get_args(kind)))
    flag = bool in (kind, *get_args(kind)) and not many
    said = [] if flag else [values_of(field).replace("`", "")]
    default = None if needed else field.get_default(call_default_factory=True)
    if default not in (None, []):
        said.append(f"default: {written(default if isinstance(default, bool | int | float | list) else str(default))}")
    info = typer.Option(
        f"--{option(key)}/--no-{option(key)}" if flag else f"--{option(key)}",
        help=" ".join(filter(None, [field.description, f"({'; '.join(said)})" if said else ""])),
        metavar=None if flag else "VALUE",
    )
    word: Any = bool if flag else list[str] if many else str
    return inspect.Parameter(
        OWN + key,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if needed else None,
        annotation=Annotated[word if needed else word | None, info],
    )


@app.command("sources", epilog="Example: rawrec sources")
def list_sources(as_json: Json = False) -> None:
    """List all sources, those of installed packages too."""
    from rawrec.config.listing import own_sources

    ours = importing.group()
    found = [
        {"name": name, "what": " ".join(ours.summary(name).split()), "package": "rawrec"} for name in ours.commands
    ]
    found += [line._asdict() for line in own_sources()]
    if as_json:
        print_json(found)
        return
    table = Table("source", "what", "package", box=None, pad_edge=False)
    for line in found:
        table.add_row(*map(Text, line.values()))
    console().print(table)
