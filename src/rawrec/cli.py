"""The command line: one thin function per command.

Exit codes: 0 success, 2 a user's mistake (said without a traceback), 1 a run that could not go on, 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from rawrec.errors import RunStopped, UserError

if TYPE_CHECKING:
    from rawrec.data.splits import SplitSpec

ORDER = ["import", "inspect", "split", "train", "resume", "sweep", "evaluate", "compare", "recommend", "similar"]
ORDER += ["report", "export"]


class Ordered(TyperGroup):
    """Commands in the order in which one needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


# Everything heavy is imported inside the commands, so that --help is instant.
app = typer.Typer(
    help="Train recommenders end to end from pictures, words and clicks.",
    epilog="Example: rawrec import synthetic --out data/shop && rawrec train em3 --data data/shop --out runs/em3",
    cls=Ordered,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
importing = typer.Typer(
    help="Make a dataset folder from your data.",
    epilog="Example: rawrec import table --interactions clicks.csv --user user --item item --out data/x",
    no_args_is_help=True,
    rich_markup_mode=None,
)
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
Ratios = Annotated[str | None, typer.Option("--ratios", help="train, valid and test shares (default: 80,10,10)")]
SplitSeed = Annotated[int | None, typer.Option("--split-seed", help="seed of a random split (default: 0)")]
RunArgument = Annotated[Path, typer.Argument(help="run folder")]
Data = Annotated[Path | None, typer.Option("--data", help="where the run's dataset is now, if it has moved")]
K = Annotated[int, typer.Option("-k", min=1, help="number of items")]


def main() -> None:
    """Entry point: errors become one message on stderr and an exit code."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error), 2)
    except RunStopped as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail(INTERRUPTED, 130)
    except SystemExit as stop:  # typer turns an interruption into this
        if stop.code == 130:
            _fail(INTERRUPTED, 130)
        raise
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        _fail(*_explain(error))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        _fail("out of memory; try a smaller train.batch_size, bank.micro_batch, eval.batch_size or data.history", 1)


INTERRUPTED = "interrupted; a training run goes on with `rawrec resume RUN`, a sweep with the same command"
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def _explain(error: OSError) -> tuple[str, int]:
    """Message and exit code for a file that cannot be read or written."""
    what = (str(error.strerror or error).splitlines() or [type(error).__name__])[0]
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}{what}; free some space and try again; a training run goes on with `rawrec resume RUN`", 1
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{where}a folder is needed here, and a file is in the way", 2
    return f"{where}{what}", 2


def _fail(message: str, code: int) -> NoReturn:
    print(f"rawrec: {message}", file=sys.stderr)
    sys.exit(code)


def _console() -> Console:
    """Tables: as wide as the terminal, or wide enough for a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() != "utf-8", indent=1))


def _done(text: str, value: dict[str, Any], as_json: bool) -> None:
    _print_json(value) if as_json else print(text)


def _spec(split: str | None, option: str, ratios: str | None, **given: Any) -> SplitSpec | None:
    """What `--split` asks for. Options that say nothing to its kind are refused."""
    from rawrec.data.splits import SplitSpec

    values = {name: value for name, value in given.items() if value is not None}
    if ratios is not None:
        try:
            shares = [float(part) for part in ratios.replace("/", ",").split(",")]
        except ValueError:
            shares = []
        if len(shares) != 3 or not all(math.isfinite(s) and s >= 0 for s in shares) or sum(shares) <= 0:
            raise UserError(f"--ratios {ratios!r}: give three numbers, for example 80,10,10")
        values["ratios"] = tuple(share / sum(shares) for share in shares)
    if split is None:
        if values:
            raise UserError(f"--{next(iter(values))} needs {option}, for example {option} random_user")
        return None
    kind, _, name = split.partition(":")
    if name:
        values["column" if kind == "column" else "field"] = name
    spec = SplitSpec.model_validate({"kind": kind, **values})
    idle = [key for key in values if key not in spec.settings()]
    if idle:
        raise UserError(f"{option} {split}: {idle[0]} means nothing to a split of this kind, leave it out")
    return spec


