"""A folder of downloaded pictures, one file per address: what is there is read, what is missing is fetched."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from threading import Lock
from typing import IO, Any

from rawrec.data.checked import Checked
from rawrec.data.disk import writing
from rawrec.data.import_report import ImportReport
from rawrec.files import appending, clean, create, replacing
from rawrec.folders import own_folder
from rawrec.sources.download.addresses import is_public
from rawrec.sources.download.fetcher import Fetcher
from rawrec.sources.download.safe_http import REFUSED, Failure, Limits
from rawrec.sources.media.pictures import WORKERS, Pictures, Skip, ahead, bounded, check, chunks

FAILED = "failed.jsonl"


class Downloads:
    """The pictures of a folder, each in a file named by the SHA-256 of its address, written whole or not at all.

    What is in the folder is not fetched again; nor is what its `failed.jsonl` lists (one line per failure: `url`,
    `item`, `reason`, `permanent`, `when`), unless `retry_failed`, which begins that list anew; an IP address that was
    refused is judged again where other addresses are allowed than those of the internet. A picture that is
    damaged in the folder is fetched again. Nothing is made on disk before the first address comes.

    Memory: a MiB for each connection, a digest for each failure, and what `fetch` gives.
    """

    def __init__(
        self, folder: Path, report: ImportReport, limits: Limits | None = None, *, retry_failed: bool = False
    ) -> None:
        self.folder, self.report = folder, report
        self._limits, self._retry_failed = limits or Limits(), retry_failed
        self._pool = ThreadPoolExecutor(WORKERS)
        self._fetcher: Fetcher | None = None
        self._reasons: dict[bytes, str] = {}
        self._items: dict[str, str] = {}
        self._failed: IO[str] | None = None
        self._lock = Lock()
        self._counts = {"downloaded": 0, "bytes": 0, "there": 0, "failed": 0}

    def close(self) -> None:
        if self._fetcher is not None:
            self._fetcher.close()
        if self._failed is not None:
            self._failed.close()
        self._pool.shutdown()

    def fetch(
        self, rows: Sequence[Sequence[str]], items: Sequence[str], checked: Checked
    ) -> Iterator[tuple[slice, Pictures]]:
        """Consecutive parts of the rows with the pictures of each row, in the order of its addresses; a part holds some
        MiB. An address without a picture is left out and counted; `items` says whose it was.

        Raises UserError where the folder cannot be written.
        """
        self._items = {}
        for urls, item in zip(rows, items, strict=True):
            for url in urls:
                self._items.setdefault(url, item)
        if self._items:
            self._complete(checked)
        yield from bounded(self._read(rows, items))

    def note(self) -> None:
        """Tell the report where the pictures are, and what to do about those that could not be had."""
        counts = self._counts
        if counts["downloaded"] or counts["there"]:
            self.report.note(
                f"pictures by address: {counts['downloaded']:,} downloaded ({counts['bytes'] / 1e6:,.1f} MB), "
                f"{counts['there']:,} were there; all are kept in {self.folder}, which you may delete"
            )
        if counts["failed"]:
            self.report.note(
                f"pictures that could not be had: {counts['failed']:,}; their addresses are in {self.folder / FAILED}. "
                "To ask for them again, run the same command with --overwrite --retry-failed"
            )

    def _complete(self, checked: Checked) -> None:
        """Fetch what is neither in the folder nor known to fail."""
        if self._fetcher is None:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._failed = self._open_list()
            self._fetcher = Fetcher(partial(self._store, checked), self._fail, self.folder, self._limits)
        there = list(self._pool.map(partial(self._is_whole, checked), self._items))
        self._counts["there"] += sum(there)
        missing = [url for url, whole in zip(self._items, there, strict=True) if not whole]
        if wanted := [url for url in missing if _digest(url) not in self._reasons]:
            self._fetcher.fetch(wanted)

    # ------------------------------------------------------------------------------------------------------ the folder
    def _path(self, url: str) -> Path:
        name = _digest(url).hex()
        return self.folder / name[:2] / name[2:4] / name

    def _read(self, rows: Sequence[Sequence[str]], items: Sequence[str]) -> Iterator[Pictures]:
        """Chunk by chunk of the rows, the pictures of each."""

        def stored(few: slice) -> list[list[bytes | None]]:
            return [[self._stored(url) for url in urls] for urls in rows[few]]

        for few, found in zip(chunks(len(rows)), ahead(self._pool, stored, chunks(len(rows))), strict=True):
            for urls, pictures, item in zip(rows[few], found, items[few], strict=True):
                lost = [url for url, data in zip(urls, pictures, strict=True) if data is None]
                for url in lost:
                    self.report.skip(self._reasons.get(_digest(url), "image: its file has gone"), f"{item} {url}")
                self._counts["failed"] += len(lost)
                self.report.add_read("images", len(urls))
                self.report.add_kept("images", len(urls) - len(lost))
            yield [[data for data in pictures if data is not None] for pictures in found]

    def _stored(self, url: str) -> bytes | None:
        try:
            return self._path(url).read_bytes()
        except FileNotFoundError:
            return None

    def _is_whole(self, checked: Checked, url: str) -> bool:
        """Whether the picture is in the folder. A damaged one, as a crash of the machine can leave, is removed."""
        data = self._stored(url)
        if data is None:
            return False
        try:
            check(data, checked)
        except Skip:
            with writing(self.folder):
                self._path(url).unlink()
            return False
        return True

    def _store(self, checked: Checked, url: str, body: IO[bytes]) -> None:
        data = body.read()
        check(data, checked)
        path = self._path(url)
        with writing(self.folder):
            for folder in (path.parent.parent, path.parent):
                own_folder(folder)
            clean(path.parent)
            with replacing(path, durable=False) as half, create(half) as file:  # damage is found when it is read
                file.write(data)
        with self._lock:
            self._counts["downloaded"] += 1
            self._counts["bytes"] += len(data)

    # ---------------------------------------------------------------------------------------------------- the failures
    def _open_list(self) -> IO[str]:
        path = self.folder / FAILED
        if self._retry_failed or not path.exists():
            path.unlink(missing_ok=True)
            return TextIOWrapper(appending(path), encoding="utf-8", line_buffering=True)
        with path.open(encoding="utf-8", errors="replace") as file:
            line = ""
            for line in file:
                entry = _entry(line)
                if entry is not None and (entry["reason"] != REFUSED or self._limits.allowed is is_public):
                    self._reasons[_digest(entry["url"])] = sys.intern(f"image: {entry['reason']}")
        file = TextIOWrapper(appending(path), encoding="utf-8", line_buffering=True)
        if line and not line.endswith("\n"):  # an import was killed here
            file.write("\n")
        return file

    def _fail(self, url: str, skip: Skip) -> None:
        assert self._failed is not None
        self._reasons[_digest(url)] = sys.intern(skip.reason)
        entry = {
            "url": url,
            "item": self._items[url],
            "reason": skip.reason.removeprefix("image: "),
            "detail": skip.detail.strip(" ()"),
            "permanent": not isinstance(skip, Failure) or skip.permanent,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with writing(self.folder):
            self._failed.write(json.dumps(entry) + "\n")


def _digest(url: str) -> bytes:
    return hashlib.sha256(url.encode(errors="surrogatepass")).digest()


def _entry(line: str) -> dict[str, Any] | None:
    """A failure; None for what is no whole line of the list."""
    try:
        entry = json.loads(line)
        return entry if isinstance(entry["url"], str) and isinstance(entry["reason"], str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
