"""What commands share: the apps that they belong to, what becomes of their options, printing."""

from __future__ import annotations

import inspect
import json
import math
import platform
import sys
from collections.abc import Iterator, Mapping
from copy import copy
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup, TyperOption

from rawrec import __version__, shown
from rawrec.errors import UserError
from rawrec.shown import json_text, say

if TYPE_CHECKING:
    from rawrec.data.splits import SplitSpec

ORDER = [
    "import",
    "append",
    "validate",
    "inspect",
    "split",
    "convert",
    "encode",
    "finetune",
    "train",
    "resume",
    "finish",
    "runs",
    "sweep",
    "evaluate",
    "compare",
    "study",
    "recommend",
    "search",
    "similar",
]
ORDER += [
    "report",
    "export",
    "publish",
    "online",
    "versions",
    "rollback",
    "serve",
    "browse",
    "models",
    "sources",
    "settings",
]


class Once(TyperCommand):
    """A command that refuses an option given twice where it takes one value, instead of dropping the first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(param.name == "overrides" for param in self.params):
            self.hint_at_settings(args)
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for param in given:
            if isinstance(param, TyperOption) and not param.multiple and given.count(param) > 1:
                raise UserError(f"{'/'.join([*param.opts, *param.secondary_opts])} is given twice: give it once")
        return super().parse_args(ctx, args)

    def hint_at_settings(self, args: list[str]) -> None:
        """UserError for a setting that is given as an option, or with spaces around its equals sign."""
        known = {name for param in self.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
        for place, word in enumerate(args):
            option, equals, value = word.partition("=")
            following = args[place + 1] if place + 1 < len(args) else ""
            unknown = option.startswith("--") and option != "--" and option not in known
            if unknown and (name := _setting_of(option[2:], self.name or "")):
                given = value if equals else "VALUE" if following.startswith("-") else following or "VALUE"
                raise UserError(f"{option} is no option: settings stand behind as key=value, {name}={given}")
            if word == "=" or (word.startswith("=") and place):
                key = args[place - 1] if place else "KEY"
                raise UserError(f"{key} {word}: write it without spaces, {key}={word[1:] or following or 'VALUE'}")
            if word.endswith("=") and word.count("=") == 1 and "." in word and following and "=" not in following:
                raise UserError(f"{word} {following}: write it without spaces, {word}{following}")


def _setting_of(word: str, command: str) -> str | None:
    """The setting that an unknown option `--word` of a command stands for, with its dots."""
    from rawrec.config.finetune import FinetuneConfig
    from rawrec.config.online import PREFIX, OnlineConfig
    from rawrec.config.validation import elsewhere

    name = word.replace("-", "_")
    if command == "finetune":
        return name if name in FinetuneConfig.model_fields else None
    if command == "online":
        return (
            f"{PREFIX}{name.removeprefix(PREFIX)}" if name.removeprefix(PREFIX) in OnlineConfig.model_fields else None
        )
    return elsewhere(name)


class Group(TyperGroup):
    """Commands with their summaries, none of which is cut off."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join(self.summary(name).split())) for name in self.list_commands(ctx)])

    def summary(self, name: str) -> str:
        """What is said of a command."""
        commands: Any = self.commands
        return commands.summary(name) if isinstance(commands, Lazily) else commands[name].help or ""


class Ordered(Group):
    """Commands in the order in which one needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


class App(typer.Typer):
    """Whose commands are `Once`, and made when they are asked for by name: all of them take .1 s."""

    def command(self, *args: Any, **kwargs: Any) -> Any:
        return super().command(*args, **({"cls": Once} | kwargs))

    def group(self) -> Group:
        """The command that has all others."""
        bare = copy(self)
        bare.registered_commands, bare.registered_groups = [], []
        made = typer.main.get_group(bare)
        assert isinstance(made, Group)
        made.commands = Lazily(self)  # pyright: ignore[reportAttributeAccessIssue]
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.group()(*args, **kwargs)


class Lazily(Mapping[str, Any]):
    """The commands of an app by name, each made once it is read."""

    def __init__(self, app: App):
        self._app, self._made = app, dict[str, Any]()
        self._commands = {info.name or _name_of(info.callback): info for info in app.registered_commands}
        self._groups = {str(info.name): info for info in app.registered_groups}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if info := self._commands.get(name):
                how = {"pretty_exceptions_short": False, "rich_markup_mode": self._app.rich_markup_mode}
                self._made[name] = typer.main.get_command_from_info(info, **how)
            else:
                group = self._groups[name].typer_instance
                assert isinstance(group, App)
                self._made[name] = group.group()
                self._made[name].name = name
        return self._made[name]

    def summary(self, name: str) -> str:
        """What the help of a command begins with, without making it."""
        info = self._commands.get(name)
        if info is not None:
            return inspect.cleandoc(info.help) if info.help else inspect.getdoc(info.callback) or ""
        group = self._groups[name].typer_instance
        return str(group.info.help) if group else ""

    def __iter__(self) -> Iterator[str]:
        return iter({**self._commands, **self._groups})

    def __len__(self) -> int:
        return len(self._commands) + len(self._groups)


def _name_of(command: Any) -> str:
    return typer.main.get_command_name(command.__name__)


# Everything heavy is imported inside the commands, so that --help is instant.
app = App(
    help="Train recommenders end to end from pictures, words and clicks.",
    epilog="Example: rawrec import synthetic --out data/shop && rawrec train em3 --data data/shop --out runs/em3",
    cls=Ordered,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_versions(wanted: bool) -> None:
    if not wanted:
        return
    try:
        torch = f"torch {metadata.version('torch')}"  # of its metadata: loading it takes seconds
    except metadata.PackageNotFoundError:
        torch = "no torch"
    say(f"rawrec {__version__} (Python {platform.python_version()}, {torch})")
    raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_versions, is_eager=True, help="print the versions of what is used"),
    ] = False,
) -> None:
    """What stands before all commands."""


def console() -> Console:
    """Tables: as wide as the terminal, or wide enough for a file."""
    return shown.console(width=None if sys.stdout.isatty() else 160)


def print_json(value: Any) -> None:
    say(json_text(json.dumps(value, ensure_ascii=(sys.stdout.encoding or "").lower() != "utf-8", indent=1)))


def tell(text: str, value: dict[str, Any], as_json: bool) -> None:
    print_json(value) if as_json else say(text)


def columns_of(words: list[str] | None) -> list[str] | None:
    """The columns that a repeated option names, of which a value can name several between commas."""
    return None if words is None else [part.strip() for word in words for part in word.split(",") if part.strip()]


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
