"""The command line: one thin function per command; `common.py` holds what they share.

Exit codes: 0 success, 2 a user's mistake (said without a traceback), 1 a run that could not go on, 130 interrupted,
128 + n ended by the signal n. This module itself imports next to nothing, so that an interruption meets `main` soon.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from rawrec import interruption
from rawrec.errors import OUT_OF_MEMORY, RunInterrupted, RunStopped, ToldElsewhere, UserError
from rawrec.shown import close_streams, libraries_in_lines, prepare_streams, say


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _commands()


def _commands() -> Any:
    """The app with all commands. Interrupted meanwhile, the process ends at once: there is nothing to be put in order,
    and libraries that are half imported make other errors of an interruption."""
    before = signal.getsignal(signal.SIGINT)
    ours = interruption.may_set_signals() and before is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _leave)
    try:
        from rawrec.cli.commands import app
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
    return app


def _leave(*_: object) -> NoReturn:
    os.write(2, f"rawrec: {INTERRUPTED}\n".encode())
    os._exit(130)


def main() -> None:
    """Entry point: errors become one message on stderr and an exit code."""
    try:
        _main()
    except KeyboardInterrupt as error:  # while another error was being told
        _fail(*_interrupted(error))
    finally:
        if not close_streams() and sys.exc_info()[0] is None:
            sys.exit(1)


def _main() -> None:
    try:
        prepare_streams()
        _check_limits()
        app = _commands()
        warnings.showwarning = _teller(warnings.showwarning)
        with libraries_in_lines(), interruption.as_exceptions():
            app(standalone_mode=True)
    except UserError as error:
        _fail(str(error), 2)
    except RunStopped as error:
        _fail(str(error), 1)
    except ToldElsewhere as error:
        sys.exit(error.code)
    except KeyboardInterrupt as error:
        _fail(*_interrupted(error))
    except SystemExit as stop:  # typer turns an interruption into this
        if interruption.seen or stop.code == 130:
            _fail(*_interrupted(stop))
        raise
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if interruption.seen:
            _fail(*_interrupted(error))
        if isinstance(error, OSError):
            _fail(*_explain(error))
        if not isinstance(error, MemoryError | RuntimeError):
            raise
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        _fail("out of memory; try a smaller train.batch_size, bank.micro_batch, eval.batch_size or data.history", 1)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a library in Rust, which no `Exception` catches
            raise
        said = (str(error).splitlines() or ["it says nothing"])[0][:200]
        _fail(f"a library gave up on a file or for want of memory: {said}; rawrec validate looks at a dataset", 1)


def _check_limits() -> None:
    """As many open files as the system allows, if the usual number is small; UserError where that is too few, or memory
    too little: libraries below give up in the middle of their work then, or wait for ever."""
    import resource

    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY and addresses < ADDRESSES << 20:
        raise UserError(
            f"this process may use {addresses >> 20:,} MiB of addresses (ulimit -v), and {ADDRESSES:,} are needed, "
            "most of which stay empty: ulimit -v unlimited; a control group bounds the memory that is used"
        )
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if usual != resource.RLIM_INFINITY and usual < FILES:
        allowed = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
        if allowed < FEWEST:
            raise UserError(
                f"this process may open {allowed} files, and {FEWEST} are needed: allow more (ulimit -n 1024)"
            )


FILES, FEWEST = 256, 64
"""Files that a process may have open, so that all goes well; and below which nothing is begun."""
ADDRESSES = 4000
"""MiB of addresses below which threads of the libraries cannot be begun."""


def _interrupted(error: BaseException) -> tuple[str, int]:
    """Message and exit code of an interruption, whatever other errors were made of it on the way."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, RunInterrupted):
            return str(found), 128 + found.number
        found = found.__cause__ or found.__context__
    number = interruption.seen[0] if interruption.seen else signal.SIGINT
    by = "interrupted" if number == signal.SIGINT else "ended by a signal"
    return INTERRUPTED.replace("interrupted", by), 128 + number


PACKAGE = __file__.rpartition("cli")[0]
"""The folder of the whole package; pathlib would be imported before an interruption meets `main`."""


def _teller(others: Callable[..., None]) -> Callable[..., None]:
    """Shows our own warnings as lines on stderr, without the place in the code that they come from."""

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any, **more: Any) -> None:
        if issubclass(category, UserWarning) and PACKAGE in filename:
            say(f"rawrec: {message}", error=True)
        else:
            others(message, category, filename, *rest, **more)

    return show


INTERRUPTED = "interrupted; an import, sweep or study goes on with the same command, a run with `rawrec resume RUN`"


def _explain(error: OSError) -> tuple[str, int]:
    """Message and exit code for a file that cannot be read or written."""
    what = (str(error.strerror or error).splitlines() or [type(error).__name__])[0]
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}{what}; free some space and try again; a training run goes on with `rawrec resume RUN`", 1
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{where}a folder is needed here, and a file is in the way", 2
    return f"{where}{what}", 2


def _fail(message: str, code: int) -> NoReturn:
    say(f"rawrec: {message}", error=True)
    sys.exit(code)
