"""A server of pictures on this machine that misbehaves on request."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from threading import Thread
from types import TracebackType
from urllib.parse import unquote

from PIL import Image


def picture(number: int, kind: str = "PNG", side: int = 8) -> bytes:
    """A small picture of its own for every number."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (number % 256, number // 256 % 256, 99)).save(file, kind)
    return file.getvalue()


def _bomb() -> bytes:
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


PACKED = gzip.compress(bytes(1 << 24))  # once: it takes longer than some tests wait for an answer
BOMB = _bomb()
"""A small file of a hundred million pixels."""


class Server:
    """Answers `/ok/7` with picture 7, and every other path as the method of its first part says.

    It listens on one port of 127.0.0.1 and of 127.0.0.2. asked: path -> how often. heads: of the requests. pause:
    seconds before every answer.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.asked: Counter[str] = Counter()
        self.heads: list[str] = []
        self.open = self.most_open = 0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Server:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"

    async def _start(self) -> int:
        self._servers.append(await asyncio.start_server(self._serve, "127.0.0.1", 0))
        port = self._servers[0].sockets[0].getsockname()[1]
        self._servers.append(await asyncio.start_server(self._serve, "127.0.0.2", port))
        return port

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            while await reader.readexactly(4) == b"GET ":
                head = "GET " + (await reader.readuntil(b"\r\n\r\n")).decode()
                path = unquote(head.split(" ", 2)[1])
                self.asked[path] += 1
                self.heads.append(head)
                await asyncio.sleep(self.pause)
                name, _, rest = path.removeprefix("/").partition("?")[0].partition("/")
                work: Callable[[asyncio.StreamWriter, str], Awaitable[bool | None]] | None = getattr(self, name, None)
                keep = await work(writer, rest) if work is not None else self._answer(writer, status="404 Not Found")
                await writer.drain()
                if not keep:
                    return
            writer.write(b"HTTP/1.1 400 No HTTP\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    def _answer(
        self,
        writer: asyncio.StreamWriter,
        body: bytes = b"",
        status: str = "200 OK",
        kind: str = "image/png",
        **more: str,
    ) -> bool:
        heads = {"Content-Type": kind, "Content-Length": str(len(body))} | {
            name.replace("_", "-"): value for name, value in more.items()
        }
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in heads.items() if value)]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        return True

    async def ok(self, writer: asyncio.StreamWriter, number: str) -> bool:
        return self._answer(writer, picture(int(number)), Set_Cookie="a=b")

    async def type(self, writer: asyncio.StreamWriter, kind: str) -> bool:
        return self._answer(writer, picture(0), kind=kind)

    async def status(self, writer: asyncio.StreamWriter, code: str) -> bool:
        return self._answer(writer, status=f"{code} Odd", Content_Length="0" if int(code) >= 400 else "")

    async def later(self, writer: asyncio.StreamWriter, rest: str) -> bool:
        """`500/2/0`: that status twice, asking to wait 0 seconds, then a picture."""
        code, times, *wait = rest.split("/")
        if self.asked[f"/later/{rest}"] > int(times):
            return self._answer(writer, picture(int(code)))
        return self._answer(writer, status=f"{code} Later", Retry_After=wait[0] if wait else "")

    async def to(self, writer: asyncio.StreamWriter, target: str) -> bool:
        return self._answer(writer, b"elsewhere", status="302 Found", Location=target)

    async def loop(self, writer: asyncio.StreamWriter, rest: str) -> bool:
        return self._answer(writer, status="301 Moved", Location=f"/loop/{rest}x")

    async def drip(self, writer: asyncio.StreamWriter, _: str) -> None:
        self._answer(writer, Content_Length="1000")
        for byte in picture(0) * 10:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async def silent(self, writer: asyncio.StreamWriter, _: str) -> None:
        await asyncio.sleep(60)

    async def endless(self, writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()

    async def head(self, writer: asyncio.StreamWriter, _: str) -> None:
        """A head that never ends."""
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: " + b"x" * 4000 + b"\r\n")
            await writer.drain()

    async def cut(self, writer: asyncio.StreamWriter, _: str) -> None:
        self._answer(writer, picture(0), Content_Length="5000")

    async def huge(self, writer: asyncio.StreamWriter, _: str) -> None:
        self._answer(writer, picture(0), Content_Length=str(10**15))

    async def packed(self, writer: asyncio.StreamWriter, _: str) -> bool:
        return self._answer(writer, PACKED, Content_Encoding="gzip")

    async def empty(self, writer: asyncio.StreamWriter, _: str) -> bool:
        return self._answer(writer)

    async def bomb(self, writer: asyncio.StreamWriter, _: str) -> bool:
        return self._answer(writer, BOMB)

    async def junk(self, writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"\x16\x03garbage\r\n\r\n")

    async def odd(self, writer: asyncio.StreamWriter, seed: str) -> None:
        """An answer of which some bytes are others."""
        rng = random.Random(seed)
        heads = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nSet-Cookie: a=b; Path=/\r\n"
        body = picture(0)
        answer = bytearray(heads + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        for _ in range(rng.randint(1, 8)):
            answer[rng.randrange(len(answer))] = rng.randrange(256)
        writer.write(bytes(answer))

    async def gone(self, writer: asyncio.StreamWriter, _: str) -> None:
        """No answer at all."""
