"""Downloading pictures from servers that misbehave: what is fetched, what is refused, what is asked again."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rawrec.data.checked import Checked
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.download import fetcher
from rawrec.sources.download.addresses import IPAddress, is_public
from rawrec.sources.download.folder import Downloads
from rawrec.sources.download.safe_http import Limits
from web import Server, picture

Fetch = Callable[..., tuple[list[list[bytes]], ImportReport]]


@pytest.fixture
def web() -> Iterator[Server]:
    with Server() as server:
        yield server


def only_first(address: IPAddress) -> bool:
    """127.0.0.1 stands for the open internet, 127.0.0.2 for a private network."""
    return address == ipaddress.ip_address("127.0.0.1")


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """Fetches rows of addresses into the folder `downloads`, as one import would."""

    def go(
        *rows: list[str], retry_failed: bool = False, folder: Path = tmp_path / "downloads", **limits: Any
    ) -> tuple[list[list[bytes]], ImportReport]:
        report = ImportReport()
        given = {"allowed": only_first, "timeout": 5.0, "backoff": 0.01, "max_bytes": 1 << 20} | limits
        downloads = Downloads(folder, report, Limits(**given), retry_failed=retry_failed)
        try:
            found: list[list[bytes]] = []
            for part, pictures in downloads.fetch(rows, [f"i{n}" for n in range(len(rows))], Checked(folder.resolve())):
                assert part == slice(len(found), len(found) + len(pictures))
                found += pictures
            downloads.note()
        finally:
            downloads.close()
        return found, report

    return go


def failures(report: ImportReport) -> dict[str, int]:
    return {reason.removeprefix("image: "): entry.count for reason, entry in report.skipped.items()}


def listed(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "downloads" / "failed.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------------ pictures
def test_pictures_come_in_order_and_once(web: Server, fetch: Fetch) -> None:
    rows = [[web.url(f"ok/{n}"), web.url(f"ok/{n + 1}")] if n % 3 else [] for n in range(100)]
    found, report = fetch(*rows)
    assert found == [[picture(n), picture(n + 1)] if n % 3 else [] for n in range(100)]
    assert set(web.asked.values()) == {1}
    assert failures(report) == {} and report.kept["images"] == report.read["images"] == sum(map(len, rows))
    again, report = fetch(*rows)
    assert again == found and set(web.asked.values()) == {1}
    assert "0 downloaded (0.0 MB), 99 were there" in report.notes[0]


def test_connections_stay_open_and_are_few(web: Server, fetch: Fetch) -> None:
    web.pause = 0.002
    fetch(*[[web.url(f"ok/{n}")] for n in range(60)], per_host=3)
    assert web.most_open == 3
    connections = {line for head in web.heads for line in head.splitlines() if line.startswith("Connection")}
    assert connections <= {"Connection: keep-alive"}


def test_requests_say_who_asks_and_nothing_else(
    web: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.2:9")
    found, _ = fetch([web.url("ok/1"), web.url("ok/2"), web.url("to/" + web.url("ok/3"))])
    assert found == [[picture(1), picture(2), picture(3)]]
    for head in web.heads:
        names = {line.partition(":")[0].lower() for line in head.splitlines()[1:] if line}
        assert names <= {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert "User-Agent: rawrec/" in head and "Accept-Encoding: identity" in head


@pytest.mark.parametrize("kind", ["", "image/anything", "IMAGE/PNG; x=y", "application/octet-stream"])
def test_types_that_may_be_pictures(kind: str, web: Server, fetch: Fetch) -> None:
    assert fetch([web.url(f"type/{kind}".replace(" ", "%20").replace(";%20x=y", ""))])[0] == [[picture(0)]]


def test_addresses_that_are_not_ascii(web: Server, fetch: Fetch) -> None:
    found, _ = fetch([web.url("ok/5?größe und 猫.png"), web.url("ok/6?a=%2F%20b+%7e#part"), web.url("%6Fk/7")])
    assert found == [[picture(5), picture(6), picture(7)]]
    assert [head.split()[1] for head in sorted(web.heads)] == [
        "/%6Fk/7",
        "/ok/5?gr%C3%B6%C3%9Fe%20und%20%E7%8C%AB.png".replace("%20", "+"),
        "/ok/6?a=%2F%20b+%7e",
    ]


# -------------------------------------------------------------------------------------------------------- misbehaviour
@pytest.mark.parametrize(
    "path,reason,asked",
    [
        ("status/404", "HTTP 404", 1),
        ("status/410", "HTTP 410", 1),
        ("status/403", "HTTP 403", 1),
        ("status/204", "HTTP 204", 1),
        ("status/304", "HTTP 304", 1),
        ("status/500", "HTTP 500", 4),
        ("later/429/9/0", "HTTP 429", 4),
        ("type/text/html", "the server calls it no picture", 1),
        ("empty", "empty file", 1),
        ("packed", "the answer is compressed", 1),
        ("huge", "larger than 1 MiB", 1),
        ("endless", "larger than 1 MiB", 1),
        ("bomb", "too large", 1),
        ("cut", "the answer broke off or is no HTTP", 4),
        ("junk", "the answer broke off or is no HTTP", 4),
        ("head", "the answer broke off or is no HTTP", 4),
        ("gone", "the answer broke off or is no HTTP", 4),
        ("drip", "no whole answer within 0.2 s", 4),
        ("silent", "no whole answer within 0.2 s", 4),
        ("loop/", "more than 5 redirects", 1),
        ("to/", "HTTP 302", 1),
        ("to/ftp://127.0.0.1/x.png", "not an http or https address", 1),
        ("to/file:///etc/passwd", "not an http or https address", 1),
        ("to/http://me:secret@127.0.0.1/", "address holds a user name or a password", 1),
        ("to/http://[::1", "address cannot be read", 1),
    ],
)
def test_answers_without_a_picture(
    path: str, reason: str, asked: int, web: Server, fetch: Fetch, tmp_path: Path
) -> None:
    """Each is counted and listed, and hurts nothing else; what may be better later is asked four times."""
    started = time.monotonic()
    found, report = fetch([web.url("ok/1")], [web.url(path), web.url("ok/2")], timeout=0.2)
    assert found == [[picture(1)], [picture(2)]]
    assert failures(report) == {reason: 1}
    assert report.skipped[f"image: {reason}"].examples == [f"i1 {web.url(path)}"]
    assert web.asked[f"/{path}"] == asked or (path == "gone" and web.asked["/gone"] <= 2 * asked)
    assert [(e["url"], e["item"], e["reason"], e["permanent"]) for e in listed(tmp_path)] == [
        (web.url(path), "i1", reason, asked == 1)
    ]
    assert time.monotonic() - started < 3
    assert not [
        path for path in (tmp_path / "downloads").rglob("*") if path.is_file() and len(path.name) not in (12, 64)
    ]
    before = web.asked.total()
    _, report = fetch([], [web.url(path)])
    assert failures(report) == {reason: 1} and web.asked.total() == before, "it was asked again"


def test_odd_answers(web: Server, fetch: Fetch) -> None:
    """Bytes of heads and bodies that were changed at random: each answer is a picture, or is counted with a reason."""
    rows = [[web.url(f"odd/{seed}")] for seed in range(300)]
    found, report = fetch(*rows, [web.url("ok/1")], timeout=0.3, backoff=0.001, max_bytes=10_000)
    assert found[-1] == [picture(1)]
    assert sum(failures(report).values()) == sum(1 for pictures in found if not pictures)
    assert 100 < sum(failures(report).values()) < 300


def test_what_is_better_the_next_time(web: Server, fetch: Fetch, tmp_path: Path) -> None:
    started = time.monotonic()
    found, report = fetch([web.url("later/500/2"), web.url("later/503/1/1"), web.url("later/429/3/0")])
    assert found == [[picture(500), picture(503), picture(429)]] and failures(report) == {}
    assert time.monotonic() - started >= 1, "Retry-After was not heeded"
    assert listed(tmp_path) == []


def test_redirects_are_followed(web: Server, fetch: Fetch) -> None:
    five = web.url("to/" * 5 + "ok/7")
    relative = web.url("to//ok/8")
    assert fetch([five.replace("to/", f"to/{web.url('')}").replace(web.url("") * 2, web.url("")), relative])[0] == [
        [picture(7), picture(8)]
    ]


def test_a_host_that_is_silent_is_given_up(fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetcher, "MAX_LOST", 5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found, report = fetch(*[[f"http://127.0.0.1:{port}/{n}"] for n in range(50)], per_host=2)
    assert found == [[]] * 50
    counts = failures(report)
    assert 5 <= counts.pop("no connection") <= 6
    assert list(counts) == ["host gave no answer for 5 pictures in a row: not asked any more"]
    assert not any(entry["permanent"] for entry in listed(tmp_path))


def test_a_host_that_wants_to_be_left_alone_is(web: Server, fetch: Fetch) -> None:
    found, report = fetch(*[[web.url(f"later/429/9/3600?{n}")] for n in range(30)], [web.url("ok/1")], per_host=2)
    assert found[:30] == [[]] * 30 and sum(web.asked.values()) <= 2
    assert failures(report)["host wants to be left alone for more than 60 s: not asked any more"] >= 29


def test_a_busy_host_is_asked_over_fewer_connections(web: Server, fetch: Fetch) -> None:
    web.pause = 0.01
    rows = [[web.url("later/429/1/0")], *([web.url(f"ok/{n}")] for n in range(40))]
    found, _ = fetch(*rows, per_host=2)
    assert all(found)
    assert web.most_open == 2


def test_requests_a_second(web: Server, fetch: Fetch) -> None:
    started = time.monotonic()
    fetch(*[[web.url(f"ok/{n}")] for n in range(11)], per_second=20)
    assert 0.5 <= time.monotonic() - started < 2


# ------------------------------------------------------------------------------------------------------- the addresses
PRIVATE = "the server's IP address is not public (allow it with --allow-private)"


@pytest.mark.parametrize(
    "host,reasons",
    [
        ("127.0.0.2", {PRIVATE}),
        ("[::1]", {PRIVATE}),
        ("[::ffff:127.0.0.2]", {PRIVATE}),
        ("2130706434", {PRIVATE, "address cannot be read"}),
        ("0x7f000002", {PRIVATE, "address cannot be read"}),
        ("0177.0.0.2", {PRIVATE, "address cannot be read"}),
        ("127.2", {PRIVATE, "address cannot be read"}),
        ("127.0.0.2.", {PRIVATE, "address cannot be read", "unknown host"}),
        ("１２７.0.0.2", {PRIVATE, "address cannot be read", "unknown host"}),
    ],
)
def test_private_addresses_are_refused_at_every_hop(host: str, reasons: set[str], web: Server, fetch: Fetch) -> None:
    direct, hop = web.url("ok/1", host), web.url("to/" + web.url("ok/2", host))
    found, report = fetch([direct], [hop], [web.url("ok/3")])
    assert found == [[], [], [picture(3)]]
    assert set(failures(report)) <= reasons and sum(failures(report).values()) == 2
    assert "/ok/1" not in web.asked and "/ok/2" not in web.asked


def test_this_machine_is_refused_by_default(web: Server, fetch: Fetch) -> None:
    names = ["localhost", "127.0.0.1", "LOCALHOST"]
    found, report = fetch([web.url("ok/1", name) for name in names], allowed=is_public)
    assert found == [[]] and not web.asked
    assert failures(report) == {PRIVATE: 3}
    found, report = fetch([web.url("ok/1", name) for name in names], allowed=lambda _: True)
    assert found == [[picture(1)] * 3], "the refusal outlived the policy"


def test_names_are_resolved_once_and_wholly(web: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was judged is what is connected to: a second answer of the name server is not even asked for."""
    answers = {"turns.test": [["127.0.0.1"], ["127.0.0.2"]], "mixed.test": [["127.0.0.1", "127.0.0.2"]]}
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *rest: Any, **more: Any) -> Any:
        if host not in answers:
            return real(host, port, *rest, **more)
        asked.append(host)
        found = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    found, report = fetch([web.url("ok/1", "turns.test"), web.url("ok/2", "turns.test"), web.url("ok/3", "mixed.test")])
    assert found == [[picture(1), picture(2)]]
    assert asked == ["turns.test", "mixed.test"]
    assert failures(report) == {PRIVATE: 1}
    assert any(f"Host: turns.test:{web.port}" in head for head in web.heads)


