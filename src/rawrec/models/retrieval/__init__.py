"""Retrieval models: those that score all items for a user. One paper, one file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rawrec.models.retrieval.base import RetrievalModel

RETRIEVAL: dict[str, str] = {
    "bpr": "rawrec.models.retrieval.bpr:BPR",
    "lightgcn": "rawrec.models.retrieval.lightgcn:LightGCN",
    "vbpr": "rawrec.models.retrieval.vbpr:VBPR",
    "freedom": "rawrec.models.retrieval.freedom:FREEDOM",
    "em3_freedom": "rawrec.models.retrieval.em3_freedom:EM3",
    "bm3": "rawrec.models.retrieval.bm3:BM3",
    "slmrec": "rawrec.models.retrieval.slmrec:SLMRec",
    "mmgcn": "rawrec.models.retrieval.mmgcn:MMGCN",
    "mmgcl": "rawrec.models.retrieval.mmgcl:MMGCL",
    "lattice": "rawrec.models.retrieval.lattice:LATTICE",
    "mgcn": "rawrec.models.retrieval.mgcn:MGCN",
    "smore": "rawrec.models.retrieval.smore:SMORE",
    "dragon": "rawrec.models.retrieval.dragon:DRAGON",
    "lgmrec": "rawrec.models.retrieval.lgmrec:LGMRec",
}


def retrieval_model(name: str) -> type[RetrievalModel]:
    """The class of a model's name; it is imported here, when first used."""
    module, _, cls = RETRIEVAL[name].partition(":")
    return getattr(import_module(module), cls)
