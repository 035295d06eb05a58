"""Commands that use a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from rawrec.cli.common import app, console, print_json, tell
from rawrec.cli.options import (
    AddedItems,
    Context,
    Data,
    Diversity,
    Exclude,
    Explain,
    History,
    Json,
    K,
    KnownUser,
    MaxPer,
    Newest,
    OnlyItems,
    RunArgument,
    Skip,
    WhereOption,
)
from rawrec.errors import UserError
from rawrec.shown import say


@app.command(epilog="Example: rawrec recommend runs/em3 --user 42 -k 10 --where category=mugs,lamps --where price=..20")
def recommend(
    run: RunArgument,
    user: KnownUser = None,
    history: History = None,
    k: K = 10,
    all_users: Annotated[
        Path | None, typer.Option(help="lists for every user into this file: .parquet, .csv, .jsonl")
    ] = None,
    users: Annotated[
        str | None, typer.Option("--users", metavar="FILE|ID,ID", help="with --all-users: lists for these alone")
    ] = None,
    items: OnlyItems = None,
    exclude: Exclude = None,
    where: WhereOption = None,
    max_per: MaxPer = None,
    diversity: Diversity = 0.0,
    explain: Explain = False,
    skip_unknown: Skip = False,
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
    newest: Newest = False,
    added: AddedItems = None,
    as_json: Json = False,
) -> None:
    """The best items for a user, a history, or everybody."""
    from rawrec.models.ranking.context import parse_context
    from rawrec.progress import Bars
    from rawrec.serving.filters import parse_max_per, parse_where
    from rawrec.serving.recommender import Recommender

    past = _ids(history) if history is not None else None
    if all_users is not None and (user is not None or past is not None):
        raise UserError("--all-users makes lists for everybody: leave out --user and --history")
    if all_users is None and users is not None:
        raise UserError("--users says for whom --all-users FILE makes lists: give the file, too")
    if all_users is None and user is None and past is None:
        raise UserError("say who: --user ID, --history ID,ID,... or --all-users FILE")
    if all_users is not None and explain:
        raise UserError("--explain is of one list: leave out --all-users")
    if seen and exclude_seen is not None:
        raise UserError("--seen is --exclude-seen none: give one of them")
    left_out: Any = False if seen else exclude_seen
    given, limits = parse_context(context or []), parse_max_per(max_per or [])
    recommender = Recommender.load(run, data, newest=newest, added=added)
    asked: dict[str, Any] = {
        "items": _ids_or_file(items),
        "exclude": _ids_or_file(exclude),
        "where": parse_where(where or [], recommender.data.fields.numeric) or None,
        "max_per": limits or None,
        "diversity": diversity,
        "unknown": "skip" if skip_unknown else "refuse",
    }
    if all_users is not None:
        with Bars() as bars:
            path = recommender.recommend_all(
                all_users, k, left_out, context=given, observer=bars, label=by, users=_ids_or_file(users), **asked
            )
        tell(f"wrote {path}", {"file": str(path)}, as_json)
        return
    found: Any = recommender.recommend(
        user, past, k, exclude_seen=left_out, context=given, label=by, explain=explain, **asked
    )
    _tell_both(user, past, left_out=True)
    said = {"context": given, "by": by} | asked | {"unknown": "skip" if skip_unknown else None}
    _show(
        recommender,
        found,
        f"{recommender.measure} of {by}" if by else recommender.measure,
        as_json,
        {"user": user, "history": past, "k": k} | {name: value for name, value in said.items() if value},
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
    newest: Newest = False,
    added: AddedItems = None,
    as_json: Json = False,
) -> None:
    """The best items for what was typed, by whomever."""
    from rawrec.models.ranking.context import parse_context
    from rawrec.serving.recommender import Recommender

    past = _ids(history) if history is not None else None
    given = parse_context(context or [])
    recommender = Recommender.load(run, data, newest=newest, added=added)
    mode, exclude = cast("Any", by), cast("Any", exclude_seen)
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
        say(f"--history stands in place of what {user} did: it is what the model reads{more}", error=True)


def _ids(text: str) -> list[str]:
    if text.lstrip().startswith("["):
        try:
            return [str(item) for item in json.loads(text)]
        except ValueError:
            pass  # an id may begin with a bracket
    return [part.strip() for part in text.split(",") if part.strip()]


def _ids_or_file(text: str | None) -> list[str] | None:
    """Ids of an option: of the lines of a file of this name, or as `_ids` reads them."""
    if text is None or not Path(text).is_file():
        return None if text is None else _ids(text)
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{text} cannot be read as a list of ids, one a line: {error}") from None
    return [line.strip() for line in lines if line.strip()]


@app.command(epilog="Example: rawrec similar runs/em3 --item 260 -k 10; rawrec similar runs/em3 --image photo.jpg")
def similar(
    run: RunArgument,
    item: Annotated[str | None, typer.Option(help="an item's id")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="a picture in its place; compared with pictures")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="a text in its place; compared with texts")] = None,
    field: Annotated[
        str | None, typer.Option("--field", help="which field --image or --text is of, where there are several")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="content|id|image|text|FIELD", help="compare by this (default: content, see docs/serving.md)"
        ),
    ] = None,
    k: K = 10,
    data: Data = None,
    newest: Newest = False,
    added: AddedItems = None,
    as_json: Json = False,
) -> None:
    """The items that are nearest to an item, to a picture or to a text."""
    from rawrec.serving.recommender import Recommender

    new = {name: value for name, value in (("image", image), ("text", text)) if value is not None}
    if (item is None) == (not new):
        raise UserError("say what: --item ID, or --image FILE, --text TEXT or both")
    if field is not None and len(new) != 1:
        raise UserError("--field says which field --image or --text is of: give one of them with it")
    if field is not None:
        new = {field: image or text}
    if image is not None and not image.is_file():
        raise UserError(f"--image: there is no file {image}")
    if by is None and len(new) == 1:
        by = next(iter(new))
    recommender = Recommender.load(run, data, newest=newest, added=added)
    found = recommender.similar(new if item is None else item, k, by)
    asked = {"item": item, "by": by, **{name: str(value) for name, value in new.items()}}
    query = {name: value for name, value in asked.items() if value is not None}
    _show(recommender, found, "similarity", as_json, {**query, "k": k})


def _show(recommender: Any, found: list[Any], what: str, as_json: bool, query: dict[str, Any]) -> None:
    """Items with their scores, and what is behind them where they are explained."""
    explained = bool(found) and hasattr(found[0], "because")
    if as_json:
        print_json({"recommendations": [_plain(one, explained) for one in found], "query": query})
        return
    if not found:
        say("no other item has content to compare" if what == "similarity" else "nothing is left to recommend")
        return
    table = Table("", "item", box=None, pad_edge=False)
    texts, field = _texts(recommender, [one.item for one in found])
    heads = [f"without {name}" for name in found[0].parts] if explained else []
    for head in ([field] if field else []) + [what, *heads] + (["because"] if explained else []):
        table.add_column(Text(head))
    for place, (one, text) in enumerate(zip(found, texts, strict=True), 1):
        words = " ".join(text).replace("\n", " ")
        shown = [Text(words if len(words) <= 70 else words[:69] + "…")] if field else []
        more = [f"{-loss:+.4f}" for loss in one.parts.values()] if explained else []
        reasons = [Text(", ".join(f"{item} {weight:.2f}" for item, weight in one.because))] if explained else []
        table.add_row(str(place), Text(one.item), *shown, f"{one.score:.4f}", *more, *reasons)  # Text: never markup
    console().print(table)


def _plain(one: Any, explained: bool) -> dict[str, Any]:
    found = {"item": one.item, "score": one.score}
    if not explained:
        return found
    because = [{"item": item, "weight": weight} for item, weight in one.because]
    return found | {"because": because, "by": one.by, "parts": one.parts}


def _texts(recommender: Any, items: list[str]) -> tuple[list[list[str]], str | None]:
    """The first text field of items, of which some may not be of the dataset, and its name."""
    data = recommender.people
    field = next(iter(data.fields.text), None)
    if field is None:
        return [[]] * len(items), None
    known = set(data.item_ids)
    there = [item for item in items if item in known]
    found = dict(zip(there, data.texts(field, data.item_rows(there)), strict=True))
    return [found.get(item, []) for item in items], field


@app.command(epilog="Example: rawrec report runs/em3 --against runs/id")
def report(
    run: RunArgument,
    against: Annotated[Path | None, typer.Option(help="run folder of the baseline")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="the page (default: RUN/report.html)")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page about a run, beside a baseline."""
    from rawrec.report import build_report, plots
    from rawrec.serving.recommender import Recommender

    plots.loaded()
    recommender = Recommender.load(run, data)
    path = build_report(run, against, out, recommender=recommender, data=recommender.data)
    tell(f"wrote {path}", {"report": str(path)}, as_json)


