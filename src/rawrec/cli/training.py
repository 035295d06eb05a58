"""Commands that train and measure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from rawrec import shown
from rawrec.cli.common import Once, app, console, print_json
from rawrec.cli.options import Data, Json, Out, Overwrite, RunArgument
from rawrec.errors import NeedsProcesses, ToldElsewhere, UserError
from rawrec.shown import counted, say

Log = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="TRACKER[:PROJECT]", help="tell wandb or mlflow of the run, too; repeatable"),
]
BUCKETS = ("cold", "rare", "medium", "warm")


class OfAModel(Once):
    """A command whose `--help` is about the model that is named, where one is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        self.hint_at_settings(args)
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        model, words = given.get("model"), given.get("overrides")
        if given.get("help") and isinstance(model, str):
            _show_model(model, list(words) if isinstance(words, list | tuple) else [])
            raise typer.Exit
        return super().parse_args(ctx, args)


def _models_that_begin(incomplete: str) -> list[str]:
    """For the completion of shells."""
    from rawrec.config import presets
    from rawrec.config.models import model_names

    return [name for name in sorted({*presets(), *model_names()}) if name.startswith(incomplete)]


def _show_model(name: str, overrides: list[str]) -> None:
    from rawrec.config import parse_overrides
    from rawrec.config.listing import page

    found, out = page(name, parse_overrides(overrides)), console()
    say(f"Usage: rawrec train {name} --data DATA --out RUN [KEY=VALUE ...]\n")
    out.print(Text(found.what), soft_wrap=True)
    if found.package != "rawrec":
        out.print(Text(f"From the package {found.package}."), soft_wrap=True)
    lines = [
        line._replace(default=f"{line.default} (given)") if line.setting in found.given else line
        for line in found.settings
    ]
    say("\nIts own settings:")
    out.print(_settings_table(lines))
    shared, given = (" ".join(f"{key}={value}" for key, value in of.items()) for of in (found.shared, found.others))
    for title, words in (("Of the settings of all models it sets", shared), ("Given beside these", given)):
        if words:
            out.print(Text(f"\n{title}: {words}"), soft_wrap=True)
    say("\nAll others: rawrec settings train (or run, data, content, bank, eval). Options: rawrec train --help")


