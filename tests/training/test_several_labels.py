"""Rankers of several labels: losses, ESMM, metrics, scores, unknown labels, exact resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import rawrec
from rawrec.config import resolve
from rawrec.config.ranking import RankerConfig
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import IdleSetting, UserError
from rawrec.evaluation.ctr import auc, pcoc
from rawrec.models.ranking.tokens import Head, Tokens
from rawrec.sources.synthetic import import_synthetic
from rawrec.training.job import resume, train
from rawrec.training.tasks.impressions import ImpressionTask
from systems import Stop, digest, settings, stopping_after

SMALL: dict[str, Any] = {
    "model.dim": 8,
    "model.hidden": [8],
    "data.history": 5,
    "data.labels": ["label", "buy"],
    "train.epochs": 2,
    "train.batch_size": 256,
    "train.warmup_steps": 0,
    "train.device": "cpu",
    "train.threads": 1,
    "train.checkpoint_share": 1,
    "eval.topk": [5],
}
ESMM = {"model.multi_label": "esmm"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated shop with purchases."""
    out = tmp_path_factory.mktemp("labels") / "shop"
    import_synthetic(out, items=40, users=30, impressions=2000, size=32, buy_rate=0.4, progress=False)
    return out


def clicks(out: Path, click: Sequence[float | None], buy: Sequence[float | None], users: int = 5) -> Dataset:
    """A dataset of the labels click and buy, a row per minute, 80/10/10 by time."""
    n = len(click)
    writer = DatasetWriter(out, fields=Fields(), source="test", labels=["click", "buy"], has_time=True)
    with writer:
        writer.add_items({"item_id": [f"i{k}" for k in range(7)]})
        ids = {"user_id": [f"u{k % users}" for k in range(n)], "item_id": [f"i{k % 7}" for k in range(n)]}
        writer.add_interactions(ids | {"timestamp": np.arange(n) * 60, "click": list(click), "buy": list(buy)})
        return writer.finish(SplitSpec(kind="time_global"), ImportReport(source="test"))


def task(data: Dataset | Path, folder: Path, **given: Any) -> ImpressionTask:
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    names = {"data.labels": data.meta.labels}
    return ImpressionTask(resolve("id", SMALL | names | given), data, folder)


def pattern(n: int) -> tuple[list[float], list[float]]:
    """Clicks, every third of which is bought."""
    click = [float(k % 2) for k in range(n)]
    return click, [float(k % 6 == 1) for k in range(n)]


