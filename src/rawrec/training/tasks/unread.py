"""What of texts and queries an encoder does not read as it should: told where training begins."""

from __future__ import annotations

from collections.abc import Mapping

from rawrec.content.encoders import JOINT
from rawrec.content.encoders.joint import UNSPACED

INSTEAD = (
    f"are what stands between spaces and signs, so that a whole sentence is one: train with {JOINT}NAME, a text "
    "encoder with its tokenizer"
)


def unspaced_note(stats: Mapping[str, Mapping[str, int]]) -> str | None:
    """Of how many texts that is so; None without any. stats: what was lost, by what reads it."""
    found = {name: lost[UNSPACED] for name, lost in stats.items() if lost.get(UNSPACED)}
    if not found:
        return None
    counts = ", ".join(f"{count:,} of {name}" for name, count in found.items())
    return f"texts in scripts without spaces, such as Chinese: {counts}. Their words {INSTEAD}"
