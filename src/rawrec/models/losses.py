"""Losses shared by models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rawrec.onednn import Linear, linear


def bpr_loss(positive: Tensor, negative: Tensor, epsilon: float = 0.0, known: Tensor | None = None) -> Tensor:
    """Mean of -log sigmoid(positive - negative) (Rendle et al. 2009); scores `[n]`.

    epsilon > 0: -log(epsilon + sigmoid(...)), as some published codes have it. known: bool `[n]`, the mean is of these;
    0 where there are none.
    """
    difference = positive - negative
    terms = -torch.log(epsilon + torch.sigmoid(difference)) if epsilon else -nn.functional.logsigmoid(difference)
    if known is None:
        return terms.mean()
    return terms.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)


def embedding_loss(*embeddings: Tensor, squared: bool = False) -> Tensor:
    """Norms of a batch's embeddings `[n, dim]` each, summed, divided by the rows of the last one.

    squared: half the squares of the norms, the L2 regularisation of the papers; else the Frobenius norms as they are.
    """
    norms = torch.stack([x.square().sum() / 2 if squared else x.norm() for x in embeddings])
    return norms.sum() / len(embeddings[-1])


def info_nce(a: Tensor, b: Tensor, temperature: float, negatives: Tensor | None = None) -> Tensor:
    """Mean over rows of -log softmax of the positive `(a_i, b_i)` among all `(a_i, b_j)`, cosine similarity.

    a, b: `[n, dim]`. negatives: bool `[n, n]`, False takes a pair out of the negatives (the diagonal always stays).
    """
    a, b = nn.functional.normalize(a, dim=1), nn.functional.normalize(b, dim=1)
    logits = linear(a / temperature, b)
    if negatives is not None:
        logits = logits.masked_fill(~(negatives | torch.eye(len(a), dtype=torch.bool, device=a.device)), -torch.inf)
    return nn.functional.cross_entropy(logits, torch.arange(len(a), device=a.device))


class ContentIdContrast(nn.Module):
    """Content-ID contrastive loss of EM3, eq. 10-14: half the sum of both directions, in-batch negatives.

    The rows are distinct items, so the same item is never its own negative (the paper draws H of the batch; here all).
    """

    def __init__(self, content_dim: int, id_dim: int, temperature: float):
        super().__init__()
        self.content = Linear(content_dim, id_dim)  # f_CIC, eq. 10
        self.id = Linear(id_dim, id_dim)  # f'_CIC, eq. 11
        self.temperature = temperature

    def forward(self, content: Tensor, ids: Tensor) -> Tensor:
        """content `[n, content_dim]` and id embeddings `[n, id_dim]` of `n` distinct items; 0 for fewer than two."""
        if len(content) < 2:
            return content.sum() * 0
        c, i = self.content(content), self.id(ids)
        return 0.5 * (info_nce(c, i, self.temperature) + info_nce(i, c, self.temperature))
