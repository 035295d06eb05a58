"""Attributes of users: imported, appended, read, checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.movielens import import_movielens
from rawrec.sources.recbole import import_recbole
from rawrec.sources.table import import_table

ROWS = "who,film,when\nu1,a,1\nu2,b,2\nu3,a,3\nu4,c,4\n"
USERS = """id,Age Group,langs,income
u3,old,de|fr,3.5
nobody,old,,1
 u1 ,young,,x
u1,old,,9
u2,,en,inf
,old,,
"""


def imported(folder: Path, table: str = USERS, **settings) -> Dataset:
    (folder / "rows.csv").write_text(ROWS)
    (folder / "users.csv").write_text(table)
    given = {"users": folder / "users.csv", "user_id": "id", "user_category": ["Age Group", "langs"]}
    given |= {"user_numeric": ["income"], "time": "when", "out": folder / "d", "progress": False}
    return import_table(folder / "rows.csv", "who", "film", **(given | settings))


def words(data: Dataset, name: str) -> list[list[str]]:
    ptr, codes, vocabulary = data.user_categorical(name)
    return [[vocabulary[c] for c in codes[ptr[i] : ptr[i + 1]]] for i in range(data.n_users)]


def test_users_have_a_row_each_in_their_order(tmp_path):
    data = imported(tmp_path)
    assert data.meta.users.model_dump() == {"categorical": ["Age_Group", "langs"], "numeric": ["income"]}
    assert data.user_ids.tolist() == ["u1", "u2", "u3", "u4"]
    assert words(data, "Age_Group") == [["young"], [], ["old"], []]
    assert words(data, "langs") == [[], ["en"], ["de", "fr"], []]
    np.testing.assert_array_equal(data.user_numeric("income"), [np.nan, np.nan, 3.5, np.nan])
    assert pq.read_table(data.path / "users.parquet").column("user_id").to_pylist() == data.user_ids.tolist()
    report = ImportReport.load(data.path / "import.json")
    assert report.read["users"] == 6 and report.kept["users without attributes"] == 1
    counts = {reason: entry.count for reason, entry in report.skipped.items()}
    assert counts == {
        "users: empty user id": 1,
        "users: income is no number (kept, empty)": 1,
        "users: duplicate user id (the first row is kept)": 1,
        "users: without any interaction (left out)": 1,
    }
    assert any("Age_Group 2, langs 2, income 1" in note for note in report.notes)
    assert validate(data.path, progress=False).sound


def test_attributes_are_in_the_digest_and_nothing_else_changes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    first, second = imported(one), imported(other, USERS.replace("young", "younger"))
    assert first.meta.digest != second.meta.digest and first.fingerprint() != second.fingerprint()
    (other / "plain").mkdir()
    bare = imported(other / "plain", users=None, user_category=[], user_numeric=[])
    assert not (bare.path / "users.parquet").exists() and not bare.meta.users.names()
    with pytest.raises(UserError, match="does not exist"):
        bare.user_numeric("income")


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"user_category: .*no column 'age'"):
        imported(tmp_path, user_category=["age"])
    with pytest.raises(UserError, match="name the table of the users"):
        imported(tmp_path, users=None)
    with pytest.raises(UserError, match="name the columns"):
        imported(tmp_path, user_category=[], user_numeric=[])
    with pytest.raises(UserError, match="user_numeric: column 'income' is named twice"):
        imported(tmp_path, user_category=["income"])
    with pytest.raises(UserError, match="no column 'who'"):
        imported(tmp_path, user_id=None)


def test_appends_bring_users_and_fill_what_is_missing(tmp_path):
    imported(tmp_path)
    (tmp_path / "more.csv").write_text("who,film,when\nu9,a,9\n")
    (tmp_path / "users.csv").write_text("who,age,langs,income\nu9,old,it,4\nu4,young,,2\nu3,young,es,\n")
    given = {"users": tmp_path / "users.csv", "user": "who", "item": "film", "user_category": ["age=Age_Group"]}
    data = append(tmp_path / "d", tmp_path / "more.csv", time="when", progress=False, **given)
    assert words(data, "Age_Group") == [["young"], [], ["old"], ["young"], ["old"]]
    assert words(data, "langs") == [[], ["en"], ["de", "fr"], [], ["it"]]
    np.testing.assert_array_equal(data.user_numeric("income"), [np.nan, np.nan, 3.5, 2, 4])
    report = ImportReport.load(data.path / "import-2.json")
    assert report.skipped["users: a value is there already (kept as it is; --update replaces it)"].count == 2
    assert words(Dataset.open(data.path, 1), "Age_Group") == [["young"], [], ["old"], []]

    data = append(tmp_path / "d", update=True, progress=False, **given)  # users alone
    assert words(data, "Age_Group")[2] == ["young"] and words(data, "langs")[2] == ["es"]
    assert data.user_numeric("income")[2] == 3.5 and data.n_interactions == 5
    with pytest.raises(UserError, match="nothing to append"):
        append(tmp_path / "d", update=True, progress=False, **given)

    (tmp_path / "more.csv").write_text("who,film,when\nu10,a,9\n")
    data = append(tmp_path / "d", tmp_path / "more.csv", "who", "film", time="when", progress=False)
    assert words(data, "Age_Group")[-1] == [] and np.isnan(data.user_numeric("income")[-1])
    assert ImportReport.load(data.path / "import-4.json").kept["users without attributes"] == 1
    found = validate(data.path, progress=False)
    assert found.sound, found.problems


def test_a_damaged_table_of_users_is_found(tmp_path):
    data = imported(tmp_path)
    table = data.user_table()
    pq.write_table(table.slice(1), data.path / "users.parquet")
    assert any("3 rows" in p.what for p in validate(data.path, progress=False).problems)
    pq.write_table(table.take([0, 2, 1, 3]), data.path / "users.parquet")
    assert {p.what for p in validate(data.path, progress=False).problems} == {
        "is not the id of the row's user",
        "the digest of version 1 is not that of its content",
    }
    (data.path / "users.parquet").unlink()
    assert any("users.parquet" in p.where for p in validate(data.path, progress=False).problems)
    with pytest.raises(UserError, match="damaged"):
        data.user_numeric("income")


def test_users_of_movielens_and_recbole(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::10::5::100\n2::10::3::50\n2::20::4::60\n")
    (tmp_path / "movies.dat").write_text("10::A (2001)::Comedy\n20::B::Drama\n")
    (tmp_path / "users.dat").write_text("1::F::25::4::48067\n2::M::56::16::70072\n3::M::25::15::55117\n")
    data = import_movielens(tmp_path, out=tmp_path / "ml", progress=False)
    assert data.meta.users.categorical == ["gender", "age", "occupation"]
    assert words(data, "age") == [["25"], ["56"]]
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "x.inter").write_text("user_id:token\titem_id:token\n1\ta\n2\tb\n")
    (folder / "x.user").write_text("user_id:token\tage:float\tjob:token\tlikes:token_seq\n2\t31\tcook|chef\tred blue\n")
    data = import_recbole(folder, out=tmp_path / "d", progress=False)
    assert words(data, "job") == [[], ["cook|chef"]] and words(data, "likes") == [[], ["red", "blue"]]
    np.testing.assert_array_equal(data.user_numeric("age"), [np.nan, 31])
