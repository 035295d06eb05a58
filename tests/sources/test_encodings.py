"""Tables that are not UTF-8: read as what they are, or refused; ids that differ in their bytes never become one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.table import import_table
from rawrec.sources.tables import Source, first_lines, lines, open_delimited, open_source

LATIN = ["José", "Josè", "Zoë", "Zoé", "Müller", "Möller", "naïve", "plain"]
CHINESE = ["用户一", "用户二", "用户三", "客户一"]
JAPANESE = ["商品ア", "商品イ", "表示", "ソニー"]


def go(folder: Path, ids: list[str], written: str, **options: Any) -> Dataset:
    """Import a user and an item of each id, written in an encoding."""
    path = folder / "clicks.csv"
    rows = "".join(f"{name},{name}\n" for name in ids)
    path.write_bytes(("user,item\n" + rows).encode(written))
    return import_table(path, "user", "item", out=folder / "out", overwrite=True, progress=False, **options)


def report(data: Dataset) -> ImportReport:
    return ImportReport.load(data.path / "import.json")


def counts(data: Dataset) -> dict[str, int]:
    return {reason: entry.count for reason, entry in report(data).skipped.items()}


def ids(data: Dataset) -> set[str]:
    found = set(data.item_ids.tolist())
    assert found == set(data.user_ids.tolist())
    return found


@pytest.mark.parametrize(
    ("names", "encoding", "note"),
    [
        (LATIN, "utf-8", ""),
        (LATIN, "utf-8-sig", ""),
        (LATIN, "latin-1", "read as cp1252 (Western European)"),
        (["Café “A”", "50 €", "Œuvre", *LATIN], "cp1252", "read as cp1252 (Western European)"),
        (CHINESE, "utf-16", "written in UTF-16"),
        (JAPANESE, "utf-32", "written in UTF-32"),
    ],
)
def test_the_encoding_is_found_out_and_told(names: list[str], encoding: str, note: str, tmp_path: Path) -> None:
    data = go(tmp_path, names, encoding)
    assert ids(data) == set(names)
    assert counts(data) == {}
    assert [text for text in report(data).notes if note and note in text] if note else not report(data).notes


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (CHINESE, "gbk"),
        (CHINESE, "gb18030"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (["Анна", "Инна"], "cp1251"),
    ],
)
def test_others_are_refused_with_a_hint_until_they_are_named(names: list[str], encoding: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"clicks.csv is not written in UTF-8.*{names[0]}.*--encoding"):
        go(tmp_path, names, encoding)
    data = go(tmp_path, names, encoding, encoding=encoding)
    assert ids(data) == set(names)
    assert counts(data) == {}
    assert any("as was told" in note for note in report(data).notes)


def test_headers_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_bytes("用户,物品\n1,2\n3,4\n".encode("gbk"))
    with pytest.raises(UserError, match=r"not written in UTF-8.*用户,物品 \(gb18030\)"):
        import_table(path, "用户", "物品", out=tmp_path / "x", progress=False)
    data = import_table(path, "用户", "物品", encoding="gbk", out=tmp_path / "x", progress=False)
    assert data.item_ids.tolist() == ["2", "4"]


def test_rows_whose_ids_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    whole = "".join(f"é{i},ü{i},ß,tag {i}\n" for i in range(30)).encode()
    bad = b"u\xe9,a,x,1\nu\xe8,a,x,1\nu,b\xe9,x,1\nu,b\xe8,x,1\nu,c,y\xe9,1\nu,c,y\xe8,1\n"
    path.write_bytes(b"user,item,tag,n\n" + whole + bad)
    data = import_table(path, "user", "item", extra=["tag"], out=tmp_path / "x", progress=False)
    assert data.n_interactions == 32
    assert not [name for name in [*data.user_ids, *data.item_ids] if "\\x" in name or "�" in name]
    assert data.column("tag").tolist()[-2:] == ["y\\xe9", "y\\xe8"]
    found = report(data).skipped
    assert {reason.split(" with")[0]: entry.count for reason, entry in found.items() if " id" in reason[:8]} == {
        "user id": 2,
        "item id": 2,
    }
    lines = next(entry for reason, entry in found.items() if reason.startswith("bytes that are not utf-8"))
    assert (lines.count, lines.examples[0]) == (6, "clicks.csv: u\\xe9,a,x,1")


def test_a_file_of_two_encodings_is_refused_or_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_bytes(b"user,item\n" + b"".join(f"é{i},a\n".encode("utf-8" if i % 2 else "latin-1") for i in range(90)))
    with pytest.raises(UserError, match="is not written in UTF-8, or not all of it"):
        import_table(path, "user", "item", out=tmp_path / "x", progress=False)
    data = import_table(path, "user", "item", encoding="utf-8", out=tmp_path / "x", progress=False)
    assert data.user_ids.tolist() == [f"é{i}" for i in range(1, 90, 2)]


def test_what_comes_late_speaks_against_what_was_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", 64)
    monkeypatch.setattr("rawrec.sources.tables.opening.HEAD", 64)
    monkeypatch.setattr(lines, "HEAD", 64)
    path = tmp_path / "clicks.csv"
    plain = b"user,item\n" + b"".join(b"u%d,i%d\n" % (i, i) for i in range(40))
    for first, then in (("latin-1", "utf-8"), ("utf-8", "latin-1")):
        late = "".join(f"é{i},ä{i}\n" for i in range(40))
        path.write_bytes(plain + late.encode(first) + late.encode(then))
        with pytest.raises(UserError, match="is not written in UTF-8, or not all of it"):
            import_table(path, "user", "item", out=tmp_path / "x", progress=False)
    path.write_bytes(plain + late.encode("latin-1"))
    data = import_table(path, "user", "item", out=tmp_path / "x", progress=False)
    assert {f"é{i}" for i in range(40)} <= set(data.user_ids.tolist())


def test_a_separator_behind_half_a_character_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_bytes("user,item\n商品,a\n".encode("shift_jis") + b"u\x8f,b\n\x8f\nx,c\n" + "表,d\n".encode("shift_jis"))
    data = import_table(path, "user", "item", encoding="shift_jis", out=tmp_path / "x", progress=False)
    assert data.user_ids.tolist() == ["商品", "x", "表"]


def test_an_unknown_encoding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="encoding 'gb1803' is unknown; did you mean 'gb18030"):
        go(tmp_path, CHINESE, "gbk", encoding="gb1803")
    for name in ("hex", "idna", "rot13", "", "a\0"):
        with pytest.raises(UserError, match="is unknown"):
            go(tmp_path, CHINESE, "gbk", encoding=name)


def test_utf16_without_its_mark(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"binary file.*--encoding utf-16-be"):
        go(tmp_path, LATIN, "utf-16-be")
    assert ids(go(tmp_path, LATIN, "utf-16-be", encoding="utf-16-be")) == set(LATIN)


def test_every_table_is_of_the_encoding(tmp_path: Path) -> None:
    write: Callable[[str, str], Path] = lambda name, text: _write(tmp_path / name, text)  # noqa: E731
    clicks = write("clicks.jsonl", "".join(json.dumps({"u": u, "i": u}, ensure_ascii=False) + "\n" for u in CHINESE))
    items = write("items.csv.gz", "i,名\n" + "".join(f"{u},{u}\n" for u in CHINESE))
    users = write("users.tsv", "u\t城\n" + "".join(f"{u}\t{u}\n" for u in CHINESE))
    vectors = write("v.csv", "i,vector\n" + "".join(f"{u},1 2\n" for u in CHINESE))
    options = {"encoding": "gb18030", "progress": False, "vectors": {"v": vectors}}
    data = import_table(
        clicks, "u", "i", items=items, text=["名"], users=users, user_category=["城"], out=tmp_path / "x", **options
    )
    assert counts(data) == {}
    assert data.item_ids.tolist() == CHINESE
    assert data.texts(data.fields.text[0], range(4)) == [[name] for name in CHINESE]
    assert data.present("v").all()
    more = write("more.csv", "u,i\n赵,钱\n")
    data = append(data.path, more, "u", "i", encoding="gb18030", progress=False)
    assert (data.user_ids[-1], data.item_ids[-1]) == ("赵", "钱")


def _write(path: Path, text: str) -> Path:
    data = text.encode("gb18030")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_first_lines_and_a_second_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("é,1\nü,2\n".encode("latin-1"))
    assert first_lines(path, 1) == ["é,1"]
    source: Source = open_delimited(path, ImportReport(), ",", columns=["a", "b"])
    for again in (source, source.again()):
        assert [value for batch in again.batches(["a"]) for value in batch.columns["a"].to_pylist()] == ["é", "ü"]
    with pytest.raises(UserError, match="binary"):
        open_source(_bytes(tmp_path / "b.csv", bytes(1000)), ImportReport())


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
