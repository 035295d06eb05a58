"""Versions that are published while the server runs: loaded, tried, and put in the place of the one that answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import numpy as np

from rawrec.errors import UserError
from rawrec.reading import first_line
from rawrec.server.held import Version
from rawrec.server.holding import Serving
from rawrec.serving.published import Published
from rawrec.serving.recommender import Recommender
from rawrec.shown import say
from rawrec.stream import versions

TRIED = 4
"""Users of whom lists are asked before a version answers anybody."""


def loaded(out: Path, name: str | None = None) -> Version:
    """A version of a folder, the one that is served unless it is named, tried. Raises UserError where it is damaged,
    or answers nothing that can be used."""
    rec = Published.of(out, name)
    try_out(rec)
    return Version.of(rec)


def try_out(rec: Recommender) -> None:
    """UserError where lists of some users are not what lists are: finite scores, best first."""
    users = [str(user) for user in rec.people.user_ids[:TRIED]]
    for user in users:
        found = rec.recommend(user, k=10)
        scores = np.array([one.score for one in found])
        if not found or not np.isfinite(scores).all() or (np.diff(scores) > 0).any():
            raise UserError(f"the list of user {user[:40]!r} is none that can be served")


class Watcher:
    """Looks every `every` seconds which version is to be served, and exchanges it. load: makes a version by its name.

    A version that cannot be served is told of once, and the one before goes on.
    """

    def __init__(
        self, out: Path, serving: Serving, every: float, load: Callable[[Path, str], Version] = loaded
    ) -> None:
        self.out, self.serving, self.every, self.load = out, serving, every, load
        self._end, self._failed, self._said = Event(), "", ""
        self._thread = Thread(target=self._run, name="rawrec-versions", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._end.wait(self.every):
            self.look()

    def look(self) -> bool:
        """Whether another version was put in the place of the one that answers."""
        try:
            wanted = versions.listed(self.out).current
            if wanted is None or wanted in (self.serving.now().name, self._failed):
                return False
            version = self.load(self.out, wanted)
        except Exception as error:  # of a stranger's or a damaged folder, whatever it is: the server goes on
            return self._tell(error)
        self._failed = ""
        self.serving.writing.submit(self.serving.take, version).result()
        say(f"serving {version.name} now", error=True)
        return True

    def _tell(self, error: Exception) -> bool:
        try:
            self._failed = versions.listed(self.out).current or ""
        except Exception:
            self._failed = ""
        text = f"rawrec: {self.serving.now().name} goes on answering: {first_line(error)}"
        if text != self._said:
            say(text, error=True)
            self._said = text
        self.serving.told.refused.inc()
        return False
