"""`rawrec study`: a paper's study on data of one's own, as one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rawrec.cli.common import App, app, console, print_json
from rawrec.cli.options import Json, Many, Out
from rawrec.errors import UserError

study = App(
    help="Repeat a paper's study on your data.",
    epilog="Example: rawrec study lmm --data data/ml --out studies/lmm --seeds 1",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(study, name="study")


@study.command(
    epilog="Example: rawrec study lmm --data data/ml --out studies/lmm --models vbpr,lattice "
    "--encoders efficientnet_lite0+minilm,encoders/clip bank.live_budget=256"
)
def lmm(
    data: Annotated[Path, typer.Option(help="dataset folder")],
    out: Out,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="settings of all runs as key=value; where one does nothing it is left out"),
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="retrieval models (default: vbpr,mmgcn,mmgcl,slmrec,lattice)")
    ] = None,
    encoders: Annotated[
        str | None,
        typer.Option(
            help="IMAGE+TEXT; pair:IMAGE+TEXT; CLIP, VLMo ...: a name or folder; ready:FEATURE+FEATURE (default: "
            "efficientnet_lite0+minilm and pair: of the two)"
        ),
    ] = None,
    paradigms: Annotated[str | None, typer.Option(help="of pretrained,two_stage,end_to_end (default: all)")] = None,
    modalities: Annotated[
        str | None, typer.Option(help="of VT,V,T: pictures and texts, pictures, texts (default: VT)")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="runs of each point (default: 3)")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="runs at the same time")] = 1,
    protocol: Annotated[
        str | None, typer.Option(help="mmrec: the paper's, patience 50 (default); default: rawrec's own")
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="layers that learn end to end: top:<n>, all, lora (default: top:1)")
    ] = None,
    encoder_lrs: Annotated[
        str | None,
        typer.Option(help="end to end, rates of which validation chooses for every point (default: 1e-5,1e-4,1e-3)"),
    ] = None,
    search: Annotated[
        Many, typer.Option(metavar="KEY=V,V", help="values of which validation chooses for every point; repeatable")
    ] = None,
    finetune: Annotated[
        Many, typer.Option(metavar="KEY=VALUE", help="of two_stage's tuning (rawrec settings finetune); repeatable")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="begin anew where a study stands")] = False,
    as_json: Json = False,
) -> None:
    """Encoders pretrained, tuned, end to end: models and tables of "Large Multi-modal Encoders for Recommendation"."""
    from rawrec.config.resolution import parse_overrides
    from rawrec.studies.lmm import print_study, study_lmm, teller

    found = study_lmm(
        data, out, models, encoders, paradigms, modalities, seeds, jobs, protocol, train,
        None if encoder_lrs is None else _rates(encoder_lrs),
        _searched(search) if search else None,
        parse_overrides(overrides) if overrides else None,
        parse_overrides(finetune) if finetune else None,
        overwrite, teller(Console(stderr=True, highlight=False)),
    )  # fmt: skip
    print_json(found.found) if as_json else print_study(found, console())


def _rates(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--encoder-lrs {text}: give numbers, for example 1e-5,1e-4") from None


def _searched(words: list[str]) -> dict[str, list[Any]]:
    """`KEY=V,V`: the values of a setting."""
    from rawrec.config.resolution import parse_overrides

    found: dict[str, list[Any]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        if not equals or not key or not values:
            raise UserError(f"--search {word!r}: give KEY=VALUE,VALUE, for example --search train.lr=1e-3,1e-4")
        if key in found:
            raise UserError(f"--search: {key} is given twice: give it once")
        parsed = [parse_overrides([f"{key}={value}"]) for value in values.split(",")]
        found[key] = [one[key] for one in parsed]
    return found
