"""Environments: full disks, places that cannot be written, few handles, little memory, odd settings of a process. One
message or the work done, never a hang; and afterwards the work goes on."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attacks.engine import Ended, Fault, Place, child, command, done, left, limit, sound
from attacks.origin import QUICK, digest, outcome

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
KIB, MIB = 1 << 10, 1 << 20


def given(settings: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def commands(place: Place, here: Path) -> dict[str, list[Any]]:
    """Commands that write into `here`, as words; `here/shop` is a dataset, `here/run` a run that was stopped."""
    shop = here / "shop"
    small: list[Any] = ["--items", 20, "--users", 10, "--impressions", 200, "--size", 32]
    return {
        "import": ["import", "synthetic", "--out", here / "new", *small],
        "overwrite": ["import", "synthetic", "--out", shop, "--overwrite", *small],
        "train": ["train", "id", "--data", shop, "--out", here / "trained", *given(QUICK)],
        "resume": ["resume", here / "run", "--data", shop],
        "split": ["split", shop, "--name", "more", "--by", "random_user"],
        "lists": ["recommend", place.origin.path / "id-done", "--all-users", here / "lists.csv", "-k", 3],
        "vectors": ["export", place.origin.path / "em3-done", "--out", here / "vectors.parquet"],
        "report": ["report", place.origin.path / "id-done", "--out", here / "page.html"],
        "encode": ["encode", shop, "--encoder", "random:bert", "--field", "title", "--out", here / "f.npy"],
        "recommend": ["recommend", place.origin.path / "id-done", "--user", "u1", "-k", 3],
        "similar": ["similar", place.origin.path / "em3-done", "--item", "p0001", "-k", 3],
        "evaluate": ["evaluate", place.origin.path / "id-done"],
        "inspect": ["inspect", shop],
        "validate": ["validate", shop],
        "runs": ["runs", here],
        "compare": ["compare", place.origin.path / "id-done", place.origin.path / "em3-done"],
    }


WRITING = ("import", "overwrite", "train", "resume", "split", "lists", "vectors", "report", "encode")


def furnished(place: Place, here: Path) -> None:
    shutil.copytree(place.origin.path / "shop", here / "shop", ignore=shutil.ignore_patterns("cache"))
    shutil.copytree(place.origin.path / "id-stopped", here / "run")


# ----------------------------------------------------------------------------------------------------------------- full
def mounted(here: Path, size: int) -> bool:
    """Give this process a file system of its own of that size at `here`; False where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS) and (libc.unshare(NEW_MOUNTS | NEW_USER)):
        return False
    libc.mount(b"none", b"/", None, 0x40000 | 0x4000, None)  # private, all below
    return libc.mount(b"tmpfs", os.fsencode(here), b"tmpfs", 0, f"size={size}".encode()) == 0


def grown(here: Path, size: int) -> None:
    ctypes.CDLL(None).mount(b"tmpfs", os.fsencode(here), b"tmpfs", 32, f"size={size}".encode())


