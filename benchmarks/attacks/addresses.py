"""Addresses against the downloader: nothing that is not public is asked, however it is written or led to."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Callable
from typing import Any

from attacks.engine import Fault, Place, message

NEVER = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/29 192.0.0.170/31 192.0.0.192/32
192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32
::/128 ::1/128 100::/64 2001:2::/48 2001:db8::/32 3fff::/20 5f00::/16
64:ff9b:1::/48 fc00::/7 fe80::/10 fec0::/10 ff00::/8
""".split()  # noqa: SIM905
"""Written down here anew, not read from what is attacked."""
_servers: list[Any] = []


def web() -> Any:
    """One canary for a process."""
    if not _servers:
        from web import Server

        _servers.append(Server().__enter__())
    return _servers[0]


def within(rng: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of a block that is not public: its first, its last, one between."""
    block = ipaddress.ip_network(rng.choice(NEVER))
    return block[rng.choice([0, -1, rng.randrange(min(block.num_addresses, 2**62))])]


def forms(
    rng: Any, address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address, or an IPv6 one that stands for it."""
    if isinstance(address, ipaddress.IPv6Address):
        return address
    number = int(address)
    made = rng.choice([
        None, None, (0xFFFF << 32) | number, number, (0x0064FF9B << 96) | number, (0x2002 << 112) | (number << 80) | 1,
        (0x20010000 << 96) | (rng.randrange(2**32) << 64) | (rng.randrange(2**16) << 32) | (number ^ 0xFFFFFFFF),
        (0x20010000 << 96) | (number << 64) | 5, (0xFFFF << 48) | number, (0xFE80 << 112) | (0x5EFE << 32) | number,
    ])  # fmt: skip
    return address if made is None else ipaddress.IPv6Address(made)


def policy(place: Place) -> None:
    """What is not public by the registries is refused, in all the forms that stand for it."""
    from rawrec.sources.download.addresses import is_public

    for _ in range(20):
        address = forms(place.rng, within(place.rng))
        if is_public(address):
            raise Fault(f"{address} is taken for public")


def spelled(rng: Any, number: int) -> str:
    """An IPv4 address in the ways that a C library reads."""
    parts = number.to_bytes(4, "big")
    dotted = ".".join(map(str, parts))
    return rng.choice([
        dotted, str(number), hex(number), oct(number).replace("o", ""), ".".join(map(hex, parts)), dotted + ".",
        ".".join(f"0{part:o}" for part in parts), f"{parts[0]}.{int.from_bytes(parts[1:], 'big')}",
        f"[::ffff:{dotted}]",
        dotted.replace(".", "。"), "".join(chr(0xFF10 + int(c)) if c.isdigit() else c for c in dotted), f"[::{dotted}]",
        f"x@{dotted}", f"{dotted}%00", f"[::ffff:{parts[0]:x}{parts[1]:02x}:{parts[2]:x}{parts[3]:02x}]",
        f"[64:ff9b::{dotted}]",
        "[fe80::1%25lo]", "[::1]", "localhost", "LOCALHOST.", "ip6-localhost",
        f"{dotted}\t", f"\\{dotted}", f"{dotted}#@x", "0", "[::]",
    ])  # fmt: skip


def asked(place: Place) -> None:
    """A server on this machine that no address leads to, by whatever spelling, name or redirect."""
    from rawrec.errors import UserError
    from rawrec.sources.download import safe_http
    from rawrec.sources.download.addresses import is_public

    rng, server = place.rng, web()
    before = server.asked.copy()
    local = rng.choice([0x7F000001, 0x7F000002, 0, 0x7F123456])
    host = spelled(rng, local)
    scheme = rng.choice(["http", "http", "http", "HTTP", "https", "ftp", "file", "gopher", "", "http:/", "//"])
    address = f"{scheme}://{host}:{server.port}/ok/1"
    named = rng.random() < 0.3
    hop = not named and rng.random() < 0.3
    allowed: Callable[[Any], bool] = is_public
    if named:  # a name of a stranger's server, which leads here
        address = f"http://name.test:{server.port}/ok/1"
    if hop:
        allowed = lambda one: str(one) == "127.0.0.2" or is_public(one)  # noqa: E731
        if local == 0x7F000002:
            return
        address = f"http://127.0.0.2:{server.port}/to/{address}"
    real = socket.getaddrinfo
    answers = [str(forms(rng, within(rng))) for _ in range(2)]
    answers = rng.choice([answers, ["127.0.0.1"], ["93.184.215.14", "127.0.0.1"], ["::ffff:127.0.0.1"], ["::1"]])

    def resolved(asked_for: Any, *rest: Any, **more: Any) -> Any:
        if asked_for in ("name.test", b"name.test"):
            return [
                (
                    socket.AF_INET6 if ":" in a else socket.AF_INET,
                    socket.SOCK_STREAM,
                    6,
                    "",
                    (a, server.port, 0, 0) if ":" in a else (a, server.port),
                )
                for a in answers
            ]
        return real(asked_for, *rest, **more)

    socket.getaddrinfo = resolved  # type: ignore[assignment]
    got: list[bytes] = []

    async def get() -> None:
        client = safe_http.SafeHttp(safe_http.Limits(timeout=3.0, allowed=allowed))
        try:
            await client.get(address, got.append)
        except (safe_http.Failure, UserError):
            pass
        finally:
            await client.close()

    try:
        asyncio.run(get())
    finally:
        socket.getaddrinfo = real
    reached = [path for path in server.asked - before if path.startswith("/ok/")]
    if got or reached:
        raise Fault(f"{address} reached {reached} {answers if named else ''}")


def pages(place: Place) -> None:
    """A table of addresses of which none gives a picture, or a server that misbehaves: an import that ends."""
    from rawrec.sources.download.urls import UrlPictures
    from rawrec.sources.table import import_table

    rng, here, server = place.rng, place.here, web()
    odd = [
        f"odd/{rng.randrange(10**6)}",
        "status/404",
        "cut",
        "junk",
        "head",
        "gone",
        "packed",
        "huge",
        "endless",
        "empty",
        "loop/x",
        "ok/3",
        "bomb",
    ]
    rows = [{"i": f"i{number}", "url": server.url(rng.choice(odd))} for number in range(3)]
    rows.append(
        {
            "i": "i3",
            "url": rng.choice(
                ["", "x", "http://", "\x1b[2J", "http://" + "a" * 9000, "data:image/png,x", "http://x:99999/"]
            ),
        }
    )
    (here / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "clicks.csv").write_text("u,i\n" + "".join(f"u{n % 3},i{n % 4}\n" for n in range(12)))
    found: list[Any] = []
    said = message(lambda: found.append(import_table(
        here / "clicks.csv", "u", "i", items=here / "items.jsonl", image_url=["url"], out=here / "out", progress=False,
        pictures=UrlPictures(allow_private=True),
    )))  # fmt: skip
    if said is None and found[0].n_items != 4:
        raise Fault("items are missing")
