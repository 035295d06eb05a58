"""Processes that begin with the heavy libraries loaded, for tests that start one to kill it or to read what it prints.

A Python that imports torch and all the rest takes four seconds of a processor before it does anything. `Process` and
`run` take the words of `subprocess.Popen` and `subprocess.run`, `[sys.executable, "-c" CODE | "-m" MODULE | FILE, ..]`,
and have them done in a fork of one process that has loaded those libraries and nothing of `rawrec`, so that a child
costs its own work. Tests whose subject is how a process begins (what is imported, how many threads there are, signals
before `main`) start a real one.

A child is a process like any other: its own pid, streams, folder, environment, `sys.path` and exit code. Its parent is
the server, which the first child of a session starts, or the process that starts several workers, for all of them
(conftest.py), and which ends with it. What libraries read as they are loaded (OMP_NUM_THREADS) they have read in the
server.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any

HEAVY = (
    "torch", "torch._dynamo", "torch.utils.tensorboard", "scipy.sparse", "peft", "safetensors.torch", "optuna", "yaml",
    "transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert", "PIL.Image", "pydantic.fields",
    "pandas", "pyarrow.dataset", "typer", "rich.table", "rich.progress", "matplotlib.figure", "jinja2", "aiohttp",
)  # fmt: skip
"""Not polars and lance, which start threads: these do not live on in a fork."""

ADDRESS = "RAWREC_TESTS_FORKED"  # in the environment
STATUS = 4  # bytes of a pid or of an exit code on the wire


# ------------------------------------------------------------------------------------------------- who starts a process
class Process:
    """What tests need of `subprocess.Popen`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        text: bool = False,
    ):
        assert command[0] == sys.executable, command
        self.returncode: int | None = None
        pipes: list[IO[Any] | None] = []
        theirs: list[int] = []
        for number, stream in enumerate((stdin, stdout, stderr)):
            if stream == subprocess.PIPE:
                read, write = os.pipe()
                mine, other = (write, read) if number == 0 else (read, write)
                pipes.append(os.fdopen(mine, ("w" if number == 0 else "r") + ("" if text else "b")))
            else:
                pipes.append(None)
                if stream == subprocess.DEVNULL:
                    other = os.open(os.devnull, os.O_RDWR)
                else:
                    other = os.dup(number if stream is None else stream if isinstance(stream, int) else stream.fileno())
            theirs.append(other)
        self.stdin, self.stdout, self.stderr = pipes
        server = _server()  # before the environment is copied, since children find it there
        asked = {"words": list(command[1:]), "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ)}
        self._channel = socket.socket(socket.AF_UNIX)
        self._channel.connect(server)
        socket.send_fds(self._channel, [b"."], theirs)
        self._channel.sendall(json.dumps(asked).encode())
        self._channel.shutdown(socket.SHUT_WR)
        for each in theirs:
            os.close(each)
        self.pid = self._number()

    def _number(self) -> int:
        got = self._channel.recv(STATUS, socket.MSG_WAITALL)
        assert len(got) == STATUS, "the server of forked processes has gone"
        return int.from_bytes(got, "little", signed=True)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._channel.settimeout(timeout)
            try:
                self.returncode = self._number()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
            self._channel.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """What it prints until it ends."""
        if self.stdin is not None:
            self.stdin.close()
        said: dict[int, Any] = {1: None, 2: None}

        def read(number: int, pipe: IO[Any]) -> None:
            said[number] = pipe.read()
            pipe.close()

        pipes = [(number, pipe) for number, pipe in ((1, self.stdout), (2, self.stderr)) if pipe is not None]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in pipes]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return said[1], said[2]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        self.wait()


def run(
    command: Sequence[str], *, capture_output: bool = False, check: bool = False, **more: Any
) -> subprocess.CompletedProcess[Any]:
    """As `subprocess.run`."""
    if capture_output:
        more |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = Process(command, **more)
    out, err = process.communicate()
    done = subprocess.CompletedProcess(command, process.wait(), out, err)
    if check:
        done.check_returncode()
    return done


