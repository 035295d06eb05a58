"""`rawrec import`: one command per source of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rawrec.cli.options import (
    Category,
    Columns,
    ContextCategory,
    ContextNumeric,
    Covers,
    Encoding,
    Extra,
    Feature,
    Frames,
    ImageColumn,
    ImageDir,
    ImageField,
    ImageName,
    ImagePath,
    ImageUrl,
    Interactions,
    Item,
    ItemColumns,
    ItemId,
    Items,
    Json,
    Labels,
    Launched,
    Many,
    Numeric,
    Out,
    Overwrite,
    Pairs,
    Positive,
    Query,
    Rated,
    Session,
    Text,
    Time,
    TimeFormat,
    Timestamp,
    Titles,
    User,
    UserCategory,
    UserId,
    UserNumeric,
    Users,
    Vectors,
)
from rawrec.cli.sources import Work, imported, importing, source


@source("table", "rawrec import table --interactions clicks.tsv --user user_id "
                   "--item movie_id --time order --label clicked --items items.tsv --text title --category genres "
                   "--image-dir posters --image-name '{item}.jpg' --out data/x")  # fmt: skip
def import_table(
    interactions: Interactions,
    user: User,
    item: Item,
    columns: Columns = None,
    time: Time = None,
    time_format: TimeFormat = None,
    labels: Labels = None,
    positive: Positive = None,
    rated: Rated = None,
    items: Items = None,
    item_id: ItemId = None,
    item_columns: ItemColumns = None,
    text: Text = None,
    category: Category = None,
    numeric: Numeric = None,
    feature: Feature = None,
    vectors: Vectors = None,
    image_dir: ImageDir = None,
    image_path: ImagePath = None,
    image_name: ImageName = "{item}.jpg",
    image_column: ImageColumn = None,
    image_field: ImageField = "image",
    frames: Frames = None,
    image_url: ImageUrl = None,
    launched: Launched = None,
    extra: Extra = None,
    context_category: ContextCategory = None,
    context_numeric: ContextNumeric = None,
    query: Query = None,
    session: Session = None,
    users: Users = None,
    user_id: UserId = None,
    user_category: UserCategory = None,
    user_numeric: UserNumeric = None,
    encoding: Encoding = None,
) -> Work:
    """Import tables of interactions and items, and a folder of pictures."""
    from rawrec.sources.table import import_table as work

    return work


@source("movielens", "rawrec import movielens ml-latest-small "
                   "--posters ml-latest-small/posters --texts ml-latest-small/plots.tsv --out data/ml")  # fmt: skip
def import_movielens(
    folder: Annotated[Path, typer.Argument(help="folder with ratings.csv and movies.csv, the .dat files, or u.data")],
    posters: Annotated[Path | None, typer.Option(help="folder of <movieId>.jpg")] = None,
    texts: Annotated[Path | None, typer.Option(help="table movieId, plot")] = None,
    positive: Annotated[float, typer.Option(help="a rating from here on is a positive")] = 4.0,
    rated: Rated = None,
    encoding: Encoding = None,
) -> Work:
    """Import a MovieLens folder, with posters and plots where you have them."""
    from rawrec.sources.movielens import import_movielens as work

    return work


@source("mmrec", "rawrec import mmrec baby --out data/baby")
def import_mmrec(
    folder: Annotated[Path, typer.Argument(help="folder with <name>.inter and any *_feat.npy")],
    encoding: Encoding = None,
) -> Work:
    """Import a dataset in MMRec's format; ready-made features become feature columns."""
    from rawrec.sources.mmrec import import_mmrec as work

    return work


@source("recbole", "rawrec import recbole ml-1m --text movie_title --positive 4 "
                   "--out data/ml")  # fmt: skip
