"""Tries in processes that are forked from one that has loaded everything and used nothing; faults, hangs and what is
touched outside are noticed here."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks.origin import Origin

LONG = 2000
"""Characters of the longest message that a user should have to read."""


class Fault(Exception):
    """What must not be."""


@dataclass(frozen=True)
class Kind:
    """One way to attack.

    one: does a try at a place. share: tries of 10,000. seconds: after which it hangs. clean: `one` uses no library
    itself, since its forks do, and threads of Lance and polars do not live on in a fork.
    """

    name: str
    one: Callable[[Place], None]
    share: int
    seconds: float = 60.0
    clean: bool = False


class Place:
    """Where a try is made: an empty folder `here`, a folder of the user `outside` that it must not touch, and what
    strangers have made, `origin`."""

    def __init__(self, here: Path, outside: Path, origin: Origin, rng: random.Random) -> None:
        self.here, self.outside, self.origin, self.rng = here, outside, origin, rng

    def copy(self, name: str, to: str | None = None) -> Path:
        """A copy of a folder of the origin."""
        target = self.here / (to or name)
        shutil.copytree(self.origin.path / name, target, symlinks=True)
        return target


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (a signal as a negative number; None: it hung and was killed), and what it
    printed."""

    code: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        return (self.err or self.out).strip()


# ------------------------------------------------------------------------------------------------------------ processes
def load() -> None:
    """Everything that is imported by any command; nothing of Lance or polars is used."""
    import forked

    forked.load()
    import lance  # noqa: F401
    import polars  # noqa: F401

    import rawrec.cli.commands
    import rawrec.report.build
    import rawrec.serving.recommender
    import rawrec.sources.synthetic
    import rawrec.training.job  # noqa: F401


def begin(work: Callable[[], Any], streams: Path | None = None, stdin: int | None = None) -> int:
    """A forked process that does the work and ends as the command line would; its id. streams: what it prints goes to
    `<streams>.out` and `.err`."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        signal.alarm(0)
        if streams is not None:
            for number, name in ((1, "out"), (2, "err")):
                handle = os.open(f"{streams}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
                os.dup2(handle, number)
                os.close(handle)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        code = as_command(work)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def as_command(work: Callable[[], Any]) -> int:
    """Do the work; messages are printed, as the command line prints them, tracebacks are what they are."""
    from rawrec import cli
    from rawrec.errors import RunStopped, UserError

    try:
        work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except UserError as error:
        print(f"rawrec: {error}", file=sys.stderr)
        return 2
    except RunStopped as error:
        print(f"rawrec: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        message, code = cli._explain(error)
        print(f"rawrec: {message}", file=sys.stderr)
        return code
    return 0


def wait(process: int, seconds: float) -> int | None:
    """Its exit code; None where it took longer, and was killed."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
                os.killpg(process, signal.SIGKILL)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.001)


def child(place: Place, work: Callable[[], Any], seconds: float = 45.0) -> Ended:
    """Do the work in a process of its own."""
    streams = place.outside.parent / f"streams-{place.rng.random()}"
    code = wait(begin(work, streams), seconds)
    out, err = (_read(Path(f"{streams}.{name}")) for name in ("out", "err"))
    return Ended(code, out, err)


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8", "backslashreplace")
        path.unlink()
    except FileNotFoundError:
        return ""
    return text


def command(*words: object) -> Callable[[], None]:
    """Work: the command line with these words."""

    def work() -> None:
        from rawrec import cli

        sys.argv = ["rawrec", *map(str, words)]
        cli.main()

    return work


def sound(ended: Ended, codes: Iterable[int] = (0, 1, 2)) -> Ended:
    """Fault where a process hung, died or showed a traceback, or told its failure in more than a message."""
    if ended.code is None:
        raise Fault(f"it hung: {ended.said[-300:]}")
    if "Traceback" in ended.err or ended.code == 70:
        raise Fault(f"traceback: {ended.err.strip()[-700:]}")
    if ended.code not in codes:
        raise Fault(f"exit code {ended.code}: {ended.said[-300:]}")
    if ended.code and not ended.said:
        raise Fault(f"exit code {ended.code} without a word")
    if len(ended.err) > 4 * LONG:
        raise Fault(f"a message of {len(ended.err):,} characters: {ended.err[:700]} ... {ended.err[-700:]}")
    return ended


def done(ended: Ended) -> Ended:
    """Fault where a process did not come to its end."""
    if sound(ended).code != 0:
        raise Fault(f"it should go on: {ended.said[-500:]}")
    return ended


def message(call: Callable[[], Any], *also: type[BaseException]) -> str | None:
    """What a call says that is refused, None where it is done. Fault where it is no message."""
    from rawrec.errors import RunStopped, UserError

    try:
        call()
    except (UserError, RunStopped) as error:
        if len(str(error)) > LONG:
            raise Fault(f"a message of {len(str(error)):,} characters: {str(error)[:200]}") from None
        return str(error)
    except also as error:
        return str(error)
    except Fault:
        raise
    except BaseException as error:
        raise Fault(f"traceback: {told(error)}") from None
    return None


