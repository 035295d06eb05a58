"""Many pictures from many servers at once: politely, again after a while where a server is busy, and never for ever."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Thread
from typing import IO

from yarl import URL

from rawrec.data.disk import writing
from rawrec.shown import say
from rawrec.sources.download.safe_http import Failure, Limits, SafeHttp
from rawrec.sources.media.pictures import WORKERS, Skip

ATTEMPTS = 4
MAX_WAIT = 60.0
"""Seconds. A host that wants to be left alone for longer is not asked any more."""
MAX_LOST = 20
"""A host that was silent or busy to the last for so many pictures in a row is not asked any more."""
IN_MEMORY = 1 << 20
"""Bytes of a picture on its way that are held in memory; a larger one waits on disk."""
SAY_EVERY = 10.0


@dataclass
class _Host:
    """A server.

    waiting: the addresses to ask it for. workers: how many may do so. free_at: the loop's time before which none may.
    busy: it has just said that it is asked too much. lost: pictures in a row for which it was silent or busy to the
    last. closed: why it is not asked any more.
    """

    waiting: deque[str] = field(default_factory=deque)
    workers: int = 0
    free_at: float = 0.0
    busy: bool = False
    lost: int = 0
    closed: str = ""


class Fetcher:
    """Fetches addresses, a bounded number at a time, in a thread of its own, whose connections stay open in between.

    store: takes an address and its bytes, and raises Skip where they are no picture; called in several threads.
    fail: takes an address that gave no picture, and why. folder: where large pictures wait.

    What may be better the next time is tried four times, ever later. A server that is too busy is left alone for as
    long as it says and then asked over fewer connections. One that says more than a minute, or gave nothing for twenty
    pictures in a row, is not asked any more.
    """

    def __init__(
        self,
        store: Callable[[str, IO[bytes]], None],
        fail: Callable[[str, Skip], None],
        folder: Path,
        limits: Limits,
    ) -> None:
        self._store, self._fail, self._folder, self._limits = store, fail, folder, limits
        self._hosts: dict[str, _Host] = {}
        self._asked = 0
        self._http: SafeHttp | None = None
        self._pool = ThreadPoolExecutor(WORKERS)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="rawrec-downloads", daemon=True)
        self._thread.start()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    def fetch(self, urls: Iterable[str]) -> None:
        """Ask for every address: each is stored or has failed in the end. Long work says on stderr how far it is."""
        self._hosts = {name: host for name, host in self._hosts.items() if host.lost or host.closed}
        for url in urls:
            self._hosts.setdefault(_host_name(url), _Host()).waiting.append(url)
        total, before = sum(len(host.waiting) for host in self._hosts.values()), self._asked
        work: Future[None] = asyncio.run_coroutine_threadsafe(self._fetch_all(), self._loop)
        try:
            while not wait([work], SAY_EVERY).done:
                say(f"pictures: asked for {self._asked - before:,} of {total:,} addresses", error=True)
            work.result()
        finally:
            work.cancel()

    async def _fetch_all(self) -> None:
        limits = self._limits
        if self._http is None:
            self._http = SafeHttp(limits)
        # A place in the line lets one worker ask one host; whoever is done puts it back at the end of the line.
        line: deque[_Host] = deque()
        for number in range(limits.per_host):
            line += [host for host in self._hosts.values() if len(host.waiting) > number]
        for host in self._hosts.values():
            host.workers = min(limits.per_host, len(host.waiting))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(limits.connections, len(line))):
                    group.create_task(self._work(self._http, line))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _work(self, http: SafeHttp, line: deque[_Host]) -> None:
        while line:
            host = line.popleft()
            if not host.waiting:
                continue
            url = host.waiting.popleft()
            try:
                await self._try(http, host, url)
            except Skip as skip:
                self._fail(url, skip)
            self._asked += 1
            if host.busy and host.workers > 1:
                host.busy, host.workers = False, host.workers - 1
            else:
                line.append(host)

    async def _try(self, http: SafeHttp, host: _Host, url: str) -> None:
        """Fetch and store one picture, in several attempts. Raises Skip where there is none."""
        for attempt in range(ATTEMPTS):
            await self._turn(host)
            try:
                await self._once(http, host, url)
                return
            except Failure as failure:
                last = failure.permanent or attempt == ATTEMPTS - 1
                pause = self._limits.backoff * 2**attempt * random.uniform(0.5, 1.5)
                if failure.wait is not None:
                    host.busy, pause = True, max(pause, failure.wait)
                    host.free_at = max(host.free_at, self._loop.time() + min(pause, MAX_WAIT))
                    if failure.wait > MAX_WAIT:
                        host.closed = f"host wants to be left alone for more than {MAX_WAIT:g} s: not asked any more"
                elif not failure.silent:
                    host.lost = 0
                if last and (failure.silent or failure.wait is not None):
                    host.lost += 1
                    if host.lost == MAX_LOST:
                        host.closed = f"host gave no answer for {MAX_LOST} pictures in a row: not asked any more"
                if last or host.closed:
                    raise
            await asyncio.sleep(pause)

    async def _turn(self, host: _Host) -> None:
        """Wait until the host is free."""
        while not host.closed and (pause := host.free_at - self._loop.time()) > 0:
            await asyncio.sleep(pause)
        if host.closed:
            raise Failure(host.closed)
        if self._limits.per_second is not None:
            host.free_at = self._loop.time() + 1 / self._limits.per_second

    async def _once(self, http: SafeHttp, host: _Host, url: str) -> None:
        with SpooledTemporaryFile(IN_MEMORY, dir=str(self._folder)) as body:

            def write(piece: bytes) -> None:
                with writing(self._folder):
                    body.write(piece)

            await http.get(url, write)
            host.lost = 0
            body.seek(0)
            await self._loop.run_in_executor(self._pool, self._store, url, body)


def _host_name(url: str) -> str:
    try:
        return URL(url).raw_host or ""
    except ValueError:
        return ""