def import_recbole(
    folder: Annotated[Path, typer.Argument(help="folder with <name>.inter and, where there is one, <name>.item")],
    positive: Annotated[
        float | None, typer.Option(help="a rating from here on is a positive (default: every row is one)")
    ] = None,
    rated: Rated = None,
    labels: Annotated[
        Many, typer.Option("--label", metavar="COLUMN[=NAME]", help="label column; repeatable (default: label)")
    ] = None,
    text: Annotated[
        Many, typer.Option(metavar="COLUMN[=FIELD]", help="token_seq column that is a text; repeatable")
    ] = None,
    user: User = "user_id",
    item: Item = "item_id",
    time: Timestamp = None,
    time_format: TimeFormat = None,
    seq_separator: Annotated[str, typer.Option(help="between the values of a sequence")] = " ",
    context_category: ContextCategory = None,
    context_numeric: ContextNumeric = None,
    query: Query = None,
    session: Session = None,
    image_url: ImageUrl = None,
    encoding: Encoding = None,
) -> Work:
    """Import RecBole's atomic files; <name>.train.inter and so on become the split."""
    from rawrec.sources.recbole import import_recbole as work

    return work


@source("amazon", "rawrec import amazon --reviews reviews_Baby_5.json.gz "
                   "--meta meta_Baby.json.gz --preset lmm --out data/baby", preset_split="random_user")  # fmt: skip
def import_amazon(
    reviews: Annotated[Path, typer.Option(help="reviews, or ratings only as CSV; also as .gz")],
    meta: Annotated[Path | None, typer.Option(help="the catalogue; also as .gz")] = None,
    positive: Annotated[
        float | None, typer.Option(help="a rating from here on is a positive (default: every one is)")
    ] = None,
    rated: Rated = None,
    k_core: Annotated[
        int | None, typer.Option(min=1, help="only users and items with at least so many ratings")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="lmm: 5-core, every rating a positive, random_user 80,10,10")
    ] = None,
    image_urls: Annotated[
        str | None,
        typer.Option(
            help="download all pictures or the main one of each product, or keep the addresses", metavar="all|main|keep"
        ),
    ] = None,
    encoding: Encoding = None,
) -> Work:
    """Import Amazon's reviews and catalogue, releases 2014, 2018 and 2023."""
    from rawrec.sources.amazon import import_amazon as work

    return work


@source("microlens", "rawrec import microlens MicroLens-50k --out data/microlens")
def import_microlens(
    folder: Annotated[Path, typer.Argument(help="folder with *_pairs.csv (or .tsv), *_titles.csv and *_covers")],
    pairs: Pairs = None,
    titles: Titles = None,
    covers: Covers = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="also likes and views, which were counted after the interactions")
    ] = False,
    encoding: Encoding = None,
) -> Work:
    """Import MicroLens: who watched what in which order, titles, tags and covers."""
    from rawrec.sources.microlens import import_microlens as work

    return work


@source("pixelrec", "rawrec import pixelrec Pixel200K --out data/pixelrec")
def import_pixelrec(
    folder: Annotated[Path, typer.Argument(help="folder with the CSV files of interactions and items, and covers")],
    pairs: Pairs = None,
    titles: Titles = None,
    covers: Covers = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="also the columns *_number, which were counted after the interactions")
    ] = False,
    encoding: Encoding = None,
) -> Work:
    """Import PixelRec: who watched what and when, titles, tags, descriptions and covers."""
    from rawrec.sources.microlens import import_pixelrec as work

    return work


@source("mind", "rawrec import mind MIND --out data/mind")
def import_mind(
    folder: Annotated[
        Path, typer.Argument(help="folder with behaviors.tsv and news.tsv, or of such folders: train, dev, test")
    ],
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="add the clicks that the first impression lists as earlier")
    ] = True,
    encoding: Encoding = None,
) -> Work:
    """Import MIND, Microsoft's news: what was shown, what was clicked, and the news."""
    from rawrec.sources.mind import import_mind as work

    return work


@source("taobao-mm", "rawrec import taobao-mm Taobao-MM --history 50 --out data/taobao")
def import_taobao_mm(
    folder: Annotated[Path, typer.Argument(help="folder with raw, or with train and test, and feature_map")],
    history: Annotated[
        int, typer.Option(min=0, help="add so many of a user's earlier products, the latest; 0: none")
    ] = 50,
    rows: Annotated[int | None, typer.Option(min=1, help="of each part so many rows, the first (default: all)")] = None,
) -> Work:
    """Import Taobao-MM: advertisements shown and clicked, long histories, vectors of the products."""
    from rawrec.sources.taobao_mm import import_taobao_mm as work

    return work


