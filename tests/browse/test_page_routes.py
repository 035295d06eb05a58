"""What the page asks of the server: the answers are the recommender's, bounded, and nothing is written into the log."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from odd_shop import CHINESE, LONG, MARKUP
from rawrec import Recommender

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from rawrec.browse import shell
from rawrec.browse.opening import name_of, opened
from rawrec.browse.people import People
from rawrec.server.run import Options, application, held


@pytest.fixture(scope="module")
def http(odd: dict[str, Path]) -> Iterator[TestClient]:
    options = Options(threads=1)
    other = opened(odd["bpr"])
    app = application(held(opened(odd["em3"]), options), options, [(name_of(other), other)])
    with TestClient(app, base_url="http://127.0.0.1") as made:
        yield made


@pytest.fixture(scope="module")
def rec(odd: dict[str, Path]) -> Recommender:
    return Recommender.load(odd["em3"], device="cpu")


def test_the_page_names_its_own_files_and_no_others(http: TestClient) -> None:
    page = http.get("/")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy and "unsafe" not in policy and "default-src 'none'" in policy
    assert "://" not in page.text and "<style" not in page.text and " style=" not in page.text
    for name, kind in shell.FILES.items():
        assert name in page.text
        answer = http.get(f"/{shell.PLACE}/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text.replace("http://www.w3.org/", "") and "https://" not in answer.text
    for name in ("browse.html", "view.py", "..%2Fapp.py", "%2e%2e/app.py"):
        assert http.get(f"/{shell.PLACE}/{name}").status_code == 404


def test_scripts_make_text_and_never_markup() -> None:
    for name in shell.SCRIPTS:
        text = shell.text_of(name)
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
            assert word not in text, f"{name} has {word}"


def test_a_user_is_what_training_saw_and_what_came_next(http: TestClient, rec: Recommender) -> None:
    data, user = rec.data, "u1"
    row, part = data.user_rows([user])[0], data.split()
    times = data.timestamps
    assert times is not None

    def taken(where: Any) -> list[str]:
        rows = np.flatnonzero((data.users == row) & data.positive() & where)
        return [str(data.item_ids[item]) for item in data.items[rows[np.argsort(times[rows], kind="stable")]]]

    found = http.get("/page/user", params={"user": user}).json()
    assert [one[0] for one in found["history"]] == taken(part == 0)
    assert [one[0] for one in found["later"]] == taken(part > 0)
    assert {one[2] for one in found["later"]} <= {"valid", "test"}
    assert set(taken(part == 0)) <= set(found["facts"])


@pytest.mark.parametrize("until", ["train", "now"])
def test_lists_are_those_of_the_recommender(http: TestClient, rec: Recommender, until: str) -> None:
    found = http.post("/page/list", json={"user": "u1", "until": until, "k": 5}).json()
    people = People(rec)
    history = people.before("u1") if until == "train" else None
    expected = rec.recommend("u1", history, k=5, explain=True)
    assert [one["item"] for one in found["items"]] == [one.item for one in expected]
    for one, other in zip(found["items"], expected, strict=True):
        assert one["score"] == pytest.approx(other.score, abs=1e-6) and one["by"] == other.by
        assert one["parts"] == pytest.approx(other.parts, abs=1e-5)
        assert [item for item, _ in one["because"]] == [item for item, _ in other.because]
    whole = [one.item for one in rec.recommend("u1", history, k=1000)]
    later = [item for item in people.later("u1") if item in whole]
    assert found["ranks"] == {item: whole.index(item) + 1 for item in later} and found["depth"] == len(whole)
    assert bool(later) is (until == "train")


def test_a_retrieval_model_is_asked_as_it_was_judged(http: TestClient, odd: dict[str, Path]) -> None:
    """It knows all that a user took: what came next is not left out of the list that is to be judged by it."""
    rec = Recommender.load(odd["bpr"], device="cpu")
    people = People(rec)
    found = http.post("/page/list", json={"user": "u1", "of": 1, "k": 100}).json()
    listed = [one["item"] for one in found["items"]]
    assert set(people.later("u1")) <= set(listed) and not set(people.before("u1")) & set(listed)
    scores = rec.score("u1", listed)
    assert [one["score"] for one in found["items"]] == pytest.approx(scores)
    refused = http.post("/page/list", json={"history": ["i1"], "of": 1})
    assert refused.status_code == 422 and "reads no history" in refused.json()["error"]


def test_lists_are_filtered_and_of_any_history(http: TestClient, rec: Recommender) -> None:
    asked = {"history": ["i1", "i2", "gone"], "where": {"kind": ["mug"], "price": {"most": 30}}, "k": 100}
    found = http.post("/page/list", json={**asked, "diversity": 0.5, "max_per": {"brand": 2}}).json()
    where = {"kind": ["mug"], "price": (None, 30)}
    expected = rec.recommend(history=["i1", "i2"], where=where, k=100, diversity=0.5, max_per={"brand": 2})
    assert [one["item"] for one in found["items"]] == [one.item for one in expected] != []


def test_neighbours_are_those_of_the_recommender(http: TestClient, rec: Recommender) -> None:
    about = http.get("/page/about").json()
    assert about["runs"][0]["near"] == ["content", "id", "image", "text"] and about["runs"][1]["near"] == [""]
    for by in about["runs"][0]["near"]:
        found = http.get("/page/near", params={"item": "i1", "by": by, "k": 3}).json()["items"]
        assert found == [[one.item, pytest.approx(one.score, abs=1e-6)] for one in rec.similar("i1", k=3, by=by)]
    assert http.get("/page/near", params={"item": "i1", "of": 1}).json()["items"]
    lacking = http.get("/page/near", params={"item": "i6", "by": "image"})
    assert lacking.status_code == 422 and "has no photo" in lacking.json()["error"]


@pytest.mark.parametrize("item", [MARKUP, CHINESE, LONG])
def test_ids_of_any_signs_are_found(http: TestClient, item: str) -> None:
    found = http.get("/page/item", params={"item": item})
    assert found.status_code == 200 and found.json()["item"] == item and item in found.json()["facts"]
    assert http.get("/page/near", params={"item": item, "by": "text"}).status_code == 200
    assert http.post("/page/items", json={"find": item[:300]}).json()["found"][0] == item


def test_items_are_found_by_words_columns_and_buckets(http: TestClient, rec: Recommender) -> None:
    everything = http.post("/page/items", json={"k": 200}).json()
    assert everything["count"] == rec.n_items == len(everything["found"])
    counts = [everything["facts"][item]["train"] for item in everything["found"]]
    assert counts == sorted(counts, reverse=True) and sum(counts) == int((rec.data.split() == 0).sum())
    cold = http.post("/page/items", json={"bucket": "cold", "k": 200}).json()
    assert cold["count"] == counts.count(0) > 0
    red = http.post("/page/items", json={"find": "ITEM red", "where": {"kind": "mug"}, "k": 200}).json()
    assert red["found"] and all("red" in red["facts"][item]["title"] for item in red["found"])
    pages = [http.post("/page/items", json={"k": 15, "at": at}).json()["found"] for at in (0, 15, 30, 45)]
    assert [item for page in pages for item in page] == everything["found"]
    assert http.post("/page/items", json={"find": "there is nothing so called"}).json()["count"] == 0


def test_users_are_found(http: TestClient) -> None:
    assert http.get("/page/users", params={"find": "u1", "k": 2}).json()["users"][0][0] == "u1"
    drawn = http.get("/page/users", params={"k": 5}).json()["users"]
    assert len(drawn) == 5 and all(before and later for _, before, later in drawn)
    nobody = http.get("/page/user", params={"user": "nobody"})
    assert nobody.status_code == 422 and "no such user" in nobody.json()["error"]
    assert http.get("/page/user", params={"user": "quiet"}).json()["history"] == []
    assert http.post("/page/list", json={"user": "quiet", "k": 3}).json()["items"]


def test_the_map_has_every_item_with_content(http: TestClient, rec: Recommender) -> None:
    found = http.get("/page/map").json()
    _, there = rec.item_vectors(list(rec.item_ids))
    assert found["items"] == [item for item, has in zip(rec.item_ids, there, strict=True) if has]
    x, y = (np.frombuffer(base64.b64decode(found[axis]), "<u2") for axis in "xy")
    assert len(x) == len(y) == len(found["items"]) and x.max() == 65_535 and x.min() == 0
    for colour in found["colours"]:
        kinds = np.frombuffer(base64.b64decode(colour["kinds"]), np.uint8)
        assert np.bincount(kinds, minlength=len(colour["names"])).tolist() == [n for _, n in colour["names"]]
    assert {"kind", "training rows", "age"} <= {colour["name"] for colour in found["colours"]}


def test_an_item_that_does_not_exist_is_tried(http: TestClient, rec: Recommender) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(buffer, "PNG")
    pictures = {"photo": [base64.b64encode(buffer.getvalue()).decode()]}
    asked = {"texts": {"title": "a red thing"}, "pictures": pictures, "history": ["i1", "i2"]}
    new = {"title": "a red thing", "photo": [buffer.getvalue()]}
    found = http.post("/page/try", json=asked).json()
    assert [one[0] for one in found["items"]] == [one.item for one in rec.similar(new, k=8)]
    assert found["score"] == pytest.approx(rec.score(items=[new], history=["i1", "i2"])[0], abs=1e-6)
    better = [one for one in rec.recommend(history=["i1", "i2"], k=1000) if one.score > found["score"]]
    assert found["rank"] == len(better) + 1
    assert rec.n_items == http.get("/page/about").json()["items"]  # nothing was taken in
    by = http.post("/page/try", json={"texts": {"title": "a red thing"}, "by": "text"}).json()
    assert "rank" not in by and [o[0] for o in by["items"]] == [
        o.item for o in rec.similar({"title": "a red thing"}, 8, "text")
    ]


@pytest.mark.parametrize(
    ("path", "asked", "said"),
    [
        ("/page/list", {}, "say who"),
        ("/page/list", {"user": "u1", "k": 101}, "less than or equal to 100"),
        ("/page/list", {"user": "u1", "of": 2}, "of"),
        ("/page/list", {"user": "u1", "wheree": {}}, "Extra inputs"),
        ("/page/list", {"history": ["i1"] * 1001}, "at most 1000"),
        ("/page/items", {"k": 201}, "less than or equal to 200"),
        ("/page/items", {"bucket": "hot"}, "bucket"),
        ("/page/items", {"where": {"nope": 1}}, "nope"),
        ("/page/try", {}, "give a text or a picture"),
        ("/page/try", {"texts": {"photo": "/etc/passwd"}}, "uploaded as files"),
        ("/page/try", {"pictures": {"title": ["AAAA"]}}, "no image field"),
        ("/page/try", {"pictures": {"photo": ["AAAA"]}}, "photo"),
        ("/page/try", {"pictures": {"photo": ["not base64!"]}}, "photo"),
        ("/page/try", {"texts": {"title": "x"}, "of": 1}, "bpr"),
        ("/page/facts", {"items": ["i"] * 1001}, "at most 1000"),
    ],
)
def test_mistakes_are_told_in_one_line(http: TestClient, path: str, asked: dict[str, Any], said: str) -> None:
    answer = http.post(path, json=asked)
    assert answer.status_code == 422 and said in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert "/etc" not in answer.text


def test_pictures_are_small_and_of_items_that_have_one(http: TestClient) -> None:
    answer = http.get("/page/picture", params={"item": "i1", "side": 64})
    assert answer.headers["content-type"] == "image/jpeg" and "max-age" in answer.headers["cache-control"]
    with Image.open(io.BytesIO(answer.content)) as image:
        assert max(image.size) == 64
    for asked in ({"item": "i6"}, {"item": "gone"}):
        assert http.get("/page/picture", params=asked).status_code == 404
    assert http.get("/page/picture", params={"item": "i1", "side": 10_000}).status_code == 422


def test_where_a_token_is_asked_the_page_opens_and_its_data_do_not(odd: dict[str, Path], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    options = Options(host="0.0.0.0", token_file=token, threads=1)
    bears = {"authorization": "Bearer 0123456789abcdef"}
    with TestClient(application(held(opened(odd["bpr"]), options), options)) as client:
        assert client.get("/").status_code == 200
        assert client.get(f"/{shell.PLACE}/browse.css").status_code == 200
        for path in ("/page/about", "/page/live", "/page/picture?item=i1", "/page/map", "/page/files/../about"):
            assert client.get(path).status_code == 401, path
        assert client.post("/page/list", json={"user": "u1"}).status_code == 401
        assert client.get("/page/about", headers=bears).status_code == 200
        assert client.post("/page/list", json={"user": "u1"}, headers=bears).status_code == 200


def test_what_is_looked_at_is_not_written_as_shown(odd: dict[str, Path], tmp_path: Path) -> None:
    from rawrec.server.run import open_serving
    from rawrec.stream.log import open_log

    url = f"sqlite:{tmp_path / 'events.db'}"
    options = Options(threads=1, log=url)
    serving, _ = open_serving(lambda added: Recommender.load(odd["em3"], device="cpu", added=added), options)
    with TestClient(application(serving, options), base_url="http://127.0.0.1") as client:
        assert client.post("/page/list", json={"user": "u1"}).json()["items"]
        assert client.get("/page/live").json()["events"] == 0
        assert client.post("/recommend", json={"user": "u1", "k": 2}).status_code == 200
    with open_log(url) as log:
        assert len(list(log.read(0, 10))) == 1
