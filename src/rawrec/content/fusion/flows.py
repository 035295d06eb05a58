"""Fusions by transformers without queries, the rivals of table 3: one flow (ViLT) and two flows (ViLBERT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rawrec.config import FusionConfig
from rawrec.content.fusion.layers import TransformerLayer
from rawrec.errors import UserError
from rawrec.onednn import Linear


class OneFlowFusion(nn.Module):
    """All tokens through transformer layers; their outputs side by side, zeros for padding, through one linear map."""

    def __init__(self, dim: int, modalities: int, cfg: FusionConfig):
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(dim, cfg.heads, cfg.dropout, cfg.ffn) for _ in range(cfg.layers))
        self.mm_proj = Linear(modalities * dim, dim)

    def outputs(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Of every token, `[n, tokens, dim]`, zeros where `mask` has none; any number of tokens, in any order."""
        visible = mask | ~mask.any(1, keepdim=True)  # attention over nothing is not defined
        for layer in self.layers:
            tokens = layer(tokens, visible)
        return tokens.masked_fill(~mask[..., None], 0)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.mm_proj(self.outputs(tokens, mask).flatten(1))


class FlowLayer(nn.Module):
    """One flow's part of a layer: it attends to the other flow, then to itself."""

    def __init__(self, dim: int, cfg: FusionConfig):
        super().__init__()
        self.cross = TransformerLayer(dim, cfg.heads, cfg.dropout, False)
        self.own = TransformerLayer(dim, cfg.heads, cfg.dropout, cfg.ffn)

    def forward(self, x: Tensor, mask: Tensor, other: Tensor, other_mask: Tensor) -> Tensor:
        """Flows `[n, tokens, dim]`, each with its mask `[n, tokens]`."""
        return self.own(self.cross(x, other_mask, other), mask)


class TwoFlowFusion(nn.Module):
    """A flow of pictures and a flow of texts with cross-attention; the text flow's output, through a linear map.

    Each flow begins with a learned token, as in ViLBERT; that of the text flow becomes the content, so that the output
    is of one length, and an item without texts (or without pictures) has one, too.

    texts: which tokens are of the text flow; if not said, all but the first.
    """

    def __init__(self, dim: int, modalities: int, cfg: FusionConfig, texts: list[int] | None = None):
        super().__init__()
        texts = list(range(1, modalities)) if texts is None else texts
        self.members = [[i for i in range(modalities) if i not in texts], texts]
        for name, members in zip(("pictures", "texts"), self.members, strict=True):
            if not members:
                raise UserError(
                    f"fusion two_flow: its flow of {name} has no field here; a ranker's content.fusion.text_flow names "
                    "those of the text flow, or use one_flow"
                )
        self.queries = nn.Parameter(torch.randn(2, 1, dim) * 0.02)
        self.pictures = nn.ModuleList(
            FlowLayer(dim, cfg) for _ in range(cfg.layers - 1)
        )  # whose last output is not read
        self.texts = nn.ModuleList(FlowLayer(dim, cfg) for _ in range(cfg.layers))
        self.mm_proj = Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        flows, masks = [], []
        for first, members in zip(self.queries, self.members, strict=True):
            first = first.expand(len(tokens), 1, -1).to(tokens.dtype)
            flows.append(torch.cat([first, tokens[:, members]], 1))
            masks.append(torch.cat([mask.new_ones(len(mask), 1), mask[:, members]], 1))
        (pictures, texts), (of_pictures, of_texts) = flows, masks
        for k, layer in enumerate(self.texts):
            crossed = layer(texts, of_texts, pictures, of_pictures)
            if k < len(self.pictures):
                pictures = self.pictures[k](pictures, of_pictures, texts, of_texts)
            texts = crossed
        return self.mm_proj(texts[:, 0])
