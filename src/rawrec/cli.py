"""The command line: one thin function per command.

Exit codes: 0 success, 2 a user's mistake (said without a traceback), 1 a run that could not go on, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rawrec.errors import RunStopped, UserError

if TYPE_CHECKING:
    from rawrec.data.splits import SplitSpec

# Everything heavy is imported inside the commands, so that --help is instant.
app = typer.Typer(
    help="Train recommenders end to end from pictures, words and clicks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
importing = typer.Typer(help="Make a dataset folder from your data.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(importing, name="import")

Out = Annotated[Path, typer.Option("--out", help="folder to write")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what rawrec wrote there before")]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for machines")]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="time_user | time_global | random_user | leave_one_out | column:<name> | new_items[:<field>]",
    ),
]
Ratios = Annotated[str, typer.Option("--ratios", help="train, valid and test shares")]
SplitSeed = Annotated[int, typer.Option("--split-seed", help="seed of a random split")]
RunArgument = Annotated[Path, typer.Argument(help="run folder")]


def main() -> None:
    """Entry point: errors become one message on stderr and an exit code."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error), 2)
    except RunStopped as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted; a training run goes on with `rawrec resume RUN`", 130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), 2)


def _fail(message: str, code: int) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"rawrec: {message}", markup=False)
    sys.exit(code)


