"""From options to a server that listens, and ends in order when it is told to."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from rawrec.errors import UserError
from rawrec.interruption import NUMBERS, may_set_signals
from rawrec.reading import read_text
from rawrec.server.app import PICTURES, UPLOAD_BYTES, make_app
from rawrec.server.connection import Connection
from rawrec.server.fetching import Fetching
from rawrec.server.guard import LOOPBACK
from rawrec.server.held import State, Version
from rawrec.server.holding import Serving
from rawrec.server.watching import Watcher, loaded
from rawrec.server.worker import Worker
from rawrec.serving.recommender import Recommender
from rawrec.threads import computing

LEAST_TOKEN = 16


@dataclass
class Options:
    """How a server is run. host, port: where it listens; port 0 takes a free one. names: further names by which it may
    be called. token_file: holds the token; state: the folder of what it keeps; log: the address of the log of events
    that it writes into; every: seconds between two looks for another version. waiting, deadline, batch: see `Worker`.
    threads: of the model; None: one for each core. fetch: bring pictures of new items that are named by address;
    private: also from this machine and private networks."""

    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    token_file: Path | None = None
    state: Path | None = None
    log: str | None = None
    every: float = 1.0
    waiting: int = 64
    deadline: float = 2.0
    batch: int = 16
    threads: int | None = None
    fetch: bool = False
    private: bool = False

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        return self.host in LOOPBACK

    def check(self) -> None:
        """UserError for what is impossible, or would let everybody in."""
        if not self.loopback and self.token_file is None:
            raise UserError(
                f"--host {self.host} can be reached from other machines: give --token-file FILE, whose token every "
                "request then has to bear, or listen on 127.0.0.1"
            )
        if self.fetch and self.token_file is None:
            raise UserError("--fetch is for new items, which nobody may add without --token-file FILE")
        if self.private and not self.fetch:
            raise UserError("--allow-private is of what --fetch brings: give that, too")


def read_token(path: Path) -> str:
    """The token in a file: one line, which others of this machine cannot read. UserError where it is none."""
    if not path.is_file():
        raise UserError(
            f"--token-file {path}: there is no such file; make one: (umask 077; openssl rand -hex 24 > FILE)"
        )
    if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        raise UserError(f"--token-file {path} can be read by others: chmod 600 {path}")
    token = read_text(path, limit=4096, links=True).strip()
    if len(token) < LEAST_TOKEN or not token.isascii() or any(sign.isspace() for sign in token):
        raise UserError(f"--token-file {path}: a token is one line of {LEAST_TOKEN} signs or more, without spaces")
    return token


def open_serving(
    load: Callable[[Path | None], Recommender], options: Options, published: Path | None = None
) -> tuple[Serving, list[str]]:
    """What answers, and what there is to tell. load: makes the recommender, given the folder of added items.
    published: a folder of versions, of which the one that is to be served is, in the place of what `load` makes."""
    state = State(options.state)
    version = Version.of(load(state.added)) if published is None else loaded(published)
    rec = version.rec
    gone = state.hide_again(rec)
    notes = [] if not gone else [f"{len(gone)} hidden items are not in the catalogue any more, first {gone[0]!r}"]
    inside: Callable[[], AbstractContextManager[None]] = partial(computing, options.threads)
    worker = Worker(options.waiting, options.deadline, options.batch, inside)
    serving = Serving(version, worker, state, options.log)
    if published is not None:
        serving.watcher = Watcher(published, serving, options.every)
    return serving, notes


def held(rec: Recommender, options: Options) -> Serving:
    """What answers by one recommender, which nothing changes."""
    inside: Callable[[], AbstractContextManager[None]] = partial(computing, options.threads)
    return Serving(Version.of(rec), Worker(options.waiting, options.deadline, options.batch, inside), State(None))


def application(serving: Serving, options: Options, beside: Sequence[tuple[str, Recommender]] = ()) -> FastAPI:
    """The application as these options secure it. beside: see `make_app`."""
    token = None if options.token_file is None else read_token(options.token_file)
    hosts = (*LOOPBACK, *options.names) if options.loopback or options.names else ()
    fetching = Fetching(PICTURES, UPLOAD_BYTES, options.private) if options.fetch else None
    return make_app(serving, token, not options.loopback, hosts, beside, fetching)


def listen(options: Options) -> socket.socket:
    """A socket that listens. UserError where the port is taken or may not be had."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle on: 40 ms
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((options.host.strip("[]"), options.port))
        place.listen(512)
    except OSError as error:
        place.close()
        raise UserError(f"--host {options.host} --port {options.port}: {os.strerror(error.errno or 0)}") from None
    except OverflowError:
        raise UserError(f"--port {options.port}: give a number from 0 to 65535") from None
    return place


class _Server(uvicorn.Server):
    """Leaves signals to `serve`, which handles them from before the first line that is said."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(app: FastAPI, place: socket.socket, begun: Callable[[], None] = lambda: None) -> None:
    """Answer until a signal ends it, which is its usual end; what is being answered then is answered. begun: called
    when signals do that."""
    config = uvicorn.Config(
        app, http=Connection, log_config=None, log_level="warning", access_log=False,
        server_header=False, lifespan="on", timeout_graceful_shutdown=5,
        limit_concurrency=1024, h11_max_incomplete_event_size=1 << 16,
    )  # fmt: skip
    server = _Server(config)
    for number in NUMBERS if may_set_signals() else ():
        signal.signal(number, server.handle_exit)
    begun()
    server.run(sockets=[place])
