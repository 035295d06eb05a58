"""What was found wrong with a dataset, where, how often, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from rawrec.data.digest import ContentDigest
from rawrec.data.disk import first_line
from rawrec.errors import UserError

EXAMPLES = 5
AGAIN = "import the data again, or take the folder from a backup"


@dataclass
class Problem:
    """Where it is, what is wrong there, how often, the first examples, and what to do."""

    where: str
    what: str
    advice: str
    count: int = 1
    examples: list[str] = field(default_factory=list)


@dataclass
class Validation:
    """What was looked at (how many of each), what is wrong, and what is worth knowing but not wrong."""

    path: str
    quick: bool
    version: int | None = None
    checked: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    digests: dict[int, ContentDigest | None] = field(default_factory=dict, repr=False)
    """Of the versions, as far as their content has been read."""

    @property
    def sound(self) -> bool:
        return not self.problems

    def count(self, what: str, number: int) -> None:
        self.checked[what] = self.checked.get(what, 0) + int(number)

    def add(self, where: str, what: str, count: int, examples: Iterable[Any] = (), advice: str = AGAIN) -> None:
        """A problem that occurs `count` times (0: none); one that is there already becomes larger."""
        if not count:
            return
        entry = next((p for p in self.problems if (p.where, p.what) == (where, what)), None)
        if entry is None:
            entry = Problem(where, what, advice, 0)
            self.problems.append(entry)
        entry.count += int(count)
        entry.examples += [str(e) for e in list(examples)[: EXAMPLES - len(entry.examples)]]

    @contextlib.contextmanager
    def reading(self, where: str) -> Iterator[None]:
        """Damaged bytes make readers raise nearly everything, a panic of compiled code included: each is a problem."""
        try:
            yield
        except UserError as error:
            self.add(where, str(error), 1)
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self.add(where, f"cannot be read: {first_line(error)[:300]}", 1)

    def as_dict(self) -> dict[str, Any]:
        shown = {name: value for name, value in vars(self).items() if name not in ("problems", "digests")}
        return {"sound": self.sound, **shown, "problems": [asdict(problem) for problem in self.problems]}
