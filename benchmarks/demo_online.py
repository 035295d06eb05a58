"""A shop whose tastes move and whose new products arrive as pictures, served and learned from while it goes on.

    make demo-online
    python benchmarks/demo_online.py --work runs/demo-online [--seconds 60] [--rate 30] [--only content]

Two runs are trained on what happened before: `id` and `em3` (content). Then the same shop goes online three times, each
with a real server, which users ask for lists and which is told what they click, by the known probability:

- `frozen`: `em3` as it was trained; new products are taken in as they come;
- `ids`: `id`, which `rawrec online` learns and publishes meanwhile;
- `content`: `em3`, learned and published likewise.

A list has four places, and a fifth is drawn by chance, so that each way learns of everything. Told, as JSON lines and
as a chart (`online.svg`): what users would click of the four, as a share of the best four that there are then, over
time; and how many of the places go to products that came within the last twelfth of the time (an hour, the whole being
a day of 12 hours), beside how many the best lists would give them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from common import cores, emit, folder, say
from drifting_shop import DriftingShop

import rawrec
from rawrec.extras import there
from rawrec.stream.events import Item, Picture, Shown
from rawrec.stream.log import open_log
from rawrec.stream.online import online

HOURS, PLACES, MOMENTS = 12, 4, 120
"""Of the time online; of a list; at which what users like is looked at."""
WAYS = {"frozen": "em3", "ids": "id", "content": "em3"}
COMMON = {"train.epochs": 20, "train.threads": 1, "eval.full_ranking": False, "data.history": 20}
RUNS: dict[str, dict[str, Any]] = {
    "id": {},
    "em3": {
        "paradigm": "hybrid", "content.image.train": "none", "content.text.train": "none",
        "content.fusion.kind": "concat", "model.dropout": 0.2,
    },
}  # fmt: skip
LEARNING = ("online.wait=1", "online.batch_size=64", "online.every=1", "online.publish_seconds=3")
TOKEN = "0123456789abcdef"


class Asked(NamedTuple):
    """A list: when, as a share of the time; what its places were worth, and the best ones; how many of them were young
    products, and of the best ones."""

    at: float
    got: float
    best: float
    young: int
    best_young: int


def prepare(place: Path, shop: DriftingShop, impressions: int) -> None:
    """The data and the two runs, as far as they are not there."""
    if not (place / "shop").is_dir():
        shop.write(place / "shop", impressions)
    for model, own in RUNS.items():
        if not (place / model / "metrics.json").is_file():
            say(f"training {model}")
            rawrec.train(model, place / "shop", place / model, COMMON | own, overwrite=True, progress=False)


@contextmanager
def served(place: Path, way: str) -> Iterator[tuple[str, str]]:
    """The address of a server, and of its log; with a trainer beside it, but for `frozen`."""
    run, url, out = place / WAYS[way], f"sqlite:{place / way / 'events.db'}", place / way / "published"
    shutil.rmtree(place / way, ignore_errors=True)
    shutil.rmtree(run / "online", ignore_errors=True)
    (place / way).mkdir()
    token = place / "token"
    token.unlink(missing_ok=True)
    token.touch(0o600)
    token.write_text(TOKEN)
    with open_log(url) as log:
        data = rawrec.Dataset.open(place / "shop")
        shown = [str(item) for item in data.item_ids[:3]]
        log.append([Shown(producer="begin", sequence=0, time=time.time(), request="b", user="u1", items=shown)])
    learns = way != "frozen"
    if learns:
        online(run, log=url, until="end", publish=out, progress=False)
    rawrec_ = [sys.executable, "-m", "rawrec"]
    serve = [*rawrec_, "serve", str(out if learns else run), "--log", url, "--port", "0", "--token-file", str(token)]
    learn = [*rawrec_, "online", str(run), "--log", url, "--publish", str(out), *LEARNING]
    with subprocess.Popen([*serve, "--threads", "1"], stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        learner = subprocess.Popen(learn, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) if learns else None
        try:
            assert server.stderr is not None
            yield server.stderr.readline().split(" on ")[1].split()[0], url
        finally:
            if learner is not None:
                learner.send_signal(signal.SIGINT)
                learner.wait(60)
            server.terminate()


class Day:
    """Users of a shop ask a server for lists, at a steady rate, and click what they like."""

    def __init__(self, shop: DriftingShop, http: httpx.AsyncClient, url: str, way: str, seconds: float) -> None:
        self.shop, self.http, self.url, self.way, self.seconds = shop, http, url, way, seconds
        self.rng = np.random.default_rng([shop.seed, 11])
        self.asked: list[Asked] = []
        self.failed = self._number = 0
        self._begun = time.perf_counter()

    @property
    def now(self) -> float:
        return (time.perf_counter() - self._begun) / self.seconds

    async def go(self, rate: float) -> None:
        tasks = [asyncio.create_task(self._products())]
        for n in range(int(rate * self.seconds)):
            await asyncio.sleep(max(0.0, self._begun + n / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(self._visit()))
        await asyncio.gather(*tasks)

    async def _products(self) -> None:
        """New products come when it is their time: to the server, which encodes and logs them; where the model reads no
        content, which a server can serve nothing new by, into the log alone."""
        for item in range(self.shop.first, self.shop.items):
            await asyncio.sleep(max(0.0, (self.shop.launched[item] - self.now) * self.seconds))
            fields, data = self.shop.fields(item), self.shop.shop.picture(item)
            name = self.shop.item_id(item)
            if self.way == "ids":
                pictures = {"image": [Picture(data=data)]} if data else {}
                event = Item(
                    producer="shop", sequence=item, time=time.time(), item=name, fields=fields, pictures=pictures
                )
                await asyncio.to_thread(self._append, event)
                continue
            form: dict[str, Any] = {"item": (None, json.dumps({"item_id": name, **fields}))}
            answer = await self.http.post("/items", files=form | ({"image": ("a.jpg", data)} if data else {}))
            self.failed += answer.status_code != 200

    def _append(self, event: Item) -> None:
        with open_log(self.url) as log:
            log.append([event])

    async def _visit(self) -> None:
        shop, at = self.shop, min(self.now, 1.0)
        user = int(self.rng.integers(shop.users))
        like = shop.matrix(round(at * MOMENTS) / MOMENTS)[user]
        here = shop.launched <= at
        chance = int(self.rng.choice(np.flatnonzero(here)))
        asked = {"user": shop.user_id(user), "k": PLACES, "exclude_seen": "none"}
        answer = await self.http.post("/recommend", json=asked)
        if answer.status_code != 200:
            self.failed += 1
            return
        found = answer.json()
        rows = np.array([int(one["item"][1:]) - 1 for one in found["items"]])
        best = np.argsort(-np.where(here, like, -1))[:PLACES]
        young = here & (shop.launched > at - 1 / HOURS) & (shop.launched >= 0)
        self.asked.append(Asked(at, like[rows].sum(), like[best].sum(), int(young[rows].sum()), int(young[best].sum())))
        self._number += 1
        drawn = f"chance-{self._number}"
        events: list[dict[str, Any]] = []
        if chance not in rows:
            events.append({"kind": "shown", "request": drawn, "user": asked["user"], "items": [shop.item_id(chance)]})
        for row in [*rows, *([chance] if events else [])]:
            if self.rng.random() < like[row]:
                request = drawn if events and row == chance else found["request"]
                events.append({"kind": "acted", "request": request, "item": shop.item_id(int(row))})
        if events:
            answer = await self.http.post("/events", json={"events": events})
            self.failed += answer.status_code != 200


async def day(shop: DriftingShop, address: str, url: str, way: str, rate: float, seconds: float) -> tuple[Day, int]:
    """The visits of a day, and how many versions were served."""
    headers, limits = {"authorization": f"Bearer {TOKEN}"}, httpx.Limits(max_connections=32)
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=30, limits=limits) as http:
        made = Day(shop, http, url, way, seconds)
        await made.go(rate)
        told = (await http.get("/metrics")).text
    swaps = next(
        (float(line.split()[1]) for line in told.splitlines() if line.startswith("rawrec_version_swaps_total")), 0.0
    )
    return made, 1 + int(swaps)


def by_hour(asked: list[Asked]) -> list[float | None]:
    """The share of the best possible, of each hour."""
    hours = [[one for one in asked if hour <= one.at * HOURS < hour + 1] for hour in range(HOURS)]
    return [_share(one) for one in hours]


def _share(asked: list[Asked]) -> float | None:
    best = sum(one.best for one in asked)
    return None if not best else round(sum(one.got for one in asked) / best, 4)


def draw(lines: dict[str, list[float | None]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for way, line in lines.items():
        axes.plot(np.arange(HOURS) + 0.5, [np.nan if x is None else x for x in line], marker="o", label=way)
    axes.set(xlabel="hours online", ylabel="clicks, as a share of the best possible", xlim=(0, HOURS))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for all of it, kept (default: a temporary one)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each day")
    parser.add_argument("--rate", type=float, default=30.0, help="lists per second")
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--impressions", type=int, default=30_000, help="before the shop goes online")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=WAYS, help="these ways alone")
    args = parser.parse_args()
    shop, lines = DriftingShop(args.items, args.users, args.seed), dict[str, list[float | None]]()
    with folder(args.work) as place:
        prepare(place, shop, args.impressions)
        for way in args.only or WAYS:
            with served(place, way) as (address, url):
                say(f"{way}: look at {address} (its token: {TOKEN})")
                made, versions = asyncio.run(day(shop, address, url, way, args.rate, args.seconds))
            lines[way] = by_hour(made.asked)
            late = [one for one in made.asked if one.at >= 0.5]
            young, best = (sum(getattr(one, name) for one in made.asked) for name in ("young", "best_young"))
            count = PLACES * max(len(made.asked), 1)
            emit(
                what="demo-online", way=way, share=_share(made.asked), share_of_the_second_half=_share(late),
                by_hour=lines[way], young=round(young / count, 4), young_of_the_best=round(best / count, 4),
                versions=versions, lists=len(made.asked), failed=made.failed, seed=args.seed, cores=cores(),
            )  # fmt: skip
        if there("matplotlib"):
            draw(lines, place / "online.svg")
            say(f"{place / 'online.svg'} has the chart")


if __name__ == "__main__":
    main()
