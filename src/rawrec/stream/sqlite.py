"""The log that needs nothing but a file: SQLite with a write-ahead log, every append synced to the disk.

Processes may read and append at once: writers take turns, and since positions are given inside a writer's turn, no
reader passes one that comes to be filled later. The file must be on a disk of this machine, as WAL needs shared memory.

SQLite keeps no check sums of its pages. So every entry has one, positions have no gaps, the last one is written down,
and SQLite's own check of a file's structure runs when it is opened: damage is an error that names the file, and no
event is read as another, left out or taken twice.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rawrec import faults
from rawrec.errors import UserError
from rawrec.reading import check_plain
from rawrec.stream.log import Appended, Entry, Letter, Log, Record, trimmed

FORMAT = 2
CHECKED = 1 << 26
"""Bytes up to which a file's structure is checked when it is opened, in some tenths of a second."""
BUSY = 60.0
"""Seconds that a writer waits for its turn."""
SHOWN = 500
"""Characters that are kept of a reason."""
SCHEMA = """
create table about (name text primary key, value integer not null) without rowid;
create table events (
    position integer primary key autoincrement, producer text not null, sequence integer not null, data blob not null,
    sum integer, unique (producer, sequence)
);
create table trimmed (producer text primary key, sequence integer not null, sum integer) without rowid;
create table dead (position integer primary key, reason text not null);
"""
INSERT = (
    "insert into events (position, producer, sequence, data, sum) values (?, ?, ?, ?, ?) "
    "on conflict (producer, sequence) do nothing"
)


