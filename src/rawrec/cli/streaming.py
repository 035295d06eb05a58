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
    publish: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of versions for a server")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Go on with a finished run as events come, or by a table."""
    from rawrec.config import parse_overrides
    from rawrec.progress import Bars
    from rawrec.remote import refuse
    from rawrec.stream.online import online as work

    refuse(run, "what online learning adds to a run")

    with Bars() as bars:
        found = work(run, log, events, until, parse_overrides(overrides or []), data, bars, trim=trim, publish=publish)
    tell(_told(run, found), found, as_json)


def _told(run: Path, found: dict[str, Any]) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in found["counts"].items())
    positions = ", ".join(f"{position:,} of {name}" for name, position in found["positions"].items())
    waiting = f"{found['waiting']:,} impressions wait for their labels, {found['ready']:,} samples for a full batch"
    lines = [f"step {found['step']:,}; position {positions or 'none'}", f"events: {counts or 'none'}", waiting]
    if refused := found["refused_versions"]:
        lines.append(f"{refused:,} versions were not fit to be served: `rawrec versions` says why")
    return "\n".join([*lines, f"metrics: {run}/online/metrics.jsonl"])


Versions = Annotated[Path, typer.Argument(metavar="DIR", help="folder of versions, as --publish names it")]


@app.command(epilog="Example: rawrec versions published")
def versions(
    folder: Versions,
    keep: Annotated[
        int | None, typer.Option(min=1, help="remove all but so many, the latest, and the one that is served")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the versions that were published."""
    from rawrec.stream.versions import listed, prune

    gone = prune(folder, keep) if keep is not None else []
    found = listed(folder)
    lines = [_version(one, found.current, found.held) for one in found.versions]
    lines += [f"removed: {', '.join(gone)}"] if gone else []
    about = {"current": found.current, "held": found.held, "versions": [one.model_dump() for one in found.versions]}
    tell("\n".join(lines) or "none", {**about, "removed": gone}, as_json)


def _version(one: Any, current: str | None, held: bool) -> str:
    served = f"served{', held' if held else ''}" if one.name == current else ""
    state = f"refused: {one.refused}" if one.refused else served
    kind = "full" if one.base is None else "delta"
    return f"{one.name}  step {one.step:,}  {one.items:,} items  {one.users:,} users  {kind}  {state}".rstrip()


@app.command(epilog="Example: rawrec rollback published")
def rollback(
    folder: Versions,
    version: Annotated[
        str | None, typer.Argument(help="a version (default: the one before), or latest, to go on as published")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve an earlier version, and hold it there."""
    from rawrec.stream.versions import rollback as work

    name = work(folder, version)
    tell(f"{folder} serves {name}{'' if version == 'latest' else ', and holds it'}", {"current": name}, as_json)
