"""What pictures and texts add, as a report shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rawrec.data.dataset import Dataset
from rawrec.evaluation.ctr import auc, buckets_of
from rawrec.report import build_report
from rawrec.report.effects import effects
from rawrec.serving.recommender import Recommender
from rawrec.training.job import load_task, train
from rawrec.training.masking import masked
from rawrec.training.tasks.impressions import ImpressionTask
from report_pages import check_self_contained, read
from systems import settings, small_dataset


@pytest.fixture(scope="module")
def recommender(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    run = train(settings(train__lr=0.01, eval__topk=[3, 20]), shop, tmp_path_factory.mktemp("runs") / "em3")
    return Recommender.load(run.path)


@pytest.fixture(autouse=True)
def _undrawn(undrawn: None) -> None:
    pass


def test_effects_are_differences_of_what_is_scored(recommender: Recommender) -> None:
    task = recommender.task
    assert isinstance(task, ImpressionTask)
    buckets = buckets_of(task.train_counts)
    found = effects(task, 1000, buckets)
    assert found is not None and found.names == ["AUC", "GAUC"] and found.of == "" and found.notes == []
    assert [line.what for line in found.lines if not line.bucket] == ["pictures", "texts", "all content"]
    sample = task.evaluation_sample(2)
    full = task.score_impressions(sample, 2).ravel()
    labels = sample.labels.ravel()
    for what, names in (("pictures", ["image"]), ("texts", ["text"]), ("all content", ["image", "text"])):
        with masked(task, names):
            less = task.score_impressions(sample, 2).ravel()
        for line in found.lines:
            if line.what == what:
                at = buckets[line.bucket][sample.items.ravel()] if line.bucket else np.ones(len(labels), bool)
                cell = line.cells[0]
                assert line.judged == at.sum()
                assert cell.full == pytest.approx(auc(labels[at], full[at]))
                assert cell.without == pytest.approx(auc(labels[at], less[at]), abs=1e-6)
                assert cell.adds.value == pytest.approx(cell.full - cell.without)
                assert cell.good in ((None,) if (cell.corrected or 1) >= 0.05 else (cell.adds.value > 0,))
    assert found.tested.count == sum(cell.p is not None for line in found.lines for cell in line.cells)


def test_of_many_items_some_users_are_judged(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawrec.report.effects.ENCODED", 30)
    monkeypatch.setattr("rawrec.report.effects.ENOUGH", 5)
    task = recommender.task
    found = effects(task, 1000, {})  # type: ignore[arg-type]
    assert found is not None and "users of the test part, drawn once" in found.of
    assert found.lines[0].judged < len(task.evaluation_sample(2).rows)  # type: ignore[union-attr]


def test_on_the_page(recommender: Recommender, shop: Path, tmp_path: Path) -> None:
    path = build_report(recommender.run.path, out=tmp_path / "a.html", recommender=recommender)
    check_self_contained(path)
    _, text = read(path)
    assert "What pictures and texts add" in text and "as if no item had the one or the other" in text
    assert "Map of the items" in text
    alone = build_report(recommender.run.path, out=tmp_path / "b.html")
    assert "What pictures and texts add" not in read(alone)[1]


def test_a_model_of_ids_alone_has_none(shop: Path, tmp_path: Path) -> None:
    run = train("id", shop, tmp_path / "id", {"train.epochs": 1, "train.threads": 1, "eval.topk": [5]})
    rec = Recommender.load(run.path)
    assert effects(rec.task, 1000, {}) is None
    vectors, there = rec.item_vectors([str(item) for item in Dataset.open(shop).item_ids[:3]])
    assert vectors.shape[0] == 3 and there.dtype == bool


def test_lists_of_a_retrieval_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawrec.report.effects.ENOUGH", 5)
    rng = np.random.default_rng(0)
    rows = [(user, int(item), k, 1.0) for user in range(30) for k, item in enumerate(rng.permutation(25)[:8])]
    data = small_dataset(
        tmp_path / "d", rows, 25, feature=rng.normal(size=(25, 4)).astype(np.float32),
        parts=(["train"] * 5 + ["valid"] + ["test"] * 2) * 30, labelled=False,
    )  # fmt: skip
    given = {"train.epochs": 1, "train.threads": 1, "eval.topk": [20], "model.embedding_size": 8}
    task = load_task(train("vbpr", data, tmp_path / "run", given))
    found = effects(task, 1000, buckets_of(task.train_counts))
    assert found is not None and found.names == ["Recall@20", "NDCG@20"]
    whole = task.evaluate(2).per_user  # type: ignore[union-attr, arg-type]
    with masked(task, ["feature"]):
        less = task.evaluate(2).per_user  # type: ignore[union-attr, arg-type]
    (line,) = [line for line in found.lines if not line.bucket]
    for cell, name in zip(line.cells, ("recall@20", "ndcg@20"), strict=True):
        assert (cell.full, cell.without) == pytest.approx((whole[name].mean(), less[name].mean()))
