"""A finished run, as a report reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from rawrec import config
from rawrec.errors import UserError
from rawrec.report import plots
from rawrec.report.labels import by_label
from rawrec.training.runs import not_finished

TEST = 2


class Run:
    """The files of a finished run folder, read when asked for. Raises UserError on what is missing or damaged."""

    def __init__(self, path: Path):
        self.path = path
        self.name = path.resolve().name
        if not (path / "run.json").is_file():
            raise UserError(f"{path} is not a run folder: it has no run.json (make one with `rawrec train`)")
        self.info: dict[str, Any] = self._read("run.json", json.loads)
        if not self.info.get("finished"):
            raise UserError(f"{path} {not_finished(path)}; then report")
        self.config = config.validate(self._read("config.yaml", yaml.safe_load))
        self.metrics: dict[str, Any] = self._read("metrics.json", json.loads)
        self.judges_impressions = not self.config.retrieval
        self.epochs: list[dict[str, Any]] = self._read(
            "metrics.jsonl", lambda text: [json.loads(line) for line in text.splitlines() if line.strip()]
        )

    @cached_property
    def test(self) -> pl.DataFrame:
        """Test impressions: row, user, item, label, score; each (row, item) once."""
        return self.labels[""]

    @cached_property
    def labels(self) -> dict[str, pl.DataFrame]:
        """The same of each label, see `by_label`."""
        frame = self._parquet("scores.parquet", ["row", "user", "item", "label", "score", "split"])
        test = frame.filter(pl.col("split") == TEST).unique(["row", "item"], keep="first", maintain_order=True)
        return by_label(test, self.config.data.label, self.metrics.get("test", {}))

    @cached_property
    def topk(self) -> pl.DataFrame | None:
        """Lists out of the full catalogue per test user; None where the run made none."""
        return self._parquet("topk.parquet", ["user", "items"]) if (self.path / "topk.parquet").is_file() else None

    def series(self, key: str) -> plots.Line:
        """Epochs and values of one entry of metrics.jsonl, where it is a number."""
        found = [(e["epoch"], float(e[key])) for e in self.epochs if isinstance(e.get(key), int | float)]
        return [x for x, _ in found], [y for _, y in found]

    def _read(self, name: str, parse: Callable[[str], Any]) -> Any:
        try:
            return parse((self.path / name).read_text())
        except FileNotFoundError:
            raise UserError(f"{self.path}/{name} is missing: train the run again") from None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{self.path}/{name} cannot be read: {error}") from None

    def _parquet(self, name: str, columns: list[str]) -> pl.DataFrame:
        path = self.path / name
        try:
            frame = pl.read_parquet(path)
        except FileNotFoundError:
            raise UserError(f"{path} is missing: make it with `rawrec evaluate {self.path}`") from None
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        if missing := set(columns) - set(frame.columns):
            raise UserError(f"{path} lacks the columns {sorted(missing)}: evaluate the run again")
        return frame
