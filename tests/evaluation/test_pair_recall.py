"""Recall of pairs, alignment and uniformity, against counts and sums written out."""

import math

import pytest
import torch
from torch.nn import functional

from rawrec.evaluation import embeddings, retrieval


def test_recall_counts_who_stands_before() -> None:
    """Scores are laid out so that picture i finds its text at place `place[i]`."""
    text = torch.eye(4)
    image = torch.tensor([[4.0, 3, 2, 1], [9, 4, 3, 2], [9, 8, 4, 3], [9, 8, 7, 4]])  # places 1, 2, 3, 4
    own = torch.arange(4)
    found = retrieval.pair_recall(image, text, own, own, (1, 2, 3))
    assert [found[f"image_to_text/recall@{k}"] for k in (1, 2, 3)] == [0.25, 0.5, 0.75]
    # text j over pictures is column j: 4,9,9,9 / 3,4,8,8 / 2,3,4,7 / 1,2,3,4: places 4, 3, 2, 1
    assert [found[f"text_to_image/recall@{k}"] for k in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert found["recall"] == pytest.approx(0.5)


def test_what_is_alike_is_no_other() -> None:
    image = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    numbers, one = torch.tensor([7, 7, 8]), torch.arange(3)
    assert retrieval.pair_recall(image, image, one, numbers)["recall"] == 1
    assert retrieval.pair_recall(image, image, numbers, one)["image_to_text/recall@1"] == 1
    assert retrieval.pair_recall(image, image, one, one)["image_to_text/recall@1"] == pytest.approx(1 / 3)


def test_equal_scores_find_nothing() -> None:
    flat, own = torch.ones(30, 4), torch.arange(30)
    assert retrieval.pair_recall(flat, flat, own, own)["recall"] == 0


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    image, text = functional.normalize(torch.randn(2, 37, 8), dim=2)
    own = torch.arange(37) // 2
    whole = retrieval.pair_recall(image, text, own, own), embeddings.uniformity(image)
    for module in (retrieval, embeddings):
        monkeypatch.setattr(module, "AT_ONCE", 100)
    assert retrieval.pair_recall(image, text, own, own) == whole[0]
    assert embeddings.uniformity(image) == pytest.approx(whole[1], abs=1e-6)


def test_alignment_and_uniformity() -> None:
    x = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    y = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert embeddings.alignment(x, y) == pytest.approx((0 + 2 + 2) / 3)
    expected = math.log((math.exp(-2 * 2) + math.exp(-2 * 4) + math.exp(-2 * 2)) / 3)
    assert embeddings.uniformity(x) == pytest.approx(expected, rel=1e-6)
    assert embeddings.uniformity(torch.ones(5, 1)) == pytest.approx(0)
