"""Where static columns are kept: read wherever they are, written where that may be done, or made for this process."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rawrec.content.column_files import Stored, read
from rawrec.errors import UserError
from rawrec.files import partial_of
from rawrec.folders import own_folder


class Cache:
    """Folders of column files. A file is looked for in all `places`, in their order; the first that can be written
    takes new ones.

    elsewhere: where none can be written, columns are made in a folder of the system's for temporary files, which is
    gone when they are read (what is mapped into memory stays), and a warning says so; else that is an OSError.
    """

    def __init__(self, *places: Path, elsewhere: bool = True) -> None:
        self.places, self._elsewhere = places, elsewhere
        self.kept = True  # all that was made

    @classmethod
    def of(cls, given: Path | Cache) -> Cache:
        return given if isinstance(given, Cache) else cls(given, elsewhere=False)

    def read(self, name: str) -> Stored | None:
        """The column in the file `name`, of the first place that has it whole."""
        return next((found for place in self.places if (found := read(place / name)) is not None), None)

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A folder to write to. UserError where a link stands in its place."""
        refused: OSError | None = None
        for place in self.places:
            try:
                _try(place)
            except OSError as error:
                refused = refused or error
                continue
            yield place
            return
        assert refused is not None
        if not self._elsewhere:
            raise refused
        said = " and ".join(map(str, self.places))
        try:
            folder = tempfile.TemporaryDirectory(prefix="rawrec-")
        except OSError:
            raise UserError(
                f"what encoders make of the items can be written nowhere: not to {said}, and not to a temporary folder "
                "(TMPDIR names one)"
            ) from None
        self.kept = False
        with folder:
            warnings.warn(
                f"{said} cannot be written: what encoders make of the items is made for this process alone, and again "
                "for the next one",
                stacklevel=1,
            )
            yield Path(folder.name)


def _try(place: Path) -> None:
    """Make the folder, where there is none, and find out whether files can be written to it. OSError where not."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        own_folder(place)
        probe = partial_of(place / "probe")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(place)) from None
