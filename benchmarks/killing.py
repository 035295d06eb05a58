"""Online learning under kills: what fills a log, what learns from it and publishes, and what serves that, each killed.

    python benchmarks/killing.py [--kills 10] [--seed 0] [--model id|hybrid] [--work DIR]

A round is a stream from its begin to its end. Its producer, its trainer, which publishes, and a server beside it are
killed at random instants and at named points (`RAWREC_FAULT`: before and after writes, fsyncs, renames, appends and
acknowledgements), or the disk fails there (ENOSPC, EIO, short writes), and begun again, until all is done. Beside it
the same stream goes through without any of that.

Prints a JSON line per round: kills and failures; whether the logs, the trainer's state and its versions are the same to
the bit; whether every impression was trained once or waits; how many lists the server gave, and how many of them the
version that they name does not give when it is whole. Leaves with 1 where one of these is not as it must be.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import emit, folder

import rawrec
from rawrec import faults
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.serving.published import Published
from rawrec.sources.synthetic import import_synthetic
from rawrec.stream import saved
from rawrec.stream.events import Acted, Event, Gone, Item, Shown, write_event
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
FAILED = 3  # the code of a process whose disk failed, which told it
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
    online(run, log=url, until="end", settings=SETTINGS, publish=out, data=data, trim=False)


def produce(url: str, events: list[Event]) -> None:
    """Append all events, some at a time, as one does that does not know what had come of it before."""
    with open_log(url) as log:
        for at in range(0, len(events), 20):
            log.append(events[at : at + 20])


def serve(out: Path, data: Dataset, answers: Path) -> None:
    """Give lists of the version that is to be served, and write them down, until the process is ended."""
    name = ""
    while True:
        try:
            current = listed(out).current
        except UserError:  # nothing is published yet
            current = None
        if current is None or current == name:
            time.sleep(0.005)
            continue
        rec = Published.of(out, data=data)
        name = rec.about.name
        with answers.open("a") as file:
            file.write(json.dumps([name, lists_of(rec)]) + "\n")


def lists_of(rec: Published) -> list[Any]:
    return [[list(one) for one in rec.recommend(user, k=5)] for user in map(str, rec.people.user_ids[:3])]


def child(work: Callable[[], None], fault: str) -> int:
    """A process that does it, with a fault; its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        faults.ask(fault)
        work()
        code = 0
    except OSError as error:
        code = FAILED if fault and error.errno in (errno.ENOSPC, errno.EIO) else 1
        if code == 1:
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


