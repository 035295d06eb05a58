"""What an evaluation says, against brute force, and the files it leaves."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rawrec.config import resolve
from rawrec.config.metrics import OF_ALL_LISTS
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.models.ranking.context import Moments
from rawrec.report import build_report
from rawrec.training import evaluate as evaluation
from rawrec.training.evaluate import FEWEST, evaluate_part, evaluate_topk, list_users, same_for_all
from rawrec.training.job import evaluate, load_task, train
from rawrec.training.metrics import best_possible, judgements
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask
from systems import config, digest, settings, small_dataset, system


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
    (judged,) = judgements(trained, sample, np.zeros((len(sample.rows), 1), np.float32))
    perfect = best_possible(judged, {"auc": metrics["test"]["auc_best"], "empty/auc": None}, {})
    assert perfect == {"auc_best": metrics["test"]["auc_best"], "share": 1.0}


def test_data_that_were_not_generated_have_no_best(tmp_path: Path) -> None:
    made = positives(tmp_path)
    metrics, _, frame = evaluate_part(made, 2, 0)
    assert "share" not in metrics and "auc_best" not in metrics
    assert metrics["sampled"] == 3  # positive-only data: negatives are drawn, and it says so
    assert metrics["undrawn"] == 0
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
    pairs = list(zip(data.users.tolist(), data.items.tolist(), strict=True))
    earlier = {pairs[row] for row in np.flatnonzero(positive & (samples.part >= 0) & (samples.part < part))}
    taken = (samples.part == part) & positive & np.array([pair not in earlier for pair in pairs])
    users = sorted(set(data.users[taken].tolist()))
    lists, recalls, gains, precisions = [], [], [], []
    for user in users:
        own = (data.users == user) & positive
        wanted = set(data.items[own & taken].tolist())
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
    expected = {f"{name}@{k}": float(value) for name, value in means.items()}
    again = {pairs[row] for row in np.flatnonzero((samples.part == part) & positive)} & earlier
    return users, lists, expected | {"topk_repeated": len(again)}


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
            assert result.metrics.get(key, 0) == pytest.approx(value, abs=0.01 if same < len(users) else 1e-9)
        assert result.metrics["topk_users"] == len(users)
        assert (result.metrics.get("topk_repeated", 0) > 0) == (which == "shop")


def test_saved_lists(run: RunFolder, trained: ImpressionTask) -> None:
    result, frame = evaluate_topk(trained, 2, [3, 8]), pl.read_parquet(run.path / "topk.parquet")
    assert frame["user"].to_list() == result.users.tolist()
    assert frame["items"].to_list() == result.lists.items.tolist()
    np.testing.assert_allclose(frame["recall@8"], result.per_user["recall@8"])


def test_what_lists_are_like_is_measured_by_training_positives_and_content(
    trained: ImpressionTask, metrics: dict, shop: Path
) -> None:
    result, data = evaluate_topk(trained, 2, [3, 8]), Dataset.open(shop)
    pairs = {
        (u, i)
        for u, i, p, y in zip(data.users, data.items, data.split(), data.label(), strict=True)
        if p == 0 and y > 0
    }
    popularity = np.array([sum(i == item for _, i in pairs) for item in range(data.n_items)])
    lists = result.lists.items[:, :8]
    assert result.metrics["popularity@8"] == pytest.approx(popularity[lists].mean())
    users = len({u for u, _ in pairs})
    assert result.metrics["novelty@8"] == pytest.approx(np.log2(users / np.maximum(popularity[lists], 1)).mean())
    assert result.metrics["coverage@8"] == len(np.unique(lists)) / data.n_items
    cold = np.bincount(data.items[data.split() == 0], minlength=data.n_items) == 0
    assert result.metrics["cold/exposure@8"] == pytest.approx(cold[lists].mean())
    table = trained.table()
    assert table is not None and not table.valid.all()
    unit = torch.nn.functional.normalize(table.values.double(), dim=1).detach() * table.valid[:, None]
    there = table.valid[lists].sum(1).double()
    cosines = (unit[lists] @ unit[lists].transpose(1, 2)).sum((1, 2)) - there
    np.testing.assert_allclose(result.per_user["diversity@8"], 1 - cosines / (there * (there - 1)), atol=1e-5)
    assert metrics["test"]["diversity@8"] == pytest.approx(result.metrics["diversity@8"], abs=1e-6)
    assert {f"{name}@3" for name in OF_ALL_LISTS if name != "exposure"} <= metrics["test"].keys()
    assert "diversity@8" not in evaluate_topk(trained, 2, [8], diversity=False).metrics


def test_lists_that_are_the_same_for_all_are_told_of(shop: Path) -> None:
    data = Dataset.open(shop)
    lists = np.random.default_rng(0).permuted(np.tile(np.arange(data.n_items), (40, 1)), axis=1)[:, :4]
    assert same_for_all(lists, data, "test") is None
    lists[:30, 0], lists[1:, 3] = 7, 5
    told = same_for_all(lists, data, "test")
    assert told is not None and f"item {data.item_ids[5]} stands in 9" in told
    assert "of the lists of 4 (test), and 2 items stand in more than half of them" in told
    assert f"{len(np.unique(lists))} of {data.n_items} items are in any" in told


# ----------------------------------------------------------------------------------------------- lists of some users
def test_some_users_get_the_lists_that_all_would(trained: ImpressionTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same users for every seed, fewer among more, and nothing else changes for them."""
    everyone = evaluate_topk(trained, 2, [3, 8])
    row = {user: k for k, user in enumerate(everyone.users.tolist())}
    assert "topk_users_of" not in everyone.metrics and len(row) > 20
    found = {}
    for count, seed in ((20, 0), (20, 1), (6, 0)):
        monkeypatch.setattr(trained.cfg.eval, "topk_users", count)
        monkeypatch.setattr(trained.cfg, "seed", seed)
        some = found[count] = evaluate_topk(trained, 2, [3, 8], user_batch=7)
        at = [row[user] for user in some.users.tolist()]
        assert len(at) == count and at == sorted(at)
        assert some.lists.items.tolist() == everyone.lists.items[at].tolist()
        assert (some.metrics["topk_users"], some.metrics["topk_users_of"]) == (count, len(row))
        assert some.metrics["recall@8"] == pytest.approx(np.mean(everyone.per_user["recall@8"][at]), abs=1e-12)
        samples, data = trained.samples, trained.data
        own = samples.positive & np.isin(data.users, some.users)
        pairs = [set(zip(data.users[own & part].tolist(), data.items[own & part].tolist(), strict=True))
                 for part in (samples.part == 2, (samples.part >= 0) & (samples.part < 2))]  # fmt: skip
        assert some.metrics.get("topk_repeated", 0) == len(pairs[0] & pairs[1])
        if count == 20:
            assert some.users.tolist() == found[20].users.tolist()
    assert set(found[6].users.tolist()) < set(found[20].users.tolist())
    assert at != list(range(6))
    other = trained.data.meta.splits["default"] | {"seed": 7}
    monkeypatch.setitem(trained.data.meta.splits, "default", other)
    assert evaluate_topk(trained, 2, [3]).users.tolist() != found[6].users.tolist()