def _imported(data: Any, as_json: bool) -> None:
    from rawrec.data.importers.report import ImportReport

    path = data.path / "import.json"
    if as_json:
        _print_json({"dataset": str(data.path), **json.loads(path.read_text())})
        return
    ImportReport.load(path).print_table(_console())
    print(f"wrote {data.path}; look at it with: rawrec inspect {data.path}")


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
        split=_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite,
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
    ratios: Ratios = None,
    split_seed: SplitSeed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import a MovieLens folder, with posters and plots where you have them."""
    from rawrec.data.importers.movielens import import_movielens as work

    spec = _spec(split, "--split", ratios, seed=split_seed)
    _imported(work(folder, posters, texts, positive, out=out, split=spec, overwrite=overwrite), as_json)


@importing.command("mmrec", epilog="Example: rawrec import mmrec baby --out data/baby")
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
        work(folder, out=out, split=_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite), as_json
    )


@importing.command("recbole", epilog="Example: rawrec import recbole ml-1m --text movie_title --positive 4 "
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
        seq_separator=seq_separator, split=_spec(split, "--split", ratios, seed=split_seed), overwrite=overwrite,
    )  # fmt: skip
    _imported(data, as_json)


@importing.command("amazon", epilog="Example: rawrec import amazon --reviews reviews_Baby_5.json.gz "
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

    spec = _spec(split or ("random_user" if preset else None), "--split", ratios, seed=split_seed)
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

    given: dict[str, Any] = {
        "items": items,
        "users": users,
        "impressions": impressions,
        "size": size,
        "history_events": history_events,
    }
    _imported(work(out, seed=seed, overwrite=overwrite, **{k: v for k, v in given.items() if v is not None}), as_json)


# --------------------------------------------------------------------------------------------------------------- data
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
    as_json: Json = False,
) -> None:
    """Store a further split beside a dataset's own."""
    from rawrec.data.dataset import Dataset

    data = Dataset.open(dataset)
    spec = _spec(by, "--by", ratios, seed=seed, share=share, fold=fold, folds=folds)
    assert spec is not None
    data.add_split(name, spec)
    stored = Dataset.open(dataset).meta.splits[name]
    _done(f"{name}: {stored['statement']}", {"name": name, **stored}, as_json)


@app.command(epilog="Example: rawrec inspect data/x")
def inspect(dataset: Annotated[Path, typer.Argument(help="dataset folder")], as_json: Json = False) -> None:
    """Show counts, coverage per modality, buckets and problems."""
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
    model: Annotated[str, typer.Argument(help="preset (em3, lightgcn, freedom, ...) or the path of a .yaml file")],
    data: Annotated[Path, typer.Option(help="dataset folder")],
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a model, evaluate it on test, leave a run folder."""
    from rawrec.config import parse_overrides
    from rawrec.progress import Bars
    from rawrec.training.job import train as work

    with Bars() as observer:
        run = work(model, data, out, parse_overrides(overrides or []), overwrite, observer)
    _finished(run, as_json)


@app.command(epilog="Example: rawrec resume runs/em3")
def resume(run: RunArgument, data: Data = None, as_json: Json = False) -> None:
    """Go on with a run that was stopped, as if it had not been."""
    from rawrec.progress import Bars
    from rawrec.training.job import resume as work

    with Bars() as observer:
        done = work(run, observer, data)
    _finished(done, as_json)


def _finished(run: Any, as_json: bool) -> None:
    metrics = json.loads((run.path / "metrics.json").read_text())
    if as_json:
        _print_json({"run": str(run.path), **metrics})
        return
    parts = {name: metrics[name] for name in ("valid", "test")}
    _console().print(_metrics_table(parts, _main_metrics(metrics["test"])))
    print(f"run folder: {run.path}; all metrics are in its metrics.json; look at it with: rawrec report {run.path}")


@app.command(epilog="Example: rawrec sweep sweep.yaml --jobs 2")
def sweep(
    settings: Annotated[Path, typer.Argument(help="YAML file: model, data, out, search, ... (docs/sweeps.md)")],
    jobs: Annotated[int | None, typer.Option(min=1, help="runs at the same time, in place of the file's")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="begin anew where a sweep stands")] = False,
    as_json: Json = False,
) -> None:
    """Try many settings of a model, choose by validation."""
    from rawrec.training.sweep import print_sweep, teller
    from rawrec.training.sweep import sweep as work

    result = work(settings, jobs, overwrite, teller(Console(stderr=True, highlight=False)))
    if as_json:
        _print_json(result)
    else:
        print_sweep(result, _console())


@app.command(epilog="Example: rawrec evaluate runs/em3 --split test")
def evaluate(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="valid or test")] = "test",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Compute a finished run's metrics anew."""
    from rawrec.training.job import evaluate as work

    metrics = work(run, split, data=data)
    if as_json:
        _print_json({split: metrics})
    else:
        _console().print(_metrics_table({split: metrics}))


