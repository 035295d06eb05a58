"""`rawrec import`: one command per source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rawrec.cli.common import (
    Feature,
    Json,
    Out,
    Overwrite,
    Ratios,
    Split,
    SplitSeed,
    Vectors,
    console,
    print_json,
    split_spec,
    vector_files,
)
from rawrec.cli.common import importing as app
from rawrec.cli.pictures import picture_options

Pairs = Annotated[Path | None, typer.Option("--pairs", help="the interactions, where the folder holds several")]
Titles = Annotated[Path | None, typer.Option("--titles", help="the items, where the folder holds several")]
ImageUrl = Annotated[
    list[str] | None, typer.Option("--image-url", help="column of addresses of pictures to download; repeatable")
]
Covers = Annotated[Path | None, typer.Option("--covers", help="folder of <item>.jpg (default: as found)")]


def _imported(data: Any, as_json: bool) -> None:
    from rawrec.data.import_report import ImportReport

    path = data.path / "import.json"
    if as_json:
        print_json({"dataset": str(data.path), **json.loads(path.read_text())})
        return
    ImportReport.load(path).print_table(console())
    print(f"wrote {data.path}; look at it with: rawrec inspect {data.path}")


@app.command("table", epilog="Example: rawrec import table --interactions clicks.tsv --user user_id "
                   "--item movie_id --time order --label clicked --items items.tsv --text title --category genres "
                   "--image-dir posters --image-name '{item}.jpg' --out data/x")  # fmt: skip
@picture_options
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
    feature: Feature = None,
    vectors: Vectors = None,
    image_dir: Annotated[Path | None, typer.Option(help="folder of pictures")] = None,
    image_name: Annotated[str, typer.Option(help="file name of an item's picture")] = "{item}.jpg",
    image_column: Annotated[list[str] | None, typer.Option(help="column of picture bytes (Parquet)")] = None,
    image_field: Annotated[str, typer.Option(help="name of the field of --image-dir")] = "image",
    image_url: ImageUrl = None,
    extra: Annotated[list[str] | None, typer.Option(help="further column of the interactions to keep")] = None,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import tables of interactions and items, and a folder of pictures."""
    from rawrec.sources.table import import_table as work

    data = work(
        interactions, user, item, out=out, time=time, labels=label or [], items=items, item_id=item_id,
        text=text or [], category=category or [], numeric=numeric or [], feature=feature or [],
        vectors=vector_files(vectors), image_dir=image_dir, image_name=image_name, image_column=image_column or [],
        image_field=image_field, image_url=image_url or [], pictures=pictures, extra=extra or [],
        split=split_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@app.command("movielens", epilog="Example: rawrec import movielens ml-latest-small "
                   "--posters ml-latest-small/posters --texts ml-latest-small/plots.tsv --out data/ml")  # fmt: skip
@picture_options
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
    pictures: Any = None,
) -> None:
    """Import a MovieLens folder, with posters and plots where you have them."""
    from rawrec.sources.movielens import import_movielens as work

    spec = split_spec(split, "--split", ratios, seed=split_seed)
    data = work(folder, posters, texts, positive, out=out, split=spec, pictures=pictures, overwrite=overwrite)
    _imported(data, as_json)