@source("impressions", "rawrec import impressions --impressions shown.jsonl --user user "
                   "--items-shown items --clicks clicks --query query --time time --items items.tsv --text title "
                   "--out data/search")  # fmt: skip
def import_impressions(
    impressions: Annotated[Path, typer.Option(help="a row per shown list: CSV, TSV, JSON lines or Parquet; also .gz")],
    user: User,
    items_shown: Annotated[str, typer.Option(help="column of the list of the items' ids")],
    clicks: Annotated[str, typer.Option(help="column of the list of clicks")],
    clicks_are: Annotated[
        str | None, typer.Option(help="ids of the items clicked | flags, 0 or 1 per item (default: what fits)")
    ] = None,
    query: Query = None,
    session: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="id of the list, or of several (default: the row)")
    ] = None,
    time: Time = None,
    time_format: TimeFormat = None,
    extra: Annotated[Many, typer.Option(metavar="COLUMN[=FIELD]", help="further column to keep; repeatable")] = None,
    context_category: ContextCategory = None,
    context_numeric: ContextNumeric = None,
    users: Users = None,
    user_id: UserId = None,
    user_category: UserCategory = None,
    user_numeric: UserNumeric = None,
    separator: Annotated[str | None, typer.Option(help="between the values of a list in a string")] = None,
    items: Items = None,
    item_id: Annotated[str, typer.Option(help="its id column")] = "item_id",
    text: Text = None,
    category: Category = None,
    numeric: Numeric = None,
    feature: Feature = None,
    vectors: Vectors = None,
    image_dir: ImageDir = None,
    image_path: ImagePath = None,
    image_name: ImageName = "{item}.jpg",
    image_column: ImageColumn = None,
    image_field: ImageField = "image",
    frames: Frames = None,
    image_url: ImageUrl = None,
    encoding: Encoding = None,
    launched: Launched = None,
) -> Work:
    """Import a table of shown lists with their clicks, as search engines and feeds log them."""
    from rawrec.sources.impressions import import_impressions as work

    return work


@source("huggingface", "rawrec import huggingface --interactions org/clicks@train --user user_id "
                   "--item item_id --time timestamp --items org/products --text title --category genre --image cover "
                   "--out data/x")  # fmt: skip
def import_huggingface(
    interactions: Annotated[str, typer.Option(metavar="NAME[:CONFIG][@SPLIT]", help="dataset of the hub, or folder")],
    user: User,
    item: Item,
    time: Time = None,
    time_format: TimeFormat = None,
    labels: Labels = None,
    positive: Positive = None,
    rated: Rated = None,
    items: Annotated[
        str | None,
        typer.Option(metavar="NAME[:CONFIG][@SPLIT]", help="the items (default: columns of the interactions)"),
    ] = None,
    item_id: Annotated[str | None, typer.Option(help="their id column (default: as --item)")] = None,
    text: Text = None,
    category: Category = None,
    numeric: Numeric = None,
    feature: Feature = None,
    vectors: Vectors = None,
    image: Annotated[Many, typer.Option(metavar="COLUMN[=FIELD]", help="column of pictures; repeatable")] = None,
    image_url: ImageUrl = None,
    launched: Launched = None,
    extra: Extra = None,
    context_category: ContextCategory = None,
    context_numeric: ContextNumeric = None,
    query: Query = None,
    session: Session = None,
    users: Annotated[str | None, typer.Option(metavar="NAME[:CONFIG][@SPLIT]", help="the users' attributes")] = None,
    user_id: UserId = None,
    user_category: UserCategory = None,
    user_numeric: UserNumeric = None,
    encoding: Encoding = None,
) -> Work:
    """Import datasets of the Hugging Face hub, or folders of the same layout."""
    from rawrec.sources.huggingface import import_huggingface as work

    return work


