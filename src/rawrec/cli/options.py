"""Options that several commands have, each declared once: of where a command writes, of tables, of items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rawrec.errors import UserError

Many = list[str] | None
"""Of an option that can be repeated."""

# ------------------------------------------------------------------------------------------------------------ in common
Out = Annotated[Path, typer.Option("--out", help="folder to write")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what rawrec wrote there before")]
AllowEmpty = Annotated[
    bool, typer.Option("--allow-empty", help="import also where a field that is asked for ends up empty in all items")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for machines")]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="encoding of the tables that are text, as gb18030, shift_jis, cp1251 (default: UTF-8, or as is found out)",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="time_user | time_global | random_user | leave_one_out | column:<name> | new_items[:<field>]",
    ),
]
Ratios = Annotated[str | None, typer.Option("--ratios", help="train, valid and test shares (default: 80,10,10)")]
SplitSeed = Annotated[int | None, typer.Option("--split-seed", help="seed of a random split (default: 0)")]
RunArgument = Annotated[Path, typer.Argument(help="run folder")]
Data = Annotated[Path | None, typer.Option("--data", help="where the run's dataset is now, if it has moved")]
K = Annotated[int, typer.Option("-k", min=1, help="number of items")]
Newest = Annotated[
    bool, typer.Option("--newest", help="read users, what they did and items from the dataset's newest version")
]
AddedItems = Annotated[
    Path | None, typer.Option("--added", metavar="FOLDER", help="with the items that Recommender.save kept there")
]
KnownUser = Annotated[str | None, typer.Option("--user", help="a known user's id")]
History = Annotated[
    str | None,
    typer.Option(
        "--history",
        help="item ids, oldest first, between commas (or as a JSON list): of someone new; with --user, in place of "
        "what the dataset knows of them",
    ),
]
Context = Annotated[
    Many,
    typer.Option(
        "--context",
        metavar="COLUMN=VALUE",
        help="context of a model that reads it (also time=SECONDS); repeatable",
    ),
]

Skip = Annotated[
    bool,
    typer.Option("--skip-unknown", help="leave ids, and values of --where, aside that are not there, with a warning"),
]
Explain = Annotated[
    bool,
    typer.Option("--explain", help="what of the history is behind each item, and what its score loses without parts"),
]
OnlyItems = Annotated[
    str | None, typer.Option("--items", metavar="FILE|ID,ID", help="these alone: ids, or a file of one id a line")
]
Exclude = Annotated[str | None, typer.Option("--exclude", metavar="FILE|ID,ID", help="none of these")]
WhereOption = Annotated[
    Many,
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE,...",
        help="only items that have one of these values; COLUMN!=VALUE: none of them; of numbers COLUMN=5..20, ..20 or "
        "5..; repeatable",
    ),
]
MaxPer = Annotated[
    Many, typer.Option("--max-per", metavar="COLUMN=N", help="at most N items with one value of a column; repeatable")
]
Diversity = Annotated[
    float, typer.Option("--diversity", help="from 0, scores alone, to 1: items unlike each other (see docs/serving.md)")
]

# --------------------------------------------------------------------------------------------------------- interactions
Interactions = Annotated[Path, typer.Option("--interactions", help="CSV, TSV, JSON lines or Parquet; text also as .gz")]
Columns = Annotated[
    Many,
    typer.Option(
        "--columns", metavar="NAME,...", help="names of all columns of --interactions, a text without a header"
    ),
]
User = Annotated[str, typer.Option("--user", help="column of the user's id")]
Item = Annotated[str, typer.Option("--item", help="column of the item's id")]
Time = Annotated[str | None, typer.Option("--time", help="column of the time (seconds, ms, a date ...)")]
Timestamp = Annotated[str | None, typer.Option("--time", help="column of the time (default: timestamp)")]
TimeFormat = Annotated[
    str | None,
    typer.Option(
        "--time-format",
        metavar="FORM",
        help="what the times are, not to be judged: s | ms | us | ns | order, or a form of strptime, as '%d/%m/%Y'",
    ),
]
Labels = Annotated[
    Many,
    typer.Option("--label", metavar="COLUMN[=NAME]", help="label column; repeatable; none: all are positives"),
]
Positive = Annotated[
    Many,
    typer.Option(
        "--positive",
        metavar="N|COLUMN=VALUE",
        help="which labels are positive: from the number N on ('COLUMN>=N' of one of several), or those of this value; "
        "repeatable",
    ),
]
Rated = Annotated[
    str | None,
    typer.Option(
        "--rated",
        metavar="seen|unseen",
        help="whether what a user rated, as bad too, counts as taken and stays out of lists (default: seen where "
        "--positive is a number)",
    ),
]
Extra = Annotated[
    Many, typer.Option("--extra", metavar="COLUMN[=FIELD]", help="further column of the interactions to keep")
]
ContextCategory = Annotated[
    Many,
    typer.Option(
        "--context-category",
        metavar="COLUMN[=FIELD],...",
        help="categories of the interactions that a ranker may read as context, as device or query; repeatable",
    ),
]
ContextNumeric = Annotated[
    Many,
    typer.Option(
        "--context-numeric", metavar="COLUMN[=FIELD],...", help="numbers of the interactions, as position; likewise"
    ),
]
Query = Annotated[str | None, typer.Option("--query", metavar="COLUMN", help="what was asked for, as it was typed")]
Session = Annotated[
    str | None,
    typer.Option("--session", metavar="COLUMN", help="id of what was shown to a user together, on one request"),
]

# ------------------------------------------------------------------------------------------------------------- users
Users = Annotated[Path | None, typer.Option("--users", help="table of the users' attributes")]
UserId = Annotated[str | None, typer.Option("--user-id", help="its id column (default: as --user)")]
UserCategory = Annotated[
    Many,
    typer.Option(
        "--user-category", metavar="COLUMN[=FIELD],...", help="categories of the users; several values between |"
    ),
]
UserNumeric = Annotated[Many, typer.Option("--user-numeric", metavar="COLUMN[=FIELD],...", help="numbers of the users")]

# ------------------------------------------------------------------------------------------------------------- items
Items = Annotated[Path | None, typer.Option("--items", help="table of the items")]
ItemColumns = Annotated[
    Many,
    typer.Option("--item-columns", metavar="NAME,...", help="names of all its columns, where it has no header"),
]
ItemId = Annotated[str | None, typer.Option("--item-id", help="its id column (default: as --item)")]
Text = Annotated[Many, typer.Option("--text", metavar="COLUMN[=FIELD]", help="text column of the items; repeatable")]
Category = Annotated[
    Many, typer.Option("--category", metavar="COLUMN[=FIELD]", help="categorical column; several values between |")
]
Numeric = Annotated[Many, typer.Option("--numeric", metavar="COLUMN[=FIELD]", help="numeric column; repeatable")]
Feature = Annotated[
    Many,
    typer.Option("--feature", metavar="COLUMN[=FIELD]", help="column of vectors, of the items; repeatable"),
]
Vectors = Annotated[
    Many,
    typer.Option(
        "--vectors", metavar="FIELD=FILE", help="vectors by item id, for a feature: table, .npz, .npy; repeatable"
    ),
]
ImageDir = Annotated[Path | None, typer.Option("--image-dir", help="folder of pictures")]
ImagePath = Annotated[
    Many,
    typer.Option(
        "--image-path",
        metavar="COLUMN[=FIELD]",
        help="column of paths of pictures, lists or several between |, within --image-dir or the table's folder; "
        "repeatable",
    ),
]
ImageName = Annotated[
    str,
    typer.Option(
        "--image-name",
        help="file name of an item's picture in --image-dir; '{item}/*.jpg' takes several, '{item:.3}/{item}.jpg' has "
        "folders by the id's first three characters",
    ),
]
ImageColumn = Annotated[
    Many, typer.Option("--image-column", metavar="COLUMN[=FIELD]", help="column of picture bytes (Parquet)")
]
ImageField = Annotated[str, typer.Option("--image-field", help="name of the field of --image-dir")]
Frames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        metavar="N",
        help="of each item's folder of frames, video, GIF or WebP in --image-dir, N frames evenly sampled; its name is "
        "{item}, with or without a suffix, unless --image-name says otherwise",
    ),
]
Launched = Annotated[
    str | None,
    typer.Option("--launched", metavar="COLUMN", help="when each item began to exist; needs --time"),
]
ImageUrl = Annotated[Many, typer.Option("--image-url", help="column of addresses of pictures to download; repeatable")]

# --------------------------------------------------------------------------------------- folders of MicroLens, PixelRec
Pairs = Annotated[Path | None, typer.Option("--pairs", help="the interactions, where the folder holds several")]
Titles = Annotated[Path | None, typer.Option("--titles", help="the items, where the folder holds several")]
Covers = Annotated[Path | None, typer.Option("--covers", help="folder of <item>.jpg (default: as found)")]
On = Annotated[
    str | None, typer.Option(metavar="ray", help="ray: on a cluster of Ray's, or a Ray of its own on this machine")
]
Workers = Annotated[int | None, typer.Option(min=1, help="with --on ray: processors that compute (default: 2)")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="with --on ray: the cluster's head, or auto (default: RAY_ADDRESS, or none)"
    ),
]


def on_ray(on: str | None, **given: object) -> bool:
    """Whether Ray computes. UserError where --on names something else, and for its options without it."""
    if on not in (None, "ray"):
        raise UserError(f"--on {on}: Ray is what is known, --on ray")
    for name, value in given.items():
        if on is None and value is not None:
            raise UserError(f"--{name} is of --on ray: give both, or leave it out")
    return on is not None
