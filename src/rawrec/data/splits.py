"""How interactions are divided into parts: 0 train, 1 valid, 2 test and -1 (in no part)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from rawrec.errors import UserError

PARTS = ("train", "valid", "test")
BUCKETS: dict[str, tuple[int, int | None]] = {"cold": (0, 0), "rare": (1, 4), "medium": (5, 19), "warm": (20, None)}
"""Name -> fewest and most training rows of an item in that bucket."""
Kind = Literal["random_user", "time_user", "time_global", "leave_one_out", "column", "new_items"]


class SplitSpec(BaseModel):
    """How the interactions are divided.

    random_user: each user's rows at random, by `ratios`.
    time_user: each user's rows by time, by `ratios`; rows of one instant stay together.
    time_global: all rows by time, by `ratios`; rows of one instant stay together.
    leave_one_out: each user's last row is test, the one before it valid.
    column: as the column `column` says (0, 1, 2 or train, valid, test; empty or -1: in no part).
    new_items: `share` of the items (those with `field`, if given) are held out with all of their rows as test,
        half as many others likewise as valid; fold `fold` of `folds` is disjoint from the other folds.

    together: a column; rows of a user with the same value are a list, which stays whole. random_user divides lists
        instead of rows; time_user and leave_one_out order rows and take lists that overlap in time for one;
        time_global goes by the last row of a list.
    history: a column of numbers; rows where it is above 0 are in no part, and make histories only.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind = "time_user"
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = Field(default=0, ge=0)
    share: float = Field(default=0.2, gt=0, lt=0.6)
    fold: int = Field(default=0, ge=0)
    folds: int = Field(default=5, ge=1)
    field: str | None = None
    column: str | None = None
    together: str | None = None
    history: str | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, value: Any, handler: ModelWrapValidatorHandler[SplitSpec]) -> SplitSpec:
        try:
            return handler(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(["split", *map(str, first["loc"])])
            raise UserError(f"{where}={first['input']!r}: {first['msg']}") from None

    @model_validator(mode="after")
    def _possible(self) -> SplitSpec:
        if min(self.ratios) < 0 or abs(sum(self.ratios) - 1) > 1e-6 or self.ratios[0] == 0:
            raise UserError(f"split ratios {self.ratios} must be at least 0, sum to 1 and leave something for train")
        if self.kind == "column" and not self.column:
            raise UserError("a split of kind 'column' needs the name of the column that holds the parts")
        if self.together and "together" not in USED[self.kind]:
            raise UserError(
                f"a split of kind {self.kind!r} cannot keep lists together ({self.together!r}): leave it out"
            )
        if self.kind == "new_items" and self.fold >= self.folds:
            raise UserError(
                f"split fold {self.fold} does not exist: with folds={self.folds} it is at most {self.folds - 1}"
            )
        if self.kind == "new_items" and self.share * self.folds > 1 + 1e-9:
            raise UserError(
                f"split share {self.share} in {self.folds} disjoint folds is more than all items: "
                f"use share <= {1 / self.folds:.3g} or fewer folds"
            )
        return self

    @property
    def columns(self) -> list[str]:
        """The columns of the interactions that must be there for it."""
        return [name for name in (self.column, self.together, self.history) if name is not None]

    def check_asked(self, asked: Sequence[str]) -> None:
        """UserError where parts, or histories, are to be read off numbers of queries or sessions (`asked`)."""
        for name in (self.column, self.history):
            if name in asked:
                raise UserError(f"split column {name!r} says what was asked for, and no part: name another column")

    def settings(self) -> dict[str, Any]:
        """The settings that matter to this kind, as plain values."""
        used = {*USED[self.kind], "history"}
        return {"kind": self.kind, **self.model_dump(mode="json", include=used, exclude_none=True)}


def keeping_lists(spec: SplitSpec, column: str) -> SplitSpec:
    """`spec`, which keeps the lists of `column` together where it could tear apart rows of one time."""
    if spec.kind in ("random_user", "leave_one_out") and spec.together is None:
        return spec.model_copy(update={"together": column})
    return spec


USED: dict[str, set[str]] = {
    "random_user": {"ratios", "seed", "together"},
    "time_user": {"ratios", "together"},
    "time_global": {"ratios", "together"},
    "leave_one_out": {"together"},
    "column": {"column"},
    "new_items": {"share", "fold", "folds", "field", "seed"},
}
