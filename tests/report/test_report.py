"""The page of runs made by hand, with a recommender that knows nothing: a report needs no more."""

import base64
import io
import json
import re
import shutil
import warnings

import numpy as np
import polars as pl
import pytest
from PIL import Image

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.report import build_report
from rawrec.report.curves import weighted_parts
from rawrec.report.page import duration, number, words
from rawrec.report.pictures import thumbnail
from rawrec.report.run import Run
from rawrec.report.summary import without_times
from report_pages import CIC_WEIGHT, AnyRecommender, check_self_contained, make_run, pictures_of, read

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def data(shop):
    return Dataset.open(shop)


@pytest.fixture
def runs(tmp_path, data):
    return make_run(tmp_path / "em3", data, 0.3), make_run(tmp_path / "ids", data, 1.5, "id", seed=1)


@pytest.mark.drawn
def test_whole_page_against_a_baseline(runs, data):
    mine, other = runs
    path = build_report(mine, other, recommender=AnyRecommender(data))
    assert path == mine / "report.html"
    page, text = read(path)
    assert "Generated data." in text and "Share of the best possible" in text
    statement = data.meta.splits["default"]["statement"]
    assert without_times(statement) in text and not re.search(r"\btime \d{9,}", text)
    measured = json.loads((mine / "metrics.json").read_text())["test"]
    for name in ("auc", "cold/auc", "gauc", "logloss", "recall@20", "ndcg@5"):
        assert f"{measured[name]:.4f}" in text, name
    assert "Training loss" in text and "Health of the bank" in text and "Coverage" in text
    assert "the test AUC would be 0.6789" in text
    assert text.count("Recommended, the best first") == 12  # drawn at random, best and worst judged
    assert text.count("recommended was taken") + text.count("recommended were taken") == 12
    hits = [attrs for tag, attrs in page.tags if tag == "figure" and "hit" in attrs["class"].split()]
    assert len(hits) >= 12  # each list begins with a hit, marked there and where it was taken
    assert sum(tag == "section" and attrs.get("class") == "cold" for tag, attrs in page.tags) == min(
        6, int((np.bincount(data.items[data.split() == 0], minlength=data.n_items) == 0).sum())
    )
    assert sum(attrs.get("class") == "bar" for tag, attrs in page.tags if tag == "svg") >= 3


def test_what_lists_are_like_and_one_item_in_most_of_them(runs, data):
    mine, other = runs
    _, text = read(build_report(mine, other))
    assert "What the lists are like" not in text and "One item stands in most lists" not in text  # an older run
    stored = json.loads((mine / "metrics.json").read_text())
    stored["test"] |= {"coverage@5": 0.4321, "coverage@20": 0.5678, "gini@20": 0.1357}
    (mine / "metrics.json").write_text(json.dumps(stored))
    lists = pl.read_parquet(mine / "topk.parquet")
    same = [[3, *[item for item in items if item != 3][:19]] for items in lists["items"].to_list()]
    lists.with_columns(items=pl.Series(same)).write_parquet(mine / "topk.parquet")
    _, text = read(build_report(mine, other))
    assert "What the lists are like" in text and "Diversity" not in text
    assert all(value in text for value in ("0.4321", "0.5678", "0.1357"))
    assert f"item {data.item_ids[3]} stands in 100% of the lists of 20 (test)" in text


@pytest.mark.drawn
def test_page_needs_nothing_from_outside(runs, data):
    path = build_report(*runs, recommender=AnyRecommender(data))
    page, _ = read(path)
    check_self_contained(path)
    pictures = pictures_of(path)
    shown = [attrs["class"].split()[1] for tag, attrs in page.tags if attrs.get("class", "").startswith("shot ")]
    assert len(shown) > 30 and set(shown) <= set(pictures) and len(pictures) < len(shown)  # each once, shown often
    Image.open(io.BytesIO(base64.b64decode(pictures[shown[0]].partition(",")[2]))).verify()


@pytest.mark.drawn
def test_same_page_twice(runs, data):
    first = build_report(*runs, recommender=AnyRecommender(data)).read_text()
    assert build_report(*runs, recommender=AnyRecommender(data)).read_text() == first


def test_run_of_ids_alone_without_baseline_and_recommender(runs, tmp_path):
    _, ids = runs
    out = build_report(ids, out=tmp_path / "page.html")
    _, text = read(out)
    assert out == tmp_path / "page.html"
    assert "nothing in it rewrites the content of items" in text
    assert "Difference" not in text and "No recommender was at hand" in text


def test_names_cannot_inject_markup(runs, data):
    mine, _ = runs
    info = json.loads((mine / "run.json").read_text())
    (mine / "run.json").write_text(json.dumps(info | {"dataset_name": "<script>alert(1)</script>"}))
    page, text = read(build_report(mine))
    assert "<script>alert(1)</script>" in text and [tag for tag, attrs in page.tags if not attrs].count("script") == 1


def test_recommendations_come_from_the_recommender_where_no_lists_are_stored(runs, data):
    mine, _ = runs
    (mine / "topk.parquet").unlink()
    _, text = read(build_report(mine, recommender=AnyRecommender(data)))
    assert text.count("Recommended, the best first") == 12
    _, text = read(build_report(mine))
    assert "No list was stored" in text


