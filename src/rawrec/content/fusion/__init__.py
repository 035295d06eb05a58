"""Fusions: the features of an item's modalities -> one content embedding (EM3 section 3.2, table 3).

Every fusion takes tokens `[n, modalities, dim]` and a mask `[n, modalities]` (True = the item has the modality) and
returns `[n, dim]`; what an item lacks has no influence on its embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rawrec.config import FusionConfig
from rawrec.config.parts import fusion_entry, fusion_names
from rawrec.config.wording import unknown
from rawrec.errors import UserError
from rawrec.plugins import own_code


def make_fusion(dim: int, modalities: int, cfg: FusionConfig, texts: Sequence[int] | None = None) -> nn.Module:
    """The fusion that `cfg.kind` names, one of ours or a registered one. Raises UserError for an unknown name.

    texts: which tokens are of texts, for `two_flow`.
    """
    entry = fusion_entry(cfg.kind)
    if entry is None:
        raise UserError(unknown("content.fusion.kind", cfg.kind, fusion_names()))
    if not entry.ours:
        with own_code("fusion", cfg.kind):
            return entry.load()(dim, modalities, cfg)
    cls = entry.load()
    return cls(dim, modalities, cfg, texts) if cfg.kind == "two_flow" else cls(dim, modalities, cfg)
