"""Retrieval models: those that score all items for a user. One paper, one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawrec.models import model_class

if TYPE_CHECKING:
    from rawrec.models.retrieval.base import RetrievalModel


def retrieval_model(name: str) -> type[RetrievalModel]:
    """The class of a retrieval model's name; it is imported here, when first used."""
    return model_class(name)
