"""`import webdataset`: samples, fields, names of shards, and archives that are damaged or hostile."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rawrec import cli
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.media import shards as shard_files
from rawrec.sources.media import tar
from rawrec.sources.media.shards import expand
from rawrec.sources.tables.json_lines import HALF
from rawrec.sources.webdataset import import_webdataset

Import = Callable[..., Dataset]
Entry = tuple[str, bytes]


def picture(colour: str = "red", kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, kind)
    return buffer.getvalue()


def sample(key: str, **meta: Any) -> list[Entry]:
    return [(f"{key}.jpg", picture()), (f"{key}.json", json.dumps(meta).encode())]


def shard(
    path: Path, entries: Sequence[Entry | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT, encoding: str = "utf-8"
) -> Path:
    """Writes a tar archive, gzipped if it is called so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=form, encoding=encoding) as file:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                file.addfile(entry)
                continue
            member = tarfile.TarInfo(entry[0])
            member.size = len(entry[1])
            file.addfile(member, io.BytesIO(entry[1]))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Import:
    """`import_webdataset` into a new folder, with clicks on the items a, b and c."""
    clicks = tmp_path / "clicks.tsv"
    clicks.write_text("user\titem\ttime\n" + "".join(f"u{i % 4}\t{'abc'[i % 3]}\t{i}\n" for i in range(12)))

    def go(*shards: Path | str, **options: Any) -> Dataset:
        settings = {"out": tmp_path / "out", "time": "time", "progress": False, "overwrite": True, **options}
        return import_webdataset([str(s) for s in shards], clicks, "user", "item", **settings)

    return go


def report(data: Dataset) -> ImportReport:
    return ImportReport.load(data.path / "import.json")


def counts(data: Dataset) -> dict[str, int]:
    return {reason: entry.count for reason, entry in report(data).skipped.items()}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_samples_become_items(name: str, form: int, tmp_path: Path, run: Import) -> None:
    front, note = picture("blue", "PNG"), "Grüße\n"
    entries = [
        ("a.jpg", picture()), ("a.front.PNG", front), ("a.txt", note.encode()), ("a.cls", b"7\n"),
        ("a.json", json.dumps({"title": "One", "tags": ["x", "y"], "price": 3.5, "odd": "\ud800"}).encode()),
        ("./b.png", front), ("./b.jpg", picture()), ("./b.json", b'{"title": null, "tags": "y|z", "price": "none"}'),
    ]  # fmt: skip
    data = run(shard(tmp_path / name, entries, form), text=["title", "odd"], category=["tags"], numeric=["price"])
    assert data.item_ids.tolist() == ["a", "b", "c"]
    assert data.images("image", [0, 1, 2]) == [[picture()], [front, picture()], []]
    assert data.images("image_front", [0, 1]) == [[front], []]
    assert data.texts("text", [0, 1]) == [["Grüße"], []]
    assert data.texts("title", [0, 1]) == [["One"], []]
    assert data.texts("odd", [0]) == [["\\ud800"]]
    assert data.categorical("cls")[2] == ["7"]
    ends, codes, words = data.categorical("tags")
    assert [[words[c] for c in codes[ends[i] : ends[i + 1]]] for i in range(3)] == [["x", "y"], ["y", "z"], []]
    assert data.numeric("price")[0] == 3.5
    assert counts(data) == {"items: price is no number (kept, empty)": 1, HALF: 1}
    assert report(data).kept["images"] == 4


def test_keys_of_the_json_as_ids_and_those_not_asked_for(tmp_path: Path, run: Import) -> None:
    entries = [*sample("000", sku="a", brand="q"), *sample("001", sku="b"), *sample("002")]
    data = run(shard(tmp_path / "s.tar", entries), item_key="sku")
    assert data.item_ids.tolist() == ["a", "b", "c"]
    assert counts(data) == {"items: empty item id": 1}
    assert report(data).skipped["items: empty item id"].examples == ["s.tar:3 None"]
    assert "keys of the JSON that were not asked for: brand" in report(data).notes


def test_only_the_pictures_that_are_named(tmp_path: Path, run: Import) -> None:
    entries = [("a.jpg", picture()), ("a.front.jpg", picture()), ("a.back.png", picture("blue", "PNG"))]
    data = run(shard(tmp_path / "s.tar", entries), image=[".back.png", "jpg"])
    assert data.fields.image == ["image_back", "image"]
    assert data.images("image_back", [0]) == [[picture("blue", "PNG")]]


def test_many_shards_in_small_batches(tmp_path: Path, run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "SAMPLES_AT_ONCE", 2)
    monkeypatch.setattr(shard_files, "SURVEYED", 4)
    for i in range(3):
        late = [(f"x/{i}-4.late.txt", b"never seen at the start")] if i == 2 else []
        shard(tmp_path / f"s-{i:02}.tar", [e for j in range(5) for e in sample(f"x/{i}-{j}", n=j)] + late)
    data = run(f"{tmp_path}/s-{{00..02}}.tar", numeric=["n"])
    assert data.item_ids.tolist()[:15] == [f"x/{i}-{j}" for i in range(3) for j in range(5)]
    assert data.numeric("n")[:15].tolist() == [0, 1, 2, 3, 4] * 3
    assert counts(data) == {"file of a field that none of the first 4 samples has": 1}


