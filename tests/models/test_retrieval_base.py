"""What all retrieval models share: features, the registry, losses."""

import pytest
import torch
from retrieval_mixin import ITEMS, checkerboard, features_of

from rawrec.config import RETRIEVAL, baselines, retrieval, sequences
from rawrec.config.retrieval import RetrievalConfig, VBPRConfig
from rawrec.errors import UserError
from rawrec.models.losses import bpr_loss, embedding_loss
from rawrec.models.retrieval import retrieval_model
from rawrec.models.retrieval.base import RetrievalModel, distinct

PAIRS = checkerboard()[0]


def base(features: dict[str, torch.Tensor], present: dict[str, torch.Tensor] | None = None) -> RetrievalModel:
    return RetrievalModel(VBPRConfig(), PAIRS, features, present)


def test_every_record_has_its_model() -> None:
    kinds = [kind for room in (retrieval, baselines, sequences) for kind in vars(room).values()]
    records = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, RetrievalConfig)]
    assert list(RETRIEVAL.values()) == [record for record in records if record().name]
    for name, record in RETRIEVAL.items():
        assert record().name == name
        assert issubclass(retrieval_model(name), RetrievalModel)


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("image", torch.ones(ITEMS - 1, 3), r"feature image has shape \[19, 3\]; it needs a row for each of 20 items"),
        ("image", torch.ones(ITEMS, 0), r"feature image has shape \[20, 0\]"),
        ("image", torch.full((ITEMS, 3), torch.nan), "feature image holds numbers that are not finite"),
        ("item", torch.ones(ITEMS, 3), "feature item: the models use this name"),
    ],
)
def test_features_that_do_not_work(name: str, table: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        base({name: table})


def test_no_features_and_an_empty_modality() -> None:
    with pytest.raises(UserError, match=r"model\.name=vbpr reads features of items, and there are none"):
        base({})
    with pytest.raises(UserError, match=r"feature image: no item has it; .* content\.image\.use=false"):
        base(features_of(("image",)), {"image": torch.zeros(ITEMS, dtype=torch.bool)})


def test_live_rows_take_the_place_of_stored_ones() -> None:
    model = base(features_of(("image", "text")))
    stored = model.feature("image").clone()
    values = torch.randn(2, 6, requires_grad=True)
    model.live = {"image": (torch.tensor([7, 2]), values)}
    expected = stored.clone()
    expected[[7, 2]] = values.detach()
    rows = torch.tensor([2, 7, 7, 0])
    assert model.feature("image").equal(expected) and model.feature("image", rows).equal(expected[rows])
    model.feature("image", rows).sum().backward()
    assert values.grad is not None and values.grad[:, 0].tolist() == [2, 1]
    assert model.feature("text").equal(features_of(("image", "text"))["text"])
    model.live = {}
    assert model.feature("image").equal(stored)


def test_distinct_items() -> None:
    columns = torch.tensor([5, 3, 5]), torch.tensor([3, 9, 1])
    rows, places = distinct(*columns)
    assert rows.tolist() == [1, 3, 5, 9]
    assert all(rows[place].equal(column) for place, column in zip(places, columns, strict=True))


def test_losses() -> None:
    positive, negative = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 4.0, 3.0])
    terms = -(positive - negative).sigmoid().log()
    torch.testing.assert_close(bpr_loss(positive, negative), terms.mean())
    torch.testing.assert_close(bpr_loss(positive, negative, epsilon=1e-10), terms.mean())
    known = torch.tensor([True, False, True])
    torch.testing.assert_close(bpr_loss(positive, negative, known=known), terms[known].mean())
    assert bpr_loss(positive, negative, known=~known & known) == 0
    assert bpr_loss(torch.tensor([-1e4]), torch.tensor([0.0])) == 1e4

    a, b = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    assert embedding_loss(a, b) == (5 + 2) / 2
    assert embedding_loss(a, b, squared=True) == (25 + 4) / 2 / 2
