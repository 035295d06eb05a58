"""From settings and a dataset to a finished run folder: `train`, `finetune`, `resume`, `evaluate`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rawrec.arguments import CALLABLE, checked, optional, shown
from rawrec.config import Config
from rawrec.config.finetune import FinetuneConfig, finetune_config
from rawrec.content.encoders import known_or_whole
from rawrec.data.dataset import Dataset
from rawrec.errors import NeedsProcesses, RunInterrupted, UserError
from rawrec.extras import install, there
from rawrec.files import filling
from rawrec.progress import watching
from rawrec.remote import address_of, origin
from rawrec.threads import computing
from rawrec.training import changing, ending, published
from rawrec.training import state as checkpoint
from rawrec.training.callbacks import Callback, Callbacks, TensorBoard
from rawrec.training.configuring import configure
from rawrec.training.evaluate import TopKResult, evaluate_part
from rawrec.training.loading import load_task, same_encoders, task_of
from rawrec.training.loop import Loop
from rawrec.training.masking import masked
from rawrec.training.ranks import FollowedRun, about, check_shared, joined
from rawrec.training.runs import RunFolder, Settings, running
from rawrec.training.tasks.base import PARTS, Task
from rawrec.training.tasks.catalogue import CatalogueTask
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.pairs import PairTask
from rawrec.training.turns import one_training
from rawrec.training.warm_start import warm_start
from rawrec.training.watching import chunks_told, watched
from rawrec.world import ALONE, World


@checked(observer=optional(CALLABLE))
def train(
    preset: str | Path | Mapping[str, Any] | Config,
    data: Dataset | str | Path,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    observer: Any = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunFolder:
    """Train a model on a dataset into the run folder `out`, evaluate it once on test, and return the run.

    preset: name of a preset, path of a YAML file, nested settings or a `Config`. overrides: `{"train.epochs": 5}`.
    observer: told of progress, see `Loop`. progress: whether it is shown on stderr; None: in a terminal or a notebook,
    where there is no observer. callbacks: told of steps and epochs by records, see `Callback`. Raises UserError for a
    mistake in settings or data, RunStopped where training diverges, RunInterrupted where a signal ends it, OSError
    where the disk is full or read-only. A run that cannot begin leaves nothing behind. One thread of a process trains
    at a time; others may use recommenders meanwhile, and change nothing of what is trained.

    >>> run = rawrec.train("em3", data="data/ml", out="runs/em3", overrides={"train.epochs": 5})
    >>> run.path
    """
    if (address := address_of(out)) is not None:

        def there(folder: Path, calls: Sequence[Callback]) -> RunFolder:
            return train(preset, data, folder, overrides, True, observer, progress, calls)

        return published.begin(address, there, callbacks, overwrite)
    with joined() as world:
        data = data if isinstance(data, Dataset) else Dataset.open(data)
        _check_interactions(data)
        cfg = configure(preset, data, overrides or {})
        _check_processes(cfg, world)
        with watching(observer, progress) if world.first else nullcontext() as told:
            how = _How(fresh=True, callbacks=callbacks, world=world)
            if world.restarted and (Path(out) / "run.json").is_file():
                return _go_on(_opened(out, world), told, data, how._replace(fresh=False))
            return _begin(out, cfg, data, overwrite, told, how)


def _check_interactions(data: Dataset) -> None:
    if not data.n_interactions:
        raise UserError(
            f"{data.path} is a catalogue without interactions, which no model can learn from; it serves rawrec "
            "finetune and rawrec encode, or give it interactions: rawrec append"
        )


@checked(observer=optional(CALLABLE))
def finetune(
    data: Dataset | str | Path,
    encoder: str | Path,
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    observer: Any = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunFolder:
    """Tune an encoder of pictures and texts on a dataset's own pairs; `out` is a run folder and the new encoder's.

    encoder: a folder or hub name of CLIP and its kin, of VLMo, `pair:IMAGE+TEXT`, or what this made before. settings:
    of `FinetuneConfig`. observer, progress, callbacks: as of `train`. Raises as `train` does; `resume` goes on with it.

    >>> rawrec.finetune("data/ml", "pair:efficientnet_lite0+minilm", out="encoders/ml", settings={"train": "top:2"})
    """
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    given = dict(settings or {})
    cfg = finetune_config({"encoder": _whole(str(encoder)), **given}, given)
    target = Path(out).absolute().resolve()
    for name in cfg.encoder.removeprefix("pair:").split("+"):
        if Path(name).is_dir() and target in (Path(name).resolve(), *Path(name).resolve().parents):
            raise UserError(f"--out {out} holds the encoder {name}, which is read: choose another folder")
    with watching(observer, progress) as told:
        return _begin(out, cfg, data, overwrite, told, _How(fresh=True, callbacks=callbacks))


def _whole(encoder: str) -> str:
    """The name of an encoder, folders in full: a run may be resumed from another place."""
    prefix = "pair:" if encoder.startswith("pair:") else ""
    names = encoder.removeprefix("pair:").split("+") if prefix else [encoder]
    return prefix + "+".join(known_or_whole(name) for name in names)


def _begin(out: str | Path, cfg: Settings, data: Dataset, overwrite: bool, observer: Any, how: _How) -> RunFolder:
    world = how.world
    world.agree({**about(cfg, data), "out": str(Path(out).absolute())})
    with one_training(), running(out) if world.first else nullcontext():
        if world.first:
            run = RunFolder.create(out, cfg, data, overwrite)
            world.note("created")
        else:
            world.follow("created")
            run = FollowedRun(Path(out).absolute())
        try:
            return _work(run, cfg, data, observer, how)
        except Exception as error:
            if not run.begun or (isinstance(error, UserError) and not (run.path / "checkpoint").is_dir()):
                run.withdraw()
            raise
        except RunInterrupted:
            raise
        except KeyboardInterrupt as error:
            if run.begun:  # while another error was on its way, as where one of several processes is gone
                raise
            raise ending.not_begun(run, error) from error


def _opened(path: str | Path, world: World) -> RunFolder:
    return (RunFolder if world.first else FollowedRun).open(path)


def _check_processes(cfg: Settings, world: World) -> None:
    """UserError where the model cannot be trained by so many processes; `NeedsProcesses` where they are not there."""
    if isinstance(cfg, FinetuneConfig):
        if world.several:
            raise UserError("rawrec finetune trains in one process: start it without torchrun")
        return
    wanted = cfg.train.processes
    if wanted is not None and wanted != world.size:
        if world.several:
            raise UserError(
                f"train.processes={wanted}, but {world.size} processes were started (WORLD_SIZE): leave the setting out"
            )
        if wanted > 1:
            raise NeedsProcesses(wanted)
    check_shared(cfg, world)


@checked(observer=optional(CALLABLE))
def resume(
    path: str | Path,
    observer: Any = None,
    data: Dataset | str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunFolder:
    """Go on with a run from its last checkpoint, exactly as if it had never stopped, or as if `overrides` had been its
    settings from the beginning. A finished run stays as it is, unless `finish` has cut it short or `overrides` lets it
    go on.

    data: where the dataset is now, if it has moved. observer, progress, callbacks: as of `train`. overrides: of
    `changing.CHANGEABLE`; they are kept in `config.yaml` and told in `run.json` (`changed`). Raises UserError for other
    settings, and where the run would not go on.

    >>> rawrec.resume("runs/em3")
    >>> rawrec.resume("runs/em3", overrides={"train.epochs": 30})
    """
    if (address := address_of(path)) is not None:

        def there(folder: Path, calls: Sequence[Callback]) -> RunFolder:
            return resume(folder, observer, data, overrides, progress, calls)

        return published.go_on(address, there, callbacks)
    with joined() as world:
        run = _opened(path, world)
        if _rests(run) and not overrides:
            return run
        with watching(observer, progress) if world.first else nullcontext() as told:
            return _go_on(run, told, data, _How(callbacks=callbacks, world=world), overrides or {})


def _rests(run: RunFolder) -> bool:
    """Whether a run is done: finished, not cut short, and all that it has made is there."""
    info = run.info()
    return bool(info["finished"]) and not info.get("cut_short") and not run.lacks()


@checked(observer=optional(CALLABLE))
def finish(
    path: str | Path,
    observer: Any = None,
    data: Dataset | str | Path | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunFolder:
    """End a run that was stopped, as it stands: the weights of its best epoch so far, content made anew, one evaluation
    of test. `run.json` says `cut_short`. A finished run stays as it is.

    data: where the dataset is now, if it has moved. observer, progress, callbacks: as of `train`. Raises UserError
    where no epoch was finished and kept.

    >>> rawrec.finish("runs/em3")
    """
    if (address := address_of(path)) is not None:

        def there(folder: Path, calls: Sequence[Callback]) -> RunFolder:
            return finish(folder, observer, data, progress, calls)

        return published.go_on(address, there, callbacks)
    run = RunFolder.open(path)
    if run.info()["finished"] and not run.lacks():
        return run
    with watching(observer, progress) as told:
        return _go_on(run, told, data, _How(train=False, callbacks=callbacks))


class _How(NamedTuple):
    """fresh: a run that has just been made. train: to its end, or is it ended as it stands? changes: see `changing`.
    callbacks: beside TensorBoard's. world: the processes that train it."""

    fresh: bool = False
    train: bool = True
    changes: Mapping[str, list[Any]] = {}
    callbacks: Sequence[Callback] = ()
    world: World = ALONE


