"""Pictures of items that a client names by address (`--fetch`): brought by the guarded GET of imports, then uploads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from rawrec.arguments import shown
from rawrec.data.dataset import Fields
from rawrec.errors import UserError
from rawrec.extras import need

SECONDS = 10.0
"""Of one picture, with its redirects; nothing is tried again, since a client waits."""


PRIVATE = "the IP address of its server is not public"


class Fetching:
    """Brings pictures. most: how many one item may name; total: bytes of all of them. private: connect also to this
    machine and private networks.

    Raises UserError where what it is made of is not installed.
    """

    def __init__(self, most: int, total: int, private: bool = False) -> None:
        need("aiohttp", "--fetch brings pictures with aiohttp")
        self._most, self._total, self._private = most, total, private

    async def bring(
        self, item: Mapping[str, Any], pictures: Mapping[str, list[bytes]], fields: Fields
    ) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
        """The item without the addresses that its image fields held, and its pictures with what they led to.

        Raises UserError where one of them is none, or gives no picture: nothing of the item is taken in then.
        """
        left, brought = dict(item), {name: list(files) for name, files in pictures.items()}
        wanted = [
            (name, one)
            for name in dict.fromkeys((*fields.image, "image"))
            if name in left
            for one in _addresses(name, left)
        ]
        if len(wanted) + sum(map(len, brought.values())) > self._most:
            raise UserError(f"an item may bring at most {self._most} pictures")
        room = [self._total - sum(len(file) for files in brought.values() for file in files)]
        for (name, _), file in zip(wanted, await self._all(wanted, room), strict=True):
            brought.setdefault(name, []).append(file)
        return {name: value for name, value in left.items() if name not in {name for name, _ in wanted}}, brought

    async def _all(self, wanted: list[tuple[str, str]], room: list[int]) -> list[bytes]:
        from rawrec.sources.download.addresses import is_public
        from rawrec.sources.download.safe_http import REFUSED, Failure, Limits, SafeHttp

        if not wanted:
            return []
        allowed = (lambda _: True) if self._private else is_public
        http = SafeHttp(Limits(connections=4, per_host=4, timeout=SECONDS, allowed=allowed))

        async def one(name: str, address: str) -> bytes:
            parts: list[bytes] = []

            def take(piece: bytes) -> None:
                room[0] -= len(piece)
                if room[0] < 0:
                    raise UserError(f"the pictures of an item may have {self._total >> 20} MiB together")
                parts.append(piece)

            try:
                await http.get(address, take)
            except Failure as failure:
                reason = failure.reason.removeprefix("image: ").replace(REFUSED, PRIVATE)
                raise UserError(f"{name}: {shown(address)} gives no picture: {reason}") from None
            return b"".join(parts)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(*each)) for each in wanted]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await http.close()
        return [task.result() for task in tasks]


def _addresses(name: str, item: Mapping[str, Any]) -> list[str]:
    """What an image field of an item names. UserError where that is no address, which a server would read as a file."""
    value = item[name]
    given = value if isinstance(value, list) else [value]
    for one in given:
        if not isinstance(one, str) or not one.startswith(("http://", "https://")):
            raise UserError(f"{name}: {shown(one)} is no http or https address; other pictures are uploaded as files")
    return given
