"""From a preset and a dataset to a finished run folder: `train`, `resume`, `evaluate`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from rawrec.config import Config, DataConfig, resolve
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.files import write_table
from rawrec.training import state as checkpoint
from rawrec.training.evaluate import PARTS, evaluate_part, evaluate_topk
from rawrec.training.retrieval_trainer import RetrievalTrainer
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import System
from rawrec.training.tasks.pairs import RetrievalSystem
from rawrec.training.trainer import Trainer


def train(
    preset: str | Path | Mapping[str, Any] | Config,
    data: Dataset | str | Path,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    observer: Any = None,
) -> RunFolder:
    """Train a model on a dataset into the run folder `out`, evaluate it once on test, and return the run.

    preset: name of a preset, path of a YAML file, nested settings or a `Config`. overrides: `{"train.epochs": 5}`.
    observer: told of progress, see `Trainer`. Raises UserError for a mistake in settings or data, RunStopped where
    training diverges, OSError where the disk is full or read-only. A run that cannot begin leaves nothing behind.

    >>> run = rawrec.train("em3", data="data/ml", out="runs/em3", overrides={"train.epochs": 5})
    >>> run.path
    """
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    cfg = configure(preset, data, overrides or {})
    run = RunFolder.create(out, cfg, data, overwrite)
    try:
        return _work(run, cfg, data, observer, fresh=True)
    except UserError:
        if not (run.path / "checkpoint").is_dir():
            run.withdraw()
        raise


def configure(preset: str | Path | Mapping[str, Any] | Config, data: Dataset, overrides: Mapping[str, Any]) -> Config:
    """The config of a run on a dataset. Raises UserError where it is impossible, or asks for what the data have not."""
    fields = {"image": data.fields.image, "text": data.fields.text, "feature": data.fields.feature}
    kinds = {name: kind for kind, names in fields.items() for name in names}
    cfg = resolve(preset.dump() if isinstance(preset, Config) else preset, overrides, kinds)
    if "data.negatives" in overrides and not data.positive_only:
        raise UserError(
            f"data.negatives={cfg.data.negatives} would do nothing: negatives are drawn for positive-only data, "
            f"and this dataset has labels ({', '.join(data.meta.labels)})"
        )
    if cfg.data.split not in data.meta.splits:
        known = ", ".join(data.meta.splits)
        raise UserError(f"data.split={cfg.data.split!r}: the dataset has no such split. Known: {known}")
    if cfg.data.label == DataConfig().label and "data.label" not in overrides and data.meta.labels:
        cfg.data.label = _default_label(data)
    data.label(cfg.data.label)
    return cfg


def _default_label(data: Dataset) -> str:
    """`label`, or the only label that the dataset has."""
    labels = data.meta.labels
    if DataConfig().label not in labels and len(labels) > 1:
        raise UserError(
            f"the dataset has the labels {', '.join(labels)}: say which one to learn, data.label={labels[0]}"
        )
    return DataConfig().label if DataConfig().label in labels else labels[0]


def resume(path: str | Path, observer: Any = None, data: Dataset | str | Path | None = None) -> RunFolder:
    """Go on with a run from its last checkpoint, exactly as if it had never stopped. A finished run stays as it is.

    data: where the dataset is now, if it has moved.

    >>> rawrec.resume("runs/em3")
    """
    run = RunFolder.open(path)
    if run.info()["finished"]:
        return run
    found = run.dataset(data)
    run.write_info(dataset=str(found.path.absolute()))
    return _work(run, run.config(), found, observer, fresh=False)


def load_system(
    run: RunFolder, data: Dataset | str | Path | None = None, device: str | None = None
) -> System | RetrievalSystem:
    """The trained system of a finished run; a ranking system's bank is fresh."""
    if not run.info()["finished"]:
        raise UserError(f"{run.path} is not finished: `rawrec resume {run.path}` goes on with it")
    cfg = run.config()
    if device is not None:
        cfg.train.device = device
    system = (RetrievalSystem if cfg.retrieval else System)(cfg, run.dataset(data), run.cache)
    tensors, state = checkpoint.load(run.path / "model.safetensors")
    system.load_state(tensors)
    if isinstance(system, RetrievalSystem):
        return system
    if system.bank is not None and "bank.content" in tensors:
        system.bank.content.copy_(tensors["bank.content"])
        system.bank.written.copy_(torch.where(system.bank.valid, state["step"], -1))
    return system.eval()


def evaluate(
    path: str | Path,
    split: str = "test",
    full_ranking: bool | None = None,
    data: Dataset | str | Path | None = None,
) -> dict[str, Any]:
    """The metrics of a finished run on a part of its data, `valid` or `test`, computed anew.

    full_ranking: lists over the whole catalogue as well; None: as the run's settings say (a retrieval model has no
    other metrics). data: where the dataset is now, if it has moved.

    >>> rawrec.evaluate("runs/em3", "valid")["auc"]
    """
    run = RunFolder.open(path)
    if split not in PARTS:
        raise UserError(f"split={split!r}: use valid or test")
    system = load_system(run, data)
    if isinstance(system, RetrievalSystem):
        return system.evaluate(PARTS[split]).metrics
    metrics, _, _ = evaluate_part(system, PARTS[split], system.cfg.seed)
    if system.cfg.eval.full_ranking if full_ranking is None else full_ranking:
        metrics |= evaluate_topk(system, PARTS[split], system.cfg.eval.topk).metrics
    return metrics


