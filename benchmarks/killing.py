"""Online learning under kills: a trainer that publishes, killed at random instants, ends as one that was not.

    python benchmarks/killing.py [--kills 10] [--seed 0] [--model id|hybrid] [--work DIR]

Prints a JSON line per round (a stream from its begin to its end): kills, the instants (seconds), whether state and
versions are the same to the bit, and whether every impression was trained once or waits. Leaves with 1 where not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from common import emit, folder

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.sources.synthetic import import_synthetic
from rawrec.stream import saved
from rawrec.stream.events import Acted, Event, Gone, Item, Shown
from rawrec.stream.log import open_log
from rawrec.stream.online import online
from rawrec.stream.versions import listed
from rawrec.training.runs import RunFolder
from rawrec.training.state import load

SETTINGS = {"batch_size": 16, "wait": 60.0, "checkpoint_every": 5, "publish_every": 7, "window": 100}
MODELS: dict[str, dict[str, Any]] = {
    "id": {},
    "hybrid": {
        "paradigm": "hybrid",
        "content.image.use": False,
        "content.text.encoder": "random:bert",
        "content.text.max_length": 12,
        "content.dim": 16,
    },
}
SMALL = {"model.dim": 8, "model.hidden": [16], "train.epochs": 1, "train.threads": 1}


def events_of(data: Dataset, requests: int, draw: random.Random) -> list[Event]:
    """Requests, clicks in time and late, items that come, change and go; numbered."""
    found: list[Event] = []
    items, users = [str(i) for i in data.item_ids], [str(u) for u in data.user_ids[:10]]
    text, when = data.fields.text[0], 1_800_000_000.0
    for n in range(requests):
        when += draw.uniform(0, 10)
        head: dict[str, Any] = {"producer": "shop", "time": when}
        if draw.random() < 0.1:
            items.append(f"new{n}")
            found.append(Item(**head, sequence=len(found), item=items[-1], fields={text: f"thing {n}"}))
        if draw.random() < 0.05:
            found.append(Gone(**head, sequence=len(found), item=draw.choice(items)))
        shown, user = draw.sample(items, 4), draw.choice([*users, f"visitor{n % 7}"])
        found.append(Shown(**head, sequence=len(found), request=f"r{n}", items=shown, user=user))
        if draw.random() < 0.6:
            when += draw.uniform(0, 80)
            late: dict[str, Any] = {"producer": "shop", "time": when, "sequence": len(found)}
            found.append(Acted(**late, request=f"r{n}", item=draw.choice(shown)))
    return found


def go_on(run: Path, url: str, out: Path, data: Dataset) -> None:
    online(run, log=url, until="end", settings=SETTINGS, publish=out, data=data)


def killed(run: Path, url: str, out: Path, data: Dataset, draw: random.Random, longest: float) -> list[float]:
    """Go on to the end, killed at an instant as long as that is before it; the instants."""
    instants: list[float] = []
    while True:
        process = os.fork()
        if not process:
            code = 1
            try:
                go_on(run, url, out, data)
                code = 0
            finally:
                os._exit(code)
        instant = draw.uniform(0, longest)
        time.sleep(instant)
        os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code == 0:
            return instants
        if code != -signal.SIGKILL:
            raise SystemExit(f"it did not go as it should where it was not killed: {code}")
        instants.append(instant)


def state_of(run: Path, out: Path) -> tuple[Any, ...]:
    """All of a trainer and of what it has published, as it can be compared."""
    folder = run / "online" / "checkpoint"
    tensors, _ = load(folder / saved.TENSORS)
    return (
        {name: values.contiguous().numpy().tobytes() for name, values in tensors.items()},
        (folder / saved.PLAIN).read_text(),
        (run / "online" / "metrics.jsonl").read_text(),
        [(one.name, one.files) for one in listed(out).versions],
        listed(out).current,
    )


def once(run: Path, shown: int) -> bool:
    """Whether every item that was shown was trained once, or waits."""
    found = saved.load(run / "online" / "checkpoint", RunFolder.open(run).info()["files"]["model.safetensors"])
    assert found is not None
    joiner, counts = found[1]["joiner"], found[1]["counts"]
    return counts["trained"] + len(joiner["ready"]) + sum(len(one["items"]) for one in joiner["pending"]) == shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="so many, or some more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=MODELS, default="id")
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--work", type=Path, help="folder for data and runs; kept")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # Lance wants no forks, and is not used in them
    draw, kills, wrong = random.Random(args.seed), 0, 0
    with folder(args.work) as work:
        data, base = work / "shop", work / f"run-{args.model}"
        if not data.exists():
            import_synthetic(data, items=60, users=40, impressions=2000, progress=False)
        shop = Dataset.open(data)
        name = "id" if args.model == "id" else "em3"
        rawrec.train(name, shop, base, SMALL | MODELS[args.model], overwrite=True)
        place, number = work / "rounds", 0
        while kills < args.kills:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            url, events = f"sqlite:{place / 'events.db'}", events_of(shop, args.requests, draw)
            with open_log(url) as log:
                log.append(events)
            whole, other = (Path(shutil.copytree(base, place / which)) for which in ("whole", "killed"))
            started = time.perf_counter()
            go_on(whole, url, place / "one", shop)
            longest = time.perf_counter() - started
            instants = killed(other, url, place / "two", shop, draw, longest)
            same = state_of(whole, place / "one") == state_of(other, place / "two")
            shown = sum(len(event.items) for event in events if isinstance(event, Shown))
            each = once(other, shown)
            kills, number, wrong = kills + len(instants), number + 1, wrong + (not same or not each)
            emit(round=number, kills=len(instants), instants=[round(i, 3) for i in instants], same=same, once=each)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
