"""`rawrec finetune`: an encoder learns from a catalogue's pairs, and is an encoder like any other afterwards."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from colours import colours
from safetensors.torch import load_file, save_file

import forked
import rawrec
from rawrec.config import FieldConfig
from rawrec.config.finetune import finetune_config
from rawrec.content.encoders import make_encoder
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.training import state as checkpoint
from rawrec.training.job import finetune, resume
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.catalogue import CatalogueTask
from systems import TIMES, Stop, stopping_after

PAIR = "pair:random:conv+random:bert"
SMALL: dict[str, Any] = {
    "size": 16, "max_length": 6, "batch_size": 32, "dim": 16, "warmup_steps": 10, "epochs": 2, "held_out": 0.2,
    "lr": 1e-3, "projection_lr": 3e-3, "threads": 1, "precision": "fp32", "checkpoint_share": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return colours(tmp_path_factory.mktemp("colours") / "data")


@pytest.fixture(scope="module")
def learned(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return finetune(data, PAIR, tmp_path_factory.mktemp("tuned") / "x", {**SMALL, "epochs": 14, "patience": 14})


def metrics(run: RunFolder) -> dict[str, Any]:
    return json.loads((run.path / "metrics.json").read_text())


def without_times(run: RunFolder) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in run.metrics_lines()]


# ------------------------------------------------------------------------------------------------------------- learning
def test_held_out_pairs_are_found(learned: RunFolder) -> None:
    """Combinations of colours that training never saw; chance is 0.25 among these 21."""
    found = metrics(learned)
    assert found["before"]["recall"] < 0.4 and found["valid"]["recall"] > 0.8
    assert found["valid"]["alignment"] < found["before"]["alignment"] - 0.5
    assert found["valid"]["pairs"] == 21
    lines = learned.metrics_lines()
    assert lines[-1]["loss/itc"] < 0.5 * lines[0]["loss/itc"]
    best = max(lines, key=lambda line: line["valid/recall"])
    assert found["valid"]["recall"] == best["valid/recall"], "the best epoch's weights are kept"
    assert "pairs: 89 to train on, 21 held out" in (learned.path / "log.txt").read_text()


def test_the_folder_is_an_encoder(learned: RunFolder, data: Dataset) -> None:
    """Features read from it are those that were measured: recall of the held-out pairs is the same."""
    run, files = learned, {file.name for file in learned.path.iterdir()}
    assert {"config.json", "model.safetensors", "run.json", "metrics.jsonl"} <= files
    assert not any(file.suffix in (".bin", ".pt", ".pkl") for file in run.path.rglob("*"))
    cfg = run.settings()
    task = CatalogueTask(cfg, data, run.cache_of(data))  # type: ignore[arg-type]
    rows = task.pairs.valid.tolist()
    image, text = (make_encoder(kind, FieldConfig(encoder=str(run.path)), 5) for kind in ("image", "text"))
    assert image.width == text.width == 16
    x = torch.nn.functional.normalize(image.encode(data.images("front", rows)), dim=1)
    y = torch.nn.functional.normalize(text.encode(data.texts("title", rows)), dim=1)
    found = float(((x @ y.T).argmax(1) == torch.arange(len(rows))).double().mean())
    assert found == pytest.approx(metrics(run)["valid"]["image_to_text/recall@1"], abs=1 / 21)
    for train in ("top:1", "all", "lora"):
        trained = make_encoder("image", FieldConfig(encoder=str(run.path), train=train), 0, torch.float32)
        again = torch.nn.functional.normalize(trained.encode(data.images("front", rows)), dim=1)
        torch.testing.assert_close(again, x, rtol=1e-3, atol=1e-3)
        assert trained.trained_parameters()


def test_a_model_uses_it_and_remembers_its_weights(learned: RunFolder, data: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(learned.path, folder)
    overrides = {"content.item.encoder": str(folder), "train.epochs": 1, "train.threads": 1}
    run = rawrec.train("vbpr", data, tmp_path / "run", overrides)
    known = run.info()["encoders"]
    assert known.keys() == {"front", "title"} and all(one["encoder"] == str(folder) for one in known.values())
    rawrec.evaluate(run.path)
    weights = load_file(folder / "model.safetensors")
    weights["image_projection.bias"] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"the weights of the encoder .*encoder \(front\) have changed since the run"):
        rawrec.evaluate(run.path)


def test_a_tuned_pair_may_be_tuned_again(learned: RunFolder, data: Dataset, tmp_path: Path) -> None:
    settings = {key: value for key, value in SMALL.items() if key != "dim"}
    run = finetune(data, learned.path, tmp_path / "again", {**settings, "lr": 1e-6, "epochs": 1})
    before, after = metrics(learned)["valid"], metrics(run)["before"]
    assert after["recall"] == pytest.approx(before["recall"], abs=1e-6)
    assert after["temperature"] == pytest.approx(before["temperature"])
    assert make_encoder("text", FieldConfig(encoder=str(run.path)), 0).width == 16


def test_maps_may_learn_alone(data: Dataset, tmp_path: Path) -> None:
    run = finetune(
        data, PAIR, tmp_path / "x", {**{k: v for k, v in SMALL.items() if k != "lr"}, "train": "none", "epochs": 6}
    )
    assert set(run.info()["parameters"]) == {"encoder", "model", "plain"} and not run.info()["parameters"]["encoder"]
    lines = run.metrics_lines()
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]


# ------------------------------------------------------------------------------------------------- the same, to the bit
@pytest.mark.parametrize("pictures", ["first", "draw"])
def test_a_stopped_run_ends_as_one_that_was_not(tmp_path: Path, pictures: str) -> None:
    data = colours(tmp_path / "data", pictures=3)
    settings = {**SMALL, "pictures": pictures, "checkpoint_every": 1, "epochs": 3}
    whole = finetune(data, PAIR, tmp_path / "whole", settings)
    with pytest.raises(Stop):
        finetune(data, PAIR, tmp_path / "cut", settings, observer=stopping_after(12))
    half = RunFolder.open(tmp_path / "cut")
    assert not half.info()["finished"] and (half.path / "checkpoint" / "last.safetensors").is_file()
    with pytest.raises(UserError, match=r"no encoder yet: `rawrec resume .*cut` goes on"):
        make_encoder("image", FieldConfig(encoder=str(half.path)), 0)
    cut = resume(half.path)
    assert without_times(cut) == without_times(whole) and len(without_times(cut)) == 3
    for name in ("model.safetensors", "metrics.json", "config.json"):
        assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_killed_and_resumed_by_the_commands(data: Dataset, tmp_path: Path) -> None:
    """SIGKILL in the middle of an epoch; then `rawrec resume` from another folder."""
    settings = {**SMALL, "batch_size": 4, "checkpoint_every": 2, "epochs": 3}
    whole = finetune(data, PAIR, tmp_path / "whole", settings)
    words = [f"{key}={value}" for key, value in settings.items()]
    run = tmp_path / "run"
    command = ["finetune", str(data.path), "--encoder", PAIR, "--out", str(run), *words]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = forked.Process([sys.executable, "-m", "rawrec.cli", *command], **quiet)
    last = run / "checkpoint" / "last.safetensors"
    for _ in range(6000):
        if last.is_file() and checkpoint.load(last)[1]["progress"]["step"] >= 6:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not RunFolder.open(run).info()["finished"]
    done = forked.run(
        [sys.executable, "-m", "rawrec.cli", "resume", str(run)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "text_to_image/recall@1" in done.stdout and f"content.item.encoder={run}" in done.stdout.replace("\n", "")
    assert (run / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert without_times(RunFolder.open(run)) == without_times(whole)


@pytest.mark.usefixtures("anew")
def test_a_run_goes_on_with_the_weights_that_it_began_with_alone(data: Dataset, tmp_path: Path) -> None:
    first = finetune(data, PAIR, tmp_path / "first", {**SMALL, "epochs": 1})
    settings = {key: value for key, value in SMALL.items() if key != "dim"}
    with pytest.raises(Stop):
        finetune(data, first.path, tmp_path / "run", {**settings, "checkpoint_every": 1}, observer=stopping_after(6))
    weights = load_file(first.path / "model.safetensors")
    weights["text.model.embeddings.LayerNorm.bias"] += 1
    save_file(weights, first.path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"the weights of the encoder .*first \(start\) have changed since the run"):
        resume(tmp_path / "run")


def test_a_draw_shows_other_pictures_in_other_epochs(tmp_path: Path) -> None:
    cfg = finetune_config({**SMALL, "encoder": PAIR, "pictures": "draw"})
    task = CatalogueTask(cfg, colours(tmp_path / "data", pictures=3), tmp_path / "cache")
    picked = []
    for epoch in (0, 1, 0):
        task.begin_epoch(epoch)
        picked.append(task._picked[task.pairs.rows].clone())
    assert torch.equal(picked[0], picked[2]) and not torch.equal(picked[0], picked[1])
    assert set(picked[0].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("train", ["all", "lora", "top:1"])
def test_gradients_do_not_depend_on_how_many_are_encoded_at_once(data: Dataset, tmp_path: Path, train: str) -> None:
    found = []
    for micro_batch in (32, 5):
        cfg = finetune_config({**SMALL, "encoder": PAIR, "train": train, "micro_batch": micro_batch})
        task = CatalogueTask(cfg, data, tmp_path / "cache")
        batch = task.batch(task.begin_epoch(0)[:32], 0, 0)
        live = task.go_live(batch, 0)
        for losses in task.losses(batch, live, 0):
            losses["loss"].backward()
        live.backward()
        found.append({name: p.grad for name, p in task.model.parameters_by_name().items()})
    for name, grad in found[0].items():
        assert grad is not None and found[1][name] is not None, name
        assert (found[1][name] - grad).norm() <= 1e-3 * grad.norm() + 1e-6, name


def test_a_batch_in_which_nothing_can_be_told_apart_is_no_mistake(tmp_path: Path) -> None:
    """Two titles only: of batches of two pairs half have one title, and no gradient."""
    data = colours(tmp_path / "data", title="a {upper:.1} thing")
    run = finetune(data, PAIR, tmp_path / "x", {**SMALL, "batch_size": 2, "epochs": 1, "warmup_steps": 0})
    assert (
        "held-out pairs with the text or the first picture of a training pair: 21" in (run.path / "log.txt").read_text()
    )
    cfg = finetune_config({**SMALL, "encoder": PAIR})
    task = CatalogueTask(cfg, data, tmp_path / "cache")
    same = [row for row in range(110) if task.pairs.text[row] == task.pairs.text[0]][:2]
    assert not task.present("image", torch.tensor(same)).any()
    assert task.present("image", torch.tensor([0, 109])).all()


# ------------------------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("encoder", "settings", "message"),
    [
        (
            PAIR,
            {"loss": "itc,itm"},
            r"loss=itc,itm: itm need layers that see a picture and.*use loss=itc",
        ),
        (PAIR, {"loss": "mlm"}, "mlm need layers"),
        (PAIR, {"loss": "itx"}, r"loss=itx"),
        (PAIR, {"los": "itc"}, r"finetune: 'los' is unknown; did you mean loss\?"),
        (PAIR, {"train": "top:9"}, "top:9: the encoder random:conv has 4 layers"),
        (PAIR, {"batch_size": 1}, "batch_size=1: .*greater than or equal to 2"),
        (PAIR, {"metric": "auc"}, "metric=auc: use recall"),
        (PAIR, {"max_images": 2}, "max_images=2 would do nothing: pictures=first"),
        (PAIR, {"lora_rank": 2}, "lora_rank=2 would do nothing: train=all"),
        (PAIR, {"text_fields": ["plot"]}, "text_fields: the dataset has no text field 'plot'. Known: title"),
        ("random:conv", {}, r"'random:conv': what is tuned on pairs reads pictures and texts.*pair:IMAGE\+TEXT"),
        ("random:conv", {"train": "none"}, "train=none: nothing of the encoder would learn"),
        ("pair:random:conv", {}, "give an image and a text encoder"),
        ("pair:random:bert+random:conv", {}, "'random:bert' does not read fields of kind image"),
        ("random:vlmo", {"loss": "itc,mlm", "size": 16}, "loss=mlm hides whole words, and needs a tokenizer of word"),
        ("random:vlmo", {"dim": 8, "size": 16}, "dim=8 would do nothing"),
    ],
)
def test_mistakes_are_named(data: Dataset, tmp_path: Path, encoder: str, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        finetune(data, encoder, tmp_path / "x", settings)
    assert not (tmp_path / "x").exists()


def test_nothing_to_tell_apart(tmp_path: Path) -> None:
    same = colours(tmp_path / "said", title="a thing")
    with pytest.raises(UserError, match=r"all 110 pairs have the same text \(title\)"):
        finetune(same, PAIR, tmp_path / "x", SMALL)
    plain = colours(tmp_path / "seen", plain=True)
    with pytest.raises(UserError, match=r"all 110 pairs have the same picture \(front\)"):
        finetune(plain, PAIR, tmp_path / "x", SMALL)
    assert not (tmp_path / "x").exists()


def test_what_is_cut_or_lost_is_told(tmp_path: Path) -> None:
    data = colours(tmp_path / "data", title="a picture with {upper} above and below it {lower}")
    task = CatalogueTask(finetune_config({**SMALL, "encoder": PAIR}), data, tmp_path / "cache")
    assert "texts longer than the encoder reads, cut: 110" in task.notes


def test_no_other_folder_is_overwritten(learned: RunFolder, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds the encoder .* which is read: choose another folder"):
        finetune(data, learned.path, learned.path, {"epochs": 1}, overwrite=True)
    with pytest.raises(UserError, match="holds a run already"):
        finetune(data, PAIR, learned.path, SMALL)


def test_a_tuned_encoder_is_no_model_and_a_pair_is_tuned_first(
    learned: RunFolder, data: Dataset, tmp_path: Path
) -> None:
    for use in (rawrec.evaluate, rawrec.Recommender.load):
        with pytest.raises(UserError, match=r"is a tuned encoder, no model: name it as one, content.item.encoder="):
            use(learned.path)
    with pytest.raises(UserError, match=r"a pair has to be trained before it is used: rawrec finetune"):
        rawrec.train("vbpr", data, tmp_path / "run", {"content.item.encoder": PAIR})
