"""The items of one optimiser step whose content has a gradient: each is made once, however often it stands there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rawrec.randomness import seed_draws
from rawrec.world import ALONE, Owners, World, shared

Encode = Callable[[Tensor], dict[str, Tensor]]
"""What trained encoders make of some rows: name -> `[n, width]`."""
Fuse = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]
"""What is made of rows `[n]`, of those of them that were encoded, and of what came of these: `[n, dim]`."""


class Encoded:
    """Rows that go through trained encoders once in a step. `values` collect the gradients of every use.

    Where the rows fit in one micro-batch their graph is kept; else each micro-batch is encoded once without a graph
    and, when its gradient is known, once more (gradient caching). Encoders have no dropout, so both times give the
    same. learning: how many of the rows, the first of them, have a backward pass; None: all.
    """

    def __init__(self, encode: Encode, rows: Tensor, micro_batch: int, learning: int | None = None):
        self._encode = encode
        learns = rows if learning is None else rows[:learning]
        self._parts = list(learns.split(micro_batch)) if len(learns) > micro_batch else []
        self._made: dict[str, Tensor] = {}
        if self._parts:
            with torch.no_grad():
                parts = [encode(part) for part in self._parts]
            self._leaves = {name: torch.cat([p[name] for p in parts]).requires_grad_() for name in parts[0]}
        else:
            self._made = encode(learns)
            self._leaves = {name: v.detach().requires_grad_(v.requires_grad) for name, v in self._made.items()}
        self.values = self._leaves
        if len(rows) > len(learns):
            with torch.no_grad():
                others = [encode(part) for part in rows[len(learns) :].split(micro_batch)]
            self.values = {name: torch.cat([v, *(o[name] for o in others)]) for name, v in self._leaves.items()}

    def backward(self) -> None:
        """Carry the gradients on into the encoders."""
        self._carry_on([(values, self._leaves[name].grad) for name, values in self._made.items()])
        start = 0
        for part in self._parts:
            stop = start + len(part)
            again = self._encode(part)
            grads = {name: values.grad for name, values in self._leaves.items()}
            self._carry_on([(v, None if (g := grads[name]) is None else g[start:stop]) for name, v in again.items()])
            start = stop

    @staticmethod
    def _carry_on(pairs: list[tuple[Tensor, Tensor | None]]) -> None:
        """Features and their gradients; an encoder whose field none of the items has makes no graph."""
        known = [(values, grad) for values, grad in pairs if grad is not None and values.requires_grad]
        if known:
            torch.autograd.backward([values for values, _ in known], [grad for _, grad in known])


class _Spread:
    """Rows `[n]` of a step that go through trained encoders, each in the process that owns it. `values`: what came of
    all of them, in every process, with a gradient of every use; see `Encoded`."""

    def __init__(self, encode: Encode, rows: Tensor, micro_batch: int, learning: int | None, world: World, kind: str):
        self._kind = kind
        self._owners = Owners(world, rows) if world.several and len(rows) else None
        if self._owners is None:
            self._own = Encoded(encode, rows, micro_batch, learning)
            self.values = self._own.values
            return
        mine = self._owners.mine

        def some(part: Tensor) -> dict[str, Tensor]:
            """Of none, the shapes are those of another one's."""
            return encode(part) if len(part) else {name: found[:0] for name, found in encode(rows[:1]).items()}

        learns = None if learning is None else int((mine < learning).sum())
        self._own = Encoded(some, rows[mine], micro_batch, learns)
        self.values = {
            name: self._owners.gathered(values.detach(), kind).requires_grad_()
            for name, values in self._own.values.items()
        }

    @property
    def own(self) -> dict[str, Tensor]:
        """Of the rows that this process has encoded, in their order."""
        return self._own.values

    def backward(self) -> None:
        if self._owners is not None:
            for name, values in self.values.items():
                grad = _returned(self._owners, values, self._kind)
                if grad is not None and self.own[name].requires_grad:
                    self.own[name].backward(grad)
        self._own.backward()


def _returned(owners: Owners, leaf: Tensor, kind: str) -> Tensor | None:
    """The gradient of one's own rows by what all processes made of `leaf`; None where nobody has any."""
    if not owners.world.any(leaf.grad is not None):
        return None
    return owners.returned(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad, kind)


