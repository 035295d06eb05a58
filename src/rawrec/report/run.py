"""A finished run, as a report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import polars as pl

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.report import plots
from rawrec.report.labels import by_label
from rawrec.report.tables_of_runs import LISTS, SCORES, Kind, read_frame
from rawrec.training.runs import RunFolder, not_finished

TEST = 2


class Run:
    """The files of a finished run folder, read when asked for. Raises UserError on what is missing or damaged."""

    def __init__(self, path: Path):
        self.path = path
        self.name = path.resolve().name
        folder = RunFolder(path.absolute())
        if not (path / "run.json").is_file():
            raise UserError(f"{path} is not a run folder: it has no run.json (make one with `rawrec train`)")
        self.info = folder.info()
        if not self.info["finished"]:
            raise UserError(f"{path} {not_finished(path)}; then report")
        self.config = folder.config()
        self.metrics = folder.metrics()
        self.judges_impressions = not self.config.retrieval
        self.epochs = folder.metrics_lines()

    @cached_property
    def test(self) -> pl.DataFrame:
        """Test impressions: row, user, item, label, score; each (row, item) once."""
        return self.labels[""]

    @cached_property
    def labels(self) -> dict[str, pl.DataFrame]:
        """The same of each label, see `by_label`."""
        frame = self._parquet("scores.parquet", SCORES)
        test = frame.filter(pl.col("split") == TEST).unique(["row", "item"], keep="first", maintain_order=True)
        return by_label(test, self.config.data.label, self.metrics.get("test", {}))

    @cached_property
    def topk(self) -> pl.DataFrame | None:
        """Lists out of the full catalogue per test user; None where the run made none."""
        return self._parquet("topk.parquet", LISTS) if (self.path / "topk.parquet").is_file() else None

    def check(self, data: Dataset) -> None:
        """UserError where the scores or the lists are of users, items or interactions that the dataset does not
        have."""
        there = {"user": data.n_users, "item": data.n_items, "items": data.n_items, "row": data.n_interactions}
        frames = {"scores.parquet": self.test} if self.judges_impressions else {}
        if self.topk is not None:
            frames["topk.parquet"] = self.topk
        for name, frame in frames.items():
            for column in there.keys() & {*frame.columns}:
                values = (frame[column].explode() if column == "items" else frame[column]).drop_nulls().to_numpy()
                if not len(values):
                    continue
                low, high = int(values.min()), int(values.max())
                least = -1 if column == "items" else 0  # a list that is shorter than others ends with -1
                if not least <= low <= high < there[column]:
                    raise UserError(
                        f"{self.path / name} is damaged, or of another dataset: {column} {low} to {high}, and "
                        f"{data.path} has {there[column]}"
                    )

    def series(self, key: str) -> plots.Line:
        """Epochs and values of one entry of metrics.jsonl, where it is a number."""
        found = [(e["epoch"], float(e[key])) for e in self.epochs if isinstance(e.get(key), int | float)]
        return [x for x, _ in found], [y for _, y in found]

    def _parquet(self, name: str, kinds: Mapping[str, Kind]) -> pl.DataFrame:
        try:
            return read_frame(self.path / name, kinds)
        except FileNotFoundError:
            raise UserError(f"{self.path / name} is missing: make it with `rawrec evaluate {self.path}`") from None
