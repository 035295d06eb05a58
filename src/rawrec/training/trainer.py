"""One lean training loop for ranking systems: exact to resume, stopped before anything not finite is written."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.content.live import LiveContent
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Impressions
from rawrec.errors import RunStopped, UserError
from rawrec.evaluation.ctr import buckets_of, ctr_metrics
from rawrec.models.ranking.ranker import present_name
from rawrec.training import state as checkpoint
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import System

LOWER_IS_BETTER = ("logloss", "ece")


@dataclass
class Progress:
    """Where a run stands; with the tensors of a checkpoint, all that a resumed run needs."""

    epoch: int = 0  # epochs finished
    position: int = 0  # training samples of the current epoch that are done
    step: int = 0  # optimiser updates made
    best: float | None = None
    best_epoch: int = 0
    bad_epochs: int = 0
    finished: bool = False  # training, not the final evaluation
    sums: dict[str, float] = field(default_factory=dict)  # of the current epoch, for its line of metrics


class Trainer:
    """Trains a `System` in a `RunFolder`. `observer(event, **values)` is told of steps and epochs (progress bars)."""

    def __init__(self, system: System, run: RunFolder, observer=None):
        self.system, self.run, self.cfg = system, run, system.cfg
        self.samples = system.samples
        self.observe = observer or (lambda event, **values: None)
        self.progress = Progress()
        groups = system.parameter_groups()
        train = self.cfg.train
        rates = {"encoder": train.encoder_lr, "id": train.lr, "rest": train.lr, "plain": train.lr}
        decay = {"id": train.id_weight_decay, "rest": train.weight_decay}  # encoders stay near what they were
        self.names = [name for group in groups.values() for name, _ in group]
        self.parameters: list[Tensor] = [p for group in groups.values() for _, p in group]
        self.rates = [rates[key] for key, group in groups.items() if group]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for _, p in group], "lr": rates[key], "weight_decay": decay.get(key, 0.0)}
                for key, group in groups.items()
                if group
            ]
        )
        self.average = [p.detach().clone() for p in self.parameters] if train.ema else []
        self._buckets = {name: torch.from_numpy(m) for name, m in buckets_of(self.samples.train_counts).items()}
        self._unproven = dict(system.raw_encoders()) if self.cfg.paradigm == "end_to_end" else {}
        self._unproven = {name: e for name, e in self._unproven.items() if e.trained_parameters()}
        if len(self.samples.rows(0)) == 0:
            raise UserError(f"data.split={self.cfg.data.split!r}: the training part has no interactions")
        labels = self.samples.labels[self.samples.rows(0)]
        if not self.samples.positive_only and labels.min() == labels.max():
            raise UserError(
                f"data.label={self.cfg.data.label!r}: every training label is {labels[0]:g}; a ranking model needs "
                "positive and negative examples. Choose another label, or import without one for positive-only data"
            )
        self._check_validation()

    def _check_validation(self) -> None:
        """What the end of the first epoch would trip over is told before the first step."""
        sample = self.evaluation_sample(1)
        if not len(sample.rows):
            raise UserError(f"data.split={self.cfg.data.split!r}: the validation part has no interactions")
        self._monitored(*impression_metrics(self.system, sample, np.full(sample.items.shape, 0.5, np.float32)))

    # ---------------------------------------------------------------------------------------------------------- loop
    def train(self) -> None:
        """Train to the last epoch or to early stopping, from wherever `progress` stands."""
        state = self.progress
        if state.step == 0 and state.epoch == 0 and self.cfg.bank.warm_start:
            self.system.refresh(None, 0)
        while not state.finished:
            started, first = time.perf_counter(), state.position
            self._epoch()
            self._end_of_epoch(time.perf_counter() - started, first)

    def _epoch(self) -> None:
        state, train = self.progress, self.cfg.train
        order = self.samples.order(self.cfg.seed, state.epoch)
        per_step = train.batch_size * train.accumulate
        self.observe("epoch", epoch=state.epoch, total=len(order), position=state.position)
        while state.position < len(order):
            rows = order[state.position : state.position + per_step]
            self._step(rows)
            state.position += len(rows)
            self.observe("step", samples=len(rows), loss=state.sums["loss"] / state.sums["steps"])
            if state.step % train.checkpoint_every == 0 and state.position < len(order):
                self.save()

    def _step(self, rows: np.ndarray) -> None:
        """One optimiser step: live items encoded once, batches scored, gradients checked, weights and bank written."""
        state, system, cfg = self.progress, self.system, self.cfg
        system.train()
        seed = _mix(cfg.seed, state.step)
        sample = self.samples.impressions(rows, 0, np.random.default_rng([cfg.seed, state.epoch, state.step]))
        users, items, history = system.tensors(sample, 0)
        live = None
        if system.bank is not None:
            live = system.live_content(items, history, seed)
        torch.manual_seed(seed + 1)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = dict.fromkeys(("loss", "loss/bce", "loss/cic"), 0.0)
        labels = torch.from_numpy(sample.labels).to(system.device)
        for part in _slices(len(rows), cfg.train.batch_size):
            batch = system.training_batch(users[part], items[part], history[part], live)
            loss = nn.functional.binary_cross_entropy_with_logits(
                system.ranker(batch).float(), labels[part], reduction="sum"
            )
            loss = loss / labels.numel()
            sums["loss/bce"] += loss.item()
            loss.backward()
        if live is not None and cfg.model.cic_weight and len(live.rows):
            candidates = torch.isin(live.rows, items)
            contrast = system.ranker.contrast(live.rows[candidates], live.leaf[candidates])
            sums["loss/cic"] = contrast.item()
            (cfg.model.cic_weight * contrast).backward()
        sums["loss"] = sums["loss/bce"] + cfg.model.cic_weight * sums["loss/cic"]
        self._check_finite(sums["loss"], "loss", sample)
        if live is not None:
            live.backward()
            self._check_encoders(live)
        norm = nn.utils.clip_grad_norm_(self.parameters, cfg.train.clip)
        self._check_finite(float(norm), "gradient", sample)
        warm = min(1.0, (state.step + 1) / cfg.train.warmup_steps) if cfg.train.warmup_steps else 1.0
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * warm
        self.optimizer.step()
        if live is not None and system.bank is not None and system.content_in is None and len(live.rows):
            system.bank.write_features(live.encoded, live.features, state.step)
            system.bank.write(live.rows, live.leaf, state.step)
        state.step += 1
        if self.average:
            decay = min(cfg.train.ema, state.step / (state.step + 10))
            weights = [p.detach() for p in self.parameters]
            torch._foreach_lerp_(self.average, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self._count(sums, items, live)

    def _count(self, sums: dict[str, float], items: Tensor, live: LiveContent | None) -> None:
        total = self.progress.sums
        for key, value in {**sums, "steps": 1}.items():
            total[key] = total.get(key, 0.0) + value
        if live is None or self.cfg.paradigm != "end_to_end":
            return
        flat = items.flatten().cpu()
        is_live = torch.isin(flat, live.encoded.cpu())
        for name, mask in self._buckets.items():
            total[f"shown/{name}"] = total.get(f"shown/{name}", 0) + int(mask[flat].sum())
            total[f"live/{name}"] = total.get(f"live/{name}", 0) + int((mask[flat] & is_live).sum())

    def _check_finite(self, value: float, what: str, sample: Impressions) -> None:
        if math.isfinite(value):
            return
        data, shown = self.system.data, 5
        pairs = ", ".join(
            f"({data.user_ids[u]}, {data.item_ids[i]})"
            for u, i in zip(sample.users[:shown], sample.items[:shown, 0], strict=True)
        )
        raise RunStopped(
            f"the {what} of step {self.progress.step} (epoch {self.progress.epoch + 1}) is {value}. Nothing of this "
            f"step was written; {self._last_good()}. Its batch of "
            f"{len(sample.rows)} samples begins with the (user, item) pairs {pairs}. Try a lower train.lr or "
            "train.encoder_lr, a smaller train.clip, or train.precision=fp32; look for extreme numbers in the columns "
            "of these items with `rawrec inspect`"
        )

    def _last_good(self) -> str:
        folder = self.run.path / "checkpoint"
        if (folder / "last.safetensors").is_file():
            return f"the last good checkpoint is in {folder}"
        return "there is no checkpoint yet"

    def _check_encoders(self, live: LiveContent) -> None:
        """A trainable encoder that has had items in the batch must have had a gradient."""
        bank, tower = self.system.bank, self.system.tower
        assert bank is not None and tower is not None
        for name, encoder in list(self._unproven.items()):
            present = bank.static[tower.column(name)].lengths[live.encoded.cpu()]
            if not int(present.sum()):
                continue
            if not any(p.grad is not None and bool(p.grad.any()) for p in encoder.trained_parameters()):
                raise UserError(
                    f"content.{name}.train={self.cfg.content.fields[name].train}: no gradient reaches the encoder of "
                    f"{name!r}. Set content.{name}.train=none, or train.precision=fp32 if it is lost in rounding"
                )
            del self._unproven[name]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has its averaged weights (train.ema), which are the ones evaluated and kept."""
        if not self.average:
            yield
            return
        own = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.average)  # pyright: ignore[reportPrivateImportUsage]
            try:
                yield
            finally:
                torch._foreach_copy_(self.parameters, own)  # pyright: ignore[reportPrivateImportUsage]

    # ---------------------------------------------------------------------------------------------------- evaluation
    def evaluation_sample(self, part: int) -> Impressions:
        """All impressions of a part, in row order; negatives, where drawn, are the same every time."""
        rng = np.random.default_rng([self.cfg.seed, 7919, part])
        return self.samples.impressions(self.samples.rows(part), part, rng)

    def rows_read(self, sample: Impressions, part: int) -> Tensor:
        """The item rows that the evaluation of a sample reads: candidates and histories."""
        _, items, history = self.system.tensors(sample, part)
        return torch.unique(torch.cat([items.flatten(), history.flatten()]))

    def _end_of_epoch(self, seconds: float, first: int) -> None:
        state, system = self.progress, self.system
        sample = self.evaluation_sample(1)
        sums = state.sums
        line: dict[str, Any] = {"epoch": state.epoch + 1, "step": state.step}
        line |= {key: sums[key] / sums["steps"] for key in ("loss", "loss/bce", "loss/cic")}
        if system.bank is not None:
            line |= system.bank.health(state.step)
            line |= {
                f"live_share/{name}": sums[f"live/{name}"] / sums[f"shown/{name}"] if sums[f"shown/{name}"] else None
                for name in self._buckets
                if f"shown/{name}" in sums
            }
        begun = time.perf_counter()
        with self.averaged():
            self._validate(sample, line)
        validating = time.perf_counter() - begun
        state.position, state.sums = 0, {}
        state.finished = state.epoch >= self.cfg.train.epochs or state.bad_epochs >= self.cfg.train.patience
        samples = len(self.samples.rows(0)) - first
        times = {"seconds": seconds, "samples_per_second": samples / seconds, "validation_seconds": validating}
        self.run.append_metrics({**line, **times})
        self.save()
        self.observe("validated", line={**line, **times}, best=state.best_epoch == state.epoch)

    def _validate(self, sample: Impressions, line: dict[str, Any]) -> None:
        """Metrics of the bank as training left it and of the fresh one, into `line`; the best weights are kept."""
        state, system = self.progress, self.system
        stale_content = None
        if system.bank is not None and self.cfg.paradigm != "frozen":
            stale_content = system.bank.content.clone()
            stale, _ = impression_metrics(system, sample, system.score_impressions(sample, 1))
            line |= {f"valid/stale/{key}": stale[key] for key in ("auc", "gauc", "logloss")}
        system.refresh(self.rows_read(sample, 1), state.step)
        metrics, reasons = impression_metrics(system, sample, system.score_impressions(sample, 1))
        line |= {f"valid/{key}": value for key, value in metrics.items()}
        value = self._monitored(metrics, reasons)
        state.epoch += 1
        lower = self.cfg.train.metric.rpartition("/")[2] in LOWER_IS_BETTER
        if state.best is None or (value < state.best if lower else value > state.best):
            state.best, state.best_epoch, state.bad_epochs = value, state.epoch, 0
            tensors = system.state()
            if stale_content is not None:
                tensors["bank.stale"] = stale_content
            checkpoint.save(self.run.path / "checkpoint" / "best.safetensors", tensors, {"epoch": state.epoch})
        else:
            state.bad_epochs += 1

    def _monitored(self, metrics: dict[str, float | None], reasons: dict[str, str]) -> float:
        name = self.cfg.train.metric
        if name not in metrics:
            known = ", ".join(sorted(k for k in metrics if "/" not in k))
            raise UserError(
                f"train.metric={name!r} is no validation metric. Known: {known}, also with cold/, rare/ ..."
            )
        value = metrics[name]
        if value is None:
            why = reasons.get(name, "undefined")
            raise UserError(f"train.metric={name} is undefined on the validation part: {why}. Use train.metric=logloss")
        return value

    # ----------------------------------------------------------------------------------------------------- checkpoints
    def save(self) -> None:
        """The whole state of the run, replaced atomically."""
        tensors = checkpoint.with_prefix("model.", self.system.state())
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optim.{name}.{key}"] = value
        tensors |= {f"average.{name}": value for name, value in zip(self.names, self.average, strict=False)}
        if self.system.bank is not None:
            tensors |= checkpoint.with_prefix("bank.", self.system.bank.state())
        state = {"progress": asdict(self.progress), "metrics_lines": self.progress.epoch}
        checkpoint.save(self.run.path / "checkpoint" / "last.safetensors", tensors, state)

    def restore(self) -> None:
        """Continue where the last checkpoint stands; lines of metrics written after it are taken back."""
        tensors, state = checkpoint.load(self.run.path / "checkpoint" / "last.safetensors")
        tensors = {present_name(name): value for name, value in tensors.items()}
        self.progress = Progress(**state["progress"])
        self.system.load_state(checkpoint.without_prefix("model.", tensors))
        for name, parameter in zip(self.names, self.parameters, strict=True):
            values = checkpoint.without_prefix(f"optim.{name}.", tensors)
            if values:
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in values.items()
                }
        for name, value in zip(self.names, self.average, strict=False):
            value.copy_(tensors[f"average.{name}"])
        if self.system.bank is not None:
            self.system.bank.load_state(checkpoint.without_prefix("bank.", tensors))
        self.run.keep_metrics(state["metrics_lines"])


