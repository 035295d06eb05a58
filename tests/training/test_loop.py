"""One step, one epoch, and everything that must stop a run: what changes under each paradigm and what never does."""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rawrec.content.encoders.base import Encoder
from rawrec.data.dataset import Dataset
from rawrec.data.ragged import Ragged
from rawrec.data.splits import SplitSpec
from rawrec.errors import RunStopped, UserError
from rawrec.models.ranking.ranker import Ranker
from rawrec.training import state as checkpoint
from rawrec.training.job import resume, train
from rawrec.training.loop import Loop
from rawrec.training.metrics import impression_metrics
from rawrec.training.tasks.impressions import saved_name
from systems import STILL, changed, content_of, settings, small_dataset, system, trainer, weights


def digests(folder: Path) -> dict[str, str]:
    """sha256 of the checkpoints and of what makes a run finished."""
    files = [*folder.glob("checkpoint/*"), *folder.glob("*.safetensors"), *folder.glob("metrics*")]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --------------------------------------------------------------------------------------------------------------- a step
@pytest.mark.parametrize("paradigm", ["end_to_end", "hybrid"])
def test_accumulated_batches_are_one_large_batch(shop: Path, tmp_path: Path, paradigm: str) -> None:
    results = []
    for size, accumulate in ((64, 1), (32, 2), (20, 4)):
        made = trainer(
            shop,
            tmp_path / str(size),
            train__batch_size=size,
            train__accumulate=accumulate,
            paradigm=paradigm,
            **STILL,
        )
        before, rows = weights(made.task), made.task.samples.order(0, 0)[:64]
        made._step(rows)
        assert made.progress.step == 1
        after = weights(made.task)
        gradients = {n: p.grad.to_dense() for n, p in made.task.named_parameters() if p.grad is not None}
        results.append((after, gradients, made.progress.sums, made.task.bank.content.clone(), changed(before, after)))
    whole = results[0]
    for parts in results[1:]:
        assert parts[4] == whole[4] and len(whole[4]) > 20
        for key in ("loss", "loss/bce", "loss/cic"):
            assert parts[2][key] == pytest.approx(whole[2][key], rel=1e-5)
        torch.testing.assert_close(parts[3], whole[3])
        for name, grad in whole[1].items():
            torch.testing.assert_close(
                parts[1][name], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()) + 1e-8, msg=name
            )
        # Adam makes whole steps of noise too: compare where the gradient is far above what may differ by rounding. In
        # the bias of keys, which has no true gradient, and where an attention is near uniform, it is not.
        compared = 0
        for name, value in whole[0].items():
            grad, clear = whole[1].get(name), torch.ones_like(value, dtype=torch.bool)
            if grad is not None:
                clear = grad.abs() > max(1e-3 * float(grad.abs().max()), 1e-6)
                compared += int(clear.any())
            torch.testing.assert_close(parts[0][name][clear], value[clear], rtol=1e-4, atol=2e-5, msg=name)
        assert compared > 0.8 * len(whole[1])


def test_a_step_of_items_without_media(shop: Path, tmp_path: Path) -> None:
    """Nothing to encode: the ranker learns alone, under every paradigm."""
    for paradigm in ("end_to_end", "hybrid", "frozen"):
        made = trainer(shop, tmp_path / paradigm, paradigm=paradigm)
        made.task.bank.valid[:] = False
        before = made.task.ranker.inputs.ids.item.weight.clone()
        made._step(made.task.samples.rows(0)[:16])
        assert np.isfinite(made.progress.sums["loss"]) and "loss/cic" not in made.progress.sums
        assert not torch.equal(before, made.task.ranker.inputs.ids.item.weight)