def _go_on(
    run: RunFolder, observer: Any, data: Dataset | str | Path | None, how: _How, overrides: Any = None
) -> RunFolder:
    world = how.world
    with one_training(), running(run.path) if world.first else nullcontext():
        found = run.dataset(data)
        finished = run.info()["finished"]
        if finished and ending.kept_of(run) is None:
            run.check_whole()
        if not how.train and not finished:
            ending.check_finish(run)
        cfg, changes = changing.changed(run, overrides or {})
        if how.train:
            _check_processes(cfg, world)
        world.agree({**about(cfg, found), "run": str(run.path)})
        done = _rests(run) if how.train else finished and not run.lacks()
        if done and not changes:  # by another process, since, or the settings are what they were
            return run
        run.write_info(dataset=origin(found.path))
        try:
            return _work(run, cfg, found, observer, how._replace(changes=changes))
        except RunInterrupted:
            raise
        except KeyboardInterrupt as error:
            raise ending.not_resumed(run, error) from error


@checked(observer=optional(CALLABLE))
def evaluate(
    path: str | Path,
    split: str = "test",
    full_ranking: bool | None = None,
    data: Dataset | str | Path | None = None,
    observer: Any = None,
    *,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """The metrics of a finished run on a part of its data, `valid` or `test`, computed anew.

    full_ranking: lists over the whole catalogue as well; None: as the run's settings say (a retrieval model has no
    other metrics). data: where the dataset is now, if it has moved. observer: told of progress, see `Task.observe`.
    without: as if no item had these, `image`, `text` or names of fields; see `training/masking.py`. UserError where the
    model reads none of them.

    >>> rawrec.evaluate("runs/em3", "valid")["auc"]
    >>> rawrec.evaluate("runs/em3", without=["image"])["auc"]
    """
    run = RunFolder.open(path)
    if split not in PARTS:
        raise UserError(f"split={shown(split)}: use valid or test")
    task = load_task(run, data)
    task.observe = observer or task.observe
    with masked(task, without) if without else nullcontext():
        metrics, lists = _judged(task, split, full_ranking)
    if lists is None:
        return metrics
    for text in lists.told(task.data, split, task.cfg.eval.topk):
        task.observe("note", text=text, loud=True)
    return metrics | lists.metrics


def _judged(
    task: ImpressionTask | PairTask, split: str, full_ranking: bool | None
) -> tuple[dict[str, Any], TopKResult | None]:
    """Metrics of impressions, and lists, as far as they are asked for."""
    if isinstance(task, PairTask):
        return {}, task.evaluate(PARTS[split])
    metrics, _, _ = evaluate_part(task, PARTS[split], task.cfg.seed)
    listed = task.cfg.eval.full_ranking if full_ranking is None else full_ranking
    return metrics, task.lists.evaluate(split) if listed else None


def _work(run: RunFolder, cfg: Settings, data: Dataset, observer: Any, how: _How) -> RunFolder:
    threads = cfg.threads if isinstance(cfg, FinetuneConfig) else cfg.train.threads
    with computing(threads), filling(run.path):
        return _train(run, cfg, data, observer, how)


def _train(run: RunFolder, cfg: Settings, data: Dataset, observer: Any, how: _How) -> RunFolder:
    started = time.perf_counter()
    run.prepare()
    strict: Any = torch.utils.deterministic
    before = run.info()["seconds"]
    mode, filling = torch.get_deterministic_debug_mode(), strict.fill_uninitialized_memory
    world = how.world
    board = [TensorBoard()] if there("tensorboard") and world.first else []
    hears = Callbacks([*board, *how.callbacks] if world.first else [], run.path)
    hears.note = run.log
    observe = watched(run, observer or (lambda event, **values: None), hears)
    if not board and world.first:
        observe("note", text=f"no curves for TensorBoard, which is not installed: {install('tensorboard')}")
    loop: Loop[Any] | None = None
    try:
        torch.set_deterministic_debug_mode("warn")
        strict.fill_uninitialized_memory = False  # it finds bugs, and costs a fifth of an epoch
        loop = _loop(run, cfg, data, observe, how)
        hears.start(cfg, data.path, loop.progress)
        try:
            if how.train:
                _to_the_end(loop)
            stand = run.tables()
            loop.finish()
            if world.first:
                run.remove_stale(stand)
        except KeyboardInterrupt as error:
            if isinstance(error, RunInterrupted) or (not run.begun and how.fresh):
                raise
            raise ending.stopped(run, error, loop.progress, loop.kept, loop.schedule.epochs) from error
    except BaseException as error:
        hears.failed(error, loop.progress if loop else checkpoint.Progress())
        raise
    finally:
        run.write_info(seconds=before + time.perf_counter() - started)
        torch.set_deterministic_debug_mode(mode)
        strict.fill_uninitialized_memory = filling
    run.settle()
    if not world.first:
        return run
    state = loop.progress
    short = None if state.finished else {"epochs": state.epoch, "of": loop.schedule.epochs}
    run.write_info(files=run.sums(), finished=True, best_epoch=state.best_epoch, steps=state.step, cut_short=short)
    run.log(f"finished, cut short after {state.epoch} of {loop.schedule.epochs} epochs" if short else "finished")
    hears.end("finished", state, "")
    return run


def _loop(run: RunFolder, cfg: Settings, data: Dataset, observe: Any, how: _How) -> Loop[Any]:
    """The loop of a run, where it begins or where its last checkpoint stands."""
    last = run.path / "checkpoint" / "last.safetensors"
    goes_on = not how.fresh and last.is_file()
    world = how.world
    if not world.first:
        world.follow("prepared")  # so that what is encoded once is encoded by one of us
    task = _task(run, cfg, data, observe)
    if not goes_on and isinstance(task, ImpressionTask | PairTask) and task.cfg.train.init is not None:
        task.notes = [*task.notes, warm_start(task, run)]
    task.join(world)
    if world.first:
        world.note("prepared")
    loop = Loop(task, run, observe)
    files = run.info()["files"]
    run.write_info(files={})  # from here on they are others, until the run is finished
    if goes_on:
        try:
            loop.restore()
        except UserError:
            run.write_info(files=files)
            raise
    run.write_config(task.settings if isinstance(task, CatalogueTask) else task.cfg)
    if goes_on:
        changing.record(run, how.changes, loop.progress.epoch, loop.progress.step)
        if how.train and not loop.progress.finished:
            run.write_info(finished=False, cut_short=None)
        run.log(f"resumed at epoch {loop.progress.epoch + 1}, step {loop.progress.step}")
        return loop
    run.keep_metrics(0)
    run.log(f"training {cfg.label} on {data.path}")
    for note in loop.task.notes:
        run.log(note)
        observe("note", text=note)
    return loop


def _to_the_end(loop: Loop[Any]) -> None:
    """Train, or as far as a signal lets it where train.on_interrupt=finish."""
    try:
        loop.train()
    except RunInterrupted as stop:
        if loop.schedule.on_interrupt == "keep" or loop.kept is None or not loop.kept.best_epoch:
            raise
        note = f"{str(stop).splitlines()[0]}\ntrain.on_interrupt=finish: ending with epoch {loop.progress.best_epoch}"
        loop.observe("note", text=note)


def _task(run: RunFolder, cfg: Settings, data: Dataset, observe: Any) -> Task:
    """What is trained, before its first step; the run folder learns what it is of."""

    def progress(text: str, chunks: Any) -> Any:
        return chunks_told(observe, text, chunks)

    task: Task = (
        CatalogueTask(cfg, data, run.cache_of(data), progress)
        if isinstance(cfg, FinetuneConfig)
        else task_of(cfg)(cfg, data, run.cache_of(data), progress)
    )
    same_encoders(run, task)
    parameters = {key: sum(p.numel() for _, p in group) for key, group in task.parameter_groups().items()}
    run.write_info(parameters=parameters, media=task.stats, encoders=task.digests, loss_weights=dict(task.loss_weights))
    if isinstance(task, PairTask):
        run.write_info(paradigm=task.cfg.paradigm if task.reads_features else None)
    return task
