"""Versions that are published while the server runs take each other's place: whole, tried, no answer mixes two."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from rawrec import UserError
from rawrec.data.dataset import Dataset
from rawrec.reading import read_json_lines
from rawrec.stream import versions
from rawrec.stream.online import online
from rawrec.training.runs import RunFolder
from streams import SETTINGS, events_of, small_run, write

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from rawrec.server.run import Options, application, open_serving
from rawrec.server.watching import Watcher, loaded, try_out
from rawrec.serving.published import Published, holds_versions

pytestmark = pytest.mark.filterwarnings("ignore")
TOKEN = "0123456789abcdef"
BEARS = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def made(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of some versions of one stream."""
    folder = tmp_path_factory.mktemp("swapping")
    data = Dataset.open(shop)
    run, url, out = small_run(folder / "run", data, "hybrid"), f"sqlite:{folder / 'events.db'}", folder / "out"
    write(url, events_of(data, 30))
    online(run, log=url, until="end", settings=SETTINGS | {"publish_every": 3}, publish=out)
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    assert len(versions.listed(out).versions) >= 3
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy, which serves its first version."""
    copied = Path(shutil.copytree(made, tmp_path / "out"))
    names(copied)
    versions.rollback(copied, names(copied)[0])
    return copied


def names(out: Path) -> list[str]:
    return [version.name for version in versions.listed(out).versions]


@pytest.fixture
def http(out: Path, made: Path) -> Iterator[TestClient]:
    options = Options(token_file=made.parent / "token", threads=1, every=3600.0)
    serving, _ = open_serving(lambda added: pytest.fail("a run was loaded"), options, out)
    with TestClient(application(serving, options), base_url="http://127.0.0.1") as client:
        yield client


def watcher(http: TestClient) -> Watcher:
    app: Any = http.app
    return app.state.serving.watcher


def test_what_is_published_answers_from_the_next_look_on(http: TestClient, out: Path) -> None:
    user = str(Published.of(out).data.user_ids[0])
    for name in names(out)[1:]:
        versions.rollback(out, name)
        assert http.get("/version").json()["version"] != name
        assert watcher(http).look() and not watcher(http).look()
        answer = http.post("/recommend", json={"user": user, "k": 5}).json()
        expected = Published.of(out, name).recommend(user, k=5)
        assert [one["item"] for one in answer["items"]] == [one.item for one in expected]
        assert answer["served"]["version"] == name
        assert answer["served"]["watermark"] == versions.read(out, name)[0].watermark
    assert f"rawrec_version_swaps_total {len(names(out)) - 1}.0" in http.get("/metrics").text


def test_the_page_follows_and_shows_what_is_published(http: TestClient, out: Path) -> None:
    known, user = names(out), str(Published.of(out).data.user_ids[0])
    assert http.get("/page/about").json()["runs"][0]["name"] == known[0]
    versions.rollback(out, known[-1])
    assert watcher(http).look()
    assert http.get("/page/about").json()["runs"][0]["name"] == known[-1]
    listed = http.post("/page/list", json={"user": user, "until": "now", "k": 5}).json()["items"]
    expected = Published.of(out).recommend(user, k=5)
    assert [one["item"] for one in listed] == [one.item for one in expected]
    live = http.get("/page/live").json()
    assert [one["name"] for one in live["versions"]] == known[::-1] and live["count"] == len(known) and live["held"]
    assert [one["name"] for one in live["versions"] if one["served"]] == [live["served"]["version"]] == [known[-1]]
    assert live["swaps"] == 1 and live["requests"] >= 3 and live["events"] is None
    run = Path(versions.listed(out).versions[0].folder)
    lines = read_json_lines(run / "online" / "metrics.jsonl")
    assert [one["judged"] for one in live["windows"]] == [line["judged"] for line in lines] != []
    (out / versions.FOLDER / known[0] / versions.MANIFEST).write_text("{")
    told = http.get("/page/live").json()
    assert told["versions"] == [] and str(out) not in told["told"] and versions.MANIFEST in told["told"]


def test_no_answer_mixes_two_versions(http: TestClient, out: Path) -> None:
    """While versions are exchanged, each answer is what the version that it names says."""
    first, last = names(out)[0], names(out)[-1]
    expected = {}
    user = str(Published.of(out).data.user_ids[0])
    for name in (first, last):
        found = Published.of(out, name).recommend(user, k=20)
        expected[name] = [(one.item, pytest.approx(one.score, abs=1e-6)) for one in found]
    assert expected[first] != expected[last]
    kept = {name: loaded(out, name) for name in (first, last)}
    seen, end = set(), Event()

    def exchange() -> None:
        app: Any = http.app
        serving = app.state.serving
        while not end.is_set():
            for name in (last, first):
                serving.writing.submit(serving.take, kept[name]).result()

    thread = Thread(target=exchange)
    thread.start()
    try:
        until = time.monotonic() + 20
        while (len(seen) < 2 or time.monotonic() < until - 19) and time.monotonic() < until:
            answer = http.post("/recommend", json={"user": user, "k": 20}).json()
            name = answer["served"]["version"]
            seen.add(name)
            assert [(one["item"], one["score"]) for one in answer["items"]] == expected[name]
    finally:
        end.set()
        thread.join()
    assert seen == {first, last}


def test_what_was_added_and_hidden_here_is_in_the_next_version(http: TestClient, out: Path) -> None:
    rec = Published.of(out)
    item, user = str(rec.data.item_ids[5]), str(rec.data.user_ids[0])
    assert http.post("/items", json={"item_id": "mine", "title": "A red mug"}, headers=BEARS).status_code == 200
    assert http.post("/hidden", json={"hide": [item]}, headers=BEARS).status_code == 200
    versions.rollback(out, names(out)[-1])
    assert watcher(http).look()
    found = {one["item"] for one in http.post("/recommend", json={"user": user, "k": 999}).json()["items"]}
    assert "mine" in found and item not in found
    http.post("/hidden", json={"show": [item]}, headers=BEARS)
    versions.rollback(out, names(out)[1])
    assert watcher(http).look()
    asked = {"user": user, "k": 999, "exclude_seen": False}
    assert item in {one["item"] for one in http.post("/recommend", json=asked).json()["items"]}


def test_a_damaged_version_is_told_once_and_the_one_before_goes_on(
    http: TestClient, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *_, last = names(out)
    path = out / "versions" / second / versions.TENSORS
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    pointer = out / versions.POINTER
    text = pointer.read_text()
    pointer.write_text(text.replace(first, second))
    for _ in range(3):
        assert not watcher(http).look()
    assert http.get("/version").json()["version"] == first
    pointer.write_text("{")
    assert not watcher(http).look() and not watcher(http).look()
    assert capsys.readouterr().err.count(f"{first} goes on answering") == 2
    path.write_bytes(whole)  # of which the last one is made
    pointer.write_text(text.replace(first, last))
    assert watcher(http).look() and http.get("/version").json()["version"] == last


def test_a_version_whose_lists_are_none_never_answers(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec = Published.of(out)
    monkeypatch.setattr(Published, "recommend", lambda *_, **__: [])
    with pytest.raises(UserError, match="none that can be served"):
        try_out(rec)


def test_the_watcher_looks_by_itself(out: Path, made: Path) -> None:
    options = Options(threads=1, every=0.05)
    serving, _ = open_serving(lambda added: pytest.fail("a run was loaded"), options, out)
    last = names(out)[-1]
    versions.rollback(out, last)
    until = time.monotonic() + 20
    while serving.now().name != last and time.monotonic() < until:
        time.sleep(0.02)
    serving.close()
    assert serving.now().name == last


def test_folders_are_told_apart(out: Path, made: Path, tmp_path: Path) -> None:
    assert holds_versions(out) and not holds_versions(made.parent / "run") and not holds_versions(tmp_path / "none")


def test_a_change_of_an_item_goes_into_the_log_and_comes_with_a_version(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.parent / "run", tmp_path / "run"))
    shutil.rmtree(folder / "online")
    url, out, settings = f"sqlite:{tmp_path / 'events.db'}", tmp_path / "out", SETTINGS | {"publish_every": 1}
    data = RunFolder.open(folder).dataset()
    item, text = str(data.item_ids[3]), data.fields.text[0]
    write(url, events_of(data, 1), strange=False)
    online(folder, log=url, until="end", settings=settings, publish=out, data=data)
    before = versions.read(out)
    options = Options(token_file=made.parent / "token", threads=1, every=3600.0, log=url)
    serving, _ = open_serving(lambda added: pytest.fail("a run was loaded"), options, out)
    with TestClient(application(serving, options), base_url="http://127.0.0.1") as client:
        changed = {"item_id": item, text: "an entirely different thing"}
        answer = client.post("/items", json=changed, headers=BEARS)
        assert answer.status_code == 200 and (answer.json()["changed"], answer.json()["added"]) == ([item], [])
        wrong = client.post("/items", json={"item_id": item, text: 5}, headers=BEARS)
        assert wrong.status_code == 422
    found = online(folder, log=url, until="end", publish=out, data=data)
    assert found["counts"]["changed_items"] == 1
    after = versions.read(out)
    rows = (before[1]["content"] != after[1]["content"]).any(1).nonzero()[:, 0].tolist()
    assert rows == [3] and after[0].base == before[0].name


def test_without_a_log_a_known_item_is_refused(http: TestClient, out: Path) -> None:
    item = str(Published.of(out).data.item_ids[0])
    answer = http.post("/items", json={"item_id": item}, headers=BEARS)
    assert answer.status_code == 422 and "already" in answer.json()["error"]
