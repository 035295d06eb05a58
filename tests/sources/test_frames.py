"""Frames of folders, videos and animations on their way into a dataset."""

from __future__ import annotations

import io
import math
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rawrec import UserError
from rawrec.data import images
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.sources.append import append
from rawrec.sources.media import frames as media
from rawrec.sources.media import videos
from rawrec.sources.media.frames import evenly
from rawrec.sources.table import import_table


def av() -> Any:
    return pytest.importorskip("av", reason="PyAV is not installed: pip install 'rawrec[video]'")


def grey(level: int, size: tuple[int, int] = (32, 24), form: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size, (level,) * 3).save(held, form)
    return held.getvalue()


def levels(pictures: list[bytes]) -> list[int]:
    """The grey of each picture."""
    return [round(float(np.asarray(Image.open(io.BytesIO(data)).convert("L")).mean())) for data in pictures]


def table(folder: Path, items: list[str], **more: Any) -> Dataset:
    """An import of a few clicks on items whose frames are in `folder/media`."""
    (folder / "clicks.csv").write_text("user,item\n" + "".join(f"u{k},{item}\n" for k, item in enumerate(items)))
    settings = {"image_dir": folder / "media", "frames": 4, "progress": False} | more
    return import_table(folder / "clicks.csv", "user", "item", out=folder / "d", **settings)


def of_items(data: Dataset) -> dict[str, list[int]]:
    pictures = data.images("image", np.arange(data.n_items))
    return {str(item): levels(found) for item, found in zip(data.item_ids, pictures, strict=True)}


