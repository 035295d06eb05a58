"""What an evaluation says, against brute force, and the files it leaves."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rawrec.data.dataset import Dataset
from rawrec.training.evaluate import evaluate_part, evaluate_topk
from rawrec.training.job import evaluate, load_task, train
from rawrec.training.metrics import best_possible
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask
from systems import settings, small_dataset, system


@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(settings(train__lr=0.01, eval__topk=[3, 8]), shop, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def trained(run: RunFolder) -> ImpressionTask:
    return load_task(run)


@pytest.fixture(scope="module")
def metrics(run: RunFolder) -> dict:
    return json.loads((run.path / "metrics.json").read_text())


# ---------------------------------------------------------------------------------------------------------- impressions
def test_scores_belong_to_their_interactions(run: RunFolder, shop: Path, metrics: dict) -> None:
    data, frame = Dataset.open(shop), pl.read_parquet(run.path / "scores.parquet")
    part = data.split()
    for name, value in (("valid", 1), ("test", 2)):
        rows = frame.filter(pl.col("split") == value)
        assert rows["row"].to_list() == np.flatnonzero(part == value).tolist()
        at = rows["row"].to_numpy()
        assert (rows["user"].to_numpy() == data.users[at]).all() and (rows["item"].to_numpy() == data.items[at]).all()
        assert (rows["label"].to_numpy() == data.label()[at]).all()
        assert metrics[name]["auc"] == pytest.approx(roc_auc_score(rows["label"], rows["score"]), abs=1e-9)
        assert metrics[name]["impressions"] == len(rows)
    assert len(frame) == (part > 0).sum()
    counts = np.bincount(data.items[part == 0], minlength=data.n_items)
    cold = frame.filter((pl.col("split") == 2) & pl.Series(counts[frame["item"].to_numpy()] == 0))
    assert len(cold) > 10
    assert metrics["test"]["cold/auc"] == pytest.approx(roc_auc_score(cold["label"], cold["score"]), abs=1e-9)


def test_one_impression_at_a_time_is_the_same(trained: ImpressionTask) -> None:
    """Nothing of a batch leaks into a score: a few impressions, each scored alone."""
    sample = trained.samples.impressions(trained.samples.rows(2), 2, np.random.default_rng(0))
    together = trained.score_impressions(sample, 2)
    table = trained.table()
    history = trained.samples.histories(sample, 2)
    for k in range(0, len(sample.rows), 29):
        with torch.no_grad():
            logit = trained.ranker(
                trained.batch_of(
                    torch.tensor(sample.users[k : k + 1]),
                    torch.tensor(sample.items[k : k + 1]),
                    torch.tensor(history[k : k + 1]),
                    table,
                )
            )
        assert float(torch.sigmoid(logit)) == pytest.approx(float(together[k, 0]), abs=1e-6)


def test_the_best_possible_and_the_share_of_it(trained: ImpressionTask, shop: Path, metrics: dict) -> None:
    data = Dataset.open(shop)
    for name, value in (("valid", 1), ("test", 2)):
        rows = np.flatnonzero(data.split() == value)
        best = roc_auc_score(data.label()[rows], data.column("probability")[rows])
        got = metrics[name]
        assert got["auc_best"] == pytest.approx(best, abs=1e-9)
        assert got["share"] == pytest.approx((got["auc"] - 0.5) / (best - 0.5), abs=1e-9)
    sample = trained.samples.impressions(trained.samples.rows(2), 2, np.random.default_rng(0))
    perfect = best_possible(data, sample, {"auc": metrics["test"]["auc_best"], "empty/auc": None}, {})
    assert perfect == {"auc_best": metrics["test"]["auc_best"], "share": 1.0}


def test_data_that_were_not_generated_have_no_best(tmp_path: Path) -> None:
    made = positives(tmp_path)
    metrics, _, frame = evaluate_part(made, 2, 0)
    assert "share" not in metrics and "auc_best" not in metrics
    assert metrics["sampled"] == 3  # positive-only data: negatives are drawn, and it says so
    assert frame["label"].mean() == pytest.approx(1 / 4)
    again, _, same = evaluate_part(made, 2, 0)
    assert same.equals(frame) and again == metrics


def test_saved_metrics_are_what_an_evaluation_finds(run: RunFolder, metrics: dict) -> None:
    for name in ("valid", "test"):
        for key, value in evaluate(run.path, name, full_ranking=name == "test").items():
            if key in metrics[name]:
                assert metrics[name][key] == (None if value is None else pytest.approx(value, abs=1e-6)), key
    assert "stale/auc" in metrics["test"] and "recall@8" in metrics["test"]


# -------------------------------------------------------------------------------------------------------- full rankings
def positives(folder: Path, mode: str = "rolling") -> ImpressionTask:
    """A fresh id model on positive-only data: nine users with positives in every part, and one who knows every item.

    Thus no item is cold, and no two have the same score.
    """
    rng = np.random.default_rng(0)
    rows, parts = [], []
    for user in range(9):
        for time, item in enumerate(rng.permutation(25)[:12]):
            rows.append((user, int(item), time * 10 + user, 1.0))
            parts.append("train" if time < 7 else "valid" if time < 9 else "test")
    rows += [(9, item, item, 1.0) for item in range(25)]
    parts += ["train"] * 25
    data = small_dataset(folder / "data", rows, 25, labelled=False, parts=parts)
    return system(data, folder, model__name="id", data__history=4, data__history_mode=mode, data__negatives=3)


def brute_force(made: ImpressionTask, part: int, k: int) -> tuple[list[int], list[list[int]], dict[str, float]]:
    """Every item scored for every user one at a time, ranked by a plain sort."""
    samples, data, table = made.samples, made.data, made.table()
    positive = samples.labels > 0
    users = sorted(set(data.users[(samples.part == part) & positive].tolist()))
    lists, recalls, gains, precisions = [], [], [], []
    for user in users:
        own = (data.users == user) & positive
        wanted = set(data.items[own & (samples.part == part)].tolist())
        masked = set(data.items[own & (samples.part >= 0) & (samples.part < part)].tolist())
        first = samples.times[own & (samples.part == part)].min()
        readable = own if samples.eval_histories is not samples.train_histories else own & (samples.part == 0)
        before = np.flatnonzero(readable & (samples.times < first))
        before = before[np.argsort(samples.times[before], kind="stable")][-samples.history :]
        history = torch.full((1, samples.history), -1)
        if len(before):
            history[0, -len(before) :] = torch.from_numpy(data.items[before].astype(np.int64))
        scores = {}
        for item in range(data.n_items):
            with torch.no_grad():
                given = made.batch_of(torch.tensor([user]), torch.tensor([[item]]), history, table)
                scores[item] = float(made.ranker(given))
        ranked = [i for i in sorted(scores, key=lambda i: -scores[i]) if i not in masked][:k]
        lists.append(ranked)
        hits = [item in wanted for item in ranked]
        recalls.append(sum(hits) / len(wanted))
        precisions.append(sum(hits) / k)
        ideal = sum(1 / np.log2(r + 2) for r in range(min(k, len(wanted))))
        gains.append(sum(hit / np.log2(r + 2) for r, hit in enumerate(hits)) / ideal)
    means = {"recall": np.mean(recalls), "ndcg": np.mean(gains), "precision": np.mean(precisions)}
    return users, lists, {f"{name}@{k}": float(value) for name, value in means.items()}


@pytest.mark.parametrize("which", ["rolling", "train", "shop"])
def test_lists_against_brute_force(tmp_path: Path, trained: ImpressionTask, which: str) -> None:
    made = (trained if which == "shop" else positives(tmp_path, which)).eval()
    for part in (1, 2):
        result = evaluate_topk(made, part, [3, 8], user_batch=4)
        users, lists, expected = brute_force(made, part, 8)
        assert result.users.tolist() == users and len(users) > 5
        same = sum(got == want for got, want in zip(result.lists.items.tolist(), lists, strict=True))
        assert same >= len(users) - 1  # two scores may be equal to the last bit but one
        for key, value in expected.items():
            assert result.metrics[key] == pytest.approx(value, abs=0.01 if same < len(users) else 1e-9)
        assert result.metrics["topk_users"] == len(users)


def test_saved_lists(run: RunFolder, trained: ImpressionTask) -> None:
    result, frame = evaluate_topk(trained, 2, [3, 8]), pl.read_parquet(run.path / "topk.parquet")
    assert frame["user"].to_list() == result.users.tolist()
    assert frame["items"].to_list() == result.lists.items.tolist()
    np.testing.assert_allclose(frame["recall@8"], result.per_user["recall@8"])


def test_a_part_without_positives_gives_no_lists(tmp_path: Path) -> None:
    rows = [(k % 3, k % 5, k, float(k % 2) * (k < 16)) for k in range(20)]
    data = small_dataset(tmp_path / "data", rows, 5, parts=["train"] * 10 + ["valid"] * 6 + ["test"] * 4)
    made = system(data, tmp_path, model__name="id").eval()
    result = evaluate_topk(made, 2, [3])
    assert len(result.users) == 0 and result.metrics["recall@3"] is None and result.reasons["recall@3"]
