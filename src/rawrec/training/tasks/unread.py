"""What of texts and queries an encoder does not read as it should: told where training begins."""

from __future__ import annotations

from collections.abc import Mapping

from rawrec.content.encoders import JOINT
from rawrec.content.encoders.joint import UNSPACED

INSTEAD = (
    f"are what stands between spaces and signs, so that a whole sentence is one: train with {JOINT}NAME, a text "
    "encoder with its tokenizer"
)
LOST = {
    "truncated": "texts longer than the encoder reads, cut (max_length)",
    "undecodable": "pictures that cannot be read, left out",
    "cut_images": "pictures beyond the first of an item that are read, left out (max_images)",
}


def unread_notes(stats: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What encoders do not read of texts and pictures, and of how many. stats: what was lost, by what reads it."""
    said = [f"{words}: {counts}" for what, words in LOST.items() if (counts := _counts(stats, what))]
    if counts := _counts(stats, UNSPACED):
        said.append(f"texts in scripts without spaces, such as Chinese: {counts}. Their words {INSTEAD}")
    return said


def _counts(stats: Mapping[str, Mapping[str, int]], what: str) -> str:
    return ", ".join(f"{lost[what]:,} of {name}" for name, lost in stats.items() if lost.get(what))
