"""The version that answers: a recommender, its name, how fresh it is. One reference, exchanged at once."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from rawrec.arguments import shown
from rawrec.browse.opening import name_of
from rawrec.errors import UserError
from rawrec.files import write_text
from rawrec.folders import own_folder
from rawrec.reading import read_json, typed
from rawrec.server import wire
from rawrec.serving.published import Published
from rawrec.serving.recommender import Recommender

HIDDEN, ADDED = "hidden.json", "added"


@dataclass(frozen=True)
class Version:
    """A recommender that answers. name: told with every answer. watermark: seconds since 1970 of the latest event it
    knows, None where the data have no times."""

    rec: Recommender
    name: str
    watermark: float | None
    loaded: float = field(default_factory=time.time)

    @classmethod
    def of(cls, rec: Recommender) -> Version:
        """Of a finished run, which knows what its data do, or of a published version of one."""
        times = rec.people.timestamps
        watermark = None if times is None or not len(times) else float(times.max())
        if isinstance(rec, Published) and rec.about.watermark is not None:
            watermark = rec.about.watermark
        return cls(rec, name_of(rec), watermark)

    def served(self) -> wire.Served:
        """What an answer says of the version that made it."""
        age = None if self.watermark is None else max(0.0, time.time() - self.watermark)
        return wire.Served(version=self.name, watermark=self.watermark, age=age)


class State:
    """What a server keeps in a folder, so that it is there again when it starts anew: the items that were hidden, and
    those that were added. folder: None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else own_folder(folder)

    @property
    def added(self) -> Path | None:
        """The folder of the items that were added, where there are any. Of versions there are none."""
        if self.folder is None or not (self.folder / ADDED).is_dir():
            return None
        return self.folder / ADDED

    def hide_again(self, rec: Recommender) -> list[str]:
        """Hide what was hidden; ids that the catalogue lacks, by now."""
        path = None if self.folder is None else self.folder / HIDDEN
        if path is None or not path.is_file():
            return []
        ids = typed(list[str], read_json(path, limit=1 << 28), path)
        known = [item for item in ids if item in rec]
        rec.hide(known)
        return [item for item in ids if item not in rec]

    def keep_hidden(self, rec: Recommender) -> None:
        if self.folder is not None:
            write_text(self.folder / HIDDEN, json.dumps(sorted(rec.hidden)))

    def keep_added(self, rec: Recommender) -> None:
        if self.folder is not None and not isinstance(rec, Published):
            rec.save(self.folder / ADDED)


def check_item(rec: Recommender, item: str) -> None:
    """UserError where the catalogue has no such item."""
    if item not in rec:
        raise UserError(f"there is no item {shown(item)}")
