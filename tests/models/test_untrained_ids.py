"""Ids of items without a training interaction: what stands in their rows is read nowhere, and content stands alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
from retrieval_mixin import ITEMS, USERS, checkerboard, features_of, ranked_right, train
from torch import Tensor

from rawrec.config import RETRIEVAL
from rawrec.models.graph import Interactions
from rawrec.models.retrieval import retrieval_model
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.testing.retrieval import one_thread

COLD = torch.tensor([3, 8, 13, 16])
SMALL = {
    "embedding_size": 8,
    "recdim": 8,
    "latent_dim": 8,
    "feat_embed_dim": 8,
    "weight_size": [8, 8],
    "latent_sizes": [4],
    "knn_k": 3,
    "image_knn_k": 3,
    "text_knn_k": 3,
    "user_neighbours": 5,
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name, record in RETRIEVAL.items() if not (record.fitted or record.reads_sequences)),
    ("vbpr", {"biases": True}),
    ("mmgcn", {"train_ids": True}),
    ("lattice", {"cf_model": "ngcf"}),
    ("lattice", {"cf_model": "mf"}),
    ("lgmrec", {"cf_model": "mf"}),
    ("em3_freedom", {"n_mm_layers": 2}),
    ("slmrec", {"ssl_task": "FD", "adj_type": "norm"}),
    ("mmgcl", {"composed_negatives": True}),
]
WITH_IDS = [variant for variant in VARIANTS if RETRIEVAL[variant[0]].item_ids]
FILLINGS: tuple[Literal["zero", "mean"], ...] = ("zero", "mean")


@pytest.fixture(autouse=True)
def single() -> Iterator[None]:
    with one_thread():
        yield


def made(name: str, settings: dict[str, Any], seed: int = 0) -> RetrievalModel:
    """Of a checkerboard where the items COLD have no pair."""
    record, (pairs, _) = RETRIEVAL[name], checkerboard()
    kept = ~torch.isin(pairs.items, COLD)
    torch.manual_seed(seed)
    cfg = record(**({key: value for key, value in SMALL.items() if key in record.model_fields} | settings))
    features = features_of(("image", "text")) if cfg.reads_features() else {}
    known = Interactions(pairs.users[kept], pairs.items[kept], USERS, ITEMS)
    return retrieval_model(name)(cfg, known, features, None)


def read_tables(model: RetrievalModel) -> dict[int, Tensor]:
    """Every table that the model reads by `item_ids`, by address; filled as the model works."""
    tables: dict[int, Tensor] = {}
    original = model.item_ids

    def watched(table: Tensor, rows: Tensor | None = None) -> Tensor:
        tables[table.data_ptr()] = table.detach()
        return original(table, rows)

    model.item_ids = watched  # type: ignore[method-assign]
    return tables


def step(model: RetrievalModel) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Tensor]]:
    """Users, positives, negatives and draws of a batch that has every item."""
    generator = torch.Generator().manual_seed(5)
    users = torch.arange(ITEMS) % USERS
    negatives = torch.arange(ITEMS).roll(1) if model.uses_negatives else None
    batch = (users, torch.arange(ITEMS), negatives)
    return *batch, model.draw(*batch, generator)


@pytest.mark.parametrize(("name", "settings"), WITH_IDS, ids=str)
def test_what_stands_in_replaced_rows_is_read_nowhere(name: str, settings: dict[str, Any]) -> None:
    model = made(name, settings)
    train(model, 2, 0.02)
    assert model.untaught.equal(COLD) and len(model.taught) == ITEMS - len(COLD)
    tables = read_tables(model)
    before = [x.clone() for x in model.embeddings()]
    inside = {}
    for filling in FILLINGS:
        with model.without_ids(COLD, filling):
            inside[filling] = [x.clone() for x in model.embeddings()]
    assert tables and all(len(table) == ITEMS for table in tables.values())
    assert all(old.equal(new) for old, new in zip(before, model.embeddings(), strict=True))

    for table in tables.values():
        table[COLD] = torch.nan
    for filling in FILLINGS:
        with model.without_ids(COLD, filling):
            assert all(a.equal(b) for a, b in zip(inside[filling], model.embeddings(), strict=True))
    for table in tables.values():  # and that is what these rows are, put there by hand
        table[COLD] = table[model.taught].mean(0)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(inside["mean"], model.embeddings(), strict=True))
    for table in tables.values():
        table[COLD] = 0
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(inside["zero"], model.embeddings(), strict=True))
    assert not inside["zero"][1][COLD].equal(before[1][COLD])


@pytest.mark.parametrize(("name", "settings"), [v for v in WITH_IDS if v[0] not in ("bpr", "lightgcn")], ids=str)
@pytest.mark.parametrize("filling", FILLINGS)
def test_a_loss_reads_no_dropped_id_and_gives_it_no_gradient(
    name: str, settings: dict[str, Any], filling: Literal["zero", "mean"]
) -> None:
    dropped = torch.tensor([0, 5, 6])
    model = made(name, settings)
    assert model.cfg.id_dropout == 0
    tables, batch = read_tables(model), step(model)
    losses = []
    for _ in range(2):
        model.begin_epoch({})
        with model.without_ids(dropped, filling):
            losses.append(model.loss(*batch)["loss"].detach())
        for table in tables.values():  # the mean of all rows, dropped ones too, stays what it was
            table[dropped] = table[dropped].roll(1, 0) if filling == "mean" else torch.nan
    assert losses[0].isfinite()
    torch.testing.assert_close(*losses)
    for table in tables.values():
        table[dropped] = 0
    model.zero_grad()
    model.begin_epoch({})
    with model.without_ids(dropped, filling):
        model.loss(*batch)["loss"].backward()
    for parameter in model.parameters():
        if parameter.data_ptr() in tables and parameter.grad is not None and len(parameter) == ITEMS:
            assert not parameter.grad[dropped].any()
            assert name == "mmgcn" or parameter.grad.any()


def test_a_model_without_ids_of_items_says_so() -> None:
    model = made("dragon", {})
    tables = read_tables(model)
    model.loss(*step(model))
    model.embeddings()
    assert not tables and not model.cfg.item_ids and "id_dropout" not in type(model.cfg).model_fields
    assert [name for name, record in RETRIEVAL.items() if not (record.item_ids or record.fitted)] == ["dragon"]


def scores(model: RetrievalModel, filling: str) -> Tensor:
    if filling == "as_is":
        users, items = model.embeddings()
    else:
        with model.without_ids(model.untaught, filling):  # type: ignore[arg-type]
            users, items = model.embeddings()
    return (users @ items.T).detach()


@pytest.mark.parametrize("name", ["vbpr", "lattice"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_content_puts_a_cold_item_where_it_belongs(name: str, seed: int) -> None:
    """The parity that users like is in the features. A random row stands in the way of what they say."""
    model, (_, liked) = made(name, {}, seed), checkerboard()
    train(model, 40, 0.02)
    cold, right = liked.clone(), {}
    cold[:, model.taught] = False
    for filling in ("as_is", *FILLINGS):
        found = scores(model, filling)
        right[filling] = ranked_right(found, cold, ~liked)
        first = found.masked_fill(~cold, -torch.inf).amax(1) > found.masked_fill(liked, -torch.inf).amax(1)
        assert first.all() or filling == "as_is"
    assert min(right["zero"], right["mean"]) > 0.99 and right["as_is"] < 0.98
