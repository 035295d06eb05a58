"""Table 10: EM3 on FREEDOM beside retrieval models, each tuned over its authors' grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rawrec.data.dataset import Dataset
from rawrec.errors import IdleSetting, UserError
from rawrec.evaluation.significance import paired_mean_bootstrap
from rawrec.report.tables_of_runs import LISTS, read_frame
from rawrec.studies.em3.settings import Em3StudyConfig
from rawrec.studies.resolving import choices, settled
from rawrec.studies.running import Planned, Runs, Standing
from rawrec.studies.table import Cell, Row, Table, Value
from rawrec.training.runs import RunFolder

EM3 = "em3_freedom"
GRIDS: dict[str, dict[str, list[Any]]] = {
    EM3: {"model.query_num": [1, 2], "model.hidden_dropout_prob": [0.5, 0.8], "model.cic_temperature": [0.5, 0.1]},
    "freedom": {"model.dropout": [0.8, 0.9], "model.reg_weight": [0.0, 1e-5, 1e-4, 1e-3]},
}
"""What the authors searched, section 4.6 and FREEDOM's own; other models have their presets."""
METRICS = {"recall@10": "Recall@10", "recall@20": "Recall@20", "ndcg@10": "NDCG@10", "ndcg@20": "NDCG@20"}
CHOSEN = "recall@20"


class Lists:
    """The models of table 10 and their runs. Creating one resolves every run: UserError for a mistake."""

    def __init__(self, cfg: Em3StudyConfig, data: Dataset, out: Path):
        self.cfg, self.data, self.out = cfg, data, out
        models = dict.fromkeys([*cfg.rivals, EM3])
        self.planned = {model: self._plan(model) for model in models}

    def _plan(self, model: str) -> Planned:
        planned = Planned(model, Path(model).stem, model, self.cfg.seeds)
        shared = {"eval.protocol": "mmrec", **self.cfg.settings}
        grid = {key: values for key, values in GRIDS.get(model, {}).items() if key not in self.cfg.settings}
        for chosen in choices({**grid, **self.cfg.search}):
            try:
                given, cfg = settled(model, self.data, {**shared, **chosen}, {}, model)
            except IdleSetting as error:
                raise UserError(str(error)) from None
            if not cfg.retrieval:
                raise UserError(f"--rivals {model}: it ranks impressions; choose retrieval models (rawrec models)")
            left = {key: value for key, value in chosen.items() if key in given}
            if left not in [known for known, _ in planned.candidates]:
                planned.candidates.append((left, given))
            planned.metric = cfg.train.metric
        return planned

    @property
    def unused(self) -> list[str]:
        """Settings given for all runs that no run has a use for."""
        used = {key for one in self.planned.values() for _, given in one.candidates for key in given}
        return [key for key in (*self.cfg.settings, *self.cfg.search) if key not in used]

    def table(self, runs: Runs, standings: Mapping[str, Standing]) -> Table:
        rows, first = [], next(iter(standings.values()))
        means = {model: _means(standing) for model, standing in standings.items()}
        for model, standing in standings.items():
            cells = {name: Cell(value, _best(means, name, value)) for name, value in means[model].items()}
            if standing is not first and cells and means[next(iter(standings))]:
                cells["interval"] = _difference(standing, first)
            reason = standing.reason if standing.state == "failed" else "not finished"
            rows.append(Row(model, cells, "" if cells else reason, len(standing.runs) if cells else 0))
        rows += [row for row in (self._as_published(runs),) if row is not None]
        heads = {**METRICS, "interval": f"Recall@20 against {next(iter(standings))}"}
        about = (
            f"Lists of the whole catalogue (eval.protocol=mmrec). Settings chosen by validation: {EM3} and freedom "
            "over their authors' grids, others as their presets. Differences with the interval that holds 95 % of "
            "1,000 resamplings of users. Chosen on test: the best Recall@20 on test of the grid, first seed, as the "
            "paper chose; it is too high, and no result."
        )
        return Table(10, "EM3 on FREEDOM", heads, [rows], about)

    def _as_published(self, runs: Runs) -> Row | None:
        planned = self.planned[EM3]
        paths = [runs.path(planned, given, 0) for _, given in planned.candidates]
        found = [RunFolder(path).metrics()["test"] for path in paths if runs.finished(path)]
        if not found:
            return None
        best = max(found, key=lambda test: test[CHOSEN])
        return Row(f"{EM3}, chosen on test", {name: Cell(Value(best[name])) for name in METRICS}, seeds=1)

    def dump(self, model: str, standing: Standing) -> dict[str, Any]:
        """Plain values: what `study.json` says of a model."""
        planned = self.planned[model]
        return {"words": planned.words, "model": model, **standing.dump(planned, self.out)}


def _means(standing: Standing) -> dict[str, Value]:
    if standing.state != "finished":
        return {}
    found = [RunFolder(path).metrics()["test"] for path in standing.runs]
    return {name: Value.of([test[name] for test in found]) for name in METRICS}


def _best(means: Mapping[str, Mapping[str, Value]], name: str, value: Value) -> bool:
    values = [of[name].mean for of in means.values() if name in of]
    return len(values) > 1 and value.mean == max(values)


def _difference(one: Standing, other: Standing) -> Cell:
    """Of Recall@20; a user's value is the mean over the seeds."""
    users = [[read_frame(path, LISTS).select("user", CHOSEN) for path in _files(standing)] for standing in (one, other)]
    if not all(frame["user"].equals(users[0][0]["user"]) for frames in users for frame in frames):
        raise UserError(f"{one.runs[0]} and {other.runs[0]} were judged on different users")
    ours, theirs = (np.mean([frame[CHOSEN].to_numpy() for frame in frames], 0) for frames in users)
    found = paired_mean_bootstrap(ours, theirs)
    return Cell(Value(found.value), text=f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})")


def _files(standing: Standing) -> list[Path]:
    return [path / "topk.parquet" for path in standing.runs]
