"""Comparisons of runs against scipy and counting by hand, and the tables made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

import rawrec
from rawrec import UserError, cli
from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.evaluation.ctr import auc, logloss
from rawrec.evaluation.significance import paired_bootstrap
from rawrec.report.comparison import BOOTSTRAP, T_TEST, Comparison, Result, compare
from rawrec.report.tables import latex, markdown
from rawrec.training.runs import RunFolder
from systems import small_dataset

USERS = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rows = [(user, item, 0, 1.0) for user in range(USERS) for item in (user % 5, 5)]
    return small_dataset(tmp_path_factory.mktemp("data") / "a_shop", rows, 6, parts=["train", "test"] * USERS)


Make = Callable[..., Path]


@pytest.fixture
def make(data: Dataset, tmp_path: Path) -> Make:
    """Run folders as training leaves them, with values of our own."""

    def made(name: str, model: str = "bpr", lists: Any = None, scores: Any = None, **settings: Any) -> Path:
        overrides = {key.replace("__", "."): value for key, value in settings.items()}
        run = RunFolder.create(tmp_path / name, resolve(model, overrides), data)
        run.write_info(finished=True)
        if lists is not None:
            values = dict(zip(("recall@20", "ndcg@20"), np.atleast_2d(lists), strict=False))
            frame = pl.DataFrame({"user": np.arange(USERS, dtype=np.int32), "items": [[0]] * USERS, **values})
            frame.write_parquet(run.path / "topk.parquet")
        if scores is not None:
            item, label, score = scores
            user = np.repeat(np.arange(USERS, dtype=np.int32), len(score) // USERS)
            frame = {"row": np.arange(len(score)), "user": user, "item": item, "label": label, "score": score}
            parts = pl.concat([pl.DataFrame(frame | {"split": np.full(len(score), part, np.int8)}) for part in (1, 2)])
            parts.write_parquet(run.path / "scores.parquet")
        return run.path

    return made


def values(seed: int, gain: float = 0.0) -> np.ndarray:
    """Two metrics of every user."""
    return np.random.default_rng(seed).random((2, USERS)) + gain


def impressions(seed: int, skill: float, negatives: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Item, label and score of six impressions per user; labels and items change with `negatives` only."""
    rng = np.random.default_rng([1, negatives])
    label = (rng.random(6 * USERS) < 0.4).astype(np.float32)
    item = rng.integers(0, 6, len(label)).astype(np.int32)
    return item, label, 1 / (1 + np.exp(-skill * label - np.random.default_rng(seed).normal(size=len(label))))


def of(found: Comparison, metric: str) -> dict[str, Result]:
    return {result.model: result for result in found.results if result.metric == metric}


def holm_by_hand(p_values: Sequence[float]) -> list[float]:
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, p_values[i] * (len(p_values) - place))
        corrected[i] = min(highest, 1.0)
    return corrected


# ---------------------------------------------------------------------------------------------------------------- lists
def test_t_tests_are_scipys_and_corrected_over_all_of_them(make: Make) -> None:
    base, near, far = values(0), values(1, 0.05), values(2, 0.3)
    found = compare([make("a", lists=base), make("b", "lightgcn", near), make("c", "vbpr", far)])
    assert found.metrics == ["recall@20", "ndcg@20"] and found.baseline == "bpr"
    expected = [
        stats.ttest_rel(other[i], base[i]) for i in range(2) for other in (near, far)
    ]  # by metric, then by model, as results go
    contrasts = [result.contrast for result in found.results if result.contrast is not None]
    assert [c.statistic for c in contrasts] == pytest.approx([test.statistic for test in expected])
    assert [c.p_value for c in contrasts] == pytest.approx([test.pvalue for test in expected])
    assert [c.p_holm for c in contrasts] == pytest.approx(holm_by_hand([test.pvalue for test in expected]))
    assert [c.significant for c in contrasts] == [c.p_holm < 0.05 for c in contrasts]
    assert {c.test for c in contrasts} == {T_TEST} and found.users == {"recall@20": USERS, "ndcg@20": USERS}
    best = of(found, "recall@20")["vbpr"]
    assert best.best and best.mean == pytest.approx(far[0].mean()) and best.deviation is None
    assert best.contrast is not None and best.contrast.low < best.contrast.difference < best.contrast.high
    assert best.contrast.difference == pytest.approx((far - base)[0].mean())


