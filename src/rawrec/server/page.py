"""The page at `/`, and what it asks: read-only, and never written into the log. What needs the model asks it in its
thread, as all lists do; what is read of the data is read in another one, one request after the other.

Its routes are the page's own and may change with it; ids stand in queries, since they may hold any sign.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from rawrec.browse import shell
from rawrec.browse.view import View, Wish
from rawrec.errors import UserError
from rawrec.server import wire
from rawrec.server.held import Version
from rawrec.server.holding import Serving
from rawrec.server.live import live
from rawrec.serving.recommender import Recommender
from rawrec.threads import Mutex

TRY_BYTES = 24 << 20
"""Of a picture, in Base64, that is tried."""
KEPT = {"cache-control": "private, max-age=600"}

Find = Annotated[str, Query(max_length=400)]
AskedId = Annotated[str, Query(min_length=1, max_length=4096)]
Of = Annotated[int, Query(ge=0, le=1)]


class Pages:
    """What the page is of: the version that answers, and perhaps a run beside it, which stays as it is."""

    def __init__(self, serving: Serving, beside: Sequence[tuple[str, Recommender]] = ()) -> None:
        self.serving, self.beside = serving, list(beside)
        self._held: tuple[Version, View] | None = None
        self._map: tuple[View, dict[str, Any]] | None = None
        self._mapping, self._looking = Mutex(), Mutex()

    def view(self) -> View:
        """Of the version that answers now."""
        version, held = self.serving.now(), self._held
        if held is None or held[0] is not version or held[1].facts[0].rec.n_items != len(held[1].facts[0].train):
            held = self._held = version, View([(version.name, version.rec), *self.beside])
        return held[1]

    def points(self) -> dict[str, Any]:
        """The map, made once; not in the model's thread, since it takes seconds where there are many items."""
        with self._mapping:
            view = self.view()
            if self._map is None or self._map[0] is not view:
                self._map = view, view.points()
            return self._map[1]

    async def look(self, work: Callable[[View], Any]) -> JSONResponse:
        """What the data say, for which lists do not wait."""
        return JSONResponse(await asyncio.to_thread(self._look, work))

    def _look(self, work: Callable[[View], Any]) -> Any:
        with self._looking:
            return work(self.view())

    async def ask(self, work: Callable[[View], Any]) -> JSONResponse:
        """What the model's thread answers, once all is read that it needs beside the model."""
        await asyncio.to_thread(self._look, View.prepare)
        done = await asyncio.wrap_future(self.serving.worker.ask(None, lambda asked: [_try(work, self.view())]))
        return JSONResponse(done)


def _wish(asked: wire.WishAsked) -> Wish:
    options: dict[str, Any] = {"exclude": asked.exclude} if asked.exclude else {}
    if asked.where:
        options["where"] = {name: wire.wanted_of(value) for name, value in asked.where.items()}
    if asked.max_per:
        options["max_per"] = asked.max_per
    if asked.diversity:
        options["diversity"] = asked.diversity
    return Wish(asked.user, asked.history, asked.until, asked.k, asked.explain, options)


def _try(work: Callable[[View], Any], view: View) -> Any:
    try:
        return work(view)
    except Exception as error:
        return error


def add_page(app: FastAPI, serving: Serving, beside: Sequence[tuple[str, Recommender]] = ()) -> None:
    """The page and its routes."""
    pages = Pages(serving, beside)
    _files(app)
    _facts(app, pages)
    _lists(app, pages)

    @app.get("/page/live", include_in_schema=False)
    async def now() -> JSONResponse:
        return JSONResponse(await asyncio.to_thread(live, serving))


def _files(app: FastAPI) -> None:
    page = shell.shell()
    files = {name: shell.text_of(name) for name in shell.FILES}

    @app.get("/", include_in_schema=False)
    async def start() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": shell.POLICY})

    @app.get(f"/{shell.PLACE}/{{name}}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such file")
        return Response(files[name], media_type=shell.FILES[name], headers={"cache-control": "no-cache"})


def _facts(app: FastAPI, pages: Pages) -> None:
    @app.get("/page/about", include_in_schema=False)
    async def about() -> JSONResponse:
        return await pages.look(View.about)

    @app.get("/page/users", include_in_schema=False)
    async def users(find: Find = "", k: Annotated[int, Query(ge=1, le=200)] = 30) -> JSONResponse:
        return await pages.look(lambda view: view.users(find, k))

    @app.get("/page/user", include_in_schema=False)
    async def user(user: AskedId) -> JSONResponse:
        return await pages.look(lambda view: view.user(user))

    @app.post("/page/items", include_in_schema=False)
    async def items(asked: wire.FoundAsked) -> JSONResponse:
        where = {name: wire.wanted_of(value) for name, value in asked.where.items()}
        return await pages.look(lambda view: view.items(asked.find, where, asked.bucket, asked.at, asked.k))

    @app.get("/page/item", include_in_schema=False)
    async def item(item: AskedId) -> JSONResponse:
        return await pages.look(lambda view: view.item(item))

    @app.post("/page/facts", include_in_schema=False)
    async def facts(asked: wire.FactsAsked) -> JSONResponse:
        return await pages.look(lambda view: {"facts": view.of(asked.items)})

    @app.get("/page/picture", include_in_schema=False)
    async def picture(
        item: AskedId, field: Find | None = None, side: Annotated[int, Query(ge=16, le=640)] = 176
    ) -> Response:
        found = await asyncio.to_thread(lambda: pages.view().picture(item, field, side))
        if found is None:
            raise HTTPException(404, "the item has no picture here")
        return Response(found, media_type="image/jpeg", headers=KEPT)

    @app.get("/page/map", include_in_schema=False)
    async def points() -> JSONResponse:
        return JSONResponse(await asyncio.to_thread(pages.points))


def _lists(app: FastAPI, pages: Pages) -> None:
    @app.get("/page/near", include_in_schema=False)
    async def near(
        item: AskedId, by: Literal["", "content", "id", "image", "text"] = "", of: Of = 0,
        k: Annotated[int, Query(ge=1, le=60)] = 8,
    ) -> JSONResponse:  # fmt: skip
        return await pages.ask(lambda view: view.near(item, by, of, k))

    @app.post("/page/list", include_in_schema=False)
    async def listed(asked: wire.WishAsked) -> JSONResponse:
        return await pages.ask(lambda view: view.list(_wish(asked), asked.of))

    @app.post("/page/try", include_in_schema=False, max_body_size=TRY_BYTES)
    async def tried(asked: wire.TryAsked) -> JSONResponse:
        fields = pages.view().recs[asked.of if asked.of < len(pages.view().recs) else 0].data.fields
        texts = {name: text for name, text in asked.texts.items() if text.strip()}
        made = wire.item_of(texts, asked.pictures, fields)
        if not made:
            raise UserError("give a text or a picture")
        return await pages.ask(lambda view: view.attempt(made, _wish(asked), asked.by, asked.of))
