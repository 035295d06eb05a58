"""Encoders of pictures and texts, tuned on pairs: what learns, how it is told, what is written in the end."""

from __future__ import annotations

from rawrec.config.finetune import FinetuneConfig
from rawrec.content.encoders import JOINT, reads_whole_items
from rawrec.content.finetuning.base import Tuned
from rawrec.content.finetuning.dual import DualStream
from rawrec.content.finetuning.whole import WholeItems
from rawrec.errors import UserError

__all__ = ["Tuned", "tuned"]


def tuned(cfg: FinetuneConfig) -> Tuned:
    """The encoder that is tuned. UserError for one that reads pictures or texts alone, or has no such loss."""
    if cfg.encoder.startswith(JOINT):
        raise UserError(
            f"--encoder {cfg.encoder}: it learns with a ranker and its contrast, not from pairs of pictures and texts: "
            f"rawrec train em3 content.item.encoder={cfg.encoder}"
        )
    if reads_whole_items(cfg.encoder):
        return WholeItems(cfg)
    if others := [loss for loss in cfg.loss if loss != "itc"]:
        raise UserError(
            f"loss={','.join(cfg.loss)}: {' and '.join(others)} need layers that see a picture and a text together, as "
            f"VLMo has; {cfg.encoder} sees each alone: use loss=itc"
        )
    return DualStream(cfg)
