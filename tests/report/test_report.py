"""The page of runs made by hand, with a recommender that knows nothing: a report needs no more."""

import base64
import io
import json
import re
import shutil
import warnings
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from rawrec import config
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.evaluation.ctr import buckets_of, ctr_metrics
from rawrec.evaluation.topk import topk_metrics
from rawrec.report import build_report
from rawrec.report.curves import weighted_parts
from rawrec.report.page import duration, number, words
from rawrec.report.pictures import thumbnail
from rawrec.report.run import Run

KS = [5, 10, 20]
pytestmark = pytest.mark.usefixtures("undrawn")
CIC_WEIGHT = config.resolve("em3").model.cic_weight


def make_run(path: Path, data: Dataset, noise: float, model: str = "em3", seed: int = 0, epochs: int = 6) -> Path:
    """A run whose scores are the true labels seen through `noise`."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    settings = config.resolve(
        {"model": {"name": model}, "paradigm": "end_to_end" if model == "em3" else "frozen"}, {"eval.bootstrap": 50}
    )
    (path / "config.yaml").write_text(yaml.safe_dump(settings.dump()))
    part, labels = data.split(), data.label()
    rows = np.flatnonzero(part > 0)
    truth = data.column("probability")[rows] if "probability" in data.meta.extra else 0.15 + 0.3 * labels[rows]
    logit = np.log(truth / (1 - truth)) + rng.normal(0, noise, len(rows))
    score = (1 / (1 + np.exp(-logit))).astype(np.float32)
    frame = pl.DataFrame(
        {
            "row": rows.astype(np.int64),
            "user": data.users[rows],
            "item": data.items[rows],
            "label": labels[rows],
            "score": score,
            "split": part[rows],
        }
    )
    frame.write_parquet(path / "scores.parquet")

    buckets = buckets_of(np.bincount(data.items[part == 0], minlength=data.n_items))
    test = part[rows] == 2
    masks = {name: mask[data.items[rows][test]] for name, mask in buckets.items()}
    metrics, reasons = ctr_metrics(labels[rows][test], score[test], data.users[rows][test], masks)
    wanted = np.flatnonzero((part == 2) & (labels > 0))
    wanted = wanted[np.argsort(data.users[wanted], kind="stable")]
    users, sizes = np.unique(data.users[wanted], return_counts=True)
    lists = rng.random((len(users), data.n_items)).argsort(1)[:, :20]
    lists[:, 0] = data.items[wanted][np.cumsum(sizes) - sizes]  # one sure hit each
    ptr = np.r_[0, np.cumsum(sizes)]
    ranking, per_user = topk_metrics(lists, ptr, data.items[wanted], KS, buckets)
    ranking = {name.replace("users", "topk_users"): value for name, value in ranking.items()}
    columns = {name: per_user[name] for name in ("recall@20", "ndcg@20")}
    pl.DataFrame({"user": users, "items": lists.tolist(), **columns}).write_parquet(path / "topk.parquet")
    (path / "metrics.json").write_text(
        json.dumps(
            {"valid": {"auc": 0.7}, "test": metrics | ranking | {"stale/auc": 0.6789}, "reasons": {"test": reasons}}
        )
    )

    bank = [
        {
            "bank/coverage": 1.0,
            "bank/age_mean": 40.0 + 5 * e,
            "bank/age_p95": 160.0 - 9 * e,
            "bank/drift": 0.3 / (1 + e),
            "live_share/cold": 0.0,
            "live_share/rare": 0.4,
            "live_share/warm": 0.7,
        }
        for e in range(epochs)
    ]
    lines = [
        {
            "epoch": e + 1,
            "step": 100 * (e + 1),
            "loss": 0.5 / (1 + 0.2 * e) + 0.2,
            "loss/bce": 0.4 / (1 + 0.2 * e) + 0.18,
            "loss/cic": (0.1 / (1 + 0.2 * e) + 0.02) / CIC_WEIGHT,
            "valid/auc": 0.72 - noise / 50 - 0.08 / (1 + e) - 0.004 * max(0, e - 3),
            "seconds": 11.0,
            "samples_per_second": 4000.0,
        }
        | (bank[e] if model == "em3" else {})
        for e in range(epochs)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    info = {
        "dataset": str(data.path.resolve()),
        "dataset_name": data.path.name,
        "dataset_fingerprint": data.fingerprint(),
        "model": model,
        "paradigm": settings.paradigm if model == "em3" else None,
        "fields": {"image": data.fields.image, "text": data.fields.text},
        "split": data.meta.splits["default"]["statement"],
        "finished": True,
        "seconds": 66.0,
        "parameters": {"encoders": 4_100_000, "rest": 214_003},
    }
    (path / "run.json").write_text(json.dumps(info))
    return path


class AnyRecommender:
    """Recommends items at random, the same each time."""

    def __init__(self, data: Dataset):
        self.data = data

    def recommend(self, *, user: str, history: Sequence[str] = (), k: int) -> list[tuple[str, float]]:
        return self._draw(user, k)

    def similar(self, *, item: str, k: int) -> list[tuple[str, float]]:
        return self._draw(item, k)

    def _draw(self, word: str, k: int) -> list[tuple[str, float]]:
        rows = np.random.default_rng(list(word.encode())).choice(self.data.n_items, k, replace=False)
        return [(str(self.data.item_ids[row]), 0.95 - 0.04 * i) for i, row in enumerate(rows)]


@pytest.fixture
def data(shop):
    return Dataset.open(shop)


@pytest.fixture
def runs(tmp_path, data):
    return make_run(tmp_path / "em3", data, 0.3), make_run(tmp_path / "ids", data, 1.5, "id", seed=1)


class Page(HTMLParser):
    """Text, tags with attributes, and whether what is opened is closed."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path: Path) -> tuple[Page, str]:
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open
    return page, " ".join(" ".join(page.text).split())


@pytest.mark.drawn
def test_whole_page_against_a_baseline(runs, data):
    mine, other = runs
    path = build_report(mine, other, recommender=AnyRecommender(data))
    assert path == mine / "report.html"
    page, text = read(path)
    assert "Generated data." in text and "Share of the best possible" in text
    assert data.meta.splits["default"]["statement"] in text
    measured = json.loads((mine / "metrics.json").read_text())["test"]
    for name in ("auc", "cold/auc", "gauc", "logloss", "recall@20", "ndcg@5"):
        assert f"{measured[name]:.4f}" in text, name
    assert "Training loss" in text and "Health of the bank" in text and "Coverage" in text
    assert "the test AUC would be 0.6789" in text
    assert text.count("Recommended, the best first") == 6
    assert text.count("recommended was taken") + text.count("recommended were taken") == 6
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
    page, _ = read(build_report(*runs, recommender=AnyRecommender(data)))
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            assert re.match(r"data:image/jpeg;base64,|#", attrs.get(name, "#")), (tag, attrs)
    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) > 30
    Image.open(io.BytesIO(base64.b64decode(pictures[0].partition(",")[2]))).verify()


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
    assert "<script>alert(1)</script>" in text and all(tag != "script" for tag, _ in page.tags)


def test_recommendations_come_from_the_recommender_where_no_lists_are_stored(runs, data):
    mine, _ = runs
    (mine / "topk.parquet").unlink()
    _, text = read(build_report(mine, recommender=AnyRecommender(data)))
    assert text.count("Recommended, the best first") == 6
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
    assert len(asked) == 6 and "0 of" not in text
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
    assert "AUC on cold items" in text and "No recommender was at hand." in text


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
    assert words({"image": ["poster"], "text": [], "rest": 1234}) == "image: poster, rest 1\u2009234"