def test_names_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shard_files, "MAX_SHARDS", 1000)
    for name in ("a-008.tar", "a-009.tar", "a-010.tar", "b.tar", "c{1}.tar"):
        Path(name).touch()
    assert [str(p) for p in expand(["a-{008..010}.tar"])] == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert [str(p) for p in expand(["{b,a-{008,009}}.tar", "b.tar"])] == ["b.tar", "a-008.tar", "a-009.tar"]
    assert [str(p) for p in expand(["a-*.tar"])] == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert [str(p) for p in expand(["c{1}.tar"])] == ["c{1}.tar"]
    with pytest.raises(UserError, match=r"a-011\.tar does not exist or is not a file \(1 of 2 shards\)"):
        expand(["a-{010..011}.tar"])
    for name in ("{0..999999999999}", "{9..1}", "{1,2}" * 40):
        with pytest.raises(UserError, match=r"shards"):
            expand([name])
    with pytest.raises(UserError, match=r"no file is called z\*\.tar"):
        expand(["z*.tar"])


def test_what_cannot_be_used_is_counted(tmp_path: Path, run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "MAX_WORDS", 100)
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    pipe, folder = tarfile.TarInfo("pipe.jpg"), tarfile.TarInfo("folder.d")
    pipe.type, folder.type = tarfile.FIFOTYPE, tarfile.DIRTYPE
    entries = [
        ("a.jpg", picture()), ("a.json", b"{broken"), ("a.jpg", picture("blue")), ("a.npy", b"..."),
        ("a.txt", b"caf\xe9"),
        ("b.txt", b"x" * 101), ("b.json", b"[" * 90), ("b.jpg", b"no picture"),
        link, pipe, folder,
        ("/etc/c.jpg", picture()), ("../c.jpg", picture()), ("x/../../c.jpg", picture()),
        ("noextension", b""), (".hidden", b""), ("__meta__.json", b"{}"),
        ("a.jpg", picture("green")),
    ]  # fmt: skip
    data = run(shard(tmp_path / "s.tar", entries))
    assert data.item_ids.tolist() == ["a", "b", "c"]
    assert data.images("image", [0, 1, 2]) == [[picture()], [], []]
    assert data.texts("text", [0, 1]) == [["caf\\xe9"], []]
    assert counts(data) == {
        "JSON of a sample is no object (sample kept without)": 2,
        "file that its sample has already (the first is kept)": 1,
        "file of a kind that is not read": 1,
        "bytes that are not utf-8 (kept, such a byte as \\xe9; a row whose id holds one is left out)": 1,
        "file of a shard larger than 0 MiB": 1,
        "image: not a picture of a known format": 1,
        "link in a shard (not followed)": 1,
        "pipe in a shard (not followed)": 1,
        "unsafe name in a shard (leads out of it)": 3,
        "file of a shard without a key and an extension": 3,
        "duplicate item id (the first row is kept)": 1,
    }
    assert {path.name for path in tmp_path.iterdir()} == {"clicks.tsv", "s.tar", "out"}  # nothing was unpacked


def test_samples_without_pictures_and_large_samples(
    tmp_path: Path, run: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_files, "MAX_SAMPLE", 2 * len(picture()))
    entries = [("a.txt", b"words"), *((f"b.{i}.jpg", picture()) for i in range(3)), ("c.jpg", picture())]
    data = run(shard(tmp_path / "s.tar", entries))
    assert [len(data.images(name, [1])[0]) for name in ("image_0", "image_1", "image_2")] == [1, 1, 0]
    found = report(data).skipped
    assert found["sample without a picture (kept)"].examples == ["s.tar:1 'a'"]
    assert sum(entry.count for reason, entry in found.items() if reason.startswith("file of a sample")) == 1


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_a_shard_that_is_cut_off(name: str, tmp_path: Path, run: Import) -> None:
    whole = [e for key in "abc" for e in sample(key, noise=random.Random(key).randbytes(3000).hex())]
    path, after = shard(tmp_path / name, whole), shard(tmp_path / "t.tar", sample("z"))
    data = path.read_bytes()
    seen = set()
    for size in range(0, len(data.rstrip(b"\0")), 1700):
        path.write_bytes(data[:size])
        result = run(path, after)
        assert list(counts(result)) == ["shard is damaged (what stands before is in)"]
        assert result.images("image", result.item_rows(["z"])) == [[picture()]]
        seen.add(sum(len(found) for found in result.images("image", result.item_rows(["a", "b", "c"]))))
    assert seen == {0, 1, 2, 3}


def test_a_damaged_header_ends_the_shard(tmp_path: Path, run: Import) -> None:
    path = shard(tmp_path / "s.tar", [*sample("a"), *sample("b")])
    data = bytearray(path.read_bytes())
    at = data.index(b"b.jpg")
    data[at] = ord("q")
    path.write_bytes(data)
    result = run(path)
    assert result.images("image", result.item_rows(["a", "b"])) == [[picture()], []]
    found = report(result).skipped["shard is damaged (what stands before is in)"]
    assert found.examples == ["s.tar: no header where one should be"]


