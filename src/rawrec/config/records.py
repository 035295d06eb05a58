"""What every record of settings is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

LARGEST = 2**31 - 1


class Record(BaseModel):
    """Settings of one component: unknown keys, wrong types and numbers out of bounds are refused."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False, coerce_numbers_to_str=True)

    @field_validator("*")
    @classmethod
    def _countable(cls, value: Any, info: ValidationInfo) -> Any:
        """Whole numbers that fit where arrays and libraries keep sizes; a setting may have a bound of its own."""
        field = cls.model_fields.get(info.field_name or "")
        bounded = field is not None and any(hasattr(limit, "le") or hasattr(limit, "lt") for limit in field.metadata)
        numbers = value if isinstance(value, list) else [value]
        if not bounded and any(isinstance(number, int) and abs(number) > LARGEST for number in numbers):
            raise ValueError(f"give at most {LARGEST}")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields.get(info.field_name or "")
        kinds = {field.annotation, *get_args(field.annotation)} if field is not None else set()
        if isinstance(value, bool) and kinds & {int, float}:
            raise ValueError("give a number")
        return value


Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=1, le=65536)]
"""Of an embedding, a layer, a list: more would fill any memory."""


class Idle(NamedTuple):
    """Options of a model that have no effect `when` its record says so, and why, as it is told."""

    options: tuple[str, ...]
    when: Callable[[Any], bool]
    reason: str


class NoGradient(NamedTuple):
    """The value of a setting under which no gradient of the loss reaches a model's features, and why."""

    setting: str
    value: float
    reason: str


class ModelRecord(Record):
    """Base of the records of all models. What a config must know of a model stands here, free of torch."""

    model_config = ConfigDict(defer_build=True)  # there are thirty, of which a run has one

    name: str = Field(default="", description="name of the model")

    kind: ClassVar[Literal["retrieval", "ranking"]]
    """Whether it scores all items for a user, or one impression."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """What the settings that models share are unless given, nested."""
    idle_rules: ClassVar[tuple[Idle, ...]] = ()
    """Where options do nothing: an override of one of them is refused then."""
    no_gradient: ClassVar[NoGradient | None] = None
    """Where encoders cannot be trained: `paradigm=end_to_end` is refused then."""

    def reads_features(self) -> bool:
        """Whether the model reads features or content of items under these settings."""
        return True
