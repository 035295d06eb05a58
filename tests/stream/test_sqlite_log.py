"""The log in a file of SQLite: what only it can say, beside what every log does."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from log_mixin import LogTests, acted, numbers

from rawrec.errors import UserError
from rawrec.stream.events import write_event
from rawrec.stream.log import Entry, open_log
from rawrec.stream.sqlite import SqliteLog

WRITER = """
import sys
from rawrec.stream.events import Acted
from rawrec.stream.log import open_log
with open_log(sys.argv[1]) as log:
    for n in range(10**6):
        log.append([Acted(producer="p", sequence=n, time=0, request="r", item="i")])
        print(n, flush=True)
"""


class TestSqlite(LogTests):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path / 'events.db'}"

    def test_what_was_acknowledged_outlives_a_kill(self, url: str) -> None:
        with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            told = [int(writer.stdout.readline()) for _ in range(15)][-1]
            writer.send_signal(signal.SIGKILL)
            told = max([told, *map(int, writer.stdout.read().split())])
        with open_log(url) as log:
            found = numbers(log, count=10**6)
            assert found[: told + 1] == list(range(told + 1)) and len(found) <= told + 2
            assert log.append([acted(told, "p")]).duplicates == 1

    def test_it_is_synced_and_writes_ahead(self, url: str) -> None:
        with SqliteLog(url) as log:
            assert log._db.execute("pragma journal_mode").fetchone() == ("wal",)
            assert log._db.execute("pragma synchronous").fetchone() == (2,)  # full

    def test_duplicates_are_counted(self, url: str) -> None:
        with SqliteLog(url) as log:
            log.append([acted(0), acted(0)])
            log.append([acted(0)])
            assert log.duplicates == 2

    def test_an_append_is_whole_or_not_at_all(self, url: str) -> None:
        with SqliteLog(url) as log:
            log.append([acted(0)])
            bad = [Entry("shop", 1, b""), Entry("shop", 2, object())]  # type: ignore[arg-type]
            with pytest.raises(UserError):
                log.append_raw(bad)
            assert numbers(log) == [0]
            log.append([acted(1)])
            assert numbers(log) == [0, 1]

    def test_trimming_gives_space_back(self, url: str, tmp_path: Path) -> None:
        with SqliteLog(url) as log:
            for n in range(8):
                log.append([acted(n).model_copy(update={"action": "x" * 100_000})])
            log._db.execute("pragma wal_checkpoint(truncate)").fetchall()
            before = (tmp_path / "events.db").stat().st_size
            log.trim(log.end())
            log._db.execute("pragma wal_checkpoint(truncate)").fetchall()
            assert (tmp_path / "events.db").stat().st_size < before / 4


def test_addresses_without_a_log(tmp_path: Path) -> None:
    for url in ("", "events.db", "http://here/x", "sqlite:", "pickle:/x"):
        with pytest.raises(UserError, match="address of a log"):
            open_log(url)
    with pytest.raises(UserError, match="make it"):
        open_log(f"sqlite:{tmp_path}/nowhere/events.db")
    with pytest.raises(UserError, match="is not there"):
        open_log(f"sqlite:{tmp_path}/events.db", create=False)
    assert not any(tmp_path.iterdir())


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(UserError, match="damaged, or no log"):
        open_log(f"sqlite:{path}")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(UserError, match="a link"):
        open_log(f"sqlite:{path}")
    assert not (tmp_path / "elsewhere.db").exists()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="no plain file"):
        open_log(f"sqlite:{path}")


def test_a_log_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    SqliteLog(f"sqlite:{path}").close()
    with sqlite3.connect(path) as db:
        db.execute("update about set value = 99 where name = 'format'")
    db.close()
    with pytest.raises(UserError, match="format 99"):
        open_log(f"sqlite:{path}")


def as_written(url: str) -> bool:
    """Whether a log is read as `damaged` left it, and takes what it should; an error that names it is as good."""
    try:
        with SqliteLog(url) as log:
            assert [Entry(*record[1:]) for record in log.read(2)] == ENTRIES[2:] and log.end() == len(ENTRIES)
            assert log.append_raw([ENTRIES[0], ENTRIES[5], Entry("shop", 99, b"new")])[1:] == (1, 2)
            assert log.read(len(ENTRIES))[0].data == b"new"
    except (UserError, OSError) as error:
        assert "events.db" in str(error)
        return False
    return True


ENTRIES = [Entry("shop" if n % 3 else "other", n, write_event(acted(n))) for n in range(12)]


def test_bytes_that_changed_are_told_or_mean_nothing(tmp_path: Path) -> None:
    """Every region of the file, closed: its head, tables, index, entries."""
    path = tmp_path / "events.db"
    with SqliteLog(f"sqlite:{path}") as log:
        log.append_raw(ENTRIES)
        log.trim(2)
    content, whole = path.read_bytes(), 0
    used = [at for at in range(0, len(content), 11) if any(content[max(at - 24, 0) : at + 24])]
    for at in used:
        for extra in ("-wal", "-shm"):
            path.with_name(path.name + extra).unlink(missing_ok=True)
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        whole += as_written(f"sqlite:{path}")
    assert len(used) > 200 and 0 < whole < len(used) / 2


def test_a_write_ahead_log_that_lost_its_end_is_told_to_who_had_read_it(tmp_path: Path) -> None:
    with SqliteLog(f"sqlite:{tmp_path / 'whole.db'}") as log:
        for entry in ENTRIES:
            log.append_raw([entry])
        ahead = (tmp_path / "whole.db-wal").read_bytes()
        for at in range(0, len(ahead), len(ahead) // 20):
            path = tmp_path / f"{at}" / "events.db"
            path.parent.mkdir()
            path.write_bytes((tmp_path / "whole.db").read_bytes())
            path.with_name("events.db-wal").write_bytes(ahead[:at] + bytes([ahead[at] ^ 8]) + ahead[at + 1 :])
            try:
                with SqliteLog(f"sqlite:{path}") as other:
                    found = [Entry(*record[1:]) for record in other.read(0)]
                    assert found == ENTRIES[: len(found)]
                    if len(found) < len(ENTRIES):
                        with pytest.raises(UserError, match="has lost what came last"):
                            other.read(len(ENTRIES))
            except UserError as error:
                assert "events.db" in str(error)


def test_a_log_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'events.db'}"
    with sqlite3.connect(tmp_path / "events.db") as db:
        db.executescript(EARLIER)
        db.executemany("insert into events values (?, ?, ?, ?)", [(1, *ENTRIES[0]), (4, *ENTRIES[1])])
    db.close()
    for _ in range(2):
        with SqliteLog(url) as log:
            log.append_raw(ENTRIES[:3])
            assert [record.position for record in log.read(0)] == [1, 4, 5]
            assert [record.position for record in log.read(2)] == [4, 5] and log.end() == 5
            assert [Entry(*record[1:]) for record in log.read(0)] == ENTRIES[:3]


EARLIER = """
create table about (name text primary key, value integer not null) without rowid;
create table events (
    position integer primary key autoincrement, producer text not null, sequence integer not null, data blob not null,
    unique (producer, sequence)
);
create table trimmed (producer text primary key, sequence integer not null) without rowid;
create table dead (position integer primary key, reason text not null);
insert into about values ('format', 1), ('trimmed', 0), ('duplicates', 7);
"""


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    with SqliteLog(f"sqlite:{tmp_path / 'events.db'}") as log:
        log.append([acted(0)])
        pages = log._db.execute("pragma page_count").fetchone()[0]
        log._db.execute(f"pragma max_page_count={pages}")
        with pytest.raises(OSError, match=r"events\.db"):
            log.append([acted(n).model_copy(update={"action": "x" * 90_000}) for n in range(1, 9)])
        log._db.execute("pragma max_page_count=100000")
        assert log.append([acted(1)]).taken == 1
        assert numbers(log) == [0, 1]