class Killer:
    """Draws how processes are killed, and counts it."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.kills = self.failures = 0
        self.met: Counter[str] = Counter()

    def fault(self, points: Sequence[str]) -> str:
        """A fault at one of these points."""
        point = self.draw.choice(points)
        kinds = ("kill",) if point.startswith("acknowledge") else faults.KINDS
        kind = self.draw.choice(kinds) if self.draw.random() < 0.5 else "kill"
        return f"{point}:{int(2 ** self.draw.uniform(0, 7))}:{kind}"

    def to_the_end(self, work: Callable[[], None], points: Sequence[str], longest: float) -> None:
        """Have it done, killed at instants and points as long as that is before its end."""
        while True:
            fault = self.fault(points) if self.draw.random() < 0.6 else ""
            process = child(work, fault)
            if not fault:
                time.sleep(self.draw.uniform(0, longest))
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            code = ended(process)
            if code == 0:
                return
            self.note(code, fault)

    def note(self, code: int, fault: str) -> None:
        if code not in (-signal.SIGKILL, FAILED):
            raise SystemExit(f"it did not go as it should where it was not killed: {code}, {fault}")
        self.kills += code == -signal.SIGKILL
        self.failures += code == FAILED
        self.met[fault.partition(":")[0] or "instant"] += 1

    def beside(self, work: Callable[[], None], over: threading.Event, longest: float) -> None:
        """Have it done again and again, killed at instants, until it is over."""
        while not over.is_set():
            process = child(work, "")
            over.wait(self.draw.uniform(0, longest))
            time.sleep(0.05 if over.is_set() else 0)
            os.kill(process, signal.SIGKILL)
            self.note(ended(process), "")


def wrong_lists(answers: Path, out: Path, data: Dataset) -> tuple[int, int]:
    """How many answers were given, and how many of them are not what their version gives where it was never hurt."""
    found = [json.loads(line) for line in answers.read_text().splitlines() if line.endswith("]")]
    right = {
        name: json.loads(json.dumps(lists_of(Published.of(out, name, data)))) for name in {one[0] for one in found}
    }
    return len(found), sum(lists != right[name] for name, lists in found)


def log_of(url: str) -> list[bytes]:
    with open_log(url) as log:
        return [record.data for record in log.read(0, 1_000_000)]


PARTS = ("tensors", "plain", "metrics", "versions", "current")


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


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="so many, or some more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=MODELS, default="id")
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--work", type=Path, help="folder for data and runs; kept")
    args = parser.parse_args(words)
    warnings.simplefilter("ignore")  # Lance wants no forks, and is not used in them
    killer, servers, number, wrong = Killer(args.seed), Killer(args.seed + 1), 0, 0
    with folder(args.work) as work:
        data, base = work / "shop", work / f"run-{args.model}"
        if not data.exists():
            import_synthetic(data, items=60, users=40, impressions=2000, progress=False)
        shop = Dataset.open(data)
        name = "id" if args.model == "id" else "em3"
        rawrec.train(name, shop, base, SMALL | MODELS[args.model], overwrite=True)
        place = work / "rounds"
        while killer.kills + killer.failures + servers.kills < args.kills:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            found = round_of(place, base, shop, events_of(shop, args.requests, killer.draw), killer, servers)
            number, wrong = number + 1, wrong + (not all(found[name] for name in ("same_log", "same", "once")))
            wrong += found["wrong_lists"]
            emit(round=number, kills=killer.kills, servers=servers.kills, failures=killer.failures, **found)
        emit(points=dict(sorted(killer.met.items())), wrong=wrong)
    return 1 if wrong else 0


def round_of(
    place: Path, base: Path, shop: Dataset, events: list[Event], killer: Killer, servers: Killer
) -> dict[str, Any]:
    """A stream, whole and killed; what came of it."""
    url = f"sqlite:{place / 'events.db'}"
    whole, other = (Path(shutil.copytree(base, place / which)) for which in ("whole", "killed"))
    outs, answers = [place / "one", place / "two"], place / "answers.jsonl"
    answers.touch()
    killer.to_the_end(lambda: produce(url, events), ("append", "append.done"), 0.02)
    same_log = log_of(url) == [write_event(event) for event in events]
    started = time.perf_counter()
    go_on(whole, url, outs[0], shop)
    longest = time.perf_counter() - started
    Published.of(outs[0], data=shop)  # reads what the forked processes may not
    over = threading.Event()
    server = threading.Thread(
        target=servers.beside, args=(lambda: serve(outs[1], shop, answers), over, max(3 * longest, 2.0))
    )
    server.start()
    try:
        points = [point for point in faults.POINTS if not point.startswith("append")]
        killer.to_the_end(lambda: go_on(other, url, outs[1], shop), points, longest)
    finally:
        over.set()
        server.join()
    last = child(lambda: serve(outs[1], shop, answers), "")
    while f'["{listed(outs[1]).current}"' not in answers.read_text():  # what is served in the end
        if os.waitpid(last, os.WNOHANG)[0]:
            raise SystemExit("a server ended that was not killed")
        time.sleep(0.02)
    os.kill(last, signal.SIGKILL)
    ended(last)
    count, bad = wrong_lists(answers, outs[0], shop)
    shown = sum(len(event.items) for event in events if isinstance(event, Shown))
    states = zip(PARTS, state_of(whole, outs[0]), state_of(other, outs[1]), strict=True)
    differ = [name for name, one, two in states if one != two]
    return {
        "same_log": same_log,
        "same": not differ,
        "differ": differ,
        "once": once(other, shown),
        "lists": count,
        "wrong_lists": bad,
    }


if __name__ == "__main__":
    sys.exit(main())