class SqliteLog(Log):
    """`sqlite:PATH`. An id is known for good: of what was trimmed, the highest number of each producer is kept, and
    what comes with it or a lower one is a duplicate."""

    def __init__(self, url: str, create: bool = True) -> None:
        self.url, self.path = url, Path(url.removeprefix("sqlite:"))
        there = os.path.lexists(self.path)
        if there:
            check_plain(self.path)
        elif not create:
            raise UserError(f"{self.path} is not there: there is no log at {url}")
        elif not self.path.absolute().parent.is_dir():
            raise UserError(f"{url}: the folder {self.path.absolute().parent} is not there; make it")
        with self._errors():
            self._db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
            self._begin()

    def _begin(self) -> None:
        db = self._db
        if not db.execute("select count(*) from sqlite_master").fetchone()[0]:
            db.execute("pragma auto_vacuum=incremental")
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        with self._turn():  # of two processes that make it, the second finds it made
            if not db.execute("select 1 from sqlite_master where name = 'about'").fetchone():
                for statement in SCHEMA.split(";")[:-1]:
                    db.execute(statement)
                values = (("format", FORMAT), ("trimmed", 0), ("duplicates", 0), ("last", 0), ("gaps", 0))
                db.executemany("insert into about values (?, ?)", values)
            if self._about("format") == 1:  # without sums, and with gaps where duplicates were refused
                for table in ("events", "trimmed"):
                    db.execute(f"alter table {table} add column sum integer")
                last = db.execute("select max(position) from events").fetchone()[0] or self._about("trimmed")
                db.executemany("insert into about values (?, ?)", (("last", last), ("gaps", last)))
                db.execute("update about set value = ? where name = 'format'", (FORMAT,))
        if (found := self._about("format")) != FORMAT:
            raise UserError(
                f"{self.path} is a log of format {found}, and this version of rawrec reads {FORMAT}: update rawrec"
            )
        if self.path.stat().st_size <= CHECKED:
            said = db.execute("pragma integrity_check(1)").fetchone()[0]
            if said != "ok":
                raise self._damaged(said)

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self.path} is damaged, or no log of rawrec: {what[:SHOWN]}; bring it back from a copy")

    def append_raw(self, entries: Sequence[Entry]) -> Appended:
        taken, position = 0, 0
        with self._errors(), faults.around("append", self.path), self._turn():
            last, before = self._last(), self._trimmed_ids()
            for entry in entries:
                if entry.sequence <= before.get(entry.producer, -1):
                    position = 0
                    continue
                row = (last + 1, *entry, _sum(last + 1, *entry))
                new = self._db.execute(INSERT, row).rowcount
                taken, last = taken + new, last + new
                position = last if new else self._position_of(entry)
            self._db.execute("update about set value = ? where name = 'last'", (last,))
            duplicates = len(entries) - taken
            if duplicates:
                self._db.execute("update about set value = value + ? where name = 'duplicates'", (duplicates,))
        return Appended(position, taken, duplicates)

    def _last(self) -> int:
        """The position of the last entry. UserError where it is not that which was written down."""
        last = self._db.execute("select max(position) from events").fetchone()[0]
        found = self._about("trimmed") if last is None else last
        if found != self._about("last"):
            raise self._damaged(f"it ends at position {found:,}, and was written up to {self._about('last'):,}")
        return found

    def _trimmed_ids(self) -> dict[str, int]:
        """Of every producer of what was trimmed the highest number."""
        rows = self._db.execute("select producer, sequence, sum from trimmed").fetchall()
        for producer, sequence, kept in rows:
            if kept is not None and kept != _sum(0, producer, sequence, b""):
                raise self._damaged("what was trimmed is not as it was written")
        return {producer: sequence for producer, sequence, _ in rows}

    def _position_of(self, entry: Entry) -> int:
        wanted = "select position from events where producer = ? and sequence = ?"
        return self._db.execute(wanted, entry[:2]).fetchone()[0]

    def read(self, after: int, count: int = 1000) -> list[Record]:
        wanted = "select * from events where position > ? order by position limit ?"
        with self._errors(), self._moment():
            first, gaps, last = self._about("trimmed"), self._about("gaps"), self._last()
            rows = self._db.execute(wanted, (after, count)).fetchall()
        if after < first:
            raise trimmed(self.url, after, first)
        if after > last:
            raise UserError(
                f"{self.path} ends at position {last:,}, and is to be read from {after:,} on: it is another log, or "
                "has lost what came last; bring it back from a copy"
            )
        expected = after
        for position, *entry, kept in rows:
            expected = max(expected, gaps) + 1 if position > gaps else position
            if position != expected or (position > gaps and kept != _sum(position, *entry)):
                raise self._damaged(f"the entry at position {expected:,} is not as it was written")
        if len(rows) < count and expected != last:
            raise self._damaged(f"the entry at position {expected + 1:,} is not there")
        return [Record(*row[:4]) for row in rows]

    def trim(self, position: int) -> None:
        position = min(position, self.end())
        with self._errors(), self._turn():
            ids = self._trimmed_ids()
            wanted = "select producer, max(sequence) from events where position <= ? group by producer"
            for producer, sequence in self._db.execute(wanted, (position,)).fetchall():
                highest = max(sequence, ids.get(producer, -1))
                row = (producer, highest, _sum(0, producer, highest, b""))
                self._db.execute("insert or replace into trimmed values (?, ?, ?)", row)
            self._db.execute("delete from events where position <= ?", (position,))
            self._db.execute("update about set value = max(value, ?) where name = 'trimmed'", (position,))
        with self._errors():
            self._db.executescript("pragma incremental_vacuum")  # `execute` would free one page

    def end(self) -> int:
        with self._errors(), self._moment():
            return self._last()

    @property
    def duplicates(self) -> int:
        """Entries that were refused since the log was made."""
        with self._errors():
            return self._about("duplicates")

    def bury(self, letter: Letter) -> None:
        with self._errors(), self._turn():
            self._db.execute("insert or ignore into dead values (?, ?)", (letter.position, letter.reason[:SHOWN]))

    def dead(self) -> list[Letter]:
        with self._errors():
            return [Letter(*row) for row in self._db.execute("select position, reason from dead order by position")]

    def close(self) -> None:
        self._db.close()

    def _about(self, name: str) -> int:
        found = self._db.execute("select value from about where name = ?", (name,)).fetchone()
        if found is None or not isinstance(found[0], int):
            raise self._damaged(f"it does not say its {name}")
        return found[0]

    @contextmanager
    def _moment(self) -> Iterator[None]:
        """What is read inside is as of one moment, whoever writes."""
        self._db.execute("begin")
        try:
            yield
        finally:
            if self._db.in_transaction:
                self._db.execute("rollback")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A transaction in which nobody else writes: all of it, or nothing."""
        self._db.execute("begin immediate")
        try:
            yield
            self._db.execute("commit")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What SQLite says, as who uses the log is told it."""
        try:
            yield
        except (UnicodeDecodeError, OverflowError) as error:  # of texts and numbers that nobody wrote
            raise self._damaged(str(error)) from None
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", None) or ""
            if name.startswith("SQLITE_FULL"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from error
            if name.startswith("SQLITE_IOERR"):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.path)) from error
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise UserError(f"{self.path} is held by another process for more than {BUSY:.0f} s") from None
            if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
                raise UserError(f"{self.path} cannot be opened for writing: {error}") from None
            raise self._damaged(str(error)) from None


def _sum(position: int, producer: object, sequence: object, data: object) -> int:
    """The check sum of an entry at its place; what is damaged may be of any type."""
    data = data if isinstance(data, bytes) else repr(data).encode()
    return zlib.crc32(data, zlib.crc32(f"{position} {sequence} {producer}".encode("utf-8", "surrogatepass")))
