"""Retrieval models with trained encoders: gradients, the bank behind the features, exact resume, refusals."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_retrieval import settings as small
from torch import Tensor

import forked
from rawrec import Recommender, RunStopped, UserError
from rawrec.config import RETRIEVAL, resolve
from rawrec.content.item_model import ItemModel
from rawrec.data.dataset import Dataset
from rawrec.training import state as checkpoint
from rawrec.training.job import evaluate, load_task, resume, train
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.pairs import PairTask
from systems import FAST, Stop, digest, small_dataset, stopping_after

MODELS = sorted(name for name, record in RETRIEVAL.items() if record().reads_features())
FIELDS = ("image", "title", "description")
RAW = {key: value for key, value in FAST.items() if key.startswith(("content.image.", "content.text."))}


def settings(model: str, **overrides: Any) -> dict[str, Any]:
    """Overrides of a preset: small networks, of which the top layers learn."""
    return small(model) | RAW | {"paradigm": "end_to_end", "train.precision": "fp32"} | small(model, **overrides)


def make_system(data: Path, model: str = "vbpr", **overrides: Any) -> PairTask:
    torch.set_num_threads(1)
    return PairTask(resolve(model, settings(model, **overrides)), Dataset.open(data), data / "cache")


def make(data: Path, folder: Path, model: str = "vbpr", **overrides: Any) -> Loop:
    """A trainer before its first step."""
    system = make_system(data, model, **overrides)
    return Loop(system, RunFolder.create(folder / "run", system.cfg, system.data, overwrite=True))


def encode(system: PairTask) -> dict[str, Tensor]:
    """Field -> features of all items, encoded now, with gradient."""
    return system.item_model.encode(system.bank, torch.arange(system.data.n_items))


def gradients(system: PairTask, loss: Tensor) -> dict[str, Tensor]:
    """Of all parameters, by name; system.model.live is done with."""
    groups = system.parameter_groups()
    named = [*groups["model"], *groups["encoder"]]
    for _, p in named:
        p.grad = None
    loss.backward()
    return {name: p.grad for name, p in named if p.grad is not None}


# ----------------------------------------------------------------------------------------------------------- gradients
class Batch:
    """One batch of a system, whose bank is not what its encoders would make now, and the model's draws for it."""

    def __init__(self, system: PairTask):
        self.task, model, generator = system, system.model, torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        for name, values in system.bank.features.items():
            values += 0.3 * torch.randn_like(values) * model.present(name)[:, None]
        rows = torch.randperm(len(system.pairs.users), generator=generator)[:40]
        self.users, self.positives = system.pairs.users[rows], system.pairs.items[rows]
        self.negatives = torch.randint(system.data.n_items, (40,), generator=generator)
        if not model.uses_negatives:
            self.negatives = None
        self.epoch = model.draw_epoch(generator)
        self.draws = model.draw(self.users, self.positives, self.negatives, generator)

    @property
    def items(self) -> Tensor:
        return self.positives if self.negatives is None else torch.cat([self.positives, self.negatives])

    def loss(self) -> Tensor:
        """In the first step of an epoch."""
        self.task.model.begin_epoch(self.epoch)
        return self.task.model.loss(self.users, self.positives, self.negatives, self.draws)["loss"]

    def live(self) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss and gradients of the way of a training step, and the items that were encoded."""
        live = self.task.go_live(self, 0)  # type: ignore[arg-type]
        loss = self.loss()
        result = gradients(self.task, loss)
        live.backward()
        self.task.model.live = {}
        groups = self.task.parameter_groups()
        return loss.detach(), result | {name: p.grad for name, p in groups["encoder"]}, live.encoded

    def plain(self, tables: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The same by plain autograd through whole tables of features."""
        self.task.model.follow(tables)
        loss = self.loss()
        result = loss.detach(), gradients(self.task, loss)
        self.task.model.follow(self.task.bank.features)
        return result


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, grad in expected.items():
        near = 1e-5 * float(grad.abs().max()) + 1e-8
        torch.testing.assert_close(got[name], grad, rtol=1e-3, atol=near, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_those_of_plain_autograd(shop: Path, model: str) -> None:
    """Through a table in which encoded items have their features of now and all others those of the bank."""
    system = make_system(shop, model, bank__micro_batch=7)
    batch = Batch(system)
    wanted = torch.unique(batch.items)
    wanted = wanted[system.bank.valid[wanted]]
    for budget in (None, 9):
        system.cfg.bank.live_budget = budget
        loss, got, encoded = batch.live()
        assert torch.isin(encoded, wanted).all() and len(encoded) == (budget or len(wanted))
        now = torch.isin(torch.arange(system.data.n_items), encoded)[:, None]
        tables = {name: torch.where(now, values, system.bank.features[name]) for name, values in encode(system).items()}
        plain_loss, expected = batch.plain(tables)
        torch.testing.assert_close(loss, plain_loss)
        assert_same(got, expected)
        for field in FIELDS:
            assert any(name.startswith(f"encoder.{field}.") and grad.any() for name, grad in got.items())


@pytest.mark.parametrize("model", ["bm3", "freedom", "vbpr"])
def test_a_loss_of_the_batch_alone_needs_no_bank(shop: Path, model: str) -> None:
    """With all of the batch live, whatever the bank holds of other items: the gradient of encoding everything."""
    batch = Batch(make_system(shop, model))
    loss, got, _ = batch.live()
    plain_loss, expected = batch.plain(encode(batch.task))
    torch.testing.assert_close(loss, plain_loss)
    assert_same(got, expected)


# ------------------------------------------------------------------------------------------------------------ the bank
@pytest.mark.parametrize("model", ["freedom", "slmrec"])
def test_models_read_the_banks_own_memory(shop: Path, model: str) -> None:
    system = make_system(shop, model, content__description__train="none")
    bank = system.bank
    assert set(bank.features) == {"image", "title"} and set(bank.static) == {"hidden/image", "hidden/title"}
    assert set(system.model.modalities) == set(FIELDS)
    for name, values in bank.features.items():
        assert system.model._table(name).data_ptr() == values.data_ptr()
        torch.testing.assert_close(values, encode(system)[name].detach())
        missing = ~system.model.present(name)
        assert missing.any() and not values[missing].any() and values[~missing].any(1).all()
    before = system.model.feature("title", torch.tensor([3]))
    bank.write_features(torch.tensor([3]), {name: torch.ones(1, v.shape[1]) for name, v in bank.features.items()}, 5)
    after = system.model.feature("title", torch.tensor([3]))
    assert not torch.equal(before, after) and after.unique().numel() == 1
    assert (float(after.norm()) == pytest.approx(1)) == (model == "slmrec")  # which reads all at unit length


def test_trained_tables_are_no_parameters(shop: Path) -> None:
    """Of frozen encoders they still are, with model.train_features."""
    system = make_system(shop, "freedom", content__text__train="none")
    names = {name for name, _ in system.parameter_groups()["model"]}
    assert {"title_embedding.weight", "description_embedding.weight"} <= names and "image_embedding.weight" not in names
    assert "image_embedding.weight" not in system.state()
    encoders = system.parameter_groups()["encoder"]
    assert encoders and all(name.startswith("encoder.image.") and p.requires_grad for name, p in encoders)


def test_a_step_writes_what_it_encoded(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(shop, tmp_path, bank__live_budget=6, bank__micro_batch=4, train__encoder_lr=0.01)
    bank, calls = made.task.bank, []
    original = ItemModel.encode
    monkeypatch.setattr(ItemModel, "encode", lambda *args: (calls.append(args[2].tolist()), original(*args))[1])
    made.progress.step = 7
    bank.encoded[torch.tensor([2, 30])] = -1
    fresh = encode(made.task)
    calls.clear()
    before = {name: values.clone() for name, values in bank.features.items()}
    made._step(torch.arange(50))
    assert [len(part) for part in calls] == [4, 2, 4, 2] and calls[:2] == calls[2:]  # once, and once more for gradient
    encoded = torch.tensor(calls[0] + calls[1])
    assert bank.encoded[encoded].tolist() == [7] * 6 and (bank.encoded == 7).sum() == 6
    for name, values in bank.features.items():
        torch.testing.assert_close(values[encoded], fresh[name][encoded].detach())  # by the weights before the update
        others = torch.ones(60, dtype=torch.bool).index_fill(0, encoded, False)
        assert torch.equal(values[others], before[name][others]) and not values.requires_grad
        assert not torch.allclose(encode(made.task)[name][encoded], values[encoded], atol=1e-5)
    assert made.task.model.live == {}


def test_the_learning_rates_are_two(shop: Path, tmp_path: Path) -> None:
    made = make(shop, tmp_path, train__encoder_lr=1e-5, train__lr_decay=0.5, train__weight_decay=0.1)
    own, of_encoders = made.optimiser.torch.param_groups
    assert (own["weight_decay"], of_encoders["weight_decay"]) == (0.1, 0)
    assert (own["lr"], of_encoders["lr"]) == (0.01, 1e-5)
    made.progress.epoch = 50
    made._epoch()
    assert (own["lr"], of_encoders["lr"]) == pytest.approx((0.005, 5e-6))


def test_three_steps_are_those_of_plain_adam(shop: Path, tmp_path: Path) -> None:
    """Also of convolutions, whose weights do not lie in memory as their shape says."""
    parameters = []
    for name in ("fused", "plain"):
        made = make(shop, tmp_path / name, train__encoder_lr=0.01, train__weight_decay=0.01, bank__micro_batch=7)
        if name == "plain":
            groups = [{**group, "fused": False, "foreach": False} for group in made.optimiser.torch.param_groups]
            made.optimiser.torch = torch.optim.Adam(groups)
        for rows in torch.arange(120).split(40):
            made._step(rows)
        parameters.append(dict(zip(made.optimiser.names, made.optimiser.parameters, strict=True)))
    assert any(p.ndim == 4 and not p.is_contiguous() for p in parameters[0].values())
    for name, expected in parameters[1].items():
        torch.testing.assert_close(parameters[0][name], expected, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nothing_is_written_when_a_step_is_not_finite(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    made = make(shop, tmp_path)
    original = made.task.model.loss

    def broken(*args: Any) -> dict[str, Tensor]:
        losses = original(*args)
        if what == "loss":
            return losses | {"loss": losses["loss"] * torch.nan}
        made.task.model.live["image"][1].register_hook(lambda grad: grad * torch.inf)
        return losses

    monkeypatch.setattr(made.task.model, "loss", broken)
    before = {name: value.clone() for name, value in made.task.state().items()}
    with pytest.raises(RunStopped, match=rf"the {what} of step 0 .* train\.encoder_lr"):
        made._step(torch.arange(50))
    assert all(torch.equal(value, before[name]) for name, value in made.task.state().items())


def test_metrics_are_of_fresh_features(shop: Path, tmp_path: Path) -> None:
    """And stale/ ones of the features as training left them."""
    made = make(shop, tmp_path, train__encoder_lr=0.05, bank__live_budget=5, train__epochs=1)
    made._epoch()
    left = made.task.evaluate(1, False, "nothing").metrics
    made._end_of_epoch(1.0, 120, 1)
    line, bank = made.run.metrics_lines()[-1], made.task.bank
    assert (bank.encoded < made.progress.step).all()  # validation wrote nothing
    with made.task.view(made.progress.step):
        for name, values in encode(made.task).items():
            torch.testing.assert_close(made.task.model.feature(name), values.detach())
        fresh = made.task.evaluate(1, False, "counts").metrics
    assert made.task.model.feature("image").data_ptr() == bank.features["image"].data_ptr()
    names = [name for name in fresh if "@" in name]
    assert [line[f"valid/{name}"] for name in names] == [fresh[name] for name in names]
    assert [line[f"valid/stale/{name}"] for name in left if "@" in name] == [left[n] for n in left if "@" in n]
    assert fresh != left
    assert line["bank/coverage"] == 1 and line["bank/age_mean"] > 1 and line["bank/drift"] > 0
    assert line["live_share/cold"] is None and 0 < line["live_share/warm"] < 0.5

    made.finish()
    stored = json.loads((made.run.path / "metrics.json").read_text())
    assert [stored["valid"][f"stale/{name}"] for name in left if "@" in name] == [left[n] for n in left if "@" in n]
    assert [stored["valid"][name] for name in names] == [fresh[name] for name in names]
    assert any(stored["test"][f"stale/{name}"] != stored["test"][name] for name in names)


# --------------------------------------------------------------------------------------------------------- whole runs
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_its_encoders(shop: Path, tmp_path: Path, model: str) -> None:
    """An epoch; the run, loaded again, says the same, whatever graphs its model froze."""
    given = settings(model, train__epochs=1, train__encoder_lr=0.01, bank__live_budget=25)
    before = make_system(shop, model).published()
    run = train(model, shop, tmp_path / "run", given)
    after, _ = checkpoint.load(run.path / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    encoders = {name for name in after if name.startswith("encoder.")}
    assert encoders <= changed and {name.split(".")[1] for name in encoders} == set(FIELDS)
    assert {f"bank.feature/{name}" for name in FIELDS} <= changed
    stored = json.loads((run.path / "metrics.json").read_text())
    for part in ("valid", "test"):
        expected = {name: value for name, value in stored[part].items() if not name.startswith("stale/")}
        assert evaluate(run.path, part) == expected
    if model == "vbpr":
        served = Recommender.load(run.path)
        item, score = served.recommend(str(served.data.user_ids[0]), k=1)[0]
        assert served.score(str(served.data.user_ids[0]), [item]) == pytest.approx([score], abs=1e-6)


def test_what_the_bank_holds_is_what_is_evaluated(shop: Path, tmp_path: Path) -> None:
    run = train("vbpr", shop, tmp_path / "run", settings("vbpr", train__epochs=1, train__encoder_lr=0.01))
    system = load_task(run)
    assert isinstance(system, PairTask)
    for name, values in system.bank.features.items():
        torch.testing.assert_close(values, encode(system)[name].detach())


@pytest.mark.parametrize("model", ["dragon", "lattice", "vbpr"])
def test_stopped_and_resumed(shop: Path, tmp_path: Path, model: str) -> None:
    given = settings(model, bank__live_budget=20, bank__micro_batch=12, train__encoder_lr=0.01)
    whole = digest(train(model, shop, tmp_path / "whole", given).path)
    draw = random.Random(model)
    with pytest.raises(Stop):
        train(model, shop, tmp_path / "run", given, observer=stopping_after(draw.randint(12, 16)))
    with pytest.raises(Stop):
        resume(tmp_path / "run", stopping_after(draw.randint(3, 5)))
    assert digest(resume(tmp_path / "run").path) == whole


def test_killed_and_resumed(shop: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of training."""
    more = {"train.epochs": 16, "train.patience": 16, "train.encoder_lr": 0.01}
    given = settings("freedom", bank__live_budget=20) | more
    whole = digest(train("freedom", shop, tmp_path / "whole", given).path)
    words = ["train", "freedom", "--data", str(shop), "--out", str(tmp_path / "run")]
    words += [f"{key}={json.dumps(value)}" for key, value in given.items()]
    process = forked.Process(
        [sys.executable, "-m", "rawrec.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    lines = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (lines.is_file() and len(lines.read_text().splitlines()) > 3):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert 3 < len(lines.read_text().splitlines()) < 16
    assert digest(resume(tmp_path / "run").path) == whole


# ------------------------------------------------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("model", "overrides", "said"),
    [
        ("vbpr", {"content.text.train": "none", "content.image.train": "none"}, "every field has train=none"),
        ("vbpr", {"content.image.train": "top:99"}, r"content\.image\.train=top:99: the encoder .* has 4 layers"),
        ("freedom", {"model.reg_weight": 0}, r"model\.reg_weight=0 no gradient .* model\.reg_weight=0\.001"),
        ("lattice", {"model.n_layers": 0}, r"content\.\w+\.train=top:1: no gradient reaches .* of model lattice"),
    ],
)
def test_settings_that_train_no_encoder_are_refused(
    shop: Path, tmp_path: Path, model: str, overrides: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        train(model, shop, tmp_path / "run", settings(model) | overrides)
    assert len(str(caught.value).splitlines()) == 1 and not (tmp_path / "run").exists()


def test_ready_made_features_have_no_encoder(tmp_path: Path) -> None:
    rows = [(u, i, u + i, 1.0) for u in range(6) for i in range(6) if (u + i) % 2]
    data = small_dataset(tmp_path / "data", rows, 6, feature=torch.randn(6, 3).numpy())
    with pytest.raises(UserError, match=r"trains encoders, but .* ready-made features \(feature\).*hybrid"):
        train("vbpr", data, tmp_path / "run", {"paradigm": "end_to_end"})


def test_no_gradient_is_told_after_the_first_step_or_where_items_lack_media_the_epoch(
    shop: Path, tmp_path: Path
) -> None:
    made = make(shop, tmp_path, "lattice", model__n_layers=0)
    made._step(torch.arange(50))
    assert made._waiting == {"image", "title", "description"}
    with pytest.raises(UserError, match="no gradient reaches"):
        made._end_of_epoch(1.0, 120, 1)
    made.task.bank.present["hidden/title"].fill_(True)
    with pytest.raises(UserError, match=r"content\.title\.train=top:1: no gradient reaches the encoder of 'title'"):
        made._step(torch.arange(50))


def test_a_rare_modality_is_no_mistake(shop: Path, tmp_path: Path) -> None:
    """FREEDOM ranks by a modality where both items of a pair have it; a batch may have no such pair."""
    made = make(shop, tmp_path, "freedom")
    present = made.task.model.get_buffer("image_present")
    everywhere = present.clone()
    present.fill_(False)[made.task.pairs.items[0]] = True
    made._step(torch.arange(50))
    assert made._waiting == {"image"} and set(made._unproven) == {"image"}
    present.copy_(everywhere)
    made._step(torch.arange(50))
    assert not made._unproven
    made._end_of_epoch(1.0, 120, 1)
