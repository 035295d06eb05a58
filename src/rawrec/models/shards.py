"""Tables of ids of which each process holds a share of the rows: row modulo number of processes says whose it is.

A step asks the owners for the rows that it reads, and brings them the gradients afterwards; the owner updates, as the
optimiser updates a whole table. An exchange of any other kind begins when all processes have come to it: until then
those that wait answer the others, so that processes may read differently often.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rawrec.models.ids import SHARDS
from rawrec.world import World

NOTHING = -1  # asked for, in place of a table's number


class Shards:
    """The share of this process of `tables`, name -> parameter `[rows, dim]`, equal in all processes until now. Their
    data are this process's rows from now on: row `k * size + rank` of a table is its row k here."""

    def __init__(self, world: World, tables: Mapping[str, nn.Parameter]) -> None:
        self.world, self.names, self.tables = world, list(tables), list(tables.values())
        self.lengths = [len(table) for table in self.tables]
        self._widths = [table[:1].numel() for table in self.tables]
        self._read: list[tuple[int, Tensor, Tensor]] = []
        for number, table in enumerate(self.tables):
            table.data = self._own(table.data)
            setattr(table, SHARDS, (self, number))
        world.attend = self._attend

    def _own(self, values: Tensor) -> Tensor:
        return values[self.world.rank :: self.world.size].clone()

    # -------------------------------------------------------------------------------------------------------- reading
    def lookup(self, number: int, rows: Tensor) -> Tensor:
        """Rows of a table, `[*rows.shape, dim]`. Where gradients are computed theirs wait for `bring`."""
        table = self.tables[number]
        distinct, place = rows.flatten().unique(return_inverse=True)
        values = self._fetch(number, distinct)
        if torch.is_grad_enabled() and table.requires_grad:
            values.requires_grad_()
            self._read.append((number, distinct, values))
        return nn.functional.embedding(place, values).view(*rows.shape, values.shape[1])

    def _fetch(self, number: int, rows: Tensor) -> Tensor:
        """Distinct rows `[n]` of a table from their owners, `[n, dim]`."""
        width = self._widths[number]
        order, counts = self._by_owner(rows)
        heads = torch.stack([torch.full_like(counts, number), counts], 1)
        _, found = self._answer(heads, rows[order] // self.world.size, width)
        return torch.empty_like(found).index_copy_(0, order, found)

    def _by_owner(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The order of rows `[n]` by their owners, and how many each has, int64 `[size]` on the CPU."""
        owner = rows % self.world.size
        return owner.argsort(stable=True), torch.bincount(owner, minlength=self.world.size).cpu()

    def _answer(self, heads: Tensor, rows: Tensor, width: int) -> tuple[bool, Tensor]:
        """One round: ask every process for rows of one table, and give what is asked here. Whether anybody has asked,
        and `[n, width]`. heads: int64 `[size, 2]` on the CPU, the table's number and how many rows; rows: those of all
        processes, one's behind the other's, as places in what their owners hold."""
        size, each = self.world.size, heads[:, 1].tolist()
        others = self.world.swap(heads, [1] * size, [1] * size, "lookups")
        numbers, wanted = others[:, 0].tolist(), others[:, 1].tolist()
        if all(number == NOTHING for number in numbers) and numbers[self.world.rank] == NOTHING:
            return False, rows.new_zeros(0, width, dtype=self.tables[0].dtype)
        asked = self.world.swap(rows, each, wanted, "lookups").split(wanted)
        with torch.no_grad():
            parts = [
                self.tables[number].index_select(0, part).flatten()
                if number != NOTHING
                else self.tables[0].new_zeros(0)
                for number, part in zip(numbers, asked, strict=True)
            ]
            got = self.world.swap(
                torch.cat(parts), [len(part) for part in parts], [count * width for count in each], "lookups"
            )
        return True, got.view(-1, width)

    def _attend(self) -> None:
        """Answer the other processes until all of them wait."""
        idle = torch.tensor([[NOTHING, 0]] * self.world.size)
        while self._answer(idle, self._no_rows(), 1)[0]:
            pass

    def _no_rows(self) -> Tensor:
        return torch.zeros(0, dtype=torch.int64, device=self.tables[0].device)

    # ------------------------------------------------------------------------------------------------------ gradients
    def forget(self) -> None:
        """What was read is of a step that is over."""
        self._read = []

    def bring(self) -> None:
        """The gradients of what was read since `forget` to the owners, as sparse gradients of the tables."""
        found = [self._touched(number) for number in range(len(self.tables))]
        self._read = []
        size = self.world.size
        orders = [None if one is None else self._by_owner(one[0]) for one in found]
        counts = torch.stack([torch.full((size,), NOTHING) if one is None else one[1] for one in orders], 1)
        theirs = self.world.swap(counts, [1] * size, [1] * size, "rows").tolist()  # [rank][table]
        rows, values = [], []
        for rank in range(size):
            for one, order in zip(found, orders, strict=True):
                if one is not None and order is not None:
                    start = int(order[1][:rank].sum())
                    part = order[0][start : start + int(order[1][rank])]
                    rows.append(one[0][part] // size)
                    values.append(one[1][part].flatten())
        there = counts.clamp(min=0)
        given, got = there.sum(1).tolist(), [sum(max(count, 0) for count in of) for of in theirs]
        widths = torch.tensor(self._widths)
        given_values = (there * widths).sum(1).tolist()
        got_values = [sum(max(c, 0) * w for c, w in zip(of, self._widths, strict=True)) for of in theirs]
        no_values = self.tables[0].detach().new_zeros(0)
        all_rows = self.world.swap(torch.cat([self._no_rows(), *rows]), given, got, "rows")
        all_values = self.world.swap(torch.cat([no_values, *values]), given_values, got_values, "rows")
        row_parts = iter(all_rows.split([max(count, 0) for of in theirs for count in of]))
        sizes = [max(c, 0) * w for of in theirs for c, w in zip(of, self._widths, strict=True)]
        value_parts = iter(all_values.split(sizes))
        pieces: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.tables]
        for _ in theirs:
            for own in pieces:
                own.append((next(row_parts), next(value_parts)))
        for number, (table, own) in enumerate(zip(self.tables, pieces, strict=True)):
            table.grad = None
            if any(of[number] != NOTHING for of in theirs):
                index, content = torch.cat([r for r, _ in own])[None], torch.cat([v for _, v in own])
                content = content.view(-1, *table.shape[1:])
                table.grad = torch.sparse_coo_tensor(index, content, table.shape, check_invariants=False).coalesce()

    def _touched(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Distinct rows of a table with their gradients, `[n]` and `[n, dim]`; None where it has none."""
        read = [(rows, values.grad) for n, rows, values in self._read if n == number and values.grad is not None]
        if not read:
            return None
        rows, place = torch.cat([rows for rows, _ in read]).unique(return_inverse=True)
        grads = torch.cat([grad for _, grad in read])
        return rows, grads.new_zeros(len(rows), grads.shape[1]).index_add_(0, place, grads)

    # ------------------------------------------------------------------------------------------------------ the whole
    def table_of(self, name: str) -> int | None:
        """Which table a tensor of a checkpoint goes with, row by row: `<prefix><table>` or `<prefix><table>.<what>`."""
        for number, table in enumerate(self.names):
            if name.endswith(table) or f"{table}." in name:
                return number
        return None

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors with all rows of what goes with tables, in the first process; the others keep theirs."""
        found = dict(tensors)
        for name, value in tensors.items():
            number = self.table_of(name)
            if number is not None:
                found[name] = self._whole(value.detach(), self.lengths[number])
        return found

    def _whole(self, own: Tensor, length: int) -> Tensor:
        size, first = self.world.size, self.world.first
        counts = [len(range(rank, length, size)) for rank in range(size)]
        given, got = [len(own), *[0] * (size - 1)], counts if first else [0] * size
        self.world.attend()
        parts = self.world.swap(own, given, got, "whole tables").split(got)
        if not first:
            return own
        found = own.new_empty(length, *own.shape[1:])
        for rank, part in enumerate(parts):
            found[rank::size] = part
        return found

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The reverse: of whole tensors, as a checkpoint holds them, the rows of this process."""
        return {name: value if self.table_of(name) is None else self._own(value) for name, value in tensors.items()}

    def end(self) -> None:
        """The first process holds whole tables from now on; the others read none any more."""
        whole = self.whole(dict(zip(self.names, (table.data for table in self.tables), strict=True)))
        del self.world.attend
        if self.world.first:
            for name, table in zip(self.names, self.tables, strict=True):
                table.data = whole[name]
                delattr(table, SHARDS)
