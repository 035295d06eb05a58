"""Commands for a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rawrec.cli.common import app, columns_of, console, print_json, split_spec, tell, vector_files
from rawrec.cli.options import (
    Columns,
    Encoding,
    Feature,
    Frames,
    ImageDir,
    ImageName,
    ImagePath,
    Item,
    ItemColumns,
    ItemId,
    Json,
    Launched,
    Many,
    Positive,
    Query,
    Ratios,
    Session,
    TimeFormat,
    Timestamp,
    User,
    UserId,
    Users,
    Vectors,
)
from rawrec.cli.pictures import picture_options
from rawrec.errors import UserError
from rawrec.shown import say


@app.command(epilog="Example: rawrec append data/x --interactions monday.tsv --user user_id --item movie_id "
             "--time when --label clicked --items new.tsv --image-dir posters --part test")  # fmt: skip
@picture_options
def append(
    dataset: Annotated[Path, typer.Argument(help="dataset folder")],
    interactions: Annotated[Path | None, typer.Option(help="new interactions; formats as for import table")] = None,
    user: User = "user_id",
    item: Item = "item_id",
    columns: Columns = None,
    time: Timestamp = None,
    time_format: TimeFormat = None,
    label: Annotated[Many, typer.Option(metavar="COLUMN[=FIELD]", help="label; repeatable")] = None,
    positive: Positive = None,
    extra: Annotated[Many, typer.Option(metavar="COLUMN[=FIELD]", help="further column")] = None,
    query: Query = None,
    session: Session = None,
    items: Annotated[Path | None, typer.Option(help="table of the items; those known are left as they are")] = None,
    item_id: ItemId = None,
    item_columns: ItemColumns = None,
    text: Annotated[Many, typer.Option(metavar="COLUMN[=FIELD]", help="text; repeatable")] = None,
    category: Annotated[Many, typer.Option(metavar="COLUMN[=FIELD]", help="categorical column")] = None,
    numeric: Annotated[Many, typer.Option(metavar="COLUMN[=FIELD]", help="numeric column")] = None,
    feature: Feature = None,
    vectors: Vectors = None,
    image_dir: ImageDir = None,
    image_path: ImagePath = None,
    image_name: ImageName = "{item}.jpg",
    image_column: Annotated[
        Many, typer.Option(metavar="COLUMN[=FIELD]", help="column of picture bytes (Parquet)")
    ] = None,
    image_field: Annotated[str | None, typer.Option(help="field of --image-dir, where there are several")] = None,
    frames: Frames = None,
    image_url: Annotated[Many, typer.Option(help="column of addresses of pictures; repeatable")] = None,
    launched: Launched = None,
    users: Users = None,
    user_id: UserId = None,
    user_category: Annotated[Many, typer.Option(metavar="COLUMN[=FIELD]", help="category of the users")] = None,
    user_numeric: Annotated[Many, typer.Option(metavar="COLUMN[=FIELD]", help="number of the users")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="replace the content of items, the attributes of users that are known")
    ] = False,
    part: Annotated[
        str, typer.Option(help="train | valid | test: the new interactions in the default split")
    ] = "train",
    move: Annotated[
        Many, typer.Option(metavar="FROM:TO", help="parts that earlier interactions change; repeatable")
    ] = None,
    as_json: Json = False,
    encoding: Encoding = None,
    *,
    pictures: Any = None,
) -> None:
    """Add new interactions and items, as the next version."""
    from rawrec.data.import_report import ImportReport
    from rawrec.sources.append import append as work

    data = work(
        dataset, interactions, user, item, columns=columns_of(columns) or [], time=time, time_format=time_format,
        labels=label or [], positive=positive, extra=extra or [], query=query, session=session, items=items,
        item_id=item_id, item_columns=columns_of(item_columns) or [], text=text or [], category=category or [],
        numeric=numeric or [], feature=feature or [], vectors=vector_files(vectors), image_dir=image_dir,
        image_name=image_name, image_path=image_path or [], image_column=image_column or [], image_field=image_field,
        frames=frames,
        image_url=image_url or [], launched=launched, pictures=pictures, users=users, user_id=user_id,
        user_category=user_category or [], user_numeric=user_numeric or [], update=update, part=part,
        moved=dict(map(_moved, move or [])), encoding=encoding,
    )  # fmt: skip
    report = ImportReport.load(data.path / f"import-{data.version}.json")
    if as_json:
        print_json({"dataset": str(data.path), "version": data.version, **report.as_dict()})
        return
    report.print_table(console())
    say(f"{data.path} is at version {data.version}; look at it with: rawrec inspect {data.path}")


def _moved(word: str) -> tuple[str, str]:
    old, colon, new = word.partition(":")
    if not colon:
        raise UserError(f"--move {word!r}: give FROM:TO, for example --move test:train")
    return old, new


@app.command(epilog="Example: rawrec validate data/x")
def validate(
    dataset: Annotated[Path, typer.Argument(help="dataset folder")],
    quick: Annotated[bool, typer.Option("--quick", help="1,000 pictures of a field, not all; no digests")] = False,
    as_json: Json = False,
) -> None:
    """Check a dataset whole: files, ids, numbers, pictures, splits."""
    from rawrec.data.validate import print_validation
    from rawrec.data.validate import validate as work

    found = work(dataset, quick)
    if as_json:
        print_json(found.as_dict())
    else:
        print_validation(found, console())
    if not found.sound:
        raise UserError(f"{dataset} is not sound, problems: {len(found.problems)}")


@app.command(epilog="Example: rawrec split data/ml --name new0 --by new_items:poster --share 0.2 --fold 0")
def split(
    dataset: Annotated[Path, typer.Argument(help="dataset folder")],
    name: Annotated[str, typer.Option(help="name of the new split; train with data.split=<name>")],
    by: Annotated[str, typer.Option(help="as --split of the importers")],
    ratios: Ratios = None,
    seed: Annotated[int | None, typer.Option(help="seed of a random split (default: 0)")] = None,
    share: Annotated[float | None, typer.Option(help="new_items: share of the items held out (default: 0.2)")] = None,
    fold: Annotated[int | None, typer.Option(help="new_items: which of the disjoint folds (default: 0)")] = None,
    folds: Annotated[int | None, typer.Option(help="new_items: number of folds (default: 5)")] = None,
    together: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="rows of a user with one value of it stay in one part")
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="rows where it is above 0 make histories only (default: as under the first split)"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Store a further split beside a dataset's own."""
    from rawrec.data.dataset import Dataset

    data = Dataset.open(dataset)
    spec = split_spec(
        by, "--by", ratios, seed=seed, share=share, fold=fold, folds=folds, together=together, history=history
    )
    assert spec is not None
    data.add_split(name, spec)
    stored = Dataset.open(dataset).meta.splits[name]
    tell(f"{name}: {stored['statement']}", {"name": name, **stored}, as_json)


@app.command(epilog="Example: rawrec inspect data/x --html data.html")
def inspect(
    dataset: Annotated[Path, typer.Argument(help="dataset folder")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="one page: pictures, what is missing or twice, drift")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show counts, coverage per modality, buckets and problems."""
    from rawrec.data.inspect import inspect as work
    from rawrec.data.inspect import print_inspection

    if html is not None:
        from rawrec.report import build_data_page, plots

        plots.loaded()
    found = work(dataset)
    if html is not None:
        build_data_page(dataset, html, found)
    if as_json:
        print_json(found)
        return
    print_inspection(found, console())
    if html is not None:
        say(f"wrote {html}")
