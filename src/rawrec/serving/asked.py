"""What a caller asks of lists, checked in one place: every fault is a UserError that names the argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from rawrec.arguments import ANYTHING, COUNT, ID, IDS, NAMED, Rule, many, one_of, optional, shown
from rawrec.errors import UserError

Unknown = Literal["refuse", "skip"]
UNKNOWN = one_of(*get_args(Unknown))


def _is_share(value: Any) -> bool:
    number = value  # of which types of numbers do not say that they can be compared
    return isinstance(value, Real) and not isinstance(value, bool) and bool(0 <= number <= 1)


RULES = {
    "k": COUNT,
    "items": optional(IDS),
    "exclude": optional(IDS),
    "where": optional(Rule(NAMED.fits, "columns with what is wanted of each, as {'category': ['lamp']}")),
    "max_per": optional(Rule(NAMED.fits, "columns with a number of items each, as {'brand': 2}")),
    "diversity": Rule(_is_share, "a number from 0, scores alone, to 1, differences alone"),
    "unknown": UNKNOWN,
}
"""Of the arguments that lists have in common."""


class Asked(NamedTuple):
    """Of one list or many, see `Recommender.recommend`: what the catalogue is filtered and chosen by."""

    k: int = 10
    items: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    where: Mapping[str, Any] | None = None
    max_per: Mapping[str, int] | None = None
    diversity: float = 0.0
    unknown: Unknown = "refuse"

    def check(self) -> Asked:
        """The same; UserError for what is of a wrong type or out of bounds."""
        for name, value in self._asdict().items():
            RULES[name].check(name, value)
        for column, most in (self.max_per or {}).items():
            COUNT.check(f"max_per: {column}", most)
        return self


def check_list(items: Any, name: str) -> None:
    """Raises UserError where one thing stands in the place of a list."""
    many(ANYTHING).check(name, items)


def check_user(user: Any) -> None:
    """UserError where `user` is no id of one user."""
    if isinstance(user, list | tuple | set | np.ndarray):
        raise UserError(f"user={shown(user)}: give the id of one user; of several at once use users=[...]")
    if user is not None:
        ID.check("user", user)
