"""Columns in any script, and under names of their own."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.names import is_name
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.recbole import import_recbole
from rawrec.sources.table import import_table
from rawrec.sources.tables.convert import stored_name


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Tables whose headers are Chinese, German, Hindi, and signs."""
    found = {name: tmp_path / f"{name}.csv" for name in ("clicks", "items", "users")}
    head = "用户,物品,时间,点击,点赞,设备,位置,价格 €,价格 $\n"
    rows = [f"u{i % 5},i{i % 7},{i},{i % 2},{i % 3 % 2},d{i % 2},{i % 4},a,b\n" for i in range(60)]
    found["clicks"].write_text(head + "".join(rows), encoding="utf-8")
    rows = [f"i{i},Titel {i},Wort {i},rot,kurz,{i},{i + 0.5},नाम {i}\n" for i in range(7)]
    head = "物品,标题,描述,Größe,Grüße,price €,price $,नाम\n"
    found["items"].write_text(head + "".join(rows), encoding="utf-8")
    found["users"].write_text("用户,城市,年龄\n" + "".join(f"u{i},x,{i}\n" for i in range(5)), encoding="utf-8")
    return found


def go(files: dict[str, Path], **options: Any) -> Dataset:
    out = files["clicks"].parent / "out"
    given = {"items": files["items"], "item_id": "物品", "users": files["users"], "time": "时间", **options}
    return import_table(files["clicks"], "用户", "物品", out=out, overwrite=True, progress=False, **given)


def test_letters_are_letters(files: dict[str, Path]) -> None:
    data = go(
        files, text=["标题", "描述", "नाम"], category=["Größe", "Grüße"], numeric=["price €=euro", "price $=dollar"],
        labels=["点击", "点赞"], extra=["设备"], context_numeric=["位置"], user_category=["城市"],
        user_numeric=["年龄"],
    )  # fmt: skip
    assert data.fields.text == ["标题", "描述", "नाम"] and data.fields.categorical == ["Größe", "Grüße"]
    assert data.fields.numeric == ["euro", "dollar"] and data.meta.labels == ["点击", "点赞"]
    assert data.texts("नाम", [3]) == [["नाम 3"]] and data.numeric("dollar").tolist()[:2] == [0.5, 1.5]
    assert data.column("设备").tolist()[:2] == ["d0", "d1"] and data.column("位置").tolist()[:2] == [0, 1]
    assert data.meta.users.names() == ["城市", "年龄"] and data.label("点击").sum() == 30
    data.add_split("nach_Größe", SplitSpec.model_validate({"kind": "random_user"}))
    more = files["clicks"].parent / "more.csv"
    more.write_text("用户,物品,时间,点击,点赞,设备,位置\nu9,i1,99,1,0,d7,3\n", encoding="utf-8")
    data = append(data.path, more, "用户", "物品", time="时间", progress=False)
    assert data.column("设备").tolist()[-1] == "d7"


def test_every_column_may_have_a_name_of_its_own(files: dict[str, Path]) -> None:
    data = go(
        files, text=["标题=title", "标题=headline"], category=["Größe=size"], numeric=["price €=price"],
        labels=["点击=click"], extra=["价格 €=paid"], context_category=["设备=device"],
        context_numeric=["位置=position"], user_category=["城市=city"], user_numeric=["年龄=age"],
    )  # fmt: skip
    assert data.fields.names() == ["title", "headline", "size", "price"] and data.meta.labels == ["click"]
    assert data.meta.context.categorical == ["device"] and data.meta.context.numeric == ["position"]
    assert data.column("paid").tolist()[0] == "a" and data.meta.users.names() == ["city", "age"]
    assert data.texts("title", [1]) == data.texts("headline", [1]) == [["Titel 1"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numeric": ["price €", "price $"]}, "numeric: the columns 'price €' and 'price $' BOTH 'price__'"),
        ({"text": ["标题=x"], "category": ["Größe=x"]}, "category: the columns '标题' and 'Größe' BOTH 'x'"),
        (
            {"text": ["标题"], "category": ["标题"]},
            "category: column '标题' is named twice: name it once, or as 标题=NAME",
        ),
        ({"extra": ["价格 €", "价格 $"]}, "the columns '价格 €' and '价格 $' BOTH '价格__'"),
        ({"extra": ["设备=a", "设备=b"]}, "extra: column '设备' is to be 'a' and 'b': give it one name"),
        ({"labels": ["点击", "点赞=点击"]}, "two labels would be called '点击', the columns '点击' and '点赞'"),
        ({"text": ["标题=my title"]}, "text '标题=my title': 'my title' is no name of a field: use letters, digits"),
        ({"numeric": ["price €=" + "数" * 51]}, "numeric: column 'price €' is too long for the name of a field"),
        ({"text": ["标題"]}, "text: .*has no column '标題'; did you mean '标题'"),
        ({"user_category": ["城市=x"], "user_numeric": ["年龄=x"]}, "the columns '城市' and '年龄' BOTH 'x'"),
        ({"context_category": ["设备=点击"], "labels": ["点击"]}, "column '设备' is named as a label"),
    ],
)
def test_what_cannot_be_is_told_in_the_columns_own_names(
    options: dict[str, Any], message: str, files: dict[str, Path]
) -> None:
    options = {"user_numeric": ["年龄"]} | options
    with pytest.raises(UserError, match=message.replace("$", r"\$").replace("BOTH", "would both be called")):
        go(files, **options)


def test_stored_names() -> None:
    names = {
        "标题": "标题",
        "a b": "a_b",
        "1st": "x1st",
        "": "x",
        "€": "x_",
        "Größe": "Größe",
        "हिन्दी": "हिन्दी",
        "x²": "x_",
    }
    assert {name: stored_name(name) for name in names} == names
    assert stored_name(unicodedata.normalize("NFD", "Größe")) == unicodedata.normalize("NFC", "Größe")
    assert all(map(is_name, [*names.values(), "_a", "a-1"])) and not any(
        map(is_name, ["", "1a", "-a", "a b", "a/b", "a.b"])
    )


def test_recbole(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "x.inter").write_text("user_id:token\titem_id:token\t设备:token\nu\ti\td\n", encoding="utf-8")
    (folder / "x.item").write_text("item_id:token\t标题:token_seq\tGröße:token\ni\ta b\tx\n", encoding="utf-8")
    data = import_recbole(
        folder, text=["标题=title"], context_category=["设备=device"], out=tmp_path / "out", progress=False
    )
    assert data.fields.names() == ["title", "Größe"] and data.meta.context.categorical == ["device"]
