"""What SLMRec and MMGCL share: one LightGCN for ids and one for each modality, over the same user-item graph.

Branch b starts from the users' table and, on the items' side, from the item ids (b = 0) or from a linear map of
modality b's features, which have unit length and are not trained. An item that lacks a modality has a zero there. The
branches lie side by side, `[nodes, branches * dim]`, so that a layer of all of them is one sparse product.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rawrec.models.graph import Interactions, SparseMatrix
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.onednn import Linear, linear


class Side(NamedTuple):
    """Users, or items, after propagation: their mean over `count` layers, in parts.

    from_users: layers that hold what started at users, `[n, dim]` each if the user table is shared, else as from_items.
    from_items: layers that hold what started at items, `[n, branches * dim]` each.
    """

    from_users: list[Tensor]
    from_items: list[Tensor]
    count: int
    width: int

    def rows(self, rows: Tensor | None = None) -> Tensor:
        """Branches side by side of `rows` `[n]`, or of all: `[n, branches * dim]`."""
        parts = []
        for layers in (self.from_users, self.from_items):
            if layers:
                total = reduce(torch.add, layers)
                part = total if rows is None else nn.functional.embedding(rows, total)
                parts.append(part.repeat(1, self.width // part.shape[1]))
        return reduce(torch.add, parts) / self.count


class BranchModel(RetrievalModel):
    """dim: width of a branch. own_users: each branch has a user table of its own, instead of one for all."""

    def __init__(
        self,
        cfg: Any,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None,
        dim: int,
        own_users: bool,
    ):
        unit = {name: nn.functional.normalize(table.float(), dim=-1) for name, table in features.items()}
        super().__init__(cfg, pairs, unit, present)
        self.dim, self.branches = dim, 1 + len(self.modalities)
        self.embedding_user = nn.Embedding(pairs.n_users, dim * (self.branches if own_users else 1))
        self.embedding_item = nn.Embedding(pairs.n_items, dim)
        nn.init.xavier_uniform_(self.embedding_user.weight)
        nn.init.xavier_uniform_(self.embedding_item.weight)
        for name in self.modalities:
            self.add_module(f"{name}_dense", Linear(self.width(name), dim))

    def feature(self, name: str, rows: Tensor | None = None) -> Tensor:
        """Of unit length, also where encoders are trained."""
        x = super().feature(name, rows)
        return nn.functional.normalize(x, dim=-1) if name in self.followed or name in self.live else x

    def starts(self) -> tuple[Tensor, Tensor]:
        """Layer 0 of users, `[n_users, dim]` (or `branches * dim`), and of items, `[n_items, branches * dim]`."""
        tokens = [self.item_ids(self.embedding_item.weight)]
        for name in self.modalities:
            token = self.get_submodule(f"{name}_dense")(self.feature(name))
            tokens.append(token * self.present(name)[:, None])
        return self.embedding_user.weight, torch.cat(tokens, 1)


def propagate_sides(matrix: SparseMatrix, users: Tensor, items: Tensor, layers: int) -> tuple[Side, Side]:
    """LightGCN over the graph of `matrix` `[n_users, n_items]`, of users and items that start as given.

    What starts at users is at items after one layer and back after two. Followed apart from what starts at items, all
    branches share it, and no layer is computed for the side where it is not.
    """
    back, count, width = matrix.T, layers + 1, items.shape[1]
    on_users, on_items = Side([users], [], count, width), Side([], [items], count, width)
    for layer in range(layers):
        there, here = (back, matrix) if layer % 2 == 0 else (matrix, back)
        users, items = there @ users, here @ items
        for_users, for_items = (on_items, on_users) if layer % 2 == 0 else (on_users, on_items)
        for_users.from_users.append(users)
        for_items.from_items.append(items)
    return on_users, on_items


def batch_info_nce(a: Tensor, b: Tensor, target: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each row of `a` `[n, dim]` with a batch in which item j stands `counts[j]` times: `[n]`.

    b: distinct items `[m, dim]`; target: `[n]` the positive's row there. An item's further copies are negatives, as in
    the softmax over the batch that they stand for. Similarity is the dot product.
    """
    log_counts = counts.log()
    logits = linear(a / temperature, b, log_counts)
    return nn.functional.cross_entropy(logits, target, reduction="none") + log_counts[target]
