"""Starts a command as several processes of this machine, by torch's elastic launcher (that of `torchrun`)."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence

from rawrec.shown import say
from rawrec.threads import count as cores

ENDING = 600
"""Seconds that processes have to end with a checkpoint, once a signal has asked them to."""


def launch(processes: int, words: Sequence[str]) -> int:
    """`python -m rawrec WORDS` so often, until all have ended; the exit code. They say themselves what there is to say;
    where all of them were killed, it is said here."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # whose reports are for its own developers
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="rawrec-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            shutdown_timeout=ENDING,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "rawrec", *words)
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            killed = [rank for rank, code in codes.items() if code < 0]
            if len(killed) == processes:
                say(f"rawrec: all {processes} processes were killed, by signal {-codes[killed[0]]}", error=True)
            return next((code for code in codes.values() if code > 0), 1)
        except SignalException as error:
            return 128 + int(error.sigval)
    return 0
