"""`rawrec train --on ray`: the processes of a run as workers of Ray Train, on whatever machines a cluster has.

Ray places the workers and starts them again where one dies; what they do is what processes of `torchrun` do
(`ranks.py`). A run that is started again goes on from its own last checkpoint, so that the run folder must be where all
machines see it. What the workers say and how they end comes back by an actor of Ray's, `Told`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rawrec.arguments import COUNT, checked
from rawrec.errors import RunStopped, ToldElsewhere, UserError, in_a_line, refused_by_system
from rawrec.files import remove
from rawrec.ray_cluster import cluster
from rawrec.remote import address_of, refuse
from rawrec.threads import count as cores
from rawrec.training.runs import RunFolder

RESTARTS = 3
LOOK = 0.2  # seconds between looks at what the workers have said


class Told:
    """What all workers of a run have said: lives in a process of its own, as an actor of Ray's."""

    def __init__(self) -> None:
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._ends: list[dict[str, Any]] = []
        self._begun = 0

    def begin(self) -> int:
        """How often the first worker has begun before."""
        self._begun, self._ends = self._begun + 1, []
        return self._begun - 1

    def say(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        self._events += events

    def end(self, **how: Any) -> None:
        self._ends.append(how)

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        found, self._events = self._events, []
        return found

    def ends(self) -> list[dict[str, Any]]:
        return self._ends


@checked(workers=COUNT)
def train_on_ray(
    model: str,
    data: str | Path,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    observer: Callable[..., None] | None = None,
    *,
    workers: int = 2,
    address: str | None = None,
    restarts: int | None = None,
    log: Sequence[str] = (),
) -> RunFolder:
    """`rawrec.train` by so many workers of Ray; the finished run.

    model: a name or the path of a file. data, out: folders that all machines see under these paths. address: of a
    cluster, see `ray_cluster.cluster`; None: a Ray on this machine. restarts: how often a run whose worker has died is
    started again, from its last checkpoint (default: 3). log: trackers, as of `rawrec train --log`. Raises as `train`
    does, told once, and UserError where Ray is not installed, is not there, or has too few processors.

    >>> train_on_ray("em3", "data/ml", "runs/em3", workers=8, address="auto")
    """
    given = dict(overrides or {})
    if given.get("train.processes") not in (None, workers):
        raise UserError(f"train.processes={given['train.processes']} beside --workers {workers}: leave it out")
    given.pop("train.processes", None)
    refuse(out, "a run of several workers")
    out = Path(out).absolute()
    task = {
        "model": str(Path(model).absolute()) if Path(model).suffix in (".yaml", ".yml") else model,
        "data": address_of(data) or str(Path(data).absolute()),
        "out": str(out),
        "overrides": given,
        "overwrite": overwrite,
        "log": list(log),
        "folder": str(Path.cwd()),
        "threads": max(1, cores() // workers),
    }
    with cluster(address, workers) as ray:
        told = ray.remote(Told).options(num_cpus=0).remote()
        stop = threading.Event()
        ear = threading.Thread(target=_listen, args=(ray, told, observer, stop), daemon=True, name="rawrec-told")
        ear.start()
        try:
            failed = _fit(ray, told, task, workers, RESTARTS if restarts is None else restarts)
            _judge(ray.get(told.ends.remote()), failed)
        finally:
            stop.set()
            ear.join()
            with suppress(Exception):
                ray.kill(told)
    return RunFolder.open(out)


def _listen(ray: Any, told: Any, observer: Callable[..., None] | None, stop: threading.Event) -> None:
    """Hand on to the observer what the workers tell, until all is told."""
    over = False
    while not over:
        over = stop.wait(LOOK)
        with suppress(ray.exceptions.RayError):
            for event, values in ray.get(told.events.remote(), timeout=30):
                if observer is not None:
                    observer(event, **values)


def _fit(ray: Any, told: Any, task: dict[str, Any], workers: int, restarts: int) -> str | None:
    """Train by Ray Train; what it says where it gave up."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig  # pyright: ignore[reportMissingImports]
    from ray.train.torch import TorchTrainer  # pyright: ignore[reportMissingImports]

    out = Path(task["out"])
    graphics = int(ray.cluster_resources().get("GPU", 0)) >= workers
    own = out.with_name(f".{out.name}.ray")  # where Ray keeps how far it is
    made = not out.parent.exists()
    try:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"task": task, "told": told},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=graphics),
            run_config=RunConfig(
                name="run",
                storage_path=str(own),
                failure_config=FailureConfig(max_failures=restarts, controller_failure_limit=2),
            ),
        )
        trainer.fit()
    except OSError:
        raise
    except Exception as error:
        return in_a_line(error)
    finally:
        remove(own)
        if made:
            with suppress(OSError):
                out.parent.rmdir()  # where the run could not begin, nothing is left
    return None


def _judge(ends: list[dict[str, Any]], failed: str | None) -> None:
    """Raise what has ended the run, if it has not finished: what one of the workers was to tell, or else Ray."""
    for kind, error in (("refused", UserError), ("stopped", RunStopped)):
        if said := [end["text"] for end in ends if end["how"] == kind]:
            raise error(said[0])
    if failed is not None or not any(end["how"] == "finished" for end in ends):
        raise RunStopped(
            f"Ray has given up: {failed or 'its workers ended without a word'}. `rawrec resume RUN` goes on from the "
            "last checkpoint, if there is one"
        )


# ------------------------------------------------------------------------------------------------------- in the workers
def _worker(config: dict[str, Any]) -> None:
    """What each worker does: it meets the others as a process of `torchrun` would, and trains."""
    import ray  # pyright: ignore[reportMissingImports]
    import torch.distributed as dist

    from rawrec.training.ranks import RESTARTS as COUNT_OF_RESTARTS
    from rawrec.training.ranks import by_loss_of_another

    task, told = config["task"], config["told"]
    with suppress(OSError):
        os.chdir(task["folder"])
    rank = dist.get_rank()
    shared: list[Any] = [None]
    if rank == 0:
        shared = [(ray.util.get_node_ip_address(), _free_port(), ray.get(told.begin.remote()))]
    dist.broadcast_object_list(shared, 0)
    size = dist.get_world_size()
    dist.destroy_process_group()  # ours has other backends and limits, and a store that we look into
    host, port, before = shared[0]
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR=host, MASTER_PORT=str(port))
    os.environ.update({COUNT_OF_RESTARTS: str(before)})
    end: dict[str, Any] = {"how": "finished", "text": ""}
    try:
        _train(task, told if rank == 0 else None, alone_again=before > 0 and size == 1)
    except ToldElsewhere as error:
        end = {"how": "elsewhere", "text": str(error)}
    except UserError as error:
        end = {"how": "refused", "text": str(error)}
    except RunStopped as error:
        end = {"how": "stopped", "text": str(error)}
        if by_loss_of_another(error):
            ray.get(told.end.remote(rank=rank, **end))
            raise
    except Exception as error:
        why = refused_by_system(error)
        ray.get(told.end.remote(rank=rank, how="stopped", text=why or in_a_line(error)))
        raise
    ray.get(told.end.remote(rank=rank, **end))


def _train(task: Mapping[str, Any], told: Any, alone_again: bool) -> None:
    from rawrec.training.job import resume, train
    from rawrec.training.trackers import tracker

    given = dict(task["overrides"])
    given.setdefault("train.threads", task["threads"])
    said = None if told is None else _Telling(told)
    callbacks = [] if told is None else [tracker(word) for word in task["log"]]
    try:
        if alone_again and (Path(task["out"]) / "run.json").is_file():
            resume(task["out"], said, callbacks=callbacks)
            return
        train(task["model"], task["data"], task["out"], given, task["overwrite"], said, callbacks=callbacks)
    finally:
        if said is not None:
            said.flush()


class _Telling:
    """An observer that tells another process, a few times a second at most."""

    def __init__(self, told: Any) -> None:
        self._told, self._waiting, self._last = told, list[tuple[str, dict[str, Any]]](), 0.0

    def __call__(self, event: str, **values: Any) -> None:
        if event == "step":  # whose other values are of this process alone
            values = {"samples": values["samples"], "loss": float(values["loss"])}
        before = self._waiting[-1] if self._waiting else ("", {})
        if event == before[0] == "step":
            values["samples"] += before[1]["samples"]
            self._waiting[-1] = (event, values)
        else:
            self._waiting.append((event, values))
        if time.monotonic() - self._last > LOOK:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self._told.say.remote(self._waiting)
            self._waiting, self._last = [], time.monotonic()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]
