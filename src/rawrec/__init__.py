"""Recommenders trained end to end from pictures, words and clicks.

>>> import rawrec
>>> run = rawrec.train("em3", data="data/ml", out="runs/em3", overrides={"train.epochs": 5})
>>> rec = rawrec.Recommender.load("runs/em3")
>>> rec.recommend(user="42", k=10)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rawrec import cores

if TYPE_CHECKING:
    from rawrec.config.metrics import register_metric
    from rawrec.config.models import register_model
    from rawrec.config.parts import register_encoder, register_fusion
    from rawrec.config.ranking import RankerConfig
    from rawrec.config.retrieval import RetrievalConfig
    from rawrec.config.sources import SourceOptions, register_source
    from rawrec.data.dataset import Dataset
    from rawrec.errors import RunInterrupted, RunStopped, UserError
    from rawrec.models.retrieval.base import RetrievalModel
    from rawrec.report.comparison import compare
    from rawrec.serving.recommender import Recommender
    from rawrec.sources.append import append
    from rawrec.sources.own import SourceTables
    from rawrec.sources.table import import_table
    from rawrec.stream.online import online
    from rawrec.studies.em3.study import study_em3
    from rawrec.studies.lemur.study import study_lemur
    from rawrec.studies.lmm.study import study_lmm
    from rawrec.training.callbacks import Callback, EpochRecord, RunEnd, RunStart, StepRecord, TensorBoard
    from rawrec.training.dry_run import plan
    from rawrec.training.job import evaluate, finetune, finish, resume, train
    from rawrec.training.run_list import list_runs
    from rawrec.training.sweeps.sweep import sweep
    from rawrec.training.trackers import MLflow, WandB

__version__ = "0.2.0"
__all__ = [
    "Callback",
    "Dataset",
    "EpochRecord",
    "MLflow",
    "RankerConfig",
    "Recommender",
    "RetrievalConfig",
    "RetrievalModel",
    "RunEnd",
    "RunInterrupted",
    "RunStart",
    "RunStopped",
    "SourceOptions",
    "SourceTables",
    "StepRecord",
    "TensorBoard",
    "UserError",
    "WandB",
    "append",
    "compare",
    "evaluate",
    "finetune",
    "finish",
    "import_table",
    "list_runs",
    "online",
    "plan",
    "register_encoder",
    "register_fusion",
    "register_metric",
    "register_model",
    "register_source",
    "resume",
    "study_em3",
    "study_lemur",
    "study_lmm",
    "sweep",
    "train",
]

cores.prepare()  # before anything loads torch

_HOMES = {
    "Callback": "rawrec.training.callbacks",
    "Dataset": "rawrec.data.dataset",
    "EpochRecord": "rawrec.training.callbacks",
    "MLflow": "rawrec.training.trackers",
    "RankerConfig": "rawrec.config.ranking",
    "Recommender": "rawrec.serving.recommender",
    "RetrievalConfig": "rawrec.config.retrieval",
    "RetrievalModel": "rawrec.models.retrieval.base",
    "RunEnd": "rawrec.training.callbacks",
    "RunInterrupted": "rawrec.errors",
    "RunStart": "rawrec.training.callbacks",
    "RunStopped": "rawrec.errors",
    "SourceOptions": "rawrec.config.sources",
    "SourceTables": "rawrec.sources.own",
    "StepRecord": "rawrec.training.callbacks",
    "TensorBoard": "rawrec.training.callbacks",
    "UserError": "rawrec.errors",
    "WandB": "rawrec.training.trackers",
    "append": "rawrec.sources.append",
    "compare": "rawrec.report.comparison",
    "evaluate": "rawrec.training.job",
    "finetune": "rawrec.training.job",
    "finish": "rawrec.training.job",
    "import_table": "rawrec.sources.table",
    "list_runs": "rawrec.training.run_list",
    "online": "rawrec.stream.online",
    "plan": "rawrec.training.dry_run",
    "register_encoder": "rawrec.config.parts",
    "register_fusion": "rawrec.config.parts",
    "register_metric": "rawrec.config.metrics",
    "register_model": "rawrec.config.models",
    "register_source": "rawrec.config.sources",
    "resume": "rawrec.training.job",
    "study_em3": "rawrec.studies.em3.study",
    "study_lemur": "rawrec.studies.lemur.study",
    "study_lmm": "rawrec.studies.lmm.study",
    "sweep": "rawrec.training.sweeps.sweep",
    "train": "rawrec.training.job",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: `import rawrec` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rawrec' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion and `help(rawrec)`."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
