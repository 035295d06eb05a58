"""Runs told to Weights & Biases and to MLflow, of which neither is needed: `pip install 'rawrec[wandb]'`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from rawrec.errors import UserError
from rawrec.extras import need
from rawrec.training.callbacks import Callback, EpochRecord, RunEnd, RunStart, StepRecord

LONGEST = 500
"""Characters of a setting's value that MLflow takes."""
STEPS = 50
"""Updates from one whose losses are told to the next, unless it is said."""


def _library(name: str) -> Any:
    """The library. Raises UserError, with what to do, where it is not installed."""
    return need(name, f"this is told to {name}")


class WandB(Callback):
    """Losses, metrics and settings to Weights & Biases. A resumed run goes on under the same id.

    project: of W&B. every: steps between those whose losses are told. init: more arguments of `wandb.init`. Raises
    UserError where the package is not installed.

    >>> rawrec.train("em3", data="data/ml", out="runs/em3", callbacks=[rawrec.WandB("shop", tags=["first"])])
    """

    dispensable = True

    def __init__(self, project: str = "rawrec", every: int = STEPS, **init: Any) -> None:
        self.wandb, self.project, self.every, self.init = _library("wandb"), project, every, init
        self.run: Any = None

    def on_start(self, record: RunStart) -> None:
        identity = hashlib.blake2b(str(record.path.resolve()).encode(), digest_size=8).hexdigest()
        given = {"project": self.project, "name": record.path.name, "id": identity, "resume": "allow"}
        given |= {"config": dict(record.settings), "dir": str(record.path)}
        self.run = self.wandb.init(**{**given, **self.init})

    def on_step(self, record: StepRecord) -> None:
        if record.step % self.every == 0:
            self.run.log(_of_step(record), step=record.step)

    def on_epoch(self, record: EpochRecord) -> None:
        self.run.log(_numbers(record.metrics), step=record.step)

    def on_end(self, record: RunEnd) -> None:
        if self.run is None:
            return
        self.run.summary.update({**_of_parts(record), "state": record.state, "best_epoch": record.best_epoch})
        self.run.finish(exit_code=0 if record.state == "finished" else 1)
        self.run = None


class MLflow(Callback):
    """Losses, metrics and settings to MLflow. A resumed run is a new one there, of the same name.

    experiment: its name there. every: steps between those whose losses are told. uri: of the tracking server; None: as
    the environment says. Raises UserError where the package is not installed.

    >>> rawrec.train("em3", data="data/ml", out="runs/em3", callbacks=[rawrec.MLflow("shop")])
    """

    dispensable = True

    def __init__(self, experiment: str = "rawrec", every: int = STEPS, uri: str | None = None) -> None:
        self.mlflow, self.experiment, self.every, self.uri = _library("mlflow"), experiment, every, uri
        self.begun = False

    def on_start(self, record: RunStart) -> None:
        if self.uri is not None:
            self.mlflow.set_tracking_uri(self.uri)
        self.mlflow.set_experiment(self.experiment)
        self.mlflow.start_run(run_name=record.path.name)
        self.begun = True
        self.mlflow.log_params({key: str(value)[:LONGEST] for key, value in record.settings.items()})
        self.mlflow.set_tags({"rawrec.path": str(record.path), "rawrec.data": str(record.data)})

    def on_step(self, record: StepRecord) -> None:
        if record.step % self.every == 0:
            self.mlflow.log_metrics(_named(_of_step(record)), step=record.step)

    def on_epoch(self, record: EpochRecord) -> None:
        self.mlflow.log_metrics(_named(_numbers(record.metrics)), step=record.step)

    def on_end(self, record: RunEnd) -> None:
        if not self.begun:
            return
        self.begun = False
        self.mlflow.log_metrics(_named(_of_parts(record)), step=record.step)
        self.mlflow.end_run({"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[record.state])


TRACKERS: dict[str, type[WandB] | type[MLflow]] = {"wandb": WandB, "mlflow": MLflow}


def tracker(word: str) -> Callback:
    """What `--log wandb` or `--log mlflow:EXPERIMENT` stands for. Raises UserError for another word."""
    name, _, project = word.partition(":")
    if name not in TRACKERS:
        raise UserError(f"--log {word}: use wandb or mlflow, with a project as in wandb:shop")
    return TRACKERS[name](project) if project else TRACKERS[name]()


def _of_step(record: StepRecord) -> dict[str, float]:
    found = {f"step/{name}": value for name, value in record.losses.items()}
    found |= {f"step/lr/{name}": value for name, value in record.rates.items()}
    return {**found, "step/gradient_norm": record.gradient_norm}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in values.items() if isinstance(value, int | float)}


def _of_parts(record: RunEnd) -> dict[str, float]:
    parts = (part for part in ("valid", "test") if part in record.metrics)
    return {f"final/{part}/{key}": value for part in parts for key, value in _numbers(record.metrics[part]).items()}


def _named(values: Mapping[str, float]) -> dict[str, float]:
    """MLflow takes no @ in a name."""
    return {key.replace("@", "_at_"): value for key, value in values.items()}
