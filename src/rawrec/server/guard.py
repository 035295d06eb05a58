"""What every request passes before it is read, its token; and what every answer says to browsers. Plain ASGI."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from rawrec.shown import visible

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}
WRITES = re.compile(r"/(items|events|hidden)(/|$)")
OPEN = ("/health/live", "/health/ready")
PAGE = re.compile(r"/(page/files/[a-z.-]+)?")
"""The page without anything of the data; it asks for the token itself."""
PATH = re.compile(r"(?<![\w./])(?:[A-Za-z]:)?/(?:[\w.@+-]+/)*([\w.@+-]+)/?")


def without_paths(text: str) -> str:
    """A message without the places of files: of each path its last name is left."""
    return PATH.sub(lambda found: found[1], visible(text))


class Guard:
    """Lets a request pass, or answers it: 401 without the token, 403 where there is none that would do.

    token: asked of everything that writes, and of all where `strict`; None: nothing may write.
    """

    def __init__(self, app: App, token: str | None, strict: bool) -> None:
        self.app, self.token, self.strict = app, token, strict

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        refused = self._refused(scope["path"], scope["method"], given)
        if refused is not None:
            return await _say(answer, *refused)
        await self.app(scope, receive, answer)

    def _refused(self, path: str, method: str, authorization: str) -> tuple[int, str] | None:
        """Status and message where a request may not pass."""
        writes = method not in ("GET", "HEAD", "OPTIONS") and WRITES.match(path) is not None
        shell = method in ("GET", "HEAD") and PAGE.fullmatch(path) is not None
        if path in OPEN or shell or not (writes or self.strict):
            return None
        if self.token is None:
            return 403, "nothing may be written here: the server was started without --token-file"
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            return 401, "give the token: Authorization: Bearer ..."
        return None


async def _say(send: Send, status: int, error: str) -> None:
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
