"""How the processes of a run find each other, are found to be alike, wait for the first one, and end together.

Who starts them (`torchrun`, `launch.py`) says in the environment who each is (RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT). Beside the exchanges of `world.py` they share torch's store: in it stands how far the first one is, and
why one has failed.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from rawrec import __version__
from rawrec.config import RETRIEVAL, Config
from rawrec.config.finetune import FinetuneConfig
from rawrec.config.resolution import flatten
from rawrec.data.dataset import Dataset
from rawrec.errors import RunInterrupted, RunStopped, ToldElsewhere, UserError, refused_by_system
from rawrec.interruption import ENDING, Ended, may_set_signals
from rawrec.models.retrieval import retrieval_model
from rawrec.shown import listed, several
from rawrec.training.runs import RunFolder
from rawrec.world import ALONE, Lost, World

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
MEETING = timedelta(seconds=60)
"""So long processes wait for each other at the beginning."""
PATIENCE = timedelta(hours=12)
"""So long for one that lives, in an exchange: who dies is noticed at once."""
GONE = 3.0
"""Seconds in which a process that lives has noticed that another one is gone."""
LOOK = 0.05  # seconds between looks into the store


def started() -> bool:
    """Whether this process was started as one of several."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1") and "RANK" in os.environ


def speaks() -> bool:
    """Whether this process says how far things are: the others do not."""
    return not started() or os.environ["RANK"] == "0"