def _work(run: RunFolder, cfg: Config, data: Dataset, observer: Any, fresh: bool) -> RunFolder:
    started = time.perf_counter()
    strict: Any = torch.utils.deterministic
    before = run.info()["seconds"]
    if cfg.train.threads:
        torch.set_num_threads(cfg.train.threads)
    mode, filling = torch.get_deterministic_debug_mode(), strict.fill_uninitialized_memory
    observe = observer or (lambda event, **values: None)
    try:
        torch.set_deterministic_debug_mode("warn")
        strict.fill_uninitialized_memory = False  # it finds bugs, and costs a fifth of an epoch
        trainer = _trainer(run, cfg, data, observe)
        run.settle()
        last = run.path / "checkpoint" / "last.safetensors"
        if not fresh and last.is_file():
            trainer.restore()
            run.log(f"resumed at epoch {trainer.progress.epoch + 1}, step {trainer.progress.step}")
        else:
            run.keep_metrics(0)
            run.log(f"training {cfg.label} on {data.path}")
        trainer.train()
        if isinstance(trainer, RetrievalTrainer):
            trainer.finish()
        else:
            _finish(run, trainer.system, trainer, observe)
    finally:
        run.write_info(seconds=before + time.perf_counter() - started)
        torch.set_deterministic_debug_mode(mode)
        strict.fill_uninitialized_memory = filling
    run.write_info(finished=True, best_epoch=trainer.progress.best_epoch, steps=trainer.progress.step)
    run.log("finished")
    return run


def _trainer(run: RunFolder, cfg: Config, data: Dataset, observe: Any) -> Trainer | RetrievalTrainer:
    """A trainer before its first step; the run folder learns what it is of."""

    def progress(text: str, chunks: Any) -> Any:
        return _observed(observe, text, chunks)

    if cfg.retrieval:
        retrieval = RetrievalSystem(cfg, data, run.cache, progress)
        groups = retrieval.parameter_groups()
        run.write_info(
            parameters={key: sum(p.numel() for _, p in group) for key, group in groups.items()},
            paradigm=cfg.paradigm if retrieval.reads_features else None,
            media=retrieval.stats,
        )
        run.write_config(retrieval.cfg)
        return RetrievalTrainer(retrieval, run, observe)
    system = System(cfg, data, run.cache, progress)
    parameters = {key: sum(p.numel() for _, p in group) for key, group in system.parameter_groups().items()}
    run.write_info(parameters=parameters, media=system.stats)
    run.write_config(system.cfg)
    return Trainer(system, run, observe)


def _observed(observe: Any, text: str, chunks: Any) -> Any:
    chunks = list(chunks)
    for i, chunk in enumerate(chunks):
        observe("encoding", what=text, done=i, total=len(chunks))
        yield chunk
    observe("encoding", what=text, done=len(chunks), total=len(chunks))


def _finish(run: RunFolder, system: System, trainer: Trainer, observe: Any) -> None:
    """The best epoch's weights, a fresh bank, one evaluation of test, and the files that make the run whole."""
    cfg, step = system.cfg, trainer.progress.step
    observe("evaluating")
    tensors, _ = checkpoint.load(run.path / "checkpoint" / "best.safetensors")
    stale_content = tensors.pop("bank.stale", None)
    system.load_state(tensors)
    results: dict[str, dict[str, Any]] = {}
    reasons: dict[str, dict[str, str]] = {}
    stale: dict[str, dict[str, Any]] = {}
    if system.bank is not None and stale_content is not None:
        system.bank.content.copy_(stale_content)
        for name, part in PARTS.items():
            values, _, _ = evaluate_part(system, part, cfg.seed)
            stale[name] = {f"stale/{key}": value for key, value in values.items()}
    system.refresh(None, step + 1)  # the weights are those of the best epoch: every row is made anew
    frames = []
    for name, part in PARTS.items():
        results[name], reasons[name], frame = evaluate_part(system, part, cfg.seed)
        results[name] |= {key: value for key, value in stale.get(name, {}).items() if "/" not in key[6:]}
        frames.append(frame)
    write_table(pl.concat(frames).to_arrow(), run.path / "scores.parquet")
    if cfg.eval.full_ranking:
        top = evaluate_topk(system, PARTS["test"], cfg.eval.topk)
        results["test"] |= top.metrics
        reasons["test"] |= top.reasons
        frame = pl.DataFrame({"user": top.users.astype(np.int32), "items": top.lists.items.tolist()})
        frame = frame.with_columns(*(pl.Series(k, v) for k, v in top.per_user.items() if "/" not in k))
        write_table(frame.to_arrow(), run.path / "topk.parquet")
    model = system.state()
    if system.bank is not None:
        model["bank.content"] = system.bank.content
    checkpoint.save(run.path / "model.safetensors", model, {"format": 1, "step": step, "model": cfg.label})
    checkpoint.write_json(run.path / "metrics.json", {**results, "reasons": reasons})
