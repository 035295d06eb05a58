"""`rawrec study`: a paper's study on data of one's own, as one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rawrec import shown
from rawrec.cli.common import App, Group, app, console, print_json
from rawrec.cli.options import Json, Many, Out
from rawrec.errors import UserError

study = App(
    help="Repeat a paper's study on your data.",
    epilog="Example: rawrec study lmm --data data/ml --out studies/lmm --seeds 1",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(study, name="study")

DataFolder = Annotated[Path, typer.Option(help="dataset folder")]
Settings = Annotated[
    list[str] | None, typer.Argument(help="settings of all runs as key=value; where one does nothing it is left out")
]
Jobs = Annotated[int, typer.Option(min=1, help="runs at the same time")]
Search = Annotated[
    Many,
    typer.Option(metavar="KEY=V,V", help="values of which validation chooses for all that is compared; repeatable"),
]
Tuning = Annotated[
    Many, typer.Option(metavar="KEY=VALUE", help="of the encoder's tuning (rawrec settings finetune); repeatable")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="begin anew where a study stands")]


@study.command(
    epilog="Example: rawrec study lmm --data data/ml --out studies/lmm --models vbpr,lattice "
    "--encoders efficientnet_lite0+minilm,encoders/clip bank.live_budget=256"
)
def lmm(
    data: DataFolder,
    out: Out,
    overrides: Settings = None,
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
    jobs: Jobs = 1,
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
    search: Search = None,
    finetune: Tuning = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Encoders pretrained, tuned, end to end: models and tables of "Large Multi-modal Encoders for Recommendation"."""
    from rawrec.config.resolution import parse_overrides
    from rawrec.studies.folder import print_study, teller
    from rawrec.studies.lmm.study import study_lmm

    found = study_lmm(
        data, out, models, encoders, paradigms, modalities, seeds, jobs, protocol, train,
        None if encoder_lrs is None else _rates(encoder_lrs),
        _searched(search) if search else None,
        parse_overrides(overrides) if overrides else None,
        parse_overrides(finetune) if finetune else None,
        overwrite, teller(shown.console(stderr=True)),
    )  # fmt: skip
    print_json(found.found) if as_json else print_study(found, console())


@study.command(
    epilog="Example: rawrec study em3 --data data/shop --out studies/em3 --tables 1,2,5 --seeds 3 --heads din "
    "train.epochs=10"
)
def em3(
    data: DataFolder,
    out: Out,
    overrides: Settings = None,
    tables: Annotated[
        str | None, typer.Option(help="the paper's tables to make: 1 to 9 (default), or 10 alone")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="runs of each row (default: 5)")] = None,
    jobs: Jobs = 1,
    heads: Annotated[
        str | None, typer.Option(help="rankers; ablations are of the first (default: din,rankmixer)")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="labels of table 1; ablations are of the first (default: all)")
    ] = None,
    paradigm: Annotated[
        str | None,
        typer.Option(help="hybrid: projections and fusion learn, as in the paper (default); end_to_end: encoders too"),
    ] = None,
    lengths: Annotated[str | None, typer.Option(help="table 4: lengths of histories (default: 20,50,100)")] = None,
    handover: Annotated[
        str | None, typer.Option(help="table 4: when LoRA begins: settled (default), epoch:<n>")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="tuned on the catalogue for PE (default: pair:efficientnet_lite0+minilm)")
    ] = None,
    rivals: Annotated[
        str | None, typer.Option(help="table 10: retrieval models beside em3_freedom (default: freedom)")
    ] = None,
    search: Search = None,
    finetune: Tuning = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Rankers with content and without: tables of "End-to-end training of Multimodal Model and ranking Model"."""
    from rawrec.config.resolution import parse_overrides
    from rawrec.studies.em3.study import study_em3
    from rawrec.studies.folder import print_study, teller

    found = study_em3(
        data, out, None if tables is None else _counts("tables", tables), seeds, jobs, heads, labels, paradigm,
        None if lengths is None else _counts("lengths", lengths), handover, encoder, rivals,
        _searched(search) if search else None,
        parse_overrides(overrides) if overrides else None,
        parse_overrides(finetune) if finetune else None,
        overwrite, teller(shown.console(stderr=True)),
    )  # fmt: skip
    print_json(found.found) if as_json else print_study(found, console())


@study.command(
    epilog="Example: rawrec study lemur --data data/search --out studies/lemur --tables cumulative,training --seeds 3 "
    "data.history=100 train.epochs=5"
)
def lemur(
    data: DataFolder,
    out: Out,
    overrides: Settings = None,
    tables: Annotated[
        str | None,
        typer.Option(
            help="by number or name, of 1 cumulative, 2 training, 3 ablations, 4 sampling, 5 staleness, 6 modalities "
            "(default: all)"
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="runs of each row (default: 5)")] = None,
    jobs: Jobs = 1,
    head: Annotated[
        str | None, typer.Option(help="the ranker of all rows but the first of table 1 (default: rankmixer)")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="the ranker that table 1 begins with (default: dot_mlp)")] = None,
    images: Annotated[
        str | None, typer.Option(help="table 6: how pictures are read: patches (default), or an image encoder")
    ] = None,
    search: Search = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Content learned end to end with the ranker: tables of "LEMUR", part by part."""
    from rawrec.config.resolution import parse_overrides
    from rawrec.studies.folder import print_study, teller
    from rawrec.studies.lemur.study import study_lemur

    found = study_lemur(
        data, out, tables, seeds, jobs, head, baseline, images,
        _searched(search) if search else None,
        parse_overrides(overrides) if overrides else None,
        overwrite, teller(shown.console(stderr=True)),
    )  # fmt: skip
    print_json(found.found) if as_json else print_study(found, console())


def _counts(name: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--{name} {text}: give numbers, for example 1,2") from None


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
