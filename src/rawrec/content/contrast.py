"""Pictures and texts told apart (ITC): the losses of dual streams.

By the softmax of CLIP (Radford et al., 2021): which text of the batch is of this picture, and which picture of this
text. By the sigmoid of SigLIP (Zhai et al., 2023): is this text of this picture, for every two of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def softmax_contrast(image: Tensor, text: Tensor, scale: Tensor, alike: Tensor | None = None) -> Tensor:
    """Mean over both directions. image, text: `[n, width]` of length 1, row i of the one is of row i of the other.

    scale: of the cosines, one over the temperature. alike: `[n, n]` bool, false on the diagonal: what is left out of
    the negatives.
    """
    logits = (scale * image @ text.T).float()
    if alike is not None:
        logits = logits.masked_fill(alike, -torch.inf)
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def sigmoid_contrast(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, alike: Tensor | None = None) -> Tensor:
    """Sum over every two of a batch, of which `n` are pairs, over `n`. bias: added to the logits; others as above."""
    logits = (scale * image @ text.T + bias).float()
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    losses = -functional.logsigmoid(signs * logits)
    if alike is not None:
        losses = losses.masked_fill(alike, 0.0)
    return losses.sum() / len(logits)
