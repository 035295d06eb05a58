"""Runs of models that are fitted in one go: train, resume, evaluate, use, report and compare, as of any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import rawrec
from rawrec import Recommender, UserError
from rawrec.config import RETRIEVAL, parse_overrides
from rawrec.data.dataset import Dataset
from rawrec.progress import Bars
from rawrec.report import build_report
from rawrec.training.job import evaluate, load_task, resume, train
from rawrec.training.tasks.pairs import PairTask
from systems import Stop, digest, small_dataset, stopping_after

FITTED = sorted(name for name, record in RETRIEVAL.items() if record.fitted)
SMALL: dict[str, Any] = {"train.threads": 1, "train.device": "cpu", "eval.topk": [5, 20]}


@pytest.mark.parametrize("model", FITTED)
def test_a_whole_run(graph: Dataset, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as observer:
        run = train(model, graph, tmp_path / "whole", SMALL, observer=observer)
    said = " ".join(capsys.readouterr().err.split())
    assert "fitted in" in said and "recall@20" in said and "loss" not in said and "samples/s" not in said
    stored, lines = json.loads((run.path / "metrics.json").read_text()), run.metrics_lines()
    assert len(lines) == 1 and "loss" not in lines[0] and lines[0]["valid/recall@20"] == stored["valid"]["recall@20"]
    assert stored["test"]["recall@20"] > 0
    assert evaluate(run.path, "test") == stored["test"] and evaluate(run.path, "valid") == stored["valid"]
    assert run.info()["parameters"] == {"model": 0, "encoder": 0} and run.info()["finished"]
    assert resume(run.path).path == run.path

    for events in (2, 3):  # before and after it was fitted
        with pytest.raises(Stop):
            train(model, graph, tmp_path / str(events), SMALL, observer=stopping_after(events))
        assert digest(resume(tmp_path / str(events)).path) == digest(run.path)

    rec = Recommender.load(run.path)
    task, user = load_task(run), str(graph.user_ids[4])
    assert isinstance(task, PairTask)
    mine = graph.items[graph.users == 4]
    best = rec.recommend(user=user, k=3)
    assert not {item for item, _ in best} & {str(graph.item_ids[row]) for row in mine}
    assert rec.score(user=user, items=[item for item, _ in best]) == [score for _, score in best]
    assert [score for _, score in best] == sorted((score for _, score in best), reverse=True)
    listed = pl.read_parquet(rec.recommend_all(tmp_path / "lists.parquet", k=3))
    assert dict(zip(listed["user_id"], listed["items"].to_list(), strict=True))[user] == [item for item, _ in best]
    with pytest.raises(UserError, match="no training interaction"):
        rec.recommend(user=str(graph.user_ids[1]))
    for refused in (
        lambda: rec.similar(str(graph.item_ids[3])),
        lambda: rec.export_vectors(tmp_path / "v.npy"),
        lambda: rec.recommend(user=user, k=3, diversity=0.5),
        lambda: rec.explain(user=user, items=[str(graph.item_ids[3])]),
        lambda: rec.export_user_vectors(tmp_path / "u.npy"),
    ):
        with pytest.raises(UserError, match=f"of model `{model}`, which has scores alone"):
            refused()
    page = build_report(run.path, recommender=rec).read_text()
    assert "Training loss" not in page and f"{stored['test']['recall@20']:.4f}" in page


def test_fitted_beside_trained_models(graph: Dataset, tmp_path: Path) -> None:
    trained = train("bpr", graph, tmp_path / "bpr", SMALL | {"train.epochs": 1, "train.batch_size": 100})
    runs = [trained.path, *(train("random", graph, tmp_path / f"r{s}", SMALL | {"seed": s}).path for s in (0, 1))]
    found = rawrec.compare(runs, metrics=["recall@20", "coverage@20"])
    assert {name: len(paths) for name, paths in found.runs.items()} == {"bpr": 1, "random": 2}
    assert found.results[1].deviation  # two seeds are two lists
    assert build_report(trained.path, runs[1]).is_file()


def test_most_users_get_the_same_is_told(tmp_path: Path) -> None:
    """In the log, loudly to who watches, by evaluate, and on the page."""
    rng, rows = np.random.default_rng(0), []
    for user in range(30):
        rows += [(user, item, 0, 1.0) for item in rng.permutation(60)[:4]]
        rows += [(user, 60 + user % 3, 0, 1.0), (user, 63, 1, 1.0), (user, 64, 2, 1.0)]
    parts = ["train"] * 5 + ["valid", "test"]
    data = small_dataset(tmp_path / "data", rows, 70, labelled=False, parts=parts * 30)
    events: list[tuple[str, dict[str, Any]]] = []
    given = {"eval.topk": [5], "train.metric": "recall@5", "train.threads": 1}
    run = train("pop", data, tmp_path / "run", given, observer=lambda event, **values: events.append((event, values)))
    told = [values["text"] for event, values in events if event == "note" and values.get("loud")]
    assert len(told) == 1 and "item " in told[0] and "of the lists of 5 (test)" in told[0]
    assert told[0] in (run.path / "log.txt").read_text()
    events.clear()
    evaluate(run.path, "valid", observer=lambda event, **values: events.append((event, values)))
    assert any("of the lists of 5 (valid)" in values["text"] for event, values in events if event == "note")
    assert "One item stands in most lists" in build_report(run.path).read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pop train.epochs=2", ["train.epochs=2 would do nothing", "fitted in one go"]),
        ("pop train.lr=0.1", ["train.lr=0.1 would do nothing"]),
        ("random train.batch_size=7", ["would do nothing"]),
        ("pop train.optimizer=sparse_adam", ["would do nothing"]),
        ("pop model.dim=3", ["model.dim", "Known: name"]),
        ("pop content.image.use=false", ["model pop reads no features"]),
        ("pop eval.untrained_ids=mean", ["model pop has no ids of items"]),
    ],
)
def test_settings_of_steps_are_refused(graph: Dataset, tmp_path: Path, words: str, said: list[str]) -> None:
    preset, *overrides = words.split()
    with pytest.raises(UserError) as caught:
        train(preset, graph, tmp_path / "run", SMALL | parse_overrides(overrides))
    for part in said:
        assert part in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("there", [0, 4000])
def test_a_catalogue_too_large_for_ease_leaves_no_run(
    graph: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int
) -> None:
    """Refused before anything is made, and before it is fitted, which takes more."""
    monkeypatch.setattr("rawrec.memory.available", lambda: there)
    with pytest.raises(UserError, match=r"which takes .* GiB of memory, and .* GiB are available"):
        train("ease", graph, tmp_path / "run", SMALL)
    assert not (tmp_path / "run").exists()
