"""Scored impressions by label: what a run of several labels is judged by."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from rawrec.evaluation.ctr import conditional

COLUMNS = ["row", "user", "item", "label", "score"]


def by_label(scores: pl.DataFrame, main: str, metrics: Collection[str]) -> dict[str, pl.DataFrame]:
    """Prefix of metrics ("", `buy/`, `buy|click/`) -> row, user, item, label and score of the impressions behind them.

    scores: of `scores.parquet`, or a part of it. main: the main label. metrics: the names of those that were measured.
    """
    frames = {"": scores.select(COLUMNS).filter(pl.col("label").is_not_nan())}
    for name in [column.removeprefix("label/") for column in scores.columns if column.startswith("label/")]:
        known = scores.filter(pl.col(f"label/{name}").is_not_nan())
        frames[f"{name}/"] = _of(known, name, known[f"score/{name}"])
        clicked = known.filter(pl.col("label") == 1)
        if f"{name}|{main}/auc" in metrics:
            given = conditional(clicked[f"score/{name}"].to_numpy(), clicked["score"].to_numpy())
            frames[f"{name}|{main}/"] = _of(clicked, name, pl.Series(given))
    return frames


def _of(scores: pl.DataFrame, name: str, score: pl.Series) -> pl.DataFrame:
    return scores.select(*COLUMNS[:3], label=f"label/{name}").with_columns(score=score)


def words(prefix: str) -> str:
    """A prefix for a reader: `buy`, `buy given click`; empty of the main label."""
    return prefix.removesuffix("/").replace("|", " given ")
