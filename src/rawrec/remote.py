"""Datasets and runs in object stores, at addresses that fsspec knows (`s3://`, `gs://`, `memory://`).

A store has no rename. What is published consists of objects that never change, and of a mark that comes last:

- `objects/DIGEST`: a file's bytes, by their SHA-256; equal files are one object;
- `states/DIGEST.json`: which file is which object, with its size, by the SHA-256 of this text;
- `marks/NUMBER.json`: the state of that number. The highest number counts. A mark is made only where none of its number
  stands, so that of two writers that began from the same state one is told that the other was first.

A reader takes the state of the last mark, whole, into a folder of this machine (`working_place`), and compares every
file with its digest on the way. What a killed writer left has no mark, and is not seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from rawrec.errors import UserError, in_a_line
from rawrec.extras import need
from rawrec.files import clean, create, is_partial, write_text
from rawrec.folders import placing

ADDRESS = re.compile(r"(s3|s3a|gs|gcs|abfs|abfss|az|adl|memory|webhdfs|hdfs|sftp):/{1,2}([^/].*)", re.DOTALL)
"""`Path` makes one of the two strokes."""
BLOCK = 1 << 22
KEPT = 2
"""States whose objects stay: the last one, and the one that readers may be at."""
LEFT_OUT = {"cache", "__pycache__"}
TIMES: dict[str, Any] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}}
}


class StoreFailed(UserError):
    """A store that cannot be reached, refuses, or has vanished midway: what it held by its last mark it holds."""


class Mark(NamedTuple):
    number: int
    state: str
    kind: str


NOTHING = Mark(0, "", "")


def address_of(place: object) -> str | None:
    """The address that a path or string is, written in full; None: it is a place of this machine."""
    match = ADDRESS.fullmatch(str(place))
    return None if match is None else f"{match[1]}://{match[2].rstrip('/')}"


def refuse(place: object, what: str) -> None:
    """UserError for an address where a place of this machine is wanted."""
    if (address := address_of(place)) is not None:
        raise UserError(f"{address}: {what} is written to a folder first: give one, then rawrec publish FOLDER ADDRESS")


def working_place(address: str) -> Path:
    """Where this machine keeps what it has of an address: in RAWREC_CACHE, or ~/.cache/rawrec. It may be removed."""
    root = os.environ.get("RAWREC_CACHE") or Path.home() / ".cache" / "rawrec"
    return Path(root).absolute() / "remote" / hashlib.sha256(address.encode()).hexdigest()[:24]


def origin(path: Path) -> str:
    """The address of a copy that `fetched` made; of any other folder its path in full."""
    for folder in (path.absolute(), *path.absolute().parents):
        if (folder / "address").is_file() and folder.parent.name == "remote":
            return (folder / "address").read_text(encoding="utf-8")
    return str(path.absolute())


def local(place: str | Path, kind: str) -> Path:
    """A folder of this machine with what stands at a place: itself, or a copy of what is published there.

    kind: `dataset` or `run`. UserError where an address holds nothing, something else, or what is not whole.
    """
    address = address_of(place)
    return Path(place) if address is None else Store(address).fetched(kind)


class Store:
    """An address of fsspec's. UserError where the package of its kind is not installed."""

    def __init__(self, address: str) -> None:
        self.address = address
        scheme = address.partition("://")[0]
        fsspec = need("fsspec", f"{address} is read by fsspec")
        if scheme in ("s3", "s3a"):
            need("s3fs", f"{address} is read by s3fs")
        with self._at():
            self.files, self.root = fsspec.core.url_to_fs(address, **TIMES.get(scheme, {}))

    @contextmanager
    def _at(self) -> Iterator[None]:
        """Whatever goes wrong in the store is told by its address; libraries have errors of all kinds."""
        try:
            yield
        except (UserError, FileExistsError):
            raise
        except ImportError as error:
            raise UserError(f"{self.address}: {in_a_line(error)}") from None
        except PermissionError as error:
            raise StoreFailed(
                f"{self.address}: the store gives no permission ({in_a_line(error)}): look at its credentials"
            ) from None
        except Exception as error:
            raise StoreFailed(f"{self.address}: the store failed: {in_a_line(error)}") from None

    # ---------------------------------------------------------------------------------------------------------- reading
    def mark(self) -> Mark:
        """The last mark; `NOTHING` where nothing stands. UserError where what stands there was never marked."""
        with self._at():
            self.files.invalidate_cache()
            marks = self._names("marks")
            if not marks:
                if self._names("objects") or self._names("states"):
                    raise UserError(
                        f"{self.address} was not published to its end: it has objects and no mark. Publish it again"
                    )
                return NOTHING
            last = max(marks)
            found = self._json(self.files.cat_file(f"{self.root}/marks/{last}"))
        if not isinstance(found, dict) or not {"state", "kind"} <= found.keys():
            raise UserError(f"{self.address}: its last mark, {last}, is none of rawrec's")
        return Mark(int(last.partition(".")[0]), str(found["state"]), str(found["kind"]))

    def _names(self, folder: str) -> list[str]:
        try:
            paths = self.files.ls(f"{self.root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        names = [str(path).rstrip("/").rpartition("/")[2] for path in paths]
        return [name for name in names if folder != "marks" or re.fullmatch(r"\d{8}\.json", name)]

    def _json(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError:
            raise UserError(f"{self.address} is damaged: a mark or a state is no JSON") from None

    def state(self, digest: str) -> dict[str, tuple[str, int]]:
        """File -> digest and size. UserError where it is not as it was written."""
        with self._at():
            text = self.files.cat_file(f"{self.root}/states/{digest}.json")
        if hashlib.sha256(text).hexdigest() != digest:
            raise UserError(f"{self.address} is damaged: the list of its files is not the one that was published")
        return {name: (digest, size) for name, (digest, size) in self._json(text).items()}

    def fetched(self, kind: str, mark: Mark | None = None) -> Path:
        """The folder of this machine with the last state, see `local`."""
        mark = mark or self.mark()
        if mark is NOTHING:
            raise UserError(f"{self.address} holds nothing that rawrec has published")
        if mark.kind != kind:
            raise UserError(f"{self.address} holds a {mark.kind}, and a {kind} is wanted")
        place = working_place(self.address)
        target = place / mark.state / self.address.rpartition("/")[2]
        if not target.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            write_text(place / "address", self.address)
            with placing(target) as folder:
                for name, (digest, size) in self.state(mark.state).items():
                    self._take(folder, name, digest, size)
        return target

    def _take(self, folder: Path, name: str, digest: str, size: int) -> None:
        path = folder / name
        if ".." in Path(name).parts or not path.is_relative_to(folder):
            raise UserError(f"{self.address} is damaged: it names the file {name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        found = hashlib.sha256()
        with self._at(), self.files.open(f"{self.root}/objects/{digest}", "rb") as given, create(path) as file:
            while part := given.read(BLOCK):
                found.update(part)
                file.write(part)
        if found.hexdigest() != digest or path.stat().st_size != size:
            raise UserError(f"{self.address} is damaged: {name} is not as it was published. Publish it again")

    # ---------------------------------------------------------------------------------------------------------- writing
    def publish(self, folder: Path, kind: str, after: Mark) -> Mark:
        """Publish a folder as the state that follows on `after`; the mark of it.

        Killed, or left by the store, nothing has changed for readers. UserError where another writer has published
        since `after`.
        """
        files = {name: _digest(folder / name) for name in _files(folder)}
        if not files:
            raise UserError(f"{folder} holds no files that could be published")
        self._overtaken(after)
        with self._at():
            there = set(self._names("objects"))
            for name, (digest, _) in files.items():
                if digest not in there:
                    self.files.put_file(str(folder / name), f"{self.root}/objects/{digest}")
                    there.add(digest)
            text = json.dumps(files, sort_keys=True).encode()
            state = hashlib.sha256(text).hexdigest()
            self.files.pipe_file(f"{self.root}/states/{state}.json", text)
            mark = Mark(after.number + 1, state, kind)
            about = {"state": state, "kind": kind, "host": platform.node()}
            try:
                self._create(f"{self.root}/marks/{mark.number:08}.json", json.dumps(about).encode())
            except FileExistsError:
                raise UserError(self._two()) from None
        with suppress(UserError):  # what cannot be removed stays
            self._tidy(mark)
        return mark

    def _overtaken(self, after: Mark) -> None:
        with suppress(StoreFailed):
            now = self._last()
            if now > after.number:
                raise UserError(self._two())

    def _last(self) -> int:
        with self._at():
            self.files.invalidate_cache()
            return max((int(name.partition(".")[0]) for name in self._names("marks")), default=0)

    def _two(self) -> str:
        return f"{self.address}: another writer has published there since this one began: one of both only may go on"

    def _create(self, path: str, data: bytes) -> None:
        """Write an object that is not there yet. FileExistsError where it is; stores that cannot say so in one step are
        asked before."""
        try:
            self.files.pipe_file(path, data, mode="create")
        except (TypeError, NotImplementedError, ValueError):
            if self.files.exists(path):
                raise FileExistsError(path) from None
            self.files.pipe_file(path, data)

    def _tidy(self, mark: Mark) -> None:
        """Remove objects that only states before the last `KEPT` had."""
        with self._at():
            states = []
            for number in range(mark.number, mark.number - KEPT - 1, -1):
                if number > 0:
                    found = self._json(self.files.cat_file(f"{self.root}/marks/{number:08}.json"))
                    states.append(found["state"])
            if len(states) <= KEPT or states[-1] in states[:KEPT]:
                return
            kept = {digest for state in states[:KEPT] for digest, _ in self.state(state).values()}
            old = {digest for digest, _ in self.state(states[-1]).values()}
            for digest in old - kept:
                self.files.rm_file(f"{self.root}/objects/{digest}")


def _files(folder: Path) -> list[str]:
    """The files of a dataset or run, by their names below it; no caches, no locks, nothing that is being written."""
    clean(folder)
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in LEFT_OUT and not f.startswith(".") and not is_partial(f))
        found += [Path(place) / name for name in names if not name.startswith(".") and not is_partial(name)]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _digest(path: Path) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while part := file.read(BLOCK):
            found.update(part)
            size += len(part)
    return found.hexdigest(), size
