"""Sparse matrices against dense ones; adjacencies, propagation, neighbours."""

import copy

import pytest
import torch
from torch import Tensor

from rawrec.errors import UserError
from rawrec.models.graph import (
    Interactions,
    SparseMatrix,
    edge_weights,
    knn_graph,
    normalise,
    propagate,
    user_item_adjacency,
    user_item_matrix,
)

# Users 2 and 4 and item 3 stand alone.
PAIRS = Interactions(torch.tensor([0, 0, 1, 3, 3, 3]), torch.tensor([0, 2, 2, 0, 1, 2]), 5, 4)


def dense(pairs: Interactions) -> Tensor:
    matrix = torch.zeros(9, 9)
    matrix[pairs.users, pairs.items + 5] = 1
    return matrix + matrix.T


def random_matrix(rows: int, columns: int) -> tuple[SparseMatrix, Tensor]:
    generator = torch.Generator().manual_seed(0)
    edges = [torch.randint(n, (40,), generator=generator) for n in (rows, columns)]
    values = torch.randn(40, generator=generator)
    expected = torch.zeros(rows, columns).index_put(tuple(edges), values, accumulate=True)
    return SparseMatrix.from_edges(edges[0], edges[1], values, (rows, columns)), expected


@pytest.mark.parametrize("width", [1, 7, 64])
def test_product_and_gradient(width: int) -> None:
    matrix, expected = random_matrix(11, 6)
    torch.testing.assert_close(matrix.to_dense(), expected)
    torch.testing.assert_close(matrix.T.to_dense(), expected.T)
    assert matrix.nnz == len(matrix.values) == expected.count_nonzero()
    for one, other in ((matrix, expected), (matrix.T, expected.T)):
        x = torch.randn(other.shape[1], width, requires_grad=True)
        grad = torch.randn(other.shape[0], width)
        torch.testing.assert_close(one @ x, other @ x)
        (ours,), (theirs,) = (torch.autograd.grad(product, x, grad) for product in (one @ x, other @ x))
        torch.testing.assert_close(ours, theirs)


def test_product_in_other_precisions_and_of_views() -> None:
    matrix, expected = random_matrix(11, 6)
    x = torch.randn(8, 6, dtype=torch.float64).T
    torch.testing.assert_close(matrix @ x, expected.double() @ x)


def test_no_edges() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    matrix = SparseMatrix.from_edges(empty, empty, torch.zeros(0), (3, 2))
    x = torch.ones(2, 4, requires_grad=True)
    (matrix @ x).sum().backward()
    assert not (matrix @ x).any() and x.grad is not None and not x.grad.any()


def test_it_moves_with_its_model_and_stays_out_of_checkpoints() -> None:
    model = torch.nn.Module()
    model.graph = random_matrix(11, 6)[0]
    assert not model.state_dict() and not list(model.parameters())
    assert copy.deepcopy(model).graph.to_dense().equal(model.graph.to_dense())  # type: ignore[operator]
    assert model.to("meta").graph.T.values.device.type == "meta"  # type: ignore[union-attr]


def test_adjacency() -> None:
    a = dense(PAIRS)
    degree = a.sum(1)
    inverse = torch.where(degree > 0, 1 / degree, 0)
    torch.testing.assert_close(user_item_adjacency(PAIRS, "none").to_dense(), a)
    torch.testing.assert_close(user_item_adjacency(PAIRS, "row").to_dense(), inverse[:, None] * a)
    symmetric = inverse.sqrt()[:, None] * a * inverse.sqrt()
    torch.testing.assert_close(user_item_adjacency(PAIRS).to_dense(), symmetric)
    torch.testing.assert_close(user_item_matrix(PAIRS).to_dense(), symmetric[:5, 5:])
    torch.testing.assert_close(edge_weights(PAIRS), symmetric[PAIRS.users, PAIRS.items + 5])
    with_loops = a + torch.eye(9)
    expected = with_loops / with_loops.sum(1, keepdim=True)
    rows = user_item_adjacency(PAIRS, "row", self_loops=True)
    torch.testing.assert_close(rows.to_dense(), expected)
    torch.testing.assert_close(rows.T.to_dense(), expected.T)
    more = (degree + 0.5).rsqrt()
    torch.testing.assert_close(user_item_adjacency(PAIRS, epsilon=0.5).to_dense(), more[:, None] * a * more)


