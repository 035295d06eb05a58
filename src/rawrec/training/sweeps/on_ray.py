"""The runs of a sweep as tasks of Ray: each is the process that it is without Ray, on whichever machine has room."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rawrec.errors import in_a_line
from rawrec.ray_cluster import cluster
from rawrec.training.processes import Outcome, Start, run_of, threads_of

K = TypeVar("K")
LOOK = 0.5  # seconds at most until a run that has ended is noticed


def make_runs_on_ray(
    jobs: int, address: str | None, more: Callable[[], Start[K] | None], ended: Callable[[K, Outcome], None]
) -> None:
    """`processes.make_runs` by tasks of Ray, a processor each. The sweep's folder is one that all machines see."""
    with cluster(address, jobs, "runs at the same time") as ray:
        work = ray.remote(run_of).options(num_cpus=1, max_retries=0, retry_exceptions=False)
        going: dict[Any, Start[K]] = {}
        try:
            while True:
                while len(going) < jobs and (start := more()) is not None:
                    going[work.remote(start._replace(key=None), threads_of(jobs), str(Path.cwd()))] = start
                if not going:
                    return
                for done in ray.wait(list(going), num_returns=1, timeout=LOOK)[0]:
                    start = going.pop(done)
                    ended(start.key, _outcome(ray, done))
        finally:
            for left in going:
                with suppress(Exception):
                    ray.cancel(left, force=True)


def _outcome(ray: Any, done: Any) -> Outcome:
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:  # its machine is gone, or has no memory left
        return Outcome("died", in_a_line(error))