def test_learning_rates_by_group_and_warmup(shop: Path, tmp_path: Path) -> None:
    made = trainer(shop, tmp_path, train__warmup_steps=4, train__lr=0.1, train__encoder_lr=0.02)
    rates = []
    for k in range(5):
        made._step(made.task.samples.rows(0)[k * 8 : k * 8 + 8])
        rates.append([group["lr"] for group in made.optimiser.torch.param_groups])
    np.testing.assert_allclose(rates, np.outer([0.25, 0.5, 0.75, 1, 1], [0.02, 0.1, 0.1]))
    decay = [group["weight_decay"] for group in made.optimiser.torch.param_groups]
    assert decay == [0, made.schedule.weight_decay, 0]
    groups, tables = made.task.parameter_groups(), made.optimiser.tables
    assert set(tables) == {name for name, _ in groups["id"]}
    assert {table.decay for table in tables.values()} == {made.schedule.id_weight_decay}
    names = [name for group in groups.values() for name, _ in group]
    assert sorted(names) == sorted(saved_name(name) for name, p in made.task.named_parameters() if p.requires_grad)
    assert all(p.ndim < 2 or name.endswith(".queries") for name, p in groups["plain"])
    assert all(p.ndim == 2 and not name.endswith(".queries") for name, p in groups["rest"])
    assert all(name.startswith("tower.encoders.") for name, _ in groups["encoder"]) and groups["encoder"]
    assert {name for name, _ in groups["id"]} == {
        f"ranker.inputs.ids.{table}.weight" for table in ("user", "item", "user_bias", "item_bias")
    }


def test_files_call_the_item_model_as_earlier_ones_do(shop: Path, tmp_path: Path) -> None:
    """`tower.` in weights, `optim.tower.` and `average.tower.` in checkpoints: else no run of before is read."""
    made = trainer(shop, tmp_path, train__epochs=1, train__ema=0.9)
    made.train()
    kept, _ = checkpoint.load(made.run.path / "checkpoint" / "last.safetensors")
    names = [*made.task.published(), *kept]
    assert not any("item_model" in name for name in names)
    for what in ("tower.proj.image.", "tower.fusion.", "optim.tower.encoders.image.", "average.tower.encoders.image."):
        assert any(what in name for name in names), what


def test_clipping_bounds_the_update(shop: Path, tmp_path: Path) -> None:
    made = trainer(shop, tmp_path, train__clip=1e-3)
    made._step(made.task.samples.rows(0)[:64])
    tables = made.optimiser.tables
    rest = [p.grad for n, p in made.optimiser._dense.items() if p.grad is not None]
    cut = [*rest, *(table.values for table in tables.values())]
    assert len(tables) == 4 and len(rest) > 20
    assert float(torch.cat([grad.flatten() for grad in cut]).norm()) == pytest.approx(1e-3, rel=1e-3)


# ------------------------------------------------------------------------------------------------------------ paradigms
def after_an_epoch(shop: Path, folder: Path, **overrides: Any) -> tuple[Loop, set[str], torch.Tensor]:
    """A trainer after one epoch, the names of what changed, and the bank before it."""
    made = trainer(shop, folder, train__epochs=1, train__lr=0.01, train__encoder_lr=0.01, **overrides)
    before, content = weights(made.task), made.task.bank.content.clone()
    made.train()
    return made, changed(before, weights(made.task)), content


def test_frozen_leaves_the_bank_as_the_first_pass_made_it(shop: Path, tmp_path: Path) -> None:
    made, names, content = after_an_epoch(shop, tmp_path, paradigm="frozen")
    assert torch.equal(made.task.bank.content, content)
    assert made.task.bank.written.unique().tolist() == [-1, 0]
    assert names and all(name.startswith(("ranker.", "content_in.")) for name in names)
    assert {"content_in.weight", "ranker.content.candidate.weight"} <= names


def test_hybrid_trains_the_fusion_and_no_encoder(shop: Path, tmp_path: Path) -> None:
    made, names, content = after_an_epoch(shop, tmp_path, paradigm="hybrid")
    assert not any(name.startswith("item_model.encoders.") for name in names)
    assert {"item_model.fusion.fusion.queries", "item_model.fusion.mm_proj.weight"} <= names
    for field in ("image", "title", "description"):
        assert f"item_model.proj.{field}.weight" in names
    assert not torch.equal(made.task.bank.content, content)


@pytest.mark.parametrize("how", ["top:1", "lora", "all"])
def test_end_to_end_changes_exactly_the_trained_layers(shop: Path, tmp_path: Path, how: str) -> None:
    made, names, content = after_an_epoch(
        shop, tmp_path, content__image__train=how, content__text__train="none", content__title__train="top:1"
    )
    encoder = {name for name in names if name.startswith("item_model.encoders.")}
    trained = {name for name, p in made.task.named_parameters() if p.requires_grad and "encoders" in name}
    assert encoder == trained
    assert {name.split(".")[2] for name in encoder} == {"image", "title"}
    layers = {name.split(".")[5] for name in encoder if ".image." in name}
    assert layers == ({"3"} if how == "top:1" else {"0", "1", "2", "3"})
    buffers = {name for name, _ in made.task.named_buffers()}
    assert any("running_mean" in name for name in buffers) and not buffers & names
    assert not torch.equal(made.task.bank.content, content)


