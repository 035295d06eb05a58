"""Settings of LEMUR's content part (`model.content=lemur`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rawrec.config.records import Count, Record, Size

LONGEST = 1 << 20
"""Items of a history: more would fill any memory."""
Length = Annotated[int, Field(ge=0, le=LONGEST)]


class LemurConfig(Record):
    """What is made of the content of histories: two sequences, in each a decoder and the similarity to the candidate.

    Of its options the paper (arXiv:2511.10962) has the lengths, the layers, and of the read-outs cosines and sorted;
    the others are ours.
    """

    short: Length = Field(default=20, description="last items of the history that are the short sequence; 0: none")
    long: Length | None = Field(
        default=None,
        description="last items of the history that are the long sequence; 0: none; null: all of data.history, where "
        "that is longer than the short one",
    )
    layers: int = Field(
        default=2, ge=0, le=1024, description="layers of each sequence's decoder; 0: no decoder reads the sequences"
    )
    queries: Size = Field(default=1, description="vectors that a decoder reads a sequence by")
    ffn: Count = Field(
        default=4, description="width of the hidden layer of the decoder's networks, in widths of content"
    )
    similarity: list[Literal["cosines", "sorted", "simtier", "sata"]] = Field(
        default=["cosines", "sorted"],
        description="what the cosines of the candidate with a sequence are read out as: cosines (in the order of the "
        "sequence), sorted, simtier (how many lie in each tier), sata (attention over the most similar items); []: not",
    )
    tiers: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[0.1], min_length=1, description="simtier: widths of its tiers, a table for each"
    )
    attended: Size = Field(default=50, description="sata: so many items of a sequence, most similar to the candidate")
    search: Size | None = Field(
        default=None,
        description="of the long sequence only so many items, most similar to the candidate, are read at all: found by "
        "the rows of the bank as they are, so that the sequence may have 100,000; null: all are read",
    )

    marks: list[Literal["gap", "action"]] = Field(
        default=[],
        description="what the decoders read of the history's events beside their content: how long ago each was (gap), "
        "and which labels beside the main one it has (action)",
    )

    def lengths(self, history: int) -> dict[str, int]:
        """Items of each sequence that is read, by name, of histories of at most so many."""
        short = min(self.short, history)
        long = (history if history > short else 0) if self.long is None else min(self.long, history)
        return {name: length for name, length in (("short", short), ("long", long)) if length}

    def whole(self, history: int) -> int:
        """Of so many items of a history, how many, the last ones, are read whatever the candidate is."""
        lengths = self.lengths(history)
        return max([length for name, length in lengths.items() if name == "short" or not self.search], default=0)
