"""The records of all models, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Discriminator, Tag

from rawrec.config.ranking import PRESETS, RANKERS
from rawrec.models.retrieval import configs
from rawrec.models.retrieval.configs import RetrievalConfig

RETRIEVAL: dict[str, type[RetrievalConfig]] = {
    record.model_fields["name"].default: record
    for record in vars(configs).values()
    if isinstance(record, type) and issubclass(record, RetrievalConfig) and record is not RetrievalConfig
}
"""The records of retrieval models by name: those that `models/retrieval/configs.py` defines."""


def record_name(value: Any) -> str | None:
    """The key of the record that settings of a model, nested or typed, belong to; None where they are no settings."""
    name = str(value.get("name")) if isinstance(value, Mapping) else getattr(value, "name", None)
    return PRESETS[name][0] if name in PRESETS else name


if TYPE_CHECKING:
    ModelConfig = Any
else:
    _TAGGED = tuple(Annotated[record, Tag(name)] for name, record in {**RANKERS, **RETRIEVAL}.items())
    ModelConfig = Annotated[Union[_TAGGED], Discriminator(record_name)]  # noqa: UP007
