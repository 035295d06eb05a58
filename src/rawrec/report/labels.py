"""Scored impressions by label: what a run of several labels is judged by."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rawrec.evaluation.ctr import conditional
from rawrec.evaluation.shown import shown_lists

COLUMNS = ["row", "user", "item", "label", "score"]
ASKED = ("query", "session")
"""Columns of runs on a dataset that has them."""


def by_label(scores: pl.DataFrame, main: str, metrics: Collection[str]) -> dict[str, pl.DataFrame]:
    """Prefix of metrics ("", `buy/`, `buy|click/`) -> row, user, item, label and score of the impressions behind them;
    and query and session, where there are any.

    scores: of `scores.parquet`, or a part of it. main: the main label. metrics: the names of those that were measured.
    """
    asked = [name for name in ASKED if name in scores.columns]
    frames = {"": scores.select(*COLUMNS, *asked).filter(pl.col("label").is_not_nan())}
    for name in [column.removeprefix("label/") for column in scores.columns if column.startswith("label/")]:
        known = scores.filter(pl.col(f"label/{name}").is_not_nan())
        frames[f"{name}/"] = _of(known, name, known[f"score/{name}"])
        clicked = known.filter(pl.col("label") == 1)
        if f"{name}|{main}/auc" in metrics:
            given = conditional(clicked[f"score/{name}"].to_numpy(), clicked["score"].to_numpy())
            frames[f"{name}|{main}/"] = _of(clicked, name, pl.Series(given))
    return frames


def _of(scores: pl.DataFrame, name: str, score: pl.Series) -> pl.DataFrame:
    asked = [column for column in ASKED if column in scores.columns]
    return scores.select(*COLUMNS[:3], *asked, label=f"label/{name}").with_columns(score=score)


def session_values(
    scores: pl.DataFrame, column: str, ks: Sequence[int]
) -> tuple[NDArray[np.int32], dict[str, NDArray[np.float64]]]:
    """Of sessions with both labels: whose they are, `[g]`, and each metric of what was shown, `[g]`. scores: with user,
    session and label; column: what the items stand by."""
    inside = scores.filter(pl.col("session") >= 0)
    sessions, first = np.unique(inside["session"].to_numpy(), return_index=True)
    found = shown_lists(inside["label"].to_numpy(), inside[column].to_numpy(), inside["session"].to_numpy(), ks)
    users = inside["user"].to_numpy()[first[np.searchsorted(sessions, found.sessions)]]
    return users, found.values()


def words(prefix: str) -> str:
    """A prefix for a reader: `buy`, `buy given click`; empty of the main label."""
    return prefix.removesuffix("/").replace("|", " given ")
