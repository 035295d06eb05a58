"""The exported page: complete in itself, the answers of a sample as the server gives them, others' text only text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from odd_shop import ARABIC, CHINESE, EMOJI, LONG, MARKUP, SIGNS, TURNED
from rawrec import UserError
from rawrec.browse.export import export_page, page_of, plain_json
from rawrec.browse.opening import opened
from rawrec.browse.view import View, Wish


class Page(HTMLParser):
    """Tags with their attributes, and the text of scripts and styles, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[tuple[str, dict[str, Any], str]] = []
        self._in = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.texts.append((self._in, self.tags[-1][1], data))

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


@pytest.fixture(scope="module")
def view(odd: dict[str, Path]) -> View:
    return View([(name, opened(odd[name])) for name in ("em3", "bpr")])


@pytest.fixture(scope="module")
def exported(view: View, tmp_path_factory: pytest.TempPathFactory) -> str:
    done = export_page(view, tmp_path_factory.mktemp("out") / "page", users=15, items=100)
    text = done.path.read_text(encoding="utf-8")
    assert (done.users, done.items, done.size) == (15, view.recs[0].n_items, len(text))
    return text


def data_of(text: str) -> dict[str, Any]:
    return next(json.loads(data) for tag, own, data in Page(text).texts if own.get("id") == "data")


def test_the_page_is_one_file_that_fetches_nothing(exported: str) -> None:
    page = Page(exported)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "img"}
    for tag, own in page.tags:
        assert not {"src", "srcset", "style", "onload", "onerror"} & set(own), tag
        assert own.get("href", "#").startswith("#")
    policy = next(own["content"] for tag, own in page.tags if own.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for tag, own, text in page.texts:
        if own.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in re.findall(rf"{tag}-src ([^;]*)", policy)[0].split()


def test_answers_are_those_of_the_view(exported: str, view: View) -> None:
    data = data_of(exported)
    for of in (0, 1):
        for until in ("train", "now"):
            expected = view.list(Wish("u1", until=until), of)
            expected.pop("facts")
            assert data["answers"]["list"][f"{of} {until} u1"] == json.loads(json.dumps(expected))
    near = view.near("i1", "content")["items"]
    assert data["answers"]["near"]["0 content i1"]["items"] == [list(one) for one in near]
    assert "has no photo" in data["answers"]["near"]["0 image i6"]["error"]
    assert "knows nothing of them" in data["answers"]["list"]["1 train quiet"]["error"]
    assert sorted(data["items"]) == sorted(view.recs[0].item_ids) == sorted(data["answers"]["item"])
    assert data["map"]["items"] == view.points()["items"]
    assert {"15 of 15 users", "48 of 48 items"} <= set(re.findall(r"\d+ of \d+ \w+", data["about"]["sample"]))


def test_pictures_are_in_it(exported: str, view: View) -> None:
    data = data_of(exported)
    with_picture = {item for item, fact in data["facts"].items() if fact["picture"]}
    assert set(data["pictures"]) == with_picture and len(with_picture) == 35
    head, _, body = data["pictures"]["i1"].partition(",")
    with Image.open(io.BytesIO(base64.b64decode(body))) as image:
        assert head == "data:image/jpeg;base64" and image.size == (176, 132)


@pytest.mark.parametrize("item", [MARKUP, CHINESE, ARABIC, EMOJI, LONG, TURNED, SIGNS], ids=ascii)
def test_strange_ids_survive_as_text(exported: str, item: str) -> None:
    data = data_of(exported)
    assert item in data["items"] and item in data["facts"] and data["answers"]["item"][item]["item"] == item


def test_markup_of_others_ends_nothing(exported: str) -> None:
    assert exported.count("</script>") == exported.count("<script") == 9
    assert "onerror=document" in exported and "<img" not in exported
    text = plain_json({"</script>": "<!-- <script> & \u2028 \ud800"})
    assert not set("<>&") & set(text) and text.isascii()
    assert json.loads(text) == {"</script>": "<!-- <script> & \u2028 \ud800"}
    placed = {"a": "<!-- head --><!-- data --></script>"}
    assert data_of(page_of(placed)) == placed


def test_a_sample_has_the_items_of_its_lists_and_cold_ones(view: View, tmp_path: Path) -> None:
    done = export_page(view, tmp_path / "page", users=2, items=20)
    data = data_of(done.path.read_text(encoding="utf-8"))
    assert (done.users, done.items) == (2, 20) and len(data["items"]) == 20
    buckets = [data["facts"][item]["bucket"] for item in data["items"]]
    assert buckets.count("cold") >= 4 and data["about"]["buckets"]["cold"] == buckets.count("cold")
    named = {one["item"] for answer in data["answers"]["list"].values() for one in answer["items"]}
    assert named <= set(data["facts"]) and set(data["map"]["items"]) <= set(data["items"])


def test_where_it_cannot_be_written_is_told(view: View, odd: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder, said in (
        (tmp_path / "file", "is a file"),
        (view.recs[0].data.path / "page", "folder of the dataset"),
        (odd["bpr"] / "page", "file of the run itself"),
    ):
        with pytest.raises(UserError, match=said):
            export_page(view, folder)
    assert (tmp_path / "file").read_text() == "mine"