def test_a_bomb_is_given_up(tmp_path: Path, run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "FREE_BYTES", 1 << 20)
    path = shard(tmp_path / "s.tar.gz", [*sample("a"), ("b.mp4", bytes(64 << 20)), *sample("c")])
    assert path.stat().st_size < 1 << 20
    data = run(path)
    assert data.images("image", [0]) == [[picture()]]
    found = report(data).skipped["shard is damaged (what stands before is in)"]
    assert found.examples == ["s.tar.gz: unpacks to more than 50 times its size"]


@pytest.mark.parametrize(
    "size", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\x80\0\0\0\x7f" + b"\xff" * 7, b"-1\0", b"9"]
)
@pytest.mark.parametrize("kind", [b"0", b"x", b"L", b"1", b"Z"])
def test_sizes_that_lie(size: bytes, kind: bytes, tmp_path: Path, run: Import) -> None:
    """A header that claims to be followed by any number of bytes holds none of them in memory."""
    path = shard(tmp_path / "s.tar", [*sample("a"), ("b.jpg", b"x")])
    data = bytearray(path.read_bytes())
    at = data.index(b"b.jpg")
    data[at + 124 : at + 136] = size.ljust(12, b"\0")
    data[at + 156 : at + 157] = kind
    total = sum(data[at : at + 512]) - sum(data[at + 148 : at + 156]) + 8 * 32
    data[at + 148 : at + 156] = b"%06o\0 " % total
    path.write_bytes(data)
    result = run(path)
    assert result.images("image", [0]) == [[picture()]]
    assert "shard is damaged (what stands before is in)" in counts(result)


def test_damage_anywhere_is_no_traceback(tmp_path: Path, run: Import) -> None:
    chance = random.Random(0)
    path = shard(tmp_path / "s.tar", [e for key in "abc" for e in sample(f"{key}/{'y' * 101}", n=1)])
    data = path.read_bytes()
    for _ in range(25):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 5, 50])):
            damaged[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(gzip.compress(damaged) if chance.random() < 0.3 else damaged)
        try:
            assert run(path).n_interactions == 12
        except UserError as error:
            assert "holds no samples" in str(error)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": ["titel"]}, ["text", "'titel'", "did you mean 'title'"]),
        ({"item_key": "id"}, ["item_id", "'id'"]),
        ({"image": ["npy"]}, ["image", "'npy'", "jpg"]),
        ({"text": ["text"]}, ["'text'", "JSON"]),
        ({"time": "when"}, ["time", "'when'"]),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: list[str], tmp_path: Path, run: Import) -> None:
    path = shard(tmp_path / "s.tar", [*sample("a", title="x", text="y"), ("a.txt", b"z")])
    with pytest.raises(UserError) as error:
        run(path, **options)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_shards(tmp_path: Path, run: Import) -> None:
    for name, data in (("empty.tar", b""), ("text.tar", b"words " * 999), ("zeros.tar", bytes(10240))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name} holds no samples"):
            run(tmp_path / name)


def test_command(
    tmp_path: Path, run: Import, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, key in enumerate("abc"):
        shard(tmp_path / f"s{i}.tar", sample(key, title=key))
    words = [f"{tmp_path}/s{{0..2}}.tar", "--user", "user", "--item", "item", "--out", f"{tmp_path}/new", "--json"]

    def call(*more: str) -> int:
        monkeypatch.setattr("sys.argv", ["rawrec", "import", "webdataset", *words, *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0  # type: ignore[return-value]

    assert call() == 2
    assert "Missing option '--interactions'" in capsys.readouterr().err
    assert call("--interactions", f"{tmp_path}/clicks.tsv", "--text", "title", "--time", "time") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["kept"]["items"] == made["kept"]["images"] == 3
    assert Dataset.open(made["dataset"]).texts("title", [1]) == [["b"]]


def test_names_and_words_of_another_encoding(tmp_path: Path, run: Import) -> None:
    """Names that differ in bytes that are none of the encoding do not become one item; NaN is missing."""
    names = ["José", "Josè", "plain"]
    entries = [(f"{name}.{kind}", data) for name in names for kind, data in (
        ("json", json.dumps({"title": name, "price": float("nan")}, ensure_ascii=False).encode("latin-1")),
        ("txt", name.encode("latin-1")))]  # fmt: skip
    path = shard(tmp_path / "s.tar", entries, tarfile.GNU_FORMAT, "latin-1")
    data = run(path, text=["title"], numeric=["price"], encoding="latin-1", allow_empty=True)
    assert data.item_ids.tolist()[:3] == names
    assert data.texts("title", range(3)) == data.texts("text", range(3)) == [[name] for name in names]
    assert not data.present("price").any() and counts(data) == {}
    data = run(path, text=["title"])
    assert "plain" in data.item_ids and not [name for name in data.item_ids if "Jos" in name]
    assert counts(data)["items: id with bytes that are not of the file's encoding (see --encoding)"] == 2
