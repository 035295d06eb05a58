"""The log that needs nothing but a file: SQLite with a write-ahead log, every append synced to the disk.

Processes may read and append at once: writers take turns, and since positions are given inside a writer's turn, no
reader passes one that comes to be filled later. The file must be on a disk of this machine, as WAL needs shared memory.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rawrec import faults
from rawrec.errors import UserError
from rawrec.reading import check_plain
from rawrec.stream.log import Appended, Entry, Letter, Log, Record, trimmed

FORMAT = 1
BUSY = 60.0
"""Seconds that a writer waits for its turn."""
SHOWN = 500
"""Characters that are kept of a reason."""
SCHEMA = """
create table about (name text primary key, value integer not null) without rowid;
create table events (
    position integer primary key autoincrement, producer text not null, sequence integer not null, data blob not null,
    unique (producer, sequence)
);
create table trimmed (producer text primary key, sequence integer not null) without rowid;
create table dead (position integer primary key, reason text not null);
"""
INSERT = "insert or ignore into events (producer, sequence, data) values (?, ?, ?)"


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
                values = (("format", FORMAT), ("trimmed", 0), ("duplicates", 0))
                db.executemany("insert into about values (?, ?)", values)
        if (found := self._about("format")) != FORMAT:
            raise UserError(f"{self.path} is a log of format {found}, and this version of rawrec reads {FORMAT}")

    def append_raw(self, entries: Sequence[Entry]) -> Appended:
        taken, position = 0, 0
        with self._errors(), faults.around("append", self.path), self._turn():
            last = dict(self._db.execute("select producer, sequence from trimmed").fetchall())
            for entry in entries:
                if entry.sequence <= last.get(entry.producer, -1):
                    position = 0
                    continue
                cursor = self._db.execute(INSERT, entry)
                taken += cursor.rowcount
                position = (cursor.lastrowid or 0) if cursor.rowcount else self._position_of(entry)
            duplicates = len(entries) - taken
            if duplicates:
                self._db.execute("update about set value = value + ? where name = 'duplicates'", (duplicates,))
        return Appended(position, taken, duplicates)

    def _position_of(self, entry: Entry) -> int:
        wanted = "select position from events where producer = ? and sequence = ?"
        return self._db.execute(wanted, entry[:2]).fetchone()[0]

    def read(self, after: int, count: int = 1000) -> list[Record]:
        wanted = "select position, producer, sequence, data from events where position > ? order by position limit ?"
        with self._errors():
            self._db.execute("begin")  # what was trimmed and what is there, as of one moment
            try:
                first, rows = self._about("trimmed"), self._db.execute(wanted, (after, count)).fetchall()
            finally:
                self._db.execute("rollback")
        if after < first:
            raise trimmed(self.url, after, first)
        return [Record(*row) for row in rows]

    def trim(self, position: int) -> None:
        position = min(position, self.end())
        with self._errors(), self._turn():
            self._db.execute(
                "insert into trimmed select producer, max(sequence) from events where position <= ? group by producer "
                "on conflict (producer) do update set sequence = max(sequence, excluded.sequence)",
                (position,),
            )
            self._db.execute("delete from events where position <= ?", (position,))
            self._db.execute("update about set value = max(value, ?) where name = 'trimmed'", (position,))
        with self._errors():
            self._db.executescript("pragma incremental_vacuum")  # `execute` would free one page

    def end(self) -> int:
        with self._errors():  # not the number that comes next: it goes on with duplicates that are refused, too
            last = self._db.execute("select max(position) from events").fetchone()[0]
            return self._about("trimmed") if last is None else last

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
        return self._db.execute("select value from about where name = ?", (name,)).fetchone()[0]

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
            raise UserError(f"{self.path} is damaged, or no log of rawrec: {error}") from None
