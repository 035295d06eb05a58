"""Commands that use a finished run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from rawrec.cli.common import app, console, print_json, tell
from rawrec.cli.options import Context, Data, History, Json, K, KnownUser, RunArgument
from rawrec.errors import UserError


@app.command(epilog="Example: rawrec recommend runs/em3 --user 42 -k 10")
def recommend(
    run: RunArgument,
    user: KnownUser = None,
    history: History = None,
    k: K = 10,
    all_users: Annotated[
        Path | None, typer.Option(help="lists for every user into this file: .parquet, .csv, .jsonl")
    ] = None,
    seen: Annotated[bool, typer.Option("--seen", help="also what the user has taken before")] = False,
    exclude_seen: Annotated[
        str | None,
        typer.Option(help="left out: positives | interactions | none (default: the run's eval.exclude_seen)"),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="LABEL", help="of a run of several labels: the one whose probability counts")
    ] = None,
    context: Context = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The best items for a user, a history, or everybody."""
    from rawrec.models.ranking.context import parse_context
    from rawrec.progress import Bars
    from rawrec.serving.recommender import Recommender

    past = _ids(history) if history is not None else None
    if all_users is not None and (user is not None or past is not None):
        raise UserError("--all-users makes lists for everybody: leave out --user and --history")
    if all_users is None and user is None and past is None:
        raise UserError("say who: --user ID, --history ID,ID,... or --all-users FILE")
    if seen and exclude_seen is not None:
        raise UserError("--seen is --exclude-seen none: give one of them")
    exclude: Any = False if seen else exclude_seen
    given = parse_context(context or [])
    recommender = Recommender.load(run, data)
    if all_users is not None:
        with Bars() as bars:
            path = recommender.recommend_all(all_users, k, exclude, context=given, observer=bars, label=by)
        tell(f"wrote {path}", {"file": str(path)}, as_json)
        return
    found = recommender.recommend(user, past, k, exclude, given, by)
    _tell_both(user, past, left_out=True)
    _show(
        recommender,
        found,
        f"{recommender.measure} of {by}" if by else recommender.measure,
        as_json,
        {"user": user, "history": past, "k": k} | ({"context": given} if given else {}) | ({"by": by} if by else {}),
    )


@app.command(epilog="Example: rawrec search runs/lemur --query 'red striped mug' --user 42")
def search(
    run: RunArgument,
    query: Annotated[str, typer.Option(help="what was typed, any text")],
    user: KnownUser = None,
    history: History = None,
    k: K = 10,
    by: Annotated[
        str,
        typer.Option(metavar="score|content", help="the ranker's probability, or the cosine of query and item alone"),
    ] = "score",
    candidates: Annotated[
        int | None, typer.Option(help="rank only so many items, the nearest by content (default: all)")
    ] = None,
    exclude_seen: Annotated[
        str, typer.Option(help="left out of what the user has met: positives | interactions | none")
    ] = "none",
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="of a run of several labels: the one whose probability counts")
    ] = None,
    context: Context = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The best items for what was typed, by whomever."""
    from rawrec.models.ranking.context import parse_context
    from rawrec.serving.recommender import Recommender

    past = _ids(history) if history is not None else None
    given = parse_context(context or [])
    recommender, mode, exclude = Recommender.load(run, data), cast("Any", by), cast("Any", exclude_seen)
    found = recommender.search(
        query, user=user, history=past, k=k, by=mode, candidates=candidates, exclude_seen=exclude, context=given,
        label=label,
    )  # fmt: skip
    _tell_both(user, past, exclude_seen != "none")
    further = {"context": given or None, "label": label, "candidates": candidates}
    _show(
        recommender,
        found,
        "similarity" if by == "content" else f"{recommender.measure} of {label}" if label else recommender.measure,
        as_json,
        {"query": query, "user": user, "history": past, "k": k, "by": by}
        | {name: value for name, value in further.items() if value is not None},
    )


def _tell_both(user: str | None, history: list[str] | None, left_out: bool) -> None:
    """What a history means to a known user. left_out: whether lists leave out what somebody had."""
    if user is not None and history is not None:
        more = ", and what is left out" if left_out else ""
        print(f"--history stands in place of what {user} did: it is what the model reads{more}", file=sys.stderr)


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
    from rawrec.serving.recommender import Recommender

    recommender = Recommender.load(run, data)
    _show(recommender, recommender.similar(item, k), "similarity", as_json, {"item": item, "k": k})


def _show(recommender: Any, found: list[Any], what: str, as_json: bool, query: dict[str, Any]) -> None:
    if as_json:
        print_json({"recommendations": [{"item": i, "score": s} for i, s in found], "query": query})
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
    console().print(table)


@app.command(epilog="Example: rawrec report runs/em3 --against runs/id")
def report(
    run: RunArgument,
    against: Annotated[Path | None, typer.Option(help="run folder of the baseline")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page about a run, beside a baseline."""
    from rawrec.report import build_report
    from rawrec.serving.recommender import Recommender

    recommender = Recommender.load(run, data)
    path = build_report(run, against, recommender=recommender, data=recommender.data)
    tell(f"wrote {path}", {"report": str(path)}, as_json)