class LiveQueries:
    """The queries of a step, each encoded once. rows: `[n]` int64, ascending; leaf: theirs `[n, dim]`, which collects
    the gradient of every use."""

    def __init__(self, encode: Callable[[Tensor], Tensor], rows: Tensor, micro_batch: int, world: World = ALONE):
        self.rows = rows
        self._encoded = _Spread(lambda part: {"query": encode(part)}, rows, micro_batch, None, world, "queries")
        self.leaf = self._encoded.values["query"]

    def backward(self) -> None:
        self._encoded.backward()

    def locate(self, rows: Tensor) -> Tensor:
        """The positions of query rows among them, -1 for -1; all others are there."""
        found = torch.searchsorted(self.rows, rows) if len(self.rows) else torch.zeros_like(rows)
        return found.masked_fill(rows < 0, -1)

    def at(self, rows: Tensor) -> Tensor:
        """Their vectors `[n, 1, dim]`, with gradient; zeros for -1."""
        found = self.locate(rows)
        if not len(self.rows):
            return self.leaf.new_zeros(len(rows), 1, self.leaf.shape[1])
        return (self.leaf[found.clamp(min=0)] * (found >= 0)[:, None])[:, None]


class LiveContent:
    """The items of one optimiser step whose content has a gradient, made once however often they stand in it.

    rows: `[n]` their item rows, unique; all go through projections and fusion: `fuse(rows, encoded, features)` makes
    `[n, dim]`. encoded: `[m]` of them that go through the trained encoders as well: `encode(rows)` makes field ->
    `[m, width]`, see `Encoded`, also for `learning`; the features of the others are the bank's. `leaf` `[n, dim]`
    collects the gradient of every use, and `features` that of losses which read them themselves; `backward` carries
    both on, and that of the step's `queries`, where there are any. `settle` makes `content`, what the bank is to hold:
    without dropout, by the weights before the update.

    In a `world` of several processes each makes its own of the rows (`Owners`), and all have all of them.
    """

    def __init__(
        self,
        encode: Encode,
        fuse: Fuse,
        rows: Tensor,
        encoded: Tensor,
        micro_batch: int,
        seed: int,
        settled: Fuse | None = None,
        queries: LiveQueries | None = None,
        learning: int | None = None,
        world: World = ALONE,
    ):
        self.rows, self.encoded, self._settled, self.queries = rows, encoded, settled, queries
        self.learned = len(encoded) if learning is None else learning  # of those encoded, how many with a gradient
        self._encoded = _Spread(encode, encoded, micro_batch, learning, world, "features")
        self.features = self._encoded.values
        seed_draws(seed, rows.device)
        self._owners = Owners(world, rows) if world.several and len(rows) else None
        if self._owners is None:
            self._content = fuse(rows, encoded, self.features)
            self.leaf = self._content.detach().requires_grad_()
        else:
            self._content = self._fused(fuse, self._encoded.own, self._owners)
            self.leaf = self._owners.gathered(self._content.detach(), "content").requires_grad_()
        self.content = self.leaf.detach()

    def _fused(self, fuse: Fuse, features: dict[str, Tensor], owners: Owners) -> Tensor:
        """Of this process's own rows; where it has none, of another one's row, cut off."""
        world, mine = owners.world, owners.mine
        places = mine if len(mine) else mine.new_zeros(1)
        encoded = self.encoded[self.encoded % world.size == world.rank]
        with shared(world, places, len(self.rows)):
            return fuse(self.rows[places], encoded, features)[: len(mine)]

    def backward(self) -> None:
        grad = self.leaf.grad if self._owners is None else _returned(self._owners, self.leaf, "content")
        if grad is not None and self._content.requires_grad:
            self._content.backward(grad)
        self._encoded.backward()
        if self.queries is not None:
            self.queries.backward()

    def settle(self) -> None:
        """Make `content` as evaluation would, where training drops part of it: no such sample stays in the bank."""
        if self._settled is not None:
            with torch.no_grad():
                own = self._encoded.own
                features = {name: values.detach() for name, values in own.items()}
                if self._owners is None:
                    self.content = self._settled(self.rows, self.encoded, features)
                else:
                    self.content = self._owners.gathered(self._fused(self._settled, features, self._owners), "content")