def test_evaluation_reads_fresh_content_and_leaves_the_bank_alone(shop: Path, tmp_path: Path) -> None:
    made, _, _ = after_an_epoch(shop, tmp_path)
    task, bank, step = made.task, made.task.bank, made.progress.step
    read = task.rows_read(task.evaluation_sample(1), 1)
    read = read[read >= 0]
    read = read[bank.valid[read]]
    assert (bank.written[read] < step).all()  # validation wrote nothing
    before = {name: value.clone() for name, value in bank.state().items()}
    task.eval()
    with made.optimiser.averaged():  # the weights that were evaluated
        stale = task.table()
        with task.view(read, step):
            fresh = task.table()
            torch.testing.assert_close(fresh.values[read], content_of(task, read).detach())
        assert not torch.allclose(fresh.values[read], stale.values[read], atol=1e-5)
        assert torch.equal(task.table().values, bank.content)
    assert all(torch.equal(value, before[name]) for name, value in bank.state().items())
    assert torch.from_numpy(task.samples.train_counts == 0)[read].any()


@pytest.mark.parametrize("paradigm", ["end_to_end", "hybrid"])
def test_what_is_validated_changes_nothing_that_is_trained(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paradigm: str
) -> None:
    weights_of, given = [], {"train__lr": 0.01, "train__epochs": 2, "bank__live_budget": 9}
    if paradigm == "hybrid":
        del given["bank__live_budget"]
    for part in (1, 2):
        made = trainer(shop, tmp_path / str(part), paradigm=paradigm, **given)
        sample = type(made.task).evaluation_sample
        with monkeypatch.context() as patch:
            patch.setattr(type(made.task), "evaluation_sample", lambda self, _, s=sample, p=part: s(self, p))
            made.train()
        weights_of.append(weights(made.task) | {"bank": made.task.bank.content.clone()})
    assert not changed(*weights_of)


def test_no_dropout_sample_stays_in_the_bank(shop: Path, tmp_path: Path) -> None:
    """With a learning rate of nothing, what a step writes is what was there: drift is none, whatever the dropout."""
    made = trainer(shop, tmp_path, content__fusion__dropout=0.5, train__lr=1e-30, train__encoder_lr=1e-30, train__ema=0)
    made._step(made.task.samples.rows(0)[:64])
    assert made.task.bank.health(1)["bank/drift"] == pytest.approx(0, abs=1e-5)


def test_the_live_budget_is_kept_and_logged(shop: Path, tmp_path: Path) -> None:
    made, _, _ = after_an_epoch(shop, tmp_path, bank__live_budget=5, train__batch_size=64)
    line = made.run.metrics_lines()[-1]
    assert 0 < line["live_share/warm"] < 0.5 and line["live_share/cold"] is None
    assert line["bank/coverage"] == 1 and line["bank/age_mean"] > 2
    whole, _, _ = after_an_epoch(shop, tmp_path / "whole", train__batch_size=64)
    assert whole.run.metrics_lines()[-1]["live_share/warm"] > 0.95  # an item may lack all media


# ----------------------------------------------------------------------------------------------------- averaged weights
def own(made: Loop) -> list[torch.Tensor]:
    """A copy of every trained parameter, in the trainer's order."""
    return [p.detach().clone() for p in made.optimiser.parameters]


def kept(made: Loop) -> dict[str, torch.Tensor]:
    """The weights of the best epoch."""
    tensors, _ = checkpoint.load(made.run.path / "checkpoint" / "last.safetensors")
    return checkpoint.without_prefix("best.", tensors)


def named(made: Loop) -> dict[str, torch.Tensor]:
    """What `kept` would hold, were the weights kept as they are."""
    return {name: value.clone() for name, value in made.task.state().items()}