@app.command(
    cls=OfAModel,
    epilog="Example: rawrec train em3 --data data/ml --out runs/em3 train.epochs=5 content.image.train=lora",
)
def train(
    model: Annotated[
        str,
        typer.Argument(
            help="a model (`rawrec models` lists them, `rawrec train MODEL --help` tells of one) or the path of a "
            ".yaml file",
            autocompletion=_models_that_begin,
        ),
    ],
    data: Annotated[Path, typer.Option(help="dataset folder")],
    out: Out,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="settings as key=value (`rawrec settings MODEL` lists them)")
    ] = None,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what the run would be: settings, data, steps; writes nothing")
    ] = False,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Train a model, evaluate it on test, leave a run folder."""
    from rawrec.config import parse_overrides

    if dry_run:
        _show_plan(model, data, out, parse_overrides(overrides or []), overwrite, as_json)
        return
    from rawrec.training.job import train as work
    from rawrec.training.ranks import started

    with _processes(), _bars() as observer:
        if not started():
            observer.say(f"training {model} on {data}")
        run = work(model, data, out, parse_overrides(overrides or []), overwrite, observer, callbacks=_trackers(log))
    if observer is not None:
        _finished(run, as_json)


@contextmanager
def _processes() -> Iterator[None]:
    """Inside, a run that several processes are to train begins: they are started with the same words, in our place."""
    try:
        yield
    except NeedsProcesses as needed:
        from rawrec.training.launch import launch

        raise ToldElsewhere(launch(needed.count, sys.argv[1:])) from None


def _bars() -> Any:
    """What shows the progress of a run; None in the processes for which another one speaks."""
    from rawrec.progress import Bars
    from rawrec.training.ranks import speaks

    return Bars() if speaks() else nullcontext()


def _trackers(words: list[str] | None) -> list[Any]:
    from rawrec.training.trackers import tracker

    return [tracker(word) for word in words or []]


def _show_plan(model: str, data: Path, out: Path, given: dict[str, Any], overwrite: bool, as_json: bool) -> None:
    from rawrec.config.page import written
    from rawrec.training.dry_run import plan

    found = plan(model, data, given)
    stands = out.is_dir() and any(out.iterdir()) and not overwrite
    if as_json:
        print_json({**found.dump(), "out": str(out), "out_is_taken": stands})
        return
    table = Table("setting", "preset", "here", box=None, pad_edge=False)
    for key, (before, now) in found.changed.items():
        table.add_row(key, *(Text("" if value is None else written(value)) for value in (before, now)))
    if found.changed:
        console().print(table)
    facts, sizes = found.data, [f"{name} {size:,.1f} MB" for name, size in found.memory_mb.items()]
    fields = [f"{kind} {', '.join(names)}" for kind, names in facts["fields"].items()]
    learn = [f"{name}: {encoder}, train={train}" for name, (encoder, train) in found.encoders.items()]
    lines = [
        f"model: {found.model} on {found.device}",
        f"data: {facts['path']}: {counted(facts['users'], 'user')}, {counted(facts['items'], 'item')}, "
        f"{facts['train']:,} train, {facts['valid']:,} valid and {facts['test']:,} test of "
        f"{counted(facts['interactions'], 'interaction')}",
        *([f"fields: {'; '.join(fields)}"] if fields else []),
        *([f"encoders: {'; '.join(learn)}"] if learn else []),
        f"steps: {counted(found.samples, 'sample')} an epoch, {counted(found.steps_per_epoch, 'step')}; "
        f"at most {found.steps:,} in all",
        *([f"memory, beside features and activations: {', '.join(sizes)}"] if sizes else []),
        *([f"{out} is not empty: choose another --out, or --overwrite"] if stands else []),
    ]
    console().print(Text("\n".join(lines)), soft_wrap=True)


@app.command(epilog="Example: rawrec runs runs --metric recall@20")
def runs(
    folder: Annotated[Path, typer.Argument(help="folder that holds run folders, at any depth")] = Path("runs"),
    metric: Annotated[str | None, typer.Option(help="metric to show (default: the one that a run follows)")] = None,
    by: Annotated[str, typer.Option(help="order: valid (best first, by dataset), name, started")] = "valid",
    as_json: Json = False,
) -> None:
    """List runs: what they are of, how far they are, how good."""
    from rawrec.training.run_list import list_runs

    found = list_runs(folder, metric, by)
    if as_json:
        print_json([line.dump() for line in found])
        return
    heads = ("run", "state", "model", "data", "seed", "epochs", "seconds", "metric", "valid", "test")
    table = Table(*heads, box=None, pad_edge=False)
    for line in found:
        name = str(line.path.relative_to(folder)) if line.path != folder else line.path.resolve().name
        epochs = f"{line.epochs} of {line.of}" if line.of else str(line.epochs)
        cells = [name, line.state, line.model, line.data, _cell(line.seed), epochs, f"{line.seconds:,.0f}", line.metric]
        damaged = [name, line.state, *[""] * 5, line.reason]
        table.add_row(*map(Text, [*cells, _cell(line.valid), _cell(line.test)] if not line.reason else damaged))
    for column in table.columns[4:7]:
        column.justify = "right"
    console().print(table if found else Text(f"no runs in {folder}"))
    if metric is not None and found and all(line.valid is None and line.test is None for line in found):
        say(f"none of these runs has a metric {metric!r}: what they have stands in their metrics.json")


@app.command(
    epilog="Example: rawrec finetune data/ml --encoder pair:efficientnet_lite0+minilm --out encoders/ml train=top:2"
)
def finetune(
    data: Annotated[Path, typer.Argument(help="dataset folder")],
    encoder: Annotated[
        str,
        typer.Option(help="folder or hub name of CLIP and its kin, of VLMo; or pair:IMAGE+TEXT, any two encoders"),
    ],
    out: Out,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="settings as key=value (`rawrec settings finetune` lists them)")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="itc, or of VLMo also itm, mlm, between commas")] = None,
    image_field: Annotated[list[str] | None, typer.Option(help="image field; repeatable (default: all)")] = None,
    text_field: Annotated[list[str] | None, typer.Option(help="text field; repeatable (default: all)")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Tune an encoder on a dataset's own pictures and texts."""
    from rawrec.config.resolution import parse_overrides, single
    from rawrec.progress import Bars
    from rawrec.training.job import finetune as work

    named = {"loss": loss, "image_fields": image_field, "text_fields": text_field}
    given = single(parse_overrides(overrides or []), {key: value for key, value in named.items() if value})
    if "encoder" in given:
        raise UserError("encoder is given twice: leave it out behind --encoder")
    with Bars() as observer:
        run = work(data, encoder, out, given, overwrite, observer)
    _tuned(run, as_json)


