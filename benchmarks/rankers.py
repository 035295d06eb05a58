"""Samples per second of each ranking head in a training step, beside the same head written with bare torch.

Both get the same tokens, of the same sizes, and make the same step: logits, cross entropy, gradients of the head and of
the tokens, and a fused Adam update. They take turns in one process, so that what else the machine does meets both.
Times are of the processor, summed over threads, since others may use the machine, too; `ratio` is the median over turns
of theirs by ours: above 1, ours is faster.

example: python benchmarks/rankers.py --threads 2 dcnv2 din:model.softmax=true
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from common import emit
from torch import Tensor, nn

from rawrec.config import RANKERS, parse_overrides, resolve
from rawrec.models import model_class
from rawrec.models.ranking.history import HistoryContent
from rawrec.models.ranking.tokens import Head, Part, Past, Token, Tokens

MORE = (
    "dcnv2:model.cross=mixture",
    "dcnv2:model.structure=stacked",
    "din:model.dice_padding=true",
    "rankmixer:model.experts=4",
)


# ------------------------------------------------------------------------------------------------- written with torch
def perceptron(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers)


class Bare(nn.Module):
    """A head as one writes it from the paper: `forward(values [n, tokens, dim], linear [n], t, h, mask)` -> `[n]`."""

    def __init__(self, cfg: Any, tokens: int, histories: int):
        super().__init__()
        self.cfg, self.width = cfg, tokens * cfg.dim


class BareDotMlp(Bare):
    def __init__(self, cfg: Any, tokens: int, histories: int):
        super().__init__(cfg, tokens, histories)
        self.mlp = perceptron(self.width + tokens * (tokens - 1) // 2, *cfg.hidden)
        self.out = nn.Linear(cfg.hidden[-1], 1)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, values: Tensor, linear: Tensor, *_: Any) -> Tensor:
        i, j = torch.triu_indices(values.shape[1], values.shape[1], 1)
        x = torch.cat([values.flatten(1), torch.bmm(values, values.transpose(1, 2))[:, i, j]], 1)
        for layer in self.mlp:
            x = self.dropout(layer(x)) if isinstance(layer, nn.ReLU) else layer(x)
        return linear + self.out(x)[:, 0]


class BareDeep(Bare):
    """Wide & Deep, and DeepFM."""

    def __init__(self, cfg: Any, tokens: int, histories: int):
        super().__init__(cfg, tokens, histories)
        self.mlp, self.out = perceptron(self.width, *cfg.hidden), nn.Linear(cfg.hidden[-1], 1)

    def forward(self, values: Tensor, linear: Tensor, *_: Any) -> Tensor:
        logit = linear + self.out(self.mlp(values.flatten(1)))[:, 0]
        if self.cfg.name == "deepfm":
            logit = logit + 0.5 * (values.sum(1) ** 2 - (values**2).sum(1)).sum(1)
        return logit


class BareDCNv2(Bare):
    def __init__(self, cfg: Any, tokens: int, histories: int):
        super().__init__(cfg, tokens, histories)
        w, layers, experts = self.width, range(cfg.cross_layers), range(cfg.experts)
        if cfg.cross == "mixture":
            matrix = lambda *shape: nn.Parameter(nn.init.xavier_normal_(torch.empty(*shape)))  # noqa: E731
            self.V = nn.ParameterList(matrix(w, cfg.rank) for _ in layers for _ in experts)
            self.C = nn.ParameterList(matrix(cfg.rank, cfg.rank) for _ in layers for _ in experts)
            self.U = nn.ParameterList(matrix(cfg.rank, w) for _ in layers for _ in experts)
            self.bias = nn.ParameterList(nn.Parameter(torch.zeros(w)) for _ in layers)
            self.gate = nn.Linear(w, cfg.experts, bias=False)
        else:
            self.cross = nn.ModuleList(nn.Linear(w, w) for _ in layers)
        self.mlp = perceptron(w, *cfg.hidden)
        self.out = nn.Linear(cfg.hidden[-1] + (w if cfg.structure == "parallel" else 0), 1)

    def forward(self, values: Tensor, *_: Any) -> Tensor:
        x = first = values.flatten(1)
        for k in range(self.cfg.cross_layers):
            if self.cfg.cross == "mixture":
                outs = []
                for e in range(k * self.cfg.experts, (k + 1) * self.cfg.experts):
                    inner = torch.tanh(torch.tanh(x @ self.V[e]) @ self.C[e])
                    outs.append(first * (inner @ self.U[e] + self.bias[k]))
                gates = torch.softmax(self.gate(x), 1)
                x = x + (torch.stack(outs, 2) @ gates[..., None])[..., 0]
            else:
                x = first * self.cross[k](x) + x
        x = torch.cat([x, self.mlp(first)], 1) if self.cfg.structure == "parallel" else self.mlp(x)
        return self.out(x)[:, 0]


class BareDice(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-9, momentum=0.01, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.norm(x))
        return p * x + self.alpha * (1 - p) * x


class BareDIN(Bare):
    """Dice counts padding, as published: statistics without it would take a selection of rows more."""

    def __init__(self, cfg: Any, tokens: int, histories: int):
        super().__init__(cfg, tokens, histories)
        d, inner = cfg.dim, cfg.attention_hidden
        unit = lambda: nn.Sequential(nn.Linear(4 * d, inner[0]), BareDice(inner[0]), nn.Linear(inner[0], 1))  # noqa: E731
        self.units = nn.ModuleList(unit() for _ in range(histories))
        layers: list[nn.Module] = []
        for a, b in pairwise([self.width + histories * d, *cfg.hidden]):
            layers += [nn.Linear(a, b), BareDice(b)]
        self.mlp = nn.Sequential(*layers, nn.Linear(cfg.hidden[-1], 1))

    def forward(self, values: Tensor, linear: Tensor, t: Tensor, h: Tensor, mask: Tensor) -> Tensor:
        pooled = []
        for unit in self.units:
            e = t[:, None].expand_as(h)
            logits = unit(torch.cat([e, h, e - h, e * h], 2).flatten(0, 1)).view(mask.shape)
            weights = torch.softmax(logits.masked_fill(~mask, -1e9), 1) if self.cfg.softmax else logits
            pooled.append(((weights * mask)[..., None] * h).sum(1))
        return self.mlp(torch.cat([values.flatten(1), *pooled], 1))[:, 0]


def mixed(x: Tensor) -> Tensor:
    """`[n, tokens, width]`."""
    n, tokens, width = x.shape
    return x.view(n, tokens, tokens, width // tokens).transpose(1, 2).reshape(n, tokens, width)


class PerToken(nn.Module):
    def __init__(self, *shape: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape) / shape[-2] ** 0.5)
        self.bias = nn.Parameter(torch.zeros(*shape[:-2], shape[-1]))

    def forward(self, x: Tensor) -> Tensor:
        pattern = "ntd,tdk->ntk" if self.weight.ndim == 3 else "ntd,tedk->ntek" if x.ndim == 3 else "nted,tedk->ntek"
        return torch.einsum(pattern, x, self.weight) + self.bias


class BareRankMixer(Bare):
    def __init__(self, cfg: Any, tokens: int, histories: int):
        super().__init__(cfg, tokens, histories)
        t, d, inner = cfg.tokens, cfg.width, cfg.multiplier * cfg.width
        e = () if cfg.experts == 1 else (cfg.experts,)
        self.piece = -(-self.width // t)
        self.projection = PerToken(t, self.piece, d)
        blocks = range(cfg.layers)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(2 * cfg.layers))
        self.up = nn.ModuleList(PerToken(t, *e, d, inner) for _ in blocks)
        self.down = nn.ModuleList(PerToken(t, *e, inner, d) for _ in blocks)
        self.routers = nn.ModuleList(nn.Linear(d, cfg.experts) for _ in range(2 * cfg.layers)) if e else None
        self.out = nn.Linear(d, 1)

    def forward(self, values: Tensor, *_: Any) -> Tensor:
        flat = nn.functional.pad(values.flatten(1), (0, self.piece * self.cfg.tokens - self.width))
        x, self.penalty = self.projection(flat.view(len(flat), -1, self.piece)), values.new_zeros(())
        for k in range(self.cfg.layers):
            x = self.norms[2 * k](mixed(x) + x)
            y = self.down[k](nn.functional.gelu(self.up[k](x)))
            if self.routers is not None:
                train, infer = (torch.relu(self.routers[2 * k + r](x)) for r in (0, 1))
                y = (((train + infer) / 2)[..., None] * y).sum(2)
                self.penalty = self.penalty + infer.sum() / x.shape[1]
            x = self.norms[2 * k + 1](y + x)
        return self.out(x.mean(1))[:, 0]


class BareTokenMixerLarge(Bare):
    def __init__(self, cfg: Any, tokens: int, histories: int):
        super().__init__(cfg, tokens, histories)
        n, d, inner = cfg.tokens + 1, cfg.width, cfg.multiplier * cfg.width
        self.piece = -(-self.width // cfg.tokens)
        self.projection, self.token = PerToken(cfg.tokens, self.piece, d), nn.Parameter(torch.randn(d) * 0.02)
        halves = range(2 * cfg.layers)
        self.norms = nn.ModuleList(nn.RMSNorm(d) for _ in halves)
        self.gate = nn.ModuleList(PerToken(n, d, inner) for _ in halves)
        self.up = nn.ModuleList(PerToken(n, d, inner) for _ in halves)
        self.down = nn.ModuleList(PerToken(n, inner, d) for _ in halves)
        self.scores = nn.ModuleList(nn.Sequential(nn.RMSNorm(d), nn.Linear(d, 1)) for _ in range(cfg.layers))

    def network(self, k: int, x: Tensor) -> Tensor:
        x = self.norms[k](x)
        return self.down[k](nn.functional.silu(self.gate[k](x)) * self.up[k](x))

    def forward(self, values: Tensor, *_: Any) -> Tensor:
        flat = nn.functional.pad(values.flatten(1), (0, self.piece * self.cfg.tokens - self.width))
        x = self.projection(flat.view(len(flat), -1, self.piece))
        x = before = torch.cat([self.token.expand(len(x), 1, -1), x], 1)
        auxiliary, interval = [], self.cfg.residual_interval
        for k in range(self.cfg.layers):
            h = mixed(x)
            h = h + self.network(2 * k, h)
            x = x + self.network(2 * k + 1, mixed(h))
            if (k + 1) % interval == 0 and k + 1 < self.cfg.layers:
                x = before = x + before
                auxiliary.append(self.scores[k](x[:, 0])[:, 0])
        self.auxiliary = torch.stack(auxiliary).mean(0) if auxiliary else None
        return self.scores[-1](x[:, 0])[:, 0]


BARE: dict[str, type[Bare]] = {
    "dot_mlp": BareDotMlp,
    "wide_deep": BareDeep,
    "deepfm": BareDeep,
    "dcnv2": BareDCNv2,
    "din": BareDIN,
    "rankmixer": BareRankMixer,
    "tokenmixer_large": BareTokenMixerLarge,
}


# ---------------------------------------------------------------------------------------------------------- the steps
class Given:
    """Random tokens, history and labels of a batch; leaves that take gradients, as ids do."""

    def __init__(self, batch: int, tokens: int, dim: int, history: int):
        generator = torch.Generator().manual_seed(0)
        self.each = [(torch.randn(batch, 1, dim, generator=generator) * 0.1).requires_grad_() for _ in range(tokens)]
        self.linear = torch.zeros(batch, requires_grad=True)
        self.t = (torch.randn(batch, dim, generator=generator) * 0.1).requires_grad_()
        self.h = (torch.randn(batch, history, dim, generator=generator) * 0.1).requires_grad_()
        self.mask = torch.arange(history) >= torch.randint(0, history, (batch, 1), generator=generator)
        self.labels = torch.randint(0, 2, (batch,), generator=generator).float()
        self.batch = SimpleNamespace(items=torch.zeros(batch, 1, dtype=torch.int64))

    def tokens(self, names: list[str]) -> Tokens:
        part = Part([Token(*pair) for pair in zip(names, self.each, strict=True)], [self.linear[:, None]])
        part.histories["ids"] = Past(self.t[:, None], HistoryContent(self.h, self.mask))
        return Tokens([part], (len(self.linear), 1))


def loss_of_ours(head: Head, given: Given, names: list[str]) -> Tensor:
    tokens, labels = given.tokens(names), given.labels[:, None]
    loss = nn.functional.binary_cross_entropy_with_logits(head(tokens)[..., 0], labels)
    for name, value in head.losses(tokens, given.batch, labels).items():  # type: ignore[arg-type]
        loss = loss + head.loss_weights[name] * value / len(labels)
    return loss


def loss_of_bare(head: Bare, given: Given) -> Tensor:
    logits = head(torch.cat(given.each, 1), given.linear, given.t, given.h, given.mask)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, given.labels)
    if isinstance(head, BareTokenMixerLarge) and head.auxiliary is not None:
        auxiliary = nn.functional.binary_cross_entropy_with_logits(head.auxiliary, given.labels)
        loss = loss + head.cfg.auxiliary_weight * auxiliary
    if isinstance(head, BareRankMixer) and head.routers is not None:
        loss = loss + head.cfg.gate_penalty * head.penalty / len(given.labels)
    return loss


def step_of(head: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(head.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def measure(model: str, batch: int, tokens: int, history: int, turns: int, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    name, *words = model.split(":")
    cfg: Any = resolve(name, {"model.content": "none", **parse_overrides(words)}).model
    names = [f"t{k}" for k in range(tokens)]
    given = Given(batch, tokens, cfg.dim, history)
    torch.manual_seed(0)
    head = model_class(name)
    ours = head(cfg, names, cfg.dim, **({"histories": {"ids": cfg.dim}} if head.attends else {})).train()
    bare = BARE[name](cfg, tokens, 1).train()
    work = [step_of(ours, lambda: loss_of_ours(ours, given, names)), step_of(bare, lambda: loss_of_bare(bare, given))]
    for step in work:
        step()
        step()
    taken: list[list[float]] = [[], []]
    for turn in range(turns):
        for k in (0, 1) if turn % 2 else (1, 0):
            started = time.process_time()
            for _ in range(steps):
                work[k]()
            taken[k].append((time.process_time() - started) / steps)
    speeds = [batch / statistics.median(times) for times in taken]
    ratios = sorted(theirs / mine for mine, theirs in zip(*taken, strict=True))
    emit(
        model=model, threads=threads, batch=batch, tokens=tokens, dim=cfg.dim, history=history, turns=turns,
        parameters=sum(p.numel() for p in ours.parameters()),
        parameters_bare=sum(p.numel() for p in bare.parameters() if p.grad is not None),
        samples_per_second=speeds[0], samples_per_second_bare=speeds[1], ratio=statistics.median(ratios),
        ratio_low=ratios[len(ratios) // 4], ratio_high=ratios[-1 - len(ratios) // 4],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="heads, with settings after colons; all unless given")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--history", type=int, default=20)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="of each in a turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    for model in args.models or [*RANKERS, *MORE]:
        measure(model, args.batch, args.tokens, args.history, args.turns, args.steps, args.threads)


if __name__ == "__main__":
    main()
