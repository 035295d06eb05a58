"""A log in a stream of NATS JetStream: `nats://HOST:PORT/STREAM`, on the server's disk.

Position n is the sequence n of the stream. Ids are refused within the stream's window (a day, where this makes it);
later ones are left out by who reads, as the online trainer does. Dead letters are in the stream `STREAM-dead`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from rawrec.errors import UserError
from rawrec.extras import need
from rawrec.stream.log import AT_ONCE, Appended, Entry, Letter, Log, Record, trimmed

T = TypeVar("T")
PATIENCE = 30.0
"""Seconds that the server has to answer."""
WINDOW = 86_400.0
"""Seconds in which an id is known."""
PRODUCER, SEQUENCE, ID = "Rawrec-Producer", "Rawrec-Sequence", "Nats-Msg-Id"


class NatsLog(Log):
    """Its messages are at most as large as the server takes them (`max_payload`, by default a MiB)."""

    keeps_ids = False

    def __init__(self, url: str, create: bool = True) -> None:
        self._nats: Any = need("nats", f"{url} is a log of NATS")
        parts = urlsplit(url)
        self.url, self.name = url, parts.path.strip("/")
        if not self.name or set(self.name) & set("/.*> "):
            raise UserError(f"{url}: name a stream, as nats://localhost:4222/events")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._reader: Any = None
        self._at = -1
        try:
            self._call(self._open(f"nats://{parts.netloc}", create))
        except BaseException:
            self._stop()
            raise

    async def _open(self, server: str, create: bool) -> None:
        async def quiet(error: Exception) -> None:
            pass

        options = {"connect_timeout": 3, "max_reconnect_attempts": 3, "error_cb": quiet}
        self._client = await self._nats.connect(server, **options)
        self._js = self._client.jetstream(timeout=PATIENCE)
        try:
            await self._find(create)
        except BaseException:
            await self._client.close()
            raise

    async def _find(self, create: bool) -> None:
        try:
            await self._js.stream_info(self.name)
        except self._nats.js.errors.NotFoundError:
            if not create:
                raise UserError(f"{self.url}: there is no stream {self.name}") from None
            await self._js.add_stream(name=self.name, subjects=[self.name], duplicate_window=WINDOW)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives, run in the thread of the connection."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE)
        except (self._nats.errors.Error, OSError, TimeoutError) as error:
            raise UserError(f"{self.url}: {error or type(error).__name__}") from None

    def append_raw(self, entries: Sequence[Entry]) -> Appended:
        return self._call(self._append(entries))

    async def _append(self, entries: Sequence[Entry]) -> Appended:
        taken, last = 0, 0
        for one in entries:
            producer, sequence = quote(one.producer), str(one.sequence)
            headers = {PRODUCER: producer, SEQUENCE: sequence, ID: f"{producer} {sequence}"}
            told = await self._js.publish(self.name, one.data, headers=headers)
            taken, last = taken + (not told.duplicate), told.seq
        return Appended(last, taken, len(entries) - taken)

    def read(self, after: int, count: int = AT_ONCE) -> list[Record]:
        return self._call(self._read(after, count))

    async def _read(self, after: int, count: int) -> list[Record]:
        state = (await self._js.stream_info(self.name)).state
        first = max(state.first_seq - 1, 0)
        if after < first:
            raise trimmed(self.url, after, first)
        count = min(count, state.last_seq - after)
        if count <= 0:
            return []
        await self._seek(after)
        found: list[Record] = []
        while len(found) < count:
            for message in await self._reader.fetch(min(count - len(found), 500), timeout=PATIENCE):
                found.append(_record(message))
            if found[-1].position >= after + count:  # of what was removed from the middle, nothing comes
                break
        self._at = found[-1].position
        return found

    async def _seek(self, after: int) -> None:
        """A reader that stands behind `after`; the server forgets it when nobody asks for a while."""
        if self._reader is not None and self._at == after:
            return
        await self._leave()
        api = self._nats.js.api
        how = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=WINDOW,
        )
        self._reader = await self._js.pull_subscribe(self.name, stream=self.name, config=how)

    async def _leave(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await reader.unsubscribe()

    def trim(self, position: int) -> None:
        self._call(self._js.purge_stream(self.name, seq=min(position, self.end()) + 1))

    def end(self) -> int:
        return self._call(self._js.stream_info(self.name)).state.last_seq

    def bury(self, letter: Letter) -> None:
        self._call(self._bury(letter))

    async def _bury(self, letter: Letter) -> None:
        name = f"{self.name}-dead"
        try:
            await self._js.stream_info(name)
        except self._nats.js.errors.NotFoundError:
            await self._js.add_stream(name=name, subjects=[f"{self.name}.dead"], duplicate_window=WINDOW)
        data = json.dumps(letter._asdict()).encode()
        await self._js.publish(f"{self.name}.dead", data, headers={ID: str(letter.position)})

    def dead(self) -> list[Letter]:
        return self._call(self._dead())

    async def _dead(self) -> list[Letter]:
        try:
            state = (await self._js.stream_info(f"{self.name}-dead")).state
        except self._nats.js.errors.NotFoundError:
            return []
        found = [await self._js.get_msg(f"{self.name}-dead", seq) for seq in range(state.first_seq, state.last_seq + 1)]
        return sorted({Letter(**json.loads(message.data)) for message in found})

    def close(self) -> None:
        self._call(self._leave())
        self._call(self._client.close())
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _record(message: Any) -> Record:
    headers = message.headers or {}
    position = message.metadata.sequence.stream
    producer, sequence = unquote(headers.get(PRODUCER, "nats")), int(headers.get(SEQUENCE, position))
    return Record(position, producer, sequence, message.data)
