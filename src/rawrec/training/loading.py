"""What a finished run trained, from its folder: the task, with its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rawrec.config import Config
from rawrec.content.caches import Cache
from rawrec.content.encoders import JOINT
from rawrec.content.later import changed
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.reading import check_names, check_tensors, damaged
from rawrec.training import state as checkpoint
from rawrec.training.device import choose_device
from rawrec.training.records import Published
from rawrec.training.runs import RunFolder, not_finished
from rawrec.training.tasks.base import FORMAT, Task
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.pairs import PairTask
from rawrec.training.tasks.sequences import SequenceTask

Make = Callable[[Config, Dataset, Cache], ImpressionTask | PairTask]


def load_task(
    run: RunFolder, data: Dataset | str | Path | None = None, device: str | None = None, make: Make | None = None
) -> ImpressionTask | PairTask:
    """What a finished run trained, with its weights and a fresh bank. make: another task of the same model. Else its
    encoders may be made later, when they are asked for first, see `content/later.py`."""
    if not run.info()["finished"]:
        raise UserError(f"{run.path} {not_finished(run.path)}")
    run.check_whole("model.safetensors")
    cfg = run.config()
    if device is not None:
        choose_device(device, "device")
        cfg.train.device = device
    found = run.dataset(data)
    cache = run.cache_of(found)
    task = make(cfg, found, cache) if make else task_of(cfg)(cfg, found, cache, known=run.info().get("encoders"))
    same_encoders(run, task)
    path = run.path / "model.safetensors"
    info = run.info()
    run.check_file(path.name, info)
    tensors, state = checkpoint.load(path, Published, summed=path.name not in info["files"])
    if state["format"] != FORMAT:
        raise UserError(
            f"{path} has format {state['format']}, and this version of rawrec reads {FORMAT}: use the version that "
            "made the run (its environment.json names it), or update rawrec"
        )
    if state["model"] != cfg.label:
        raise UserError(
            f"{path} is of the model {state['model'][:60]!r}, and the run of {cfg.label}: it is not its own"
        )
    with damaged(path, ". Train again"):
        try:
            task.load_published(tensors, state["step"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        own, found = task.published(), {task.name_now(name): value for name, value in tensors.items()}
        check_names(own, found, path, "the model of this run")
        check_tensors(own, found, path)
    return task


def same_encoders(run: RunFolder, task: Task) -> None:
    """UserError where the weights in an encoder's folder are not those that the run began with."""
    for what, begun in run.info().get("encoders", {}).items():
        now = task.digests.get(what)
        if now is not None and now["digest"] != begun["digest"] and _is_folder(now["encoder"]):
            raise UserError(changed(now["encoder"], what, run.path.name))


def _is_folder(encoder: str | None) -> bool:
    return Path(str(encoder).removeprefix(JOINT)).is_dir()


def task_of(cfg: Config) -> type[ImpressionTask] | type[PairTask]:
    if not cfg.retrieval:
        return ImpressionTask
    return SequenceTask if cfg.model.reads_sequences else PairTask
