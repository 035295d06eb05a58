"""Losses of pictures and texts against sums written out."""

import math

import pytest
import torch
from torch.nn import functional

from rawrec.content.contrast import sigmoid_contrast, softmax_contrast
from rawrec.content.encoders.vlmo import contrast


@pytest.fixture
def three() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    image, text = (functional.normalize(torch.randn(3, 4, dtype=torch.float64), dim=1) for _ in range(2))
    return image, text


def test_softmax(three: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, text = three
    s = [[5.0 * float(image[i] @ text[j]) for j in range(3)] for i in range(3)]
    expected = 0.0
    for i in range(3):
        expected -= math.log(math.exp(s[i][i]) / sum(math.exp(s[i][j]) for j in range(3))) / 6
        expected -= math.log(math.exp(s[i][i]) / sum(math.exp(s[j][i]) for j in range(3))) / 6
    assert float(softmax_contrast(image, text, torch.tensor(5.0))) == pytest.approx(expected, rel=1e-5)
    log_scale = torch.tensor(math.log(5.0))
    assert float(contrast(image, text, log_scale)) == pytest.approx(expected, rel=1e-5)


def test_softmax_without_what_is_alike(three: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Pairs 0 and 2 have one text: each of them is told from pair 1 alone."""
    image, text = three
    alike = torch.zeros(3, 3, dtype=torch.bool)
    alike[0, 2] = alike[2, 0] = True
    s = [[5.0 * float(image[i] @ text[j]) for j in range(3)] for i in range(3)]
    others = {0: [0, 1], 1: [0, 1, 2], 2: [1, 2]}
    expected = 0.0
    for i, those in others.items():
        expected -= math.log(math.exp(s[i][i]) / sum(math.exp(s[i][j]) for j in those)) / 6
        expected -= math.log(math.exp(s[i][i]) / sum(math.exp(s[j][i]) for j in those)) / 6
    assert float(softmax_contrast(image, text, torch.tensor(5.0), alike)) == pytest.approx(expected, rel=1e-5)


def test_sigmoid(three: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, text = three
    alike = torch.zeros(3, 3, dtype=torch.bool)
    alike[0, 2] = alike[2, 0] = True
    whole = left = 0.0
    for i in range(3):
        for j in range(3):
            z = 10.0 * float(image[i] @ text[j]) - 4.0
            loss = math.log(1 + math.exp(-z if i == j else z)) / 3
            whole += loss
            left += loss if {i, j} != {0, 2} else 0.0
    scale, bias = torch.tensor(10.0), torch.tensor(-4.0)
    assert float(sigmoid_contrast(image, text, scale, bias)) == pytest.approx(whole, rel=1e-5)
    assert float(sigmoid_contrast(image, text, scale, bias, alike)) == pytest.approx(left, rel=1e-5)


def test_all_alike_has_no_gradient(three: tuple[torch.Tensor, torch.Tensor]) -> None:
    image = three[0].clone().requires_grad_()
    loss = softmax_contrast(image, three[1], torch.tensor(5.0), ~torch.eye(3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0 and image.grad is not None and not image.grad.any()
