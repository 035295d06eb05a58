"""Folders that take their place in one step, wherever a process is killed; sub-folders that are no links."""

from __future__ import annotations

from pathlib import Path

import pytest

from kill_points import killed_everywhere
from rawrec import folders
from rawrec.errors import UserError
from rawrec.folders import beside, exchange, is_within, own_folder, placing, restore


@pytest.fixture(params=["exchange", "rename"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With a system that exchanges folders, and with one that does not."""
    if request.param == "rename":
        monkeypatch.setattr(folders, "_exchanger", lambda: None)
    return request.param


def fill(target: Path, text: str) -> None:
    with placing(target) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "x").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path: Path, way: str) -> None:
    target = tmp_path / "a" / "place"
    for text in ("first", "second"):
        fill(target, text)
        assert (target / "deep" / "x").read_text() == text and len(list(target.parent.iterdir())) == 1
    with pytest.raises(KeyboardInterrupt), placing(target) as folder:
        (folder / "x").write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in target.rglob("x")] == ["x"] and len(list(target.parent.iterdir())) == 1
    (target.parent / "empty").mkdir()
    fill(target.parent / "empty", "third")
    assert len(list(target.parent.iterdir())) == 2


@pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks
def test_killed_anywhere_the_old_or_the_new_is_there(tmp_path: Path, way: str) -> None:
    target, seen = tmp_path / "place", set()
    fill(target, "old")
    for _ in killed_everywhere(lambda: fill(target, "new")):
        if way == "exchange":
            assert target.is_dir() and not beside(target).exists()
        restore(target)
        seen.add((target / "deep" / "x").read_text())
        fill(target, "old")
        assert [path.name for path in tmp_path.iterdir()] == ["place"]  # what was left is gone
    assert seen == {"old", "new"}


def test_exchange(tmp_path: Path) -> None:
    fill(tmp_path / "a", "a")
    fill(tmp_path / "b", "b")
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange")
    assert (tmp_path / "a" / "deep" / "x").read_text() == "b"
    with pytest.raises(OSError, match="No such file"):
        exchange(tmp_path / "a", tmp_path / "c")


def test_no_folder_is_a_link(tmp_path: Path) -> None:
    assert own_folder(tmp_path / "a").is_dir() and own_folder(tmp_path / "a").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "b")
    (tmp_path / "file").touch()
    for name in ("link", "dangling", "file"):
        with pytest.raises(UserError, match=f"{name} is a link or a file"):
            own_folder(tmp_path / name)
    assert not (tmp_path / "b").exists()


def test_where_a_file_really_is(tmp_path: Path) -> None:
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").symlink_to(tmp_path / "run" / "x")  # an export replaces the link
    inside = ("run/x", "run/../run/x", "link/x", "link/deep/x", "run/none/x")
    outside = ("x", "out/x", "runs/x", "run", "run/../x")
    assert all(is_within(tmp_path / name, tmp_path / "run") for name in inside)
    assert not any(is_within(tmp_path / name, tmp_path / "run") for name in outside)
    assert not is_within(tmp_path / "none" / "x", tmp_path / "none")