def full(place: Place) -> None:
    """A disk that becomes full at some moment of a command: a message that says so, what was there is as it was, and
    with more room the same command goes on."""
    rng, here = place.rng, place.here / "small"
    here.mkdir()
    name = rng.choice(WRITING)
    room = rng.choice([0, 4 * KIB, rng.randrange(64 * KIB), rng.randrange(400 * KIB), rng.randrange(2 * MIB)])

    def work() -> None:
        inner = Place(place.here, place.outside, place.origin, rng)
        mount = mounted(here, 64 * MIB)
        furnished(inner, here)
        before = place.origin.known["shop"]
        if mount:
            stat = os.statvfs(here)
            used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
            grown(here, used + room // 4096 * 4096 or used)
            first = child(inner, command(*commands(inner, here)[name]))
        else:
            first = child(inner, lambda: (limit(resource.RLIMIT_FSIZE, room), command(*commands(inner, here)[name])()))
        sound(first)
        if first.code and not any(words in first.said for words in ("No space left", "space", "File too large")):
            raise Fault(f"{name}: a full disk is told as: {first.said[-300:]}")
        if first.code and (found := child(inner, lambda: print(digest(here / "shop")))).out.strip() != before:
            raise Fault(f"{name}: the dataset is another: {found.said[-300:]}")
        if mount:
            grown(here, 64 * MIB)
        if first.code:
            words = commands(inner, here)[name]
            if name == "train" and (here / "trained" / "config.yaml").is_file():
                words = ["resume", here / "trained"]
            done(child(inner, command(*words)))
            if name in ("resume", "train"):
                done(child(inner, lambda: _same(here / ("run" if name == "resume" else "trained"), place, name)))
        if left(here):
            raise Fault(f"{name}: left {left(here)}")

    ended = child(place, work, 55)
    if "Fault: " in ended.err:
        raise Fault(ended.err.rpartition("Fault: ")[2].strip())
    sound(ended)


def _same(run: Path, place: Place, name: str) -> None:
    found = outcome(run)
    if name == "resume" and found["model"] != place.origin.known["id"]["model"]:
        raise Fault("the resumed run has other weights")


# ------------------------------------------------------------------------------------------------- limits of a process
def _limited(place: Place, what: int, value: Callable[[], int], name: str, hard: bool = False) -> Ended:
    furnished(place, place.here)
    words = commands(place, place.here)[name]

    def work() -> None:
        limit(what, value(), hard)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        command(*words)()

    return child(place, work, 50)


def handles(place: Place) -> None:
    name = place.rng.choice(sorted(commands(place, place.here)))
    count = place.rng.choice([*range(3, 20), 24, 32, 48, 64, 80])
    sound(_limited(place, resource.RLIMIT_NOFILE, lambda: count, name, place.rng.random() < 0.7))


def memory(place: Place) -> None:
    name = place.rng.choice(sorted(commands(place, place.here)))
    most = place.rng.choice([300, 500, 1000, 1500, 2000, 2600, 3200, 3900, 4000, 4500, 5000, 6000, 8000])
    furnished(place, place.here)
    words = [*map(str, commands(place, place.here)[name])]
    code = f"import resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({most} << 20, {most} << 20))\n"
    code += "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); from rawrec import cli; cli.main()"

    def work() -> None:
        os.execv(sys.executable, [sys.executable, "-c", code, *words])

    sound(child(place, work, 55))


# ------------------------------------------------------------------------------------------------ places, other users
def places(place: Place) -> None:
    """Folders that cannot be written, as another user."""
    import other_user

    furnished(place, place.here)
    rng = place.rng
    name = rng.choice(sorted(commands(place, place.here)))
    folders = [place.here, *(path for path in place.here.rglob("*") if path.is_dir())]
    for path in (*place.here.parents, place.origin.path, *place.origin.path.rglob("*")):
        if path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o555 != 0o555 and path.is_dir():
            path.chmod(path.stat().st_mode | 0o555)
    closed = rng.choice([folders, rng.sample(folders, rng.randrange(1, 5)), []])
    for path in [place.here, *place.here.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    for path in closed:
        path.chmod(0o555)

    def work() -> None:
        other_user.become()
        os.environ |= {"HOME": "/nonexistent", "MPLCONFIGDIR": "/nonexistent/x"}
        command(*commands(place, place.here)[name])()

    ended = child(place, work)
    if "right to read everything" not in ended.err:
        sound(ended)


# ----------------------------------------------------------------------------------------------------- odd environments
def odd(place: Place) -> None:
    """Streams that are closed or full, encodings, variables, folders that are gone, clocks."""
    rng = place.rng
    furnished(place, place.here)
    name = rng.choice(sorted(commands(place, place.here)))
    ways = rng.sample(sorted(ODD), rng.choice([1, 1, 2]))
    encoding = rng.choice(["ascii", "latin-1", "cp1252", "utf-16", "iso8859-15"])

    def work() -> None:
        for one in ways:
            ODD[one](place)
        if "encoding" in ways:
            for stream in ("stdout", "stderr"):
                setattr(sys, stream, open(1 if stream == "stdout" else 2, "w", encoding=encoding, closefd=False))  # noqa: SIM115
        command(*commands(place, place.here)[name])()

    ended = child(place, work)
    if set(ways) & {"stdout closed", "streams closed", "stdout full", "pipe closed"}:
        if ended.code is None or ended.code < 0 or "Traceback" in ended.err or ended.code == 70:
            raise Fault(f"{name}, {ways}: code {ended.code}, {ended.err[-500:]}")
        return
    try:
        sound(ended)
    except Fault as fault:
        raise Fault(f"{name}, {ways}: {fault}") from None


def _to(number: int, target: str) -> None:
    handle = os.open(target, os.O_WRONLY)
    os.dup2(handle, number)


def _closed_pipe(number: int) -> None:
    read, write = os.pipe()
    os.dup2(write, number)
    os.close(read)
    os.close(write)


def _gone(place: Place) -> None:
    folder = place.here / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()


def _clock(offset: float) -> None:
    real = time.time
    time.time = lambda: real() + offset


def _variables(**values: str | None) -> None:
    import tempfile

    tempfile.tempdir = None
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


ODD: dict[str, Callable[[Place], Any]] = {
    "encoding": lambda place: None,
    "stdout closed": lambda place: os.close(1),
    "streams closed": lambda place: [os.close(number) for number in (0, 1, 2)],
    "stdin closed": lambda place: os.close(0),
    "stdout full": lambda place: _to(1, "/dev/full"),
    "pipe closed": lambda place: _closed_pipe(1),
    "no home": lambda place: _variables(HOME=None, XDG_CACHE_HOME=None),
    "home gone": lambda place: _variables(HOME="/nonexistent"),
    "no folder for temporary files": lambda place: _variables(TMPDIR="/nonexistent", TMP="/nonexistent", TEMP="/x"),
    "folder gone": _gone,
    "locale": lambda place: _variables(LC_ALL="C", LANG="tlh_XX.KLINGON", LANGUAGE="x"),
    "terminal": lambda place: _variables(
        COLUMNS=place.rng.choice(["0", "1", "-3", "x", "999999"]), TERM="\x1b[", LINES="0"
    ),
    "no variables": lambda place: os.environ.clear(),
    "mask": lambda place: os.umask(0o777),
    "open mask": lambda place: os.umask(0),
    "clock back": lambda place: _clock(-(10**9)),
    "clock far": lambda place: _clock(10**10),
    "clock before 1970": lambda place: _clock(-3e9),
    "time zone": lambda place: (_variables(TZ="XYZ-99:99:99"), time.tzset()),
    "proxies": lambda place: _variables(http_proxy="http://127.0.0.1:1", HTTPS_PROXY="x://y", NO_PROXY="*"),
    "threads": lambda place: _variables(
        OMP_NUM_THREADS="-1", MKL_NUM_THREADS="x", LANCE_CPU_THREADS="0", RAYON_NUM_THREADS="0"
    ),
    "python": lambda place: _variables(PYTHONPATH="/nonexistent", PYTHONWARNINGS="x::y", PYTHONUTF8="0"),
    "hub": lambda place: _variables(HF_HOME="/proc/x", HF_HUB_OFFLINE="no", TRANSFORMERS_CACHE="\n"),
}
