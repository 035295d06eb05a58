"""FISM (Kabbur et al., KDD 2013): a user is what the user took."""

import torch
from pydantic import Field
from torch import nn

import rawrec
from rawrec.models.losses import bpr_loss


class FISMConfig(rawrec.RetrievalConfig):
    """FISM: a user is the sum of the items that the user took, without an embedding of the user's own."""

    dim: int = Field(default=64, ge=1, description="width of item factors")
    alpha: float = Field(default=0.5, ge=0, le=1, description="a user's sum is divided by the items to this power")

    def reads_features(self):
        return False


@rawrec.register_model("fism", FISMConfig)
class FISM(rawrec.RetrievalModel):
    def __init__(self, cfg, pairs, features, present=None):
        super().__init__(cfg, pairs, features, present)
        self.taken, self.item = (nn.Embedding(pairs.n_items, cfg.dim) for _ in range(2))
        counts = torch.bincount(pairs.users, minlength=pairs.n_users).clamp(min=1)
        self.register_buffer("scale", counts[:, None].float() ** -cfg.alpha, persistent=False)

    def users(self):
        """[n_users, dim]"""
        sums = torch.zeros(self.n_users, self.cfg.dim, device=self.scale.device)
        return sums.index_add(0, self.edge_users, self.taken(self.edge_items)) * self.scale

    def loss(self, users, positives, negatives, draws):
        every, scale = self.users()[users], self.scale[users]
        others = every - scale * self.taken(positives)  # an item shall not explain itself
        good, bad = (others * self.item(positives)).sum(1), (every * self.item(negatives)).sum(1)
        return {"loss": bpr_loss(good, bad)}

    @torch.no_grad()
    def embeddings(self):
        return self.users(), self.item.weight
