"""The loop of `fresh.py` for a long time: memory and open files of the server and the trainer, are they flat?

A server writes a log, a trainer learns from it and publishes, a client asks and clicks, steadily, by default at half of
the 200 events per second that are asked of the loop. Every few seconds it is read what both processes hold. Told, as
JSON lines: of each process resident memory (MB) and open files, medians of the second quarter of the time, when all is
warm, and of the last; and the line of `fresh.py`. Leaves with 1 where memory has grown by more than a tenth and 32 MB,
or the number of files by more than 8, or a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from statistics import median

import fresh
from common import emit, folder

import rawrec

EXAMPLE = "example: python benchmarks/soak.py --minutes 60"
MEMORY, SPARE, FILES = 1.1, 32.0, 8
"""How much more may be held in the end: a share, MB beside it, files."""


def held(process: int) -> tuple[float, int]:
    """Resident memory in MB, and open files."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path(f"/proc/{process}/fd").iterdir()))


class Watch(threading.Thread):
    """Reads what processes hold, every so many seconds, until `over`."""

    def __init__(self, processes: dict[str, int], every: float) -> None:
        super().__init__(daemon=True)
        self.processes, self.every, self.over = processes, every, threading.Event()
        self.found: dict[str, list[tuple[float, int]]] = {name: [] for name in processes}

    def run(self) -> None:
        while not self.over.wait(self.every):
            for name, process in self.processes.items():
                self.found[name].append(held(process))

    def judged(self, name: str) -> bool:
        """Tell of a process; whether it is flat."""
        found = self.found[name]
        quarter = max(len(found) // 4, 1)
        early, late = found[quarter : 2 * quarter] or found, found[-quarter:]
        memory, files = (median(column) for column in zip(*early, strict=True))
        memory_, files_ = (median(column) for column in zip(*late, strict=True))
        flat = memory_ <= MEMORY * memory + SPARE and files_ <= files + FILES
        emit(process=name, reads=len(found), mb=memory, mb_end=memory_, files=files, files_end=files_, flat=flat)
        return flat


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100.0, help="events per second")
    parser.add_argument("--items", type=int, default=800)
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--work", type=Path, help="folder for data, run and log, kept (default: a temporary one)")
    args = parser.parse_args()
    with folder(args.work) as place:
        run, out, url = fresh.prepare(place, args.items, args.users)
        token, path = "0123456789abcdef", place / "token"
        path.touch(0o600)
        path.write_text(token)
        words = [sys.executable, "-m", "rawrec"]
        settings = ["online.wait=1", "online.batch_size=128", "online.publish_every=10"]
        serve = [*words, "serve", str(out), "--log", url, "--port", "0", "--token-file", str(path), "--threads", "1"]
        learn = [*words, "online", str(run), "--log", url, "--publish", str(out), "--trim", *settings]
        with (
            subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server,
            subprocess.Popen(learn, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as learner,
        ):
            try:
                assert server.stderr is not None
                address = server.stderr.readline().split(" on ")[1].split()[0]
                threading.Thread(target=server.stderr.read, daemon=True).start()  # what it says is not to fill a pipe
                users = [str(user) for user in rawrec.Dataset.open(place / "shop").user_ids]
                watch = Watch({"server": server.pid, "trainer": learner.pid}, min(5.0, args.minutes))
                watch.start()
                told = asyncio.run(fresh.clients(address, token, users, args.rate, 60 * args.minutes))
                watch.over.set()
                watch.join()
            finally:
                for process in (learner, server):
                    process.send_signal(signal.SIGINT)
        emit(**told)
        flat = [watch.judged(name) for name in watch.processes]
    return 0 if all(flat) and not told["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
