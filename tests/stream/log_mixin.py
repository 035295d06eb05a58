"""What every log must do, whatever keeps it: one suite, which each adapter's tests inherit."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import pytest

from rawrec.errors import UserError
from rawrec.stream.events import Acted, read_event
from rawrec.stream.log import Entry, Letter, Log, open_log

FORK: Any = multiprocessing.get_context("spawn")


def acted(number: int, producer: str = "shop") -> Acted:
    return Acted(producer=producer, sequence=number, time=float(number), request=f"r{number}", item=f"i{number}")


def numbers(log: Log, after: int = 0, count: int = 1000) -> list[int]:
    return [record.sequence for record in log.read(after, count)]


def append_some(url: str, producer: str, count: int) -> None:
    """What a process of its own does, an event at a time."""
    with open_log(url) as log:
        for number in range(count):
            log.append([acted(number, producer)])


class LogTests:
    """`url` is a fixture: the address of a log that is empty. trims: whether the server of the tests can."""

    trims = True

    @pytest.fixture
    def log(self, url: str) -> Any:
        with open_log(url) as log:
            yield log

    def test_events_are_read_in_the_order_of_their_append(self, log: Log) -> None:
        assert log.read(0) == [] and log.end() == 0
        first = log.append([acted(0), acted(1)])
        second = log.append([acted(2)])
        assert (first.taken, second.taken, first.duplicates) == (2, 1, 0)
        records = log.read(0)
        assert [read_event(record.data).event for record in records] == [acted(0), acted(1), acted(2)]
        positions = [record.position for record in records]
        assert positions == sorted(set(positions)) and positions[0] > 0
        assert second.position == positions[-1] == log.end()

    def test_reading_goes_on_behind_a_position(self, log: Log) -> None:
        log.append([acted(n) for n in range(7)])
        seen, at = [], 0
        while records := log.read(at, 3):
            assert len(records) <= 3
            seen += [record.sequence for record in records]
            at = records[-1].position
        assert seen == list(range(7))
        assert log.read(at) == []

    def test_an_id_is_taken_once(self, log: Log) -> None:
        log.append([acted(0), acted(1)])
        again = log.append([acted(1), acted(2), acted(2)])
        log.append([acted(1, "another")])
        if log.keeps_ids:
            assert again.taken == 1 and again.duplicates == 2
            assert [(r.producer, r.sequence) for r in log.read(0)] == [
                ("shop", 0), ("shop", 1), ("shop", 2), ("another", 1),
            ]  # fmt: skip
        else:
            assert {(r.producer, r.sequence) for r in log.read(0)} == {
                ("shop", 0), ("shop", 1), ("shop", 2), ("another", 1),
            }  # fmt: skip

    def test_the_end_is_where_the_last_entry_stands(self, log: Log) -> None:
        log.append([acted(0), acted(1)])
        if log.keeps_ids:  # what is refused has no place
            log.append([acted(0), acted(1)])
            log.append([acted(1)])
        assert log.end() == log.read(0)[-1].position
        if self.trims:
            end = log.end()
            log.trim(end)
            assert log.end() == end and log.append([acted(2)]).position > end

    def test_bytes_are_kept_as_they_are(self, log: Log) -> None:
        entries = [Entry("p", 0, b"\x00\xff{no json"), Entry("p", 1, b""), Entry("\u00e9\u4e2d", 2, b"x" * 200_000)]
        log.append_raw(entries)
        assert [Entry(*record[1:]) for record in log.read(0)] == entries

    def test_another_one_at_the_same_address_sees_the_same(self, log: Log, url: str) -> None:
        log.append([acted(0)])
        with open_log(url) as other:
            assert numbers(other) == [0]
            other.append([acted(1)])
        assert numbers(log) == [0, 1]

    def test_who_follows_hears_of_what_comes(self, log: Log, url: str) -> None:
        log.append([acted(0)])

        def later() -> None:
            with open_log(url) as other:
                for number in (1, 2, 3):
                    other.append([acted(number)])

        writer = threading.Thread(target=later)
        seen: list[int] = []
        for records in log.follow(0, idle=20):
            seen += [record.sequence for record in records]
            if seen == [0]:
                writer.start()
            if len(seen) == 4:
                break
        writer.join()
        assert seen == [0, 1, 2, 3]

    def test_following_ends_where_nothing_comes(self, log: Log) -> None:
        log.append([acted(0)])
        assert [[r.sequence for r in part] for part in log.follow(0, idle=0.05)] == [[0]]
        assert not log.wait(log.end(), 0.01) and log.wait(0, 0.01)

    def test_what_is_trimmed_is_gone_and_said_to_be(self, log: Log) -> None:
        if not self.trims:
            pytest.skip("the server of these tests cannot trim")
        log.append([acted(n) for n in range(5)])
        third = log.read(0)[2].position
        log.trim(third)
        assert numbers(log, third) == [3, 4]
        for below in (0, third - 1):
            with pytest.raises(UserError, match="trimmed"):
                log.read(below)
        log.trim(0)  # which is behind: nothing comes back, nothing goes
        assert numbers(log, third) == [3, 4]

    def test_a_position_is_given_once(self, log: Log) -> None:
        if not self.trims:
            pytest.skip("the server of these tests cannot trim")
        log.append([acted(0), acted(1)])
        end = log.end()
        log.trim(end)
        assert log.end() == end and log.read(end) == []
        assert log.append([acted(2)]).position > end
        assert numbers(log, end) == [2]

    def test_ids_are_known_when_their_events_are_gone(self, log: Log) -> None:
        if not log.keeps_ids:
            pytest.skip("this log refuses no ids; who reads knows them")
        log.append([acted(n) for n in range(4)])
        log.trim(log.read(0)[2].position)
        again = log.append([acted(0), acted(2), acted(3), acted(4)])
        assert (again.taken, again.duplicates) == (1, 3)

    def test_several_processes_append_at_once(self, log: Log, url: str) -> None:
        writers = [FORK.Process(target=append_some, args=(url, f"p{n}", 20)) for n in range(2)]
        for writer in writers:
            writer.start()
        seen: list[tuple[str, int]] = []
        for records in log.follow(0, idle=60, count=7):  # while they write
            seen += [(record.producer, record.sequence) for record in records]
            if len(seen) == 40:
                break
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        for name in ("p0", "p1"):
            assert [number for producer, number in seen if producer == name] == list(range(20))

    def test_dead_letters(self, log: Log) -> None:
        log.append_raw([Entry("p", 0, b"{"), Entry("p", 1, b"[]")])
        assert log.dead() == []
        at = [record.position for record in log.read(0)]
        log.bury(Letter(at[1], "no object"))
        log.bury(Letter(at[0], "no JSON"))
        log.bury(Letter(at[0], "no JSON"))
        assert log.dead() == [Letter(at[0], "no JSON"), Letter(at[1], "no object")]