def test_a_list_made_for_the_page_is_of_the_history_before_the_test_part(runs, data):
    """Asked by the user alone, a recommender knows the test part, and leaves out what was taken there."""
    mine, _ = runs
    (mine / "topk.parquet").unlink()
    positive, test = data.positive("label"), data.split() == 2

    class Knowing(AnyRecommender):
        def recommend(self, *, user, history, k):
            (row,) = data.user_rows([user])
            taken = data.items[(data.users == row) & positive & test]
            asked.append((data.users == row) & positive & ~test)
            assert sorted(history) == sorted(data.item_ids[data.items[asked[-1]]])
            warnings.warn("not in the context, so read as missing: query", stacklevel=1)
            return [(str(item), 0.5) for item in data.item_ids[np.unique(taken)]]

    asked: list[np.ndarray] = []
    _, text = read(build_report(mine, recommender=Knowing(data)))
    assert len(asked) == 12 and " 0 of" not in text
    assert "made for this page, from the history shown; not in the context, so read as missing: query." in text


def test_a_model_without_content_says_so(runs, data):
    class Ids(AnyRecommender):
        def similar(self, *, item, k):
            raise UserError("the model `id` reads ids alone")

    _, text = read(build_report(runs[0], recommender=Ids(data)))
    assert "nothing of these items to compare them by: the model `id` reads ids alone." in text


def test_undefined_metrics_are_dashes_with_reasons(runs):
    mine, other = runs
    for run in runs:
        frame = pl.read_parquet(run / "scores.parquet")
        frame.with_columns(label=pl.lit(0.0, pl.Float32)).write_parquet(run / "scores.parquet")
    metrics = json.loads((mine / "metrics.json").read_text())
    metrics["test"]["auc"] = None
    (mine / "metrics.json").write_text(json.dumps(metrics | {"reasons": {"test": {"auc": "every label is 0"}}}))
    _, text = read(build_report(mine, other))
    assert "Test AUC – " in text and "every label is 0" in text


def test_a_dataset_that_moved(runs, data, tmp_path):
    """The page is made of the dataset in its new place; a baseline that knows the old one is still of the same data."""
    mine, other = runs
    info = json.loads((mine / "run.json").read_text())
    (mine / "run.json").write_text(json.dumps(info | {"dataset": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match="gone, is not there"):
        build_report(mine, other)
    _, text = read(build_report(mine, other, data=data.path))
    assert "Test AUC" in text and "No recommender was at hand." in text


def test_a_run_without_cold_test_items(runs, data):
    mine, other = runs
    cold = np.bincount(data.items[data.split() == 0], minlength=data.n_items) == 0
    for run in runs:
        frame = pl.read_parquet(run / "scores.parquet")
        frame.filter(pl.Series(~cold[frame["item"].to_numpy()])).write_parquet(run / "scores.parquet")
    _, text = read(build_report(mine, other))
    assert "Test AUC" in text and "AUC on cold items" not in text


def test_parts_of_the_loss_are_drawn_with_their_weights(runs):
    """So that they add up to it; where weights are not known the loss stands alone."""
    run = Run(runs[0])
    parts = weighted_parts(run)
    assert set(parts) == {"bce", "cic"} and CIC_WEIGHT != 1
    assert parts["cic"][1] == pytest.approx([0.1 / (1 + 0.2 * e) + 0.02 for e in range(6)])
    run.info["loss_weights"] = {"bce": 1.0, "cic": 2 * CIC_WEIGHT}
    assert weighted_parts(run) == {}
    for epoch in run.epochs:
        epoch["loss"] += 0.1 / (1 + 0.2 * (epoch["epoch"] - 1)) + 0.02
    assert set(weighted_parts(run)) == {"bce", "cic"}


def test_a_run_that_was_cut_short(runs, data, tmp_path):
    page = build_report(runs[0], data=data, out=tmp_path / "whole.html").read_text()
    assert "Cut short." not in page
    path = shutil.copytree(runs[0], tmp_path / "short")
    info = json.loads((path / "run.json").read_text()) | {"cut_short": {"epochs": 2, "of": 6}}
    (path / "run.json").write_text(json.dumps(info))
    assert "Training was ended after 2 of 6 epochs" in build_report(path, data=data).read_text()


def test_users_mistakes_are_explained(runs, data, tmp_path):
    mine, other = runs
    with pytest.raises(UserError, match=r"is not a run folder: it has no run\.json"):
        build_report(tmp_path)
    (other / "scores.parquet").rename(other / "away")
    with pytest.raises(UserError, match=r"ids/scores\.parquet is missing: make it with `rawrec evaluate"):
        build_report(mine, other)
    (other / "scores.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"scores\.parquet is damaged, or cannot be read"):
        build_report(mine, other)
    info = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(info | {"dataset": "elsewhere", "dataset_fingerprint": "another"}))
    with pytest.raises(UserError, match="cannot be compared: dataset is"):
        build_report(mine, other)
    (other / "run.json").write_text(json.dumps(info | {"finished": False}))
    with pytest.raises(UserError, match=r"is not finished: `rawrec resume .*then report"):
        build_report(other)
    (other / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        build_report(other)
    with pytest.raises(UserError, match="cannot be written to"):
        build_report(mine, out=tmp_path / "no" / "such" / "folder.html")
    assert not list(mine.glob(".*"))


def test_thumbnails_keep_their_proportions():
    buffer = io.BytesIO()
    Image.new("RGB", (300, 450), (200, 40, 40)).save(buffer, "JPEG")
    picture = thumbnail(buffer.getvalue(), 120)
    assert picture is not None and picture.ratio == pytest.approx(2 / 3)
    small = Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2])))
    assert small.size == (80, 120)
    assert thumbnail(b"no picture") is None


def test_words_and_numbers():
    assert number(None) == number(float("nan")) == "–"
    assert number(-0.01234) == "−0.0123" and number(0.5, 2, True) == "+0.50"
    assert duration(66) == "1 min 6 s" and duration(3725) == "1 h 2 min" and duration(0.2) == "0 s"
    assert words({"image": ["poster"], "text": [], "rest": 1234}) == "image: poster, rest 1,234"
