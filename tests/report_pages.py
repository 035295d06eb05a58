"""Runs made by hand, with a recommender that knows nothing, and the page of a report as a test reads it."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from rawrec import config
from rawrec.data.dataset import Dataset
from rawrec.evaluation.ctr import buckets_of, ctr_metrics
from rawrec.evaluation.topk import topk_metrics

KS = [5, 10, 20]
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
    places = rng.random((len(users), data.n_items))
    places[np.arange(len(users)), data.items[wanted][np.cumsum(sizes) - sizes]] = -1  # one sure hit each, the first
    lists = places.argsort(1)[:, :20]
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

    def item_vectors(self, items: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = self.data.item_rows(items)
        return np.random.default_rng(0).normal(size=(self.data.n_items, 5))[rows], rows % 7 > 0

    def _draw(self, word: str, k: int) -> list[tuple[str, float]]:
        rows = np.random.default_rng(list(word.encode())).choice(self.data.n_items, k, replace=False)
        return [(str(self.data.item_ids[row]), 0.95 - 0.04 * i) for i, row in enumerate(rows)]


class Page(HTMLParser):
    """Text that is shown, tags with attributes, and whether what is opened is closed."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br", "col"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def read(path: Path) -> tuple[Page, str]:
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open
    return page, " ".join(" ".join(page.text).split())


def check_self_contained(path: Path) -> None:
    """Nothing is fetched, one script runs, and none stands in an attribute."""
    page, _ = read(path)
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert tag != "script" or not attrs or attrs["type"] == "application/json"
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        for name in ("src", "href", "xlink:href"):
            assert re.match(r"data:image/jpeg;base64,|#", attrs.get(name, "#")), (tag, attrs)
    assert sum(tag == "script" and not attrs for tag, attrs in page.tags) == 1
    source = path.read_text(encoding="utf-8")
    assert all(address.startswith(('"data:image/jpeg;base64,', "#")) for address in re.findall(r"url\(([^)]*)", source))
    assert "@import" not in source


def pictures_of(path: Path) -> dict[str, str]:
    """The pictures of a page: class -> data URI."""
    return dict(
        re.findall(r'^\.(\w+)\{background-image:url\("([^"]*)"\)\}$', path.read_text(encoding="utf-8"), re.MULTILINE)
    )
