"""Settings of the retrieval models that results are judged by. Most are fitted, in one go, not trained by steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from rawrec.config.records import Count
from rawrec.config.retrieval import RETRIEVAL_DEFAULTS, RetrievalConfig

FITTED_DEFAULTS: dict[str, Any] = {**RETRIEVAL_DEFAULTS, "train": {**RETRIEVAL_DEFAULTS["train"], "epochs": 1}}


class FittedConfig(RetrievalConfig):
    """Base of the records of models that `RetrievalModel.fit` makes: they read ids alone and learn in no step."""

    defaults: ClassVar[Mapping[str, Any]] = FITTED_DEFAULTS
    fitted: ClassVar[bool] = True

    def reads_features(self) -> bool:
        return False


class PopConfig(FittedConfig):
    """Popularity: everybody gets the items with the most training users. A line to judge results by."""

    name: Literal["pop"] = Field(default="pop", description="popularity: the same for everybody")


class RandomConfig(FittedConfig):
    """Chance: every user gets items drawn at random. A line to judge results by."""

    name: Literal["random"] = Field(default="random", description="chance: drawn for each user by the run's seed")


class ItemKNNConfig(FittedConfig):
    """Item neighbours: items like those that the user took, by cosine with shrinkage (Sarwar et al., WWW 2001)."""

    name: Literal["itemknn"] = Field(default="itemknn", description="ItemKNN: cosines of items by their users")
    neighbours: Count = Field(default=400, description="most similar items that speak for an item")
    shrinkage: float = Field(
        default=100.0,
        ge=0,
        description="added to the product of norms: similarities of few users fall; 0: plain cosine",
    )


class EASEConfig(FittedConfig):
    """EASE: a linear model of all items on all items, in closed form (Steck, WWW 2019)."""

    name: Literal["ease"] = Field(default="ease", description="EASE: items by items, in closed form")
    l2_weight: float = Field(default=500.0, gt=0, description="weight of the squared entries of B, lambda of eq. 4")
