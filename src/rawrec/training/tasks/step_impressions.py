"""What stands between a ranker's task and its samples: impressions of a step, a table of content, codes of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from torch import Tensor

from rawrec.config import Config
from rawrec.config.training import JUDGED, WINDOW
from rawrec.content.caches import Cache
from rawrec.data.dataset import Dataset
from rawrec.data.mapped import MappedDataset
from rawrec.data.mapped_samples import MappedSamples
from rawrec.data.sampling import Impressions, Samples
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.columns import ItemColumns
from rawrec.models.ranking.context import ImpressionContext

if TYPE_CHECKING:
    from rawrec.training.tasks.queries import Queries


class ContentTable(NamedTuple):
    """Content of items as a ranker reads it: values `[rows, content.dim]`, valid `[rows]` (False = nothing known).

    The first rows are the dataset's items; a recommender appends those that it met later, and then gives the columns of
    all rows too. features: of those later ones alone, by field, what encoders made of them `[later rows, width]` and
    which have any.
    """

    values: Tensor
    valid: Tensor
    columns: ItemColumns | None = None
    features: Mapping[str, tuple[Tensor, Tensor]] | None = None


@dataclass
class StepImpressions:
    """Impressions of a step on the device. sample: where they come from. users `[n]`, items `[n, candidates]`, history
    `[n, history]` item rows, labels `[n, candidates]`, or of several `[n, candidates, labels]`; keys, context, query,
    session: see `RankingBatch`; neighbours: see `Shown`; marks: of the whole history, see `HistoryContent`; late: see
    `RankingBatch`; queries: those that `query` names, None: the dataset's."""

    sample: Impressions
    users: Tensor
    items: Tensor
    history: Tensor
    labels: Tensor
    keys: dict[str, Tensor]
    context: ImpressionContext | None
    query: Tensor | None = None
    session: Tensor | None = None
    neighbours: Tensor | None = None
    marks: Tensor | None = None
    late: Tensor | None = None
    queries: Queries | None = None


def row_codes(data: Dataset, name: str) -> np.ndarray:
    """Int64 of each interaction, equal where the column's values are; -1 where there is none, `[n_interactions]`."""
    if name in data.meta.asked:
        return (data.query_rows if name == "query" else data.session_rows).astype(np.int64)
    return codes_of(data.column(name))


def last(history: Tensor, length: int) -> Tensor:
    """The last `length` of histories `[n, history]`."""
    return history[:, max(history.shape[1] - length, 0) :]


def mark(batch: RankingBatch, marks: Tensor | None) -> None:
    """Put marks `[batch, history, n]` of whole histories where their content is; None: there are none."""
    for past in (batch.history_content, batch.long_history):
        if past is not None and marks is not None:
            past.marks = last(marks, past.valid.shape[1])


def codes_of(values: np.ndarray) -> np.ndarray:
    """Int64 of each value of a column, equal where the values are; -1 where there is none."""
    indices = pa.array(values, from_pandas=True).dictionary_encode().indices
    return indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def slice_impressions(sample: Impressions, part: slice) -> Impressions:
    """Those of them in `part`."""
    return Impressions(
        sample.rows[part],
        sample.users[part],
        sample.items[part],
        sample.labels[part],
        None if sample.times is None else sample.times[part],
        {name: values[part] for name, values in sample.further.items()},
        None if sample.query is None else sample.query[part],
        None if sample.session is None else sample.session[part],
    )


def samples_of(cfg: Config, data: Dataset) -> Samples:
    """What a ranker learns from under these settings."""
    given = (
        cfg.data.split,
        cfg.data.label,
        cfg.data.history,
        cfg.data.history_mode,
        cfg.data.negatives,
        cfg.data.further_labels,
        cfg.model.multi_label == "esmm",
        bool(cfg.model.history_marks),
    )
    return MappedSamples(data, *given) if isinstance(data, MappedDataset) else Samples(data, *given)


class Prepared(NamedTuple):
    """data: the dataset, its interactions memory-mapped where `data.interactions` says so. window: of the order of an
    epoch, see `Samples.order`. told: what is judged, where it is not all."""

    data: Dataset
    samples: Samples
    window: int | None
    told: str


def prepared(cfg: Config, data: Dataset, cache: Path | Cache) -> Prepared:
    """What a ranker learns from, and how it is read."""
    mapped = cfg.data.maps(data.n_interactions)
    if mapped:
        data = MappedDataset.of(data, list(Cache.of(cache).places))
    samples = samples_of(cfg, data)
    judged = cfg.eval.impressions or (JUDGED if mapped else None)
    seed = data.meta.splits[cfg.data.split].get("seed", 0)
    told = "" if judged is None else samples.limit(judged, seed)
    return Prepared(data, samples, cfg.data.shuffle_window or (WINDOW if mapped else None), told)