@app.command("mmrec", epilog="Example: rawrec import mmrec baby --out data/baby")
@picture_options
def import_mmrec(
    folder: Annotated[Path, typer.Argument(help="folder with <name>.inter and any *_feat.npy")],
    out: Out,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import a dataset in MMRec's format; ready-made features become feature columns."""
    from rawrec.sources.mmrec import import_mmrec as work

    spec = split_spec(split, "--split", ratios, seed=split_seed)
    _imported(work(folder, out=out, split=spec, pictures=pictures, overwrite=overwrite), as_json)


@app.command("recbole", epilog="Example: rawrec import recbole ml-1m --text movie_title --positive 4 "
                   "--out data/ml")  # fmt: skip
@picture_options
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
    image_url: ImageUrl = None,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import RecBole's atomic files; <name>.train.inter and so on become the split."""
    from rawrec.sources.recbole import import_recbole as work

    data = work(
        folder, out=out, user=user, item=item, time=time, labels=label or [], positive=positive, text=text or [],
        seq_separator=seq_separator, image_url=image_url or [], pictures=pictures,
        split=split_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@app.command("amazon", epilog="Example: rawrec import amazon --reviews reviews_Baby_5.json.gz "
                   "--meta meta_Baby.json.gz --preset lmm --out data/baby")  # fmt: skip
@picture_options
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
        str | None,
        typer.Option(
            help="download all pictures or the main one of each product, or keep the addresses", metavar="all|main|keep"
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import Amazon's reviews and catalogue, releases 2014, 2018 and 2023."""
    from rawrec.sources.amazon import import_amazon as work

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
        pictures=pictures,
        overwrite=overwrite,
    )
    _imported(data, as_json)


@app.command("microlens", epilog="Example: rawrec import microlens MicroLens-50k --out data/microlens")
@picture_options
def import_microlens(
    folder: Annotated[Path, typer.Argument(help="folder with *_pairs.csv (or .tsv), *_titles.csv and *_covers")],
    out: Out,
    pairs: Pairs = None,
    titles: Titles = None,
    covers: Covers = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="also likes and views, which were counted after the interactions")
    ] = False,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import MicroLens: who watched what in which order, titles, tags and covers."""
    from rawrec.sources.microlens import import_microlens as work

    spec = split_spec(split, "--split", ratios, seed=split_seed)
    data = work(
        folder, out=out, pairs=pairs, titles=titles, covers=covers, counts=counts, split=spec, pictures=pictures,
        overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@app.command("pixelrec", epilog="Example: rawrec import pixelrec Pixel200K --out data/pixelrec")
@picture_options
def import_pixelrec(
    folder: Annotated[Path, typer.Argument(help="folder with the CSV files of interactions and items, and covers")],
    out: Out,
    pairs: Pairs = None,
    titles: Titles = None,
    covers: Covers = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="also the columns *_number, which were counted after the interactions")
    ] = False,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import PixelRec: who watched what and when, titles, tags, descriptions and covers."""
    from rawrec.sources.microlens import import_pixelrec as work

    spec = split_spec(split, "--split", ratios, seed=split_seed)
    data = work(
        folder, out=out, pairs=pairs, titles=titles, covers=covers, counts=counts, split=spec, pictures=pictures,
        overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@app.command("mind", epilog="Example: rawrec import mind MIND --out data/mind")
@picture_options
def import_mind(
    folder: Annotated[
        Path, typer.Argument(help="folder with behaviors.tsv and news.tsv, or of such folders: train, dev, test")
    ],
    out: Out,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="add the clicks that the first impression lists as earlier")
    ] = True,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import MIND, Microsoft's news: what was shown, what was clicked, and the news."""
    from rawrec.sources.mind import import_mind as work

    spec = split_spec(split, "--split", ratios, seed=split_seed)
    _imported(work(folder, out=out, history=history, split=spec, pictures=pictures, overwrite=overwrite), as_json)


@app.command("impressions", epilog="Example: rawrec import impressions --impressions shown.jsonl --user user "
                   "--items-shown items --clicks clicks --query query --time time --items items.tsv --text title "
                   "--out data/search")  # fmt: skip
@picture_options
def import_impressions(
    impressions: Annotated[Path, typer.Option(help="a row per shown list: CSV, TSV, JSON lines or Parquet; also .gz")],
    user: Annotated[str, typer.Option(help="column of the user's id")],
    items_shown: Annotated[str, typer.Option(help="column of the list of the items' ids")],
    clicks: Annotated[str, typer.Option(help="column of the list of clicks")],
    out: Out,
    clicks_are: Annotated[
        str | None, typer.Option(help="ids of the items clicked | flags, 0 or 1 per item (default: what fits)")
    ] = None,
    query: Annotated[str | None, typer.Option(help="column of the query, kept")] = None,
    session: Annotated[str | None, typer.Option(help="column of the session, kept (default: the row)")] = None,
    time: Annotated[str | None, typer.Option(help="column of the time (seconds, ms or ISO)")] = None,
    extra: Annotated[list[str] | None, typer.Option(help="further column to keep; repeatable")] = None,
    separator: Annotated[str | None, typer.Option(help="between the values of a list in a string")] = None,
    items: Annotated[Path | None, typer.Option(help="table of the items")] = None,
    item_id: Annotated[str, typer.Option(help="its id column")] = "item_id",
    text: Annotated[list[str] | None, typer.Option(help="text column of the items; repeatable")] = None,
    category: Annotated[list[str] | None, typer.Option(help="categorical column; several values between |")] = None,
    numeric: Annotated[list[str] | None, typer.Option(help="numeric column; repeatable")] = None,
    feature: Feature = None,
    vectors: Vectors = None,
    image_dir: Annotated[Path | None, typer.Option(help="folder of pictures")] = None,
    image_name: Annotated[str, typer.Option(help="file name of an item's picture")] = "{item}.jpg",
    image_column: Annotated[list[str] | None, typer.Option(help="column of picture bytes (Parquet)")] = None,
    image_field: Annotated[str, typer.Option(help="name of the field of --image-dir")] = "image",
    image_url: ImageUrl = None,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import a table of shown lists with their clicks, as search engines and feeds log them."""
    from rawrec.sources.impressions import import_impressions as work

    data = work(
        impressions, user, items_shown, clicks, out=out, clicks_are=clicks_are, query=query, session=session, time=time,
        extra=extra or [], separator=separator, items=items, item_id=item_id, text=text or [], category=category or [],
        numeric=numeric or [], feature=feature or [], vectors=vector_files(vectors), image_dir=image_dir,
        image_name=image_name, image_column=image_column or [], image_field=image_field, image_url=image_url or [],
        pictures=pictures, split=split_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@app.command("huggingface", epilog="Example: rawrec import huggingface --interactions org/clicks@train --user user_id "
                   "--item item_id --time timestamp --items org/products --text title --category genre --image cover "
                   "--out data/x")  # fmt: skip
@picture_options
def import_huggingface(
    interactions: Annotated[str, typer.Option(metavar="NAME[:CONFIG][@SPLIT]", help="dataset of the hub, or folder")],
    user: Annotated[str, typer.Option(help="column of the user's id")],
    item: Annotated[str, typer.Option(help="column of the item's id")],
    out: Out,
    time: Annotated[str | None, typer.Option(help="column of the time (seconds, ms or ISO)")] = None,
    label: Annotated[list[str] | None, typer.Option(help="label column; repeatable; none: all are positives")] = None,
    items: Annotated[
        str | None,
        typer.Option(metavar="NAME[:CONFIG][@SPLIT]", help="the items (default: columns of the interactions)"),
    ] = None,
    item_id: Annotated[str | None, typer.Option(help="their id column (default: as --item)")] = None,
    text: Annotated[list[str] | None, typer.Option(help="text column of the items; repeatable")] = None,
    category: Annotated[list[str] | None, typer.Option(help="categorical column; several values between |")] = None,
    numeric: Annotated[list[str] | None, typer.Option(help="numeric column; repeatable")] = None,
    feature: Feature = None,
    vectors: Vectors = None,
    image: Annotated[list[str] | None, typer.Option(help="column of pictures; repeatable")] = None,
    image_url: ImageUrl = None,
    extra: Annotated[list[str] | None, typer.Option(help="further column of the interactions to keep")] = None,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import datasets of the Hugging Face hub, or folders of the same layout."""
    from rawrec.sources.huggingface import import_huggingface as work

    data = work(
        interactions, user, item, out=out, time=time, labels=label or [], items=items, item_id=item_id,
        text=text or [], category=category or [], numeric=numeric or [], feature=feature or [],
        vectors=vector_files(vectors), image=image or [], image_url=image_url or [], pictures=pictures,
        extra=extra or [],
        split=split_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@app.command("webdataset", epilog="Example: rawrec import webdataset 'shards/items-{000..009}.tar' "
                   "--interactions clicks.tsv --user user_id --item item_id --time timestamp --text title "
                   "--out data/x")  # fmt: skip
@picture_options
def import_webdataset(
    shards: Annotated[list[str], typer.Argument(help="tar shards of the items, plain or gzipped; {000..009}, * and ?")],
    interactions: Annotated[Path, typer.Option(help="CSV, TSV, JSON lines or Parquet; text also as .gz")],
    user: Annotated[str, typer.Option(help="column of the user's id")],
    item: Annotated[str, typer.Option(help="column of the item's id")],
    out: Out,
    time: Annotated[str | None, typer.Option(help="column of the time (seconds, ms or ISO)")] = None,
    label: Annotated[list[str] | None, typer.Option(help="label column; repeatable; none: all are positives")] = None,
    item_key: Annotated[str | None, typer.Option(help="key of the JSON that is the id (default: file name)")] = None,
    text: Annotated[list[str] | None, typer.Option(help="key of the JSON that is a text; repeatable")] = None,
    category: Annotated[list[str] | None, typer.Option(help="key that is a category; several values between |")] = None,
    numeric: Annotated[list[str] | None, typer.Option(help="key that is a number; repeatable")] = None,
    feature: Annotated[
        list[str] | None, typer.Option(metavar="KEY[=FIELD]", help="key that is a vector; repeatable")
    ] = None,
    vectors: Vectors = None,
    image: Annotated[list[str] | None, typer.Option(help="take only pictures with this extension; repeatable")] = None,
    image_url: ImageUrl = None,
    extra: Annotated[list[str] | None, typer.Option(help="further column of the interactions to keep")] = None,
    split: Split = None,
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    pictures: Any = None,
) -> None:
    """Import items of WebDataset's tar shards, and a table of interactions."""
    from rawrec.sources.webdataset import import_webdataset as work

    data = work(
        shards, interactions, user, item, out=out, time=time, labels=label or [], item_key=item_key, text=text or [],
        category=category or [], numeric=numeric or [], feature=feature or [], vectors=vector_files(vectors),
        image=image or [], image_url=image_url or [], pictures=pictures, extra=extra or [],
        split=split_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite,
    )  # fmt: skip
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
    from rawrec.sources.synthetic import import_synthetic as work

    given: dict[str, Any] = {
        "items": items,
        "users": users,
        "impressions": impressions,
        "size": size,
        "history_events": history_events,
    }
    _imported(work(out, seed=seed, overwrite=overwrite, **{k: v for k, v in given.items() if v is not None}), as_json)
