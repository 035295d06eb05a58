"""Graphs as constant sparse matrices: user-item adjacencies, item-item neighbours, propagation."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rawrec.errors import UserError
from rawrec.onednn import linear

Norm = Literal["symmetric", "row", "none"]


class Interactions(NamedTuple):
    """Training pairs, each once: users and items `[edges]` int64."""

    users: Tensor
    items: Tensor
    n_users: int
    n_items: int


# ------------------------------------------------------------------------------------------------------ sparse matrices
class _Rows(nn.Module):
    """A matrix by rows (CSR). Its product sums weighted rows of `x`, which is an embedding bag.

    On a CPU that kernel takes a third of the time of torch's own product of a sparse CSR matrix.
    """

    offsets: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]):
        super().__init__()
        # Summed in float64: many equal edges, and degrees, stay exact.
        matrix = torch.sparse_coo_tensor(torch.stack([rows, columns]), values.double(), shape, check_invariants=True)
        matrix = matrix.coalesce()
        (rows, columns), values = matrix.indices(), matrix.values()
        kind = torch.int32 if max(len(values), shape[1]) < 2**31 else torch.int64
        offsets = nn.functional.pad(torch.bincount(rows, minlength=shape[0]).cumsum(0), (1, 0))
        self.register_buffer("offsets", offsets.to(kind), persistent=False)
        self.register_buffer("columns", columns.to(kind), persistent=False)
        self.register_buffer("values", values.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.embedding_bag(
            self.columns,
            x.detach().contiguous(),
            self.offsets,
            mode="sum",
            per_sample_weights=self.values.to(x.dtype),
            include_last_offset=True,
        )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: _Rows, transposed: _Rows) -> Tensor:
        ctx.transposed = transposed
        return matrix(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed(grad), None, None


class SparseMatrix(nn.Module):
    """A constant matrix `[rows, columns]`; `M @ x` is differentiable in `x` alone, forward and backward by rows.

    A module without parameters and outside of the state dict, so that it moves between devices with its model.
    """

    def __init__(self, matrix: _Rows, transposed: _Rows, shape: tuple[int, int]):
        super().__init__()
        self.matrix, self.transposed, self.shape = matrix, transposed, shape

    @classmethod
    def from_edges(
        cls, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int], symmetric: bool = False
    ) -> SparseMatrix:
        """Of `values[e]` at `(rows[e], columns[e])`; duplicates are summed. symmetric: it is its own transpose."""
        matrix = _Rows(rows, columns, values, shape)
        return cls(matrix, matrix if symmetric else _Rows(columns, rows, values, (shape[1], shape[0])), shape)

    def __matmul__(self, x: Tensor) -> Tensor:
        """`[columns, width]` -> `[rows, width]`."""
        return _Product.apply(x, self.matrix, self.transposed)  # type: ignore[return-value]

    @property
    def T(self) -> SparseMatrix:
        """The transpose; it shares the memory."""
        return SparseMatrix(self.transposed, self.matrix, (self.shape[1], self.shape[0]))

    @property
    def values(self) -> Tensor:
        """Of the stored entries, row by row: `[nnz]`."""
        return self.matrix.values

    @property
    def nnz(self) -> int:
        return len(self.values)

    def to_dense(self) -> Tensor:
        rows = torch.arange(self.shape[0], device=self.values.device).repeat_interleave(self.matrix.offsets.diff())
        dense = self.values.new_zeros(self.shape)
        dense[rows, self.matrix.columns.long()] = self.values
        return dense


def normalise(rows: Tensor, columns: Tensor, values: Tensor, n: int, norm: Norm = "symmetric", epsilon=0.0) -> Tensor:
    """Edge weights `[edges]` of a square matrix of `n` nodes after division by its row sums `d + epsilon`.

    symmetric: `v / sqrt(d_row d_column)`, row: `v / d_row`, none: `v`. Also of a directed graph `d` are row sums, on
    both sides. A node without weight, `d + epsilon <= 0`, gets zeros.
    """
    if norm == "none":
        return values
    degree = torch.zeros(n, dtype=torch.float64, device=rows.device).index_add(0, rows, values.double()) + epsilon
    inverse = torch.where(degree > 0, degree.clamp(min=torch.finfo(degree.dtype).tiny), torch.inf).reciprocal()
    weights = inverse[rows] if norm == "row" else inverse.sqrt()[rows] * inverse.sqrt()[columns]
    return (values * weights).to(values.dtype)


# ------------------------------------------------------------------------------------------------------ users and items
def user_item_adjacency(
    pairs: Interactions,
    norm: Norm = "symmetric",
    epsilon: float = 0.0,
    self_loops: bool = False,
    edges: Tensor | None = None,
) -> SparseMatrix:
    """The bipartite graph as a square matrix of all users, then all items: `[n_users + n_items] ^ 2`.

    epsilon is added to every degree. edges: positions in `pairs`, or a bool mask, of those to keep; degrees are then
    of the kept ones. Isolated nodes have empty rows.
    """
    n = pairs.n_users + pairs.n_items
    users, items = (pairs.users, pairs.items) if edges is None else (pairs.users[edges], pairs.items[edges])
    loops = torch.arange(n if self_loops else 0, device=users.device)
    rows = torch.cat([users, items + pairs.n_users, loops])
    columns = torch.cat([items + pairs.n_users, users, loops])
    values = normalise(rows, columns, torch.ones_like(rows, dtype=torch.float32), n, norm, epsilon)
    return SparseMatrix.from_edges(rows, columns, values, (n, n), symmetric=norm != "row")


def edge_weights(pairs: Interactions, norm: Norm = "symmetric", epsilon: float = 0.0) -> Tensor:
    """Of each pair the entry (user, item) of `user_item_adjacency`: `[edges]`."""
    items = pairs.items + pairs.n_users
    rows, columns = torch.cat([pairs.users, items]), torch.cat([items, pairs.users])
    values = torch.ones_like(rows, dtype=torch.float32)
    return normalise(rows, columns, values, pairs.n_users + pairs.n_items, norm, epsilon)[: len(pairs.users)]


def user_item_matrix(pairs: Interactions, norm: Norm = "symmetric", epsilon: float = 0.0) -> SparseMatrix:
    """The users x items block of `user_item_adjacency`: `R @ items` gives users."""
    values = edge_weights(pairs, norm, epsilon)
    return SparseMatrix.from_edges(pairs.users, pairs.items, values, (pairs.n_users, pairs.n_items))


class _LayerMean(torch.autograd.Function):
    """Mean of `A^k x`, k = 0 to `layers`, without keeping any of them; backward is the same with the transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: _Rows, transposed: _Rows, layers: int) -> Tensor:
        ctx.transposed, ctx.layers = transposed, layers
        return _LayerMean.mean(x, matrix, layers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _LayerMean.mean(grad, ctx.transposed, ctx.layers), None, None, None

    @staticmethod
    def mean(x: Tensor, matrix: _Rows, layers: int) -> Tensor:
        total = x
        for _ in range(layers):
            total = matrix(total).add_(x)  # x + A x + A^2 x = x + A (x + A x)
        return total.div_(layers + 1) if layers else x.clone()


def layer_mean(adjacency: SparseMatrix, nodes: Tensor, layers: int) -> Tensor:
    """LightGCN (He et al. 2020), eq. 8: mean of the embeddings of layers 0 to `layers`, `E(k+1) = A E(k)`."""
    return _LayerMean.apply(nodes, adjacency.matrix, adjacency.transposed, layers)  # type: ignore[return-value]


def propagate(adjacency: SparseMatrix, users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """`layer_mean` of a graph of users and items, apart."""
    mean_users, mean_items = layer_mean(adjacency, torch.cat([users, items]), layers).split([len(users), len(items)])
    return mean_users, mean_items


# ---------------------------------------------------------------------------------------------------------------- items
class Neighbours(NamedTuple):
    """Of each item its nearest ones, nearest first: items `[n, k]` int64, -1 = none; similarities `[n, k]`, 0 there."""

    items: Tensor
    similarities: Tensor

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and similarities `[edges]` of those that exist."""
        rows, slots = (self.items >= 0).nonzero(as_tuple=True)
        return rows, self.items[rows, slots], self.similarities[rows, slots]


@torch.no_grad()
def knn_graph(features: Tensor, present: Tensor, k: int, chunk_bytes: int = 2**26) -> Neighbours:
    """The `k` most similar items of each, by cosine, itself among them. features `[n, width]`, present `[n]` bool.

    Computed in chunks of rows that take `chunk_bytes`. Items that lack the modality have no edges; where fewer than `k`
    have it, each has all of them. An all-zero row is at similarity 0 to all.
    """
    n = len(features)
    if k > n:
        raise UserError(f"model.knn_k={k}: the catalogue has {n} items; use a model.knn_k of at most {n}")
    known = present.nonzero().squeeze(1)
    x = features[known].float()
    x = x / x.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    items = torch.full((n, k), -1, dtype=torch.int64, device=x.device)
    similarities = torch.zeros(n, k, device=x.device)
    width = min(k, len(known))
    for rows in torch.arange(len(known), device=x.device).split(max(1, chunk_bytes // (4 * max(1, len(known))))):
        values, nearest = linear(x[rows], x).topk(width)
        items[known[rows], :width] = known[nearest]
        similarities[known[rows], :width] = values
    return Neighbours(items, similarities)
