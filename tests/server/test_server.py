"""The server answers as the recommender does, says which version did, and lets nobody write without the token."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rawrec
import web
from lists_shop import ITEMS, MODELS, make_runs, make_shop
from rawrec import Recommender, UserError

pytest.importorskip("fastapi")
import httpx
from pydantic import ValidationError
from starlette.testclient import TestClient

from rawrec.server import run as running
from rawrec.server.guard import without_paths
from rawrec.server.run import Options, application, listen, open_serving, read_token, serve
from rawrec.server.wire import RecommendAsked
from rawrec.stream.events import Item, read_event
from rawrec.stream.log import open_log

TOKEN = "0123456789abcdef"
BEARS = {"authorization": f"Bearer {TOKEN}"}
TINY = {
    "train.epochs": 1, "train.threads": 1, "train.precision": "fp32", "eval.full_ranking": False, "paradigm": "hybrid",
    "content.image.encoder": "random:conv", "content.image.size": 32, "content.image.train": "none",
    "content.text.encoder": "random:bert", "content.text.train": "none",
}  # fmt: skip
NEW = {"item_id": "n1", "kind": "lamp", "look": [0.5, -1.0, 0.3, 0.2, 1.5, -0.7]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    return make_runs(make_shop(folder / "data"), folder)


def client(run: Path, **given: Any) -> TestClient:
    options = Options(**{"token_file": run.parent / "token", "threads": 1, **given})
    serving, notes = open_serving(lambda added: Recommender.load(run, device="cpu", added=added), options)
    assert notes == []
    return TestClient(application(serving, options), base_url=f"http://{options.host}", raise_server_exceptions=False)


@pytest.fixture
def em3(runs: dict[str, Path]) -> Iterator[TestClient]:
    with client(runs["em3"]) as made:
        yield made


def items_of(answer: Any) -> list[tuple[str, float]]:
    assert answer.status_code == 200, answer.text
    return [(one["item"], one["score"]) for one in answer.json()["items"]]


def pairs(found: Any) -> list[tuple[str, Any]]:
    return [(one.item, pytest.approx(one.score, abs=1e-6)) for one in found]


@pytest.mark.parametrize("model", MODELS)
def test_lists_are_those_of_the_recommender(runs: dict[str, Path], model: str) -> None:
    rec = Recommender.load(runs[model], device="cpu")
    wishes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"k": 5}, {"k": 5}),
        ({"k": 99, "exclude_seen": False, "exclude": ["i1"]}, {"k": 99, "exclude_seen": False, "exclude": ["i1"]}),
        ({"items": ["i1", "i2", "i3"], "exclude_seen": "none"}, {"items": ["i1", "i2", "i3"], "exclude_seen": "none"}),
        (
            {"where": {"kind": ["lamp", "mug"], "price": {"most": 20}, "brand": {"not": "b1"}, "in_stock": True}},
            {"where": {"kind": ["lamp", "mug"], "price": (None, 20), "brand": {"not": "b1"}, "in_stock": True}},
        ),
        ({"max_per": {"brand": 1}, "diversity": 0.5}, {"max_per": {"brand": 1}, "diversity": 0.5}),
    ]
    with client(runs[model]) as http:
        for sent, asked in wishes:
            answer = http.post("/recommend", json={"user": "u1", **sent})
            assert items_of(answer) == pairs(rec.recommend("u1", **asked))
            assert answer.json()["measure"] == rec.measure
            lists = http.post("/recommend/batch", json={"users": ["u3", "u1"], **sent}).json()["lists"]
            assert [one["user"] for one in lists] == ["u3", "u1"]
            alone = items_of(http.post("/recommend", json={"user": "u3", **sent}))
            assert [(one["item"], one["score"]) for one in lists[0]["items"]] == [
                (item, pytest.approx(score, abs=1e-6)) for item, score in alone
            ]
        found = http.post("/score", json={"user": "u1", "items": ["i7", "i2"]}).json()["scores"]
        assert found == pytest.approx(rec.score("u1", ["i7", "i2"]))
        assert items_of(http.post("/similar", json={"item": "i7", "k": 3})) == pairs(rec.similar("i7", k=3))


def test_somebody_new_is_served_by_a_history_with_reasons(runs: dict[str, Path], em3: TestClient) -> None:
    rec = Recommender.load(runs["em3"], device="cpu")
    answer = em3.post("/recommend", json={"history": ["i1", "i2"], "k": 4, "explain": True})
    expected = rec.recommend(history=["i1", "i2"], k=4, explain=True)
    assert items_of(answer) == pairs(expected)
    for one, other in zip(answer.json()["items"], expected, strict=True):
        assert [reason["item"] for reason in one["because"]] == [item for item, _ in other.because]
        assert one["parts"] == pytest.approx(other.parts, abs=1e-5) and one["by"] == other.by


def test_every_answer_says_which_version_and_how_fresh(runs: dict[str, Path], em3: TestClient) -> None:
    rec = Recommender.load(runs["em3"], device="cpu")
    times = rec.data.timestamps
    assert times is not None
    served = em3.get("/version").json()
    assert served["version"] == f"em3-{rec.fingerprint()[:8]}" and served["watermark"] == times.max()
    for path, asked in (
        ("/recommend", {"user": "u1"}),
        ("/recommend/batch", {"users": ["u1"]}),
        ("/score", {"user": "u1", "items": ["i1"]}),
        ("/similar", {"item": "i1"}),
    ):
        assert em3.post(path, json=asked).json()["served"]["version"] == served["version"]
    assert em3.get("/health/ready").json()["version"] == served["version"]
    assert em3.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("path", "asked", "said"),
    [
        ("/recommend", {}, "say who"),
        ("/recommend", {"user": "nobody"}, "user 'nobody' is not in data"),
        ("/recommend", {"user": "u1", "kk": 3}, "kk: Extra inputs are not permitted"),
        ("/recommend", {"user": "u1", "k": 0}, "k: Input should be greater than or equal to 1"),
        ("/recommend", {"user": "u1", "k": 10**9}, "k: Input should be less than or equal to 1000"),
        ("/recommend", {"user": "u1", "diversity": 2}, "diversity"),
        ("/recommend", {"user": "u1", "where": {"nope": 1}}, "nope"),
        ("/recommend", {"user": "u1", "where": {"price": {}}}, "a range needs"),
        ("/recommend", {"user": "u1", "items": ["i999"]}, "i999"),
        ("/recommend", {"user": "u" * 600}, "user: String should have at most 256"),
        ("/recommend", {"history": [{"look": "/etc/passwd"}]}, "history.0"),
        ("/recommend/batch", {"users": []}, "users"),
        ("/recommend/batch", {"users": ["u1", "nobody"]}, "nobody"),
        ("/score", {"user": "u1"}, "items: Field required"),
        ("/score", {"user": "u1", "items": ["i1"], "label": "nope"}, "nope"),
        ("/similar", {"item": "nope"}, "there is no item 'nope'"),
        ("/similar", {"item": "i1", "by": "nope"}, "nope"),
        ("/search", {"query": "mug"}, "reads no queries"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(em3: TestClient, path: str, asked: dict[str, Any], said: str) -> None:
    answer = em3.post(path, json=asked)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert said in error and "\n" not in error and "/" not in error and "Traceback" not in error


def test_places_of_files_stay_here() -> None:
    assert without_paths("there is no file /home/ann/shop/mug.jpg: look") == "there is no file mug.jpg: look"
    assert without_paths("'/tmp/a b' and C:/x/y.txt") == "'a b' and y.txt"
    assert without_paths("24/7 and a/b stay") == "24/7 and a/b stay"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({f"x{n}": 1 for n in range(100_000)}, "100,000 fields are given; at most 64 are taken"),
        ({"user": "u1", "max_per": {f"x{n}": "y" for n in range(100_000)}}, "max_per: 100,000 fields"),
        ({"user": "u1", "context": {"seen": {f"x{n}": "y" for n in range(100_000)}}}, "context.seen"),
        ({"user": "u1", "exclude": [[]] * 20_000}, "exclude.0: Input should be a valid string"),
        ({"x" * 1_000_000: 1}, "x" * 60 + ": Extra inputs"),
    ],
)  # fmt: skip
def test_many_mistakes_cost_little_and_are_told_in_short(em3: TestClient, asked: dict[str, Any], said: str) -> None:
    answer = em3.post("/recommend", json=asked)
    assert answer.status_code == 422 and said in answer.json()["error"] and len(answer.text) < 300
    with pytest.raises(ValidationError) as found:
        RecommendAsked.model_validate(asked)
    assert found.value.error_count() < 10


def test_what_is_no_json_and_what_is_nowhere(em3: TestClient) -> None:
    headers = {"content-type": "application/json"}
    assert em3.post("/recommend", content=b"{", headers=headers).status_code == 422
    assert em3.post("/recommend", content=b'{"user": "u1"}', headers={"content-type": "text/plain"}).status_code == 422
    assert em3.post("/recommend", content=b'{"user": NaN}', headers=headers).status_code == 422
    assert em3.get("/recommend").json() == {"error": "Method Not Allowed"}
    assert em3.get("/nope").status_code == 404
    long = em3.post("/recommend", json={"user": "u1", "exclude": ["i" * 250] * 20_000})
    assert long.status_code == 413


# --------------------------------------------------------------------------------------------------------------- tokens
WRITES = [("POST", "/items"), ("DELETE", "/items/i1"), ("POST", "/hidden"), ("POST", "/hidden/"), ("PUT", "/items/i1")]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_nobody_writes_without_the_token(runs: dict[str, Path], em3: TestClient, method: str, path: str) -> None:
    for headers in ({}, {"authorization": TOKEN}, {"authorization": "Bearer 0123456789abcdeX"}):
        answer = em3.request(method, path, headers=headers, json=NEW)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    with client(runs["em3"], token_file=None) as closed:
        assert closed.request(method, path, headers=BEARS, json=NEW).status_code == 403
        assert closed.post("/recommend", json={"user": "u1"}).status_code == 200


def test_elsewhere_everything_asks_for_the_token(runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="--token-file"):
        Options(host="0.0.0.0").check()
    with client(runs["em3"], host="0.0.0.0") as http:
        assert http.post("/recommend", json={"user": "u1"}).status_code == 401
        assert http.post("/recommend", json={"user": "u1"}, headers=BEARS).status_code == 200
        for path in ("/metrics", "/docs", "/openapi.json", "/version"):
            assert http.get(path).status_code == 401 and http.get(path, headers=BEARS).status_code == 200
        assert http.get("/health/live").status_code == 200


def test_on_this_machine_no_other_name_leads_here(em3: TestClient, runs: dict[str, Path]) -> None:
    """A page of a stranger, whose name was made to lead here, can ask nothing."""
    assert em3.get("/version", headers={"host": "evil.example"}).status_code == 400
    assert em3.get("/version", headers={"host": "localhost:8000"}).status_code == 200
    with client(runs["em3"], names=("shop.example",)) as http:
        assert http.get("/version", headers={"host": "shop.example"}).status_code == 200


def test_answers_tell_browsers_to_trust_nothing(em3: TestClient) -> None:
    for answer in (em3.get("/docs"), em3.get("/nope"), em3.post("/items"), em3.get("/version")):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("short", 0o600, "16 signs"),
        (TOKEN + " b", 0o600, "without spaces"),
        (TOKEN, 0o644, "chmod 600"),
        (None, 0, "no such file"),
    ],
)
def test_a_token_is_a_secret(tmp_path: Path, text: str | None, mode: int, said: str) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(UserError, match=said):
        read_token(path)


# ---------------------------------------------------------------------------------------------------------------- items
def test_an_item_is_recommended_as_soon_as_it_is_there(em3: TestClient) -> None:
    assert em3.post("/items", json=NEW, headers=BEARS).json()["added"] == ["n1"]
    assert "n1" in {item for item, _ in items_of(em3.post("/recommend", json={"user": "u1", "k": 99}))}
    assert em3.post("/recommend", json={"history": ["n1"], "k": 3}).status_code == 200
    again = em3.post("/items", json=NEW, headers=BEARS)
    assert again.status_code == 422 and "has an item 'n1' already" in again.json()["error"]


def test_what_is_hidden_or_deleted_is_in_no_list(em3: TestClient) -> None:
    assert em3.post("/hidden", json={"hide": ["i1", "i2"]}, headers=BEARS).json()["hidden"] == 2
    assert em3.delete("/items/i3", headers=BEARS).json()["hidden"] == 3
    everything = {"user": "u1", "k": 99, "exclude_seen": False}
    assert not {"i1", "i2", "i3"} & {item for item, _ in items_of(em3.post("/recommend", json=everything))}
    assert em3.post("/hidden", json={"show": ["i1"]}, headers=BEARS).json()["hidden"] == 2
    assert len(items_of(em3.post("/recommend", json=everything))) == ITEMS - 2
    assert em3.post("/hidden", json={"hide": ["i4", "nope"]}, headers=BEARS).status_code == 422
    assert em3.delete("/items/nope", headers=BEARS).status_code == 404
    assert len(items_of(em3.post("/recommend", json=everything))) == ITEMS - 2


def test_the_state_is_there_at_the_next_start(runs: dict[str, Path], tmp_path: Path) -> None:
    with client(runs["em3"], state=tmp_path / "state") as http:
        http.post("/items", json=NEW, headers=BEARS)
        http.post("/hidden", json={"hide": ["i1", "n1", "i5"], "show": ["i5"]}, headers=BEARS)
        before = http.post("/score", json={"user": "u1", "items": ["n1"]}).json()["scores"]
    with client(runs["em3"], state=tmp_path / "state") as http:
        found = {item for item, _ in items_of(http.post("/recommend", json={"user": "u1", "k": 99}))}
        assert not {"n1", "i1"} & found
        assert http.post("/score", json={"user": "u1", "items": ["n1"]}).json()["scores"] == before
        http.post("/hidden", json={"show": ["n1"]}, headers=BEARS)
        assert "n1" in {item for item, _ in items_of(http.post("/recommend", json={"user": "u1", "k": 99}))}


PICTURE = io.BytesIO()
Image.new("RGB", (8, 8), "red").save(PICTURE, "PNG")


@pytest.mark.parametrize(
    ("form", "files", "said"),
    [
        ({"item": json.dumps(NEW | {"image": "/etc/passwd"})}, {}, "pictures are uploaded"),
        ({"item": json.dumps(NEW)}, {"image": b"no picture"}, "no image field"),
        ({"item": json.dumps(NEW)}, {"look": PICTURE.getvalue()}, "no image field"),
        ({"item": json.dumps(NEW), "kind": "lamp"}, {}, "stand in `item`"),
        ({"other": "x"}, {}, "`item`"),
        ({"item": "[" * 100_000}, {}, "no JSON"),
        ({"item": "[1]"}, {}, "JSON object"),
        ({"item": "{}"}, {}, "item_id"),
        ({"item": json.dumps(NEW | {"look": [1]})}, {}, "6 finite numbers"),
        ({"item": json.dumps(NEW | {"look": [3e38] * 6})}, {}, "numbers above 1e+18"),
        ({"item": json.dumps(NEW | {"look": [10**400] * 6})}, {}, "vector of 6 numbers"),
    ],
)  # fmt: skip
def test_an_upload_that_is_wrong_adds_nothing(
    em3: TestClient, form: dict[str, str], files: dict[str, bytes], said: str
) -> None:
    sent: dict[str, Any] = {name: (None, text) for name, text in form.items()}
    sent |= {name: ("../../etc/passwd", data) for name, data in files.items()}
    answer = em3.post("/items", files=sent, headers=BEARS)
    assert answer.status_code == 422 and said in answer.json()["error"]
    assert "n1" not in {item for item, _ in items_of(em3.post("/recommend", json={"user": "u1", "k": 99}))}


@pytest.fixture(scope="module")
def pictured(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads pictures."""
    folder = tmp_path_factory.mktemp("pictured")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    return rawrec.train("em3", shop, folder / "em3", TINY).path


