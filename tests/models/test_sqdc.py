"""SQDC against its equation, row by row."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rawrec.config import resolve
from rawrec.errors import UserError
from rawrec.models.ranking.sqdc import Contrast, ContrastRows, Sqdc, earlier


def made(**settings: Any) -> Sqdc:
    given = {f"model.sqdc_{name}": value for name, value in settings.items()}
    return Sqdc(resolve("em3", {"model.sqdc_weight": 0.1, **given}).model)  # type: ignore[arg-type]


def drawn(seed: int = 0, rows: int = 14) -> ContrastRows:
    """Rows with repeated queries, documents and sessions; some lack the one or the other."""
    draw = torch.Generator().manual_seed(seed)
    anchor = torch.randint(-1, 4, (rows,), generator=draw)
    document = torch.randint(-1, 6, (rows,), generator=draw)
    return ContrastRows(
        torch.randn(4, 5, generator=draw, dtype=torch.float64).requires_grad_(),
        torch.randn(6, 5, generator=draw, dtype=torch.float64).requires_grad_(),
        anchor,
        document,
        torch.rand(rows, generator=draw) < 0.6,
        torch.randint(-1, 3, (rows,), generator=draw),
        torch.randint(0, 3, (rows,), generator=draw),
    )


def brute(
    rows: ContrastRows, mask: tuple[str, ...], negatives: str, positives: str, both: bool, scale: Tensor
) -> Tensor:
    """The equation in loops, in the words of its options."""
    q, d = functional.normalize(rows.anchors, dim=1), functional.normalize(rows.documents, dim=1)
    n = len(rows.document)
    key = {"query": rows.anchor, "document": rows.document, "session": rows.session, "user": rows.user}

    def masked(i: int, j: int) -> bool:
        return i != j and any(key[m] is not None and key[m][i] == key[m][j] >= 0 for m in mask)  # type: ignore[index]

    def term(i: int, cos: Any, columns: list[int]) -> Tensor:
        same = [
            j
            for j in columns
            if j == i or (positives == "all" and rows.positive[j] and rows.anchor[j] == rows.anchor[i])
        ]
        counted = [j for j in columns if j in same or not masked(i, j)]
        top = sum((torch.exp(scale * cos(i, j)) for j in same), torch.zeros(()))
        return -torch.log(top / sum(torch.exp(scale * cos(i, j)) for j in counted))

    columns = [j for j in range(n) if rows.document[j] >= 0 and (negatives == "batch" or rows.positive[j])]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        if not rows.positive[i] or rows.anchor[i] < 0 or rows.document[i] < 0:
            continue
        one = term(i, lambda i, j: q[rows.anchor[i]] @ d[rows.document[j]], columns)
        if both:
            asked = [j for j in columns if rows.anchor[j] >= 0]
            one = (one + term(i, lambda i, j: q[rows.anchor[j]] @ d[rows.document[i]], asked)) / 2
        total = total + one
    return total


def test_the_published_form() -> None:
    """As it stands in the paper: every row has its query and its document."""
    draw = torch.Generator().manual_seed(1)
    q, d = (torch.randn(8, 5, generator=draw) for _ in range(2))
    query_id = torch.tensor([0, 1, 0, 2, 3, 1, 0, 4])
    label = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0], dtype=torch.bool)
    first = torch.tensor([int((query_id == k).nonzero()[0]) for k in range(5)])
    rows = ContrastRows(q[first], d, query_id, torch.arange(8), label)
    expected = torch.zeros(())
    for i in label.nonzero()[:, 0]:
        cos = functional.cosine_similarity(q[first][query_id[i]][None], d, dim=1)
        a = (query_id != query_id[i]) | (torch.arange(8) == i)
        expected = expected - torch.log(torch.exp(50 * cos[i]) / (a * torch.exp(50 * cos)).sum())
    found = made(negatives="batch")(rows)
    torch.testing.assert_close(found.loss, expected, rtol=1e-5, atol=1e-4)
    assert int(found.anchors) == 6
    positives = rows._replace(document=rows.document.masked_fill(~label, -1))
    torch.testing.assert_close(made()(rows).loss, made(negatives="batch")(positives).loss)


MASKS = [(), ("query",), ("document",), ("query", "document"), ("session",), ("query", "user", "document")]


@pytest.mark.parametrize(("mask", "negatives"), [*product(MASKS, ("positives", "batch"))])
@pytest.mark.parametrize(("positives", "directions"), [*product(("own", "all"), ("one", "both"))])
def test_every_option_is_the_equation_in_loops(
    mask: tuple[str, ...], negatives: str, positives: str, directions: str
) -> None:
    settings = {
        "mask": list(mask),
        "negatives": negatives,
        "positives": positives,
        "directions": directions,
        "scale": 3.0,
    }
    for seed in range(3):
        rows = drawn(seed)
        found = made(**{k: v for k, v in settings.items() if v not in (["query"], "own", "one")})(rows)
        expected = brute(rows, mask, negatives, positives, directions == "both", torch.tensor(3.0, dtype=torch.float64))
        torch.testing.assert_close(found.loss.double(), expected, rtol=1e-5, atol=1e-5)
        ours, theirs = (torch.autograd.grad(loss, (rows.anchors, rows.documents)) for loss in (found.loss, expected))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn()
    monkeypatch.setattr(Tensor, "float", lambda self: self)  # the loss is float32; the check wants more

    def loss(anchors: Tensor, documents: Tensor) -> Tensor:
        return made(directions="both", scale=2.0)(rows._replace(anchors=anchors, documents=documents)).loss

    assert torch.autograd.gradcheck(loss, (rows.anchors, rows.documents))


@pytest.mark.parametrize("name", ["query", "document", "session", "user"])
def test_a_mask_takes_its_rows_out_alone(name: str) -> None:
    """Two rows that are alike in one thing are negatives of each other unless the mask says it; others always are."""
    one = torch.tensor([0, 0, 1])
    apart = torch.arange(3)
    keys = {"anchor": apart, "document": apart, "session": apart, "user": apart}
    keys["anchor" if name == "query" else name] = one
    rows = ContrastRows(torch.eye(3), torch.eye(3), positive=torch.ones(3, dtype=torch.bool), **keys)
    assert int(made(mask=[])(rows).negatives) == 6
    assert int(made(mask=[name])(rows).negatives if name != "query" else made()(rows).negatives) == 4
    for other in {"document", "session", "user"} - {name}:
        assert int(made(mask=[other])(rows).negatives) == 6
    nobody = rows._replace(**{"session": torch.full((3,), -1), "user": None})
    assert int(made(mask=["session", "user"])(nobody).negatives) == 6, "what is unknown is equal to none"


def test_one_query_alone_has_no_loss() -> None:
    rows = drawn()._replace(anchor=torch.full((14,), 2))
    found = made()(rows)
    found.loss.backward()
    assert float(found.loss.detach()) == 0 and found.alone == found.anchors > 0 and int(found.negatives) == 0
    assert rows.anchors.grad is not None and not rows.anchors.grad.any()


def test_nothing_that_is_clicked_has_no_loss() -> None:
    rows = drawn()
    for empty in (
        rows._replace(positive=torch.zeros(14, dtype=torch.bool)),
        rows._replace(anchor=torch.full((14,), -1)),
    ):
        found = made(directions="both", reduction="mean")(empty)
        assert float(found.loss.detach()) == 0 and int(found.anchors) == 0


def test_the_mean_is_over_clicked_rows() -> None:
    rows = drawn()
    whole, mean = made()(rows), made(reduction="mean")(rows)
    torch.testing.assert_close(mean.loss * int(whole.anchors), whole.loss)


def test_high_cosines_do_not_overflow() -> None:
    same = ContrastRows(
        torch.ones(2, 4), torch.ones(2, 4), torch.tensor([0, 1]), torch.tensor([0, 1]), torch.ones(2, dtype=torch.bool)
    )
    torch.testing.assert_close(made(scale=1e4)(same).loss, torch.tensor(2 * math.log(2)), rtol=1e-3, atol=0)
    zero = made()(same._replace(documents=torch.zeros(2, 4, requires_grad=True)))
    zero.loss.backward()
    assert torch.isfinite(zero.loss)


def test_the_scale_may_learn() -> None:
    sqdc = made(learned_scale=True, scale=20.0)
    rows = drawn()
    torch.testing.assert_close(sqdc(rows).loss, made(scale=20.0)(rows).loss)
    sqdc(rows).loss.backward()
    assert sqdc.log_scale is not None and sqdc.log_scale.grad is not None and sqdc.log_scale.grad.abs() > 0
    with torch.no_grad():
        sqdc.log_scale.fill_(9.0)
    assert float(torch.as_tensor(sqdc.scale()).detach()) == 100.0
    assert not list(made().parameters())


def test_it_tells_pairs_apart() -> None:
    torch.manual_seed(0)
    q, d = (torch.randn(6, 8).requires_grad_() for _ in range(2))
    rows = ContrastRows(q, d, torch.arange(6), torch.arange(6), torch.ones(6, dtype=torch.bool))
    sqdc, optimiser = made(), torch.optim.Adam([q, d], 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        found: Contrast = sqdc(rows)
        found.loss.backward()
        optimiser.step()
    cos = functional.normalize(q, dim=1) @ functional.normalize(d, dim=1).T
    assert (cos.argmax(1) == torch.arange(6)).all() and float(found.loss.detach()) < 0.1


def test_the_closest_earlier_positive() -> None:
    history = torch.tensor([[-1, 3, 5, 7], [-1, -1, -1, -1], [-1, -1, -1, 4]])
    items = torch.tensor([[9, 7], [1, 2], [4, 5]])
    there = torch.ones(3, 4, dtype=torch.bool)
    assert earlier(history, items, there).tolist() == [[7, 5], [-1, -1], [-1, 4]], "an item is no pair with itself"
    there[0, 3] = False
    assert earlier(history, items, there).tolist()[0] == [5, 5], "what has no content is passed over"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"sqdc_scale": 10.0}, "switches that loss off"),
        ({"sqdc_weight": 0.1, "sqdc_anchor": "query", "sqdc_neighbour": "bank"}, "reads no neighbours"),
        ({"sqdc_weight": 0.1, "sqdc_mask": "query"}, "use a list of query, document, session and user"),
        ({"sqdc_weight": 0.1, "content": "none"}, "has no content"),
        ({"sqdc_weight": -1.0}, "sqdc_weight"),
    ],
)
def test_wrong_settings_are_explained(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve("em3", {f"model.{name}": value for name, value in overrides.items()})
