"""The commands that go on with a run by events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rawrec.cli.common import app, tell
from rawrec.cli.options import Data, Json, RunArgument


@app.command(epilog="Example: rawrec online runs/em3 --log sqlite:events.db online.late=fake_negative")
def online(
    run: RunArgument,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="settings as key=value (`rawrec settings online` lists them)")
    ] = None,
    log: Annotated[str | None, typer.Option(metavar="URL", help="the log of events, as sqlite:events.db")] = None,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a table of interactions instead (.parquet, .csv), by time")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="POSITION", help="where it ends: a position of the log, or end (default: never)"),
    ] = None,
    trim: Annotated[bool, typer.Option("--trim", help="remove from the log what the saved state holds")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Go on with a finished run as events come, or by a table."""
    from rawrec.config import parse_overrides
    from rawrec.progress import Bars
    from rawrec.stream.online import online as work

    with Bars() as bars:
        found = work(run, log, events, until, parse_overrides(overrides or []), data, bars, trim=trim)
    tell(_told(run, found), found, as_json)


def _told(run: Path, found: dict[str, Any]) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in found["counts"].items())
    positions = ", ".join(f"{position:,} of {name}" for name, position in found["positions"].items())
    waiting = f"{found['waiting']:,} impressions wait for their labels, {found['ready']:,} samples for a full batch"
    lines = [f"step {found['step']:,}; position {positions or 'none'}", f"events: {counts or 'none'}", waiting]
    return "\n".join([*lines, f"metrics: {run}/online/metrics.jsonl"])