def test_pictures_are_uploaded_and_shown(pictured: Path) -> None:
    """An item that comes as a picture and words is judged as the recommender judges it, and a picture comes back."""
    run = pictured
    rec, item = Recommender.load(run, device="cpu"), {"item_id": "n1", "title": "A red mug"}
    rec.add_items([item | {"image": PICTURE.getvalue()}])
    with client(run) as http:
        files: dict[str, Any] = {"item": (None, json.dumps(item)), "image": ("mug.png", PICTURE.getvalue())}
        assert http.post("/items", files=files, headers=BEARS).json()["added"] == ["n1"]
        asked = {"history": [str(rec.data.item_ids[0])], "items": ["n1", str(rec.data.item_ids[1])]}
        expected = rec.score(history=asked["history"], items=asked["items"])
        assert http.post("/score", json=asked).json()["scores"] == pytest.approx(expected, abs=1e-6)
        broken: dict[str, Any] = {"item": (None, json.dumps({"item_id": "n2"})), "image": ("x", b"GIF89a")}
        answer = http.post("/items", files=broken, headers=BEARS)
        assert answer.status_code == 422 and "picture" in answer.json()["error"]
        field = rec.data.fields.image[0]
        there = int(np.flatnonzero(rec.data.present(field))[0])
        shown = http.get(f"/items/{rec.data.item_ids[there]}/image")
        assert shown.content == rec.data.images(field, [there])[0][0]
        assert shown.headers["content-type"] in ("image/png", "image/jpeg")
        assert http.get("/items/n1/image").status_code == 404 and http.get("/items/nope/image").status_code == 404
        assert http.get(f"/items/{rec.data.item_ids[0]}/image?field=nope").status_code == 422


