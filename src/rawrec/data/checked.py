"""Which pictures an import has found whole, on disk, so that the next import into the same place need not decode them.

Pictures are known by the digest of their bytes: one that has changed since is a picture that nobody has checked.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import os
from pathlib import Path
from threading import Lock

import numpy as np
import PIL

from rawrec import cores
from rawrec.data import images
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.files import appending

VERSION = 1
"""Of `images.check`: with another number, records made before count for nothing."""
WIDTH = 16
"""Bytes of a digest."""
WORKERS = min(8, cores.usable())
"""Threads that check pictures."""
BLOCK = 1024
"""Digests that are written at a time; an import of fewer pictures leaves no file."""


class Checked:
    """The record of the place `out` (resolved), in the file `.<name>.checked` beside it; by whoever has its lock.

    The file is a row of digests: that of what the check depends on, then those of whole pictures. What is torn, or of
    another kind of check, counts for nothing; where it cannot be written, there is none. `check` may be called in many
    threads.

    Memory: 16 bytes for each picture that is known from before.
    """

    def __init__(self, out: Path) -> None:
        self._path = out.with_name(f".{out.name}.checked")
        self._head = _digest(repr((VERSION, PIL.__version__, images.MAX_PIXELS, images.FORMATS)).encode())
        self._known = self._load()
        self._new = bytearray()
        self._spared = 0
        self._lock = Lock()

    def check(self, data: bytes) -> str | None:
        """None if `data` is a picture that decodes to its end, else a short reason why not; see `images.check`."""
        digest = _digest(data)
        if self._has(digest):
            with self._lock:
                self._spared += 1
            return None
        reason = images.check(data)
        if reason is None:
            with self._lock:
                self._new += digest
                if len(self._new) >= BLOCK * WIDTH:
                    self._write()
        return reason

    def account(self, report: ImportReport) -> None:
        """Tell the report how many pictures were known."""
        if self._spared:
            report.note(
                f"{self._spared:,} pictures were not decoded: an import into this place that did not come to its end "
                "had found them whole"
            )

    def close(self) -> None:
        """Keep the record for the next import."""
        with self._lock:
            if self._path.exists():
                self._write()

    def remove(self) -> None:
        """Remove the record: the import is at its end."""
        with self._lock, contextlib.suppress(OSError):
            self._new.clear()
            self._path.unlink()

    def _load(self) -> memoryview:
        """The digests of the file, sorted, one after the other."""
        try:
            if self._path.is_symlink():
                self._path.unlink()
            found = np.fromfile(self._path, f"S{WIDTH}")
            if found[:1].tobytes() != self._head:
                self._path.unlink()
                found = found[:0]
            else:
                os.truncate(self._path, found.nbytes)  # else what follows a torn one would be out of step
        except OSError:
            found = np.zeros(0, f"S{WIDTH}")
        known = found[1:]
        known.sort()
        return known.view(np.uint8).data

    def _has(self, digest: bytes) -> bool:
        count = len(self._known) // WIDTH
        at = bisect.bisect_left(range(count), digest, key=self._digest_at)
        return at < count and self._digest_at(at) == digest

    def _digest_at(self, number: int) -> bytes:
        return bytes(self._known[number * WIDTH : (number + 1) * WIDTH])

    def _write(self) -> None:
        """Add the digests held to the file. A record that cannot be written costs time later, and nothing else."""
        with contextlib.suppress(OSError, UserError), appending(self._path) as file:
            file.write(bytes(self._new) if file.tell() else self._head + self._new)
        self._new.clear()


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=WIDTH).digest()
