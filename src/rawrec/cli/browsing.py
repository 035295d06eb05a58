"""`rawrec browse`: the page of a run, of two side by side, or as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rawrec.cli.common import app
from rawrec.cli.options import Data, Newest
from rawrec.errors import UserError
from rawrec.shown import counted, say

if TYPE_CHECKING:
    from rawrec.browse.view import View


@app.command(epilog="Example: rawrec browse runs/em3 runs/bpr")
def browse(
    run: Annotated[Path, typer.Argument(metavar="RUN|DIR", help="run folder, or folder of published versions")],
    other: Annotated[
        Path | None, typer.Argument(metavar="RUN2|DIR", help="another run, whose lists stand beside")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="where it listens (default: a free one)")] = None,
    open_: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="write the page as a file that opens without a server")
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="with --export: users of the sample")] = 50,
    items: Annotated[int, typer.Option(min=1, help="with --export: items of the sample")] = 500,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of the model (default: cores)")] = None,
    data: Data = None,
    newest: Newest = False,
) -> None:
    """Look at users, lists and items in the browser."""
    from rawrec.browse.opening import name_of, opened
    from rawrec.browse.view import View
    from rawrec.server import need_all

    if export is None:
        need_all()
    elif port is not None or open_:
        raise UserError("--export writes a file, and nothing listens: leave out --port and --open")
    recs = [opened(run, data, newest)] + ([] if other is None else [opened(other)])
    named = [(name_of(rec), rec) for rec in recs]
    if export is not None:
        return _export(View(named), export, users, items)

    from rawrec.server import run as running

    options = running.Options(port=port or 0, threads=threads, waiting=256, deadline=60.0)
    made = running.application(running.held(recs[0], options), options, named[1:])
    place = running.listen(options)
    address = f"http://127.0.0.1:{place.getsockname()[1]}/"

    def begun() -> None:
        say(f"look at {' and '.join(name for name, _ in named)} on {address}; Ctrl-C ends it", error=True)
        if open_:
            import webbrowser

            webbrowser.open(address)

    running.serve(made, place, begun)


def _export(view: View, folder: Path, users: int, items: int) -> None:
    from rawrec.browse.export import export_page
    from rawrec.progress import Bars

    with Bars() as bars:
        done = export_page(view, folder, users, items, observer=bars)
    holds = f"{counted(done.users, 'user')}, {counted(done.items, 'item')}"
    say(f"{done.path}: {holds}, {done.size / 1e6:.1f} MB; open it in a browser")