# --------------------------------------------------------------------------------------------------------- what is told
def test_requests_are_counted_by_their_route(em3: TestClient) -> None:
    for user in ("u1", "u2", "nobody"):
        em3.post("/recommend", json={"user": user})
    em3.get("/../etc")
    text = em3.get("/metrics").text
    assert 'rawrec_requests_total{route="/recommend",status="200"} 2.0' in text
    assert 'rawrec_requests_total{route="/recommend",status="422"} 1.0' in text
    assert 'route="unknown",status="404"' in text and "rawrec_request_seconds_bucket" in text
    assert f"rawrec_items {ITEMS}.0" in text and "rawrec_watermark_age_seconds" in text


def test_what_nobody_expected_says_nothing_of_us(
    em3: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Recommender, "similar", lambda *_: 1 / 0)
    answer = em3.post("/similar", json={"item": "i1"})
    assert answer.status_code == 500 and "division" not in answer.text and "number" in answer.json()["error"]
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert em3.post("/recommend", json={"user": "u1"}).status_code == 200


def test_the_page_of_routes_names_each_and_loads_nothing(em3: TestClient) -> None:
    page = em3.get("/docs").text
    for path in em3.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page
    assert "<script" not in page and "http://127.0.0.1:8000" in page and "https://" not in page


