"""The routes of the server. Each checks what it is asked (`wire.py`), lets the model's thread answer (`worker.py`,
`answers.py`), and says which version did."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from rawrec import __version__
from rawrec.arguments import shown
from rawrec.data.images import picture_type
from rawrec.errors import UserError
from rawrec.server import answers, wire
from rawrec.server.fetching import Fetching
from rawrec.server.guard import Guard, without_paths
from rawrec.server.held import Version, check_item
from rawrec.server.holding import Serving, told_as
from rawrec.server.page import add_page
from rawrec.server.routes_page import page_of
from rawrec.server.telling import Told
from rawrec.server.worker import Busy
from rawrec.server.written import check_event, item_event
from rawrec.serving.recommender import Recommender
from rawrec.shown import say
from rawrec.stream.events import Event, Gone, read_event

JSON_BYTES, UPLOAD_BYTES, PICTURES = 4 << 20, 64 << 20, 32
GONE = 499
"""Counted where a client went away before its request was there."""
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": wire.Failure, "description": text}
    for status, text in {
        401: "the token is missing",
        403: "nothing may be written",
        404: "there is no such item",
        413: "the body is too large",
        422: "what is asked cannot be answered; `error` says why",
        503: "too many requests, ask again after `Retry-After` seconds",
    }.items()
}


def make_app(
    serving: Serving,
    token: str | None = None,
    strict: bool = False,
    hosts: tuple[str, ...] = (),
    beside: Sequence[tuple[str, Recommender]] = (),
    fetching: Fetching | None = None,
) -> FastAPI:
    """The application. token: asked of what writes, and of all where `strict`; None: nothing may write. hosts: names by
    which it may be called; empty: any. beside: a run that the page compares with, and its name. fetching: brings
    pictures that are named by address; None: none are."""

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(serving.close)

    app = FastAPI(
        title="rawrec", version=__version__, docs_url=None, redoc_url=None, lifespan=living, responses=FAILURES,
        description=f"Recommendations of {serving.now().rec.run.path.name}.", max_body_size=JSON_BYTES,
    )  # fmt: skip
    app.state.serving = serving
    _handle(app)
    _reading(app, serving)
    _writing(app, serving, fetching)
    _about(app, serving)
    add_page(app, serving, beside)
    app.middleware("http")(_counting(serving.told))
    app.add_middleware(Guard, token=token, strict=strict)
    if hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return app


def _reading(app: FastAPI, serving: Serving) -> None:
    async def ask(asked: Any, work: Callable[..., Any], alike: Any = None) -> Any:
        return await asyncio.wrap_future(serving.worker.ask(asked, lambda all_: work(serving.now, asked=all_), alike))

    @app.post("/recommend", tags=["lists"], response_model_exclude_none=True)
    async def recommend(asked: wire.RecommendAsked) -> wire.ListAnswer:
        """The best items for a user, or for a history."""
        alone = asked.user is None or asked.history is not None or asked.explain
        options = asked.model_dump_json(exclude={"user"}, by_alias=True)
        listed = await ask(asked, partial(answers.recommend, recent=serving.recent), None if alone else options)
        listed.answer.request = serving.wrote(asked, asked.user, listed)
        return listed.answer

    @app.post("/recommend/batch", tags=["lists"], response_model_exclude_none=True)
    async def batch(asked: wire.BatchAsked) -> wire.BatchAnswer:
        """The best items for each of several known users."""
        answer, lists = await ask(asked, partial(answers.batch, recent=serving.recent))
        for one, listed in zip(answer.lists, lists, strict=True):
            one.request = serving.wrote(asked, one.user, listed)
        return answer

    @app.post("/score", tags=["lists"])
    async def score(asked: wire.ScoreAsked) -> wire.ScoreAnswer:
        """Scores of items that you name."""
        return await ask(asked, partial(answers.score, recent=serving.recent))

    @app.post("/similar", tags=["lists"], response_model_exclude_none=True)
    async def similar(asked: wire.SimilarAsked) -> wire.ListAnswer:
        """Items like one of the catalogue."""
        return await ask(asked, answers.similar)

    @app.post("/search", tags=["lists"], response_model_exclude_none=True)
    async def search(asked: wire.SearchAsked) -> wire.ListAnswer:
        """Items for what was typed, where the run reads queries."""
        return await ask(asked, answers.search)


def _writing(app: FastAPI, serving: Serving, fetching: Fetching | None) -> None:
    async def write(work: Callable[[Version], dict[str, list[str]]]) -> wire.ItemsAnswer:
        done = await asyncio.get_running_loop().run_in_executor(serving.writing, lambda: work(serving.now()))
        version = serving.now()
        return wire.ItemsAnswer(**done, hidden=len(version.rec.hidden), served=version.served())

    @app.post("/items", tags=["items"], max_body_size=UPLOAD_BYTES)
    async def add(request: Request) -> wire.ItemsAnswer:
        """Take in a new item. A form: `item`, a JSON object with `item_id` and the item's fields, and pictures as files
        under the names of their fields; or that JSON object alone as the body. Of an item that is there, fields that
        changed: where versions are served and there is a log, they go into it, for a version to come. With `--fetch` an
        image field of `item` may be an http address, or a list of them."""
        item, pictures = await _item(request)
        if fetching is not None:
            item, pictures = await fetching.bring(item, pictures, serving.now().rec.data.fields)

        def work(version: Version) -> dict[str, list[str]]:
            rec = version.rec
            fields, name = rec.data.fields, str(item["item_id"]).strip()
            new, given = name not in rec, wire.item_of(item, pictures, fields)
            if serving.writer is not None:
                check_event(item, pictures, fields)  # before anything is taken in
            if new or serving.watcher is None or serving.writer is None:
                serving.add(given)
            else:
                rec.check_new(given)
            what = "is taken in here, and" if new else "stays as it was: its change"
            with told_as(f"item {shown(name)} {what} is not in the log"):
                _log(serving, lambda event: item_event({**item, "item_id": name}, pictures, fields, event))
            return {"added" if new else "changed": [name]}

        return await write(work)

    @app.post("/hidden", tags=["items"])
    async def hidden(asked: wire.HiddenAsked) -> wire.ItemsAnswer:
        """From the next request on no list holds these items, or lists may hold them again."""

        def work(version: Version) -> dict[str, list[str]]:
            for item in (*asked.hide, *asked.show):
                check_item(version.rec, item)
            serving.hide(asked.hide, asked.show)
            return {}

        return await write(work)

    @app.delete("/items/{item}", tags=["items"])
    async def delete(item: str) -> wire.ItemsAnswer:
        """No list holds this item any more. It stays in histories, and can be shown again."""
        _there(serving.now(), item)
        done = await hidden(wire.HiddenAsked(hide=[item]))
        await asyncio.to_thread(_log, serving, lambda event: Gone(item=item, **event))
        return done

    @app.post("/events", tags=["events"])
    async def events(asked: wire.EventsAsked) -> wire.EventsAnswer:
        """Write down what was shown elsewhere, and what was done. Actions count for their user's history at once, and
        for the model when it is trained on them."""
        if serving.writer is None:
            raise HTTPException(404, "there is no log: the server was started without --log")
        made: list[Event] = []
        unknown: set[str] = set()

        def make(number: Callable[[], int], now: float) -> list[Event]:
            assert serving.writer is not None
            for n, given in enumerate(asked.events):
                made.append(_event(given, n, serving.writer.producer, number, now, unknown))
            return made

        done = await asyncio.wrap_future(serving.writer.hand_in(make))
        serving.heard(made)
        return wire.EventsAnswer(taken=done.taken, duplicates=done.duplicates, unknown=sorted(unknown))


def _event(
    given: dict[str, Any], n: int, producer: str, number: Callable[[], int], now: float, unknown: set[str]
) -> Event:
    """An event that a client hands in; what it leaves out is filled in."""
    if given.get("kind") not in ("shown", "acted"):
        raise UserError(f"events.{n}: kind is `shown` or `acted`; items come and go by the routes of items")
    if ("producer" in given) != ("sequence" in given):
        raise UserError(f"events.{n}: producer and sequence are the event's id: give both, or none")
    own = {"time": now} if "producer" in given else {"time": now, "producer": producer, "sequence": number()}
    try:
        read = read_event(json.dumps(own | given).encode())
    except UserError as error:
        raise UserError(f"events.{n}: {error}") from None
    unknown.update(read.unknown)
    return read.event


def _log(serving: Serving, make: Callable[[dict[str, Any]], Event]) -> None:
    """Write an event of the server's own into the log, where there is one, and wait until it is on the disk."""
    writer = serving.writer
    if writer is not None:
        writer.hand_in(
            lambda number, now: [make({"producer": writer.producer, "sequence": number(), "time": now})]
        ).result()


