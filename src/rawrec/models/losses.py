"""Losses shared by models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rawrec.onednn import Linear, linear
from rawrec.world import norms


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
    each = torch.stack([x.square().sum() / 2 for x in embeddings]) if squared else norms(*embeddings)
    return each.sum() / len(embeddings[-1])


def info_nce(a: Tensor, b: Tensor, temperature: float, negatives: Tensor | None = None) -> Tensor:
    """Mean over rows of -log softmax of the positive `(a_i, b_i)` among all `(a_i, b_j)`, cosine similarity.

    a, b: `[n, dim]`. negatives: bool `[n, n]`, False takes a pair out of the negatives (the diagonal always stays).
    """
    a, b = nn.functional.normalize(a, dim=1), nn.functional.normalize(b, dim=1)
    logits = linear(a / temperature, b)
    if negatives is not None:
        logits = logits.masked_fill(~(negatives | torch.eye(len(a), dtype=torch.bool, device=a.device)), -torch.inf)
    return nn.functional.cross_entropy(logits, torch.arange(len(a), device=a.device))


def draw_negatives(allowed: Tensor, count: int) -> Tensor:
    """`count` of the pairs that are `allowed` in every row, or all where there are fewer; bool `[n, n]`, as `allowed`.

    Drawn without repeats, by torch's global generator.
    """
    if count >= allowed.shape[1]:
        return allowed
    order = torch.rand(allowed.shape, device=allowed.device).masked_fill(~allowed, -1.0)
    return torch.zeros_like(allowed).scatter_(1, order.topk(count, 1).indices, True) & allowed


class ContentIdContrast(nn.Module):
    """Content-ID contrastive loss of EM3, eq. 10-14: half the sum of both directions, in-batch negatives.

    The rows are distinct items, so the same item is never its own negative. negatives: how many are drawn for each item
    and direction (H), None: all others. id_width: of id vectors, if not id_dim.
    """

    def __init__(
        self,
        content_dim: int,
        id_dim: int,
        temperature: float,
        negatives: int | None = None,
        id_width: int | None = None,
    ):
        super().__init__()
        self.content = Linear(content_dim, id_dim)  # f_CIC, eq. 10
        self.id = Linear(id_width or id_dim, id_dim)  # f'_CIC, eq. 11
        self.temperature, self.negatives = temperature, negatives

    def forward(self, content: Tensor, ids: Tensor, same: Tensor | None = None) -> Tensor:
        """content `[n, content_dim]` and id embeddings `[n, id_width]` of `n` distinct items; 0 for fewer than two.

        same: int `[n]`, items of equal number are of equal content, and no negatives of each other.
        """
        if len(content) < 2:
            return content.sum() * 0
        c, i = self.content(content), self.id(ids)
        first, second = self._negatives(len(c), same, c.device), self._negatives(len(c), same, c.device)
        return 0.5 * (info_nce(c, i, self.temperature, first) + info_nce(i, c, self.temperature, second))

    def _negatives(self, n: int, same: Tensor | None, device: torch.device) -> Tensor | None:
        """Which pairs are negatives, bool `[n, n]`; None: all but the diagonal."""
        if same is None and self.negatives is None:
            return None
        apart = ~torch.eye(n, dtype=torch.bool, device=device) if same is None else same[:, None] != same
        return apart if self.negatives is None else draw_negatives(apart, self.negatives)


def delayed_weights(probability: Tensor, labels: Tensor, late: Tensor) -> Tensor:
    """Importance weights of impressions that were trained before their labels were final, all of one shape.

    probability: the model's own, without a gradient; late: r, the share of positives that come late; 0: the label is
    final, and the weight 1. With d = r f a positive weighs 1 + d, a negative (1 + d) (1 - f) / (1 - f + d): Yang et al.
    2021 (AAAI), where d is a network's; with r = 1 Ktena et al. 2019 (RecSys), the fake negative weighted loss.
    """
    delayed = late * probability
    negative = (1 - probability) / (1 - probability + delayed).clamp(min=torch.finfo(probability.dtype).tiny)
    weights = (1 + delayed) * torch.where(labels > 0, 1.0, negative)
    return torch.where(late > 0, weights, 1.0)
