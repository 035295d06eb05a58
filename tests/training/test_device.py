"""Devices that a run may ask for; and that a run which cannot begin leaves no folder in the way."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from rawrec import Recommender, UserError, train
from rawrec.config import resolve
from rawrec.training import job, loading
from rawrec.training.device import choose_device, choose_precision
from rawrec.training.runs import RunFolder

OTHERS = [
    "mps",
    "xpu",
    "hip",
    "vulkan",
    "meta",
    "xla",
    "npu",
    "cpu:0",
    "cuda:",
    "cuda:-1",
    "cuda:x",
    "CPU",
    "",
    "tpu:1",
]
QUICK: dict[str, Any] = {"train.epochs": 1, "train.threads": 1, "eval.topk": [5], "train.device": "cpu"}


@pytest.mark.parametrize("name", OTHERS)
def test_other_devices_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=rf"train\.device='{name}': use auto, cpu, cuda"):
        choose_device(name)
    with pytest.raises(UserError, match=r"^train\.device=.*cuda:<n>"):
        resolve("id", {"train.device": name})


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda") and choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"train\.device='cuda:2': this machine has 2 GPUs"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="device='cuda': this machine has 0 GPUs"):
        choose_device("cuda", "device")


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) is None and choose_precision("bf16", cpu) == torch.bfloat16
    assert choose_precision("auto", cpu) in (None, torch.bfloat16)


def test_a_recommender_refuses_them_too(shop: Path, tmp_path: Path) -> None:
    run = train("id", shop, tmp_path / "run", QUICK)
    for device in ("mps", "meta", "cuda:99", 3):
        with pytest.raises(UserError, match=r"^device="):
            Recommender.load(run.path, device=device)  # type: ignore[arg-type]
    assert Recommender.load(run.path, device="cpu").recommend(user="u1", k=1)


# ------------------------------------------------------------------------------------------------ before the first step
class Failure(Exception):
    pass


def interrupt(event: str, **_: Any) -> None:
    if event == "step":
        raise KeyboardInterrupt


def broken(*_: Any, **__: Any) -> None:
    raise Failure


@pytest.mark.parametrize("model", ["id", "lightgcn"])
@pytest.mark.parametrize("where", ["task", "loop", "step"])
def test_a_run_that_cannot_begin_leaves_nothing(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, where: str
) -> None:
    """Whatever the error; and a run that it would have replaced is back in its place."""
    settings = QUICK | ({"train.metric": "recall@5"} if model == "lightgcn" else {})
    with monkeypatch.context() as patch:
        if where == "task":
            patch.setattr(loading, "PairTask" if model == "lightgcn" else "ImpressionTask", broken)
        else:
            patch.setattr(job.Loop, {"loop": "__init__", "step": "_step"}[where], broken)
        with pytest.raises(Failure):
            train(model, shop, tmp_path / "run", settings)
        assert not list(tmp_path.iterdir())
    path = train(model, shop, tmp_path / "run", settings).path
    whole = (path / "metrics.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(job.Loop, "_step", broken)
        with pytest.raises(Failure):
            train(model, shop, path, settings, overwrite=True)
    assert (path / "metrics.json").read_bytes() == whole and RunFolder.open(path).info()["finished"]
    assert list(tmp_path.iterdir()) == [path]


def test_one_run_at_a_time_in_a_folder(shop: Path, tmp_path: Path) -> None:
    """Who comes second hears so, whatever they ask for, and disturbs nothing; afterwards the folder is free."""
    path, heard = tmp_path / "deep" / "run", []
    (tmp_path / "link").symlink_to("deep", target_is_directory=True)

    def others(event: str, **values: object) -> None:
        if event == "step" and not heard:
            for again in (
                lambda: train("id", shop, path, QUICK, overwrite=True),
                lambda: train("id", shop, tmp_path / "link" / "run", QUICK, overwrite=True),
                lambda: job.resume(path),
            ):
                with pytest.raises(UserError, match=rf"another run is going on in {path} now") as caught:
                    again()
                heard.append(str(caught.value))

    train("id", shop, path, QUICK, observer=others)
    assert len(heard) == 3 and RunFolder.open(path).info()["finished"]
    assert [found.name for found in path.parent.iterdir()] == ["run"]
    train("id", shop, path, QUICK, overwrite=True)
    with pytest.raises(UserError, match="rawrec resume"):
        train("id", shop, path, QUICK)
    with pytest.raises(UserError):
        train("id", shop, tmp_path / "none" / "run", QUICK | {"data.label": "no"})
    assert not (tmp_path / "none").exists()


def test_a_run_where_nothing_can_be_locked(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("rawrec.files.Lock", refuse)
    assert train("id", shop, tmp_path / "run", QUICK).info()["finished"]


def test_a_run_that_has_begun_stays(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.Loop, "_end_of_epoch", broken)
    with pytest.raises(Failure):
        train("id", shop, tmp_path / "run", QUICK)
    assert not RunFolder.open(tmp_path / "run").info()["finished"]
    with pytest.raises(KeyboardInterrupt):  # an interruption is no error: the run can be gone on with
        train("id", shop, tmp_path / "other", QUICK, observer=interrupt)
    assert RunFolder.open(tmp_path / "other").config().train.epochs == 1


# ---------------------------------------------------------------------------------------------------- numbers too large
COUNTS = ["seed", "data.history", "data.negatives", "model.dim", "model.id_history", "content.dim", "train.threads"]
COUNTS += ["train.epochs", "train.batch_size", "eval.batch_size", "bank.live_budget"]


@pytest.mark.parametrize("setting", COUNTS)
@pytest.mark.parametrize("value", [2**64, 2**70, 10**30])
def test_numbers_that_no_array_can_have(setting: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"^{setting}={str(value)[:5]}"):
        resolve("em3", {setting: value})


@pytest.mark.parametrize(("setting", "value"), [("eval.topk", [5, 2**70]), ("model.hidden", [2**40])])
def test_lists_with_such_a_number(setting: str, value: list[int]) -> None:
    with pytest.raises(UserError, match=rf"^{setting}="):
        resolve("em3", {setting: value})


def test_retrieval_models_too() -> None:
    for setting in ("model.embedding_size", "model.n_layers", "model.train_batch_size"):
        with pytest.raises(UserError, match=setting):
            resolve("freedom" if "layers" not in setting else "lightgcn", {setting: 2**70})


def test_large_numbers_that_fit_are_taken(shop: Path, tmp_path: Path) -> None:
    cfg = resolve("id", {"seed": 2**63 - 1, "train.epochs": 2**31 - 1, "train.threads": 1024})
    assert (cfg.seed, cfg.train.epochs, cfg.train.threads) == (2**63 - 1, 2**31 - 1, 1024)
    train("id", shop, tmp_path / "run", QUICK | {"seed": 2**63 - 1, "eval.topk": [5, 65536]})
