"""Bad input: each is handled and counted, or explained in a UserError; no half-written dataset looks whole."""

from __future__ import annotations

import errno
import gzip
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import forked
from rawrec.data import parts as parts_module
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.media import pictures as media
from rawrec.sources.table import import_table
from rawrec.sources.tables import lines, open_delimited

HEADER = "user,item,time,label"


def go(folder: Path, rows: list[str] | str | bytes, name: str = "clicks.csv", **options: Any) -> Dataset:
    """Import a table of clicks, written here, into `folder/out`."""
    path = folder / name
    if isinstance(rows, list):
        rows = "\n".join([HEADER, *rows]) + "\n"
    path.write_bytes(rows.encode() if isinstance(rows, str) else rows)
    settings = {"time": "time", "labels": ["label"], "out": folder / "out", "progress": False, **options}
    return import_table(path, "user", "item", **settings)


def skipped(data: Dataset) -> dict[str, tuple[int, list[str]]]:
    report = ImportReport.load(data.path / "import.json")
    return {reason: (entry.count, entry.examples) for reason, entry in report.skipped.items()}


def clicks(items: list[str]) -> list[str]:
    return [f"u{i % 2},{item},{i},{i % 2}" for i, item in enumerate(items)]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that claims 30000 x 30000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def noise(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, len(mode)), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze()).convert(mode)


# ------------------------------------------------------------------------------------------------------------ pictures
def test_odd_pictures_are_stored_as_they_are(tmp_path: Path) -> None:
    frames = [Image.new("P", (8, 8), i) for i in range(3)]
    good = {
        "cmyk": encoded(Image.new("CMYK", (8, 8)), "JPEG"),
        "deep": encoded(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "PNG"),
        "palette": encoded(noise().convert("P"), "PNG"),
        "animated": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "transparent": encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"),
        "one-pixel": encoded(Image.new("RGB", (1, 1)), "PNG"),
        "line": encoded(Image.new("RGB", (4000, 1)), "JPEG"),
    }
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in good.items():
        (folder / f"{name}.jpg").write_bytes(data)
    data = go(tmp_path, clicks(list(good)), image_dir=folder)
    assert data.images("image", data.item_rows(list(good))) == [[picture] for picture in good.values()]
    assert skipped(data) == {}


def test_bad_pictures_are_counted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_BYTES", 1 << 16)
    whole = encoded(noise(), "JPEG")
    bad = {
        "truncated": whole[: len(whole) // 2],
        "zero": b"",
        "text": b"<html>not found</html>",
        "bomb": bomb(),
        "huge": b"\xff\xd8" + bytes(1 << 16),
    }
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in bad.items():
        (folder / f"{name}.jpg").write_bytes(data)
    (folder / "folder.jpg").mkdir()
    (folder / "good.jpg").write_bytes(whole)
    os.mkfifo(folder / "pipe.jpg")
    names = [*bad, "folder", "pipe", "absent", "good"]
    data = go(tmp_path, clicks(names), image_dir=folder)
    assert data.n_items == len(names)
    assert data.present("image").tolist() == [name == "good" for name in data.item_ids]
    found = {reason: [e.split(" ")[0] for e in examples] for reason, (_, examples) in skipped(data).items()}
    assert found == {
        "image: damaged picture": ["truncated.jpg"],
        "image: empty file": ["zero.jpg"],
        "image: not a picture of a known format": ["text.jpg"],
        "image: too large": ["bomb.jpg"],
        "image: larger than 0 MiB": ["huge.jpg"],
        "image: is a folder, not a file": ["folder.jpg"],
        "image: is not a plain file": ["pipe.jpg"],
    }


def test_no_id_leads_out_of_the_image_folder(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    secret = encoded(noise(), "PNG")
    (tmp_path / "secret.jpg").write_bytes(secret)
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "up").symlink_to(tmp_path)
    (folder / "inside.jpg").write_bytes(secret)
    (folder / "alias.jpg").symlink_to(folder / "inside.jpg")
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "deep" / "deeper" / "own.jpg").write_bytes(secret)
    (folder / "deep" / "deeper" / "link.jpg").symlink_to("../../../secret.jpg")
    (folder / "near").symlink_to(folder / "deep" / "deeper")
    bad = ["../secret", str(tmp_path / "secret"), "x/../../secret", "link", "up/secret", "nul\0", "loop", ".."]
    bad += ["deep/deeper/link", "near/link"]
    good = ["inside", "alias", "deep/deeper/own", "near/own", "n" * 5000]
    data = go(tmp_path, clicks([*bad, *good]), image_dir=folder)
    stored = dict(zip(data.item_ids.tolist(), data.present("image").tolist(), strict=True))
    assert [item for item, present in stored.items() if present] == good[:4]
    assert skipped(data)["image: unsafe name (leads out of the image folder)"][0] == 8
    unnamed = import_table(
        tmp_path / "clicks.csv",
        "user",
        "item",
        image_dir=folder,
        image_name="{item}",
        allow_empty=True,
        out=tmp_path / "2",
        progress=False,
    )
    assert not unnamed.present("image").any()


