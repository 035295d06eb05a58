"""The command that makes encoders' folders of published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rawrec.cli.common import app, tell
from rawrec.cli.options import Json, Out


@app.command(epilog="Example: rawrec convert ViT-B-32.pt --out weights/clip --activation quick_gelu")
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="weights: .safetensors, .pt; or a folder of open_clip")
    ],
    out: Out,
    activation: Annotated[
        str | None, typer.Option(help="quick_gelu | gelu: of CLIP, where neither config nor name says it")
    ] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="of VLMo, where its weights do not say it")] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="in pixels; of VLMo, where its weights do not say it")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="with the tokenizer's files (default: beside the weights)")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what was converted there before")] = False,
    as_json: Json = False,
) -> None:
    """Make an encoder's folder of weights of CLIP or VLMo."""
    from rawrec.content.convert import convert as work

    done = work(
        source, out, activation=activation, heads=heads, image_size=image_size, tokenizer=tokenizer, overwrite=overwrite
    )
    lines = [f"wrote {done.folder}: {done.what}", *(f"- {note}" for note in done.notes)]
    lines += [f"still to be brought: {done.missing}"] if done.missing else []
    about = {"folder": str(done.folder), "family": done.family, "what": done.what, "notes": done.notes}
    tell("\n".join(lines), {**about, "missing": done.missing}, as_json)
