"""A restarted import decodes only the pictures that the one before had not found whole."""

from __future__ import annotations

import io
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import forked
from rawrec.data import checked, images
from rawrec.data.checked import WIDTH, Checked
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.parts import PartWriter
from rawrec.sources.append import append
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.microlens import import_microlens
from rawrec.sources.table import import_table
from rawrec.sources.webdataset import import_webdataset
from web import Server

N = 60
BAD = 7
"""The item whose picture is none."""


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 6), (number % 256, 40 * number % 256, 9)).save(buffer, "PNG")
    return buffer.getvalue()


CHECK = images.check
PICTURES = [picture(n) if n != BAD else b"no picture" for n in range(N)]


class Counter:
    """Stands in for `images.check`: counts, and from the call after `most` on raises, as what ends an import."""

    def __init__(self, most: int | None = None) -> None:
        self.calls, self._most, self._lock = 0, most, Lock()

    def __call__(self, data: bytes) -> str | None:
        with self._lock:
            if self.calls == self._most:
                raise KeyboardInterrupt
            self.calls += 1
        return CHECK(data)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checked, "BLOCK", 4)
    return tmp_path / "data"


def record(place: Path) -> Path:
    return place.with_name(f".{place.name}.checked")


def spared(data: Dataset, file: str = "import.json") -> int:
    """How many pictures the report says were not decoded."""
    (found,) = [note for note in ImportReport.load(data.path / file).notes if "were not decoded" in note]
    return int(found.split()[0])


# ---------------------------------------------------------------------------------------------------------- the record
def test_what_is_known_is_not_decoded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Checked(place)
    assert [first.check(data) is None for data in PICTURES] == [n != BAD for n in range(N)]
    first.close()
    monkeypatch.setattr(images, "check", counter := Counter())
    second = Checked(place)
    assert [second.check(data) is None for data in PICTURES] == [n != BAD for n in range(N)]
    assert counter.calls == 1  # nothing is taken down of what is no picture
    assert second.check(PICTURES[0] + b"!") is None and counter.calls == 2  # other bytes are another picture
    report = ImportReport()
    second.account(report)
    assert report.notes[0].startswith("59 pictures were not decoded")
    second.remove()
    second.close()
    assert not record(place).exists()


def test_a_torn_record_counts_as_far_as_it_goes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Checked(place)
    for data in PICTURES[:7]:
        first.check(data)
    first.close()
    whole = record(place).read_bytes()
    assert len(whole) == 8 * WIDTH
    record(place).write_bytes(whole[:-5])
    second = Checked(place)
    for data in PICTURES:
        second.check(data)
    second.close()
    monkeypatch.setattr(images, "check", counter := Counter())
    third = Checked(place)
    for data in PICTURES:
        third.check(data)
    assert counter.calls == 1