def test_the_bootstrap_interval(make: Make) -> None:
    """The bootstrap's interval is near the t interval where values are many and tame."""
    base, other = values(3), values(4, 0.1)
    found = compare([make("a", lists=base), make("b", "lightgcn", other)], bootstrap=4000)
    contrast = of(found, "recall@20")["lightgcn"].contrast
    assert contrast is not None
    interval = stats.ttest_rel(other[0], base[0]).confidence_interval(0.95)
    assert (contrast.low, contrast.high) == pytest.approx((interval.low, interval.high), abs=0.02)


def test_users_drawn_by_one_run_are_compared(make: Make) -> None:
    """A ranker's lists of some users against a retrieval model's of all: on the users whom both have."""
    base, other = values(0), values(1, 0.1)
    paths, some = [make("a", lists=base), make("b", "lightgcn", other)], np.arange(3, USERS, 4)
    frame = pl.read_parquet(paths[1] / "topk.parquet")
    frame.filter(pl.col("user").is_in(some.tolist())).write_parquet(paths[1] / "topk.parquet")
    with pytest.raises(UserError, match="judged on different users"):
        compare(paths)
    (paths[1] / "metrics.json").write_text(json.dumps({"test": {"topk_users_of": USERS}}))
    found = compare(paths)
    results = of(found, "recall@20")
    assert found.users["recall@20"] == len(some)
    assert results["bpr"].mean == pytest.approx(base[0][some].mean())
    contrast = results["lightgcn"].contrast
    assert contrast is not None and contrast.statistic == pytest.approx(
        stats.ttest_rel(other[0][some], base[0][some]).statistic
    )