@source("webdataset", "rawrec import webdataset 'shards/items-{000..009}.tar' "
                   "--interactions clicks.tsv --user user_id --item item_id --time timestamp --text title "
                   "--out data/x")  # fmt: skip
def import_webdataset(
    shards: Annotated[list[str], typer.Argument(help="tar shards of the items, plain or gzipped; {000..009}, * and ?")],
    interactions: Interactions,
    user: User,
    item: Item,
    time: Time = None,
    time_format: TimeFormat = None,
    labels: Labels = None,
    positive: Positive = None,
    rated: Rated = None,
    item_key: Annotated[str | None, typer.Option(help="key of the JSON that is the id (default: file name)")] = None,
    text: Annotated[
        Many, typer.Option(metavar="KEY[=FIELD]", help="key of the JSON that is a text; repeatable")
    ] = None,
    category: Annotated[
        Many, typer.Option(metavar="KEY[=FIELD]", help="key that is a category; several values between |")
    ] = None,
    numeric: Annotated[Many, typer.Option(metavar="KEY[=FIELD]", help="key that is a number; repeatable")] = None,
    feature: Annotated[Many, typer.Option(metavar="KEY[=FIELD]", help="key that is a vector; repeatable")] = None,
    vectors: Vectors = None,
    image: Annotated[Many, typer.Option(help="take only pictures with this extension; repeatable")] = None,
    image_url: ImageUrl = None,
    launched: Launched = None,
    extra: Extra = None,
    context_category: ContextCategory = None,
    context_numeric: ContextNumeric = None,
    query: Query = None,
    session: Session = None,
    users: Users = None,
    user_id: UserId = None,
    user_category: UserCategory = None,
    user_numeric: UserNumeric = None,
    encoding: Encoding = None,
) -> Work:
    """Import items of WebDataset's tar shards, and a table of interactions."""
    from rawrec.sources.webdataset import import_webdataset as work

    return work


@importing.command("openclipart", epilog="Example: rawrec import openclipart --out data/clipart")
def import_openclipart(
    out: Out,
    folder: Annotated[
        str, typer.Argument(help="with png and svg, as Debian's packages install it")
    ] = "/usr/share/openclipart",
    title_uses: Annotated[int, typer.Option(min=1, help="titles of more pictures are names of collections")] = 5,
    keywords: Annotated[int, typer.Option(min=0, help="a picture needs so many")] = 2,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import clip art with titles and keywords: pairs for `rawrec finetune`, without interactions."""
    from rawrec.sources.openclipart import import_openclipart as work

    imported(work(folder, out=out, title_uses=title_uses, keywords=keywords, overwrite=overwrite), as_json)


@importing.command("synthetic", epilog="Example: rawrec import synthetic --out data/shop")
def import_synthetic(
    out: Out,
    items: Annotated[int | None, typer.Option(help="products")] = None,
    users: Annotated[int | None, typer.Option(help="users")] = None,
    impressions: Annotated[int | None, typer.Option(help="products shown")] = None,
    history_events: Annotated[int | None, typer.Option(help="at least so many impressions per user")] = None,
    seed: Annotated[int, typer.Option(help="the same seed makes the same shop")] = 0,
    size: Annotated[int | None, typer.Option(help="side of a picture in pixels")] = None,
    context: Annotated[
        bool, typer.Option("--context", help="clicks also depend on age group, device, hour and position")
    ] = False,
    queries: Annotated[
        bool, typer.Option("--queries", help="users search, and see several products at once; clicks depend on both")
    ] = False,
    shown: Annotated[int | None, typer.Option(help="with --queries: products per search (default: 8)")] = None,
    buy_rate: Annotated[
        float | None, typer.Option(help="a second label, buy: mean probability of a purchase given a click")
    ] = None,
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
        "buy_rate": buy_rate,
        "shown": shown,
    }
    given = {name: value for name, value in given.items() if value is not None}
    imported(work(out, seed=seed, context=context, queries=queries, overwrite=overwrite, **given), as_json)
