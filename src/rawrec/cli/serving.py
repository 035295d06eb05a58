"""`rawrec serve`: a finished run behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rawrec.cli.common import app
from rawrec.cli.options import AddedItems, Data, Newest
from rawrec.errors import UserError
from rawrec.server import need_all
from rawrec.shown import say


@app.command(epilog="Example: rawrec serve runs/em3 --port 8000 --token-file token --state runs/em3-served")
def serve(
    run: Annotated[Path, typer.Argument(metavar="RUN|DIR", help="run folder, or folder of published versions")],
    host: Annotated[
        str, typer.Option(help="where to listen; beside this machine itself only with a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="a further name by which it may be called (behind a proxy)")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="file with the token of who may write; without one nothing may be written")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="folder that keeps what was added and hidden, for the next start")
    ] = None,
    log: Annotated[
        str | None, typer.Option(metavar="URL", help="write what is shown and done into this log: sqlite:events.db")
    ] = None,
    every: Annotated[float, typer.Option(min=0.05, help="seconds between looks for another version of DIR")] = 1.0,
    waiting: Annotated[int, typer.Option(min=1, help="requests that may wait; more are answered 503")] = 64,
    deadline: Annotated[float, typer.Option(min=0.01, help="seconds that a request may wait for the model")] = 2.0,
    batch: Annotated[int, typer.Option(min=1, help="requests that are answered at once, at most")] = 16,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of the model (default: cores)")] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="bring pictures of new items that are named by http address")
    ] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="with --fetch: also from this machine and private networks")
    ] = False,
    data: Data = None,
    newest: Newest = False,
    added: AddedItems = None,
) -> None:
    """Serve lists, scores and similar items over HTTP."""
    need_all()
    from rawrec.server import run as running
    from rawrec.serving.published import holds_versions
    from rawrec.serving.recommender import Recommender

    options = running.Options(
        host, port, tuple(name or ()), token_file, state, log, every, waiting, deadline, batch, threads,
        fetch=fetch, private=allow_private,
    )  # fmt: skip
    options.check()
    if added is not None and state is not None:
        raise UserError("--state keeps the items that are added: leave out --added")

    def load(kept: Path | None) -> Recommender:
        return Recommender.load(run, data, newest=newest, added=kept or added)

    published = run if holds_versions(run) else None
    if published is not None and (newest or added is not None or data is not None):
        raise UserError(f"{run} holds versions, which know their run and dataset: leave out --data, --newest, --added")
    serving, notes = running.open_serving(load, options, published)
    made, place = running.application(serving, options), running.listen(options)
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    address = f"http://{shown}:{place.getsockname()[1]}"

    def begun() -> None:
        for note in notes:
            say(f"rawrec: {note}", error=True)
        say(f"serving {serving.now().name} on {address} (routes: {address}/docs); Ctrl-C ends it", error=True)
        if token_file is None:
            say("nothing may be written: --token-file lets who bears the token add and hide items", error=True)

    running.serve(made, place, begun)
