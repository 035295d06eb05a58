"""`python world_faults.py FAULT RANK STEP WORDS...`: the command line, where something goes wrong in one process."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch

from rawrec.cli import main
from rawrec.training.steps import Steps


def break_at(fault: str, step: int) -> None:
    usual = Steps._step

    def broken(self: Steps[Any], rows: Any) -> None:
        if self.progress.step == step:
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "error":
                raise OSError(28, "No space left on device", "somewhere")
            if fault == "nan":
                with torch.no_grad():
                    self.optimiser.parameters[-1].fill_(torch.nan)
            if fault == "drift":
                with torch.no_grad():
                    self.optimiser.parameters[-1].add_(1e-4)
            if fault == "signal":
                os.kill(os.getpid(), signal.SIGINT)
        usual(self, rows)

    Steps._step = broken


if __name__ == "__main__":
    fault, rank, step, *words = sys.argv[1:]
    if os.environ["RANK"] == rank:
        break_at(fault, int(step))
    sys.argv = ["rawrec", *words]
    main()
