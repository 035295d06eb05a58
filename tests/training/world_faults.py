"""`python world_faults.py FAULT RANK STEP WORDS...`: the command line, where something goes wrong in one process."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch

from rawrec.cli import main
from rawrec.training.runs import RunFolder
from rawrec.training.steps import Steps
from rawrec.world import Lost


def break_at(fault: str, step: int) -> None:
    usual = Steps._step

    def broken(self: Steps[Any], rows: Any) -> None:
        if self.progress.step == step:
            if fault in ("kill", "kill_by_launcher"):
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


def end_once_lost() -> None:
    """A launcher ends all processes by a signal, once one has died: here, as another one writes down its end."""
    usual = RunFolder.write_info

    def ended(self: RunFolder, **values: Any) -> None:
        if sys.exc_info()[0] is Lost:
            os.kill(os.getpid(), signal.SIGTERM)
        usual(self, **values)

    RunFolder.write_info = ended


if __name__ == "__main__":
    fault, rank, step, *words = sys.argv[1:]
    if fault == "kill_by_launcher":
        end_once_lost()
    if os.environ["RANK"] == rank:
        break_at(fault, int(step))
    sys.argv = ["rawrec", *words]
    main()