def _main_metrics(metrics: dict[str, Any]) -> list[str]:
    """The metrics to look at first; of the lists the cut-off 20, or the longest there is."""
    cutoffs = [int(name.removeprefix("recall@")) for name in metrics if name.startswith("recall@")]
    k = 20 if 20 in cutoffs else max(cutoffs, default=0)
    wanted = ["auc", "gauc", "logloss", "ece", "pcoc", "impressions", "sampled", "share", f"recall@{k}", f"ndcg@{k}"]
    return [name for name in wanted if name in metrics]


def _metrics_table(parts: dict[str, dict[str, Any]], names: list[str] | None = None) -> Table:
    """Rows: metrics (names; None: all); columns: parts and, within the last one, buckets that hold anything."""
    last = list(parts)[-1]
    metrics = parts[last]
    names = [name for name in metrics if "/" not in name] if names is None else names
    buckets = [b for b in ("cold", "rare", "medium", "warm") if any(metrics.get(f"{b}/{n}") for n in names)]
    table = Table("metric", *parts, *(f"{last} {b}" for b in buckets), box=None, pad_edge=False)
    for name in names:
        cells = [parts[part].get(name) for part in parts] + [metrics.get(f"{b}/{name}") for b in buckets]
        if any(cell is not None for cell in cells):
            table.add_row(name, *(_cell(cell) for cell in cells))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


@app.command(epilog="Example: rawrec compare runs/lightgcn-* runs/freedom-* --metric recall@20 --latex table.tex")
def compare(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="run folders; seeds of one model are taken together")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="run folder or model to test against (default: first)")] = None,
    group: Annotated[list[str] | None, typer.Option(help="NAME=RUN,RUN,... as one model; repeatable")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="metric of test; repeatable")] = None,
    level: Annotated[float, typer.Option(help="of intervals; p below 1 - level is significant")] = 0.95,
    bootstrap: Annotated[int, typer.Option(help="resamplings of users behind an interval")] = 2000,
    markdown: Annotated[Path | None, typer.Option(help="write the table for a paper, in Markdown")] = None,
    latex: Annotated[Path | None, typer.Option(help="the same in LaTeX")] = None,
    as_json: Json = False,
) -> None:
    """Test runs against a baseline, several seeds each."""
    from rawrec.evaluation import tables
    from rawrec.evaluation.comparison import compare as work
    from rawrec.training.checkpoint import write_text

    groups = dict(_named(word) for word in group or [])
    found = work(runs or [], baseline, groups, metric, level, bootstrap)
    for path, text in ((markdown, tables.markdown), (latex, tables.latex)):
        if path is not None:
            write_text(path, text(found))
    if as_json:
        _print_json(found.dump())
        return
    _console().print(tables.print_table(found))
    _console().print(Text(tables.caption(found, "bold", tables.BETTER, tables.WORSE)), soft_wrap=True)


def _named(word: str) -> tuple[str, list[str]]:
    name, equals, paths = word.partition("=")
    members = [path for path in paths.split(",") if path]
    if not equals or not name or not members:
        raise UserError(f"--group {word!r}: give NAME=RUN,RUN, for example freedom=runs/f-0,runs/f-1")
    return name, members


