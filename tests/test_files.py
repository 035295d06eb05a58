"""Files that are whole or not there, whoever else writes them; the right to write to a place."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rawrec.errors import UserError
from rawrec.files import LEFT, Lock, make_folder, move, remove_empty, replacing
from rawrec.training import state


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one, " * 1000)
        other.write_text("other")
        state.write_text(path, "between")
        assert path.read_text() == "between" and one.read_text() == "one, " * 1000
    assert path.read_text() == "one, " * 1000  # the last to end
    state.save(path, {"a": torch.ones(2)}, {"b": 1})
    assert state.load(path)[1] == {"b": 1} and os.listdir(tmp_path) == ["x"]  # noqa: PTH208


def test_what_replaces_a_file_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text("old")
    flushed = []

    def fsync(handle: int) -> None:
        (partial,) = (file for file in tmp_path.iterdir() if os.path.samestat(file.stat(), os.fstat(handle)))
        flushed.append((partial.read_text(), (tmp_path / "x").read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    state.write_text(tmp_path / "x", "new")
    assert flushed == [("new", "old")]


def test_what_a_killed_writer_left_goes_after_an_hour(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in ("x.aa.partial", "x.bb.partial", "y.cc.partial"))
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (time.time() - LEFT - 5,) * 2)
    state.write_text(tmp_path / "x", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.bb.partial", "y.cc.partial"]


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "x") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_one_has_the_lock(tmp_path: Path) -> None:
    with Lock(tmp_path / "place", "somebody is there"):
        with pytest.raises(UserError, match=rf"somebody is there \(it is held by process {os.getpid()} on "):
            Lock(tmp_path / "place", "somebody is there")
        Lock(tmp_path / "other", "").release()
    assert not list(tmp_path.iterdir())
    Lock(tmp_path / "place", "").release()


def test_folders_are_taken_back_as_far_as_they_are_empty(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "a" / "b" / "c")
    assert made == [tmp_path / "a" / "b" / "c", tmp_path / "a" / "b", tmp_path / "a"]
    (tmp_path / "a" / "x").touch()
    remove_empty(made)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"] and make_folder(tmp_path) == []


def test_a_file_moves_to_another_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def within(self: Path, target: Any) -> Path:
        if self.parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", within)
    (tmp_path / "a").mkdir()
    (tmp_path / "x").write_text("whole")
    move(tmp_path / "x", tmp_path / "a" / "x")
    assert (tmp_path / "a" / "x").read_text() == "whole" and not (tmp_path / "x").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]