def told(error: BaseException) -> str:
    """An exception and where it came from, in a line."""
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    first = (str(error).splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first} ({' > '.join(places[-6:])})"


# ----------------------------------------------------------------------------------------------------------- all tries
class Attack:
    """Tries of one seed in a folder."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed = work, seed
        self.origin = Origin(work / "origin")
        if not self.origin.made and wait(begin(self.origin.make), 600) != 0:
            raise SystemExit("what is attacked could not be made")

    def tries(self, kind: Kind, numbers: range, until: float) -> Iterator[tuple[int, str | None, float]]:
        """Number, fault (or None) and seconds of a processor of each try, one process after the other."""
        numbers = range(numbers.start, numbers.stop)
        while numbers and time.monotonic() < until:
            read, write = os.pipe()

            def work(numbers: range = numbers, write: int = write) -> None:
                for number in numbers:
                    started = spent()
                    fault = self._try(kind, number)
                    line = json.dumps([number, fault, round(spent() - started, 3)])
                    os.write(write, line.encode()[:3000] + b"\n")
                    if time.monotonic() > until:
                        break

            process = begin(work)
            os.close(write)
            for line in _lines(read, kind.seconds):
                number, fault, seconds = json.loads(line)
                numbers = range(number + 1, numbers.stop)
                yield number, fault, seconds
            os.close(read)
            if numbers and time.monotonic() < until:  # it was doing the next one
                code = wait(process, 1.0)
                fault = f"it hung for {kind.seconds:g} s" if code is None else f"the process ended with {code}"
                yield numbers.start, fault, kind.seconds
                numbers = range(numbers.start + 1, numbers.stop)
            else:
                wait(process, 1.0)

    def again(self, kind: Kind, number: int) -> bool:
        fault = self._try(kind, number, keep=True)
        print(fault or "no fault", "in", self.work / "again")
        return fault is not None

    def _try(self, kind: Kind, number: int, keep: bool = False) -> str | None:
        base = self.work / ("again" if keep else "now")
        free(base)
        here, outside = base / "here", base / "home"
        here.mkdir(parents=True)
        outside.mkdir()
        for name in (".bashrc", "lock", "0.partial", "notes.txt", "last.safetensors", "run.json"):
            (outside / name).write_text(f"mine: {name}\n")
        place = Place(here, outside, self.origin, random.Random(f"{self.seed} {kind.name} {number}"))
        before, origin = state(outside), state(self.origin.path)
        fault: str | None = None
        try:
            kind.one(place)
        except Fault as error:
            fault = str(error)
        except BaseException as error:
            fault = f"traceback: {told(error)}"
            if keep:
                traceback.print_exc()
        if fault is None and state(outside) != before:
            fault = f"outside was touched: {sorted(p for p in state(outside).items() - before.items())}"
        if fault is None and state(self.origin.path) != origin:
            fault = "the origin was touched"
        if not keep:
            free(base)
        return fault


def spent() -> float:
    """Seconds that a processor worked for this process and those of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def free(folder: Path) -> None:
    """Remove a folder, whatever permissions it has."""
    if not folder.exists():
        return
    for root, folders, _ in os.walk(folder):
        for name in folders:
            if not (path := Path(root, name)).is_symlink():
                path.chmod(0o700)
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)  # a process that was killed makes its last file
    raise OSError(f"{folder} cannot be removed")


def state(folder: Path) -> dict[str, Any]:
    """Names, sizes, times and rights of all files below, but for a dataset's `cache/`, which whoever encodes fills."""
    found = {}
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "cache"]
        for name in names:
            path = Path(root, name)
            about = path.lstat()
            found[str(path)] = (about.st_size, about.st_mtime_ns, about.st_mode)
    return found


def _lines(handle: int, seconds: float) -> Iterator[bytes]:
    """Lines of a pipe until its end, or until none came for so many seconds."""
    held = b""
    while True:
        ready, _, _ = select.select([handle], [], [], seconds)
        part = os.read(handle, 1 << 16) if ready else b""
        if not part:
            return
        *lines, held = (held + part).split(b"\n")
        yield from lines


def limit(what: int, value: int, hard: bool = False) -> None:
    """Lower a limit of this process; hard: for good."""
    _, most = resource.getrlimit(what)
    value = value if most < 0 else min(value, most)
    resource.setrlimit(what, (value, value if hard else most))


def left(folder: Path) -> list[str]:
    """What looks like a left-over, anywhere in a folder."""
    ends = (".partial", ".half", ".new", ".old", ".replaced", ".checked", ".shards", ".lock", ".tmp")
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob(".*")
        if path.name.endswith(ends) or path.name.startswith(".tmp")
    )
