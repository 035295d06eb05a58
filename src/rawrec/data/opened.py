"""What stands behind a dataset that is open: its folder, what `dataset.yaml` says, its items; and whether they are
still there."""

from __future__ import annotations

from pathlib import Path

import lance

from rawrec.data.meta import ITEMS, Fields, Meta, check_part
from rawrec.errors import UserError
from rawrec.forks import check_not_forked

CHECKED = 1 << 30
"""Bytes of items that are compared with their check sums whenever some of them are read: a quarter of a second."""


def folder_id(path: Path) -> tuple[int, int] | None:
    """What a folder is, whatever its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Opened:
    """A dataset folder that was opened, before anything of it is read."""

    def __init__(self, path: Path, meta: Meta, table: lance.LanceDataset, newest: int | None = None) -> None:
        self.path = path
        self.meta = meta
        self.newest = newest or meta.version
        self._table = table
        self._folder = folder_id(path)
        self._items_checked = False

    @property
    def fields(self) -> Fields:
        return self.meta.fields

    @property
    def n_users(self) -> int:
        return self.meta.counts["users"]

    @property
    def n_items(self) -> int:
        return self.meta.counts["items"]

    @property
    def n_interactions(self) -> int:
        return self.meta.counts["interactions"]

    @property
    def positive_only(self) -> bool:
        """True where the data hold no labels: every interaction counts as positive."""
        return not self.meta.labels

    @property
    def version(self) -> int:
        """1 as imported; every append adds 1."""
        return self.meta.version

    def check_here(self) -> None:
        """UserError where another dataset stands in the place of this one since it was opened. Everything that reads
        asks for it: what had been read of the one and what is read of the other would not belong together."""
        if folder_id(self.path) != self._folder:
            raise UserError(f"{self.path} was replaced, or removed, since it was opened: open it again")

    def check_items(self, all_of_them: bool = True) -> None:
        """UserError where a file of the items is not as it was written; where they have check sums, and once.

        That takes as long as reading them. all_of_them: False leaves out items of more than CHECKED bytes: who reads a
        few of them, or their ids, does not read them all for that.
        """
        if self._items_checked:
            return
        names = [name for name in self.meta.sums if name.startswith(ITEMS) and (self.path / name).is_file()]
        if all_of_them or sum((self.path / name).stat().st_size for name in names) <= CHECKED:
            for name in names:
                check_part(self.path, self.meta, name)
            self._items_checked = True

    def _check_reading(self) -> None:
        """Before items are read."""
        check_not_forked()
        self.check_here()
        self.check_items(all_of_them=False)

    def _name(self) -> str:
        """How messages about ids name this dataset."""
        if self.version == self.newest:
            return str(self.path)
        return f"version {self.version} of {self.path}, which is read here (the newest is {self.newest})"
