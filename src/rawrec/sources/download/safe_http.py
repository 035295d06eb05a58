"""Pictures from servers that nobody vouches for: one GET that cannot be led astray, drowned or kept waiting."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from rawrec import __version__
from rawrec.errors import UserError
from rawrec.sources.download.addresses import IPAddress, is_public
from rawrec.sources.media.pictures import MAX_BYTES, Skip

REFUSED = "the server's IP address is not public (allow it with --allow-private)"
MAX_REDIRECTS = 5
MAX_ADDRESS = 8000
"""Characters of the longest address that is asked."""
WRITTEN = re.compile(r"[\w.~:/?#\[\]@!$&'()*+,;=%-]+", re.ASCII)
"""An address that is sent as it is written; in any other, what has no place in a URL is quoted."""
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (429, 503)
LATER = (408, 425, *BUSY)
"""With every other status from 500 on: what may be gone at the next try."""
TYPES = ("", "application/octet-stream", "binary/octet-stream")
"""What else than `image/...` a picture may be called."""
COMPRESSED = ("gzip", "deflate", "br", "zstd", "compress")


class Failure(Skip):
    """An address that gave no picture.

    permanent: asking again is of no use. silent: nothing was to be heard of the server. wait: it is busy, and wants to
    be left alone for so many seconds.
    """

    def __init__(
        self, reason: str, detail: str = "", *, permanent: bool = False, silent: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(reason, detail)
        self.permanent, self.silent, self.wait = permanent, silent, wait


@dataclass(frozen=True)
class Limits:
    """What downloading may take.

    connections, per_host: at once, in all and to one host. per_second: requests to one host. timeout: seconds for one
    try at a picture, with its redirects. max_bytes: of a picture. backoff: seconds before the second try, doubled for
    each further one. allowed: the IP addresses that may be connected to.
    """

    connections: int = 64
    per_host: int = 16
    per_second: float | None = None
    timeout: float = 30.0
    max_bytes: int = MAX_BYTES
    backoff: float = 0.5
    allowed: Callable[[IPAddress], bool] = is_public


class SafeHttp:
    """A client for GET requests; made, used and closed in one event loop.

    Every connection goes to an IP address that `limits.allowed` approves of, judged when the socket is made, so that
    neither an odd spelling nor a name that resolves differently the second time leads elsewhere; a name with one
    refused address is refused. Redirects are followed here, at most five, each like a new address. No cookies and no
    credentials are sent, and no proxy of the environment is used. Answers are never decompressed.
    """

    def __init__(self, limits: Limits) -> None:
        self.timeout, self.max_bytes = limits.timeout, limits.max_bytes
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limits.connections,
                limit_per_host=limits.per_host,
                resolver=_Resolver(limits.allowed),
                ttl_dns_cache=300,
                socket_factory=lambda info: _socket(info, limits.allowed),
            ),
            headers={"User-Agent": f"rawrec/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.timeout / 2),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()
        await asyncio.sleep(0)  # the sockets close in the loop's next round

    async def get(self, address: str, write: Callable[[bytes], object]) -> None:
        """Give the bytes at `address` to `write`, piece by piece. Raises Failure, after which they are worthless."""
        try:
            async with asyncio.timeout(self.timeout):
                await self._follow(address, write)
        except (Failure, UserError):
            raise
        except TimeoutError:
            raise Failure(f"no whole answer within {self.timeout:g} s", silent=True) from None
        except (aiohttp.InvalidURL, UnicodeError):
            raise _unreadable() from None
        except aiohttp.ClientSSLError as error:
            raise Failure("no trusted connection to the server", str(error.os_error), permanent=True) from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _Refused):
                raise Failure(REFUSED, str(error.os_error), permanent=True) from None
            reason = "unknown host" if isinstance(error, aiohttp.ClientConnectorDNSError) else "no connection"
            raise Failure(reason, error.os_error.strerror or str(error.os_error), silent=True) from None
        except aiohttp.ClientError as error:
            raise Failure("the answer broke off or is no HTTP", type(error).__name__) from None
        except Exception as error:  # strange answers raise strange errors; each means that there is no picture
            raise Failure("the answer cannot be read", type(error).__name__, permanent=True) from None

    async def _follow(self, address: str, write: Callable[[bytes], object]) -> None:
        url = _checked(address)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._session.get(url, allow_redirects=False) as response:
                target = response.headers.get("Location")
                if response.status not in REDIRECTS or not target:
                    await self._read(response, write)
                    return
                url = _checked(target, url)
        raise Failure(f"more than {MAX_REDIRECTS} redirects", permanent=True)

    async def _read(self, response: aiohttp.ClientResponse, write: Callable[[bytes], object]) -> None:
        status = response.status
        if status != 200:
            wait = _seconds(response.headers.get("Retry-After", "")) if status in BUSY else None
            raise Failure(f"HTTP {status}", permanent=status not in LATER and status < 500, wait=wait)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind not in TYPES:
            raise Failure("the server calls it no picture", kind, permanent=True)
        encoding = response.headers.get("Content-Encoding", "").lower()
        if any(name in encoding for name in COMPRESSED):
            raise Failure("the answer is compressed", encoding, permanent=True)
        size = response.content_length or 0
        if size <= self.max_bytes:
            size = 0
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > self.max_bytes:
                    break
                write(piece)
        if size > self.max_bytes:
            raise Failure(f"larger than {self.max_bytes / (1 << 20):g} MiB", permanent=True)


class _Refused(OSError):
    """A connection to an IP address that the policy does not allow."""


def _check(address: str, allowed: Callable[[IPAddress], bool]) -> None:
    if not allowed(ipaddress.ip_address(address)):
        raise _Refused(address)


def _socket(info: Any, allowed: Callable[[IPAddress], bool]) -> socket.socket:
    """A socket for what `getaddrinfo` says of an address, if it may be connected to that address."""
    family, kind, protocol, _, target = info
    _check(target[0], allowed)
    return socket.socket(family, kind, protocol)


class _Resolver(ThreadedResolver):
    """Resolves names; all addresses of a name must be allowed."""

    def __init__(self, allowed: Callable[[IPAddress], bool]) -> None:
        super().__init__()
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        for entry in found:
            _check(entry["host"], self._allowed)
        return found


def _checked(address: str, base: URL | None = None) -> URL:
    """The address as a URL, seen from `base` where it is relative. Raises Failure for one that must not be asked."""
    if len(address) > MAX_ADDRESS:
        raise Failure(f"address of more than {MAX_ADDRESS:,} characters", permanent=True)
    if not address.isprintable():
        raise _unreadable()
    try:
        url = URL(address, encoded=WRITTEN.fullmatch(address) is not None)
        url = url if base is None else base.join(url)
        _ = url.port  # judged when it is first looked at
    except ValueError:
        raise _unreadable() from None
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise Failure("not an http or https address", str(url)[:100] if base else "", permanent=True)
    if url.raw_user is not None or url.raw_password is not None:
        raise Failure("address holds a user name or a password", permanent=True)
    return url


def _unreadable() -> Failure:
    return Failure("address cannot be read", permanent=True)


def _seconds(retry_after: str) -> float:
    """How long a server asks to wait, given in seconds or as a date; 0 where it does not say."""
    if retry_after.strip().isdecimal():
        return float(retry_after[:12])
    try:
        date = parsedate_to_datetime(retry_after)
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0
