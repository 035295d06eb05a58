"""The product of ESMM and its losses; a fixture has the rest."""

import torch
from heads_golden import tokens_of

from rawrec.config.heads import DeepFMConfig
from rawrec.models.ranking.deepfm import DeepFM
from rawrec.models.ranking.esmm import ESMM, Logits


def test_losses_are_cross_entropies_of_the_click_and_of_the_product() -> None:
    logits = Logits(torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[-0.5, 0.7, 1.0]]))
    found = logits.probabilities()
    clicked, converted = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    real = torch.tensor([[True, False, True]])
    losses = ESMM.losses(logits, clicked, converted, real)
    entropy = torch.nn.functional.binary_cross_entropy
    kept = [[0, 2]]
    for name, labels in (("ctr", clicked), ("ctcvr", converted)):
        torch.testing.assert_close(losses[name], entropy(found[name][:, kept], labels[:, kept], reduction="sum"))
    torch.testing.assert_close(found["ctcvr"], found["ctr"] * found["cvr"])


def test_losses_of_certain_predictions_are_finite() -> None:
    logits = Logits(*(torch.tensor([[80.0, -80.0, 80.0, -80.0]], requires_grad=True) for _ in range(2)))
    losses = ESMM.losses(logits, torch.ones(1, 4), torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    torch.testing.assert_close(losses["ctcvr"], torch.tensor(80.0 + 160.0) - torch.tensor(2.0).log())
    losses["ctcvr"].backward()
    assert all(logit.grad is not None and logit.grad.isfinite().all() for logit in logits)


def test_any_two_heads_will_do() -> None:
    made = ESMM(*(DeepFM(DeepFMConfig(hidden=[4]), ["a", "b"], 3) for _ in range(2)))
    logits = made(tokens_of(torch.randn(5, 2, 3)))
    assert logits.click.shape == logits.conversion.shape == (5, 1) and not torch.equal(*logits)