@pytest.mark.parametrize(
    "url,reason",
    [
        ("ftp://127.0.0.1/a.png", "not an http or https address"),
        ("file:///etc/passwd", "not an http or https address"),
        ("data:image/png;base64,AAAA", "not an http or https address"),
        ("//127.0.0.1/a.png", "not an http or https address"),
        ("a.png", "not an http or https address"),
        ("http:///a.png", "not an http or https address"),
        ("http://", "not an http or https address"),
        ("http://me@127.0.0.1/a", "address holds a user name or a password"),
        ("http://me:secret@127.0.0.1/a", "address holds a user name or a password"),
        ("http://:secret@127.0.0.1/a", "address holds a user name or a password"),
        ("http://127.0.0.1:99999/a", "address cannot be read"),
        ("http://[::1/a", "address cannot be read"),
        ("http://127.0.0.1/" + "a" * 9000, "address of more than 8,000 characters"),
        ("http://a..b/", "address cannot be read"),
        ("http://" + "a" * 70 + ".test/", "address cannot be read"),
        ("http://a\0b/", "address cannot be read"),
        ("\ud800", "address cannot be read"),
    ],
)
def test_addresses_that_are_not_asked(url: str, reason: str, fetch: Fetch) -> None:
    found, report = fetch([url])
    assert found == [[]]
    assert failures(report) == {reason: 1}


