"""Settings of models: one record for the rankers, one per retrieval model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args

from pydantic import Discriminator, Field, Tag, ValidationError, ValidatorFunctionWrapHandler, field_validator

from rawrec.config.records import Count, Record
from rawrec.models.retrieval import configs
from rawrec.models.retrieval.configs import RetrievalConfig


class RankerConfig(Record):
    """A ranking model: `id` (ids alone) or `em3` (content and interest beside ids)."""

    name: Literal["id", "em3"] = Field(default="em3", description="id: ids alone; em3: content and interest beside ids")
    dim: int = Field(default=32, ge=1, description="width of id embeddings and of attention")
    hidden: list[Count] = Field(default=[128, 64], description="widths of the MLP's hidden layers")
    dropout: float = Field(default=0.4, ge=0, lt=1, description="dropout after each hidden layer")
    item_id: bool = Field(default=True, description="item id embedding as an input of the ranker")
    user_id: bool = Field(default=True, description="user id embedding as an input of the ranker")
    id_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of ids read as the unknown id while training")
    id_history: int = Field(
        default=20,
        ge=1,
        description="most recent items whose ids the ranker attends to; content reads all of data.history",
    )
    columns: Literal["all", "none"] | list[str] = Field(
        default="none", description="categorical and numeric item columns that the ranker reads"
    )
    popularity: bool = Field(
        default=False, description="log of the item's and of the user's training rows as inputs of the ranker"
    )
    cic_weight: float = Field(
        default=0.1, ge=0, description="weight of the Content-ID contrastive loss (eq. 14); 0: none"
    )
    cic_temperature: float = Field(default=0.1, gt=0, description="temperature of that loss")

    @field_validator("columns", mode="wrap")
    @classmethod
    def _columns(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError("use all, none or a list of columns, for example [genres,year]") from None


RANKERS: tuple[str, ...] = get_args(RankerConfig.model_fields["name"].annotation)
RETRIEVAL: dict[str, type[RetrievalConfig]] = {
    record.model_fields["name"].default: record
    for record in vars(configs).values()
    if isinstance(record, type) and issubclass(record, RetrievalConfig) and record is not RetrievalConfig
}
"""The records of retrieval models by name: those that `models/retrieval/configs.py` defines."""


def record_name(value: Any) -> str | None:
    """The key of the record that settings of a model, nested or typed, belong to; None where they are no settings."""
    name = str(value.get("name")) if isinstance(value, Mapping) else getattr(value, "name", None)
    return RANKERS[0] if name in RANKERS else name


if TYPE_CHECKING:
    ModelConfig = Any
else:
    _TAGGED = tuple(Annotated[record, Tag(name)] for name, record in {RANKERS[0]: RankerConfig, **RETRIEVAL}.items())
    ModelConfig = Annotated[Union[_TAGGED], Discriminator(record_name)]  # noqa: UP007
