"""Runs whose content is made by LEMUR's transformer, with its contrast item to item: no queries are needed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.training.job import resume, train
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.step_impressions import StepImpressions
from systems import STILL, Stop, config, digest, stopping_after

JOINT: dict[str, Any] = {
    "content.item.encoder": "joint:tiny", "content.text.max_length": 8, "model.hidden": [16], "model.dim": 8,
    "content.dim": 16, "data.history": 5, "train.batch_size": 256, "train.epochs": 2, "train.threads": 1,
    "train.precision": "fp32", "train.device": "cpu", "train.warmup_steps": 0, "train.checkpoint_share": 1,
    "train.encoder_lr": 1e-3, "eval.topk": [5],
}  # fmt: skip
CONTRAST = {"model.sqdc_weight": 0.01, "model.sqdc_anchor": "history"}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def system(shop: Path, cache: Path, **overrides: Any) -> ImpressionTask:
    torch.set_num_threads(1)
    given = {**JOINT, **CONTRAST, **{k.replace("__", "."): v for k, v in overrides.items()}}
    made = ImpressionTask(rawrec.config.resolve("em3", given), Dataset.open(shop), cache)
    made.refresh(None, 0)
    return made


def a_step(made: ImpressionTask, step: int = 0) -> tuple[StepImpressions, Any]:
    batch = made.batch(made.begin_epoch(0)[:64], 0, step)
    return batch, made.go_live(batch, step)


def test_it_trains_and_the_contrast_falls(shop: Path, tmp_path: Path) -> None:
    given = {
        **JOINT,
        **CONTRAST,
        "train.epochs": 8,
        "train.patience": 8,
        "train.encoder_lr": 3e-3,
        "train.batch_size": 128,
    }
    given |= {"model.sqdc_weight": 0.1}
    run = train("em3", shop, tmp_path / "run", given)
    found = lines(run.path)
    each = [line["loss/sqdc"] / line["sqdc/anchors"] for line in found]
    assert each[-1] < 0.97 * each[0], "users of the generated shop have tastes"
    assert all(0 <= line["sqdc/alone"] <= 1 and line["sqdc/negatives"] > 1 for line in found)
    cfg = run.config()
    assert cfg.content.fusion.kind == "none" and cfg.content.fields["item"].train == "all"
    assert not cfg.content.fields["image"].use, "text only, as published"


@pytest.mark.parametrize("overrides", [{}, {"content.image.encoder": "patches", "content.image.size": 16}])
def test_raw_new_items_are_served(shop: Path, tmp_path: Path, overrides: dict[str, Any]) -> None:
    run = train("em3", shop, tmp_path / "run", {**JOINT, **overrides, "train.epochs": 1})
    rec, data = rawrec.Recommender.load(run.path), Dataset.open(shop)
    assert len(rec.recommend(user="u1", k=3)) == 3
    new: dict[str, Any] = {field: data.texts(field, range(1))[0] for field in data.fields.text}
    if overrides:
        new |= {field: data.images(field, range(1))[0] for field in data.fields.image}
    known, same = rec.embed([str(data.item_ids[0]), new])
    np.testing.assert_allclose(known, same, rtol=1e-4, atol=1e-5)
    first = data.fields.text[0]
    assert not np.allclose(rec.embed([{first: "something else"}])[0], known, atol=1e-3)
    assert not rec.embed([{first: ""}]).any()


def test_a_trained_encoder_reads_pictures_and_pieces_of_words_as_it_learned_to(shop: Path, tmp_path: Path) -> None:
    """Without a word about them; what is left out is said, and is missing then."""
    given = {**JOINT, "train.epochs": 1, "content.image.encoder": "patches", "content.image.size": 16}
    given |= {"content.item.encoder": "joint:random:bert", "content.item.layers": 1}
    first = train("em3", shop, tmp_path / "run", given)
    rec, items = rawrec.Recommender.load(first.path), [str(i) for i in Dataset.open(shop).item_ids]
    folder = rec.export_encoder(tmp_path / "encoder")
    left = {"content.image.encoder", "content.image.size", "content.item.layers", "train.encoder_lr"}
    frozen = {key: value for key, value in given.items() if key not in left}
    frozen |= {"content.item.encoder": f"joint:{folder}", "paradigm": "frozen", "content.fusion.kind": "none"}
    again = rawrec.Recommender.load(train("em3", shop, tmp_path / "frozen", frozen).path)
    np.testing.assert_allclose(again.embed(items), rec.embed(items), rtol=1e-5, atol=1e-5)
    assert again.run.config().content.fields["image"].encoder == "patches"
    blind = train("em3", shop, tmp_path / "blind", {**frozen, "content.image.use": False})
    values = rawrec.Recommender.load(blind.path).embed(items)
    assert values.any() and not np.allclose(values, rec.embed(items), atol=1e-3)


@pytest.mark.parametrize("paradigm", ["frozen", "hybrid", "end_to_end"])
def test_every_paradigm_has_the_contrast(shop: Path, tmp_path: Path, paradigm: str) -> None:
    given = {**JOINT, **CONTRAST, "train.epochs": 1, "paradigm": paradigm}
    if paradigm != "end_to_end":
        del given["train.encoder_lr"]
    run = train("em3", shop, tmp_path / "run", given)
    assert lines(run.path)[0]["loss/sqdc"] > 0
    assert rawrec.Recommender.load(run.path).recommend(user="u1", k=2)


def test_a_stopped_run_ends_the_same(shop: Path, tmp_path: Path) -> None:
    given = {**JOINT, **CONTRAST, "train.checkpoint_every": 2, "bank.micro_batch": 12, "model.sqdc_learned_scale": True}
    expected = digest(train("em3", shop, tmp_path / "whole", given).path)
    with pytest.raises(Stop):
        train("em3", shop, tmp_path / "run", given, observer=stopping_after(6))
    with pytest.raises(Stop):
        resume(tmp_path / "run", stopping_after(4))
    assert digest(resume(tmp_path / "run").path) == expected


def test_gradient_caching_changes_nothing(shop: Path, tmp_path: Path) -> None:
    """In micro-batches, encoded again for the backward pass, every weight has the gradient that it has at once."""
    found = []
    for micro_batch in (1000, 7):
        made = system(
            shop,
            tmp_path / "cache",
            bank__micro_batch=micro_batch,
            **{k.replace(".", "__"): v for k, v in STILL.items() if "fusion" not in k},
        )
        batch, live = a_step(made)
        for losses in made.losses(batch, live, 0):
            losses["loss"].backward()
        live.backward()
        found.append({name: p.grad for name, p in made.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name].to_dense(), grad.to_dense(), rtol=1e-3, atol=1e-6)


def by_hand(made: ImpressionTask, batch: StepImpressions) -> Tensor:
    """The contrast of a step, from content that is encoded for it alone; cosines of pairs in loops."""
    assert made.bank is not None and made.item_model is not None
    rows = torch.arange(made.data.n_items)
    with torch.no_grad():
        content = made.item_model.encode(made.bank, rows)["content"]
    content = torch.nn.functional.normalize(content, dim=1)
    pairs = []
    for row, (items, labels) in enumerate(zip(batch.items.tolist(), batch.labels.tolist(), strict=True)):
        for item, label in zip(items, labels, strict=True):
            past = [i for i in batch.history[row].tolist() if i >= 0 and i != item and made.bank.valid[i]]
            if label > 0 and made.bank.valid[item]:
                pairs.append((past[-1] if past else -1, item))
    total = torch.zeros(())
    for i, (anchor, item) in enumerate(pairs):
        if anchor >= 0:
            kept = [other for j, (its, other) in enumerate(pairs) if j == i or its != anchor]
            logits = 50 * content[anchor] @ content[kept].T
            total = total + torch.logsumexp(logits, 0) - 50 * content[anchor] @ content[item]
    return total


@pytest.mark.parametrize("neighbour", ["live", "bank"])
def test_pairs_are_of_a_users_positives(shop: Path, tmp_path: Path, neighbour: str) -> None:
    made = system(shop, tmp_path / "cache", model__sqdc_neighbour=neighbour)
    batch, live = a_step(made)
    parts = next(p for p in made.losses(batch, live, 0) if "sqdc" in p)
    torch.testing.assert_close(parts["sqdc"].detach(), by_hand(made, batch), rtol=1e-3, atol=1e-2)
    assert batch.neighbours is not None
    held = batch.neighbours[batch.neighbours >= 0].unique()
    shown = torch.isin(held, batch.items)
    assert not shown.all()
    assert torch.isin(held, live.encoded).equal(torch.ones_like(shown) if neighbour == "live" else shown)


def test_what_is_not_encoded_is_read_from_the_bank(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path / "cache", bank__live_budget=5)
    batch, live = a_step(made)
    assert len(live.encoded) == 5
    parts = next(p for p in made.losses(batch, live, 0) if "sqdc" in p)
    torch.testing.assert_close(parts["sqdc"].detach(), by_hand(made, batch), rtol=1e-3, atol=1e-2)


def test_queries_that_are_not_there_are_asked_for(shop: Path, tmp_path: Path) -> None:
    asked = {**JOINT, "model.sqdc_weight": 0.1, "model.sqdc_anchor": "query"}
    with pytest.raises(UserError, match=r"has none: import it with a column of queries, or use model.sqdc_anchor=auto"):
        train("em3", shop, tmp_path / "run", asked)


def test_without_queries_the_contrast_is_of_items_and_told(shop: Path, tmp_path: Path) -> None:
    made = ImpressionTask(
        rawrec.config.resolve("em3", {**JOINT, "model.sqdc_weight": 0.1}), Dataset.open(shop), tmp_path
    )
    assert made.cfg.model.sqdc_anchor == "history" and made.sqdc is not None and made.queries is None
    assert any(note.startswith("no queries: the contrast") for note in made.notes)


def test_a_contrast_of_what_is_not_there_is_refused(shop: Path, tmp_path: Path) -> None:
    """Without histories there is no earlier item, and without sessions none that could be masked."""
    for changes, said in (
        ({"data.history": 0}, r"data.history=0: model.sqdc_weight=0.1 holds an item .*where .* has no queries; use"),
        ({"data.history": 0, "model.sqdc_anchor": "history"}, r"data.history=0: model.sqdc_weight=0.1"),
        ({"model.sqdc_mask": ["query", "session"]}, r"model.sqdc_mask=\[query,session\]: .* has no sessions"),
    ):
        with pytest.raises(UserError, match=said):
            train("em3", shop, tmp_path / "run", {**JOINT, "model.sqdc_weight": 0.1, **changes})


def test_the_settings_of_other_runs_stay(shop: Path) -> None:
    assert config().content.dim == 16 and config().content.fusion.kind == "fqformer"
