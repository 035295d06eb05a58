"""From an event to what the server knows: the whole loop, `rawrec serve` and `rawrec online` beside each other.

A generated shop and a small run are made, a version is published, then one process serves the folder of versions and
writes a log, another learns from the log and publishes, and a client asks for lists and clicks, at a steady number of
events per second (a list that is shown is one, a click another). Told, as JSON lines:

- `age`: seconds between now and the latest event that the version which answers has learned from, looked at five times
  a second: from an event to a list that knows it by training (p50, p95);
- `history`: seconds from a click until it counts in its user's history: that of the request that hands it in (p95);
- versions exchanged, lists per second, p50 and p99 of a list in ms, answers that failed.

Asked: p95 of `age` of at most 5 s at 200 events per second. All processes share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import cores, emit, folder, say

import rawrec
from rawrec.stream.events import Shown
from rawrec.stream.log import open_log
from rawrec.stream.online import online

AGE_P95 = 5.0
SHOWN = 5
EXAMPLE = "example: python benchmarks/fresh.py --rate 200 --seconds 60"
RUN = {
    "paradigm": "hybrid", "content.image.train": "none", "content.text.train": "none", "content.dim": 16,
    "content.image.encoder": "random:conv", "content.image.size": 32, "content.text.encoder": "random:bert",
    "model.dim": 16, "model.hidden": [32], "data.history": 20, "train.epochs": 1, "train.threads": 1,
    "eval.full_ranking": False,
}  # fmt: skip


def prepare(place: Path, items: int, users: int) -> tuple[Path, Path, str]:
    """A run, a folder with a first version of it, and the address of the log."""
    from rawrec.sources.synthetic import import_synthetic

    data, run, out, url = place / "shop", place / "run", place / "published", f"sqlite:{place / 'events.db'}"
    if not data.is_dir():
        import_synthetic(data, items=items, users=users, impressions=20 * users, progress=False)
    if not (run / "metrics.json").is_file():
        say("training")
        rawrec.train("em3", data, run, RUN, overwrite=True)
    with open_log(url) as log:
        opened = rawrec.Dataset.open(data)
        user, shown = str(opened.user_ids[0]), [str(item) for item in opened.item_ids[:3]]
        now = time.time()
        first = Shown(producer=f"begin-{now}", sequence=0, time=now, request="begin", user=user, items=shown)
        log.append([first])
    online(run, log=url, until="end", publish=out, progress=False)
    return run, out, url


async def clients(address: str, token: str, users: list[str], rate: float, seconds: float) -> dict[str, Any]:
    """Lists and clicks, half of the events each."""
    rng, begun = np.random.default_rng(0), time.perf_counter()
    lists, clicks, ages, versions, failed, tasks = [], [], [], set(), 0, []
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=address, timeout=30, limits=httpx.Limits(max_connections=64)) as http:

        async def one(due: float) -> None:
            nonlocal failed
            answer = await http.post("/recommend", json={"user": users[rng.integers(len(users))], "k": SHOWN})
            if answer.status_code != 200:
                failed += 1
                return
            lists.append(time.perf_counter() - due)
            found = answer.json()
            item = found["items"][int(rng.integers(len(found["items"])))]["item"]
            clicked = time.perf_counter()
            sent = {"events": [{"kind": "acted", "request": found["request"], "item": item}]}
            answer = await http.post("/events", json=sent, headers=headers)
            failed += answer.status_code != 200
            clicks.append(time.perf_counter() - clicked)

        async def look() -> None:
            while time.perf_counter() < begun + seconds:
                served = (await http.get("/version")).json()
                versions.add(served["version"])
                if time.perf_counter() > begun + seconds / 4:  # the first quarter is for warming
                    ages.append(served["age"])
                await asyncio.sleep(0.2)

        looking = asyncio.create_task(look())
        for n in range(int(rate / 2 * seconds)):
            due = begun + 2 * n / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(due)))
        await asyncio.gather(*tasks, looking)
    took = time.perf_counter() - begun
    return {
        "events_per_second": (len(lists) + len(clicks)) / took,
        "age_p50_s": float(np.percentile(ages, 50)),
        "age_p95_s": float(np.percentile(ages, 95)),
        "history_p95_s": float(np.percentile(clicks, 95)),
        "versions": len(versions),
        "list_p50_ms": float(np.percentile(lists, 50)) * 1e3,
        "list_p99_ms": float(np.percentile(lists, 99)) * 1e3,
        "failed": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=200.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--items", type=int, default=800)
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--publish-every", type=int, default=10, help="steps")
    parser.add_argument("--work", type=Path, help="folder for data, run and log, kept (default: a temporary one)")
    args = parser.parse_args()
    with folder(args.work) as place:
        run, out, url = prepare(place, args.items, args.users)
        token, path = "0123456789abcdef", place / "token"
        path.touch(0o600)
        path.write_text(token)
        rawrec_ = [sys.executable, "-m", "rawrec"]
        settings = ["online.wait=1", "online.batch_size=128", f"online.publish_every={args.publish_every}"]
        learn = [*rawrec_, "online", str(run), "--log", url, "--publish", str(out), *settings]
        serve = [*rawrec_, "serve", str(out), "--log", url, "--port", "0", "--token-file", str(path), "--threads", "1"]
        with (
            subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, env=os.environ) as server,
            subprocess.Popen(learn, stdout=sys.stderr, env=os.environ) as learner,
        ):
            try:
                assert server.stderr is not None
                address = server.stderr.readline().split(" on ")[1].split()[0]
                users = [str(user) for user in rawrec.Dataset.open(place / "shop").user_ids]
                found = asyncio.run(clients(address, token, users, args.rate, args.seconds))
            finally:
                learner.send_signal(signal.SIGINT)
                learner.wait(60)
                server.terminate()
        emit(what="fresh", rate=args.rate, items=args.items, cores=cores(), asked_age_p95_s=AGE_P95, **found)


if __name__ == "__main__":
    main()
