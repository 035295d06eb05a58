"""The options of every import for pictures that are given by address."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rawrec.errors import UserError

KEEP = "keep"
"""`--image-urls keep` downloads nothing."""


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())


def with_signature(run: Callable[..., None], options: list[inspect.Parameter], like: Callable[..., Any]) -> None:
    """Give `run` these options, from which typer makes the command, and the name and help of `like`."""
    functools.update_wrapper(run, like)
    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    run.__dict__["__signature__"] = inspect.Signature(options)
    run.__annotations__ = {option.name: option.annotation for option in options}


def picture_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_pictures`; it gets what they say as `pictures`, None where nothing is asked."""
    own = [parameter for parameter in parameters(command) if parameter.name != "pictures"]
    shared = [parameter for parameter in parameters(_pictures) if parameter.name != "columns"]

    def run(**given: Any) -> None:
        options = {p.name: given.pop(p.name) for p in shared}
        columns = bool(given.get("image_url")) or given.get("image_urls") not in (None, KEEP)
        pictures = _pictures(columns, **options)
        if pictures is not None:
            pictures = replace(pictures, encoding=given.get("encoding"))
        command(**given, pictures=pictures)

    with_signature(run, [*own, *shared], command)
    return run


def _pictures(
    columns: bool,
    image_url_table: Annotated[Path | None, typer.Option(help="table of item ids and addresses of pictures")] = None,
    image_url_table_id: Annotated[str | None, typer.Option(help="its column of ids (default: the first)")] = None,
    image_url_table_url: Annotated[
        str | None, typer.Option(help="its column of addresses (default: the second)")
    ] = None,
    image_url_field: Annotated[
        str | None, typer.Option(help="name of the field of downloaded pictures (default: image)")
    ] = None,
    downloads: Annotated[
        Path | None, typer.Option(help="folder that keeps downloads (default: <out>.downloads)")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="ask also for addresses that failed before")
    ] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="download also from this machine and private networks")
    ] = False,
    per_host: Annotated[int | None, typer.Option(help="connections at once to one host (default: 16)")] = None,
    per_second: Annotated[float | None, typer.Option(help="requests a second to one host (default: no limit)")] = None,
) -> Any:
    """`UrlPictures`, or None where nothing is asked. columns: whether the source's own files have addresses."""
    from rawrec.sources.download.urls import UrlPictures

    given: dict[str, Any] = {
        "table": image_url_table,
        "table_id": image_url_table_id,
        "table_url": image_url_table_url,
        "field": image_url_field,
        "downloads": downloads,
        "retry_failed": retry_failed or None,
        "allow_private": allow_private or None,
        "per_host": per_host,
        "per_second": per_second,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if not columns and "table" not in given:
        if given:
            name = next(iter(given)).replace("_", "-")
            option = f"image-url-{name}" if name in ("table-id", "table-url", "field") else name
            raise UserError(
                f"--{option} concerns pictures given by address, and no addresses are named: see --image-url-table"
            )
        return None
    return UrlPictures(**given)
