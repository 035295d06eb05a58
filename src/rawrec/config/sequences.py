"""Settings of the retrieval models that read what a user took as a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rawrec.config.records import Count, Size
from rawrec.config.retrieval import RETRIEVAL_DEFAULTS, IdConfig


class SequenceConfig(IdConfig):
    """Base of the records of sequence models; their samples are users, whose whole sequence is learned at once."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **RETRIEVAL_DEFAULTS,
        "train": {**RETRIEVAL_DEFAULTS["train"], "batch_size": 128},
    }
    reads_sequences: ClassVar[bool] = True
    max_length: Size = Field(default=50, description="most recent positives of a user that are read")

    def reads_features(self) -> bool:
        return False


class SASRecConfig(SequenceConfig):
    """SASRec: causal self-attention over the items that a user took (Kang & McAuley, ICDM 2018)."""

    name: Literal["sasrec"] = Field(default="sasrec", description="SASRec: the sequence of what the user took")
    embedding_size: Count = Field(default=64, description="width of item and position embeddings, and of every layer")
    n_layers: int = Field(default=2, ge=0, description="blocks of self-attention and feed-forward network")
    n_heads: Count = Field(default=1, description="heads of self-attention")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="dropout of embeddings, attention and feed-forward")
    residual: Literal["normalised", "input"] = Field(
        default="normalised",
        description="what a layer's result is added to: its normalised input, which of attention the queries alone are "
        "made of (published code), or its input as it is, keys and values being of the normalised one, too (paper)",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.embedding_size % self.n_heads:
            raise ValueError(
                f"embedding_size={self.embedding_size} is no multiple of n_heads={self.n_heads}; use for example "
                f"embedding_size={-(-self.embedding_size // self.n_heads) * self.n_heads}"
            )
        return self
