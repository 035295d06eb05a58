"""A connection over which a request has to arrive in a bounded time: who sends a byte now and then, or nothing, would
hold it for ever, and connections are bounded in number."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 60.0
"""In which a request has to be there, its body with it; then its connection is closed."""


class Connection(H11Protocol):
    """uvicorn's, with that bound."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._arrives:
            if self._timer is None:
                self._wait()
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _arrives(self) -> bool:
        """Whether a part of a request is there, and the rest is to come."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