def impression_metrics(
    system: System, sample: Impressions, scores: np.ndarray
) -> tuple[dict[str, float | None], dict[str, str]]:
    """CTR metrics of scored impressions by bucket; for generated data also the share of the best possible AUC."""
    users = np.repeat(sample.users, sample.items.shape[1])
    items, labels = sample.items.ravel(), (sample.labels.ravel() > 0).astype(np.int64)
    buckets = {name: mask[items] for name, mask in buckets_of(system.samples.train_counts).items()}
    metrics, reasons = ctr_metrics(labels, scores.ravel(), users, buckets)
    return metrics | best_possible(system.data, sample, metrics, buckets), reasons


def best_possible(
    data: Dataset, sample: Impressions, metrics: dict[str, float | None], buckets: dict[str, np.ndarray]
) -> dict[str, float | None]:
    """For generated data `auc_best` (AUC* of the true click probability) and `share` = (AUC - .5) / (AUC* - .5)."""
    if not data.meta.generated:
        return {}
    best, _ = ctr_metrics(
        (sample.labels.ravel() > 0).astype(np.int64), data.column("probability")[sample.rows], sample.users, buckets
    )
    result: dict[str, float | None] = {}
    for prefix in ("", *(f"{name}/" for name in buckets)):
        top, got = best[f"{prefix}auc"], metrics[f"{prefix}auc"]
        result[f"{prefix}auc_best"] = top
        result[f"{prefix}share"] = (
            (got - 0.5) / (top - 0.5) if top is not None and got is not None and top > 0.5 else None
        )
    return result


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, start + size)


def _mix(seed: int, step: int) -> int:
    """A seed per step: random numbers are a function of seed and step, so a resumed run needs no generator's state."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 2)