@pytest.mark.parametrize("edges", [torch.tensor([4, 0, 1]), torch.tensor([True, True, False, False, True, False])])
def test_some_of_the_edges(edges: Tensor) -> None:
    """Degrees are those of the kept ones."""
    kept = Interactions(PAIRS.users[[0, 1, 4]], PAIRS.items[[0, 1, 4]], 5, 4)
    ours = user_item_adjacency(PAIRS, edges=edges).to_dense()
    torch.testing.assert_close(ours, user_item_adjacency(kept).to_dense())


@pytest.mark.parametrize("norm", ["symmetric", "row"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_propagation(norm: str, layers: int) -> None:
    adjacency = user_item_adjacency(PAIRS, norm)  # type: ignore[arg-type]
    users, items = torch.randn(5, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    nodes = torch.cat([users, items])
    powers = [torch.linalg.matrix_power(adjacency.to_dense(), k) @ nodes for k in range(layers + 1)]
    expected = torch.stack(powers).mean(0)
    ours = torch.cat(propagate(adjacency, users, items, layers))
    torch.testing.assert_close(ours, expected)
    grad = torch.randn_like(expected)
    for a, b in zip(*(torch.autograd.grad(x, (users, items), grad) for x in (ours, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_weights_of_nodes_without_any() -> None:
    """Row sums of a directed graph on both sides; zero and negative sums give zeros, not infinities."""
    rows, columns = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 2, 0, 3])
    values = torch.tensor([1.0, 3.0, 4.0, -1.0])
    ours = normalise(rows, columns, values, 4)
    torch.testing.assert_close(ours, torch.tensor([1 / 4, 0.0, 4 / 4, 0.0]))
    torch.testing.assert_close(normalise(rows, columns, values, 4, "row"), torch.tensor([0.25, 0.75, 1.0, 0.0]))


@pytest.mark.parametrize("chunk_bytes", [1, 200, 2**26])
def test_neighbours(chunk_bytes: int) -> None:
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=2)
    everything = torch.ones(9, dtype=torch.bool)
    values, items = cosine.topk(4)
    near = knn_graph(x, everything, 4, chunk_bytes)
    assert near.items.equal(items)
    torch.testing.assert_close(near.similarities, values)
    rows, columns, similarities = near.edges()
    assert rows.equal(torch.arange(9).repeat_interleave(4)) and columns.equal(items.flatten())
    assert similarities.equal(near.similarities.flatten())


def test_neighbours_among_those_that_have_the_modality() -> None:
    x = torch.randn(6, 3)
    present = torch.tensor([True, False, True, False, True, False])
    x[1] = torch.nan
    near = knn_graph(x, present, 5)
    assert near.items[present].sort(1).values.equal(torch.tensor([[-1, -1, 0, 2, 4]] * 3))
    assert (near.items[~present] == -1).all() and not near.similarities[near.items == -1].any()
    assert near.items[present][:, 0].equal(torch.tensor([0, 2, 4]))
    assert set(near.edges()[1].tolist()) == {0, 2, 4}
    assert (knn_graph(x, torch.zeros(6, dtype=torch.bool), 5).items == -1).all()


def test_zero_rows_and_too_many_neighbours() -> None:
    near = knn_graph(torch.zeros(4, 3), torch.ones(4, dtype=torch.bool), 2)
    assert not near.similarities.any()
    with pytest.raises(UserError, match=r"model\.knn_k=5: the catalogue has 4 items"):
        knn_graph(torch.zeros(4, 3), torch.ones(4, dtype=torch.bool), 5)