def test_the_average_of_the_weights_by_hand(shop: Path, tmp_path: Path) -> None:
    """average += (1 - decay)(weights - average) after each step, the decay rising to train.ema: 1/11, 2/12, 3/13 ..."""
    made = trainer(shop, tmp_path, train__ema=0.25, train__lr=0.01)
    expected = own(made)
    for step in range(1, 7):
        made._step(made.task.samples.rows(0)[step * 32 : step * 32 + 32])
        decay = min(0.25, step / (step + 10))
        assert (decay == 0.25) == (step >= 4)
        expected = [decay * a + (1 - decay) * p for a, p in zip(expected, own(made), strict=True)]
    with made.optimiser.averaged():
        average = own(made)
    for name, got, want in zip(made.optimiser.names, average, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6, msg=name)
    assert sum(not torch.allclose(a, p, atol=1e-5) for a, p in zip(average, own(made), strict=True)) > 20


def test_the_averaged_weights_are_evaluated_and_kept(shop: Path, tmp_path: Path) -> None:
    made = trainer(shop, tmp_path, train__ema=0.9, train__lr=0.01, train__epochs=1, train__batch_size=64)
    made.train()
    sample, after = made.task.evaluation_sample(1), own(made)
    scores = made.task.score_impressions(sample, 1)
    best = kept(made)
    with made.optimiser.averaged():
        assert all(torch.equal(best[name], value) for name, value in named(made).items())
        with made.task.view(made.task.rows_read(sample, 1), made.progress.step):
            metrics, _ = impression_metrics(made.task, sample, made.task.score_impressions(sample, 1))
    assert made.run.metrics_lines()[-1]["valid/logloss"] == pytest.approx(metrics["logloss"], rel=1e-6)
    # Training goes on from its own.
    assert all(torch.equal(p, w) for p, w in zip(made.optimiser.parameters, after, strict=True))
    assert np.array_equal(scores, made.task.score_impressions(sample, 1))
    different = [name for name, value in named(made).items() if not torch.equal(best[name], value)]
    assert any(name.startswith("encoder.image.") for name in different) and len(different) > 20
    with pytest.raises(RuntimeError), made.optimiser.averaged():
        raise RuntimeError
    assert all(torch.equal(p, w) for p, w in zip(made.optimiser.parameters, after, strict=True))


def test_without_an_average_the_last_weights_are_kept(shop: Path, tmp_path: Path) -> None:
    made = trainer(shop, tmp_path, train__ema=0, train__lr=0.01, train__epochs=1)
    made.train()
    best = kept(made)
    assert not any(name.startswith("average.") for name in made.optimiser.state())
    assert all(torch.equal(best[name], value) for name, value in named(made).items())
    with made.optimiser.averaged():
        assert all(torch.equal(best[name], value) for name, value in named(made).items())


def test_the_average_does_not_change_the_training(shop: Path, tmp_path: Path) -> None:
    """The own weights of a step of training are the same with and without an average beside them."""
    steps = []
    for ema in (0.0, 0.9):
        made = trainer(shop, tmp_path / str(ema), train__ema=ema, train__lr=0.01)
        for k in range(3):
            made._step(made.task.samples.rows(0)[k * 32 : k * 32 + 32])
        steps.append(own(made))
    assert all(torch.equal(a, b) for a, b in zip(*steps, strict=True))


