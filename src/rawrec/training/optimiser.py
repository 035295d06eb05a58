"""The one optimiser of all that is trained: groups and their rates, schedule, clipping, averaged weights.

Dense parameters go through torch's Adam or AdamW, tables that are touched by rows (`models/ids.py`) through `RowAdam`:
a step costs what its batch costs. The norm of the gradient is of both together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rawrec.config import TrainConfig
from rawrec.errors import UserError
from rawrec.models.ids import is_sharded, is_touched_by_rows
from rawrec.training.rows import RowAdam, average_decay
from rawrec.world import ALONE, World

DECAY_EPOCHS = 50  # the learning rate falls by train.lr_decay in so many
Groups = Mapping[str, Sequence[tuple[str, nn.Parameter]]]


class Optimiser:
    """Steps of the parameters of a task, in named groups.

    `encoder` learns at train.encoder_lr, less in each lower layer by train.encoder_lr_decay, `id` at train.id_lr, every
    other group at train.lr. `id` decays by
    train.id_weight_decay, `plain` (biases, norms) and `encoder` (which stays near what it was) not at all, the others
    by train.weight_decay.

    levels: how many layers of its encoder lie above that of a parameter, by its id; none where it is not said.
    """

    def __init__(self, groups: Groups, train: TrainConfig, levels: Mapping[int, int] | None = None):
        self.cfg = train
        self.fused = train.optimizer != "adamw"
        self.names = [name for group in groups.values() for name, _ in group]
        self.parameters: list[nn.Parameter] = [p for group in groups.values() for _, p in group]
        self.tables: dict[str, RowAdam] = {}
        self._dense: dict[str, nn.Parameter] = {}
        self._table_rates: dict[str, float] = {}
        options = []
        rates = {"encoder": train.encoder_lr, "id": train.id_lr or train.lr}
        for key, group in groups.items():
            rate = rates.get(key, train.lr)
            decays = {"id": train.id_weight_decay, "encoder": 0.0, "plain": 0.0}
            decay = decays.get(key, train.weight_decay)
            by_rows = {name: p for name, p in group if is_touched_by_rows(p)}
            dense = {name: p for name, p in group if name not in by_rows}
            self.tables |= {name: self._by_rows(p, decay) for name, p in by_rows.items()}
            self._table_rates |= dict.fromkeys(by_rows, rate)
            self._dense |= dense
            known = levels or {} if key == "encoder" and train.encoder_lr_decay < 1 else {}
            by_level: dict[int, list[nn.Parameter]] = {}
            for p in dense.values():
                by_level.setdefault(known.get(id(p), 0), []).append(p)
            for level, own in sorted(by_level.items()):
                options.append({"params": own, "lr": rate * train.encoder_lr_decay**level, "weight_decay": decay})
        self.rates = [option["lr"] for option in options]
        self.group_rates = {key: rates.get(key, train.lr) for key, group in groups.items() if group}
        self.torch: torch.optim.Optimizer | None = None
        if options:
            self.torch = torch.optim.Adam(options, fused=True) if self.fused else torch.optim.AdamW(options)
        self._average = {name: p.detach().clone() for name, p in self._dense.items()} if train.ema else {}
        self.updates = 0

    def _by_rows(self, table: nn.Parameter, decay: float) -> RowAdam:
        return RowAdam(table, decay, not self.fused, self.cfg.ema, self.cfg.id_decay_steps)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def clip(self, world: World = ALONE) -> Tensor:
        """The norm of the gradient, before it is cut to train.clip: as if all of it were dense. Of tables that the
        processes of a `world` share it is that of all shares."""
        own, shared = list[Tensor](), list[Tensor]()
        for name, parameter in zip(self.names, self.parameters, strict=True):
            grad = self.tables[name].collect() if name in self.tables else parameter.grad
            if grad is not None:
                (shared if is_sharded(parameter) else own).append(grad)
        norm = nn.utils.get_total_norm(own)
        if any(is_sharded(parameter) for parameter in self.parameters):
            squares = norm.new_zeros(1) + sum(grad.square().sum() for grad in shared)
            norm = (norm.square() + world.sum(squares, "norms")[0]).sqrt()
        if self.cfg.clip is not None:
            nn.utils.clip_grads_with_norm_(list(self._dense.values()), self.cfg.clip, norm)
            share = torch.clamp(self.cfg.clip / (norm + 1e-6), max=1.0)
            for table in self.tables.values():
                if table.values is not None:
                    table.values.mul_(share)
        return norm

    def step(self, step: int, epoch: int) -> None:
        """Update the weights and their average by the gradient that `clip` has seen.

        step: updates made before; epoch: epochs finished.
        """
        train, (warm, fallen) = self.cfg, self._factors(step, epoch)
        self.updates = step + 1
        if self.torch is not None:
            for group, rate in zip(self.torch.param_groups, self.rates, strict=True):
                group["lr"] = rate * warm * fallen
            self.torch.step()
        for name, table in self.tables.items():
            table.step(self._table_rates[name] * warm * fallen, self.updates)
        if self._average:
            share = 1 - average_decay(train.ema, self.updates)
            weights = [p.detach() for p in self._dense.values()]
            torch._foreach_lerp_(list(self._average.values()), weights, share)  # pyright: ignore[reportPrivateImportUsage]

    def _factors(self, step: int, epoch: int) -> tuple[float, float]:
        train = self.cfg
        warm = min(1.0, (step + 1) / train.warmup_steps) if train.warmup_steps else 1.0
        return warm, train.lr_decay ** (epoch / DECAY_EPOCHS)

    def rates_of(self, step: int, epoch: int) -> dict[str, float]:
        """The learning rates of an update, by group; of encoders that of their last layers."""
        warm, fallen = self._factors(step, epoch)
        return {key: rate * warm * fallen for key, rate in self.group_rates.items()}

    def grow(self) -> None:
        """Tables that are touched by rows have more rows now."""
        for table in self.tables.values():
            table.grow()

    def forget(self, weight: Tensor, rows: Tensor) -> None:
        """These rows of a table that is touched by rows are of no steps yet."""
        for table in self.tables.values():
            if table.weight is weight:
                table.forget(rows)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters are their averages (train.ema), which are the weights evaluated and kept.

        Tables that may be large are exchanged with their averages, not copied.
        """
        if not self.cfg.ema:
            yield
            return
        for table in self.tables.values():
            table.catch_up(self.updates)
        with torch.no_grad():
            own = [p.detach().clone() for p in self._dense.values()]
            self._exchange_tables()
            try:
                self._overwrite(list(self._average.values()))
                yield
            finally:
                self._overwrite(own)
                self._exchange_tables()

    @torch.no_grad()
    def take_averages(self, names: Iterable[str]) -> None:
        """Put the averages of these parameters, tables that are not touched by rows, in their place for good."""
        for name in names:
            if name in self._average:
                self._dense[name].copy_(self._average[name])

    def go_on_from(self, other: Optimiser) -> None:
        """Take over the state of another one's parameters, as far as they are this one's, too; others begin anew."""
        shared = set(self.names) & set(other.names)
        kept = {
            key: value
            for key, value in other.state().items()
            if key == "optim.updates" or key.removeprefix("average.") in shared or key[6:].rpartition(".")[0] in shared
        }
        self.load_state(self.state() | kept)

    def _overwrite(self, values: list[Tensor]) -> None:
        if values:
            torch._foreach_copy_(list(self._dense.values()), values)  # pyright: ignore[reportPrivateImportUsage]

    def _exchange_tables(self) -> None:
        for table in self.tables.values():
            assert table.average is not None
            table.weight.data, table.average = table.average, table.weight.data

    # ----------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside the parameters: `optim.<name>.<key>`, `average.<name>`, `optim.updates`.

        The tensors are the optimiser's own, which later steps change.
        """
        tensors = {"optim.updates": torch.tensor(self.updates)}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            own = self.tables[name].state() if name in self.tables else self._dense_state(parameter)
            tensors |= {f"optim.{name}.{key}": value for key, value in own.items()}
        return tensors | {f"average.{name}": value for name, value in self._averages().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """The reverse of `state`, which it finds among `tensors`. Raises UserError where it is of other parameters."""
        own: dict[str, dict[str, Tensor]] = {name: {} for name in self.names}
        try:
            for key, value in tensors.items():
                if key.startswith("optim.") and key != "optim.updates":
                    name, _, what = key.removeprefix("optim.").rpartition(".")
                    own[name][what] = value
            for name, parameter in zip(self.names, self.parameters, strict=True):
                if name in self.tables:
                    self.tables[name].load_state(own[name])
                elif self.torch is not None and own[name]:
                    self.torch.state[parameter] = self._laid_out(parameter, own[name])
            for name, average in self._averages().items():
                average.copy_(tensors[f"average.{name}"])
            self.updates = int(tensors["optim.updates"])
        except (KeyError, RuntimeError):  # another name, another shape
            raise UserError(
                "the optimiser's state in the checkpoint is not of this model: another version of rawrec made it, or "
                "config.yaml was changed. Train again with this version"
            ) from None

    def _dense_state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        return {} if self.torch is None else self.torch.state.get(parameter, {})

    def _laid_out(self, parameter: nn.Parameter, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """In memory as the parameter is: fused Adam walks over both as they lie. It counts steps on the device."""
        step = values["step"].to(parameter.device) if self.fused else values["step"]
        moments = {key: torch.empty_like(parameter).copy_(value) for key, value in values.items() if key != "step"}
        return {"step": step.clone(), **moments}

    def _averages(self) -> dict[str, Tensor]:
        tables = {name: table.average for name, table in self.tables.items() if table.average is not None}
        return {name: tables[name] if name in tables else self._average[name] for name in self.names if self.cfg.ema}
