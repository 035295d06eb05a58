"""Requests per second and latency of `rawrec serve`, at 10,000 and 100,000 items, beside a bare numpy product, top-k.

A catalogue of random clicks is made, `id` (a ranking model) and `bpr` (a retrieval model) are trained for one epoch,
and each is served by a process of its own. Clients ask POST /recommend with k = 20 for random users, over connections
that stay open: N clients, each of which asks again as soon as it was answered, and then a steady number of requests per
second, whose times count from when a request was due. `bare` is what a list of bpr costs without rawrec: user vector
times item vectors, what the user has taken masked, `argpartition`, in this process.

Asked: p99 of at most 50 ms at 100 requests per second, for 10,000 items. Clients and server share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from client import Client
from common import cores, emit, folder, say
from filters import catalogue

import rawrec

P99_MS, RATE = 50.0, 100
EXAMPLE = "example: python benchmarks/serving.py --items 10000 --seconds 10"
MODELS: dict[str, dict[str, Any]] = {
    "id": {"model.dim": 16, "model.hidden": [32], "data.history": 50, "eval.full_ranking": False},
    "bpr": {"model.embedding_size": 64},
}
USERS = 2000


@contextmanager
def served(run: Path, threads: int, *more: str) -> Iterator[tuple[str, int]]:
    """A server of a run, or of versions; its address, and the number of its process."""
    command = [sys.executable, "-m", "rawrec", "serve", str(run), "--port", "0", "--threads", str(threads), *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            Thread(target=process.stderr.read, daemon=True).start()  # what it says is not to fill a pipe
            yield line.split(" on ")[1].split()[0], process.pid
        finally:
            process.terminate()


async def ask(client: Client, rng: np.random.Generator, times: list[float], failed: list[float], due: float) -> None:
    status, _ = await client.post("/recommend", {"user": f"u{rng.integers(USERS)}", "k": 20})
    (times if status == 200 else failed).append(time.perf_counter() - due)


async def closed(address: str, clients: int, seconds: float) -> tuple[list[float], int]:
    """Clients that ask again as soon as they were answered."""
    rng, times, failed, end = np.random.default_rng(0), list[float](), list[float](), time.perf_counter() + seconds

    async def one() -> None:
        async with Client(address) as client:
            while time.perf_counter() < end:
                await ask(client, rng, times, failed, time.perf_counter())

    await asyncio.gather(*(one() for _ in range(clients)))
    return times, len(failed)


async def steady(address: str, rate: int, seconds: float) -> tuple[list[float], int]:
    """So many requests per second, whether or not those before were answered."""
    rng, times, failed = np.random.default_rng(0), list[float](), list[float]()
    free: list[Client] = []  # connections that nobody waits at

    async with AsyncExitStack() as stack:

        async def one(due: float) -> None:
            client = free.pop() if free else await stack.enter_async_context(Client(address))
            await ask(client, rng, times, failed, due)
            free.append(client)

        begun, tasks = time.perf_counter(), []
        for n in range(int(rate * seconds)):
            due = begun + n / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(due)))
        await asyncio.gather(*tasks)
    return times, len(failed)


def bare(run: Path, seconds: float) -> list[float]:
    """Product, mask, the 20 best, in numpy, of the vectors that the run would export."""
    rec = rawrec.Recommender.load(run, device="cpu")
    users, items = (np.ascontiguousarray(v.float().numpy()) for v in (rec._users, rec._items))  # type: ignore[attr-defined]
    taken = [rec._past.items[rec._past.ptr[u] : rec._past.ptr[u + 1]] for u in range(USERS)]
    rng, times, end = np.random.default_rng(0), [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun, user = time.perf_counter(), rng.integers(USERS)
        scores = items @ users[user]
        scores[taken[user]] = -np.inf
        best = np.argpartition(-scores, 20)[:20]
        best[np.argsort(-scores[best])]
        times.append(time.perf_counter() - begun)
    return times


def told(times: list[float], seconds: float) -> dict[str, float]:
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {"requests_per_second": len(times) / seconds, "p50_ms": float(p50), "p99_ms": float(p99)}


def used(process: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Cpu:
    """What a request costs the server, and who asks, in ms of CPU: that is the same whatever else the machine does."""

    def __init__(self, server: int) -> None:
        self.server, self._at = server, (used(server), time.process_time())

    def told(self, requests: int) -> dict[str, float]:
        theirs, ours = used(self.server) - self._at[0], time.process_time() - self._at[1]
        return {"server_cpu_ms": 1e3 * theirs / requests, "client_cpu_ms": 1e3 * ours / requests}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--threads", type=int, default=1, help="of the server's model")
    parser.add_argument("--work", type=Path, help="folder for datasets and runs, kept (default: a temporary one)")
    args = parser.parse_args()
    with folder(args.work) as place:
        for items in args.items:
            data = catalogue(place / f"data-{items}", items, USERS)
            for model in args.models:
                out = place / f"{model}-{items}"
                if not (out / "metrics.json").is_file():
                    say(f"training {model} on {items:,} items")
                    rawrec.train(model, data, out, {"train.epochs": 1, **MODELS[model]}, overwrite=True)
                of = {"model": model, "items": items, "threads": args.threads, "cores": cores()}
                if model == "bpr":
                    emit(what="bare", **of, **told(bare(out, args.seconds / 2), args.seconds / 2))
                with served(out, args.threads) as (address, process):
                    asyncio.run(closed(address, 4, 2))  # warm
                    for clients in args.clients:
                        cpu = Cpu(process)
                        times, failed = asyncio.run(closed(address, clients, args.seconds))
                        found = told(times, args.seconds) | cpu.told(len(times) + failed)
                        emit(what=f"{clients} clients", **of, **found, refused=failed)
                    times, failed = asyncio.run(steady(address, RATE, args.seconds))
                    found = told(times, args.seconds)
                    asked = {"asked_p99_ms": P99_MS} if items == 10_000 else {}
                    emit(what=f"{RATE} requests/s", **of, **found, refused=failed, **asked)


if __name__ == "__main__":
    main()
