"""`rawrec recommend` with filters and reasons, `rawrec similar` by pictures and texts, vectors of users."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import rawrec
from lists_shop import QUICK, make_runs, make_shop
from rawrec import Recommender, cli
from rawrec.errors import UserError
from rawrec.serving.filters import parse_max_per, parse_where
from rawrec.sources.synthetic import import_synthetic

Command = Callable[..., str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lists")
    return make_runs(make_shop(folder / "data"), folder)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """stdout of `rawrec WORDS`, or stderr where it must leave with code 2."""

    def go(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["rawrec", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert (stop.value.code or 0) == code and "Traceback" not in out + err, f"{words}\n{out}\n{err}"
        return err if code else out

    return go


def test_filters_are_those_of_python(runs: dict[str, Path], shell: Command, tmp_path: Path) -> None:
    rec = Recommender.load(runs["id"])
    (tmp_path / "ids.txt").write_text("i1\n i3 \n\ni7\ni30\ni31\n")
    said: list[tuple[list[object], dict[str, Any]]] = [
        (["--items", tmp_path / "ids.txt"], {"items": ["i1", "i3", "i7", "i30", "i31"]}),
        (["--items", "i1, i3", "--exclude", "i3"], {"items": ["i1", "i3"], "exclude": ["i3"]}),
        (["--where", "kind=lamp,mug"], {"where": {"kind": ["lamp", "mug"]}}),
        (
            ["--where", "kind!=lamp", "--where", "price=..20.5"],
            {"where": {"kind": {"not": ["lamp"]}, "price": (None, 20.5)}},
        ),
        (["--where", "in_stock=true"], {"where": {"in_stock": True}}),
        (["--where", "price=3,4"], {"where": {"price": [3, 4]}}),
        (["--max-per", "brand=1", "--diversity", "0.3"], {"max_per": {"brand": 1}, "diversity": 0.3}),
    ]
    for words, given in said:
        found = json.loads(shell("recommend", runs["id"], "--user", "u2", "-k", 6, "--seen", *words, "--json"))
        expected = rec.recommend("u2", k=6, exclude_seen=False, **given)
        assert [(e["item"], e["score"]) for e in found["recommendations"]] == expected and expected
    out = tmp_path / "some.parquet"
    shell("recommend", runs["id"], "--all-users", out, "--users", "u3,u1", "-k", 4, "--where", "kind=mug")
    table = pl.read_parquet(out)
    assert (
        table.to_arrow().to_pydict()["items"]
        == rec.recommend(users=["u3", "u1"], k=4, where={"kind": "mug"}).to_pydict()["items"]
    )


def test_words_of_filters() -> None:
    assert parse_where(["p=5..20", "q=..7", "r=1.5..", "s=true", "t!=2"], ["p", "q", "r", "s", "t"]) == {
        "p": (5, 20),
        "q": (None, 7),
        "r": (1.5, None),
        "s": [1],
        "t": {"not": [2]},
    }
    assert parse_where(["kind=a..b, c", "stock=False"], []) == {"kind": ["a..b", "c"], "stock": [False]}
    assert parse_max_per(["brand=2", "kind=1"]) == {"brand": 2, "kind": 1}
    for words, said in [
        (["kind"], "--where 'kind': give COLUMN=VALUE"),
        (["=a"], "give COLUMN=VALUE"),
        (["p=cheap"], "'cheap' is no number"),
        (["p=a..5"], "'a' is no number"),
        (["kind=a", "kind!=b"], "gives 'kind' twice"),
    ]:
        with pytest.raises(UserError, match=said):
            parse_where(words, ["p"])
    for words, said in [(["brand"], "give COLUMN=N"), (["brand=two"], "give COLUMN=N"), (["b=1", "b=2"], "twice")]:
        with pytest.raises(UserError, match=said):
            parse_max_per(words)


def test_reasons(runs: dict[str, Path], shell: Command) -> None:
    rec = Recommender.load(runs["em3"])
    found = json.loads(shell("recommend", runs["em3"], "--user", "u2", "-k", 2, "--explain", "--json"))
    for entry, one in zip(found["recommendations"], rec.recommend("u2", k=2, explain=True), strict=True):
        assert entry["item"] == one.item and entry["parts"] == pytest.approx(one.parts) and entry["by"] == one.by
        assert [(reason["item"], reason["weight"]) for reason in entry["because"]] == one.because
    table = shell("recommend", runs["em3"], "--user", "u2", "-k", 2, "--explain").splitlines()
    assert "without content" in table[0] and "because" in table[0] and len(table) == 3


@pytest.mark.filterwarnings("default")
def test_what_is_wrong(runs: dict[str, Path], shell: Command, tmp_path: Path) -> None:
    for words, said in [
        (["recommend", runs["id"], "--user", "u1", "--where", "knd=a"], "the column 'knd' does not exist"),
        (["recommend", runs["id"], "--user", "u1", "--where", "kind=lmap"], "--skip-unknown"),
        (["recommend", runs["id"], "--user", "u1", "--items", "i1,gone"], "items: item 'gone' is not in"),
        (["recommend", runs["id"], "--user", "u1", "--max-per", "price=2"], "is a column of numbers"),
        (["recommend", runs["id"], "--user", "u1", "--diversity", "2"], "diversity=2.0: give a number from 0"),
        (["recommend", runs["id"], "--user", "u1", "--users", "u2"], "give the file, too"),
        (["recommend", runs["id"], "--all-users", tmp_path / "x.csv", "--explain"], "--explain is of one list"),
        (["similar", runs["id"]], "say what: --item ID"),
        (["similar", runs["id"], "--item", "i1", "--text", "x"], "say what: --item ID"),
        (["similar", runs["em3"], "--item", "i1", "--field", "look"], "--field says which field"),
        (["similar", runs["em3"], "--item", "i1", "--by", "image"], "makes no feature of this kind alone"),
        (["export", runs["em3"], "--to", "user-vectors", "--out", tmp_path / "u.npy"], "has no vector of a user"),
        (["export", runs["vbpr"], "--to", "user-vectors"], "needs --out FILE"),
        (["export", runs["vbpr"], "--to", "user-vectors", "--out", tmp_path / "u.faiss"], ".npy or .safetensors"),
    ]:  # fmt: skip
        assert said in " ".join(shell(*words, code=2).split()), words
    out = shell("recommend", runs["id"], "--user", "u1", "--items", "i1,gone", "--seen", "--skip-unknown", "--json")
    assert [entry["item"] for entry in json.loads(out)["recommendations"]] == ["i1"]


def test_vectors_of_users_and_items_make_the_scores(runs: dict[str, Path], shell: Command, tmp_path: Path) -> None:
    """Their inner products, and the lists of a search by them, for every form."""
    users, items = (tmp_path / f"{name}.parquet" for name in ("users", "items"))
    assert json.loads(shell("export", runs["vbpr"], "--to", "user-vectors", "--out", users, "--json"))["file"]
    shell("export", runs["vbpr"], "--out", items)
    rec, of_users, of_items = Recommender.load(runs["vbpr"]), pl.read_parquet(users), pl.read_parquet(items)
    assert of_users.columns == ["user_id", "vector", "valid"] and of_users["valid"].all()
    assert of_users["user_id"].to_list() == list(rec.data.user_ids)
    products = of_users["vector"].to_numpy() @ of_items["vector"].to_numpy().T
    names = of_items["item_id"].to_list()
    for row, user in enumerate(of_users["user_id"]):
        np.testing.assert_allclose(products[row], rec.score(user, names), rtol=1e-4, atol=1e-6)
        best = [names[k] for k in np.argsort(-products[row])[:3]]
        assert best == [item for item, _ in rec.recommend(user, k=3, exclude_seen=False)]
    rec.export_user_vectors(tmp_path / "u.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "u.npy"), of_users["vector"].to_numpy())
    assert json.loads((tmp_path / "u.ids.jsonl").read_text().splitlines()[0]) == {"user_id": "u0", "valid": True}


def test_a_text_in_the_place_of_an_item(shell: Command, tmp_path: Path) -> None:
    """And a picture; the field is asked for where there are several of a kind."""
    data = import_synthetic(tmp_path / "data", items=20, users=10, impressions=300, progress=False)
    settings = QUICK | {"paradigm": "hybrid", "content.image.encoder": "random:conv", "content.image.size": 16}
    settings |= {"content.text.encoder": "random:bert", "content.image.train": "none", "content.text.train": "none"}
    run = rawrec.train("em3", data, tmp_path / "run", settings).path
    k = next(k for k, found in enumerate(data.images("image", range(20))) if found)
    (tmp_path / "p.png").write_bytes(data.images("image", [k])[0][0])
    found = json.loads(shell("similar", run, "--image", tmp_path / "p.png", "-k", 1, "--json"))
    assert found["recommendations"][0]["item"] == data.item_ids[k] and found["query"]["by"] == "image"
    title = data.texts("title", [k])[0][0]
    found = json.loads(shell("similar", run, "--text", title, "--field", "title", "-k", 1, "--json"))
    assert data.texts("title", data.item_rows([found["recommendations"][0]["item"]]))[0][0] == title
    assert "Known: image, title, description" in shell("similar", run, "--text", title, code=2)
    assert len(shell("similar", run, "--item", data.item_ids[k], "--by", "title", "-k", 2).splitlines()) == 3