def test_a_server_without_a_certificate(web: Server, fetch: Fetch) -> None:
    _, report = fetch([web.url("ok/1").replace("http:", "https:")])
    assert failures(report) == {"no trusted connection to the server": 1}


# ---------------------------------------------------------------------------------------------------------- the folder
def test_failures_are_asked_again_on_request(web: Server, fetch: Fetch, tmp_path: Path) -> None:
    row = [web.url("later/404/1"), web.url("status/410"), web.url("ok/1")]
    found, report = fetch(row)
    assert found == [[picture(1)]]
    assert "could not be had: 2" in report.notes[1] and "--overwrite --retry-failed" in report.notes[1]
    assert fetch(row)[0] == [[picture(1)]] and web.asked["/later/404/1"] == 1
    found, _ = fetch(row, retry_failed=True)
    assert found == [[picture(404), picture(1)]]
    assert [entry["url"] for entry in listed(tmp_path)] == [web.url("status/410")]
    assert web.asked["/ok/1"] == 1


def test_damaged_files_and_lists_are_mended(web: Server, fetch: Fetch, tmp_path: Path) -> None:
    row = [web.url("ok/1"), web.url("ok/2"), web.url("status/404")]
    fetch(row)
    first, second = [p for p in (tmp_path / "downloads").rglob("*") if p.is_file() and p.suffix != ".jsonl"]
    first.write_bytes(first.read_bytes()[:40])
    second.write_bytes(b"")
    with (tmp_path / "downloads" / "failed.jsonl").open("a") as file:
        file.write('[1]\n{"url": 5}\nnonsense\n{"url": "http://half')
    found, report = fetch([*row, web.url("status/410")])
    assert found == [[picture(1), picture(2)]]
    assert failures(report) == {"HTTP 404": 1, "HTTP 410": 1} and web.asked["/status/404"] == 1
    assert json.loads((tmp_path / "downloads" / "failed.jsonl").read_text().splitlines()[-1])["reason"] == "HTTP 410"


