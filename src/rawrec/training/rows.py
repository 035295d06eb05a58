"""AdamW and averaged weights of a table that is touched by rows (see `models/ids.py`).

A row changes in the steps whose batch holds it, and only then: its moments and their bias correction count these uses,
not the steps of the run. Decoupled weight decay is made up for when the row is used again: once for every step since
its last use, as a dense table would have it, but for at most so many (`absence`), so that a row of a large catalogue,
which is seldom used, does not fade to nothing between two uses.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # as torch's Adam
WARM = 10  # averages forget their beginning: their decay is at most step / (step + WARM)
MANY = 1 << 16  # uses after which no bias is left of moments: BETA_2 ** MANY is nothing beside 1
CHUNK = 1 << 18


def average_decay(ema: float, step: int) -> float:
    """The decay of averaged weights in the `step`-th step, counted from 1."""
    return min(ema, step / (step + WARM))


def kept(ema: float, first: Tensor, last: int) -> Tensor:
    """The product of `average_decay` over the steps after `first` `[n]` up to `last`: float64 `[n]`."""
    rising = _log_rising(ema, first.device)
    end = len(rising) - 1
    log = rising.index_select(0, first.clamp(max=end)).add_((first - end).clamp_(min=0), alpha=math.log(ema))
    return (float(rising[min(last, end)]) + max(last - end, 0) * math.log(ema) - log).exp_()


@cache
def _log_rising(ema: float, device: torch.device) -> Tensor:
    """Log of the product of `average_decay` over the steps 1 to s, for s from 0 to where it is `ema`: float64.

    s / (s + 10) telescopes into factorials.
    """
    steps = torch.arange(math.floor(WARM * ema / (1 - ema)) + 1, dtype=torch.float64, device=device)
    return torch.lgamma(steps + 1) - torch.lgamma(steps + WARM + 1) + math.lgamma(WARM + 1)


@cache
def _unbiased(device: torch.device) -> tuple[Tensor, Tensor]:
    """Of moments after n uses: 1 / (1 - BETA_1 ** n) and sqrt(1 - BETA_2 ** n), for n from 0 to MANY: float64."""
    uses = torch.arange(MANY + 1, dtype=torch.float64, device=device)
    return 1 / (1 - BETA_1**uses), (1 - BETA_2**uses).sqrt()


class RowAdam:
    """The optimiser's state of one table, `weight` `[rows, ...]`: moments, uses and, with `ema`, averaged weights.

    decay: weight decay, decoupled as AdamW has it or, `decoupled=False`, added to the gradient as Adam has it; both for
    the rows in the batch. absence: steps without a row that count for its decoupled decay, at most, its use included.
    `uses` and `used` int32 `[rows]`: how many steps touched the row, and the last of them. The average of a row that
    is not touched follows it in closed form: `averaged` int32 `[rows]` is the step that its average stands at.
    """

    def __init__(self, weight: Tensor, decay: float, decoupled: bool, ema: float, absence: int = 1):
        self.weight, self.decay, self.decoupled, self.ema, self.absence = weight, decay, decoupled, ema, absence
        self.moments: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.average = self.averaged = None
        if ema:
            self.average = weight.detach().clone()
            self.averaged = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        self.rows = self.values = None

    def collect(self) -> Tensor | None:
        """The gradient of the rows that the batch touched, `[n, ...]`, each row once; None without a gradient."""
        self.rows = self.values = None
        if self.weight.grad is not None:
            grad = self.weight.grad.coalesce()
            self.rows, self.values = grad.indices()[0], grad.values()
        return self.values

    @torch.no_grad()
    def step(self, rate: float, step: int) -> None:
        """Update the collected rows. step: of the run, counted from 1."""
        rows, grad = self.rows, self.values
        if rows is None or grad is None:
            return
        if self.moments is None:
            self.moments = self._no_moments()  # of a share without a row in the batch, too: all shares are alike
        if not len(rows):
            return
        first, second, uses, used = self.moments
        old = self.weight.index_select(0, rows)
        if self.decay and not self.decoupled:
            grad = grad.add(old, alpha=self.decay)
        m = first.index_select(0, rows).lerp_(grad, 1 - BETA_1)
        v = second.index_select(0, rows).mul_(BETA_2).addcmul_(grad, grad, value=1 - BETA_2)
        count = uses.index_select(0, rows) + 1
        n, shape = count.clamp(max=MANY), (-1, *[1] * (grad.ndim - 1))
        size, root = (table.index_select(0, n).to(m.dtype).view(shape) for table in _unbiased(rows.device))
        missed = (step - used.index_select(0, rows)).clamp_(max=self.absence).to(old.dtype).view(shape)
        new = old * (1 - rate * self.decay) ** missed if self.decoupled else old.clone()
        new.addcdiv_(size * m, (v.sqrt() / root).add_(EPSILON), value=-rate)
        for table, values in ((first, m), (second, v), (uses, count), (self.weight, new)):
            table.index_copy_(0, rows, values)
        used.index_fill_(0, rows, step)
        if self.average is not None and self.averaged is not None:
            average = self._caught_up(rows, old, step - 1).lerp_(new, 1 - average_decay(self.ema, step))
            self.average.index_copy_(0, rows, average)
            self.averaged.index_fill_(0, rows, step)

    def _caught_up(self, rows: Tensor, weight: Tensor, step: int) -> Tensor:
        """The averages of `rows` after `step`, which have stood at `weight` since they were last touched."""
        assert self.average is not None and self.averaged is not None
        average = self.average.index_select(0, rows)
        share = 1 - kept(self.ema, self.averaged.index_select(0, rows), step)
        return average.lerp_(weight, share.to(weight.dtype).view(-1, *[1] * (weight.ndim - 1)))

    @torch.no_grad()
    def catch_up(self, step: int) -> None:
        """Bring the averages of all rows to `step`."""
        if self.average is None or self.averaged is None:
            return
        for start in range(0, len(self.average), CHUNK):
            part = slice(start, start + CHUNK)
            late = (self.averaged[part] < step).nonzero()[:, 0] + start
            self.average.index_copy_(0, late, self._caught_up(late, self.weight.index_select(0, late), step))
        self.averaged.fill_(step)

    def _no_moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        zeros = torch.zeros_like(self.weight, requires_grad=False)
        never = torch.zeros(len(zeros), dtype=torch.int32, device=zeros.device)
        return zeros, zeros.clone(), never, never.clone()

    def grow(self) -> None:
        """Follow the table, which has more rows now: of no steps yet."""
        if self.moments is not None:
            more = len(self.weight) - len(self.moments[2])
            first, second, uses, used = (torch.cat([m, m.new_zeros(more, *m.shape[1:])]) for m in self.moments)
            self.moments = first, second, uses, used
        if self.average is not None and self.averaged is not None:
            behind = len(self.average)
            self.average = torch.cat([self.average, self.weight.detach()[behind:]])
            self.averaged = torch.cat([self.averaged, self.averaged.new_zeros(len(self.weight) - behind)])

    @torch.no_grad()
    def forget(self, rows: Tensor) -> None:
        """These rows are of no steps yet."""
        for values in (*(self.moments or ()), *([] if self.averaged is None else [self.averaged])):
            values[rows] = 0
        if self.average is not None:
            self.average[rows] = self.weight.detach()[rows]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside weights and average."""
        moments = dict(zip(("exp_avg", "exp_avg_sq", "uses", "used"), self.moments or (), strict=False))
        return moments | ({} if self.averaged is None else {"averaged": self.averaged})

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.moments = self._no_moments() if "uses" in state else None
        for name, value in self.state().items():
            value.copy_(state[name])
