"""What a person sees while tables are read or checked: a bar on a terminal, on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from types import TracebackType
from typing import Protocol, TypeVar

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rawrec import shown


class Numbered(Protocol):
    """Some rows of a table, with their numbers in it."""

    @property
    def rows(self) -> Sized: ...


Rows = TypeVar("Rows", bound=Numbered, covariant=True)


class Read(Protocol[Rows]):
    """A table that is read in batches, and how much of it has been, 0 to 1."""

    @property
    def fraction(self) -> float: ...

    def batches(self, columns: Sequence[str]) -> Iterator[Rows]: ...


class Bar:
    """A progress bar on stderr; none where stderr is not a terminal or it is not wanted."""

    def __init__(self, wanted: bool) -> None:
        console = shown.console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TimeRemainingColumn(),
            console=console,
            disable=not (wanted and console.is_terminal),
        )

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def track(self, label: str, source: Read[Rows], columns: Sequence[str]) -> Iterator[Rows]:
        """The batches of a source, shown as they pass."""
        task = self.progress.add_task(label, total=1.0, rows=0)
        rows = 0
        for batch in source.batches(columns):
            yield batch
            rows += len(batch.rows)
            self.progress.update(task, completed=source.fraction, rows=rows)
        self.progress.update(task, completed=1.0)