def _console() -> Console:
    return Console(highlight=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _spec(split: str | None, ratios: str, seed: int, **more: Any) -> SplitSpec | None:
    from pydantic import ValidationError

    from rawrec.data.splits import SplitSpec

    if split is None:
        return None
    kind, _, name = split.partition(":")
    try:
        shares = [float(part) for part in ratios.replace("/", ",").split(",")]
    except ValueError:
        raise UserError(f"--ratios {ratios!r}: give three numbers, for example 80,10,10") from None
    if len(shares) != 3 or min(shares) < 0 or sum(shares) <= 0:
        raise UserError(f"--ratios {ratios!r}: give three numbers, for example 80,10,10")
    values: dict[str, Any] = {"kind": kind, "ratios": tuple(s / sum(shares) for s in shares), "seed": seed, **more}
    if name:
        values["column" if kind == "column" else "field"] = name
    try:
        return SplitSpec.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"--split {split!r}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def _imported(data: Any, as_json: bool) -> None:
    from rawrec.data.importers.report import ImportReport

    path = data.path / "import.json"
    if as_json:
        _print_json({"dataset": str(data.path), **json.loads(path.read_text())})
        return
    console = _console()
    ImportReport.load(path).print_table(console)
    console.print(f"wrote {data.path}; look at it with: rawrec inspect {data.path}", markup=False)


# ------------------------------------------------------------------------------------------------------------- import
@importing.command("table", epilog="Example: rawrec import table --interactions clicks.tsv --user user_id "
                   "--item movie_id --time order --label clicked --items items.tsv --text title --category genres "
                   "--image-dir posters --image-name '{item}.jpg' --out data/x")  # fmt: skip
def import_table(
    interactions: Annotated[Path, typer.Option(help="CSV, TSV, JSON lines or Parquet; text also as .gz")],
    user: Annotated[str, typer.Option(help="column of the user's id")],
    item: Annotated[str, typer.Option(help="column of the item's id")],
    out: Out,
    time: Annotated[str | None, typer.Option(help="column of the time (seconds, ms or ISO)")] = None,
    label: Annotated[list[str] | None, typer.Option(help="label column; repeat for more; none: all are positives")] = None,
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
    ratios: Ratios = "80,10,10",
    split_seed: SplitSeed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import tables of interactions and items, and a folder of pictures."""
    from rawrec.data.importers.table import import_table as work

    data = work(
        interactions, user, item, out=out, time=time, labels=label or [], items=items, item_id=item_id,
        text=text or [], category=category or [], numeric=numeric or [], image_dir=image_dir, image_name=image_name,
        image_column=image_column or [], image_field=image_field, extra=extra or [],
        split=_spec(split, ratios, split_seed), overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@importing.command("movielens", epilog="Example: rawrec import movielens ml-latest-small "
                   "--posters ml-latest-small/posters --texts ml-latest-small/plots.tsv --out data/ml")  # fmt: skip
def import_movielens(
    folder: Annotated[Path, typer.Argument(help="folder with ratings.csv and movies.csv, or the .dat files")],
    out: Out,
    posters: Annotated[Path | None, typer.Option(help="folder of <movieId>.jpg")] = None,
    texts: Annotated[Path | None, typer.Option(help="table movieId, plot")] = None,
    positive: Annotated[float, typer.Option(help="a rating from here on is a positive")] = 4.0,
    split: Split = None,
    ratios: Ratios = "80,10,10",
    split_seed: SplitSeed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import a MovieLens folder, with posters and plots where you have them."""
    from rawrec.data.importers.movielens import import_movielens as work

    spec = _spec(split, ratios, split_seed)
    _imported(work(folder, posters, texts, positive, out=out, split=spec, overwrite=overwrite), as_json)


@importing.command("mmrec", epilog="Example: rawrec import mmrec baby --out data/baby")
def import_mmrec(
    folder: Annotated[Path, typer.Argument(help="folder with <name>.inter and any *_feat.npy")],
    out: Out,
    split: Split = None,
    ratios: Ratios = "80,10,10",
    split_seed: SplitSeed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import a dataset in MMRec's format; ready-made features become feature columns."""
    from rawrec.data.importers.mmrec import import_mmrec as work

    _imported(work(folder, out=out, split=_spec(split, ratios, split_seed), overwrite=overwrite), as_json)


@importing.command("synthetic", epilog="Example: rawrec import synthetic --out data/shop")
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

    given = {"items": items, "users": users, "impressions": impressions, "size": size, "history_events": history_events}
    _imported(work(out, seed=seed, overwrite=overwrite, **{k: v for k, v in given.items() if v is not None}), as_json)


# --------------------------------------------------------------------------------------------------------------- data
@app.command(epilog="Example: rawrec split data/ml --name new0 --by new_items:poster --share 0.2 --fold 0")
def split(
    dataset: Annotated[Path, typer.Argument(help="dataset folder")],
    name: Annotated[str, typer.Option(help="name of the new split; train with data.split=<name>")],
    by: Annotated[str, typer.Option(help="as --split of the importers")],
    ratios: Ratios = "80,10,10",
    seed: Annotated[int, typer.Option(help="seed of a random split")] = 0,
    share: Annotated[float, typer.Option(help="new_items: share of the items held out")] = 0.2,
    fold: Annotated[int, typer.Option(help="new_items: which of the disjoint folds")] = 0,
    folds: Annotated[int, typer.Option(help="new_items: number of folds")] = 5,
    as_json: Json = False,
) -> None:
    """Store a further split beside a dataset's own."""
    from rawrec.data.dataset import Dataset

    data = Dataset.open(dataset)
    spec = _spec(by, ratios, seed, share=share, fold=fold, folds=folds)
    assert spec is not None
    data.add_split(name, spec)
    stored = Dataset.open(dataset).meta.splits[name]
    if as_json:
        _print_json({"name": name, **stored})
    else:
        _console().print(f"{name}: {stored['statement']}", markup=False)


@app.command(epilog="Example: rawrec inspect data/x")
def inspect(dataset: Annotated[Path, typer.Argument(help="dataset folder")], as_json: Json = False) -> None:
    """Counts of a dataset, coverage per modality, buckets, and problems found."""
    from rawrec.data.inspect import inspect as work
    from rawrec.data.inspect import print_inspection

    found = work(dataset)
    if as_json:
        _print_json(found)
    else:
        print_inspection(found, _console())


# ----------------------------------------------------------------------------------------------------------- training
@app.command(epilog="Example: rawrec train em3 --data data/ml --out runs/em3 train.epochs=5 content.image.train=lora")
def train(
    model: Annotated[str, typer.Argument(help="preset (id, em3) or the path of a .yaml file")],
    data: Annotated[Path, typer.Option(help="dataset folder")],
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a model, evaluate it once on test, and leave a run folder."""
    from rawrec.config import parse_overrides
    from rawrec.progress import Bars
    from rawrec.training.job import train as work

    with Bars() as observer:
        run = work(model, data, out, parse_overrides(overrides or []), overwrite, observer)
    _finished(run, as_json)


@app.command(epilog="Example: rawrec resume runs/em3")
def resume(run: RunArgument, as_json: Json = False) -> None:
    """Go on with a run that was stopped, exactly as if it had not been."""
    from rawrec.progress import Bars
    from rawrec.training.job import resume as work

    with Bars() as observer:
        done = work(run, observer)
    _finished(done, as_json)


def _finished(run: Any, as_json: bool) -> None:
    metrics = json.loads((run.path / "metrics.json").read_text())
    if as_json:
        _print_json({"run": str(run.path), **metrics})
        return
    console = _console()
    console.print(_metrics_table({"valid": metrics["valid"], "test": metrics["test"]}))
    console.print(f"run folder: {run.path}; look at it with: rawrec report {run.path}", markup=False)


@app.command(epilog="Example: rawrec evaluate runs/em3 --split test")
def evaluate(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="valid or test")] = "test",
    as_json: Json = False,
) -> None:
    """Compute a finished run's metrics anew."""
    from rawrec.training.job import evaluate as work

    metrics = work(run, split)
    if as_json:
        _print_json({split: metrics})
    else:
        _console().print(_metrics_table({split: metrics}))


def _metrics_table(parts: dict[str, dict[str, Any]]) -> Table:
    """Rows: metrics; columns: parts and, within the last one, buckets."""
    buckets = ["", "cold/", "rare/", "medium/", "warm/"]
    last = list(parts)[-1]
    table = Table("metric", *parts, *(f"{last} {b.rstrip('/')}" for b in buckets[1:]), box=None, pad_edge=False)
    names = [name for name in parts[last] if "/" not in name]
    for name in names:
        cells = [parts[part].get(name) for part in parts] + [parts[last].get(b + name) for b in buckets[1:]]
        if any(cell is not None for cell in cells):
            table.add_row(name, *(_cell(cell) for cell in cells))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------------------------------------------------- use
@app.command(epilog="Example: rawrec recommend runs/em3 --user 42 -k 10")
def recommend(
    run: RunArgument,
    user: Annotated[str | None, typer.Option(help="a known user's id")] = None,
    history: Annotated[str | None, typer.Option(help="item ids, oldest first, between commas")] = None,
    k: Annotated[int, typer.Option("-k", help="number of items")] = 10,
    all_users: Annotated[Path | None, typer.Option(help="lists for every user, as Parquet, into this file")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="also what the user has taken before")] = False,
    as_json: Json = False,
) -> None:
    """The best items of the whole catalogue for a user, a history, or everybody."""
    from rawrec.recommender import Recommender

    recommender = Recommender.load(run)
    if all_users is not None:
        path = recommender.recommend_all(all_users, k, not seen)
        _print_json({"file": str(path)}) if as_json else _console().print(f"wrote {path}", markup=False)
        return
    past = [part.strip() for part in history.split(",") if part.strip()] if history is not None else None
    found = recommender.recommend(user, past, k, not seen)
    _show(recommender, found, "probability", as_json, {"user": user, "history": past, "k": k})


@app.command(epilog="Example: rawrec similar runs/em3 --item 260 -k 10")
def similar(
    run: RunArgument,
    item: Annotated[str, typer.Option(help="an item's id")],
    k: Annotated[int, typer.Option("-k", help="number of items")] = 10,
    as_json: Json = False,
) -> None:
    """The items whose content is nearest to an item's."""
    from rawrec.recommender import Recommender

    recommender = Recommender.load(run)
    _show(recommender, recommender.similar(item, k), "similarity", as_json, {"item": item, "k": k})


def _show(recommender: Any, found: list[Any], what: str, as_json: bool, query: dict[str, Any]) -> None:
    if as_json:
        _print_json({"recommendations": [{"item": i, "score": s} for i, s in found], "query": query})
        return
    data = recommender.data
    field = next(iter(data.fields.text), None)
    texts = data.texts(field, data.item_rows([i for i, _ in found])) if field and found else [[]] * len(found)
    table = Table("", "item", *([field] if field else []), what, box=None, pad_edge=False)
    for place, ((item, score), text) in enumerate(zip(found, texts, strict=True), 1):
        words = " ".join(text).replace("\n", " ")
        shown = [words if len(words) <= 70 else words[:69] + "…"] if field else []
        table.add_row(str(place), item, *shown, f"{score:.4f}")
    _console().print(table)


@app.command(epilog="Example: rawrec report runs/em3 --against runs/id")
def report(
    run: RunArgument,
    against: Annotated[Path | None, typer.Option(help="run folder of the baseline")] = None,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page about a run, beside a baseline."""
    from rawrec.recommender import Recommender
    from rawrec.report import build_report

    path = build_report(run, against, recommender=Recommender.load(run))
    _print_json({"report": str(path)}) if as_json else _console().print(f"wrote {path}", markup=False)


@app.command(epilog="Example: rawrec export runs/em3 --to vectors --out vectors.parquet")
def export(
    run: RunArgument,
    to: Annotated[str, typer.Option(help="vectors")] = "vectors",
    out: Annotated[Path | None, typer.Option(help=".parquet, .npy or .safetensors (default RUN/vectors.parquet)")] = None,
    as_json: Json = False,
) -> None:
    """Item vectors with their ids, for other tools."""
    from rawrec.recommender import Recommender

    if to != "vectors":
        raise UserError(f"--to {to!r} is unknown. Known: vectors")
    path = Recommender.load(run).export_vectors(out or run / "vectors.parquet")
    _print_json({"file": str(path)}) if as_json else _console().print(f"wrote {path}", markup=False)


if __name__ == "__main__":
    main()
