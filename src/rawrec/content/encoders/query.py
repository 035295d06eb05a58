"""LEMUR's query transformer: what a user typed -> a vector in the space of items' content.

A transformer of its own (as published), or the text path of the document's (ours), where a query is one more kind of
field.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rawrec.content.encoders.joint import Base, JointEncoder, Marked
from rawrec.content.encoders.joint_network import JointTransformer
from rawrec.content.encoders.padding import buckets, pad
from rawrec.data import texts
from rawrec.data.ragged import Ragged

OWN_KIND = 1  # of the words of a query, in a transformer of its own


class QueryEncoder(nn.Module):
    """Queries -> `[n, width]`. Always in eval mode, without dropout, as encoders of items are.

    max_length: words kept. learns: all of a network of its own; what is shared learns as the items' encoder says. name,
    digest: what a network of its own began as.
    """

    def __init__(
        self, network: JointTransformer, words: Marked, max_length: int, kind: int, shared: bool, learns: bool
    ) -> None:
        super().__init__()
        self.name, self.digest = "", ""
        self.words, self.max_length, self.kind, self.shared = words, max_length, kind, shared
        self._shared = [network] if shared else []  # in a list: it is a part of the items' encoder
        self.network = None if shared else network.requires_grad_(learns)
        self.width = network.out_width
        self.train()

    @property
    def transformer(self) -> JointTransformer:
        return self._shared[0] if self.network is None else self.network

    def train(self, mode: bool = True) -> QueryEncoder:
        super().train(False)
        return self

    def prepare(self, queries: Sequence[str]) -> tuple[Ragged, Tensor]:
        """Words of each query `[words]` int32 with [sep], none of an empty one, and which were cut, `[n]`."""
        return self.words([texts.join([query]) for query in queries], self.max_length)

    def forward(self, x: Ragged) -> Tensor:
        """Of prepared queries, `[n, width]` float32, with gradient; zeros for an empty one."""
        network, device = self.transformer, x.values.device
        if self.shared and next(network.parameters()).device != device:  # a frozen one stays on the CPU otherwise
            network.to(device)
        made, order = [], []
        for items in buckets(x.lengths):
            ids, mask = pad(x.select(items))
            begin = torch.full((len(ids), 1), self.words.cls, device=device)
            types = torch.cat([torch.zeros_like(begin), torch.full_like(ids, self.kind, dtype=torch.int64)], 1)
            mask = torch.cat([torch.ones_like(begin, dtype=torch.bool), mask], 1)
            made.append(network(torch.cat([begin, ids.long()], 1), types, mask).float())
            order.append(items)
        out = torch.zeros(len(x), self.width, device=device)
        return out.index_copy(0, torch.cat(order), torch.cat(made)) if made else out

    def trained_parameters(self) -> list[nn.Parameter]:
        """Those that learn, beside what the items' encoder shares."""
        return [p for p in self.parameters() if p.requires_grad]

    def levels(self) -> dict[int, int]:
        """Of each trained parameter, by id, how many layers lie above its own; see `Encoder.levels`."""
        layers = self.transformer.layers
        found = {id(p): k for k, layer in enumerate(reversed(layers)) for p in layer.parameters()}
        top = {id(p) for part in (self.transformer.last, self.transformer.out) for p in part.parameters()}
        return {id(p): found.get(id(p), 0 if id(p) in top else len(layers)) for p in self.trained_parameters()}


def own_query(base: Base, width: int, max_length: int, learns: bool) -> QueryEncoder:
    """A transformer of its own. width: of items' content."""
    return QueryEncoder(base.network(width), base.words, max_length, OWN_KIND, shared=False, learns=learns)


def shared_query(encoder: JointEncoder, max_length: int) -> QueryEncoder:
    """The transformer of `encoder`, whose last kind of field is the query's."""
    network = encoder.stack.network
    return QueryEncoder(network, encoder.words, max_length, network.cfg.fields, shared=True, learns=False)
