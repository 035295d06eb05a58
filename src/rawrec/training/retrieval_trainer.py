"""One lean loop for retrieval models, with validation by lists of the full catalogue, and checkpoints.

The order of an epoch, negatives and the model's own draws are functions of seed, epoch and step, so that a resumed run
needs no generator's state.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from rawrec.errors import RunStopped, UserError
from rawrec.evaluation.ctr import buckets_of
from rawrec.evaluation.topk import TopK
from rawrec.files import write_table
from rawrec.memory import keep_freed_memory
from rawrec.models.graph import Interactions
from rawrec.training import state as checkpoint
from rawrec.training.evaluate import PARTS, TopKResult
from rawrec.training.negatives import Negatives
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.pairs import RetrievalSystem, generator_of
from rawrec.training.trainer import Progress

DECAY_EPOCHS = 50  # the learning rate falls by train.lr_decay in so many
SAVING_SHARE = 0.05  # of a run's time that checkpoints may take


class RetrievalTrainer:
    """Trains a `RetrievalSystem` in a `RunFolder`. `observer(event, **values)` is told of steps and epochs."""

    def __init__(self, system: RetrievalSystem, run: RunFolder, observer: Any = None):
        self.system, self.run, self.cfg, self.model = system, run, system.cfg, system.model
        self.observe = observer or (lambda event, **values: None)
        self.progress = Progress()
        keep_freed_memory()
        train = self.cfg.train
        groups = {key: group for key, group in system.parameter_groups().items() if group}
        self.names = [name for group in groups.values() for name, _ in group]
        self.parameters = [p for group in groups.values() for _, p in group]
        rates = {"model": train.lr, "encoder": train.encoder_lr}
        self.rates = [rates[key] for key in groups]
        decay = {"model": train.weight_decay, "encoder": 0.0}  # encoders stay near what they were
        self.optimizer = torch.optim.Adam(
            [
                {"params": [p for _, p in group], "lr": rates[key], "weight_decay": decay[key]}
                for key, group in groups.items()
            ],
            fused=True,
        )
        self._unproven = system.encoders()  # those that have had no gradient yet
        self._waiting: set[str] = set()  # those among them that have had items
        buckets = buckets_of(system.train_counts)
        self._buckets = list(buckets)
        self._in_bucket = torch.from_numpy(np.stack(list(buckets.values()))).to(system.device)  # [buckets, n_items]
        self._shown = torch.zeros(2, len(buckets), dtype=torch.int64, device=system.device)
        self.pairs, self.negatives = system.pairs, None
        if self.model.uses_negatives:
            self.negatives = Negatives(self.pairs)
            self.pairs = self._with_negatives(self.negatives)
        self._best = system.state()
        self._saved, self._saving = time.perf_counter(), 0.0
        self._check_validation()

    def _with_negatives(self, negatives: Negatives) -> Interactions:
        """The pairs of users who have not taken every item: the others have no negative to learn from."""
        pairs = self.pairs
        keep = negatives.free[pairs.users] > 0
        if not keep.any():
            raise UserError(
                f"model {self.cfg.model.name} learns from items that a user has not taken, and every user of the "
                "training part has taken all items"
            )
        return Interactions(pairs.users[keep], pairs.items[keep], pairs.n_users, pairs.n_items)

    def _check_validation(self) -> None:
        """What the end of the first epoch would trip over is told before the first step."""
        users = self.system.tasks[1].users
        if not len(users):
            known = " of a user whom training knows" if self.cfg.eval.protocol == "mmrec" else ""
            raise UserError(f"data.split={self.cfg.data.split!r}: the validation part has no positive{known}")
        shape = (len(users), max(self.cfg.eval.topk))
        self._monitored(self.system.judge(1, TopK(np.full(shape, -1), np.full(shape, -np.inf, np.float32))))

    def _monitored(self, result: TopKResult) -> float:
        name = self.cfg.train.metric
        value = result.metrics[name]
        if value is None:
            raise UserError(f"train.metric={name} is undefined on the validation part: {result.reasons[name]}")
        return round(value, 4) if self.cfg.eval.protocol == "mmrec" else value

    # ---------------------------------------------------------------------------------------------------------- loop
    def train(self) -> None:
        """Train to the last epoch or to early stopping, from wherever `progress` stands."""
        while not self.progress.finished:
            started = time.perf_counter()
            self._epoch()
            self._end_of_epoch(time.perf_counter() - started)

    def _epoch(self) -> None:
        state, train = self.progress, self.cfg.train
        generator = generator_of(self.cfg.seed, 0, state.epoch)
        order = torch.randperm(len(self.pairs.users), generator=generator).to(self.system.device)
        self.model.begin_epoch(self._moved(self.model.draw_epoch(generator)))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * train.lr_decay ** (state.epoch / DECAY_EPOCHS)
        self.observe("epoch", epoch=state.epoch, total=len(order), position=0)
        for rows in order.split(train.batch_size):
            self._step(rows)
            self.observe("step", samples=len(rows), loss=state.sums["loss"] / state.sums["steps"])

    def _step(self, rows: Tensor) -> None:
        """One optimiser step on some of the pairs; nothing is written unless loss and gradient are finite."""
        state, system = self.progress, self.system
        generator = generator_of(self.cfg.seed, 1, state.step)
        users, positives = self.pairs.users[rows], self.pairs.items[rows]
        negatives = None if self.negatives is None else self.negatives.draw(users, generator)
        draws = self._moved(self.model.draw(users, positives, negatives, generator))
        self.optimizer.zero_grad(set_to_none=True)
        items = positives if negatives is None else torch.cat([positives, negatives])
        live = system.go_live(items, state.step)
        losses = self.model.loss(users, positives, negatives, draws)
        losses["loss"].backward()
        if live is not None:
            live.backward()
        self.model.live = {}
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        values = torch.stack([value.detach().double() for value in (*losses.values(), norm)]).tolist()
        self._check_finite("loss", values[list(losses).index("loss")], users, positives)
        self._check_finite("gradient", values[-1], users, positives)
        if live is not None:
            self._check_encoders(items, live.encoded)
        self.optimizer.step()
        if live is not None and system.bank is not None:
            system.bank.write_features(live.encoded, live.features, state.step)
            shown = self._in_bucket[:, items]
            self._shown += torch.stack([shown.sum(1), (shown & torch.isin(items, live.encoded)).sum(1)])
        state.step += 1
        for name, value in zip([*losses, "steps"], [*values[:-1], 1], strict=True):
            key = name if name in ("loss", "steps") else f"loss/{name}"
            state.sums[key] = state.sums.get(key, 0.0) + value

    def _moved(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.system.device) for name, value in draws.items()}

    def _check_encoders(self, items: Tensor, encoded: Tensor) -> None:
        """A trained encoder must have had a gradient after a step in which all items of the loss had media for it.

        Where some lack them, a loss that compares items may rightly have none to compare: it has until the epoch's end.
        """
        for name, encoder in list(self._unproven.items()):
            present = self.model.present(name)
            if any(p.grad is not None and bool(p.grad.any()) for p in encoder.trained_parameters()):
                del self._unproven[name]
            elif present[items].all():
                self._no_gradient(name)
            elif present[encoded].any():
                self._waiting.add(name)

    def _no_gradient(self, name: str) -> None:
        raise UserError(
            f"content.{name}.train={self.cfg.content.fields[name].train}: no gradient reaches the encoder of {name!r} "
            f"under these settings of model {self.cfg.model.name}. Set content.{name}.train=none, or "
            "train.precision=fp32 if it is lost in rounding"
        )

    def _check_finite(self, what: str, value: float, users: Tensor, items: Tensor) -> None:
        if math.isfinite(value):
            return
        data, shown = self.system.data, 5
        first = zip(users[:shown].tolist(), items[:shown].tolist(), strict=True)
        pairs = ", ".join(f"({data.user_ids[u]}, {data.item_ids[i]})" for u, i in first)
        folder = self.run.path / "checkpoint"
        there = (folder / "last.safetensors").is_file()
        where = f"the last good checkpoint is in {folder}" if there else "there is no checkpoint yet"
        rates = "train.lr" if self.system.bank is None else "train.lr or train.encoder_lr"
        raise RunStopped(
            f"the {what} of step {self.progress.step} (epoch {self.progress.epoch + 1}) is {value}. Nothing of this "
            f"step was written; {where}. Its batch of {len(users)} pairs begins with (user, item) {pairs}. Try a lower "
            f"{rates}; look for extreme numbers in the features of these items with `rawrec inspect`"
        )

    def _end_of_epoch(self, seconds: float) -> None:
        state, cfg, bank = self.progress, self.cfg, self.system.bank
        line: dict[str, Any] = {"epoch": state.epoch + 1, "step": state.step}
        line |= {key: value / state.sums["steps"] for key, value in state.sums.items() if key != "steps"}
        for name in self._waiting & self._unproven.keys():
            self._no_gradient(name)
        begun, stale = time.perf_counter(), {}
        if bank is not None:
            line |= bank.health(state.step) | self._live_shares()
            stale = {f"stale.bank.feature/{name}": values.clone() for name, values in bank.features.items()}
            line |= {f"valid/{key}": value for key, value in self._stale_metrics(1).items()}
            self.system.refresh(state.step)
        result = self.system.evaluate(1, buckets="/" in cfg.train.metric)
        line |= {f"valid/{key}": value for key, value in result.metrics.items()}
        validating = time.perf_counter() - begun
        value = self._monitored(result)
        state.epoch += 1
        if state.best is None or value > state.best:
            state.best, state.best_epoch, state.bad_epochs = value, state.epoch, 0
            self._best = {name: tensor.clone() for name, tensor in self.system.state().items()} | stale
        else:
            state.bad_epochs += 1
        patience = cfg.train.patience + (cfg.eval.protocol == "mmrec")
        state.finished = state.epoch >= cfg.train.epochs or state.bad_epochs >= patience
        state.sums = {}
        samples = len(self.pairs.users)
        times = {"seconds": seconds, "samples_per_second": samples / seconds, "validation_seconds": validating}
        self.run.append_metrics({**line, **times})
        # A resumed run does again, exactly, what was done since the last checkpoint.
        if state.finished or time.perf_counter() - self._saved > self._saving / SAVING_SHARE:
            self.save()
        self.observe("validated", line={**line, **times}, best=state.best_epoch == state.epoch)

    def _stale_metrics(self, part: int) -> dict[str, float | None]:
        """Of the features as training left them."""
        metrics = self.system.evaluate(part, buckets=False).metrics
        return {f"stale/{name}": value for name, value in metrics.items() if "@" in name}

    def _live_shares(self) -> dict[str, float | None]:
        """Of the items shown in the epoch, by bucket: the share that was encoded."""
        shown, live = self._shown.tolist()
        self._shown.zero_()
        counts = zip(self._buckets, shown, live, strict=True)
        return {f"live_share/{name}": encoded / n if n else None for name, n, encoded in counts}

    # ----------------------------------------------------------------------------------------------------- checkpoints
    def save(self) -> None:
        """The best weights and the whole state of the run, each replaced atomically."""
        started, folder = time.perf_counter(), self.run.path / "checkpoint"
        tensors = checkpoint.with_prefix("model.", self.system.state())
        tensors |= checkpoint.with_prefix("best.", self._best)
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optim.{name}.{key}"] = value
        state = {"progress": asdict(self.progress), "metrics_lines": self.progress.epoch}
        checkpoint.save(folder / "last.safetensors", tensors, state)
        self._saved = time.perf_counter()
        self._saving = self._saved - started

    def restore(self) -> None:
        """Continue where the last checkpoint stands; lines of metrics written after it are taken back."""
        tensors, state = checkpoint.load(self.run.path / "checkpoint" / "last.safetensors")
        self.progress = Progress(**state["progress"])
        self.system.load_state(checkpoint.without_prefix("model.", tensors))
        self._best = checkpoint.without_prefix("best.", tensors)
        for name, parameter in zip(self.names, self.parameters, strict=True):
            values = checkpoint.without_prefix(f"optim.{name}.", tensors)
            if values:  # laid out in memory as the parameter is: fused Adam walks over both as they lie
                self.optimizer.state[parameter] = {
                    key: value.to(parameter.device) if key == "step" else torch.empty_like(parameter).copy_(value)
                    for key, value in values.items()
                }
        self.run.keep_metrics(state["metrics_lines"])

    def finish(self) -> None:
        """The best epoch's weights, one evaluation of test, and the files that make the run whole."""
        self.observe("evaluating")
        run, system = self.run, self.system
        best = {name: value for name, value in self._best.items() if not name.startswith("stale.")}
        stale: dict[str, dict[str, float | None]] = {name: {} for name in PARTS}
        if system.bank is not None:
            system.load_state(best | checkpoint.without_prefix("stale.", self._best))
            stale = {name: self._stale_metrics(part) for name, part in PARTS.items()}
        system.load_state(best)
        results = {name: system.evaluate(part) for name, part in PARTS.items()}
        test = results["test"]
        frame = pl.DataFrame({"user": test.users.astype(np.int32), "items": test.lists.items.tolist()})
        frame = frame.with_columns(*(pl.Series(k, v) for k, v in test.per_user.items() if "/" not in k))
        write_table(frame.to_arrow(), run.path / "topk.parquet")
        about = {"format": 1, "step": self.progress.step, "model": self.cfg.model.name}
        checkpoint.save(run.path / "model.safetensors", system.state(), about)
        metrics = {name: result.metrics | stale[name] for name, result in results.items()}
        reasons = {name: result.reasons for name, result in results.items()}
        checkpoint.write_json(run.path / "metrics.json", {**metrics, "reasons": reasons})