def _tuned(run: Any, as_json: bool) -> None:
    metrics = run.metrics()
    if as_json:
        print_json({"encoder": str(run.path), **metrics})
        return
    before, after = metrics["before"], metrics["valid"]
    table = Table("held-out pairs", "before", "after", box=None, pad_edge=False)
    for name in after:
        table.add_row(name, _cell(before[name]), _cell(after[name]))
    for column in table.columns[1:]:
        column.justify = "right"
    console().print(table)
    say(f"the encoder: {run.path}; use it as content.item.encoder={run.path}")


@app.command(epilog="Example: rawrec resume runs/em3 train.epochs=30")
def resume(
    run: RunArgument,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="settings as key=value under which it goes on, such as train.epochs=30 (docs/runs.md)"),
    ] = None,
    data: Data = None,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Go on with a stopped run exactly, or for more epochs."""
    from rawrec.config import parse_overrides
    from rawrec.training.job import resume as work

    with _processes(), _bars() as observer:
        done = work(run, observer, data, parse_overrides(overrides or []), callbacks=_trackers(log))
    if observer is not None:
        _done(done, as_json)


@app.command(epilog="Example: rawrec finish runs/em3")
def finish(run: RunArgument, data: Data = None, as_json: Json = False) -> None:
    """End a run that was stopped with its best epoch so far."""
    from rawrec.progress import Bars
    from rawrec.training.job import finish as work

    with Bars() as observer:
        done = work(run, observer, data)
    _done(done, as_json)


def _done(run: Any, as_json: bool) -> None:
    (_tuned if run.info().get("task") == "finetune" else _finished)(run, as_json)


def _finished(run: Any, as_json: bool) -> None:
    from rawrec.training.runs import cut_short

    metrics = run.metrics()
    if as_json:
        print_json({"run": str(run.path), **metrics})
        return
    parts = {name: metrics[name] for name in ("valid", "test")}
    cfg = run.config()
    asked = [cfg.train.metric, *cfg.eval.metrics]
    asked += [name for name in metrics["test"] if name.partition("@")[0] in cfg.eval.metrics]
    console().print(_metrics_table(parts, _main_metrics(metrics["test"], asked)))
    if after := cut_short(run.info()):
        say(f"cut short after {after}: the weights are those of the best of them")
    say(f"run folder: {run.path}; all metrics are in its metrics.json; look at it with: rawrec report {run.path}")


@app.command(epilog="Example: rawrec sweep sweep.yaml --jobs 2")
def sweep(
    settings: Annotated[Path, typer.Argument(help="YAML file: model, data, out, search, ... (docs/sweeps.md)")],
    jobs: Annotated[int | None, typer.Option(min=1, help="runs at the same time, in place of the file's")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="begin anew where a sweep stands")] = False,
    as_json: Json = False,
) -> None:
    """Try many settings of a model, choose by validation."""
    from rawrec.training.sweeps.sweep import print_sweep, teller
    from rawrec.training.sweeps.sweep import sweep as work

    result = work(settings, jobs, overwrite, teller(shown.console(stderr=True)))
    if as_json:
        print_json(result)
    else:
        print_sweep(result, console())


@app.command(epilog="Example: rawrec evaluate runs/em3 --split test; rawrec evaluate runs/em3 --without image")
def evaluate(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="valid or test")] = "test",
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="image|text|FIELD", help="as if no item had it: what it adds; repeatable"),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Compute a finished run's metrics anew."""
    from rawrec.progress import Bars
    from rawrec.training.job import evaluate as work

    with Bars() as observer:
        metrics = work(run, split, data=data, observer=observer, without=without or [])
    if as_json:
        print_json({split: metrics})
    else:
        console().print(_metrics_table({split: metrics}))


def _main_metrics(metrics: dict[str, Any], asked: Iterable[str] = ()) -> list[str]:
    """The metrics to look at first: of the lists the cut-off 20, or the longest there is; and those asked for."""
    from rawrec.config.metrics import of_sessions

    cutoffs = [int(name.removeprefix("recall@")) for name in metrics if name.startswith("recall@")]
    k = 20 if 20 in cutoffs else max(cutoffs, default=0)
    wanted = ["auc", "gauc", "qauc", "logloss", "ece", "pcoc", "impressions", "sampled", "share", "qauc_share"]
    of_lists = ("recall", "ndcg", "hit", "coverage", "personalisation", "tail")
    wanted += [*(name for name in metrics if of_sessions(name)), *(f"{name}@{k}" for name in of_lists)]
    wanted += ["topk_users", "topk_users_of"] if "topk_users_of" in metrics else []
    wanted += [name for name in asked if name.split("/")[0] not in BUCKETS]
    further = [name for name in _of_further_labels(metrics) if name.rpartition("/")[2] in wanted[:7]]
    return list(dict.fromkeys([*(name for name in wanted if name in metrics), *further]))


