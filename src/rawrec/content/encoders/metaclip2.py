"""MetaCLIP 2 (Chuang et al., 2025): CLIP for many languages, with the words of XLM-V."""

from __future__ import annotations

from typing import Any, ClassVar

from rawrec.content.encoders.clip import ClipStack


class MetaClip2Stack(ClipStack):
    """As CLIP; the end token is that of the config, also where its id is 2."""

    name: ClassVar[str] = "MetaCLIP 2"

    @classmethod
    def end(cls, config: Any) -> int | None:
        return config.eos_token_id