# ------------------------------------------------------------------------------------------------- what must stop a run
def test_a_run_that_stops_before_its_first_checkpoint_names_none(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Ranker.label_logits
    monkeypatch.setattr(Ranker, "label_logits", lambda self, tokens: forward(self, tokens) * torch.nan)
    made = trainer(shop, tmp_path, model__name="id")
    with pytest.raises(RunStopped, match=r"step 0 \(epoch 1\) is nan.*there is no checkpoint yet"):
        made.train()
    assert not (made.run.path / "checkpoint").exists()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_run_stops_before_it_writes_what_is_not_finite(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    forward, steps = Ranker.label_logits, []

    def broken(self: Ranker, tokens: Any) -> torch.Tensor:
        logits = forward(self, tokens)
        if not self.training:
            return logits
        steps.append(1)
        if len(steps) < 6:
            return logits
        if what == "loss":
            return logits * torch.nan
        logits.register_hook(lambda grad: grad * torch.inf)
        return logits

    saved: list[dict[str, str]] = []
    save = Loop.save
    monkeypatch.setattr(Loop, "save", lambda self: (save(self), saved.append(digests(self.run.path)))[0])
    monkeypatch.setattr(Ranker, "label_logits", broken)
    tree, out = settings(train__checkpoint_every=2), tmp_path / "run"
    with pytest.raises(RunStopped) as stopped:
        train(tree, shop, out)
    data = Dataset.open(shop)
    row = np.random.default_rng([0, 0]).permutation(np.flatnonzero(data.split() == 0))[5 * 256]
    pair = f"({data.user_ids[data.users[row]]}, {data.item_ids[data.items[row]]})"
    message = str(stopped.value)
    assert f"the {what} of step 5 (epoch 1)" in message and pair in message and "train.lr" in message
    assert len(saved) == 2 and digests(out) == saved[-1]
    _, state = checkpoint.load(out / "checkpoint" / "last.safetensors")
    assert state["progress"]["step"] == 4
    assert not (out / "model.safetensors").exists()

    monkeypatch.setattr(Ranker, "label_logits", forward)  # and the run can go on from there
    whole = train(tree, shop, tmp_path / "whole")
    assert digests(resume(out).path)["model.safetensors"] == digests(whole.path)["model.safetensors"]


@pytest.mark.parametrize("field", ["image", "title"])
def test_an_encoder_without_gradient_is_named(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    made = trainer(shop, tmp_path, train__epochs=1)
    encoder = dict(made.task.raw_encoders())[field]
    upper = encoder.upper
    monkeypatch.setattr(encoder, "upper", lambda hidden: upper(hidden).detach())
    with pytest.raises(
        UserError, match=rf"content\.{field}\.train=top:1: no gradient reaches the encoder of '{field}'"
    ):
        made.train()
    assert not made.run.metrics_lines()


def test_an_encoder_that_never_has_an_item_is_named(shop: Path, tmp_path: Path) -> None:
    made = trainer(shop, tmp_path, train__epochs=1)
    made.task.bank.present["hidden/image"][:] = False
    made.task.bank.static["hidden/image"] = Ragged.from_lengths(
        made.task.bank.static["hidden/image"].values[:0], torch.zeros(60, dtype=torch.int64)
    )
    with pytest.raises(
        UserError, match=r"content\.image\.train=top:1: in a whole epoch no item with 'image' was encoded"
    ):
        made.train()


def test_an_encoder_that_has_nothing_to_do_is_no_mistake(shop: Path, tmp_path: Path) -> None:
    """No item of the first batches has a picture: that is judged when one has."""
    made = trainer(shop, tmp_path)
    column = made.task.bank.static["hidden/image"]
    with_image = column.lengths.numpy()[made.task.data.items] > 0
    without = made.task.samples.rows(0)[~with_image[made.task.samples.rows(0)]]
    assert len(without)
    made._step(without[:8])
    assert set(made._unproven) == {"image"}
    made._step(made.task.samples.rows(0)[:64])
    assert not made._unproven


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.split": "weekly"}, r"data\.split='weekly'.*Known: default"),
        ({"data.label": "like"}, r"'like'.*label"),
        ({"content.image.train": "none", "content.text.train": "none"}, r"paradigm=end_to_end.*content\.title\.train"),
        ({"content.picture.train": "all"}, r"content\.picture.*image.*title.*description"),
        ({"train.metric": "rocauc"}, r"train\.metric.*rocauc.*auc.*logloss"),
        ({"train.metric": "warm/nonsense"}, r"train\.metric.*warm/nonsense.*auc"),
        ({"train.metric": "rare/auc"}, r"train\.metric=rare/auc is undefined on the validation part"),
        ({"model.columns": ["colour"]}, r"model\.columns.*'colour'.*Known: category, price"),
        ({"content.image.encoder": "random:con"}, r"'random:con' is unknown.*random:conv"),
        ({"content.image.train": "top:9"}, r"top:9.*4 layers"),
        ({"train.device": "gpu"}, r"train\.device=gpu"),
    ],
)
def test_mistakes_in_settings_are_named_before_the_first_step(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(Loop, "_step", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(UserError, match=message):
        train(settings(**{key.replace(".", "__"): value for key, value in overrides.items()}), shop, tmp_path / "run")


ID = {"model": {"name": "id", "hidden": [8]}, "train": {"epochs": 2, "threads": 1, "device": "cpu"}}


def rows_of(labels: list[float]) -> list[tuple[int, int, int, float]]:
    return [(k % 3, k % 5, k, label) for k, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "parts", "message"),
    [
        ([0, 1] * 10, ["train"] * 15 + ["test"] * 5, "validation part has no interactions"),
        ([0, 1] * 10, ["valid"] * 15 + ["test"] * 5, "training part has no interactions"),
        ([1] * 10 + [0, 1] * 5, ["train"] * 10 + ["valid"] * 5 + ["test"] * 5, "every training label is above 0"),
        ([0, 1] * 5 + [1] * 10, ["train"] * 10 + ["valid"] * 5 + ["test"] * 5, r"train\.metric=auc is undefined"),
    ],
)
def test_parts_that_cannot_be_used(tmp_path: Path, labels: list[float], parts: list[str], message: str) -> None:
    data = small_dataset(tmp_path / "data", rows_of(labels), 5, parts=parts)
    with pytest.raises(UserError, match=message):
        train(ID, data, tmp_path / "run")


@pytest.mark.parametrize(("model", "task"), [("em3", "impressions"), ("vbpr", "pairs")])
def test_parts_that_cannot_be_used_are_found_before_anything_is_encoded(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, task: str
) -> None:
    data = Dataset.open(shop)
    if "all" not in data.meta.splits:
        data.add_split("all", SplitSpec(kind="random_user", ratios=(1.0, 0.0, 0.0)))
    module = importlib.import_module(f"rawrec.training.tasks.{task}")
    monkeypatch.setattr(module, "static_columns", lambda *_: pytest.fail("something was encoded"))
    with pytest.raises(UserError, match="the validation part has no"):
        train(model, data, tmp_path / "run", {"data.split": "all"})


def test_one_class_test_labels_are_null_with_a_reason(tmp_path: Path) -> None:
    import json

    labels = [0, 1] * 8 + [1.0] * 4
    data = small_dataset(tmp_path / "data", rows_of(labels), 5, parts=["train"] * 10 + ["valid"] * 6 + ["test"] * 4)
    run = train(ID, data, tmp_path / "run")
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics["test"]["auc"] is None and metrics["reasons"]["test"]["auc"]
    assert metrics["test"]["logloss"] > 0


# ------------------------------------------------------------------------------------------------------- early stopping
@pytest.mark.parametrize(
    ("metric", "values", "epochs", "best"),
    [
        ("auc", [0.5, 0.7, 0.6, 0.69, 0.9], 4, 2),
        ("auc", [0.5, 0.7, 0.6, 0.8, 0.8, 0.8, 0.9], 6, 4),
        ("logloss", [0.7, 0.5, 0.6, 0.4, 0.41, 0.42, 0.1], 6, 4),
        ("warm/logloss", [0.7, 0.5, 0.6, 0.4, 0.41, 0.42, 0.1], 6, 4),
        ("auc", [0.1, 0.2, 0.3], 3, 3),
    ],
)
def test_early_stopping_keeps_the_best_epoch(
    shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metric: str,
    values: list[float],
    epochs: int,
    best: int,
) -> None:
    made = trainer(
        shop,
        tmp_path,
        model__name="id",
        train__metric=metric,
        train__epochs=len(values),
        train__patience=2,
        train__batch_size=2000,
    )
    states = []
    monkeypatch.setattr(made, "_step", lambda rows: made.progress.sums.update(steps=1, **dict.fromkeys(LOSSES, 1.0)))
    monkeypatch.setattr(
        made, "_monitored", lambda *_: (states.append(mark(made, len(states))), values[made.progress.epoch])[1]
    )
    made.train()
    assert made.progress.epoch == epochs and made.progress.best_epoch == best
    assert float(kept(made)["ranker.inputs.ids.user.weight"][0, 0]) == best - 1
    assert [line["epoch"] for line in made.run.metrics_lines()] == list(range(1, epochs + 1))


LOSSES = ("loss", "loss/bce", "loss/cic")


def mark(made: Loop, value: int) -> None:
    with torch.no_grad():
        made.task.ranker.inputs.ids.user.weight[0, 0] = value


def test_encoders_stay_in_eval_mode(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path)
    made.train()
    encoders = [e for _, e in made.raw_encoders()]
    assert all(isinstance(e, Encoder) and not any(m.training for m in e.modules()) for e in encoders)
    assert made.ranker.training