def test_a_ranker_makes_as_many_lists_as_the_catalogue_allows(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Dataset.open(shop)
    cfg = config(model__name="id")
    assert list_users(cfg, 100_000) == 2000 and list_users(cfg, 10**9) == FEWEST
    assert list_users(config(model__name="id", eval__topk_users=7), 100_000) == 7
    assert list_users(resolve("bpr", {}), 10**9) is None and list_users(resolve("bpr", {"eval.topk_users": 7}), 3) == 7
    monkeypatch.setattr(evaluation, "SCORES", 9 * data.n_items)
    monkeypatch.setattr(evaluation, "FEWEST", 2)
    monkeypatch.setattr(evaluation, "SCORES_AT_ONCE", 3 * data.n_items)
    run = train(settings(model__name="id", train__epochs=1), data, tmp_path / "run")
    test = json.loads((run.path / "metrics.json").read_text())["test"]
    assert test["topk_users"] == pl.read_parquet(run.path / "topk.parquet").height == 9 < test["topk_users_of"]
    said = f"lists of 9 of {test['topk_users_of']} users, drawn once for the split (eval.topk_users)"
    assert said in (run.path / "log.txt").read_text()
    bare = train(settings(model__name="id", train__epochs=1, eval__full_ranking=False), data, tmp_path / "bare")
    assert "lists of" not in (bare.path / "log.txt").read_text()
    page = build_report(run.path).read_text()
    assert f"For 9 of the {test['topk_users_of']} users with a positive in the test part, drawn once" in page
    with pytest.raises(UserError, match=r"eval\.topk_users.*makes no lists"):
        resolve("id", {"eval.topk_users": 5, "eval.full_ranking": False})


def test_a_part_without_positives_gives_no_lists(tmp_path: Path) -> None:
    rows = [(k % 3, k % 5, k, float(k % 2) * (k < 16)) for k in range(20)]
    data = small_dataset(tmp_path / "data", rows, 5, parts=["train"] * 10 + ["valid"] * 6 + ["test"] * 4)
    made = system(data, tmp_path, model__name="id").eval()
    result = evaluate_topk(made, 2, [3])
    assert len(result.users) == 0 and result.metrics["recall@3"] is None and result.reasons["recall@3"]


# ------------------------------------------------------------------------------------------- what lists leave out
def rated(folder: Path) -> Dataset:
    """Twelve users who buy items of their own again, and have rated others badly, which two of them take later."""
    rows, parts = [], []
    for user in range(12):
        bought, disliked = [user, user + 1, user + 2], [user + 3, user + 4]
        for time, part in enumerate(("train", "valid", "test")):
            rows += [(user, item, 10 * time, 1.0) for item in bought]
            rows += [(user, item, 10 * time, 0.0) for item in disliked if part == "train"]
            parts += [part] * (3 + 2 * (part == "train"))
    for user in (3, 4):
        rows.append((user, user + 3, 25, 1.0))
        parts.append("test")
    return small_dataset(folder, rows, 20, parts=parts)


class Perfect:
    """Scores what the user takes in the test part above all else."""

    def __init__(self, data: Dataset):
        wanted = (data.split() == 2) & (data.label() > 0)
        self.scores = torch.zeros(data.n_users, data.n_items)
        self.scores[data.users[wanted], data.items[wanted]] = 1.0

    def __call__(self, moments: Moments, *_: object) -> torch.Tensor:
        return self.scores[torch.from_numpy(moments.users)].clone()


@pytest.mark.parametrize(
    ("exclude", "repeated", "left"), [("none", 0, 12), ("positives", 36, 2), ("interactions", 38, 0)]
)
def test_a_perfect_scorer_finds_all_that_is_asked_for(
    tmp_path: Path, exclude: str, repeated: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = rated(tmp_path / "data")
    made = system(data, tmp_path, model__name="id", eval__exclude_seen=exclude).eval()
    monkeypatch.setattr(made, "score_all", Perfect(data))
    result = evaluate_topk(made, 2, [8])
    assert result.metrics["topk_users"] == len(result.users) == left
    assert result.metrics.get("topk_repeated", 0) == repeated
    if left:
        assert result.metrics["recall@8"] == result.metrics["ndcg@8"] == 1.0
    else:
        assert result.metrics["recall@8"] is None and result.reasons["recall@8"]
    for user, items in zip(result.users, result.lists.items, strict=True):
        own = (data.users == user) & (data.split() < 2)
        gone = {"none": own & False, "positives": own & (data.label() > 0), "interactions": own}[exclude]
        assert not set(items.tolist()) & set(data.items[gone].tolist())


def test_yes_and_no_are_positives_and_nothing() -> None:
    assert [config(eval__exclude_seen=value).eval.exclude_seen for value in (True, False, "interactions")] == [
        "positives",
        "none",
        "interactions",
    ]
    with pytest.raises(UserError, match=r"eval\.exclude_seen"):
        config(eval__exclude_seen="all")


# -------------------------------------------------------------------------------------------------------------- labels
def test_labels_above_zero_are_positive_on_any_scale(tmp_path: Path) -> None:
    """Clicks, signs, stars, counts, seconds and shares of a film: the very same run."""
    rng = np.random.default_rng(0)
    clicks = rng.integers(0, 2, 400)
    scales = {
        "clicks": clicks,
        "signs": 2 * clicks - 1,
        "stars": 5 * clicks,
        "counts": clicks * rng.integers(1, 4, 400),
        "seconds": clicks * rng.uniform(1, 300, 400),
        "shares": clicks * rng.uniform(0.01, 0.99, 400),
    }
    lines = {}
    for name, labels in scales.items():
        chance = np.random.default_rng(1)
        rows = [(int(chance.integers(0, 15)), int(chance.integers(0, 20)), k, float(y)) for k, y in enumerate(labels)]
        data = small_dataset(tmp_path / name / "data", rows, 20)
        run = train(settings(model__name="id"), data, tmp_path / name / "run")
        lines[name] = digest(run.path) | {"scores": pl.read_parquet(run.path / "scores.parquet")["label"].to_list()}
    assert all(found == lines["clicks"] for found in lines.values())
    assert set(lines["clicks"]["scores"]) == {0.0, 1.0}


def test_positives_without_a_negative_are_told_of(tmp_path: Path) -> None:
    """A user who took everything, and whoever came first, give no samples; log and metrics say how many."""
    rows = [(0, item, item, 1.0) for item in range(6)] + [(user, user, 10 + user, 1.0) for user in range(1, 6)]
    parts = ["train"] * 6 + ["train", "valid", "valid", "test", "test"]
    rows.append((0, 2, 30, 1.0))
    parts.append("test")
    data = small_dataset(tmp_path / "data", rows, 6, labelled=False, parts=parts)
    run = train(settings(model__name="id", train__metric="logloss"), data, tmp_path / "run")
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics["test"]["undrawn"] == 1 and metrics["valid"]["undrawn"] == 0
    assert metrics["test"]["impressions"] == 2 * (1 + metrics["test"]["sampled"])
    assert "without a negative, left out: 6 of train, 1 of test" in (run.path / "log.txt").read_text()
    everything = small_dataset(
        tmp_path / "all", [*rows[:6], (1, 0, 9, 1.0)], 6, labelled=False, parts=[*parts[:6], "valid"]
    )
    with pytest.raises(UserError, match="none of its 6 positives has an item left"):
        train(settings(model__name="id"), everything, tmp_path / "none")
