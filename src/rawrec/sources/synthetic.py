"""Import the generated shop: no download, no licence, and a best possible AUC that is known."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.progress import track
from scipy.stats import rankdata

from rawrec import shown
from rawrec.arguments import SEED, checked
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.splits import SplitSpec
from rawrec.data.synthetic import AGES, DEVICES, Shop, generate
from rawrec.data.synthetic_items import VALUES
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError

ITEMS_AT_ONCE, ROWS_AT_ONCE = 1_000, 1_000_000
LIMITS = {
    "items": (10, 10_000_000),
    "users": (2, 10_000_000),
    "impressions": (100, 2_000_000_000),
    "size": (32, 512),
    "shown": (2, 100),
}
SHOWN = 8


@checked(seed=SEED)
def import_synthetic(
    out: str | PathLike[str],
    *,
    items: int = 800,
    users: int = 600,
    impressions: int = 60_000,
    seed: int = 0,
    size: int = 64,
    overwrite: bool = False,
    history_events: int | None = None,
    click_rate: float = 0.25,
    context: bool = False,
    buy_rate: float | None = None,
    queries: bool = False,
    shown: int | None = None,
    progress: bool = True,
) -> Dataset:
    """Generate a shop (see `rawrec.data.synthetic`) and write it as a dataset; the same data for the same arguments.

    `size` is the side of a picture in pixels. With `history_events` every user has at least so many impressions, of
    which about the share `click_rate` are positive. context: clicks also depend on the user's age group (an attribute
    of users), on the device and the position (columns of the context) and on the hour. The column `probability` holds
    the true probability of each click.
    With `buy_rate` there is a second label, `buy`, drawn given a click, then with the mean probability `buy_rate`; the
    column `buy_probability` holds the true one of each impression. All else is the same with and without it.
    queries: users search (see `rawrec.data.synthetic_searches`), and each search shows `shown` products (default: 8),
    which are a session; the column `match` is the share of what was asked for that a product has. The products are the
    same, all else is another shop.
    The split is by global time, 80/10/10. Raises UserError for sizes that are out of range.
    """
    if shown is not None and not queries:
        raise UserError(f"shown={shown}: products are shown together where users search; add queries (--queries)")
    shown = SHOWN if shown is None else shown
    given = {"items": items, "users": users, "impressions": impressions, "size": size, "shown": shown}
    for name, value in given.items():
        low, high = LIMITS[name]
        if not low <= value <= high:
            raise UserError(f"{name}={value}: a generated shop needs {name} from {low} to {high:,}")
    if (
        seed < 0
        or not 0.01 <= click_rate <= 0.99
        or not 0.01 <= (0.5 if buy_rate is None else buy_rate) <= 0.99
        or (history_events is not None and history_events < 1)
    ):
        raise UserError(
            f"seed={seed}, click_rate={click_rate}, buy_rate={buy_rate}, history_events={history_events}: use a seed "
            "of at least 0, rates from 0.01 to 0.99 and at least 1 event"
        )
    shop = generate(
        items=items,
        users=users,
        impressions=impressions,
        seed=seed,
        size=size,
        history_events=history_events,
        click_rate=click_rate,
        context=context,
        buy_rate=buy_rate,
        queries=queries,
        shown=shown,
    )
    source = f"generated shop (items={items}, users={users}, impressions={len(shop.users)}, seed={seed}, size={size}"
    source += ", context" * context + f", queries, shown={shown}" * queries + ")"
    report = ImportReport(source=source)
    report.note(
        "This data is generated: the products, words, users and clicks are not real. Pictures are drawn, titles and "
        "descriptions are put together from templates, and every click is drawn from the known probability in the "
        "column `probability`."
    )
    report.note(f"Best possible AUC over all impressions: {_auc(shop.probability, shop.clicks)!s:.6}")
    if shop.searches is not None:
        best = _qauc(shop.probability, shop.clicks, shop.searches.query[shop.session])
        report.note(f"Best possible QAUC over all impressions: {best!s:.6}")
    if shop.buys is not None and shop.buy_probability is not None:
        clicked = shop.clicks > 0
        best = _auc(shop.buy_probability[clicked], shop.buys[clicked])
        report.note(f"Purchases: {int(shop.buys.sum())}; best possible AUC of them over what was clicked: {best!s:.6}")
    report.add_read("items", items)
    report.add_read("interactions", len(shop.users))
    return write_shop(Path(out), shop, report, overwrite, progress)


def write_shop(out: Path, shop: Shop, report: ImportReport, overwrite: bool = False, progress: bool = True) -> Dataset:
    """A shop as a dataset, split by global time 80/10/10. report: says what it is; progress: tell of the drawing."""
    queries, context = shop.searches is not None, shop.ages is not None
    bought = shop.buys is not None
    writer = DatasetWriter(
        out,
        fields=Fields(
            image=["image"], text=["title", "description"], categorical=["category"], numeric=["price"], feature={}
        ),
        source=report.source,
        labels=["label"] + ["buy"] * bought,
        label_rule="the impression was clicked (drawn from the column probability)"
        + "; buy: and then bought (drawn from the column buy_probability)" * bought,
        generated=True,
        extra={name: pa.float32() for name in ["probability"] + ["buy_probability"] * bought}
        | ({"device": pa.string()} if context else {})
        | ({"position": pa.int64()} if context or queries else {})
        | ({"match": pa.float32()} if queries else {}),
        context=Columns(categorical=["device"] * context, numeric=["position"] * (context or queries)),
        users=Columns(categorical=["age_group"]) if context else None,
        has_time=True,
        overwrite=overwrite,
        has_launched=True,
        asked=["query", "session"] if queries else (),
    )
    with writer:
        _write_items(writer, shop, progress)
        _write_interactions(writer, shop)
        if shop.ages is not None:
            ids = [f"u{i + 1}" for i in range(len(shop.ages))]
            writer.users.add({"user_id": ids, "age_group": [[AGES[age]] for age in shop.ages.tolist()]})
        return writer.finish(SplitSpec.model_validate({"kind": "time_global"}), report)


def best_auc(dataset: Dataset, rows: np.ndarray) -> float:
    """AUC of the true click probability over the interactions `rows` (indices or mask): no model can expect more.

    nan where the rows hold only one label. Raises UserError when the dataset was not generated.
    """
    if not dataset.meta.generated:
        raise UserError(f"{dataset.path}: the best possible AUC is known for generated data only")
    return _auc(dataset.column("probability")[rows], dataset.label()[rows])


def best_qauc(dataset: Dataset, rows: np.ndarray) -> float:
    """The same of QAUC, the AUC within each query; UserError also where the dataset has no queries."""
    if not dataset.meta.generated:
        raise UserError(f"{dataset.path}: the best possible QAUC is known for generated data only")
    return _qauc(dataset.column("probability")[rows], dataset.label()[rows], dataset.query_rows[rows])


def _qauc(scores: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> float:
    """AUC within each query that has both labels, weighted by impressions; nan without one."""
    query, positive = np.unique(queries, return_inverse=True)[1], labels > 0
    order = np.lexsort((scores, query))
    query, positive, scores = query[order], positive[order], scores[order]
    size, positives = np.bincount(query), np.bincount(query, positive)
    begin = np.cumsum(size) - size
    # Ranks over all rows are those within the query, but for the rows of queries before it.
    ranks = rankdata(np.cumsum(np.r_[True, (np.diff(query) > 0) | (np.diff(scores) > 0)])) - begin[query]
    ok = (positives > 0) & (positives < size)
    if not ok.any():
        return float("nan")
    won = np.bincount(query, ranks * positive)[ok] - (positives * (positives + 1) / 2)[ok]
    return float(np.average(won / (positives * (size - positives))[ok], weights=size[ok]))


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    positive = labels > 0
    n, p = len(labels), int(positive.sum())
    if p in (0, n):
        return float("nan")
    return float((rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * (n - p)))


def _write_items(writer: DatasetWriter, shop: Shop, progress: bool) -> None:
    """Draw and write the catalogue, some products at a time."""
    console = shown.console(stderr=True)
    starts = range(0, len(shop.item_ids), ITEMS_AT_ONCE)
    for first in track(starts, "Drawing products", console=console, disable=not (progress and console.is_terminal)):
        rows = range(first, min(first + ITEMS_AT_ONCE, len(shop.item_ids)))
        pictures = [shop.picture(i) for i in rows]
        writer.add_items(
            {
                "item_id": shop.item_ids[rows.start : rows.stop],
                "image": [[picture] if picture else [] for picture in pictures],
                "title": shop.titles[rows.start : rows.stop],
                "description": shop.descriptions[rows.start : rows.stop],
                "category": [[VALUES["shape"][code]] for code in shop.codes["shape"][rows.start : rows.stop]],
                "price": shop.prices[rows.start : rows.stop].tolist(),
                "launched": shop.launched[rows.start : rows.stop].tolist(),
            }
        )


def _write_interactions(writer: DatasetWriter, shop: Shop) -> None:
    user_ids = pa.array([f"u{i + 1}" for i in range(int(shop.users.max()) + 1)])
    item_ids = pa.array(shop.item_ids)
    for first in range(0, len(shop.users), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        around: dict[str, Any] = {}
        if shop.devices is not None:
            around["device"] = np.array(DEVICES, object)[shop.devices[rows]]
        if shop.positions is not None:
            around["position"] = shop.positions[rows]
        if shop.searches is not None and shop.session is not None and shop.match is not None:
            session = shop.session[rows]
            texts = np.array(shop.searches.texts, object)
            around |= {"query": texts[shop.searches.query[session]], "match": shop.match[rows]}
            around["session"] = [f"s{number + 1}" for number in session.tolist()]
        writer.add_interactions(
            around
            | {
                "user_id": user_ids.take(pa.array(shop.users[rows])),
                "item_id": item_ids.take(pa.array(shop.items[rows])),
                "timestamp": shop.timestamps[rows],
                "label": shop.clicks[rows],
                "probability": shop.probability[rows],
                **(
                    {}
                    if shop.buys is None or shop.buy_probability is None
                    else {"buy": shop.buys[rows], "buy_probability": shop.buy_probability[rows]}
                ),
            }
        )