@app.command(epilog="Example: rawrec export runs/em3 --to vectors --out vectors.parquet; "
             "rawrec export runs/lemur --to encoder --out encoders/lemur; "
             "rawrec export data/ml --to recbole --out recbole/ml")  # fmt: skip
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN|DATASET", help="run folder; mmrec, recbole: dataset folder")],
    to: Annotated[str, typer.Option(help="vectors | features | encoder | mmrec | recbole")] = "vectors",
    out: Annotated[
        Path | None,
        typer.Option(
            help="vectors (default: RUN/vectors.parquet), features: a .parquet, .npy, .safetensors or .faiss file; "
            "encoder, mmrec, recbole: a new folder"
        ),
    ] = None,
    field: Annotated[str | None, typer.Option(help="features: the field whose encoder is used")] = None,
    index: Annotated[str | None, typer.Option(help="kind of a .faiss file: flat | hnsw | ivf (default: flat)")] = None,
    split: Annotated[str | None, typer.Option(help="mmrec, recbole: stored split (default: default)")] = None,
    label: Annotated[str | None, typer.Option(help="mmrec: label whose positives are written")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Vectors and features of a run, or a dataset, for other tools."""
    idle = {
        "vectors": {"field": field, "split": split, "label": label},
        "features": {"split": split, "label": label},
        "encoder": {"field": field, "split": split, "label": label, "index": index},
        "mmrec": {"data": data, "field": field, "index": index},
        "recbole": {"data": data, "label": label, "field": field, "index": index},
    }
    if to not in idle:
        raise UserError(f"--to {to!r} is unknown. Known: {', '.join(idle)}")
    for name, value in idle[to].items():
        if value is not None:
            raise UserError(f"--{name} means nothing to --to {to}, leave it out")
    if out is None and to != "vectors":
        raise UserError(f"--to {to} needs --out {'FILE' if to == 'features' else 'FOLDER'}")
    if out is None or to in ("vectors", "features", "encoder"):
        from rawrec.serving.recommender import Recommender

        recommender, target = Recommender.load(source, data), out or source / "vectors.parquet"
        if to == "encoder":
            path = recommender.export_encoder(target)
        elif to == "features":
            path = recommender.export_features(target, field, index)
        else:
            path = recommender.export_vectors(target, index)
        tell(f"wrote {path}", {"file": str(path)}, as_json)
        return
    from rawrec.data import exporters
    from rawrec.data.dataset import Dataset

    dataset, name = Dataset.open(source), split or "default"
    if to == "mmrec":
        done = exporters.export_mmrec(dataset, out, split=name, label=label)
    else:
        done = exporters.export_recbole(dataset, out, split=name)
    counts = ", ".join(f"{part} {count:,}" for part, count in done.interactions.items())
    lines = [f"wrote {out}: {counts}", *(f"- {note}" for note in done.notes)]
    tell("\n".join(lines), {"folder": str(out), "interactions": done.interactions, "notes": done.notes}, as_json)