class Ranks(World):
    """The processes of a run, as torch has them."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        super().__init__(rank, size)
        self._store = store

    @property
    def restarted(self) -> bool:
        """Whether who started us has done so before, and one of us has failed since."""
        return os.environ.get(RESTARTS, "0") != "0"

    # ---------------------------------------------------------------------------------------------- one after another
    def note(self, what: str, text: str = "") -> None:
        """Say in the store that this process has come so far."""
        self._store.set(f"{what}/{self.rank}", text)

    def follow(self, what: str, rank: int = 0) -> None:
        """Wait until a process has come so far; Lost where one of us has failed."""
        while not self._store.check([f"{what}/{rank}"]):
            if self._known("failed"):
                raise Lost(what)
            time.sleep(LOOK)

    def _known(self, what: str) -> list[int]:
        return [rank for rank in range(self.size) if self._store.check([f"{what}/{rank}"])]

    # --------------------------------------------------------------------------------------------------- how it ends
    def told(self, error: BaseException) -> BaseException:
        """What this process is to raise where an error has ended its work: one of all processes tells of it.

        Who started the processes (`torchrun`) ends all of them by a signal once one has died: whoever has heard of that
        by its own exchange goes by it.
        """
        if may_set_signals():
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)
        lost = _lost(error)
        with suppress(RuntimeError):
            by_signal = isinstance(error, KeyboardInterrupt) and _number(error) != signal.SIGINT
            if not (lost or (by_signal and (self._known("failed") or self._known("lost")))):
                self.note("failed", _said(error))
                return error if self.first else _silent(error)
            return self._of_others(error)
        # The store has gone, and the process that holds it.
        if not lost:
            return error if self.first else _silent(error)
        return self._of_gone([0]) if self.rank == 1 else ToldElsewhere(1)

    def _of_others(self, error: BaseException) -> BaseException:
        """Which of the others is the reason. Those who live say so within `GONE` seconds."""
        self.note("lost")
        _leave()  # so that whoever waits for us notices
        until = time.monotonic() + GONE
        while not self._known("failed") and time.monotonic() < until:
            time.sleep(LOOK)
            if len({*self._known("lost"), *self._known("failed")}) == self.size:
                break
        failed = self._known("failed")
        if failed:
            if 0 in failed or not self.first:
                return ToldElsewhere(1)
            rank = failed[0]
            why = self._store.get(f"failed/{rank}").decode()
            return RunStopped(f"process {rank} of {self.size} has stopped in step {self.step}: {why}")
        gone = [rank for rank in range(self.size) if rank not in self._known("lost")]
        speaker = min(rank for rank in range(self.size) if rank not in gone)
        if not gone:
            return (
                RunStopped(f"the connection of the processes broke in step {self.step}: {error}")
                if (self.first)
                else ToldElsewhere(1)
            )
        return self._of_gone(gone) if self.rank == speaker else ToldElsewhere(1)

    def _of_gone(self, ranks: list[int]) -> RunStopped:
        which = f"process {ranks[0]}" if len(ranks) == 1 else f"processes {listed(ranks)}"
        return RunStopped(
            f"{which} of {self.size} {'is' if len(ranks) == 1 else 'are'} gone, in step {self.step}: killed, out of "
            "memory, or its machine is not there any more. The others have stopped; `rawrec resume RUN` goes on from "
            "the last checkpoint, with any number of processes"
        )

    def leave(self, seconds: float) -> None:
        """The last thing that a process does with the others. The first one may hold the store: it stays until the
        others have read there how all ended, at most so long; not for those of whom it knows that they are gone."""
        with suppress(RuntimeError):
            self.note("left")
            until = time.monotonic() + seconds
            while self.first and time.monotonic() < until:
                alive = range(self.size)
                if self._known("lost")[:1] == [0]:
                    alive = {*self._known("lost"), *self._known("failed")}
                if {*alive} <= {*self._known("left")}:
                    return
                time.sleep(LOOK)

    # ------------------------------------------------------------------------------------------------------ alike?
    def agree(self, about: Mapping[str, Any]) -> None:
        """UserError, in every process, where one was given something else than the first: versions, settings, data."""
        mine = {name: json.dumps(value, sort_keys=True, default=str) for name, value in about.items()}
        theirs = [json.loads(text) for text in self.texts(json.dumps(mine))]
        for rank, other in enumerate(theirs):
            names = [name for name in {**theirs[0], **other} if theirs[0].get(name) != other.get(name)]
            if names:
                shown = several((f"{name}: {other.get(name)} instead of {theirs[0].get(name)}" for name in names), "; ")
                raise UserError(f"process {rank} of {self.size} differs from process 0 in {shown}: start all alike")


class FollowedRun(RunFolder):
    """A run folder as the processes beside the first one have it: they read it, and write nothing."""

    def write_config(self, cfg: Any) -> None: ...
    def write_info(self, **values: Any) -> None: ...
    def append_metrics(self, line: dict[str, Any]) -> None: ...
    def keep_metrics(self, lines: int) -> None: ...
    def log(self, text: str) -> None: ...
    def prepare(self) -> None: ...
    def withdraw(self) -> None: ...

    def settle(self) -> None:
        self.begun = True


def _number(error: BaseException) -> int:
    return error.number if isinstance(error, Ended | RunInterrupted) else signal.SIGINT


def _lost(error: BaseException | None) -> bool:
    """Whether an exchange did not come about, also where a signal has ended what was done about it."""
    while error is not None and not isinstance(error, Lost):
        error = error.__cause__ or error.__context__
    return error is not None


def by_loss_of_another(error: BaseException) -> bool:
    """Whether what ended this process is that another one has failed, or is gone."""
    return _lost(error)


def _said(error: BaseException) -> str:
    return refused_by_system(error) or str(error) or type(error).__name__


def _silent(error: BaseException) -> BaseException:
    """For a process that the first one speaks for. An error that is a bug is shown where it is."""
    if isinstance(error, KeyboardInterrupt):
        return ToldElsewhere(128 + _number(error))
    if isinstance(error, UserError):
        return ToldElsewhere(2)
    return ToldElsewhere(1) if isinstance(error, RunStopped) or refused_by_system(error) else error


def _leave() -> None:
    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group()


_store: Store | None = None
"""Where the processes meet, for as long as they live."""
_joined = 0  # how often they have


@contextmanager
def joined() -> Iterator[World]:
    """Inside, this process is one of those that were started together; alone, where it was not.

    An error that ends one of them ends all, and is told once.
    """
    if not started():
        yield ALONE
        return
    ours = not dist.is_initialized()  # else it was by the program around us
    world, seconds = _meet(), GONE
    try:
        yield world
        if world.first:
            world.note("done")
        else:
            world.follow("done")
        seconds = MEETING.total_seconds()
    except BaseException as error:
        told = world.told(error)
        if told is error:
            raise
        raise told from error
    finally:
        if ours:
            _leave()
        world.leave(seconds)


def _meet() -> Ranks:
    missing = [name for name in NAMES if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"this process was started as one of {os.environ['WORLD_SIZE']} (WORLD_SIZE), but {listed(missing)} "
            "is not in the environment: start it by torchrun, or with train.processes=N"
        )
    global _store, _joined
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        if _store is None:
            _store, _, _ = next(rendezvous("env://", timeout=MEETING))
        _joined += 1
        store = PrefixStore(f"rawrec/{os.environ.get(RESTARTS, '0')}/{_joined}", _store)
        world = Ranks(store, rank, size)
        world.note("here")
        until = time.monotonic() + MEETING.total_seconds()
        while len(here := world._known("here")) < size:
            if time.monotonic() > until:
                absent = [str(other) for other in range(size) if other not in here]
                raise UserError(
                    f"of {size} processes {listed(absent)} did not come to {place} within "
                    f"{MEETING.total_seconds():.0f} s"
                )
            time.sleep(LOOK)
        if not dist.is_initialized():
            backend, group = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", PrefixStore("group", store)
            dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=PATIENCE)
    except RuntimeError as error:
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise UserError(
                f"port {os.environ['MASTER_PORT']} (MASTER_PORT), at which the processes are to meet, is in use on "
                "this machine: choose another one; train.processes=N finds a free one"
            ) from None
        raise UserError(
            f"process {rank} of {size} did not meet the others at {place} (MASTER_ADDR, MASTER_PORT): "
            f"{str(error).splitlines()[0]}"
        ) from None
    return world


def versions() -> dict[str, str]:
    """What all processes must have in common of what is installed."""
    return {"rawrec": __version__, "torch": torch.__version__}


def about(cfg: Config | FinetuneConfig, data: Dataset) -> dict[str, Any]:
    """What all processes of a run must have in common."""
    settings = {name: value for name, value in flatten(cfg.dump()) if name not in OWN}
    return {**versions(), "dataset": data.fingerprint(), "dataset version": data.version, **settings}


OWN = ("train.threads", "train.device")
"""Settings that a process has for itself."""


def check_shared(cfg: Config, world: World) -> None:
    """UserError where the settings do not let several processes train the model."""
    if not world.several:
        return
    if cfg.train.batch_size < world.size:
        raise UserError(
            f"{world.size} processes share a batch, and train.batch_size={cfg.train.batch_size} has fewer samples: "
            "raise it, or start fewer"
        )
    if cfg.retrieval:
        if not retrieval_model(cfg.model.name).shares_batches:
            raise UserError(
                f"model {cfg.model.name} is made of all interactions at once, of which several processes have no "
                f"share each: train it in one; {listed(sharing())} and rankers take several"
            )
        return
    for name in ("activation", "attention_activation"):
        if getattr(cfg.model, name, None) == "dice":
            raise UserError(
                f"model.{name}=dice standardises by statistics of a batch, which several processes have in parts: use "
                f"model.{name}=prelu, or one process"
            )


def sharing() -> list[str]:
    """The retrieval models that several processes may train."""
    return [name for name in RETRIEVAL if retrieval_model(name).shares_batches]