@app.command(epilog="Example: rawrec export runs/em3 --to vectors --out vectors.parquet; "
             "rawrec export runs/lemur --to encoder --out encoders/lemur; "
             "rawrec export data/ml --to recbole --out recbole/ml")  # fmt: skip
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN|DATASET", help="run folder; mmrec, recbole: dataset folder")],
    to: Annotated[str, typer.Option(help="vectors | user-vectors | features | encoder | mmrec | recbole")] = "vectors",
    out: Annotated[
        Path | None,
        typer.Option(
            help="vectors (default: RUN/vectors.parquet), features: a .parquet, .npy, .safetensors or .faiss file; "
            "user-vectors, of retrieval models: a .parquet, .npy or .safetensors file; encoder, mmrec, recbole: a new "
            "folder"
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
        "user-vectors": {"field": field, "split": split, "label": label, "index": index},
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
        raise UserError(f"--to {to} needs --out {'FILE' if to in ('features', 'user-vectors') else 'FOLDER'}")
    if out is None or to in ("vectors", "user-vectors", "features", "encoder"):
        from rawrec.serving.recommender import Recommender

        recommender, target = Recommender.load(source, data), out or source / "vectors.parquet"
        if to == "encoder":
            path = recommender.export_encoder(target)
        elif to == "user-vectors":
            path = recommender.export_user_vectors(target)
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