def test_folders_that_cannot_be_used(web: Server, fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file"):
        fetch([web.url("ok/1")], folder=tmp_path / "file")
    with pytest.raises(UserError, match="file"):
        fetch([web.url("ok/1")], folder=tmp_path / "file" / "below")
    assert not web.asked


def test_a_full_disk_ends_the_import(
    web: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rawrec.sources.download.folder.create", full)
    with pytest.raises(UserError, match="the disk is full"):
        fetch(*[[web.url(f"ok/{n}")] for n in range(100)])
    assert listed(tmp_path) == []


def test_large_pictures_wait_on_disk(web: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "IN_MEMORY", 10)
    assert fetch([web.url("ok/1"), web.url("ok/2")])[0] == [[picture(1), picture(2)]]


def test_parts_are_bounded(web: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    from rawrec.sources.media import pictures as media

    monkeypatch.setattr(media, "FLUSH_BYTES", 1000)
    monkeypatch.setattr(media, "CHUNK", 4)
    found, _ = fetch(*[[web.url(f"ok/{n % 5}")] for n in range(50)])
    assert found == [[picture(n % 5)] for n in range(50)]


def test_it_works_where_a_loop_is_running(web: Server, fetch: Fetch) -> None:
    async def notebook() -> list[list[bytes]]:
        return fetch([web.url("ok/1")])[0]

    assert asyncio.run(notebook()) == [[picture(1)]]
