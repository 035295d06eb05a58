"""The page of all commands, made of what `--help` of each says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rawrec import cli

PLACE = "commands.md"


def all_of(command: Any = None, name: str = "rawrec") -> Iterator[tuple[str, Any]]:
    """The commands that do something, by their words, in the order of `rawrec --help`."""
    command = cli.app.group() if command is None else command
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word in command.list_commands(command.context_class(command)):
        yield from all_of(command.commands[word], f"{name} {word}")


def page() -> str:
    lines = [
        "# Commands",
        "",
        "What `rawrec COMMAND --help` says of each. By what you want to do: [tasks](tasks.md).",
        "",
    ]
    for name, command in all_of():
        context = command.context_class(command, info_name=name, terminal_width=86, max_content_width=86)
        lines += [f"## {name}", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(lines)