def command(folder: Path, name: str, *words: str) -> None:
    """An executable in a folder that has a Python of `words`, and of those after its name, forked."""
    _server()  # children find it
    file = folder / name
    file.write_text("#!/bin/sh\nexec " + shlex.join([sys.executable, "-I", __file__, *words]) + ' "$@"\n')
    file.chmod(0o755)


@cache
def _server() -> str:
    """The address of this session's server, started where none is. Children know it."""
    if ADDRESS not in os.environ:
        start()
    address = os.environ[ADDRESS]
    while not Path(address).exists():  # loading what is heavy, in another worker's stead perhaps
        assert Path(address).parent.exists(), "the server of forked processes has gone"
        time.sleep(0.02)
    return address


def start() -> None:
    """Start a server that runs as long as this process does; it is not waited for. The environment names it."""
    folder = tempfile.mkdtemp(prefix="rawrec-forked-")
    address = os.environ[ADDRESS] = f"{folder}/socket"
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", address], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    def end() -> None:
        server.communicate()  # closes its input
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)


# ----------------------------------------------------------------------------------------------------------- the server
def serve(address: str) -> list[str]:
    """Forks a process whenever one is asked for. Returns in those alone: the words that each is to do."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}.new")
    listening.listen()
    Path(f"{address}.new").rename(address)
    ended, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the session, which then ends us
    gc.freeze()  # so that the memory of what is loaded stays shared with the children
    going: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([0, ended, listening], [], [])
        if 0 in ready:
            sys.exit()
        if ended in ready:
            os.read(ended, 1 << 10)
            _tell_of_the_dead(going)
        if listening in ready:
            channel, _ = listening.accept()
            _, streams, *_ = socket.recv_fds(channel, 1, 3)
            asked = json.loads(b"".join(iter(partial(channel.recv, 1 << 16), b"")))
            if (child := os.fork()) == 0:
                for each in (channel, listening, *going.values()):
                    each.close()
                os.close(ended)
                os.close(tell)
                return _become(asked, streams)
            for each in streams:
                os.close(each)
            going[child] = channel
            _send(channel, child)


def _become(asked: dict[str, Any], streams: list[int]) -> list[str]:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return asked["words"]


def _tell_of_the_dead(going: dict[int, socket.socket]) -> None:
    """Whoever asked for a child hears how it ended: its exit code, or the signal, as a negative number."""
    while going:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        channel = going.pop(child)
        _send(channel, os.waitstatus_to_exitcode(status))
        channel.close()


def _send(channel: socket.socket, number: int) -> None:
    with suppress(OSError):  # who asked may have gone
        channel.sendall(number.to_bytes(STATUS, "little", signed=True))


def do(words: list[str]) -> None:
    """What a Python of these words would do."""
    if words[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *words[2:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        sys.path.insert(0, str(Path(words[0]).parent))
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def load() -> None:
    for name in HEAVY:
        importlib.import_module(name)


def begin(address: str) -> None:
    """The server, and in each child the work that was asked for, after which nothing loaded is taken apart: that takes
    longer than most of what children do."""
    code: list[int] = []

    def leave() -> None:
        """Comes last, since it is registered first."""
        if code:
            with suppress(OSError, ValueError):  # a stream that is closed or full is left to Python
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code[0] & 0xFF)

    atexit.register(leave)
    ours = {str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    try:
        load()
    except BaseException:
        shutil.rmtree(Path(address).parent, ignore_errors=True)  # so that nobody waits for it
        raise
    sys.path = [place for place in sys.path if place not in ours]
    words = serve(address)
    try:
        do(words)
    except SystemExit as stop:
        code.append(stop.code if isinstance(stop.code, int) else int(stop.code is not None))
        raise
    except KeyboardInterrupt:
        raise
    except BaseException:
        code.append(1)
        raise
    code.append(0)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--load"]:  # so that what is compiled is kept
            load()
        case "--serve", address:
            begin(address)
        case words:
            sys.exit(Process([sys.executable, *words], stdin=0).wait())
