"""The command line: one thin function per command; `common.py` holds what they share.

Exit codes: 0 success, 2 a user's mistake (said without a traceback), 1 a run that could not go on, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from typing import NoReturn

from rawrec.cli import converting, datasets, encoding, importing, sources, studying, training, use  # noqa: F401  they register themselves
from rawrec.cli.common import app
from rawrec.errors import RunStopped, UserError


def main() -> None:
    """Entry point: errors become one message on stderr and an exit code."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error), 2)
    except RunStopped as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail(INTERRUPTED, 130)
    except SystemExit as stop:  # typer turns an interruption into this
        if stop.code == 130:
            _fail(INTERRUPTED, 130)
        raise
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        _fail(*_explain(error))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        _fail("out of memory; try a smaller train.batch_size, bank.micro_batch, eval.batch_size or data.history", 1)


INTERRUPTED = (
    "interrupted; a training run goes on with `rawrec resume RUN`, an import, sweep or study with the same command"
)
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


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
    print(f"rawrec: {message}", file=sys.stderr)
    sys.exit(code)
