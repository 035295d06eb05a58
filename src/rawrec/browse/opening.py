"""What a page is opened of: a run, or a version of a folder of them."""

from __future__ import annotations

from pathlib import Path

from rawrec.errors import UserError
from rawrec.serving.published import Published, holds_versions
from rawrec.serving.recommender import Recommender
from rawrec.stream import versions


def opened(path: Path, data: Path | None = None, newest: bool = False) -> Recommender:
    """A run, or the version that a folder serves, or that one whose folder `DIR/versions/NAME` is. Raises UserError
    where there is none, or it cannot be read."""
    one = path.parent.name == versions.FOLDER and holds_versions(path.parent.parent)
    if one or holds_versions(path):
        if data is not None or newest:
            raise UserError(f"{path} knows its run and dataset: leave out --data, --newest")
        return Published.of(path.parent.parent, path.name) if one else Published.of(path)
    return Recommender.load(path, data, newest=newest)


def name_of(rec: Recommender) -> str:
    """The name of a version, or of a run's folder with the first digits of its weights' digest."""
    if isinstance(rec, Published):
        return rec.about.name
    return f"{rec.run.path.resolve().name}-{rec.fingerprint()[:8]}"
