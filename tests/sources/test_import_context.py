"""Columns of the interactions that are kept as the context of an impression, by kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.inspect import inspect
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.impressions import import_impressions
from rawrec.sources.recbole import import_recbole
from rawrec.sources.table import import_table
from systems import unsealed

ROWS = """who,film,when,Device Type,page,pos,kind
u1,a,1,phone,7,1,x
u1,b,2, phone ,,2,y
u2,a,3,,3,x,x
u2,c,4,"ta,blet",4,inf,x
u3,c,5,tv,4,5,x
u3,b,6,tv,07,4.5,x
"""


def imported(folder: Path, **settings) -> Dataset:
    (folder / "rows.csv").write_text(ROWS)
    given = {"context_category": ["Device Type", "page"], "context_numeric": ["pos"], "extra": ["kind", "page"]}
    return import_table(
        folder / "rows.csv", "who", "film", time="when", out=folder / "d", progress=False, **(given | settings)
    )


def test_context_columns_are_typed_fields_of_the_interactions(tmp_path):
    data = imported(tmp_path)
    assert data.meta.context.model_dump() == {"categorical": ["Device_Type", "page"], "numeric": ["pos"]}
    assert sorted(data.meta.extra) == ["Device_Type", "kind", "page", "pos"]
    codes, words = data.row_categories("Device_Type")
    assert words == ["phone", "ta,blet", "tv"] and codes.tolist() == [0, 0, -1, 1, 2, 2]
    codes, words = data.row_categories("page")  # a category is text, as it was written
    assert words == ["07", "3", "4", "7"] and codes.tolist() == [3, -1, 1, 2, 2, 0]
    np.testing.assert_array_equal(data.row_numbers("pos"), [1, 2, np.nan, np.nan, 5, 4.5])
    with pytest.raises(UserError, match="kind"):
        data.row_categories("kind")  # kept, and not of the context


def test_inspect_and_validate_tell_of_context(tmp_path):
    data = imported(tmp_path)
    found = inspect(data.path)["context"]
    assert list(found) == ["Device_Type", "page", "pos"]
    device = found["Device_Type"]
    assert (device["with_it"], device["missing"], device["distinct"]) == (5, 1, 3)
    train = {word for word, part in zip(["phone", "phone", None, "ta,blet", "tv", "tv"], data.split(), strict=True)
             if part == 0 and word}  # fmt: skip
    assert device["distinct_train"] == len(train)
    assert found["pos"]["missing"] == 2 and found["pos"]["values"]["max"] == 5
    assert validate(data.path, progress=False).sound
    meta = unsealed(data.path / "dataset.yaml")
    (data.path / "dataset.yaml").write_text(meta.replace("  numeric:\n  - pos\n", "  numeric:\n  - kind\n"))
    assert "the context's kind" in {problem.where for problem in validate(data.path, progress=False).problems}
    (data.path / "dataset.yaml").write_text(meta.replace("  numeric:\n  - pos\n", "  numeric:\n  - gone\n"))
    with pytest.raises(UserError, match="gone"):
        Dataset.open(data.path)


def test_what_cannot_be_context_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"context_category: .*no column 'devise'"):
        imported(tmp_path, context_category=["devise"])
    with pytest.raises(UserError, match="context_category and as context_numeric"):
        imported(tmp_path, context_category=["pos"])
    with pytest.raises(UserError, match="named as a label"):
        imported(tmp_path, labels=["pos"])


def test_an_append_brings_context_too(tmp_path):
    imported(tmp_path)
    (tmp_path / "more.csv").write_text("who,film,when,device,pos\nu9,a,9,watch,8\nu9,b,10,tv,\n")
    data = append(tmp_path / "d", tmp_path / "more.csv", "who", "film", time="when", extra=["device=Device_Type"])
    codes, words = data.row_categories("Device_Type")
    assert [words[code] for code in codes[-2:]] == ["watch", "tv"]
    assert data.row_categories("page")[0][-2:].tolist() == [-1, -1]
    np.testing.assert_array_equal(data.row_numbers("pos")[-2:], [8, np.nan])


def test_own_columns_of_lists_can_be_context(tmp_path):
    (tmp_path / "shown.jsonl").write_text(
        '{"u": "1", "q": "red hat", "shown": ["a", "b"], "clicks": ["b"], "t": 5, "dev": "tv"}\n'
        '{"u": "2", "q": "lamp", "shown": ["c", "a"], "clicks": ["c"], "t": 6, "dev": "phone"}\n'
    )
    given = {"time": "t", "query": "q", "out": tmp_path / "d", "progress": False, "overwrite": True}
    data = import_impressions(
        tmp_path / "shown.jsonl", "u", "shown", "clicks", context_category=["q", "dev"], context_numeric=["position"],
        **given,
    )  # fmt: skip
    assert data.meta.context.model_dump() == {"categorical": ["query", "dev"], "numeric": ["position"]}
    assert data.row_numbers("position").tolist() == [0, 1, 0, 1]
    assert data.row_categories("query")[1] == ["lamp", "red hat"]
    data = import_impressions(tmp_path / "shown.jsonl", "u", "shown", "clicks", context_category=["position"], **given)
    assert data.row_categories("position")[1] == ["0", "1"]
    with pytest.raises(UserError, match="kept as text"):
        import_impressions(tmp_path / "shown.jsonl", "u", "shown", "clicks", context_numeric=["q"], **given)


def test_recbole_columns_can_be_context(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "x.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\tdev:token\tprice:float\n"
        "1\ta\t5\t1\ttv\t2.5\n1\tb\t3\t2\tphone\t3\n2\ta\t4\t3\ttv\t\n"
    )
    data = import_recbole(
        folder, positive=4, context_category=["dev"], context_numeric=["price"], out=tmp_path / "d", progress=False
    )
    assert data.row_categories("dev")[0].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(data.row_numbers("price"), [2.5, 3, np.nan])
    with pytest.raises(UserError, match="rating"):
        import_recbole(folder, positive=4, context_numeric=["rating"], out=tmp_path / "e", progress=False)
