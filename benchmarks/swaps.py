"""Versions that are exchanged under load: does an answer ever mix two, and how long do requests wait meanwhile?

    python benchmarks/swaps.py [--swaps 200] [--clients 8] [--work DIR]

A small run learns from a stream and publishes some versions. A server of them is asked by clients without a pause,
first while one version stays (`quiet`), then while the pointer names another one each time that the last is served,
until so many exchanges are done. What each version answers to each user was written down before: every answer must be
that of the version that it names, to the last digit. Asked: none that is not, and a p99 of at most twice the quiet one.
Prints JSON lines; leaves with 1 where an answer was wrong or failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from client import Client
from common import cores, emit, folder
from killing import SETTINGS, SMALL, events_of

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.serving.published import Published
from rawrec.sources.synthetic import import_synthetic
from rawrec.stream import versions
from rawrec.stream.log import open_log
from rawrec.stream.online import online
from serving import Cpu, served, told

ASKED = 2.0
K, USERS = 10, 20
Right = dict[tuple[str, str], list[tuple[str, float]]]


def prepare(place: Path, items: int) -> tuple[Path, list[str], Right]:
    """A folder of versions, their names, and what each answers to each of some users."""
    data, run, out, url = place / "shop", place / "run", place / "out", f"sqlite:{place / 'events.db'}"
    if not data.is_dir():
        import_synthetic(data, items=items, users=200, impressions=8000, progress=False)
    shop = Dataset.open(data)
    if not out.is_dir():
        rawrec.train("id", shop, run, SMALL, overwrite=True, progress=False)
        with open_log(url) as log:
            log.append(events_of(shop, 150, random.Random(0)))
        online(run, log=url, until="end", settings=SETTINGS, publish=out, progress=False)
    names = [one.name for one in versions.listed(out).versions]
    right: Right = {}
    for name in names:
        rec = Published.of(out, name)
        for user in map(str, rec.people.user_ids[:USERS]):
            right[name, user] = [(one.item, float(one.score)) for one in rec.recommend(user, k=K)]
    return out, names, right


class Load:
    """Clients that ask without a pause until `over`; times: of the requests since they were cleared."""

    def __init__(self, address: str, right: Right) -> None:
        self.address, self.right, self.users = address, right, sorted({user for _, user in right})
        self.times: list[float] = []
        self.wrong = self.failed = 0
        self.served, self.over = "", False

    async def one(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        async with Client(self.address) as client:
            while not self.over:
                user, begun = self.users[rng.integers(len(self.users))], time.perf_counter()
                status, body = await client.post("/recommend", {"user": user, "k": K})
                self.times.append(time.perf_counter() - begun)
                if status != 200:
                    self.failed += 1
                    continue
                answer = json.loads(body)
                self.served = answer["served"]["version"]
                given = [(one["item"], one["score"]) for one in answer["items"]]
                self.wrong += given != self.right[self.served, user]


async def measure(
    address: str, process: int, out: Path, names: list[str], right: Right, args: argparse.Namespace
) -> int:
    load, of = Load(address, right), {"clients": args.clients, "cores": cores()}
    tasks = [asyncio.create_task(load.one(seed)) for seed in range(args.clients)]
    await asyncio.sleep(2)  # warm
    quiet: dict[str, Any] = {}
    for what in ("quiet", "swaps"):
        load.times, begun, cpu, done = [], time.perf_counter(), Cpu(process), 0
        if what == "quiet":
            await asyncio.sleep(args.seconds)
        while what == "swaps" and done < args.swaps and time.perf_counter() < begun + args.longest:
            name = names[(names.index(load.served) + 1) % len(names)]
            await asyncio.to_thread(versions.rollback, out, name)
            until = time.perf_counter() + 60
            while load.served != name:
                if time.perf_counter() > until:
                    raise SystemExit(f"{name} was not served after a minute")
                await asyncio.sleep(0.02)
            done += 1
        took, answers = time.perf_counter() - begun, len(load.times)
        found = told(load.times, took) | cpu.told(answers)
        emit(what=what, swaps=done, answers=answers, mixed=load.wrong, failed=load.failed, **found, **of)
        if what == "quiet":
            quiet = found
        else:
            emit(what="p99 of quiet", times=found["p99_ms"] / quiet["p99_ms"], asked=ASKED, **of)
    load.over = True
    await asyncio.gather(*tasks)
    return load.wrong + load.failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the quiet part")
    parser.add_argument("--longest", type=float, default=3600.0, help="seconds after which it ends with fewer swaps")
    parser.add_argument("--work", type=Path, help="folder for data, run and versions, kept (default: a temporary one)")
    args = parser.parse_args()
    with folder(args.work) as place:
        out, names, right = prepare(place, args.items)
        versions.rollback(out, names[0])
        with served(out, 1, "--every", "0.05") as (address, process):
            return int(asyncio.run(measure(address, process, out, names, right, args)) > 0)


if __name__ == "__main__":
    sys.exit(main())
