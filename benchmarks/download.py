"""Pictures by address: how many a second an import downloads, checks and stores, and the memory that this takes.

A server in a process of its own, on this machine, answers with JPEG files of some 10 kB. Measured is the whole import
of a table whose items have one address each: downloading, checking that each file is a whole picture, keeping it in
the folder of downloads, and writing the dataset; then the same import again, which finds every picture in that folder.
Each has a process of its own, whose largest resident memory is given.

Asked: at least 500 pictures a second.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import emit, folder, say
from PIL import Image

from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.table import import_table

ASKED = 500
EXAMPLE = "example: python benchmarks/download.py --pictures 10000 --per-host 16"
DISTINCT = 64


class Server(asyncio.Protocol):
    """Answers every request with the picture that its number stands for, over connections that stay open."""

    answers: list[bytes] = []  # noqa: RUF012  one list for all connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            request, _, self.received = self.received.partition(b"\r\n\r\n")
            number = int(request.split(b" ", 2)[1].strip(b"/"))
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(self.answers[number % DISTINCT])


async def serve() -> None:
    """Print the port, then answer until the process is ended."""
    rng = np.random.default_rng(0)
    for _ in range(DISTINCT):
        body = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (110, 110, 3), np.uint8)).save(body, "JPEG", quality=82)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body.getvalue())}\r\n\r\n"
        Server.answers.append(head.encode() + body.getvalue())
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], sum(map(len, Server.answers)) // DISTINCT, flush=True)
    await server.serve_forever()


def write_tables(place: Path, port: int, pictures: int) -> None:
    rows = "".join(f"i{n},http://127.0.0.1:{port}/{n}\n" for n in range(pictures))
    (place / "items.csv").write_text("item,cover\n" + rows)
    (place / "clicks.csv").write_text("user,item\n" + "".join(f"u{n % 97},i{n}\n" for n in range(pictures)))


def import_once(place: Path, pictures: int, per_host: int, what: str) -> None:
    started = time.perf_counter()
    data = import_table(
        place / "clicks.csv",
        "user",
        "item",
        out=place / "data",
        items=place / "items.csv",
        image_url=["cover"],
        pictures=UrlPictures(allow_private=True, per_host=per_host),
        overwrite=True,
        progress=False,
    )
    seconds = time.perf_counter() - started
    assert data.present("image").all(), "some pictures could not be had"
    rate = pictures / seconds
    emit(
        what=what,
        pictures=pictures,
        seconds=seconds,
        pictures_per_second=rate,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **({"asked": ASKED, "met": rate >= ASKED} if what == "download" else {}),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--per-host", type=int, default=16, help="connections to the one server")
    parser.add_argument("--data", type=Path, help="folder to work in, kept (default: a temporary one)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--what", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve())
        return
    if args.what:
        import_once(args.data, args.pictures, args.per_host, args.what)
        return
    with (
        folder(args.data) as place,
        subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            port, size = map(int, server.stdout.readline().split())
            say(f"pictures of {size:,} bytes")
            write_tables(place, port, args.pictures)
            given = ["--data", str(place), "--pictures", str(args.pictures), "--per-host", str(args.per_host)]
            for what in ("download", "from the folder of downloads"):
                subprocess.run([sys.executable, __file__, "--what", what, *given], check=True)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
