"""A fusion: the weighted mean of an item's features, each of which has a say in its weight."""

from torch import nn

import rawrec


@rawrec.register_fusion("gate")
class Gate(nn.Module):
    def __init__(self, dim, modalities, cfg):
        super().__init__()
        self.say, self.out = nn.Linear(dim, 1), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, tokens, mask):
        """tokens [n, modalities, dim], mask [n, modalities] (True = there) -> [n, dim]"""
        say = self.say(tokens).squeeze(2).masked_fill(~mask, -1e9)
        weights = say.softmax(1) * mask
        return self.out(self.dropout((tokens.masked_fill(~mask[..., None], 0) * weights[..., None]).sum(1)))