# ------------------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        ("id", {"model.multi_label": "esmm"}, ["model.multi_label=esmm", "two labels", "data.labels=[click,buy]"]),
        ("id", {"data.labels": ["a", "b", "c"], **ESMM}, ["esmm", "two labels", "a, b, c"]),
        ("id", {"data.labels": ["a", "b"], "model.label_weights": [1]}, ["label_weights=[1.0]", "a, b"]),
        ("id", {"data.labels": ["a", "b"], "model.label_weights": [1, 0]}, ["label_weights", "0"]),
        ("id", {"data.labels": ["a", "b", "b"]}, ["data.labels", "b is named twice"]),
        ("id", {"data.labels": ["a", "cold"]}, ["data.labels", "cold/auc"]),
        ("id", {"data.labels": ["a", "shown"]}, ["data.labels", "shown/mrr", "import that label under another name"]),
        ("id", {"data.labels": ["a", "b"], "data.label": "b"}, ["label=b", "labels=['a', 'b']"]),
        ("id", {"data.labels": ["a", "b"], "train.metric": "c/auc"}, ["train.metric=c/auc", "b, b|a"]),
        ("id", {"data.labels": ["a", "b"], "train.metric": "b/recall@5"}, ["train.metric", "buy/auc"]),
        ("bpr", {"data.labels": ["a", "b"]}, ["data.labels", "bpr", "data.label=a"]),
        ("tokenmixer_large", {"data.labels": ["a", "b"], **ESMM}, ["auxiliary", "model.auxiliary_weight=0"]),
    ],
)
def test_impossible_settings_are_refused_by_name(model: str, given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        resolve(model, given)
    assert all(word in str(error.value) for word in words), error.value


def test_settings_of_several_labels_do_nothing_beside_one() -> None:
    with pytest.raises(IdleSetting, match=r"data\.labels"):
        resolve("id", {"model.label_weights": [2.0]})


def test_the_first_label_is_the_main_one() -> None:
    cfg = resolve("id", {"data.labels": ["click", "buy"], "train.metric": "buy|click/logloss"})
    assert (cfg.data.label, cfg.data.label_names) == ("click", ["click", "buy"])


# --------------------------------------------------------------------------------------------------------------- losses
def test_each_label_has_a_cross_entropy_of_the_rows_that_have_it(tmp_path: Path) -> None:
    click, buy = pattern(60)
    made = task(clicks(tmp_path / "d", click, [None if k % 4 == 3 else b for k, b in enumerate(buy)]), tmp_path)
    assert any("label buy: 15 rows have none" in note for note in made.notes)
    batch = made.batch(np.arange(8), 0, 0)
    made.eval()
    logits = made.ranker.label_logits(made.ranker.tokens(made.batch_of(batch.users, batch.items, batch.history, None)))
    parts = made.ranker.losses(made.batch_of(batch.users, batch.items, batch.history, None), batch.labels)
    entropy, keep = torch.nn.functional.binary_cross_entropy_with_logits, [k for k in range(8) if k % 4 != 3]
    assert parts.keys() == {"bce", "bce/buy"} and logits.shape == (8, 1, 2)
    assert torch.allclose(parts["bce"], entropy(logits[:, 0, 0], torch.tensor(click[:8]), reduction="sum"))
    wanted = entropy(logits[keep, 0, 1], torch.tensor(buy)[keep], reduction="sum")
    assert torch.allclose(parts["bce/buy"], wanted)


def test_weights_are_of_the_labels_in_their_order(tmp_path: Path) -> None:
    data = clicks(tmp_path / "d", *pattern(60))
    made = task(data, tmp_path, **{"model.label_weights": [1.0, 0.25]})
    batch = made.batch(np.arange(8), 0, 0)
    (parts,) = made.losses(batch, None, 0)
    assert torch.isclose(parts["loss"], (parts["bce"] + 0.25 * parts["bce/buy"]).double())


@pytest.mark.parametrize("head", ["dot_mlp", "wide_deep", "deepfm", "dcnv2", "din", "rankmixer", "tokenmixer_large"])
def test_every_head_gives_a_logit_per_label(head: str, tmp_path: Path) -> None:
    data = clicks(tmp_path / "d", *pattern(60))
    small = {k: v for k, v in SMALL.items() if k not in ("model.hidden", "data.labels")}
    for number, more in enumerate(({}, ESMM | ({"model.auxiliary_weight": 0} if head == "tokenmixer_large" else {}))):
        given = small | {"model.content": "none", "data.labels": ["click", "buy"]} | more
        made = ImpressionTask(resolve(head, given), data, tmp_path)
        (parts,) = made.losses(made.batch(np.arange(8), 0, 0), None, 0)
        parts["loss"].backward()
        assert {"bce", "bce/buy"} <= parts.keys() and torch.isfinite(parts["loss"]), (head, number)


class OneLogit(Head):
    """A head of another package that knows nothing of several labels."""

    def __init__(self, cfg: RankerConfig, names: Sequence[str], dim: int):
        super().__init__()
        self.out = torch.nn.Linear(len(names) * dim, 1)

    def forward(self, tokens: Tokens) -> torch.Tensor:
        return self.out(tokens.values.flatten(2))


def test_a_head_of_one_logit_is_refused_several_but_serves_esmm(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("rawrec.models.ranking.ranker.model_class", lambda name: OneLogit)
    data = clicks(tmp_path / "d", *pattern(60))
    with pytest.raises(UserError, match="takes no `labels`"):
        task(data, tmp_path)
    (parts,) = (made := task(data, tmp_path, **ESMM)).losses(made.batch(np.arange(8), 0, 0), None, 0)
    assert torch.isfinite(parts["bce/buy"])


def test_esmm_says_click_and_click_times_conversion(tmp_path: Path) -> None:
    made = task(clicks(tmp_path / "d", *pattern(60)), tmp_path, **ESMM)
    made.eval()
    batch = made.batch(np.arange(8), 0, 0)
    made.eval()
    tokens = made.ranker.tokens(made.batch_of(batch.users, batch.items, batch.history, None))
    found = torch.sigmoid(made.ranker.label_logits(tokens))
    given = made.ranker.head(tokens).probabilities()
    assert torch.allclose(found[..., 0], given["ctr"]) and torch.allclose(found[..., 1], given["ctcvr"], atol=1e-6)
    names = [name for name, _ in made.ranker.named_parameters() if "head." in name]
    assert {name.split(".")[1] for name in names} == {"click", "conversion"}


def test_under_esmm_what_was_not_clicked_is_no_conversion(tmp_path: Path) -> None:
    click = [0, 0, 0, 1, 1, 1, None, None] * 8
    buy = [0, 1, None, 0, 1, None, 0, 1] * 8
    data = clicks(tmp_path / "d", click, buy)
    made = task(data, tmp_path, **ESMM)
    values = made.samples.further["buy"][:8]
    assert np.array_equal(values, [0, 0, 0, 0, 1, np.nan, 0, np.nan], equal_nan=True)
    assert any("buy: 8 rows are positive where click is not, taken for 0" in note for note in made.notes)
    apart = task(data, tmp_path)
    assert np.array_equal(apart.samples.further["buy"][:4], [0, 1, np.nan, 0], equal_nan=True)
    assert any("so buy|click is not measured" in note for note in apart.notes)
    assert "buy|click/auc" not in apart.probe().metrics and "buy|click/auc" in made.probe().metrics


# ------------------------------------------------------------------------------------------------------------ all equal
def test_a_label_without_positives_is_told_and_its_metrics_have_a_reason(tmp_path: Path) -> None:
    click, _ = pattern(60)
    run = train(
        "id", clicks(tmp_path / "d", click, [0.0] * 60), tmp_path / "run", SMALL | {"data.labels": ["click", "buy"]}
    )
    found = json.loads((run.path / "metrics.json").read_text())
    assert found["test"]["buy/auc"] is None and found["test"]["buy/pcoc"] is None
    assert found["test"]["buy|click/auc"] is None and found["test"]["buy/logloss"] is not None
    assert found["reasons"]["test"]["buy/auc"] == "every label is 0"
    assert "label buy: every training row is 0" in (run.path / "log.txt").read_text()


def test_a_label_that_training_lacks_altogether_is_refused(tmp_path: Path) -> None:
    click, _ = pattern(60)
    with pytest.raises(UserError, match="label 'buy': no row of the training part"):
        task(clicks(tmp_path / "d", click, [None] * 60), tmp_path)


def test_rows_without_the_only_label_are_no_samples(tmp_path: Path) -> None:
    click, buy = pattern(60)
    data = clicks(tmp_path / "d", click, [None if k < 10 else b for k, b in enumerate(buy)])
    made = task(data, tmp_path, **{"data.labels": [], "data.label": "buy"})
    assert made.samples.rows(0).min() == 10 and made.notes[-1].startswith("label buy: 10 rows have none")


def test_labels_are_asked_of_data_that_have_them(tmp_path: Path, shop: Path) -> None:
    with pytest.raises(UserError, match="label 'like' does not exist"):
        train("id", shop, tmp_path / "run", SMALL | {"data.labels": ["label", "like"]})


# ------------------------------------------------------------------------------------------------- metrics and scores
def test_metrics_and_scores_of_each_label(tmp_path: Path, shop: Path) -> None:
    run = train("id", shop, tmp_path / "run", SMALL | ESMM)
    test = json.loads((run.path / "metrics.json").read_text())["test"]
    frame = pl.read_parquet(run.path / "scores.parquet").filter(pl.col("split") == 2)
    assert test["auc"] == auc(frame["label"], frame["score"])
    assert test["buy/auc"] == auc(frame["label/buy"], frame["score/buy"])
    assert test["buy/pcoc"] == pytest.approx(pcoc(frame["label/buy"], frame["score/buy"]))
    clicked = frame.filter(pl.col("label") == 1)
    assert test["buy|label/auc"] == pytest.approx(auc(clicked["label/buy"], clicked["score/buy"] / clicked["score"]))
    assert test["buy|label/impressions"] == len(clicked)
    data = Dataset.open(shop)
    rows = frame["row"].to_numpy()
    best = auc(frame["label/buy"], data.column("probability")[rows] * data.column("buy_probability")[rows])
    assert test["buy/auc_best"] == best and (frame["score/buy"] <= frame["score"]).all()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert all({"loss/bce", "loss/bce/buy", "valid/buy/auc", "valid/auc"} <= line.keys() for line in lines)


def test_a_model_with_content_learns_several_labels_end_to_end(tmp_path: Path, shop: Path) -> None:
    given = {"data.labels": ["label", "buy"], "train.epochs": 1, "eval.full_ranking": False, **ESMM}
    run = train(settings(), shop, tmp_path / "run", given)
    test = json.loads((run.path / "metrics.json").read_text())["test"]
    assert all(test[name] is not None for name in ("auc", "buy/auc", "buy|label/auc", "stale/auc"))


def test_early_stopping_follows_another_label_where_it_is_told_to(tmp_path: Path, shop: Path) -> None:
    run = train("id", shop, tmp_path / "run", SMALL | {"train.metric": "buy|label/logloss"})
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["valid/buy|label/logloss"])
    assert run.info()["best_epoch"] == best["epoch"]


# --------------------------------------------------------------------------------------------------------------- resume
@pytest.mark.parametrize("more", [{}, ESMM])
def test_resume_is_exact(more: dict[str, Any], tmp_path: Path, shop: Path) -> None:
    chosen = SMALL | more | {"train.checkpoint_every": 1}
    whole = rawrec.train("id", shop, tmp_path / "whole", chosen)
    with pytest.raises(Stop):
        train("id", shop, tmp_path / "cut", chosen, observer=stopping_after(5))
    assert digest(resume(tmp_path / "cut").path) == digest(whole.path)
