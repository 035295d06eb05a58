"""`rawrec import`: one command per source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rawrec.cli.common import Json, Out, Overwrite, Ratios, Split, SplitSeed, console, print_json, split_spec
from rawrec.cli.common import importing as app


def _imported(data: Any, as_json: bool) -> None:
    from rawrec.data.importers.report import ImportReport

    path = data.path / "import.json"
    if as_json:
        print_json({"dataset": str(data.path), **json.loads(path.read_text())})
        return
    ImportReport.load(path).print_table(console())
    print(f"wrote {data.path}; look at it with: rawrec inspect {data.path}")


@app.command("table", epilog="Example: rawrec import table --interactions clicks.tsv --user user_id "
                   "--item movie_id --time order --label clicked --items items.tsv --text title --category genres "
                   "--image-dir posters --image-name '{item}.jpg' --out data/x")  # fmt: skip
def import_table(
    interactions: Annotated[Path, typer.Option(help="CSV, TSV, JSON lines or Parquet; text also as .gz")],
    user: Annotated[str, typer.Option(help="column of the user's id")],
    item: Annotated[str, typer.Option(help="column of the item's id")],
    out: Out,
    time: Annotated[str | None, typer.Option(help="column of the time (seconds, ms or ISO)")] = None,
    label: Annotated[list[str] | None, typer.Option(help="label column; repeatable; none: all are positives")] = None,
    items: Annotated[Path | None, typer.Option(help="table of the items")] = None,
    item_id: Annotated[str | None, typer.Option(help="its id column (default: as --item)")] = None,
    text: Annotated[list[str] | None, typer.Option(help="text column of the items; repeatable")] = None,
    category: Annotated[list[str] | None, typer.Option(help="categorical column; several values between |")] = None,
    numeric: Annotated[list[str] | None, typer.Option(help="numeric column; repeatable")] = None,
    image_dir: Annotated[Path | None, typer.Option(help="folder of pictures")] = None,
    image_name: Annotated[str, typer.Option(help="file name of an item's picture")] = "{item}.jpg",
    image_column: Annotated[list[str] | None, typer.Option(help="column of picture bytes (Parquet)")] = None,
    image_field: Annotated[str, typer.Option(help="name of the field of --image-dir")] = "image",
    extra: Annotated[list[str] | None, typer.Option(help="further column of the interactions to keep")] = None,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import tables of interactions and items, and a folder of pictures."""
    from rawrec.data.importers.table import import_table as work

    data = work(
        interactions, user, item, out=out, time=time, labels=label or [], items=items, item_id=item_id,
        text=text or [], category=category or [], numeric=numeric or [], image_dir=image_dir, image_name=image_name,
        image_column=image_column or [], image_field=image_field, extra=extra or [],
        split=split_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@app.command("movielens", epilog="Example: rawrec import movielens ml-latest-small "
                   "--posters ml-latest-small/posters --texts ml-latest-small/plots.tsv --out data/ml")  # fmt: skip
def import_movielens(
    folder: Annotated[Path, typer.Argument(help="folder with ratings.csv and movies.csv, or the .dat files")],
    out: Out,
    posters: Annotated[Path | None, typer.Option(help="folder of <movieId>.jpg")] = None,
    texts: Annotated[Path | None, typer.Option(help="table movieId, plot")] = None,
    positive: Annotated[float, typer.Option(help="a rating from here on is a positive")] = 4.0,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import a MovieLens folder, with posters and plots where you have them."""
    from rawrec.data.importers.movielens import import_movielens as work

    spec = split_spec(split, "--split", ratios, seed=split_seed)
    _imported(work(folder, posters, texts, positive, out=out, split=spec, overwrite=overwrite), as_json)


@app.command("mmrec", epilog="Example: rawrec import mmrec baby --out data/baby")
def import_mmrec(
    folder: Annotated[Path, typer.Argument(help="folder with <name>.inter and any *_feat.npy")],
    out: Out,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import a dataset in MMRec's format; ready-made features become feature columns."""
    from rawrec.data.importers.mmrec import import_mmrec as work

    _imported(
        work(folder, out=out, split=split_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite), as_json
    )


@app.command("recbole", epilog="Example: rawrec import recbole ml-1m --text movie_title --positive 4 "
                   "--out data/ml")  # fmt: skip
def import_recbole(
    folder: Annotated[Path, typer.Argument(help="folder with <name>.inter and, where there is one, <name>.item")],
    out: Out,
    positive: Annotated[
        float | None, typer.Option(help="a rating from here on is a positive (default: every row is one)")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="label column; repeatable (default: label)")] = None,
    text: Annotated[list[str] | None, typer.Option(help="token_seq column that is a text; repeatable")] = None,
    user: Annotated[str, typer.Option(help="column of the user's id")] = "user_id",
    item: Annotated[str, typer.Option(help="column of the item's id")] = "item_id",
    time: Annotated[str | None, typer.Option(help="column of the time (default: timestamp)")] = None,
    seq_separator: Annotated[str, typer.Option(help="between the values of a sequence")] = " ",
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import RecBole's atomic files; <name>.train.inter and so on become the split."""
    from rawrec.data.importers.recbole import import_recbole as work

    data = work(
        folder, out=out, user=user, item=item, time=time, labels=label or [], positive=positive, text=text or [],
        seq_separator=seq_separator, split=split_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@app.command("amazon", epilog="Example: rawrec import amazon --reviews reviews_Baby_5.json.gz "
                   "--meta meta_Baby.json.gz --preset lmm --out data/baby")  # fmt: skip
def import_amazon(
    reviews: Annotated[Path, typer.Option(help="reviews, or ratings only as CSV; also as .gz")],
    out: Out,
    meta: Annotated[Path | None, typer.Option(help="the catalogue; also as .gz")] = None,
    positive: Annotated[
        float | None, typer.Option(help="a rating from here on is a positive (default: every one is)")
    ] = None,
    k_core: Annotated[
        int | None, typer.Option(min=1, help="only users and items with at least so many ratings")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="lmm: 5-core, every rating a positive, random_user 80,10,10")
    ] = None,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    image_urls: Annotated[
        bool, typer.Option("--image-urls", help="keep the addresses of pictures (none is downloaded)")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import Amazon's reviews and catalogue, releases 2014, 2018 and 2023."""
    from rawrec.data.importers.amazon import import_amazon as work

    spec = split_spec(split or ("random_user" if preset else None), "--split", ratios, seed=split_seed)
    data = work(
        reviews,
        meta,
        out=out,
        positive=positive,
        k_core=k_core,
        preset=preset,
        split=spec,
        image_urls=image_urls,
        overwrite=overwrite,
    )
    _imported(data, as_json)


@app.command("synthetic", epilog="Example: rawrec import synthetic --out data/shop")
def import_synthetic(
    out: Out,
    items: Annotated[int | None, typer.Option(help="products")] = None,
    users: Annotated[int | None, typer.Option(help="users")] = None,
    impressions: Annotated[int | None, typer.Option(help="products shown")] = None,
    history_events: Annotated[int | None, typer.Option(help="at least so many impressions per user")] = None,
    seed: Annotated[int, typer.Option(help="the same seed makes the same shop")] = 0,
    size: Annotated[int | None, typer.Option(help="side of a picture in pixels")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Generate a shop: drawn products, described in part, clicked with known probabilities. Not real data."""
    from rawrec.data.importers.synthetic import import_synthetic as work

    given: dict[str, Any] = {
        "items": items,
        "users": users,
        "impressions": impressions,
        "size": size,
        "history_events": history_events,
    }
    _imported(work(out, seed=seed, overwrite=overwrite, **{k: v for k, v in given.items() if v is not None}), as_json)