# ---------------------------------------------------------------------------------------------------------- the command
def test_the_command_serves_and_ends_in_order(runs: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "rawrec", "serve", str(runs["id"]), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("serving id-") and "/docs" in line
        assert "--token-file" in process.stderr.readline()
        port = line.split("http://127.0.0.1:")[1].split()[0].rstrip(";")
        asked = httpx.post(f"http://127.0.0.1:{port}/recommend", json={"user": "u1", "k": 2}, timeout=20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    assert asked.status_code == 200 and len(asked.json()["items"]) == 2


def test_who_goes_away_or_is_slow_holds_nothing(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Connections on which a request does not arrive are closed; the others are answered, and nothing is said."""
    monkeypatch.setattr("rawrec.server.connection.SECONDS", 0.2)
    options = Options(threads=1, port=0, token_file=runs["id"].parent / "token")
    serving, _ = open_serving(lambda added: Recommender.load(runs["id"], device="cpu"), options)
    place, body = listen(options), b'{"user": "u1"}'
    server = threading.Thread(target=serve, args=(application(serving, options), place), daemon=True)
    address = place.getsockname()
    monkeypatch.setattr("rawrec.server.run.may_set_signals", lambda: False)
    made: list[Any] = []

    class Kept(running._Server):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            made.append(self)

    monkeypatch.setattr(running, "_Server", Kept)
    server.start()
    head = b"POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
    head += b"%d\r\n\r\n" % len(body)
    begun = [b"", b"POST /reco", head, head + body[:5]]
    slow = [socket.create_connection(address, 20) for _ in begun]
    for one, part in zip(slow, begun, strict=True):
        one.sendall(part)
    with socket.create_connection(address, 20) as gone:
        bears = f"authorization: {BEARS['authorization']}\r\ncontent-length".encode()
        gone.sendall(head.replace(b"/recommend", b"/items").replace(b"content-length", bears) + body[:5])
    with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=20) as good:
        assert [good.post("/recommend", json={"user": "u1"}).status_code for _ in range(2)] == [200, 200]
    for one in slow:
        with one:
            assert one.recv(100) == b""
    metrics = httpx.get(f"http://127.0.0.1:{address[1]}/metrics").text
    assert 'rawrec_requests_total{route="/items",status="499"}' in metrics
    made[0].should_exit = True
    server.join(20)
    assert not server.is_alive() and "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken_is_told() -> None:
    with listen(Options(port=0)) as place:
        with pytest.raises(UserError, match="already in use"):
            listen(Options(port=place.getsockname()[1]))
        if os.getuid():
            with pytest.raises(UserError, match="denied"):
                listen(Options(port=1))


def test_answers_are_not_held_back_for_the_next_packet() -> None:
    """asyncio switches Nagle's algorithm off for sockets that say that they are TCP; else each answer takes 40 ms."""
    with listen(Options(port=0)) as place:
        assert place.proto == socket.IPPROTO_TCP


def test_pictures_are_brought_from_addresses(pictured: Path, tmp_path: Path) -> None:
    """As if they had been uploaded, also in the log; nothing is taken in where one gives none."""
    url, item = f"sqlite:{tmp_path / 'events.db'}", {"item_id": "n1", "title": "A red mug"}
    with web.Server() as pages, client(pictured, fetch=True, private=True, log=url) as http:
        for address, said in [
            (pages.url("status/404"), "gives no picture: HTTP 404"),
            (pages.url("huge/1"), "larger than"),
            (pages.url("type/text%2Fhtml"), "calls it no picture"),
            ("file:///etc/passwd", "no http or https address"),
            ([pages.url("ok/1"), 7], "no http or https address"),
            ([pages.url("ok/1")] * 33, "at most 32 pictures"),
        ]:
            answer = http.post("/items", json=item | {"image": address}, headers=BEARS)
            assert answer.status_code == 422 and said in answer.json()["error"], answer.text
        two = {"image": [pages.url("ok/1"), pages.url("to//ok/2")]}
        assert http.post("/items", json=item | two, headers=BEARS).json()["added"] == ["n1"]
        brought = http.post("/score", json={"history": [], "items": ["n1"]}).json()["scores"]
    with client(pictured) as http:
        files = [("item", (None, json.dumps(item))), *(("image", ("a.png", web.picture(n))) for n in (1, 2))]
        assert http.post("/items", files=files, headers=BEARS).json()["added"] == ["n1"]
        assert http.post("/score", json={"history": [], "items": ["n1"]}).json()["scores"] == brought
    with open_log(url) as log:
        (event,) = [read_event(record.data).event for record in log.read(0)]
    assert isinstance(event, Item)
    assert [one.data for one in event.pictures["image"]] == [web.picture(1), web.picture(2)]


def test_addresses_of_this_machine_are_not_asked(pictured: Path) -> None:
    with web.Server() as pages:
        item = {"item_id": "n1", "title": "A red mug", "image": pages.url("ok/1")}
        with client(pictured, fetch=True) as http:
            answer = http.post("/items", json=item, headers=BEARS)
            assert answer.status_code == 422 and "is not public" in answer.json()["error"]
        with client(pictured) as http:
            assert "pictures are uploaded" in http.post("/items", json=item, headers=BEARS).json()["error"]
        assert not pages.asked
    for given, said in [({"fetch": True, "token_file": None}, "--token-file"), ({"private": True}, "--fetch")]:
        with pytest.raises(UserError, match=said):
            Options(**given).check()
