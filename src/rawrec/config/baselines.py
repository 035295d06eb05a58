"""Settings of the retrieval models that results are judged by. Most are fitted, in one go, not trained by steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

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