def skipped(data: Dataset) -> dict[str, int]:
    return {reason: entry.count for reason, entry in ImportReport.load(data.path / "import.json").skipped.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    return tmp_path


# ------------------------------------------------------------------------------------------------------------- sampling
@pytest.mark.parametrize("there", [1, 2, 3, 7, 8, 9, 100, 1001])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_what_stands_in_the_middle_of_equal_stretches(there: int, count: int) -> None:
    middles = [(k + 0.5) * there / count for k in range(count)]
    assert evenly(there, count) == sorted({math.floor(middle + 1e-9) for middle in middles})
    assert len(evenly(there, count)) == min(there, count)


def test_folders_of_frames(folder: Path) -> None:
    many, few = folder / "media" / "many", folder / "media" / "few"
    for where, n in ((many, 12), (few, 3)):
        where.mkdir()
        for k in range(1, n + 1):  # frame10 comes after frame2
            (where / f"frame{k}.PNG").write_bytes(grey(10 * k))
    (many / "notes.txt").write_text("shot on a Monday")
    (many / ".hidden.png").write_bytes(grey(0))
    (folder / "media" / "single.png").write_bytes(grey(77))
    (folder / "media" / "nobody.png").write_bytes(grey(78))
    data = table(folder, ["many", "few", "single", "absent"])
    assert of_items(data) == {"many": [20, 50, 80, 110], "few": [10, 20, 30], "single": [77], "absent": []}
    assert skipped(data) == {
        "image: frame between those that were sampled": 8,
        "file among an item's frames that is no picture": 1,
        "file of the image folder that no item names": 1,
    }
    report = ImportReport.load(data.path / "import.json")
    assert (report.read["images"], report.kept["images"]) == (8, 8)
    pictures = data.images("image", np.flatnonzero(np.asarray(data.item_ids) == "few"))[0]
    assert pictures[0] == (few / "frame1.PNG").read_bytes()  # as it is


def test_bad_frames_are_counted_and_the_others_stay(folder: Path) -> None:
    (folder / "media" / "empty").mkdir()
    bad = folder / "media" / "bad"
    bad.mkdir()
    for k in range(4):
        (bad / f"{k}.png").write_bytes(grey(10 * k + 10))
    (bad / "0.png").write_bytes(b"")
    (bad / "1.png").write_bytes(grey(1)[:60])
    (bad / "2.png").unlink()
    (bad / "2.png").symlink_to(folder / "clicks.csv")
    (folder / "media" / "..png").write_bytes(grey(5))
    data = table(folder, ["empty", "bad", "../media", "bad/../bad"])
    assert of_items(data) == {"empty": [], "bad": [40], "../media": [], "bad/../bad": []}
    found = skipped(data)
    assert found["image: folder of frames without a picture"] == 1 and found["image: empty file"] == 1
    assert found["image: unsafe name (leads out of the image folder)"] == 3
    assert found["image: damaged picture"] == 1


def animation(form: str, n: int = 10) -> bytes:
    held, pictures = io.BytesIO(), [Image.open(io.BytesIO(grey(20 * k + 10))) for k in range(n)]
    more = {"lossless": True} if form == "WEBP" else {}
    pictures[0].save(held, form, save_all=True, append_images=pictures[1:], duration=40, **more)
    return held.getvalue()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_animations(folder: Path, form: str) -> None:
    (folder / "media" / f"a.{form.lower()}").write_bytes(animation(form))
    (folder / "media" / f"still.{form.lower()}").write_bytes(grey(60, form=form))
    (folder / "media" / f"torn.{form.lower()}").write_bytes(animation(form)[: len(animation(form)) // 2])
    data = table(folder, ["a", "still", "torn"], frames=3)
    found = of_items(data)
    wanted = [20 * k + 10 for k in evenly(10, 3)]
    assert found["a"] == pytest.approx(wanted, abs=2) and found["still"] == pytest.approx([60], abs=2)
    assert found["torn"] == []
    assert skipped(data) == {"image: frame between those that were sampled": 7, "image: damaged picture": 1}


def test_animations_that_are_too_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "media" / "a.gif").write_bytes(animation("GIF"))
    monkeypatch.setattr(images, "LONG", 32 * 24 * 8)
    data = table(folder, ["a"], allow_empty=True)
    assert of_items(data) == {"a": []} and skipped(data) == {"image: too long": 1}


def test_transparent_frames_lie_on_white() -> None:
    held = io.BytesIO()
    clear = [Image.new("RGBA", (8, 8), (0, 0, 0, alpha)) for alpha in (0, 255)]
    clear[0].save(held, "WEBP", save_all=True, append_images=clear[1:], lossless=True, duration=50)
    there, taken = images.frames(held.getvalue(), lambda n: range(n))
    assert there == 2 and levels(taken) == [255, 0]


def test_mistakes(folder: Path) -> None:
    with pytest.raises(UserError, match=r"frames=0: give how many frames .* 1 to 1,000"):
        table(folder, ["a"], frames=0)
    with pytest.raises(UserError, match=r"frames=4 is of a folder.*image_dir"):
        table(folder, ["a"], image_dir=None)
    with pytest.raises(UserError, match=r"must hold \{item\}"):
        table(folder, ["a"], image_name="x.mp4")
    assert not (folder / "d").exists()


def test_without_the_library_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (folder / "media" / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"not installed: pip install 'rawrec\[video\]'"):
        table(folder, ["a"], image_name="{item}.mp4")
    (folder / "media" / "a.mp4").write_bytes(b"something")
    with pytest.raises(UserError, match=r"not installed: pip install 'rawrec\[video\]'"):
        table(folder, ["a"])
    assert not (folder / "d").exists()
    (folder / "media" / "a.mp4").unlink()
    (folder / "media" / "a.gif").write_bytes(animation("GIF"))
    assert len(of_items(table(folder, ["a"]))["a"]) == 4  # which needs none


def test_an_append_samples_too(folder: Path) -> None:
    for item in ("a", "b"):
        (folder / "media" / f"{item}.gif").write_bytes(animation("GIF"))
    table(folder, ["a"], frames=2)
    (folder / "more.csv").write_text("user,item,title\nu0,b,x\n")
    (folder / "new.csv").write_text("item\nb\n")
    data = append(
        folder / "d", folder / "more.csv", "user", "item", items=folder / "new.csv", image_dir=folder / "media",
        frames=3, progress=False,
    )  # fmt: skip
    assert [len(found) for found in of_items(data).values()] == [2, 3]


# --------------------------------------------------------------------------------------------------------------- videos
def video(
    path: Path, n: int = 24, *, codec: str = "mpeg4", gop: int = 12, size: tuple[int, int] = (64, 48), late: int = 0
) -> Path:
    """Frame k is of the grey 9k + 20, ten a second; late: seconds that the last one is late."""
    library = av()
    with library.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", gop
        for k in range(n):
            picture = np.full((size[1], size[0], 3), 9 * k + 20, np.uint8)
            frame = library.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = k + (10 * late if k == n - 1 else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def seen(path: Path, count: int) -> list[int]:
    with path.open("rb", buffering=0) as file:
        return levels(videos.sample(file, count)[0])


def at(numbers: list[int]) -> Any:
    return pytest.approx([9 * k + 20 for k in numbers], abs=4)


@pytest.mark.parametrize("gop", [1, 12, 1000])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi", "a.webm"])
def test_the_frames_of_a_video(tmp_path: Path, name: str, gop: int) -> None:
    path = video(tmp_path / name, codec="libvpx" if name == "a.webm" else "mpeg4", gop=gop)
    for count in (1, 4, 8, 24, 100):
        assert seen(path, count) == at(evenly(24, count)), count


def test_videos_of_one_and_of_few_frames(tmp_path: Path) -> None:
    assert seen(video(tmp_path / "one.mp4", 1), 8) == at([0])
    assert seen(video(tmp_path / "few.mp4", 3), 8) == at([0, 1, 2])


def test_it_is_time_that_is_sampled(tmp_path: Path) -> None:
    """The last but one frame is shown for most of a video whose last is late."""
    assert seen(video(tmp_path / "late.mkv", 10, late=9), 10) == at([5, 8])


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decoded = video(tmp_path / "a.mp4", 23, gop=4), []
    plain = videos._decoded

    def counted(*args: Any) -> Any:
        for frame in plain(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(videos, "_decoded", counted)
    seen(path, 2)
    assert len(decoded) <= 2 * 6
    decoded.clear()
    seen(video(tmp_path / "b.mp4", 23, gop=1000), 8)
    assert len(decoded) <= 2 * 23  # at most twice
    monkeypatch.setattr(videos, "MAX_DECODED", 10)
    with pytest.raises(media.Skip, match="its keyframes are rare"):
        seen(tmp_path / "b.mp4", 8)


def turned(path: Path) -> None:
    """Make a telephone held upright of it: the matrix of the track turns pictures by 90 degrees, clockwise."""
    data = bytearray(path.read_bytes())
    track = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version and flags, times and ids, reserved, layer to volume
    assert struct.unpack_from(">9i", data, track) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, track, 0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(data)


def test_a_video_that_is_held_upright(tmp_path: Path) -> None:
    library, path = av(), tmp_path / "a.mp4"
    with library.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:, :32] = 255  # white on the left: on top, when it is turned clockwise
        container.mux(stream.encode(library.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    turned(path)
    with path.open("rb", buffering=0) as file:
        shown = np.asarray(Image.open(io.BytesIO(videos.sample(file, 1)[0][0])).convert("L"))
    assert shown.shape == (64, 48) and shown[:24].mean() > 240 and shown[40:].mean() < 15


def test_videos_into_a_dataset(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = folder / "media"
    video(where / "good.mp4")
    video(where / "twice.mp4")
    video(where / "twice.webm", codec="libvpx")
    (where / "empty.mp4").write_bytes(b"")
    (where / "noise.mkv").write_bytes(os.urandom(5000))
    (where / "picture.mp4").write_bytes(grey(9))
    (where / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:10,\n{where}/good.mp4\n#EXT-X-ENDLIST\n")
    (where / "concat.mkv").write_text(f"ffconcat version 1.0\nfile {where}/good.mp4\n")
    whole = video(where / "torn.mkv").read_bytes()
    (where / "torn.mkv").write_bytes(whole[: len(whole) // 2])
    data = table(folder, ["good", "twice", "empty", "noise", "picture", "list", "concat", "torn", "absent"])
    found, reasons = of_items(data), skipped(data)
    assert found["good"] == found["twice"] == at(evenly(24, 4))
    assert {item for item, shown in found.items() if not shown} == {
        "empty", "noise", "picture", "list", "concat", "absent"
    }  # fmt: skip
    assert len(found["torn"]) == 4 and max(found["torn"]) < 150  # of the half that is there
    assert reasons == {
        "image: empty file": 1,
        "image: damaged video, or of a format that is not read": 4,
        "image: video of another length than its header says (what is there was sampled)": 1,
        "file of the image folder that no item names": 1,
    }
    assert capfd.readouterr().err == ""


def test_a_video_cut_off_behind_its_index(tmp_path: Path) -> None:
    """Its header knows frames that are not there."""
    library, path = av(), tmp_path / "a.mp4"
    with (
        library.open(str(video(tmp_path / "b.mp4", gop=4))) as source,
        library.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    with path.open("rb", buffering=0) as file:
        found, lies = videos.sample(file, 4)
    assert lies and 1 < len(found) <= 4 and max(levels(found)) < 160


def test_large_videos_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(media.Skip, match="too large"):
        seen(path, 2)


def test_sound_alone(tmp_path: Path) -> None:
    library, path = av(), tmp_path / "a.mp4"
    with library.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = library.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(media.Skip, match="video without a picture"):
        seen(path, 2)


@pytest.mark.parametrize("seed", range(6))
def test_mutated_videos_end_well(tmp_path: Path, seed: int) -> None:
    """A few bytes changed: frames or a reason, nothing else."""
    data = bytearray(video(tmp_path / "a.mkv" if seed % 2 else tmp_path / "a.mp4", 20).read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), 30).tolist():
        data[place] = int(rng.integers(256))
    path = tmp_path / f"b{seed}"
    path.write_bytes(data)
    try:
        assert 1 <= len(seen(path, 4)) <= 4
    except media.Skip as skip:
        assert skip.reason.startswith("image: ")
