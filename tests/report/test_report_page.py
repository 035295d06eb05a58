"""What a reader meets on the page: its order, how sure numbers look, lists of data without pictures, one script."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rawrec.data.dataset import Dataset
from rawrec.evaluation.ctr import buckets_of
from rawrec.evaluation.significance import bootstrap_test, holm, paired_t_test, resamplings
from rawrec.report import build_report
from rawrec.report.correction import Family, correct
from rawrec.report.cost import cost
from rawrec.report.curves import Chart, bank_health, curves
from rawrec.report.metrics import ENOUGH, compare, ranking
from rawrec.report.page import size, source_hash
from rawrec.report.run import Run
from rawrec.report.summary import without_times
from report_pages import AnyRecommender, make_run, read
from systems import small_dataset


@pytest.fixture(scope="module")
def data(shop: Path) -> Dataset:
    return Dataset.open(shop)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> tuple[Path, Path]:
    at = tmp_path_factory.mktemp("runs")
    return make_run(at / "em3", data, 0.3), make_run(at / "ids", data, 3.0, "id", seed=1)


@pytest.fixture(scope="module")
def source(runs: tuple[Path, Path], data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "page.html"
    return build_report(*runs, out, recommender=AnyRecommender(data)).read_text()


def test_what_a_reader_wants_first_comes_first(source: str) -> None:
    anchors = re.findall(r'<section id="(\w+)">', source)
    assert anchors == ["summary", "lists", "quality", "items", "training", "cost", "bank", "settings"]
    assert re.findall(r'<a href="#(\w+)"', source) == anchors
    said = re.sub(r"(<[^>]+>|\s)+", " ", source.partition('<p class="said">')[2].partition("</section>")[0])
    assert said.startswith("em3 is a run of model em3, which ranks impressions, on shop; it was trained for 6 epochs")
    assert "is compared with ids (model id)" in said and "above the" in said
    assert "Generated data." in said and "Few users. The test part judges" in said


def test_the_policy_names_the_one_script_by_its_hash(source: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', source)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == f"'{source_hash(script)}'"
    assert source_hash("alert(1)") == "sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI="  # of many a policy
    assert not re.search(r"innerHTML|eval|fetch|import|document\.write", script)


def test_light_and_dark_and_every_colour_of_a_drawing_follows(source: str) -> None:
    assert "prefers-color-scheme: dark" in source
    drawings = "".join(re.findall(r"<svg.*?</svg>", source, re.DOTALL))
    assert "var(--run, #2b5f8f)" in drawings
    assert not re.search(r"#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", drawings))
    named = set(re.findall(r"var\(--([\w-]+)", source))
    light, dark = (re.findall(r"--([\w-]+):", rule) for rule in re.findall(r":root \{([^}]*)\}", source)[:2])
    assert named - {"ratio"} <= set(light) == set(dark)


def test_small_buckets_are_no_results_and_the_others_are_corrected_together(
    runs: tuple[Path, Path], data: Dataset
) -> None:
    mine, other = map(Run, runs)
    masks = buckets_of(np.bincount(data.items[data.split() == 0], minlength=data.n_items))
    blocks, _ = compare(mine, other, data, masks)
    lines = [(block.title.lower(), line) for block in blocks for line in block.lines]
    small = [line for _, line in lines if line.small]
    assert small and all(line.impressions < ENOUGH for line in small)
    assert all(line.p is line.corrected is line.good is line.bar is None for line in small)
    sure = [(metric, line) for metric, line in lines if not line.small]
    wanted = []
    for metric, line in sure:
        both = mine.test.join(other.test.select("row", "item", other="score"), on=["row", "item"])
        inside = both if not line.bucket else both.filter(pl.Series(masks[line.bucket][both["item"].to_numpy()]))
        pairs = [
            resamplings(inside["user"], inside["label"], inside[column], metric, 50)  # pyright: ignore[reportArgumentType]
            for column in ("score", "other")
        ]
        found, p = bootstrap_test(pairs[0][0] - pairs[1][0], pairs[0][1] - pairs[1][1])
        assert line.difference == found and line.p == p
        wanted.append(p)
    assert len(sure) < len(lines) and [line.corrected for _, line in sure] == holm(wanted).tolist()


def test_a_difference_of_chance_stays_without_colour() -> None:
    """Fifteen at 95 %, the best by chance at p = .02: found by itself, not among fifteen."""
    corrected = correct([0.02, None, *np.linspace(0.1, 0.9, 14)])
    assert corrected.values[0] == pytest.approx(0.3) and corrected.values[1] is None
    assert corrected.told(None) == Family(15, 0, None)
    assert correct([]).told(10) == Family(0, 0, None)
    least = correct([2 / 1001] * 20).told(1000)  # as small as 1000 draws can make them
    assert least == Family(20, 20, None) and least.passed == 20
    for draws, enough in ((798, True), (800, False)):
        assert (correct([2 / (draws + 1)] * 20).told(draws).enough is not None) == enough
        assert correct([2 / (draws + 1)] * 20).told(draws).passed == (0 if enough else 20)


def test_lists_have_intervals_and_tests(runs: tuple[Path, Path], data: Dataset) -> None:
    mine, other = map(Run, runs)
    found = ranking(mine, other, data)
    assert found is not None
    kept = [cell for line in found["by_k"] for cell in line["cells"] if cell.p is not None]
    assert len(kept) == found["tested"].count == 2  # recall@20, ndcg@20: what the runs stored per user
    assert mine.topk is not None and other.topk is not None
    both = mine.topk.join(other.topk, on="user", suffix="_other")
    test = paired_t_test(both["recall@20"].to_numpy(), both["recall@20_other"].to_numpy())
    assert found["at_middle"][0].p == test.p_value and found["at_middle"][0].value.low <= found["at_middle"][0].run
    assert all(line["small"] for line in found["by_bucket"])  # of 40 users


def test_data_without_pictures_are_lists_of_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (user, int(item), 10 * k + user, float(k % 2))
        for user in range(12)
        for k, item in enumerate(rng.permutation(40)[:10])
    ]
    data = small_dataset(tmp_path / "data", rows, 40, parts=(["train"] * 6 + ["valid"] * 2 + ["test"] * 2) * 12)
    run = make_run(tmp_path / "run", data, 0.5, "id")
    page, text = read(build_report(run, recommender=AnyRecommender(data)))
    assert all(tag not in ("figure", "img") for tag, _ in page.tags)
    assert sum(attrs.get("class") == "entries" for tag, attrs in page.tags if tag == "ol") >= 18
    assert "Recommended, the best first" in text


def test_scores_and_ranks_are_told_where_the_recommender_makes_the_same_list(
    runs: tuple[Path, Path], data: Dataset, tmp_path: Path
) -> None:
    lists = pl.read_parquet(runs[0] / "topk.parquet")
    stored = dict(zip(lists["user"].to_list(), lists["items"].to_list(), strict=True))

    class Same(AnyRecommender):
        def recommend(self, *, user: str, history: object = (), k: int) -> list[tuple[str, float]]:
            first = stored[int(data.user_rows([user])[0])]
            rest = [row for row in range(data.n_items) if row not in first]
            return [(str(data.item_ids[row]), 0.9 - 0.01 * place) for place, row in enumerate([*first, *rest])][:k]

    text = read(build_report(runs[0], out=tmp_path / "a.html", recommender=Same(data)))[1]
    assert "0.900" in text and "0.830" in text and "rank 1 " in text and "not in the list" not in text
    text = read(build_report(runs[0], out=tmp_path / "b.html", recommender=AnyRecommender(data)))[1]
    assert "rank 1 " in text and "0.900" not in text  # of the list that was stored, without a score of another
    assert "rank 1 " in read(build_report(runs[0], out=tmp_path / "c.html"))[1]


def test_one_epoch_is_a_line_not_a_dot(data: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", data, 0.3, epochs=1)
    found = [*curves(Run(run), None), *bank_health(Run(run))]
    assert all(chart.plot is None and chart.values for chart in found)
    source = build_report(run).read_text()
    assert (
        "Nothing to draw: one value" in source and "One epoch." in source and source.count("<svg") == 1
    )  # reliability
    flat = Chart.of("Coverage", "", {"coverage": ([1.0, 2.0], [1.0, 1.0])})
    assert flat.plot is None and flat.values == [("coverage", 1.0)]
    assert Chart.of("Age", "", {"age": ([1.0, 2.0], [1.0, 2.0])}).plot


def test_training_beside_validation(data: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", data, 0.3)
    assert "Training against validation" not in [chart.title for chart in curves(Run(run), None)]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line | {"valid/logloss": 0.6}) + "\n" for line in lines))
    (chart,) = [chart for chart in curves(Run(run), None) if chart.title == "Training against validation"]
    assert chart.plot is not None and "training, validation by epoch" in chart.plot


def test_costs_have_names_that_a_reader_knows(runs: tuple[Path, Path]) -> None:
    mine, other = map(Run, runs)
    other.info["parameters"] = {"encoder": 0, "id": 6666, "rest": 26432, "plain": 225}
    found = {line.name: line for line in cost(mine, other)}
    assert found["Time in all"].run == "1 min 6 s" and found["Training, an epoch"].run == "11.0 s"
    assert found["Learned numbers (parameters)"].run == "4,314,003"
    assert found["Learned numbers: tables of ids"].baseline == "6,666"
    assert found["Learned numbers: tables of ids"].run is None
    assert found["Learned numbers: biases, norms and queries"].baseline == "225"
    assert [size(n) for n in (999, 1500, 12_345_678, 3e9)] == ["999 B", "1.5 kB", "12.3 MB", "3.0 GB"]


def test_a_model_without_content_shows_no_paradigm(runs: tuple[Path, Path], tmp_path: Path) -> None:
    assert "paradigm:" not in build_report(runs[1], out=tmp_path / "a.html").read_text()
    assert "paradigm: end_to_end" in build_report(runs[0], out=tmp_path / "b.html").read_text()


def test_times_are_dates() -> None:
    said = "valid from 2026-03-14T02:48:33 UTC (time 1773456513), test from 2026-03-22 (time 1774197876.5); (times 3)"
    assert without_times(said) == "valid from 2026-03-14T02:48:33 UTC, test from 2026-03-22; (times 3)"


def test_grey_lines_have_neither_interval_nor_colour(source: str) -> None:
    rows = re.findall(r'<tr class="small">.*?</tr>', source, re.DOTALL)
    assert len(rows) >= 6
    assert not any(word in row for row in rows for word in (" to +", " to −", 'class="up"', 'class="down"', "<svg"))