def _of_further_labels(metrics: dict[str, Any]) -> list[str]:
    """Metrics of labels beside the main one, over all items: buy/auc."""
    pairs = [name.partition("/")[::2] for name in metrics if name.count("/") == 1]
    return [f"{label}/{name}" for label, name in pairs if label not in ("stale", *BUCKETS)]


def _metrics_table(parts: dict[str, dict[str, Any]], names: list[str] | None = None) -> Table:
    """Rows: metrics (names; None: all); columns: parts and, within the last one, buckets that hold anything."""
    last = list(parts)[-1]
    metrics = parts[last]
    alone = [name for name in metrics if "/" not in name]
    names = [*alone, *_of_further_labels(metrics)] if names is None else names
    buckets = [b for b in BUCKETS if any(metrics.get(_in_bucket(n, b)) for n in names)]
    table = Table("metric", *parts, *(f"{last} {b}" for b in buckets), box=None, pad_edge=False)
    for name in names:
        cells = [parts[part].get(name) for part in parts] + [metrics.get(_in_bucket(name, b)) for b in buckets]
        if any(cell is not None for cell in cells):
            table.add_row(name, *(_cell(cell) for cell in cells))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _in_bucket(name: str, bucket: str) -> str:
    """auc -> cold/auc, buy/auc -> buy/cold/auc."""
    label, slash, bare = name.rpartition("/")
    return f"{label}{slash}{bucket}/{bare}"


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
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="one page: results, curves, the same users' lists, settings")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Test runs against a baseline, several seeds each."""
    from itertools import chain

    from rawrec.files import write_text
    from rawrec.report import plots, tables
    from rawrec.report.comparison import compare as work
    from rawrec.training.runs import RunFolder

    if data is not None and html is None:
        raise UserError("--data says where the dataset of --html is: give the file, too")
    if html is not None:
        plots.loaded()
    groups = dict(_named(word) for word in group or [])
    found = work(runs or [], baseline, groups, metric, level, bootstrap)
    for path, text in ((markdown, tables.markdown), (latex, tables.latex)):
        if path is not None:
            for run in chain(*found.runs.values()):
                RunFolder(Path(run)).check_export(path)
            write_text(path, text(found))
    if html is not None:
        from rawrec.report import build_comparison

        build_comparison(found, html, data)
    if as_json:
        print_json(found.dump())
        return
    console().print(tables.print_table(found))
    console().print(Text(tables.caption(found, "bold", tables.BETTER, tables.WORSE)), soft_wrap=True)
    popularity = tables.print_popularity(found)
    if popularity is not None:
        console().print()
        console().print(popularity)
    if html is not None:
        say(f"wrote {html}")
    if found.popularity_missing:
        console().print(Text(f"No gains by popularity: {found.popularity_missing}"), soft_wrap=True)


def _named(word: str) -> tuple[str, list[str]]:
    name, equals, paths = word.partition("=")
    members = [path for path in paths.split(",") if path]
    if not equals or not name or not members:
        raise UserError(f"--group {word!r}: give NAME=RUN,RUN, for example freedom=runs/f-0,runs/f-1")
    return name, members


@app.command(epilog="Example: rawrec models")
def models(as_json: Json = False) -> None:
    """List all models, those of installed packages too."""
    from rawrec.config.listing import models as work

    found = work()
    if as_json:
        print_json([line._asdict() for line in found])
        return
    table = Table("model", "kind", "what", "package", box=None, pad_edge=False)
    for line in found:
        table.add_row(*map(Text, line))
    console().print(table)


@app.command(epilog="Example: rawrec settings lightgcn")
def settings(
    name: Annotated[str, typer.Argument(help="a model, or run, train, data, content, bank, eval, finetune, online")],
    as_json: Json = False,
) -> None:
    """Show the settings of a model, with values, defaults and meaning."""
    from rawrec.config.listing import settings as work

    title, found = work(name)
    if as_json:
        print_json([line._asdict() for line in found])
        return
    console().print(Text(title), _settings_table(found))
    commands = {"finetune": "finetune DATA --encoder NAME", "online": "online RUN --log URL"}
    command = commands.get(name, "train MODEL --data DATA")
    say(f"give them as key=value after: rawrec {command} --out RUN")


def _settings_table(lines: Iterable[Iterable[str]]) -> Table:
    table = Table("setting", "values", "default", "meaning", box=None, pad_edge=False)
    for line in lines:
        table.add_row(*map(Text, line))
    return table