def test_metrics_of_all_lists_stand_without_a_test(make: Make) -> None:
    paths = [make("a", lists=values(0)), make("b", "lightgcn", values(1)), make("c", "lightgcn", values(2), seed=1)]
    for path, coverage in zip(paths, (0.5, 0.2, 0.3), strict=True):
        test = {"coverage@20": coverage, "personalisation@20": 0.9, "gini@20": None, "cold/coverage@20": 0.0}
        (path / "metrics.json").write_text(json.dumps({"test": test}))
    found = compare(paths)
    assert found.metrics == ["recall@20", "ndcg@20", "coverage@20", "personalisation@20"]
    result = of(found, "coverage@20")
    assert result["bpr"].best and result["lightgcn"].mean == 0.25 and result["lightgcn"].deviation is not None
    contrast = result["lightgcn"].contrast
    assert contrast is not None and contrast.difference == -0.25 and not contrast.significant
    assert {contrast.low, contrast.high, contrast.test, contrast.statistic, contrast.p_value, contrast.p_holm} == {None}
    alone = [of(compare(paths, metrics=[name]), name)["lightgcn"].contrast for name in ("recall@20", "ndcg@20")]
    both = [of(found, name)["lightgcn"].contrast for name in ("recall@20", "ndcg@20")]
    smallest = min(c.p_value for c in alone if c is not None and c.p_value is not None)
    assert min(c.p_holm for c in both if c is not None and c.p_holm is not None) == pytest.approx(min(1, 2 * smallest))
    assert "Of all lists together, so not tested: coverage@20, personalisation@20." in markdown(found)
    assert "not tested" not in markdown(compare(paths, metrics=["recall@20"])) and "0.2500" in latex(found)
    only = markdown(compare(paths, metrics=["cold/coverage@20"]))
    assert "Holm" not in only and "not tested: cold/coverage@20" in only

    fewer = pl.read_parquet(paths[0] / "topk.parquet").head(USERS // 2)
    fewer.write_parquet(paths[0] / "topk.parquet")
    held = json.loads((paths[0] / "metrics.json").read_text())
    held["test"]["topk_users_of"] = USERS
    (paths[0] / "metrics.json").write_text(json.dumps(held))
    assert compare(paths).metrics == ["recall@20", "ndcg@20"]
    with pytest.raises(
        UserError, match=r"is of all lists together, and .*a has 30 of them, .* 60: compare runs of one"
    ):
        compare(paths, metrics=["coverage@20"])


def test_users_without_a_value_are_left_out_of_the_test(make: Make) -> None:
    """A list without two items of known content has no diversity."""
    a, b = values(0), values(1, 0.1)
    a[0, 3] = b[0, 7] = np.nan
    found = compare([make("a", lists=a), make("b", "lightgcn", b)], metrics=["recall@20"])
    keep = np.delete(np.arange(USERS), [3, 7])
    contrast = found.results[1].contrast
    assert found.users == {"recall@20": USERS - 2} and contrast is not None
    assert contrast.p_value == pytest.approx(stats.ttest_rel(b[0][keep], a[0][keep]).pvalue)
    a[0] = np.nan
    with pytest.raises(UserError, match="undefined for every user"):
        compare([make("c", lists=a), make("d", "lightgcn", b)], metrics=["recall@20"])


def test_seeds_are_averaged_before_the_test(make: Make) -> None:
    base = [make(f"a{s}", lists=values(s), seed=s) for s in range(2)]
    other = [make(f"b{s}", "lightgcn", values(10 + s, 0.1), seed=s, train__threads=s + 1) for s in range(3)]
    found = compare([base[0], *other, base[1]], metrics=["ndcg@20"])
    assert {name: len(runs) for name, runs in found.runs.items()} == {"bpr": 2, "lightgcn": 3}
    a = np.mean([values(s)[1] for s in range(2)], 0)
    b = np.mean([values(10 + s, 0.1)[1] for s in range(3)], 0)
    result = of(found, "ndcg@20")["lightgcn"]
    assert result.contrast is not None and result.contrast.p_value == pytest.approx(stats.ttest_rel(b, a).pvalue)
    means = [values(10 + s, 0.1)[1].mean() for s in range(3)]
    assert (result.mean, result.deviation) == (pytest.approx(np.mean(means)), pytest.approx(np.std(means, ddof=1)))


def test_names_groups_and_baseline(make: Make) -> None:
    shallow, deep = make("x", "lightgcn", values(0)), make("y", "lightgcn", values(1), model__n_layers=3)
    found = compare([shallow, deep])
    assert list(found.runs) == ["lightgcn n_layers=2", "lightgcn n_layers=3"]
    assert compare([shallow, deep], baseline=deep).baseline == "lightgcn n_layers=3"
    assert compare([shallow, deep], baseline="lightgcn n_layers=3").runs == dict(reversed(found.runs.items()))
    grouped = compare([make("z", lists=values(2))], groups={"ours": [shallow, deep]}, baseline="ours")
    assert {name: len(runs) for name, runs in grouped.runs.items()} == {"ours": 2, "bpr": 1}
    assert grouped.baseline == "ours"


def test_models_that_do_not_differ(make: Make) -> None:
    found = compare([make("a", lists=values(0)), make("b", "lightgcn", values(0))])
    contrast = of(found, "recall@20")["lightgcn"].contrast
    assert contrast is not None
    assert (contrast.difference, contrast.p_value, contrast.statistic) == (0, 1, None)
    assert all(result.best for result in found.results)


# ---------------------------------------------------------------------------------------------------------- impressions
def test_auc_by_the_paired_bootstrap(make: Make) -> None:
    better, worse = impressions(0, 2.0), impressions(1, 0.2)
    found = compare(
        [make("a", "id", scores=worse), make("b", "em3", scores=better)], metrics=["auc", "logloss"], bootstrap=500
    )
    users = np.repeat(np.arange(USERS), 6)
    for metric, measure in (("auc", auc), ("logloss", logloss)):
        result = of(found, metric)["em3"]
        assert result.contrast is not None and result.contrast.test == BOOTSTRAP
        expected = paired_bootstrap(users, better[1], better[2], worse[2], metric, 500)  # type: ignore[arg-type]
        assert result.mean == pytest.approx(measure(better[1], better[2]))
        assert result.contrast.difference == pytest.approx(expected.value)
        assert (result.contrast.low, result.contrast.high) == pytest.approx((expected.low, expected.high))
        assert result.contrast.p_value == pytest.approx(2 / 501) and result.contrast.significant and result.best
    assert compare([make("c", "id", scores=worse), make("d", "em3", scores=better)]).metrics == ["auc", "gauc"]


def test_p_of_the_bootstrap_counts_draws_on_the_other_side(make: Make) -> None:
    a, b = impressions(5, 0.5), impressions(6, 0.55)
    found = compare([make("a", "id", scores=a), make("b", "em3", scores=b)], metrics=["auc"], bootstrap=300)
    rng, differences = np.random.default_rng(0), []
    for drawn in rng.integers(USERS, size=(300, USERS)):
        rows = (drawn[:, None] * 6 + np.arange(6)).ravel()
        differences.append(auc(b[1][rows], b[2][rows]) - auc(a[1][rows], a[2][rows]))
    other = min(np.sum(np.array(differences) <= 0), np.sum(np.array(differences) >= 0))
    contrast = of(found, "auc")["em3"].contrast
    assert contrast is not None and contrast.p_value == pytest.approx(min(1, 2 * (other + 1) / 301))


def test_drawn_negatives_must_be_the_same(make: Make) -> None:
    id_runs = [make(f"id{s}", "id", scores=impressions(s, 0.5, s), seed=s) for s in range(2)]
    em3_runs = [make(f"em3{s}", "em3", scores=impressions(9 + s, 1.5, s), seed=s) for s in range(2)]
    found = compare([*id_runs, *em3_runs], metrics=["auc"])
    assert {name: len(runs) for name, runs in found.runs.items()} == {"id": 2, "em3": 2}
    with pytest.raises(UserError, match="negatives are drawn by seed"):
        compare([*id_runs, em3_runs[0]], metrics=["auc"])


def test_rankers_beside_retrieval_models(make: Make) -> None:
    ranker = make("a", "em3", values(0), impressions(0, 1.0))
    assert compare([make("b", lists=values(1)), ranker]).metrics == ["recall@20", "ndcg@20"]
    with pytest.raises(UserError, match="no metric in common"):
        compare([make("c", lists=values(1), seed=1), make("d", "id", scores=impressions(0, 1.0))])


# --------------------------------------------------------------------------------------------------------------- tables
def test_tables_for_a_paper(make: Make) -> None:
    runs = [make(f"a{s}", lists=values(s), seed=s) for s in range(2)]
    groups = {
        "up_50% | ours": [make(f"b{s}", "lightgcn", values(s, 0.5), seed=s) for s in range(2)],
        "down": [make(f"c{s}", "vbpr", values(s, -0.5), seed=s) for s in range(2)],
    }
    found = compare(runs, groups=groups, metrics=["recall@20"])
    text = markdown(found)
    lines = text.splitlines()
    assert lines[0] == "| model | seeds | recall@20 |" and lines[1] == "| --- | ---: | ---: |"
    up = of(found, "recall@20")["up_50% | ours"]
    assert lines[3] == rf"| up_50% \| ours | 2 | **{up.mean:.4f} ± {up.deviation:.4f}**\* |"
    assert lines[4].endswith("†" + " |") and "**" not in lines[4]
    about = lines[-1]
    for part in ("a_shop", "60 users", "2 seeds", "paired t-test over users", "Holm-Bonferroni over 2", "than bpr"):
        assert part in about
    assert "generated" not in about and "(generated data, split" in markdown(replace(found, generated=True))
    made = latex(found)
    assert r"up\_50\% | ours & 2 & \textbf{" in made and r"$^{\dagger}$" in made and r"a\_shop" in made
    assert made.count(r"\\") == 4 and made.count("{") == made.count("}") and "†" not in made and "±" not in made


def test_a_run_that_was_cut_short_is_named(make: Make) -> None:
    paths = [make("a", lists=np.linspace(0, 1, USERS)), make("b_1", "vbpr", lists=np.linspace(1, 0, USERS))]
    assert "Cut short" not in markdown(compare(paths, metrics=["recall@20"]))
    RunFolder(paths[1]).write_info(cut_short={"epochs": 3, "of": 20})
    found = compare(paths, metrics=["recall@20"])
    assert found.cut_short == {str(paths[1]): "3 of 20 epochs"}
    assert "Cut short: b_1 of vbpr after 3 of 20 epochs." in markdown(found)
    assert r"b\_1 of vbpr" in latex(found)


def test_the_command(make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make("a", lists=values(0)), make("b", "lightgcn", values(1, 0.4))]

    def shell(*words: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", ["rawrec", "compare", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert (stop.value.code or 0) == code
        return capsys.readouterr()

    out, _ = shell(*runs)
    assert "p (Holm)" in out and "lightgcn" in out and "Holm-Bonferroni over 2 comparisons" in out
    paths = [runs[0].parent / name for name in ("t.md", "t.tex")]
    options = ["--metric", "ndcg@20", "--baseline", runs[1], "--markdown", paths[0], "--latex", paths[1]]
    result = json.loads(shell(*runs, *options, "--json")[0])
    assert result == json.loads(json.dumps(rawrec.compare(runs, runs[1], metrics=["ndcg@20"]).dump()))
    assert result["baseline"] == "lightgcn" and result["results"][1]["contrast"]["significant"] is True
    assert paths[0].read_text().startswith("| model |") and r"\toprule" in paths[1].read_text()
    grouped = json.loads(shell("--group", f"both={runs[0]},{runs[1]}", make("c", lists=values(2)), "--json")[0])
    assert set(grouped["runs"]) == {"both", "bpr"}
    assert "NAME=RUN,RUN" in shell(*runs, "--group", "x", code=2)[1]
    assert "no run folder" in shell(runs[0], runs[0].parent, code=2)[1]


# ------------------------------------------------------------------------------------------------------------- mistakes
def test_runs_that_cannot_be_compared(make: Make, tmp_path: Path) -> None:
    a, b = make("a", lists=values(0)), make("b", "lightgcn", values(1))
    half, cut = make("half", "vbpr", values(2)), make("cut", "vbpr", values(2), seed=1)
    RunFolder(half).write_info(finished=False)
    RunFolder(cut).write_info(finished=False, pruned=True)
    twin, other = make("twin", lists=values(3)), make("other", "bm3", values(3))
    protocol = make("protocol", "vbpr", values(3), eval__protocol="mmrec")
    RunFolder(other).write_info(dataset_fingerprint="0")
    fewer = make("fewer", "freedom", values(4))
    pl.read_parquet(fewer / "topk.parquet").head(9).write_parquet(fewer / "topk.parquet")
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([a], {}, "two runs or more"),
        ([], {}, "two runs or more"),
        ([a, make("a1", lists=values(0), seed=1)], {}, "seeds of one"),
        ([a, a], {}, "given twice"),
        ([a, twin], {}, "the same seed=0"),
        ([a, half], {}, "rawrec resume"),
        ([a, cut], {}, "pruned"),
        ([a, other], {}, "different data"),
        ([a, protocol], {}, "eval.protocol=default"),
        ([a, fewer], {}, "different users (9 and 60)"),
        ([a, tmp_path / "gone"], {}, "no run folder"),
        ([a, b], {"metrics": ["auc"]}, "Known: recall@20, ndcg@20"),
        ([a, b], {"baseline": half}, "none of the runs"),
        ([a, b], {"groups": {"bpr": [twin]}}, "name of another model"),
        ([a, b], {"groups": {"x": []}}, "no runs"),
        ([a, b], {"level": 95}, "0.95"),
        ([a, b], {"bootstrap": 0}, "100"),
    ]
    for runs, options, said in cases:
        with pytest.raises(UserError) as caught:
            compare(runs, **options)
        assert said in str(caught.value), f"{said!r} is not in {caught.value}"


def test_a_metric_without_both_labels(make: Make) -> None:
    item, label, score = impressions(0, 1.0)
    runs = [make(name, name, scores=(item, np.ones_like(label), score)) for name in ("id", "em3")]
    with pytest.raises(UserError, match="undefined"):
        compare(runs, metrics=["auc"])
