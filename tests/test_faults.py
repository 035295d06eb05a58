"""Faults on demand: at the point, the time and of the kind that were asked for, and nowhere else."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rawrec import faults
from rawrec.errors import UserError
from rawrec.files import appending, create, write_text
from rawrec.folders import placing


@pytest.fixture(autouse=True)
def none_afterwards() -> Iterator[None]:
    yield
    faults.ask("")


def fails(work: Callable[[], object], number: int) -> None:
    with pytest.raises(OSError) as found:
        work()
    assert found.value.errno == number


@pytest.mark.parametrize(
    "text",
    ["", "write", "write:0", "write:x", "writ:1", "write:1:ENOENT", "rename:1:kill:2", "acknowledge:1:EIO", "write:-1"],
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="RAWREC_FAULT"):
        faults.Fault.of(text)


def test_without_a_fault_files_are_those_of_the_system(tmp_path: Path) -> None:
    with create(tmp_path / "a") as one, appending(tmp_path / "b") as other:
        assert isinstance(one, io.BufferedWriter) and isinstance(other, io.BufferedWriter)
    assert faults.around("rename") is faults.NOTHING


@pytest.mark.parametrize("point", ["write", "write.done", "fsync", "fsync.done", "rename"])
@pytest.mark.parametrize(("kind", "number"), [("ENOSPC", errno.ENOSPC), ("EIO", errno.EIO), ("short", errno.ENOSPC)])
def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path: Path, point: str, kind: str, number: int) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    faults.ask(f"{point}:1:{kind}")
    fails(lambda: write_text(path, "new and longer"), number)
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["file"]
    write_text(path, "new")  # the second time it does not fail
    assert path.read_text() == "new"


def test_after_the_rename_the_file_is_the_new_one(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    faults.ask("rename.done:1:EIO")
    fails(lambda: write_text(tmp_path / "file", "new"), errno.EIO)
    assert (tmp_path / "file").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_a_short_write_leaves_half(tmp_path: Path) -> None:
    faults.ask("write:2:short")
    with appending(tmp_path / "lines") as file:
        file.write(b"first\n")
        with pytest.raises(OSError):
            file.write(b"second")
    assert (tmp_path / "lines").read_bytes() == b"first\nsec"


def test_points_are_counted_of_the_path_that_is_named(tmp_path: Path) -> None:
    faults.ask("rename@b.txt:2:EIO")
    for _ in range(3):
        write_text(tmp_path / "a.txt", "a")
    write_text(tmp_path / "b.txt", "b")
    fails(lambda: write_text(tmp_path / "b.txt", "bb"), errno.EIO)
    assert (tmp_path / "b.txt").read_text() == "b"


@pytest.mark.parametrize("point", ["rename", "rename.done", "fsync", "fsync.done"])
def test_a_folder_is_the_old_one_or_the_new_one(tmp_path: Path, point: str) -> None:
    target, seen = tmp_path / "folder", set[str]()
    for number in range(1, 30):
        faults.ask("")
        with placing(target) as fresh:
            (fresh / "text").write_text("old")
        faults.ask(f"{point}:{number}:EIO")
        try:
            with placing(target) as fresh:
                (fresh / "text").write_text("new")
        except OSError:
            seen.add((target / "text").read_text())
            continue
        break
    else:
        raise AssertionError("it never came to its end")
    assert seen and seen <= {"old", "new"}


@pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks
@pytest.mark.parametrize("text", ["write:1", "write.done:1", "fsync:1:kill", "rename:1", "rename.done:1"])
def test_a_process_is_killed_there(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    process = os.fork()
    if not process:
        try:
            faults.ask(text)
            write_text(path, "new")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert path.read_text() == ("new" if text.startswith("rename.done") else "old")
    write_text(path, "next")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_the_variable_is_read_by_a_process_that_begins(tmp_path: Path) -> None:
    code = "from pathlib import Path; from rawrec.files import write_text; write_text(Path('file'), 'x')"
    for text, said in (("fsync:1:EIO", "Input/output error"), ("wrote:1", "RAWREC_FAULT='wrote:1': give point:n")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"RAWREC_FAULT": text}, cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1 and said in done.stderr
