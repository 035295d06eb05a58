"""What every record of settings is made of."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Record(BaseModel):
    """Settings of one component: unknown keys, wrong types and numbers out of bounds are refused."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False, coerce_numbers_to_str=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields.get(info.field_name or "")
        kinds = {field.annotation, *get_args(field.annotation)} if field is not None else set()
        if isinstance(value, bool) and kinds & {int, float}:
            raise ValueError("give a number")
        return value


Count = Annotated[int, Field(ge=1)]