async def _item(request: Request) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """The object of a new item and its pictures by field, of a form or of a JSON body."""
    pictures: dict[str, list[bytes]] = {}
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=PICTURES, max_fields=8, max_part_size=JSON_BYTES) as form:
            text = form.get("item")
            for name, value in form.multi_items():
                if not isinstance(value, str):
                    pictures.setdefault(name, []).append(await value.read())
                elif name != "item":
                    raise UserError(f"{name!r}: fields of an item stand in `item`, as a JSON object")
        if not isinstance(text, str):
            raise UserError("the form has no `item`: a JSON object with item_id and the fields of the item")
    else:
        text = (await request.body()).decode("utf-8", "replace")
    try:
        item = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("`item` is no JSON") from None
    if not isinstance(item, dict) or "item_id" not in item:
        raise UserError("`item` has to be a JSON object with item_id and the fields of the item")
    return item, pictures


def _about(app: FastAPI, serving: Serving) -> None:
    @app.get("/items/{item}/image", tags=["items"], response_class=Response)
    async def image(item: str, field: str | None = None) -> Response:
        """The first picture of an item of the dataset."""
        version = serving.now()
        _there(version, item)
        found = await asyncio.to_thread(version.rec.picture, item, field)
        if found is None:
            raise HTTPException(404, "the item has no picture here")
        return Response(found, media_type=picture_type(found))

    @app.get("/version", tags=["server"])
    async def version() -> wire.Served:
        """Which version answers, and how fresh it is."""
        return serving.now().served()

    @app.get("/health/live", tags=["server"])
    async def live() -> dict[str, str]:
        """Whether the process runs."""
        return {"status": "live"}

    @app.get("/health/ready", tags=["server"])
    async def ready() -> dict[str, str]:
        """Whether requests are answered now; 503 where too many wait."""
        if len(serving.worker) >= serving.worker.waiting:
            raise Busy(1)
        return {"status": "ready", "version": serving.now().name}

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def metrics() -> Response:
        """Counters, as Prometheus reads them."""
        return Response(serving.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page_of(app.openapi()))


