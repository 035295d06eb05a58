"""Forked processes: the threads of Lance and of polars do not live on in them, so that reading would wait for ever.

What does not read by these libraries goes on in a fork: a recommender that was loaded before answers as ever.
"""

from __future__ import annotations

import os

from rawrec.errors import UserError

_process: int | None = None
"""Where the libraries began to work."""


def check_not_forked() -> None:
    """Before Lance or polars work. Raises UserError in a process that was forked from one in which they have."""
    global _process
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid():
        raise UserError(
            "this process was forked from one that had read data before, and reading (Lance, polars) does not work in "
            "such a fork. Begin processes afresh (multiprocessing.get_context('spawn'); a server without preloading), "
            "or load the recommender before, and only ask it in the fork"
        )
