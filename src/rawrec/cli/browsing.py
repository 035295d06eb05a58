"""`rawrec browse`: the page of a run, of two side by side, or as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rawrec.cli.common import app
from rawrec.cli.options import Data, Newest
from rawrec.server import need_all
from rawrec.shown import say


@app.command(epilog="Example: rawrec browse runs/em3 runs/bpr")
def browse(
    run: Annotated[Path, typer.Argument(metavar="RUN|DIR", help="run folder, or folder of published versions")],
    other: Annotated[
        Path | None, typer.Argument(metavar="RUN2|DIR", help="another run, whose lists stand beside")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of the model (default: cores)")] = None,
    data: Data = None,
    newest: Newest = False,
) -> None:
    """Look at users, lists and items in the browser."""
    need_all()
    from rawrec.server import run as running

    options = running.Options(port=port, threads=threads, waiting=256, deadline=60.0)
    first = running.to_look_at(run, data, newest)
    beside = [] if other is None else [running.to_look_at(other, data, newest)]
    serving = running.held(first, options)
    made, place = (
        running.application(serving, options, [(one.name, one.rec) for one in beside]),
        running.listen(options),
    )
    address = f"http://127.0.0.1:{place.getsockname()[1]}/"

    def begun() -> None:
        say(f"look at {' and '.join(one.name for one in (first, *beside))} on {address}; Ctrl-C ends it", error=True)
        if open_:
            import webbrowser

            webbrowser.open(address)

    running.serve(made, place, begun)