def _there(version: Version, item: str) -> None:
    if item not in version.rec:
        raise HTTPException(404, "there is no such item")


def _handle(app: FastAPI) -> None:
    """Every mistake is one line, without places of files, and nothing of the program."""

    def failed(status: int, text: str, **headers: str) -> JSONResponse:
        return JSONResponse({"error": text}, status, headers=headers)

    @app.exception_handler(UserError)
    async def mistake(_: Request, error: UserError) -> JSONResponse:
        return failed(422, without_paths(str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part)[:60] for part in first["loc"] if part != "body")
        said = str(first["msg"]).removeprefix("Value error, ")
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        return failed(422, without_paths(f"{where}: {said}{more}" if where else f"{said}{more}"))

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> JSONResponse:
        return failed(503, str(error), **{"Retry-After": str(error.after)})

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


def _counting(told: Told) -> Callable[..., Awaitable[Response]]:
    """Counts each request by its route, and turns what nobody expected into an answer that says nothing of us."""

    async def count(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        started, status = time.perf_counter(), 500
        try:
            answer = await call(request)
            status = answer.status_code
        except ClientDisconnect:  # nobody is there to be answered
            status = GONE
            answer = Response(status_code=GONE)
        except Exception:
            number = uuid.uuid4().hex[:8]
            say(f"rawrec: request {number} failed:\n{traceback.format_exc()}", error=True)
            answer = JSONResponse({"error": f"something went wrong here, number {number} in the log"}, 500)
        route = request.scope.get("route")
        told.answered(getattr(route, "path", "unknown"), status, started)
        return answer

    return count