@pytest.mark.parametrize("becomes", ["link", "pipe"])
def test_what_takes_the_place_of_a_file_meanwhile(
    becomes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a file and its opening: a link is not followed, a pipe not waited for."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encoded(noise(), "PNG"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    folder = media.ImageFolder(tmp_path / "images", "{item}.jpg", ImportReport())
    look = folder._locate

    def late(name: str) -> tuple[str, os.stat_result]:
        path, state = look(name)
        Path(path).unlink()
        if becomes == "link":
            Path(path).symlink_to(secret)
        else:
            os.mkfifo(path)
        return path, state

    monkeypatch.setattr(folder, "_locate", late)
    _, found = folder.read("a")
    assert str(found) == "cannot be read" if becomes == "link" else found == b""


# --------------------------------------------------------------------------------------------------------------- items
def test_texts_of_every_kind_and_items_without_content(tmp_path: Path) -> None:
    long = "word " * 20_000
    items = tmp_path / "items.csv"
    items.write_text(f'item,title\na,\nb,"  "\nc,🎉👩‍👩‍👧\nd,{long}\nc,again\n,nobody\ne\n')
    data = go(tmp_path, clicks(["a", "b", "c", "d", "unknown"]), items=items, text=["title"])
    assert data.item_ids.tolist() == ["a", "b", "c", "d", "unknown"]
    assert data.texts("title", range(5)) == [[], [], ["🎉👩‍👩‍👧"], [long.strip()], []]  # type: ignore[arg-type]
    assert skipped(data) == {
        "items: empty item id": (1, ["items.csv:7 ''"]),
        "row has not the 2 columns of the header": (1, ["items.csv:8 1 columns"]),
        "duplicate item id (the first row is kept)": (1, ["c"]),
    }
    report = ImportReport.load(data.path / "import.json")
    assert report.kept["items without a catalogue row"] == 1


# -------------------------------------------------------------------------------------------------------- interactions
def test_bad_rows_are_counted_with_their_place(tmp_path: Path) -> None:
    rows = [
        "u,a,1,1",
        ",a,1,1",
        "u, ,1,1",
        "u,a,,1",
        "u,a,soon,1",
        "u,a,-4,1",
        "u,a,1,nan",
        "u,a,1,",
        "u,a,1,inf",
        "u,a",
    ]
    rows += ["u,a,2,1,9", "u,b,3,0", " u , b ,nan,0"]
    data = go(tmp_path, rows)
    assert data.timestamps is not None
    assert data.timestamps.tolist() == [1, 3]
    assert skipped(data) == {
        "row has not the 4 columns of the header": (2, ["clicks.csv:11 2 columns", "clicks.csv:12 5 columns"]),
        "empty user id": (1, ["clicks.csv:3 ''"]),
        "empty item id": (1, ["clicks.csv:4 ' '"]),
        "no usable time in column 'time'": (
            4,
            ["clicks.csv:5 ''", "clicks.csv:6 'soon'", "clicks.csv:7 '-4'", "clicks.csv:14 'nan'"],
        ),
        "no usable label in column 'label': give numbers, yes and no, or name its positives (--positive)": (
            3,
            ["clicks.csv:8 'nan'", "clicks.csv:9 ''", "clicks.csv:10 'inf'"],
        ),
    }


def test_bad_lines_of_json(tmp_path: Path) -> None:
    good = '{"user": 1, "item": "a", "time": 1, "label": true}\n'
    lines = (
        good + "nonsense\n\n[1]\n" + '{"user": null, "item": "a", "time": 1, "label": 1}\n{"user": 1}\n{"user"' + "\n"
    )
    data = go(tmp_path, lines + good, "clicks.jsonl")
    assert data.n_interactions == 2
    assert skipped(data) == {
        "not a JSON object": (3, ["clicks.jsonl:2 'nonsense'", "clicks.jsonl:3 '[1]'", "clicks.jsonl:6 '{\"user\"'"]),
        "empty user id": (1, ["clicks.jsonl:4 None"]),
        "empty item id": (1, ["clicks.jsonl:5 None"]),
    }


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    rows = HEADER.encode() + b"\nu,caf\xe9,1,1\nu,\xff,2\nu,b,3,0\n"
    assert go(tmp_path, rows).item_ids.tolist() == ["café", "b"]
    data = go(tmp_path, rows, encoding="utf-8", overwrite=True)
    assert data.item_ids.tolist() == ["b"]
    assert sorted(count for count, _ in skipped(data).values()) == [1, 1, 2]


@pytest.mark.parametrize(
    ("rows", "name", "words"),
    [
        (b"", "clicks.csv", "is empty"),
        (b"\n\n", "clicks.csv", "nothing but blank lines"),
        (HEADER.encode(), "clicks.csv", "no interaction"),
        ((HEADER + "\nu,a,1,1\n").encode("utf-16-le"), "clicks.csv", "--encoding utf-16-le"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "clicks.csv", "binary"),
        (b"no gzip", "clicks.csv.gz", "cannot be read"),
        (b"no parquet", "clicks.parquet", "not a Parquet file"),
        (b"PAR1 broken", "clicks.parquet", "cannot be read"),
        (b"[1]\n", "clicks.jsonl", "JSON object"),
        (b"x", "clicks.xlsx", ".xlsx is no known format"),
        (HEADER.encode() + b"\nu,a,,1\nu,b,x,1\n", "clicks.csv", "no usable time in column 'time' of any row"),
        (HEADER.encode() + b"\n,a,1,1\n", "clicks.csv", "empty user id"),
        (HEADER.encode() + b"\nu,a,1,x\n", "clicks.csv", "no usable label"),
    ],
)
def test_files_that_cannot_be_imported(rows: bytes, name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        go(tmp_path, rows, name)
    assert words in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_truncated_gzip_and_an_unpaired_quotation_mark(tmp_path: Path) -> None:

    rows = "\n".join([HEADER, *clicks([f"item{i * 7919 % 10_007}" for i in range(20_000)])]).encode()
    with pytest.raises(UserError, match=r"clicks\.csv\.gz cannot be read"):
        go(tmp_path, gzip.compress(rows)[:-3000], "clicks.csv.gz")
    assert not (tmp_path / "out").exists()
    data = go(tmp_path, rows + b'\nu,"a,1,1\nu,b,"1,1\n' + rows.partition(b"\n")[2])
    assert data.n_interactions == 40_001 and '"a' in data.item_ids
    assert skipped(data) == {
        "quotation mark that nothing closes (row kept, the mark stands for itself)": (
            2,
            ['clicks.csv: "a', 'clicks.csv: "1'],
        ),
        "no usable time in column 'time'": (1, ["clicks.csv:20003 '\"1'"]),
    }


def test_a_table_that_is_left_early_calls_nobody_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow reads ahead in threads of its own: one that calls Python while the interpreter ends aborts the process."""
    calls = []
    whole = lines.TextFile.blocks

    def slow(*args: Any) -> Iterator[bytes]:
        for block in whole(*args):
            calls.append(len(block))
            time.sleep(0.005)
            yield block

    monkeypatch.setattr(lines.TextFile, "blocks", slow)
    monkeypatch.setattr(lines, "BLOCK", 1 << 10)
    path = tmp_path / "clicks.csv"
    path.write_text("a,b\n" + "1,2\n1,2,3\n" * 20_000)
    report = ImportReport()
    batches = open_delimited(path, report, ",").batches(["a"])
    assert len(next(batches).rows)
    batches.close()
    before = len(calls)
    time.sleep(0.1)
    assert len(calls) == before < 100
    assert report.skipped["row has not the 2 columns of the header"].count > 0  # of what was read


def test_a_file_without_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", 1 << 12)
    monkeypatch.setattr(lines, "MAX_LINE", 1 << 14)
    for name, start in (
        ("clicks.csv", HEADER + "\n"),
        ("clicks.jsonl", '{"user": 1, "item": 2, "time": 1, "label": 1}\n'),
    ):
        with pytest.raises(UserError, match="a line is longer than"):
            go(tmp_path, start + "x" * (1 << 17), name)
    assert not (tmp_path / "out").exists()


def test_marks_before_the_first_byte_of_a_table(tmp_path: Path) -> None:
    """The byte order mark is no part of the first value, in any format."""
    line = '{"user": "u", "item": "a", "time": 1, "label": 1}\n'
    assert go(tmp_path, "\ufeff" + line * 2, "clicks.jsonl").n_interactions == 2
    assert go(tmp_path, "\ufeff" + HEADER + "\nu,a,1,1\n", overwrite=True).n_interactions == 1
    with pytest.raises(UserError, match="nothing but blank lines"):
        go(tmp_path, "\ufeff\n \n", overwrite=True)
    with pytest.raises(UserError, match="the header, its first line, cannot be read: field larger"):
        go(tmp_path, HEADER + "," + "x" * 200_000 + "\nu,a,1,1,1\n", overwrite=True)


def test_labels_beyond_float32(tmp_path: Path) -> None:
    assert go(tmp_path, ["u,a,1,1", "u,b,2,1e300"]).item_ids.tolist() == ["a"]


def test_one_user_only_and_no_positive_label(tmp_path: Path) -> None:
    data = go(tmp_path, ["u,a,1,0", "u,b,2,0", "u,c,3,0"])
    assert (data.n_users, data.n_interactions) == (1, 3)
    notes = ImportReport.load(data.path / "import.json").notes
    assert any("no positive label" in note and "'label'" in note for note in notes)


# --------------------------------------------------------------------------------------------------- the output folder
def test_an_output_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        go(tmp_path, clicks(["a", "b"]), out=tmp_path / "file" / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="not a rawrec dataset"):
            go(tmp_path, clicks(["a", "b"]), out=tmp_path / "other", overwrite=overwrite)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("name", ["write_fragments", "pq.ParquetWriter"])
def test_a_full_or_read_only_output_folder(
    code: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    holder, _, attribute = name.rpartition(".")
    monkeypatch.setattr(getattr(parts_module, holder) if holder else parts_module, attribute, refuse)
    with pytest.raises(UserError, match="full" if code == errno.ENOSPC else "read-only"):
        go(tmp_path, clicks(["a", "b"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clicks.csv"]


CHILD = """
import sys
from pathlib import Path
from rawrec.sources.table import import_table
folder = Path(sys.argv[1])
print("ready", flush=True)
while True:
    import_table(folder / "clicks.csv", "user", "item", time="time", labels=["label"], image_dir=folder / "images",
                 out=folder / "out", overwrite=True, progress=False)
"""


def test_an_import_killed_at_any_moment(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(40):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(encoded(noise(), "JPEG"))
    rows = clicks([str(i % 60) for i in range(5000)])
    (tmp_path / "clicks.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    moments = random.Random(0)
    for _ in range(4):
        child = forked.Process([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0.02, 0.4))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if (tmp_path / "out").exists():
            whole(Dataset.open(tmp_path / "out"))
    whole(go(tmp_path, rows, image_dir=tmp_path / "images", overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clicks.csv", "images", "out"]


def whole(data: Dataset) -> None:
    assert (data.n_items, data.n_interactions, int(data.present("image").sum())) == (60, 5000, 40)
    assert len(data.split()) == len(data.label()) == 5000
