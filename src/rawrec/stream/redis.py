"""A log in a stream of Redis or Valkey: `redis://HOST:PORT/DB?log=NAME`, several machines at once.

The server must keep an append-only file (`appendonly yes`): an append returns when the server has synced it. Position n
is the entry `0-n` of the stream, ids are fields of a hash beside it, and each operation is one script.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from rawrec.errors import UserError
from rawrec.extras import need
from rawrec.stream.log import AT_ONCE, Appended, Entry, Letter, Log, Record, trimmed

SYNC = 10_000
"""Milliseconds that an append waits for the disk."""
APPEND = """
local taken, last = 0, 0
for i = 1, #ARGV, 3 do
  local id = ARGV[i] .. '\\0' .. ARGV[i + 1]
  local gone = redis.call('HGET', KEYS[3], ARGV[i])
  local at = redis.call('HGET', KEYS[2], id)
  if gone and ARGV[i + 1] <= gone then last = 0
  elseif at then last = tonumber(at)
  else
    local made = redis.call('XADD', KEYS[1], '0-*', 'p', ARGV[i], 's', ARGV[i + 1], 'd', ARGV[i + 2])
    last = tonumber(string.sub(made, 3))
    redis.call('HSET', KEYS[2], id, last)
    taken = taken + 1
  end
end
return {taken, last}
"""
TRIM = """
local found = redis.call('XRANGE', KEYS[1], '-', '0-' .. ARGV[1], 'COUNT', 1000)
local last = 0
for _, entry in ipairs(found) do
  local fields, producer, sequence = entry[2], '', ''
  for i = 1, #fields, 2 do
    if fields[i] == 'p' then producer = fields[i + 1] elseif fields[i] == 's' then sequence = fields[i + 1] end
  end
  redis.call('HDEL', KEYS[2], producer .. '\\0' .. sequence)
  local gone = redis.call('HGET', KEYS[3], producer)
  if not gone or sequence > gone then redis.call('HSET', KEYS[3], producer, sequence) end
  redis.call('XDEL', KEYS[1], entry[1])
  last = string.sub(entry[1], 3)
end
if #found > 0 then redis.call('HSET', KEYS[4], 'trimmed', last) end
return #found
"""
DIGITS = 20
"""Numbers are texts of so many digits, which compare as numbers do: those of Lua end at 2**53."""


class RedisLog(Log):
    """Ids are known for good, as of a file of SQLite."""

    def __init__(self, url: str, create: bool = True) -> None:
        redis = need("redis", f"{_shown(url)} is a log of Redis or Valkey")
        parts = urlsplit(url)
        name = parse_qs(parts.query).get("log", ["rawrec"])[0]
        self.url, self._error = _shown(url), redis.exceptions
        self._keys = [f"{name}:{what}" for what in ("events", "ids", "gone", "about", "dead")]
        with self._errors():
            self._db: Any = redis.Redis.from_url(urlunsplit(parts._replace(query="")), protocol=2)
            if not create and not self._db.exists(self._keys[3]):
                raise UserError(f"{self.url} is not there: nothing was ever appended")
            self._db.hsetnx(self._keys[3], "trimmed", 0)
            self._append, self._trim = self._db.register_script(APPEND), self._db.register_script(TRIM)

    def append_raw(self, entries: Sequence[Entry]) -> Appended:
        words = [word for one in entries for word in (one.producer.encode(), _digits(one.sequence), one.data)]
        with self._errors():
            taken, last = self._append(self._keys[:3], words) if words else (0, 0)
            if taken:
                synced = self._db.execute_command("WAITAOF", 1, 0, SYNC)
                if synced[0] < 1:
                    raise UserError(f"{self.url}: the server has not synced an append within {SYNC // 1000} s")
        return Appended(last, taken, len(entries) - taken)

    def read(self, after: int, count: int = AT_ONCE) -> list[Record]:
        with self._errors(), self._db.pipeline(transaction=True) as together:
            together.hget(self._keys[3], "trimmed")
            together.xrange(self._keys[0], min=f"(0-{after}" if after else "-", count=count)
            first, found = together.execute()
        if after < int(first or 0):
            raise trimmed(self.url, after, int(first))
        return [
            Record(int(at.partition(b"-")[2]), values[b"p"].decode(), int(values[b"s"]), values[b"d"])
            for at, values in found
        ]

    def trim(self, position: int) -> None:
        with self._errors():
            while self._trim(self._keys[:4], [position]):
                pass

    def end(self) -> int:
        with self._errors():
            if not self._db.exists(self._keys[0]):
                return 0
            return int(self._db.xinfo_stream(self._keys[0])["last-generated-id"].partition(b"-")[2])

    def wait(self, after: int, seconds: float) -> bool:
        with self._errors():
            found = self._db.xread({self._keys[0]: f"0-{after}"}, count=1, block=max(int(seconds * 1000), 1))
        return bool(found)

    def bury(self, letter: Letter) -> None:
        with self._errors():
            self._db.hsetnx(self._keys[4], letter.position, letter.reason)

    def dead(self) -> list[Letter]:
        with self._errors():
            found = self._db.hgetall(self._keys[4])
        return sorted(Letter(int(at), reason.decode()) for at, reason in found.items())

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._error.ResponseError as error:
            if "appendonly is disabled" in str(error):
                raise UserError(f"{self.url}: the server keeps nothing on disk; set appendonly yes") from None
            raise UserError(f"{self.url}: the server says {error}") from None
        except (self._error.RedisError, ValueError) as error:
            raise UserError(f"{self.url} cannot be reached: {error}") from None


def _digits(number: int) -> str:
    return f"{number:0{DIGITS}d}"


def _shown(url: str) -> str:
    """The address without a password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