# ---------------------------------------------------------------------------------------------------------------- use
@app.command(epilog="Example: rawrec recommend runs/em3 --user 42 -k 10")
def recommend(
    run: RunArgument,
    user: Annotated[str | None, typer.Option(help="a known user's id")] = None,
    history: Annotated[
        str | None, typer.Option(help="item ids, oldest first, between commas (or as a JSON list)")
    ] = None,
    k: K = 10,
    all_users: Annotated[Path | None, typer.Option(help="lists for every user, as Parquet, into this file")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="also what the user has taken before")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The best items for a user, a history, or everybody."""
    from rawrec.recommender import Recommender

    past = _ids(history) if history is not None else None
    if all_users is not None and (user is not None or past is not None):
        raise UserError("--all-users makes lists for everybody: leave out --user and --history")
    if all_users is None and user is None and past is None:
        raise UserError("say who: --user ID, --history ID,ID,... or --all-users FILE.parquet")
    recommender = Recommender.load(run, data)
    if all_users is not None:
        path = recommender.recommend_all(all_users, k, not seen)
        _done(f"wrote {path}", {"file": str(path)}, as_json)
        return
    found = recommender.recommend(user, past, k, not seen)
    _show(recommender, found, recommender.measure, as_json, {"user": user, "history": past, "k": k})


def _ids(text: str) -> list[str]:
    if text.lstrip().startswith("["):
        try:
            return [str(item) for item in json.loads(text)]
        except ValueError:
            pass  # an id may begin with a bracket
    return [part.strip() for part in text.split(",") if part.strip()]


@app.command(epilog="Example: rawrec similar runs/em3 --item 260 -k 10")
def similar(
    run: RunArgument,
    item: Annotated[str, typer.Option(help="an item's id")],
    k: K = 10,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The items whose content is nearest to an item's."""
    from rawrec.recommender import Recommender

    recommender = Recommender.load(run, data)
    _show(recommender, recommender.similar(item, k), "similarity", as_json, {"item": item, "k": k})


def _show(recommender: Any, found: list[Any], what: str, as_json: bool, query: dict[str, Any]) -> None:
    if as_json:
        _print_json({"recommendations": [{"item": i, "score": s} for i, s in found], "query": query})
        return
    if not found:
        print("no other item has content to compare" if what == "similarity" else "nothing is left to recommend")
        return
    data = recommender.data
    field = next(iter(data.fields.text), None)
    texts = data.texts(field, data.item_rows([i for i, _ in found])) if field else [[]] * len(found)
    table = Table("", "item", box=None, pad_edge=False)
    for head in ([field] if field else []) + [what]:
        table.add_column(Text(head))
    for place, ((item, score), text) in enumerate(zip(found, texts, strict=True), 1):
        words = " ".join(text).replace("\n", " ")
        shown = [Text(words if len(words) <= 70 else words[:69] + "…")] if field else []
        table.add_row(str(place), Text(item), *shown, f"{score:.4f}")  # Text: what users wrote is never markup
    _console().print(table)


@app.command(epilog="Example: rawrec report runs/em3 --against runs/id")
def report(
    run: RunArgument,
    against: Annotated[Path | None, typer.Option(help="run folder of the baseline")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page about a run, beside a baseline."""
    from rawrec.recommender import Recommender
    from rawrec.report import build_report

    recommender = Recommender.load(run, data)
    path = build_report(run, against, recommender=recommender, data=recommender.data)
    _done(f"wrote {path}", {"report": str(path)}, as_json)


@app.command(epilog="Example: rawrec export runs/em3 --to vectors --out vectors.parquet; "
             "rawrec export data/ml --to recbole --out recbole/ml")  # fmt: skip
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN|DATASET", help="run folder; mmrec, recbole: dataset folder")],
    to: Annotated[str, typer.Option(help="vectors | mmrec | recbole")] = "vectors",
    out: Annotated[
        Path | None,
        typer.Option(help="vectors: .parquet, .npy or .safetensors (default: RUN/vectors.parquet); else: new folder"),
    ] = None,
    split: Annotated[str | None, typer.Option(help="mmrec, recbole: stored split (default: default)")] = None,
    label: Annotated[str | None, typer.Option(help="mmrec: label whose positives are written")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Item vectors of a run, or a dataset, for other tools."""
    idle = {
        "vectors": {"split": split, "label": label},
        "mmrec": {"data": data},
        "recbole": {"data": data, "label": label},
    }
    if to not in idle:
        raise UserError(f"--to {to!r} is unknown. Known: {', '.join(idle)}")
    for name, value in idle[to].items():
        if value is not None:
            raise UserError(f"--{name} means nothing to --to {to}, leave it out")
    if to == "vectors":
        from rawrec.recommender import Recommender

        path = Recommender.load(source, data).export_vectors(out or source / "vectors.parquet")
        _done(f"wrote {path}", {"file": str(path)}, as_json)
        return
    if out is None:
        raise UserError(f"--to {to} needs --out FOLDER")
    from rawrec.data import exporters
    from rawrec.data.dataset import Dataset

    dataset, name = Dataset.open(source), split or "default"
    if to == "mmrec":
        done = exporters.export_mmrec(dataset, out, split=name, label=label)
    else:
        done = exporters.export_recbole(dataset, out, split=name)
    counts = ", ".join(f"{part} {count:,}" for part, count in done.interactions.items())
    lines = [f"wrote {out}: {counts}", *(f"- {note}" for note in done.notes)]
    _done("\n".join(lines), {"folder": str(out), "interactions": done.interactions, "notes": done.notes}, as_json)


if __name__ == "__main__":
    main()
