"""Settings of a run that may change after its start, and how a run goes on under them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rawrec.config import Config, resolve
from rawrec.config.finetune import FinetuneConfig, finetune_config
from rawrec.config.resolution import flatten, single
from rawrec.config.wording import short
from rawrec.errors import UserError
from rawrec.training.ending import kept_of
from rawrec.training.runs import RunFolder, Settings

OF_TRAINING = ("epochs", "patience", "checkpoint_every", "checkpoint_share", "on_interrupt", "threads", "device")
"""Of whatever is trained."""
CHANGEABLE = (
    *(f"train.{name}" for name in OF_TRAINING),
    "train.processes",
    "bank.micro_batch",
    "eval.batch_size",
    "eval.bootstrap",
)
"""What says how long a run goes on, or where and in how large pieces it computes: what it learns stays the same."""


def changed(run: RunFolder, overrides: Mapping[str, Any]) -> tuple[Settings, dict[str, list[Any]]]:
    """The settings under which a run goes on, and which of them have changed: key -> [before, now].

    Raises UserError for what must stay as it was, and where the run would not go on.
    """
    cfg, given = run.settings(), single(overrides)
    tuned = isinstance(cfg, FinetuneConfig)
    may = OF_TRAINING if tuned else CHANGEABLE
    for key, value in given.items():
        if key not in may:
            raise UserError(
                f"{key}={short(value)}: what a run learns, and from what, stays as it began; {', '.join(may)} may "
                + ("change" if tuned else f"change. Or begin a new run with its weights: train.init={run.path}")
            )
    new = finetune_config(cfg.dump() | given, given) if tuned else resolve(cfg.dump(), given)
    before, now = (dict(flatten(one.dump())) for one in (cfg, new))
    found = {key: [before[key], now[key]] for key in given if before[key] != now[key]}
    _check(run, new, given)
    return new, found


def _check(run: RunFolder, cfg: Settings, given: Mapping[str, Any]) -> None:
    """UserError where training is over under these settings, and the user asked for more, or for less than there is."""
    state, info = kept_of(run), run.info()
    train, prefix = (cfg, "") if isinstance(cfg, FinetuneConfig) else (cfg.train, "train.")
    if state is None:
        if info["finished"]:
            raise UserError(
                f"{run.path}/checkpoint/last.safetensors, with which a finished run goes on, is not there"
                + (
                    ""
                    if isinstance(cfg, FinetuneConfig)
                    else f"; begin a new run with its weights: train.init={run.path}"
                )
            )
        return
    if train.epochs <= state.epoch and (f"{prefix}epochs" in given or (given and state.finished)):
        way = "" if info["finished"] else f", or end it there: `rawrec finish {run.path}`"
        raise UserError(
            f"{prefix}epochs={train.epochs}: {run.path} has {state.epoch} already; give more than these{way}"
        )
    patience = train.patience + (isinstance(cfg, Config) and cfg.eval.protocol == "mmrec")
    if given and state.finished and state.bad_epochs >= patience:
        raise UserError(
            f"{run.path} was ended by early stopping: {state.bad_epochs} epochs without improvement, "
            f"{prefix}patience={train.patience}; raise that, too"
        )


def record(run: RunFolder, changes: Mapping[str, list[Any]], epoch: int, step: int) -> None:
    """Note in `run.json` which settings have changed, and after how many epochs and steps."""
    if not changes:
        return
    line = {"at": time.strftime("%Y-%m-%d %H:%M:%S"), "epoch": epoch, "step": step, "settings": dict(changes)}
    run.write_info(changed=[*run.info().get("changed", []), line])
    words = ", ".join(f"{key}={short(now)} (was {short(before)})" for key, (before, now) in changes.items())
    run.log(f"changed after {epoch} epochs, {step} steps: {words}")