@pytest.mark.parametrize("spoil", ["limit", "other file", "empty", "head"])
def test_a_record_of_another_kind_means_nothing(spoil: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Checked(place)
    for data in PICTURES:
        first.check(data)
    first.close()
    if spoil == "limit":
        monkeypatch.setattr(images, "MAX_PIXELS", 100)
    elif spoil == "other file":
        record(place).write_bytes(b"\x89PNG" + record(place).read_bytes())
    else:
        record(place).write_bytes(b"" if spoil == "empty" else record(place).read_bytes()[: WIDTH - 1])
    monkeypatch.setattr(images, "check", counter := Counter())
    for calls in (N, N + 1):  # the second time from a record that was begun anew
        checked = Checked(place)
        for data in PICTURES:
            checked.check(data)
        checked.close()
        assert counter.calls == calls


def test_where_nothing_can_be_written(place: Path) -> None:
    record(place).mkdir()
    checked = Checked(place)
    assert [checked.check(data) is None for data in PICTURES] == [n != BAD for n in range(N)]
    checked.close()
    checked.remove()
    assert record(place).is_dir() and not list(record(place).iterdir())


def test_a_small_import_leaves_nothing(tmp_path: Path) -> None:
    checked = Checked(tmp_path / "data")
    for data in PICTURES:
        checked.check(data)
    checked.close()
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------- the imports
def clicks(folder: Path) -> Path:
    path = folder / "clicks.csv"
    path.write_text("user,item\n" + "".join(f"u{n % 9},{n % N}\n" for n in range(4 * N)))
    return path


def folder_of(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    for number, data in enumerate(PICTURES):
        (path / f"{number}.jpg").write_bytes(data)
    return path


def from_folder(source: Path, out: Path) -> Dataset:
    return import_table(clicks(source), "user", "item", image_dir=folder_of(source / "images"), out=out, progress=False)


def from_column(source: Path, out: Path) -> Dataset:
    table = pa.table({"item": [str(n) for n in range(N)], "cover": PICTURES})
    pq.write_table(table, source / "items.parquet")
    return import_table(
        clicks(source), "user", "item", items=source / "items.parquet", image_column=["cover"], out=out, progress=False
    )


def from_shards(source: Path, out: Path) -> Dataset:
    with tarfile.open(source / "shard.tar", "w") as file:
        for number, data in enumerate(PICTURES):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return import_webdataset(str(source / "shard.tar"), clicks(source), "user", "item", out=out, progress=False)


def from_covers(source: Path, out: Path) -> Dataset:
    pairs = source / "pairs.csv"
    pairs.write_text("user,item,timestamp\n" + "".join(f"u{n % 9},{n % N},{n}\n" for n in range(4 * N)))
    return import_microlens(source, pairs=pairs, covers=folder_of(source / "covers"), out=out, progress=False)


@pytest.mark.parametrize("load", [from_folder, from_column, from_shards, from_covers])
def test_an_import_goes_on_where_one_was_interrupted(
    load: Callable[[Path, Path], Dataset], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = load(tmp_path, tmp_path / "other")
    monkeypatch.setattr(images, "check", Counter(40))
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, place)
    assert not place.exists() and record(place).exists()
    monkeypatch.setattr(images, "check", counter := Counter())
    data = load(tmp_path, place)
    assert counter.calls == N - spared(data) and spared(data) >= 39
    assert data.meta.digest == undisturbed.meta.digest
    assert ImportReport.load(data.path / "import.json").skipped["image: not a picture of a known format"].count == 1
    assert not record(place).exists()


def test_an_append_goes_on_where_one_was_interrupted(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tmp_path / "few.csv"
    few.write_text("user,item\nu1,a\nu2,b\n")
    import_table(
        few, "user", "item", image_dir=folder_of(tmp_path / "images"), out=place, allow_empty=True, progress=False
    )

    def more() -> Dataset:
        settings: dict[str, Any] = {"user": "user", "item": "item", "progress": False}
        return append(place, clicks(tmp_path), image_dir=tmp_path / "images", **settings)

    monkeypatch.setattr(images, "check", Counter(40))
    with pytest.raises(KeyboardInterrupt):
        more()
    monkeypatch.setattr(images, "check", counter := Counter())
    data = more()
    assert counter.calls == N - spared(data, "import-2.json") and spared(data, "import-2.json") >= 39
    assert data.n_items == N + 2
    assert not record(place).exists()


def test_what_was_downloaded_is_not_decoded_again(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with Server() as web:
        rows = "".join(f"{n},{web.url(f'ok/{n}')}\n" for n in range(20))
        (tmp_path / "items.csv").write_text("item,cover\n" + rows)

        def load() -> Dataset:
            return import_table(
                clicks(tmp_path), "user", "item", items=tmp_path / "items.csv", image_url=["cover"], out=place,
                pictures=UrlPictures(allow_private=True), progress=False,
            )  # fmt: skip

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(PartWriter, "_store_items", interrupted)
            load()
        monkeypatch.setattr(images, "check", counter := Counter())
        data = load()
        assert counter.calls == 0 and data.counts("image").sum() == web.asked.total() == 20


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
import test_checked
from rawrec.data import checked, images
checked.BLOCK = 4
whole = images.check
def slow(data):
    time.sleep(0.02)
    return whole(data)
images.check = slow
test_checked.from_folder(Path(sys.argv[2]), Path(sys.argv[3]))
"""


def test_an_import_goes_on_where_one_was_killed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = from_folder(tmp_path, tmp_path / "other")
    child = forked.Process([sys.executable, "-c", KILLED, ":".join(sys.path), str(tmp_path), str(place)])
    while not record(place).exists() or record(place).stat().st_size <= 10 * WIDTH:
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    known = record(place).stat().st_size // WIDTH - 1
    assert known >= 10 and not place.exists()
    monkeypatch.setattr(images, "check", counter := Counter())
    data = from_folder(tmp_path, place)
    assert counter.calls == N - known == N - spared(data) and data.meta.digest == undisturbed.meta.digest
    assert not record(place).exists()
