"""Pictures by address through the imports: columns and tables of addresses, going on after a kill, the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import forked
import source_samples
from rawrec import cli
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.amazon import import_amazon
from rawrec.sources.download.urls import UrlPictures, addresses
from rawrec.sources.mmrec import import_mmrec
from rawrec.sources.movielens import import_movielens
from rawrec.sources.recbole import import_recbole
from rawrec.sources.table import import_table
from web import Server, picture

LOCAL = UrlPictures(allow_private=True)


@pytest.fixture
def web() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    path = tmp_path / "clicks.csv"
    path.write_text("user,item\n" + "".join(f"u{n % 3},i{n % 4}\n" for n in range(12)))
    return path


def report(data: Dataset) -> ImportReport:
    return ImportReport.load(data.path / "import.json")


def numbers(data: Dataset, field: str = "image") -> dict[str, list[int]]:
    """Item -> the numbers of its pictures."""
    known = {picture(n): n for n in range(50)}
    pictures = data.images(field, range(data.n_items))
    return {item: [known[p] for p in found] for item, found in zip(data.item_ids.tolist(), pictures, strict=True)}


# -------------------------------------------------------------------------------------------------------------- columns
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_of_a_table(kind: str, web: Server, clicks: Path, tmp_path: Path) -> None:
    one, two, three = (web.url(f"ok/{n}") for n in (1, 2, 3))
    rows: dict[str, list[Any]] = {
        "item": ["i0", "i1", "i2", "i3"],
        "cover": [one, f"{one}|{two}", "", f"{two}  {three}"],
        "more": [json.dumps([two, three]), "", "[]", three],
    }
    path = tmp_path / f"items.{kind}"
    if kind == "csv":
        cells = [[f'"{v}"'.replace('["', '[""').replace('"]', '""]').replace('", "', '"", ""') for v in row]
                 for row in zip(*rows.values(), strict=True)]  # fmt: skip
        path.write_text("\n".join([",".join(rows), *map(",".join, cells)]) + "\n")
    elif kind == "jsonl":
        rows["more"] = [[two, three], None, [], three]
        path.write_text(
            "\n".join(json.dumps(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True))
        )
    else:
        rows["more"] = [[two, three], None, [], [three]]
        pq.write_table(pa.table(rows), path)
    data = import_table(
        clicks, "user", "item", out=tmp_path / "out", items=path, image_url=["cover", "more"], pictures=LOCAL,
        progress=False,
    )  # fmt: skip
    assert data.fields.image == ["image"]
    assert numbers(data) == {"i0": [1, 2, 3], "i1": [1, 2], "i2": [], "i3": [2, 3]}
    assert set(web.asked.values()) == {1}
    assert report(data).kept["images"] == 7 and not report(data).skipped
    assert any("out.downloads" in note and "you may delete" in note for note in report(data).notes)


def test_addresses_in_text() -> None:
    values = [
        "http://a/1.jpg",
        " http://a/1 2.jpg ",
        "http://a/1|http://b/2 HTTPS://c/3\nhttp://d/4",
        "http://a/x|y.jpg",
        '["http://a/1", "http://b/2", null]',
        "['http://a/1', 'http://b/2']",
        "[]",
        "",
        None,
        "no address",
    ]
    assert addresses(pa.array(values, pa.string()), "x") == [
        ["http://a/1.jpg"],
        ["http://a/1 2.jpg"],
        ["http://a/1", "http://b/2", "HTTPS://c/3", "http://d/4"],
        ["http://a/x|y.jpg"],
        ["http://a/1", "http://b/2"],
        ["http://a/1", "http://b/2"],
        [],
        [],
        [],
        ["no address"],
    ]


def test_recbole(web: Server, tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\nu\ta\nu\tb\nu\tc\n")
    (tmp_path / "x.item").write_text(
        f"item_id:token\tcover:token\ttitle:token_seq\na\t{web.url('ok/1')}\tT\nb\t\tU\nc\t{web.url('status/404')}\tV\n"
    )
    data = import_recbole(
        tmp_path, out=tmp_path / "out", image_url=["cover"], text=["title"], pictures=LOCAL, progress=False
    )
    assert numbers(data) == {"a": [1], "b": [], "c": []}
    assert data.fields.text == ["title"] and data.fields.categorical == []
    assert report(data).skipped["image: HTTP 404"].examples == [f"c {web.url('status/404')}"]
    with pytest.raises(UserError, match=r"image_url: .* has no column 'covre'; did you mean 'cover'"):
        import_recbole(tmp_path, out=tmp_path / "other", image_url=["covre"], progress=False)


@pytest.mark.parametrize("which,expected", [("all", [1, 2]), ("main", [1]), ("keep", None)])
def test_amazon(which: str, expected: list[int] | None, web: Server, tmp_path: Path) -> None:
    review = {"user_id": "u", "parent_asin": "B000000001", "rating": 5, "timestamp": 1_600_000_000_000}
    images = [{"large": web.url("ok/2"), "variant": "PT01"}, {"hi_res": web.url("ok/1"), "variant": "MAIN"}]
    meta = {"parent_asin": "B000000001", "title": "T", "images": images}
    (tmp_path / "r.jsonl").write_text(json.dumps(review) + "\n")
    (tmp_path / "m.jsonl").write_text(json.dumps(meta) + "\n")
    data = import_amazon(
        tmp_path / "r.jsonl", tmp_path / "m.jsonl", out=tmp_path / "out", image_urls=which,
        pictures=LOCAL if expected else None, progress=False,
    )  # fmt: skip
    if expected is None:
        assert data.fields.image == [] and data.texts("image_url", [0]) == [[web.url("ok/1"), web.url("ok/2")]]
        assert not web.asked and not (tmp_path / "out.downloads").exists()
    else:
        assert data.fields.text == ["title", "description"] and numbers(data) == {"B000000001": expected}


# -------------------------------------------------------------------------------------------------- tables of addresses
def test_a_table_for_sources_without_addresses(web: Server, tmp_path: Path) -> None:
    """Items in no catalogue get their pictures as well; what belongs to nobody is counted."""
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4,1\n1,20,4,2\n1,30,4,3\n1,40,4,4\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,A (1999),x\n20,B,y\n30,C,z\n")
    table = tmp_path / "covers.tsv"
    rows = [(" 10 ", "ok/1"), ("30", "ok/3"), ("10", "ok/2"), ("40", "ok/4"), ("99", "ok/9"), ("", "ok/8"), ("20", "")]
    table.write_text("id\turl\n" + "".join(f"{i}\t{web.url(path) if path else ''}\n" for i, path in rows))
    data = import_movielens(tmp_path, out=tmp_path / "out", pictures=replace(LOCAL, table=table, field="still"))
    assert numbers(data, "still") == {"10": [1, 2], "20": [], "30": [3], "40": [4]}
    assert {reason: (entry.count, entry.examples) for reason, entry in report(data).skipped.items()} == {
        "address of a picture without an item id": (1, [f"covers.tsv:7 '{web.url('ok/8')}'"]),
        "address of a picture whose item is not in the dataset": (1, ["99"]),
    }


def test_a_table_beside_columns(web: Server, clicks: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text(f"item,cover\ni0,{web.url('ok/1')}\ni1,\n")
    table = tmp_path / "more.jsonl"
    table.write_text("".join(
        json.dumps({"url": [web.url("ok/2"), web.url("ok/1")], "key": key}) + "\n" for key in ("i0", "i1")
    ))  # fmt: skip
    pictures = replace(LOCAL, table=table, table_id="key", table_url="url", downloads=tmp_path / "kept")
    data = import_table(
        clicks,
        "user",
        "item",
        out=tmp_path / "out",
        items=items,
        image_url=["cover"],
        pictures=pictures,
        progress=False,
    )
    assert numbers(data) == {"i0": [1, 2], "i1": [2, 1], "i2": [], "i3": []}
    assert (tmp_path / "kept").is_dir() and not (tmp_path / "out.downloads").exists()


def test_mmrec(web: Server, tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("userID\titemID\n0\t0\n0\t1\n1\t2\n")
    (tmp_path / "covers.csv").write_text(f"item,url\n0,{web.url('ok/5')}\n2,{web.url('ok/6')}\n")
    data = import_mmrec(tmp_path, out=tmp_path / "out", pictures=replace(LOCAL, table=tmp_path / "covers.csv"))
    assert numbers(data) == {"0": [5], "1": [], "2": [6]}


def test_mistakes_are_named(clicks: Path, tmp_path: Path) -> None:
    one, empty = tmp_path / "one.csv", tmp_path / "empty.csv"
    one.write_text("id\n1\n")
    empty.write_text("id,url\n1,\n2, \n")
    good = tmp_path / "good.csv"
    good.write_text("id,url\nother,http://127.0.0.1:9/x\n")

    def fails(words: str, **given: Any) -> None:
        with pytest.raises(UserError, match=words):
            pictures = UrlPictures(**given)
            import_table(clicks, "user", "item", out=tmp_path / "out", pictures=pictures, progress=False)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["clicks.csv", "empty.csv", "good.csv", "one.csv"]

    fails("absent.csv does not exist", table=tmp_path / "absent.csv")
    fails("one.csv has one column, 'id': item ids and addresses are needed", table=one)
    fails("empty.csv holds no address: look at the column 'url'", table=empty)
    fails("has no column 'urls'; did you mean 'url'", table=good, table_url="urls")
    fails("per_host=0: use 1 to 64", per_host=0)
    fails("per_second=-1: use a number above 0", per_second=-1.0)
    fails("name that table", table_id="id")
    fails("item field 'no good'", table=good, field="no good")
    with pytest.raises(UserError, match="column 'cover' describes items"):
        import_table(clicks, "user", "item", out=tmp_path / "out", image_url=["cover"], progress=False)
    pictures = UrlPictures(table=good)
    with pytest.raises(UserError, match="field 'image' is empty, of 4 items none has it"):
        import_table(clicks, "user", "item", out=tmp_path / "out", pictures=pictures, progress=False)
    data = import_table(
        clicks, "user", "item", out=tmp_path / "out", pictures=pictures, allow_empty=True, progress=False
    )
    assert any("no item has the address of a picture" in note for note in report(data).notes)
    assert not (tmp_path / "out.downloads").exists()


# ----------------------------------------------------------------------------------------------------- the command line
def shop(folder: Path, web: Server, count: int, path: str = "ok") -> list[str]:
    """Writes tables whose items have a picture each; the words of their import."""
    (folder / "items.csv").write_text(
        "item,cover\n" + "".join(f"i{n},{web.url(f'{path}/{n}')}\n" for n in range(count))
    )
    (folder / "clicks.csv").write_text("user,item\n" + "".join(f"u{n % 3},i{n}\n" for n in range(count)))
    words = "import table --interactions clicks.csv --user user --item item --items items.csv --image-url cover"
    return [*words.split(), "--allow-private", "--out", "data"]


def start(folder: Path, words: list[str]) -> forked.Process:
    return forked.Process(
        [sys.executable, "-m", "rawrec.cli", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["rawrec", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), " ".join((out + err).split())


@pytest.mark.parametrize(
    "sample,words",
    [
        ("table", "table --interactions clicks.csv --user user --item book"),
        ("movielens", "movielens ml-latest-small"),
        ("mmrec", "mmrec baby"),
        ("recbole", "recbole ml-1m"),
        ("amazon", "amazon --reviews ratings_Baby.csv"),
        ("microlens", "microlens MicroLens-50k"),
        ("microlens", "pixelrec PixelRec50K"),
        ("mind", "mind MIND"),
        ("impressions", "impressions --impressions feed.csv --user visitor --items-shown cards --clicks tapped "
                        "--clicks-are flags"),
        ("huggingface", "huggingface --interactions log --user user_id --item book"),
        ("webdataset", "webdataset shards/* --interactions clicks.tsv --user user --item book"),
    ],
)  # fmt: skip
def test_every_import_takes_a_table_of_addresses(
    sample: str, words: str, web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if sample == "huggingface":
        pytest.importorskip("datasets")
    getattr(source_samples, sample)(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["import", *words.split(), "--out", "data"]
    code, said = run(command, monkeypatch, capsys)
    assert code == 0, said
    ids = Dataset.open(tmp_path / "data").item_ids.tolist()
    rows = "".join(f"{item},{web.url(f'ok/{n}')}\n" for n, item in enumerate(ids) if n != 1)
    (tmp_path / "addresses.csv").write_text("item,url\n" + rows)
    table = ["--image-url-table", "addresses.csv", "--image-url-field", "shown", "--allow-private", "--overwrite"]
    code, said = run([*command, *table], monkeypatch, capsys)
    assert code == 0, said
    data = Dataset.open(tmp_path / "data")
    assert numbers(data, "shown") == {item: [n] if n != 1 else [] for n, item in enumerate(ids)}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_import_goes_on_where_it_stood(
    end: signal.Signals,
    web: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, web.pause = shop(tmp_path, web, 40), 0.05
    process = start(tmp_path, [*words, "--per-host", "2"])
    while web.asked.total() < 10:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(end)
    _, err = process.communicate(timeout=20)
    assert process.returncode == (-9 if end == signal.SIGKILL else 130) and "Traceback" not in err
    assert not (tmp_path / "data").exists()
    kept = {path.name for path in (tmp_path / "data.downloads").glob("??/??/*") if len(path.name) == 64}
    assert 5 <= len(kept) < 40
    before, web.pause = web.asked.copy(), 0.0
    monkeypatch.chdir(tmp_path)
    code, said = run(words, monkeypatch, capsys)
    assert code == 0 and f"{40 - len(kept)} downloaded" in said
    assert (web.asked - before).total() == 40 - len(kept), "what was there was asked for again"
    data = Dataset.open(tmp_path / "data")
    assert numbers(data) == {f"i{n}": [n] for n in range(40)}
    whole, _ = run([*words[:-1], "other", "--downloads", "new"], monkeypatch, capsys)
    assert whole == 0 and Dataset.open(tmp_path / "other").meta.digest == data.meta.digest


def test_what_failed_is_named_and_asked_again(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shop(tmp_path, web, 3, "later/404/1")
    monkeypatch.chdir(tmp_path)
    code, said = run(words, monkeypatch, capsys)
    assert code == 2 and "field 'image' is empty, of 3 items none has it (image: HTTP 404: 3" in said
    assert not (tmp_path / "data").exists() and web.asked.total() == 3  # what was asked is known the next time
    words.append("--allow-empty")
    code, said = run(words, monkeypatch, capsys)
    assert code == 0 and "HTTP 404" in said
    assert "could not be had: 3" in said and "data.downloads/failed.jsonl" in said
    assert "--overwrite --retry-failed" in said
    code, said = run([*words, "--overwrite"], monkeypatch, capsys)
    assert code == 0 and "could not be had: 3" in said and web.asked.total() == 3
    code, said = run([*words, "--overwrite", "--retry-failed"], monkeypatch, capsys)
    assert code == 0 and "3 downloaded" in said and "could not be had" not in said
    assert Dataset.open(tmp_path / "data").present("image").all()


def test_options_of_the_command_line(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shop(tmp_path, web, 3)
    monkeypatch.chdir(tmp_path)
    plain = [word for word in words if word not in ("--image-url", "cover", "--allow-private")]
    for idle in (["--downloads", "x"], ["--retry-failed"], ["--allow-private"], ["--per-host", "3"],
                 ["--image-url-table-id", "item"], ["--image-url-field", "cover"]):  # fmt: skip
        code, said = run([*plain, *idle], monkeypatch, capsys)
        assert code == 2 and f"{idle[0]} concerns pictures given by address" in said
    assert not (tmp_path / "data").exists()
    table = ["--image-url-table", "items.csv", "--image-url-field", "cover", "--per-second", "100", "--per-host", "1"]
    code, said = run([*plain, *table, "--allow-empty"], monkeypatch, capsys)
    assert code == 0 and "not public (allow it with --allow-private)" in said and not web.asked
    code, _ = run([*plain, *table, "--allow-private", "--overwrite"], monkeypatch, capsys)
    assert code == 0 and numbers(Dataset.open(tmp_path / "data"), "cover") == {"i0": [0], "i1": [1], "i2": [2]}
