"""What the processes of a run exchange in a step beside content: the numbers of its losses, and gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from rawrec.models.ids import is_sharded, is_touched_by_rows
from rawrec.models.shards import Shards
from rawrec.world import World


def exchange(
    world: World, parameters: Sequence[nn.Parameter], values: Tensor, asked: int, shards: Shards | None = None
) -> tuple[Tensor, int]:
    """Sum the gradients of all processes into every one's, and the numbers `values` `[n]`.

    A parameter without a gradient anywhere has none afterwards. Of tables that are touched by rows, the rows that any
    process touched are sent, with their values; of `shards` to their owners alone. asked: a number that is told as
    well; the largest is returned.
    """
    sparse = [p for p in parameters if is_touched_by_rows(p) and not is_sharded(p)]
    dense = [p for p in parameters if not is_touched_by_rows(p)]
    grads = [None if p.grad is None else p.grad.coalesce() for p in sparse]
    counts = [0 if g is None else g.indices().shape[1] for g in grads]
    flags = [float(p.grad is not None) for p in (*dense, *sparse)]
    told = world.table(torch.cat([values.cpu(), torch.tensor([*flags, *counts, asked], dtype=torch.float64)]))
    n = len(values)
    there = told[:, n : n + len(flags)].any(0).tolist()
    _sum_dense(world, [p for p, known in zip(dense, there, strict=False) if known])
    each = told[:, n + len(flags) : -1].long().tolist()
    _sum_sparse(world, sparse, grads, each, there[len(dense) :])
    if shards is not None:
        shards.bring()
    return told[:, :n].sum(0), int(told[:, -1].max())


def mark(tensors: Iterable[Tensor]) -> float:
    """A number of all bits of some tensors: where it differs, they do."""
    total = 0
    for tensor in tensors:
        bits = tensor.detach().contiguous().flatten()
        bits = bits.view(torch.int32 if bits.element_size() % 4 == 0 else torch.uint8)
        total = (31 * total + int(bits.sum(dtype=torch.int64))) % (1 << 50)
    return float(total)


def _sum_dense(world: World, parameters: list[nn.Parameter]) -> None:
    """All in one message, by the kind of their numbers."""
    for dtype in dict.fromkeys(p.dtype for p in parameters):
        own = [p for p in parameters if p.dtype == dtype]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in own])
        world.sum(flat, "dense")
        for p, part in zip(own, flat.split([p.numel() for p in own]), strict=True):
            p.grad = torch.empty_like(p) if p.grad is None else p.grad
            p.grad.copy_(part.view(p.shape))


def _sum_sparse(
    world: World,
    tables: list[nn.Parameter],
    grads: list[Tensor | None],
    counts: list[list[int]],
    there: list[bool],
) -> None:
    """counts: of every rank, how many rows of each table it has touched."""
    if not any(there):
        return
    widths = [table[:1].numel() for table in tables]
    known = [g for g in grads if g is not None]
    rows = torch.cat([g.indices()[0].to(torch.int32) for g in known]) if known else tables[0].new_zeros(0).int()
    values = torch.cat([g.values().flatten() for g in known]) if known else tables[0].detach().new_zeros(0)
    all_rows = world.gather(rows, [sum(of) for of in counts], "rows")
    sizes = [sum(c * w for c, w in zip(of, widths, strict=True)) for of in counts]
    all_values = world.gather(values, sizes, "rows")
    row_parts = iter(all_rows.split([c for of in counts for c in of]))
    value_parts = iter(all_values.split([c * w for of in counts for c, w in zip(of, widths, strict=True)]))
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in tables]
    for _ in counts:
        for own in found:
            own.append((next(row_parts), next(value_parts)))
    for table, own, known_somewhere in zip(tables, found, there, strict=True):
        if known_somewhere:
            index = torch.cat([rows for rows, _ in own]).long()[None]
            content = torch.cat([values for _, values in own]).view(-1, *table.shape[1:])
            table.grad = torch.sparse_coo_tensor(index, content, table.shape, check_invariants=False).coalesce()
