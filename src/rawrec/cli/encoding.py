"""The command that makes features without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rawrec.cli.common import app, tell
from rawrec.cli.options import Address, Json, On, Workers, on_ray


@app.command(epilog="Example: rawrec encode data/shop --encoder minilm --field title --out title.npy")
def encode(
    dataset: Annotated[Path, typer.Argument(help="dataset folder")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings, as content.image.size=224")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="name, folder or hub name (default: the usual one of each field)")
    ] = None,
    field: Annotated[str | None, typer.Option(help="the only field to be encoded")] = None,
    feature: Annotated[
        str | None, typer.Option(help="the only feature to be kept, of an encoder that makes several")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a .parquet, .npy, .safetensors or .faiss file beside the cache")
    ] = None,
    index: Annotated[str | None, typer.Option(help="of a .faiss file: flat | hnsw | ivf")] = None,
    on: On = None,
    workers: Workers = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Encode pictures and texts once, for runs or a file."""
    from rawrec.config import parse_overrides
    from rawrec.progress import Bars
    from rawrec.serving.encoding import encode as work

    on_ray(on, workers=workers, address=address)
    with Bars() as bars:
        done = work(
            dataset, encoder, field=field, feature=feature, out=out, index=index,
            overrides=parse_overrides(overrides or []), observer=bars,
            on=on, workers=workers or 2, address=address,
        )  # fmt: skip
    rate = f", {done.items / done.seconds:,.0f} items/s" if done.seconds > 1 else ""
    lines = [
        f"{name}: {width} wide, {count:,} of {done.items:,} items" for name, (width, count) in done.features.items()
    ]
    lost = {name: {what: n for what, n in counts.items() if n} for name, counts in done.lost.items()}
    lines += [f"{name}: {n:,} {what}" for name, counts in lost.items() for what, n in counts.items()]
    places = [f"{dataset}/cache"] * done.cached + [str(done.file)] * (done.file is not None)
    lines.append(f"{done.seconds:.1f} s{rate}; in {' and '.join(places)}")
    about = {name: {"width": w, "items": n, "lost": lost.get(name, {})} for name, (w, n) in done.features.items()}
    tell("\n".join(lines), {"features": about, "seconds": done.seconds, "file": done.file and str(done.file)}, as_json)
