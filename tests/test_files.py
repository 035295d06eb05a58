"""Files that are whole or not there, whoever else writes them; the right to write to a place."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rawrec import files
from rawrec.errors import UserError
from rawrec.files import (
    LEFT,
    Lock,
    appending,
    create,
    make_folder,
    move,
    remove_empty,
    replacing,
    write_tensors,
    write_text,
    yaml_text,
)
from rawrec.reading import yaml_of
from rawrec.training import state


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one, " * 1000)
        other.write_text("other")
        write_text(path, "between")
        assert path.read_text() == "between" and one.read_text() == "one, " * 1000
    assert path.read_text() == "one, " * 1000  # the last to end
    state.save(path, {"a": torch.ones(2)}, {"b": 1})
    assert state.load(path)[1] == {"b": 1} and os.listdir(tmp_path) == ["x"]  # noqa: PTH208


def test_what_replaces_a_file_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text("old")
    flushed = []

    def fsync(handle: int) -> None:
        places = (tmp_path, *tmp_path.iterdir())
        (synced,) = (place for place in places if os.path.samestat(place.stat(), os.fstat(handle)))
        flushed.append((synced == tmp_path or synced.read_text(), (tmp_path / "x").read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "x", "new")
    assert flushed == [("new", "old"), (True, "new")]


def leave(path: Path, lives: bool = False) -> Path:
    """What a killed process, or one that lives, is writing."""
    name = files.partial_of(path).name
    if not lives:
        name = name.replace(f"-{os.getpid():x}-", f"-{2**22 + 1:x}-")  # more than numbers of processes are
    partial = path.with_name(name)
    partial.write_text("half")
    return partial


@pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks
def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    process = os.fork()
    if not process:
        with replacing(tmp_path / "x") as partial:
            partial.write_text("half")
            os._exit(1)
    os.waitpid(process, 0)
    assert len(list(tmp_path.iterdir())) == 1
    ours = leave(tmp_path / "x", lives=True)
    leave(tmp_path / "y")
    folder = files.partial_of(tmp_path / "z").name.replace(f"-{os.getpid():x}-", f"-{2**22 + 1:x}-")
    (tmp_path / folder / "deep").mkdir(parents=True)
    write_text(tmp_path / "x", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["x", ours.name])
    later = ours.name.replace(f"-{os.getpid():x}-", f"-{os.getpid():x}-1")  # the number belongs to a later process now
    ours.rename(tmp_path / later)
    files.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_is_written_elsewhere_goes_after_an_hour(tmp_path: Path) -> None:
    """Another machine's process cannot be asked; nor can those of earlier versions."""
    machine = files.partial_of(tmp_path / "x").name.split(".")[2].split("-")[0]
    foreign = [leave(tmp_path / "x").name.replace(machine, word) for word in ("00000000", "11111111")]
    files.clean(tmp_path)
    old, young = tmp_path / foreign[0], tmp_path / foreign[1]
    others = [tmp_path / name for name in ("x.0123abcd.partial", "x.0123abce.partial", "mine.partial", "x.aa.partial")]
    for path in (old, young, *others):
        path.touch()
    for path in (old, others[0], *others[2:]):
        os.utime(path, (0, time.time() - LEFT - 5))
    write_text(tmp_path / "x", "new")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"x", young.name, "x.0123abce.partial", "mine.partial", "x.aa.partial"}


def test_names_are_new_each_time_and_fit(tmp_path: Path) -> None:
    names = {files.partial_of(tmp_path / ("ä" * 120)).name for _ in range(50)}
    assert len(names) == 50 and all(files.PARTIAL.fullmatch(name) for name in names)
    write_text(tmp_path / ("ä" * 120), "long")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["long"]


def test_nothing_is_written_through_links(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("as it was")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("replaced", "added", "made", ".place.lock", "elsewhere"):
        (folder / name).symlink_to(canary)
    (folder / "elsewhere").unlink()
    (folder / "elsewhere").symlink_to(tmp_path / "nowhere")
    write_text(folder / "replaced", "ours")
    assert not (folder / "replaced").is_symlink()
    for name in ("added", "elsewhere"):
        with pytest.raises(UserError, match=f"{name} is no plain file"):
            appending(folder / name)
    with pytest.raises(OSError):
        create(folder / "made")
    (folder / ".hard.lock").hardlink_to(canary)
    os.mkfifo(folder / ".pipe.lock")
    for name in ("place", "hard", "pipe"):
        Lock(folder / name, "busy").release()
    os.mkfifo(folder / "pipe")
    for readable in (False, True):
        with pytest.raises(UserError, match="pipe is no plain file"):
            appending(folder / "pipe", readable)
    (folder / "hard").hardlink_to(canary)
    with appending(folder / "hard") as file:
        file.write(b" and more")
    assert (folder / "hard").read_text() == "as it was and more"
    with pytest.raises(UserError, match="is a folder, and a file is to be written"):
        write_text(folder, "x")
    assert canary.read_text() == "as it was" and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("metadata", [None, {"rawrec": '{"a": "ä"}'}])
def test_safetensors_are_those_of_its_library(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    from safetensors.torch import save

    kinds = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool", "float8_e4m3fn")
    tensors = {f"{n}/{kind}": torch.ones(2, 3).to(getattr(torch, kind)) for n in "ab" for kind in kinds}
    tensors |= {"empty": torch.zeros(0, 4), "scalar": torch.tensor(3.0), 'odd "ä\\': torch.arange(3)}
    write_tensors(tensors, tmp_path / "x", metadata)
    assert (tmp_path / "x").read_bytes() == save(tensors, metadata)
    with pytest.raises(OSError):
        write_tensors({"a": torch.ones(1)}, tmp_path / "none" / "x")


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


TEXTS = [
    "ein Wort, 杯子 🙂",
    "a\u0085b\u2028c\ufeff\n",
    "no utf-8: \udc80",
    "yes",
    "1e-3",
    "- a: b #",
    "*a & b",
    "\x00",
]


@pytest.mark.parametrize("text", TEXTS)
def test_yaml_that_is_written_is_read_again(text: str) -> None:
    """Whatever the characters; keys keep their order."""
    values = {"z": [text, None, True, 1e-3], text: {"a": text * 30}}
    written = yaml_text(values)
    assert yaml_of(written) == yaml.safe_load(written) == values and list(yaml_of(written)) == ["z", text]


@pytest.mark.parametrize(
    "text", ["[" * 60 + "]" * 60, "a: &b {c: 1}\nd: *b", "a: &b 1", "a: 9223372036854775808", "a: .inf"]
)
def test_yaml_that_is_more_than_plain_is_not_read(text: str) -> None:
    with pytest.raises((ValueError, yaml.YAMLError)):
        yaml_of(text)
