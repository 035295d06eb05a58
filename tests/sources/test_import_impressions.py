"""`import impressions`: lists in every form, clicks as ids and as flags, and lists that do not hold together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.sources.impressions import import_impressions
from rawrec.sources.tables.lists import Lists

LISTS = [("u1", ["a", "b", "c"], ["b"], 100), ("u2", ["b", "d"], [], 200), ("u1", ["d", "a"], ["d", "a"], 300)]
SHOWN = [("u1", "a", 0), ("u1", "b", 1), ("u1", "c", 0), ("u2", "b", 0), ("u2", "d", 0), ("u1", "d", 1), ("u1", "a", 1)]
Import = Callable[..., Dataset]


@pytest.fixture
def run(tmp_path: Path) -> Import:
    """`import_impressions` of a table with the columns user, items and clicks into a new folder."""

    def go(table: Path, **options: Any) -> Dataset:
        out = tmp_path / "out" / str(len(list(tmp_path.rglob("import.json"))))
        return import_impressions(table, "user", "items", "clicks", **{"out": out, "progress": False, **options})

    return go


def report(data: Dataset) -> ImportReport:
    return ImportReport.load(data.path / "import.json")


def reasons(data: Dataset) -> dict[str, list[str]]:
    return {reason: entry.examples for reason, entry in report(data).skipped.items()}


def shown(data: Dataset) -> list[tuple[str, str, int]]:
    users, items = data.user_ids[data.users].tolist(), data.item_ids[data.items].tolist()
    return list(zip(users, items, data.label("click").astype(int).tolist(), strict=True))


def flags(items: list[str], clicks: list[str]) -> list[int]:
    return [int(item in clicks) for item in items]


def json_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def lines(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    path.write_text("\n".join("\t".join(row) for row in [("user", "items", "clicks"), *rows]) + "\n")
    return path


@pytest.mark.parametrize("as_flags", [False, True], ids=["ids", "flags"])
@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json in csv", "bars", "commas", "blanks"])
def test_every_form_gives_the_same(kind: str, as_flags: bool, tmp_path: Path, run: Import) -> None:
    rows = [(user, items, flags(items, c) if as_flags else c) for user, items, c, _ in LISTS]
    if kind == "parquet":
        table = tmp_path / "shown.parquet"
        pq.write_table(
            pa.table({n: [row[i] for row in rows] for i, n in enumerate(("user", "items", "clicks"))}), table
        )
    elif kind == "jsonl":
        table = json_lines(
            tmp_path / "shown.jsonl", [dict(zip(("user", "items", "clicks"), r, strict=True)) for r in rows]
        )
    else:
        between = {"bars": "|", "commas": ", ", "blanks": "  "}.get(kind)
        write = json.dumps if between is None else lambda values: between.join(map(str, values))
        table = lines(tmp_path / "shown.tsv", [(user, write(items), write(clicks)) for user, items, clicks in rows])
    data = run(table)
    assert shown(data) == SHOWN
    assert data.column("position").tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert reasons(data) == {}
    assert report(data).read["lists"] == 3
    notes = " ".join(report(data).notes)
    assert f"clicks are read as {'flags' if as_flags else 'ids'}" in notes
    assert ("between the values" in notes) == (kind in ("bars", "commas", "blanks"))


def test_columns_of_a_list_are_kept_for_each_of_its_rows(tmp_path: Path, run: Import) -> None:
    rows = [
        {
            "user": user,
            "items": items,
            "clicks": clicks,
            "s": 70 + i,
            "q": f"red, shoes {i}",
            "t": at,
            "position": "top",
        }
        for i, (user, items, clicks, at) in enumerate(LISTS)
    ]
    table = json_lines(tmp_path / "shown.jsonl", rows)
    data = run(table, query="q", session="s", time="t", extra=["position"])
    assert data.column("session").tolist() == ["70"] * 3 + ["71"] * 2 + ["72"] * 2
    assert data.column("query").tolist() == ["red, shoes 0"] * 3 + ["red, shoes 1"] * 2 + ["red, shoes 2"] * 2
    assert data.column("source_position").tolist() == ["top"] * 7
    assert data.timestamps is not None
    assert data.timestamps.tolist() == [100] * 3 + [200] * 2 + [300] * 2
    assert data.meta.splits["default"]["kind"] == "time_user"
    data = run(table)
    assert data.column("session").tolist() == ["1"] * 3 + ["2"] * 2 + ["3"] * 2
    statement = data.meta.splits["default"]["statement"]
    assert statement.startswith("At random") and "same 'session'" in statement
    assert data.split().tolist()[:3] in ([0] * 3, [2] * 3) and set(data.split()[:3]) != set(data.split()[5:])


def test_a_column_of_the_table_can_be_the_split(tmp_path: Path, run: Import) -> None:
    rows = [{"user": u, "items": i, "clicks": c, "fold": n} for n, (u, i, c, _) in zip((0, 1, 2), LISTS, strict=True)]
    data = run(json_lines(tmp_path / "shown.jsonl", rows), split=SplitSpec(kind="column", column="fold"))
    assert data.split().tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert data.column("fold").tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_items_of_a_table_and_pictures(tmp_path: Path, run: Import) -> None:
    items = tmp_path / "items.tsv"
    items.write_text("sku\ttitle\tkind\na\tApple\tx|y\nz\tNever shown\t\n")
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / f"{name}.png")
    table = json_lines(tmp_path / "shown.jsonl", [{"user": u, "items": i, "clicks": c} for u, i, c, _ in LISTS])
    pictures = {"image_dir": tmp_path / "pictures", "image_name": "{item}.png"}
    data = run(table, items=items, item_id="sku", text=["title"], category=["kind"], **pictures)
    assert data.item_ids.tolist() == ["a", "z", "b", "c", "d"]
    assert data.texts("title", [0, 1, 2]) == [["Apple"], ["Never shown"], []]
    assert any("3 items of the interactions have no catalogue row" in note for note in report(data).notes)
    data = run(table, **pictures)
    assert data.item_ids.tolist() == ["a", "b", "c", "d"]
    assert [len(found) for found in data.images("image", [0, 1, 2, 3])] == [1, 1, 0, 0]


def test_lists_that_do_not_hold_together(tmp_path: Path, run: Import) -> None:
    rows: list[dict[str, Any]] = [
        {"user": "u1", "items": ["a", " b ", "a", "", None], "clicks": ["b", "z"], "t": 1},
        {"user": "", "items": ["a"], "clicks": [], "t": 2},
        {"user": "u1", "items": [], "clicks": [], "t": 3},
        {"user": "u1", "clicks": ["a"], "t": 4},
        {"user": "u1", "items": [["a"]], "clicks": [], "t": 5},
        {"user": "u1", "items": ["a"], "clicks": [{"id": "a"}], "t": 6},
        {"user": "u1", "items": ["a"], "clicks": [], "t": "soon"},
        {"user": "u\0x", "items": ["\0", 9223372036854775808, 1.5, True], "clicks": [True, 1.5], "t": 7},
    ]
    table = json_lines(tmp_path / "shown.jsonl", rows)
    table.write_bytes(table.read_bytes() + b'\n{"user": "u3", "items": ["\xe9"], "clicks": null, "t": 9}\n[1]\n{"user')
    data = run(table, time="t", encoding="utf-8")
    assert shown(data) == [
        ("u1", "a", 0), ("u1", "b", 1), ("u\0x", "\0", 0), ("u\0x", "9223372036854775808", 0), ("u\0x", "1.5", 1),
        ("u\0x", "true", 1),
    ]  # fmt: skip
    assert data.column("position").tolist() == [0, 1, 0, 1, 2, 3]
    found = reasons(data)
    assert found.pop("bytes that are not utf-8 (kept, such a byte as \\xe9; a row whose id holds one is left out)")
    bad = r"\xe9"
    reason = "id with bytes that are not of the file's encoding (see --encoding) (list left out)"
    assert found.pop(reason) == [f"shown.jsonl:9 {json.dumps([bad])!r}"]
    assert found.pop("not a JSON object") == ["shown.jsonl:10 '[1]'", "shown.jsonl:11 '{\"user'"]
    assert found == {
        "empty user id": ["shown.jsonl:2 ''"],
        "no usable time in column 't'": ["shown.jsonl:7 'soon'"],
        "no items shown (list left out)": ["shown.jsonl:3 '[]'", "shown.jsonl:4 None"],
        "no list of items can be read (list left out)": ["shown.jsonl:5 '[[\"a\"]]'"],
        "no list of clicks can be read (list left out)": ['shown.jsonl:6 \'[{"id":"a"}]\''],
        "clicked item that was not shown (left out)": ["shown.jsonl:1 'z'"],
        "empty item id in a list": ["shown.jsonl:1 ''", "shown.jsonl:1 ''"],
        "item shown twice in a list (the first place is kept)": ["shown.jsonl:1 'a'"],
    }


def test_flags_that_do_not_fit_their_list(tmp_path: Path, run: Import) -> None:
    rows = [
        ("u1", "a b a", "false 0 TRUE"), ("u1", "a b", "1"), ("u1", "a b", "0 2"), ("u1", "a", ""),
        ("u1", "c d", "0 1"),
    ]  # fmt: skip
    data = run(lines(tmp_path / "shown.tsv", rows), clicks_are="flags")
    assert shown(data) == [("u1", "a", 1), ("u1", "b", 0), ("u1", "c", 0), ("u1", "d", 1)]
    assert reasons(data) == {
        "not as many clicks as items shown (list left out)": ["shown.tsv:3 '1'", "shown.tsv:5 ''"],
        "clicks that are neither 0 nor 1 (list left out)": ["shown.tsv:4 '0 2'"],
        "item shown twice in a list (the first place is kept)": ["shown.tsv:2 'a'"],
    }


def test_what_clicks_are_is_never_guessed_silently(tmp_path: Path, run: Import) -> None:
    table = lines(tmp_path / "shown.tsv", [("u1", "0 1", "1 0"), ("u2", "1 0", "0 1")])
    with pytest.raises(UserError, match="can be ids of items or flags 0 and 1"):
        run(table)
    assert shown(run(table, clicks_are="ids")) == [("u1", "0", 1), ("u1", "1", 1), ("u2", "1", 1), ("u2", "0", 1)]
    assert shown(run(table, clicks_are="flags")) == [("u1", "0", 1), ("u1", "1", 0), ("u2", "1", 0), ("u2", "0", 1)]
    # One list decides, where the others fit both or neither.
    table = lines(tmp_path / "shown.tsv", [("u1", "0 1", "1 0"), ("u2", "5 6 7", "6"), ("u3", "a b", "")])
    data = run(table)
    assert shown(data)[2:5] == [("u2", "5", 0), ("u2", "6", 1), ("u2", "7", 0)]
    assert any("fits 2 of the first 3 lists, of which 1 have none" in note for note in report(data).notes)
    data = run(lines(tmp_path / "shown.tsv", [("u1", "a b", ""), ("u2", "a", "")]))
    assert any("no positive label" in note for note in report(data).notes)


def test_a_separator_can_be_named(tmp_path: Path, run: Import) -> None:
    table = lines(tmp_path / "shown.tsv", [("u1", "a, one/b two", "b two"), ("u2", "c/d", "c/d")])
    data = run(table, separator="/")
    assert shown(data) == [("u1", "a, one", 0), ("u1", "b two", 1), ("u2", "c", 1), ("u2", "d", 1)]
    assert not any("between the values" in note for note in report(data).notes)


def test_long_lists_are_written_in_parts(tmp_path: Path, run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"user": f"u{n}", "items": [f"i{k}" for k in range(n)], "clicks": [f"i{n - 1}"]} for n in range(1, 9)]
    whole = run(json_lines(tmp_path / "shown.jsonl", rows))
    monkeypatch.setattr(Lists.spans, "__defaults__", (5,))
    parts = run(tmp_path / "shown.jsonl")
    assert shown(parts) == shown(whole)
    assert sum(click for _, _, click in shown(parts)) == 8
    lists = Lists(pa.array([""] * 9), np.array([1, 0, 7, 1]))
    assert list(lists.spans(3)) == [slice(0, 2), slice(2, 3), slice(3, 4)]


def test_mistakes_are_named(tmp_path: Path, run: Import) -> None:
    table = lines(tmp_path / "shown.tsv", [("u1", "a b", "a")])
    for words, options in [
        ("clicks_are='both': use ids or flags", {"clicks_are": "both"}),
        ("query: .* no column 'q'", {"query": "q"}),
        ("extra: .* no column 'usr'; did you mean 'user'", {"extra": ["usr"]}),
        ("'user' is to be kept twice", {"query": "user", "extra": ["user"]}),
        ("'user' is named as query and as session", {"query": "user", "session": "user"}),
        ("'title' describes items", {"text": ["title"]}),
        ("no usable time", {"time": "items"}),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=words):
            run(table, **options)
    with pytest.raises(UserError, match=r"items_shown: .* no column 'item'; did you mean 'items'"):
        import_impressions(table, "user", "item", "clicks", out=tmp_path / "out")
    with pytest.raises(UserError, match=r"no interaction was read or kept.* no items shown"):
        run(lines(tmp_path / "none.tsv", [("u1", "", "")]))
    pq.write_table(pa.table({"user": ["u"], "items": [[["a"]]], "clicks": [["a"]]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="holds values of type list"):
        run(tmp_path / "x.parquet")
    assert not list((tmp_path / "out").glob("*/dataset.yaml"))
