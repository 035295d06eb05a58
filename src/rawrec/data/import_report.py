"""What an import read, kept and skipped, and why."""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawrec.files import write_text
from rawrec.reading import read_json, typed
from rawrec.shown import console

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = 20
MUCH = 0.05
"""A larger share that was skipped for one reason is told in colour."""
AS_ASKED = ("frame between those that were sampled", "-core", "in the dataset already", "is there already")
"""Parts of reasons for which things are left out because it was asked for."""


@dataclass
class Skipped:
    """How often a reason for skipping occurred, with the first examples ("file:row value")."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class ImportReport:
    """The account of one import, written as `import.json` of the dataset folder.

    source: where the data came from, in words.
    read: what -> how many were read ("interactions", "items", "images" ...).
    kept: what -> how many are in the dataset; the `DatasetWriter` fills in items, interactions and users.
    skipped: reason -> count and up to 20 examples.
    coverage: field -> {"items": items that have it, "share": of all items}; filled in by the `DatasetWriter`.
    notes: remarks in words, e.g. "times are in milliseconds; divided by 1000".
    """

    source: str = ""
    read: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    coverage: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add_read(self, what: str, count: int = 1) -> None:
        self.read[what] = self.read.get(what, 0) + int(count)

    def add_kept(self, what: str, count: int = 1) -> None:
        self.kept[what] = self.kept.get(what, 0) + int(count)

    def skip(self, reason: str, example: str | list[str] | None = None, count: int | None = None) -> None:
        """Count `count` skipped things (default: one per example, at least one) with one or more examples."""
        examples = [example] if isinstance(example, str) else list(example or [])
        entry = self.skipped.setdefault(reason, Skipped())
        entry.count += int(count) if count is not None else max(1, len(examples))
        entry.examples.extend(short(e) for e in examples[: EXAMPLES - len(entry.examples)])

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def empty_fields(self) -> list[str]:
        """The fields that no item has."""
        return [name for name, entry in self.coverage.items() if not entry["items"]]

    def why_empty(self, field: str, is_image: bool) -> str:
        """That a field is empty, and for what reasons."""
        found = [reason for reason in self.skipped if _concerns(reason, field, is_image)]
        words = [f"{reason}: {_with_example(self.skipped[reason])}" for reason in found]
        nothing = "nothing was found for any" if is_image else "nothing in any row"
        items = self.kept.get("items", 0)
        return f"field {field!r} is empty, of {items:,} items none has it ({'; '.join(words) or nothing})"

    def losses(self) -> list[str]:
        """What more than `MUCH` of something was skipped for, in words: the share, how many of what, the reason."""
        lines = []
        for reason, entry in self.skipped.items():
            what = self._kind_of(reason)
            of = self.read.get(what, 0)
            if "no item names" in reason:
                of += entry.count  # files that were never read
            if of and entry.count > MUCH * of and not any(part in reason for part in AS_ASKED):
                lines.append(f"{entry.count / of:.1%} of {of:,} {what}: {reason}: {_with_example(entry)}")
        return lines

    def _kind_of(self, reason: str) -> str:
        """What a reason counts, of the kinds that were read."""
        first = reason.partition(":")[0]
        if first in self.read:
            return first
        if first in ("image", "picture") or "image folder" in reason or "no item names" in reason:
            return "images"
        if first.startswith(("feature", "item ", "duplicate item")):
            return "items"
        return next((what for what in ("interactions", "impressions", "lists") if what in self.read), "items")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def write(self, path: Path) -> None:
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"
        write_text(path, text)

    @classmethod
    def load(cls, path: Path) -> ImportReport:
        """What `write` wrote. UserError where it is damaged."""
        return typed(cls, read_json(path), path)

    def __str__(self) -> str:
        """What the command line shows of it, without colours."""
        out = io.StringIO()
        self.print_table(console(width=160, file=out, color_system=None))
        return out.getvalue().rstrip()

    def print_table(self, console: Console) -> None:
        """Three small tables: counts, coverage, what was skipped and why; in colour large losses and empty fields; then
        the notes."""
        from rich.table import Table
        from rich.text import Text

        counts = Table("what", title="Import", title_justify="left")
        counts.add_column("read", justify="right")
        counts.add_column("kept", justify="right")
        for what in dict.fromkeys([*self.read, *self.kept]):
            counts.add_row(what, _number(self.read.get(what)), _number(self.kept.get(what)))
        console.print(counts)
        if self.coverage:
            table = Table("field", title="Coverage", title_justify="left")
            table.add_column("items with it", justify="right")
            table.add_column("share", justify="right")
            for name, entry in self.coverage.items():
                table.add_row(name, _number(int(entry["items"])), f"{entry['share']:.1%}")
            console.print(table)
        if self.skipped:
            table = Table("skipped because", title="Skipped", title_justify="left")
            table.add_column("count", justify="right")
            table.add_column("for example", overflow="fold")
            for reason, entry in self.skipped.items():
                # Values come from the user's files: never markup.
                table.add_row(Text(reason), _number(entry.count), Text("\n".join(entry.examples[:3])))
            console.print(table)
        told = [*self.losses(), *(f"field {name!r} is empty: no item has it" for name in self.empty_fields())]
        for text in told:
            console.print(Text(f"! {text}", style="bold yellow"))
        for text in self.notes:
            console.print(f"- {text}", markup=False, highlight=False)


def _concerns(reason: str, field: str, is_image: bool) -> bool:
    """Whether a reason says why a field is empty: it names the column, as it is or as it is stored, or a picture."""
    if is_image and reason.startswith(("image", "picture", "file of the image")):
        return True
    return f"_{field}_" in re.sub(r"[^A-Za-z0-9_-]", "_", f" {reason} ")


def _with_example(entry: Skipped) -> str:
    return f"{entry.count:,}" + (f", as {entry.examples[0]}" if entry.examples else "")


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def short(text: str) -> str:
    """Printable and at most 200 characters."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200])
    return text if len(text) < 200 else text[:199] + "…"
