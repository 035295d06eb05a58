"""What is lost is told: a field that ends up empty stops the import, a large loss is a line of its own."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from test_image_names import fill

import rawrec
import source_samples
from rawrec import cli
from rawrec.data.import_report import ImportReport, Skipped
from rawrec.errors import UserError

CLICKS = pl.DataFrame({"user": ["u"] * 4, "item": list("abcd")})


def take(folder: Path, items: dict[str, Any] | None = None, **options: Any) -> rawrec.Dataset:
    table = None if items is None else pl.DataFrame({"item": list("abcd"), **items})
    return rawrec.import_table(CLICKS, "user", "item", items=table, out=folder / "data", progress=False, **options)


@pytest.mark.parametrize(
    ("items", "options", "said"),
    [
        ({"unit price": ["on request"] * 4}, {"numeric": ["unit price"]},
         r"field 'unit_price' is empty, of 4 items none has it \(items: unit price .*: 4, as items:1 'on request'\)"),
        ({"name": [" "] * 4}, {"text": ["name"]}, r"'name' is empty, of 4 items none has it \(nothing in any row\)"),
        ({"kind": [None] * 4, "name": ["x", *[None] * 3]}, {"text": ["name"], "category": ["kind"]}, "^field 'kind'"),
        (None, {"image_dir": "media"}, r"'image' is empty.*file of the image folder that no item names: 2, as x/0.jpg"),
        ({"photo": ["1.jpg"] * 4}, {"image_path": ["photo"], "image_dir": "media"},
         r"image: no such file in \S+media: 4, as 1.jpg"),
    ],
)  # fmt: skip
def test_a_field_that_ends_up_empty(
    tmp_path: Path, items: dict[str, Any] | None, options: dict[str, Any], said: str
) -> None:
    fill(tmp_path / "media", "x/0.jpg", "x/1.jpg")
    options = {name: tmp_path / value if name == "image_dir" else value for name, value in options.items()}
    with pytest.raises(UserError, match=said) as raised:
        take(tmp_path, items, **options)
    assert "--allow-empty" in str(raised.value) and not (tmp_path / "data").exists()
    data = take(tmp_path, items, allow_empty=True, **options)
    assert len(data.report.empty_fields()) == 1


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "media", "x/0.jpg")
    CLICKS.write_csv(tmp_path / "clicks.csv")
    words = ["rawrec", "import", "table", "--interactions", str(tmp_path / "clicks.csv"), "--user", "user", "--item"]
    words += ["item", "--image-dir", str(tmp_path / "media"), "--out", str(tmp_path / "data")]
    for more, code, said in (
        ([], 2, "field 'image' is empty, of 4 items"),
        (["--image-name", "{item}.png", "--image-name", "x"], 2, "--image-name is given twice"),
        (["--image-dir", "x"], 2, "--image-dir is given twice"),
        (["--allow-empty"], 0, "! field 'image' is empty: no item has it"),
    ):
        monkeypatch.setattr("sys.argv", [*words, *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or 0) == code and said in " ".join("".join(capsys.readouterr()).split())


@pytest.mark.parametrize(
    ("source", "words", "empty"),
    [
        ("movielens", "ml-latest-small --posters other", "poster"),
        ("movielens", "ml-latest-small --image-url-table urls.csv", "image"),
        ("recbole", "ml-1m --text movie_title", "movie_title"),
        ("amazon", "--reviews reviews_Baby_5.json.gz --meta meta_Baby.json.gz --image-urls keep", "image_url"),
        ("microlens", "MicroLens-50k --covers other", "cover"),
        ("pixelrec", "PixelRec50K --covers other", "cover"),
        ("mind", "MIND --image-url-table urls.csv", "image"),
        ("mmrec", "baby --image-url-table urls.csv --image-url-field photo", "photo"),
        ("taobao-mm", "Taobao-MM --image-url-table urls.csv", "image"),
        (
            "webdataset",
            "shards/*.tar --interactions clicks.tsv --user user --item isbn --item-key isbn --numeric title",
            "title",
        ),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else value,
)
def test_what_was_asked_for_ends_up_empty_in_every_source(
    source: str, words: str, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    getattr(source_samples, {"taobao-mm": "taobao_mm", "pixelrec": "microlens"}.get(source, source))(tmp_path)
    fill(tmp_path / "other", "nobody.jpg")
    (tmp_path / "urls.csv").write_text("item,url\nnobody,http://127.0.0.1/x.jpg\n")
    if source == "recbole":
        file = tmp_path / "ml-1m" / "ml-1m.item"
        rows = [line.split("\t") for line in file.read_text().splitlines()]
        file.write_text(
            "".join("\t".join([row[0], row[1] if at == 0 else "", *row[2:]]) + "\n" for at, row in enumerate(rows))
        )
    if source == "amazon":
        source_samples.json_lines(tmp_path / "meta_Baby.json.gz", [{"asin": "B000000000", "title": "x"}])
    monkeypatch.chdir(tmp_path)
    for more, code, said in (
        ([], 2, f"field {empty!r} is empty, of"),
        (["--allow-empty"], 0, f"! field {empty!r} is empty: no item has it"),
    ):
        monkeypatch.setattr("sys.argv", ["rawrec", "import", source, *words.split(), "--out", "data", *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = " ".join("".join(capsys.readouterr()).split())
        assert (ended.value.code or 0) == code and said in told, told
        assert Path("data").exists() == (code == 0)


def test_large_losses_are_lines_in_colour() -> None:
    report = ImportReport(read={"interactions": 1000, "items": 100, "images": 90})
    report.skipped = {
        "empty user id": Skipped(51, ["x.csv:3 ''"]),
        "no usable time": Skipped(50),
        "items: price is no number (left empty)": Skipped(6, ["i.csv:2 'x'"]),
        "image: damaged picture": Skipped(4),
        "file of the image folder that no item names": Skipped(10),
        "image: frame between those that were sampled": Skipped(900),
        "user or item with too few rows: not in the 5-core": Skipped(900),
    }
    assert report.losses() == [
        "5.1% of 1,000 interactions: empty user id: 51, as x.csv:3 ''",
        "6.0% of 100 items: items: price is no number (left empty): 6, as i.csv:2 'x'",
        "10.0% of 100 images: file of the image folder that no item names: 10",
    ]
    out = io.StringIO()
    report.print_table(Console(file=out, width=100, force_terminal=True, color_system="standard"))
    assert "\x1b[1;33m! 5.1% of 1,000 interactions" in out.getvalue()


def said(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", ["rawrec", "import", "table", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    return " ".join("".join(capsys.readouterr()).split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--positive", "4"], "positive 4: of which column? Name it by label (--label COLUMN), or say COLUMN>=4"),
        (["--items", "items.csv", "--category", "kind,brand"],
         "one option names one column: --category kind --category brand."),
        (["--items", "items.csv", "--image-path", "photo", "--image-dir", "wrong"],
         "image: no such file in wrong: 2, as 1.jpg"),
    ],
    ids=["no label", "two columns in one option", "wrong folder"],
)  # fmt: skip
def test_what_to_type_is_said(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong").mkdir()
    CLICKS.with_columns(stars=5).write_csv("clicks.csv")
    items = {"item": ["a", "b"], "kind": ["x", "y"], "brand": ["v", "w"], "photo": ["1.jpg", "2.jpg"]}
    pl.DataFrame(items).write_csv("items.csv")
    asked = ["--interactions", "clicks.csv", "--user", "user", "--item", "item", "--out", "data"]
    assert told in said([*asked, *words], monkeypatch, capsys)


def test_lists_and_objects_are_no_ids(tmp_path: Path) -> None:
    """A text that only looks like one is; a key within an object can be named."""
    users = [{"id": "u"}, "v", "[w]", "x", "x"]
    rows = [{"user": user, "item": item} for user, item in zip(users, ["a", ["b"], "{c}", "d", "e"], strict=True)]
    (tmp_path / "clicks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = rawrec.import_table(tmp_path / "clicks.jsonl", "user", "item", out=tmp_path / "a", progress=False)
    assert data.user_ids.tolist() == ["[w]", "x"] and data.item_ids.tolist() == ["{c}", "d", "e"]
    found = {reason.split(",")[0]: one.examples for reason, one in data.report.skipped.items()}
    assert found == {
        "user id that is a list or an object": ["""clicks.jsonl:1 '{"id":"u"}'"""],
        "item id that is a list or an object": ["""clicks.jsonl:2 '["b"]'"""],
    }
    rows = [{"user": {"id": [n]}, "item": 1} for n in range(4)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"nothing to import.*4 skipped because: user id that is a list or an object"):
        rawrec.import_table(tmp_path / "x.jsonl", "user.id", "item", out=tmp_path / "b", progress=False)
