"""What libraries' threads, the ends of objects and loggers without a reader meet is a line on the terminal."""

from __future__ import annotations

import logging
import sys
import threading

import pytest

from rawrec.shown import libraries_in_lines


class Ends:
    def __del__(self) -> None:
        raise OSError(13, "Permission denied", "/closed\x1b[2J")


def fail() -> None:
    raise ValueError("first\nsecond " + "x" * 10_000)


def test_each_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    hooks = threading.excepthook, sys.unraisablehook
    with libraries_in_lines():
        thread = threading.Thread(target=fail, name="of a library")
        thread.start()
        thread.join()
        end = Ends()
        del end
        try:
            fail()
        except ValueError as error:
            record = logging.LogRecord("asyncio", 40, "", 1, "Task was\nlost", (), (ValueError, error, None))
            assert logging.lastResort is not None
            logging.lastResort.handle(record)
        leaving = threading.Thread(target=sys.exit)
        leaving.start()
        leaving.join()
    assert (threading.excepthook, sys.unraisablehook) == hooks
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "rawrec: the thread of a library ended: ValueError: first"
    assert "Permission denied: /closed␛[2J" in lines[1] and lines[2] == "asyncio: Task was: ValueError: first"
    assert len(lines) == 3
