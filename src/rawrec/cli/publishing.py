"""`rawrec publish`: a dataset or a run into an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rawrec.cli.common import app, tell
from rawrec.cli.options import Json
from rawrec.errors import UserError


@app.command(epilog="Example: rawrec publish data/ml s3://bucket/ml")
def publish(
    folder: Annotated[Path, typer.Argument(help="dataset folder or run folder")],
    address: Annotated[str, typer.Argument(help="where: s3://BUCKET/NAME, gs://..., whatever fsspec knows")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="as the next state, where one stands there")] = False,
    as_json: Json = False,
) -> None:
    """Publish a dataset or run in an object store."""
    from rawrec.remote import address_of
    from rawrec.training.published import publish as work

    if (place := address_of(address)) is None:
        raise UserError(f"{address} is no address of a store: give one as s3://BUCKET/NAME or gs://BUCKET/NAME")
    mark = work(folder, place, overwrite)
    tell(f"published as state {mark.number} of {place}", {"address": place, **mark._asdict()}, as_json)
