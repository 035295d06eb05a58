"""Retrieval models in training, evaluation and use, on a small graph with two modalities."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from small_retrieval import settings

import forked
import rawrec
from rawrec import Recommender, UserError
from rawrec.config import RETRIEVAL, parse_overrides
from rawrec.data.dataset import Dataset
from rawrec.data.splits import SplitSpec
from rawrec.report import build_report
from rawrec.sources.mmrec import import_mmrec
from rawrec.training.job import evaluate, load_task, resume, train
from rawrec.training.runs import RunFolder
from systems import Stop, digest, stopping_after

MODELS = sorted(name for name, record in RETRIEVAL.items() if not record.fitted)


# --------------------------------------------------------------------------------------------------------- every model
@pytest.mark.parametrize("model", MODELS)
def test_a_run_is_stopped_goes_on_and_says_the_same_when_loaded(graph: Dataset, tmp_path: Path, model: str) -> None:
    given = settings(model, train__checkpoint_every=1, train__checkpoint_share=1)
    given |= {"train.batch_size": 15} if RETRIEVAL[model].reads_sequences else {}  # of users, who are fewer than pairs
    whole = train(model, graph, tmp_path / "whole", given)
    stored = json.loads((whole.path / "metrics.json").read_text())
    assert stored["test"]["recall@20"] > 0 and len(whole.metrics_lines()) == 3
    assert evaluate(whole.path, "test") == stored["test"]
    assert evaluate(whole.path, "valid") == stored["valid"]

    draw = random.Random(model)
    with pytest.raises(Stop):
        train(model, graph, tmp_path / "run", given, observer=stopping_after(draw.randint(5, 9)))
    with pytest.raises(Stop):
        resume(tmp_path / "run", stopping_after(draw.randint(3, 7)))
    assert digest(resume(tmp_path / "run").path) == digest(whole.path)


def test_killed_and_resumed(graph: Dataset, tmp_path: Path) -> None:
    given = settings("lightgcn", train__epochs=100, train__patience=100)
    whole = digest(train("lightgcn", graph, tmp_path / "whole", given).path)
    words = ["train", "lightgcn", "--data", str(graph.path), "--out", str(tmp_path / "run")]
    words += [f"{key}={json.dumps(value)}" for key, value in given.items()]
    process = forked.Process([sys.executable, "-m", "rawrec.cli", *words], stderr=subprocess.DEVNULL)
    lines = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (lines.is_file() and len(lines.read_text().splitlines()) > 10):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert 10 < len(lines.read_text().splitlines()) < 100
    assert digest(resume(tmp_path / "run").path) == whole


def test_another_seed_is_another_run(graph: Dataset, tmp_path: Path) -> None:
    runs = [digest(train("bpr", graph, tmp_path / str(s), settings("bpr", seed=s)).path) for s in (0, 1)]
    assert runs[0]["model.safetensors"] != runs[1]["model.safetensors"]


def test_stopped_between_training_and_the_final_evaluation(graph: Dataset, tmp_path: Path) -> None:
    whole = digest(train("bpr", graph, tmp_path / "whole", settings("bpr")).path)

    def at_the_end(event: str, **values: Any) -> None:
        if event == "evaluating":
            raise Stop

    with pytest.raises(Stop):
        train("bpr", graph, tmp_path / "run", settings("bpr"), observer=at_the_end)
    assert not (tmp_path / "run" / "metrics.json").exists()
    with pytest.raises(UserError, match="is not finished"):
        load_task(RunFolder.open(tmp_path / "run"))
    assert digest(resume(tmp_path / "run").path) == whole


# ------------------------------------------------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("vbpr paradigm=end_to_end", ["paradigm=end_to_end", "paradigm=hybrid"]),
        ("vbpr content.image.use=false content.text.use=false", ["vbpr reads features", "lightgcn"]),
        ("vbpr content.image.size=64", ["ready-made feature", "content.image.use"]),
        ("vbpr content.imgae.use=false", ["content.imgae", "Known"]),
        ("vbpr content.dim=32", ["joins features in its own way"]),
        ("bpr paradigm=frozen", ["model bpr reads no features"]),
        ("bpr content.image.use=false", ["model bpr reads no features"]),
        ("bpr data.history=3", ["reads no histories"]),
        ("bpr data.negatives=3", ["one negative per positive"]),
        ("bpr train.id_weight_decay=0.9", ["ranking models", "train.weight_decay"]),
        ("bpr bank.warm_start=false", ["model bpr"]),
        ("bpr eval.full_ranking=false", ["always evaluated by lists"]),
        ("bpr train.metric=auc", ["train.metric=auc", "recall@20"]),
        ("bpr train.metric=recall@7", ["recall@7", "eval.topk=[5, 20]", "recall@20"]),
        ("bpr train.metric=cold/recall@20 data.split=warm", ["cold/recall@20 is undefined", "cold positive"]),
        ("bpr model.n_layers=3", ["model.n_layers", "Known: name, embedding_size"]),
        ("lightgcn model.n_layer=3", ["model.n_layer", "did you mean n_layers"]),
        ("lightgcn model.n_layers=x", ["model.n_layers=x", "integer"]),
        ("lightgcn model.name=lightgnc", ["model.name", "did you mean lightgcn", "em3"]),
        ("lightgcn model=3", ["model=3", "settings of its own"]),
        ("id eval.protocol=mmrec", ["setting of retrieval models"]),
        ("id train.metric=recall@20 eval.full_ranking=false", ["model id makes lists", "eval.full_ranking=true"]),
        ("id train.metric=recall@7", ["recall@7", "eval.topk=[5, 20]"]),
    ],
)
def test_mistakes_are_named(graph: Dataset, tmp_path: Path, words: str, said: list[str]) -> None:
    preset, *overrides = words.split()
    graph = _with_warm_split(graph)
    with pytest.raises(UserError) as caught:
        train(preset, graph, tmp_path / "run", {"eval.topk": [5, 20]} | parse_overrides(overrides))
    for part in said:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1 and not (tmp_path / "run").exists()


def _with_warm_split(graph: Dataset) -> Dataset:
    """With a split `warm`, whose parts hold the same items."""
    if "warm" not in graph.meta.splits:
        graph.add_split("warm", SplitSpec(kind="random_user"))
    part = graph.split("warm")
    assert np.isin(graph.items[part == 1], graph.items[part == 0]).all()
    return graph


def test_a_model_that_reads_features_where_there_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    rows = [(u, i, (u + i) % 3) for u in range(9) for i in range(9)]
    pl.DataFrame(rows, schema=["userID", "itemID", "x_label"], orient="row").write_csv(
        folder / "plain.inter", separator="\t"
    )
    data = import_mmrec(folder, out=tmp_path / "data", progress=False)
    with pytest.raises(UserError, match="lightgcn") as caught:
        train("freedom", data, tmp_path / "run", settings("freedom"))
    assert "bpr" in str(caught.value)
    train("lightgcn", data, tmp_path / "run", settings("lightgcn", train__epochs=1))


def test_a_split_without_validation_positives(graph: Dataset, tmp_path: Path) -> None:
    if "all" not in graph.meta.splits:
        graph.add_split("all", SplitSpec(kind="random_user", ratios=(1.0, 0.0, 0.0)))
    with pytest.raises(UserError, match="the validation part has no positive"):
        train("bpr", graph, tmp_path / "run", settings("bpr", data__split="all"))


# ----------------------------------------------------------------------------------------------------------------- use
@pytest.fixture(scope="module")
def runs(graph: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    more = {"train.epochs": 30, "train.lr": 0.05}
    return {name: train(name, graph, folder / name, settings(name) | more).path for name in ("lightgcn", "freedom")}


@pytest.mark.parametrize("name", ["lightgcn", "freedom"])
def test_recommend_score_similar_export(graph: Dataset, runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    served = Recommender.load(runs[name])
    taken = {str(graph.item_ids[i]) for i in graph.items[graph.users == graph.user_rows(["5"])[0]]}
    found = served.recommend("5", k=6)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert not taken & {item for item, _ in found}
    assert np.mean([int(item) % 2 for item, _ in found]) > 0.5  # user 5 likes odd items
    assert {item for item, _ in served.recommend("5", k=30, exclude_seen=False)} >= taken
    scores = served.score("5", [item for item, _ in found])
    assert scores == pytest.approx([score for _, score in found], abs=1e-6)
    near = served.similar("4", k=3)
    assert len(near) == 3 and all(int(item) % 2 == 0 for item, _ in near)
    vectors = pl.read_parquet(served.export_vectors(tmp_path / "v.parquet"))
    assert vectors.filter(~pl.col("valid"))["item_id"].to_list() == ([] if name == "freedom" else ["1"])
    lists = pl.read_parquet(served.recommend_all(tmp_path / "all.parquet", k=6))
    rows = {row["user_id"]: row for row in lists.iter_rows(named=True)}
    assert rows["5"]["items"] == [item for item, _ in found] and rows["1"]["items"] == []


def test_what_a_retrieval_model_cannot_do(runs: dict[str, Path]) -> None:
    served = Recommender.load(runs["lightgcn"])
    for call, said in (
        (lambda: served.recommend(history=["4"]), "reads no history"),
        (lambda: served.recommend("1"), "no training interaction"),
        (lambda: served.recommend(), "say who"),
        (lambda: served.score("5", [{"image": [1.0]}]), "never seen"),
        (lambda: served.similar("1"), "no training interaction"),
        (lambda: served.similar({"image": [1.0]}), "never seen"),
        (lambda: served.embed(["4"]), "no content embeddings"),
        (lambda: served.add_items([{"item_id": "new"}]), "never seen"),
    ):
        with pytest.raises(UserError, match=said):
            call()


def test_report(graph: Dataset, runs: dict[str, Path], tmp_path: Path) -> None:
    page = build_report(
        runs["freedom"], runs["lightgcn"], tmp_path / "a.html", recommender=Recommender.load(runs["freedom"])
    ).read_text()
    assert "Test Recall@20" in page and "Validation recall@20" in page and "Lists out of the full catalogue" in page
    assert "Test AUC" not in page and "Health of the bank" not in page and "probabilities be believed" not in page
    ranked = rawrec.train("id", graph, tmp_path / "id", {"train.epochs": 1, "train.threads": 1, "eval.topk": [5, 20]})
    assert "Test AUC" in build_report(ranked.path, runs["lightgcn"], tmp_path / "b.html").read_text()
    assert "Test Recall@20" in build_report(runs["lightgcn"], ranked.path, tmp_path / "c.html").read_text()
    other = train("bpr", graph, tmp_path / "other", settings("bpr", eval__protocol="mmrec", train__epochs=1))
    with pytest.raises(UserError, match=r"eval\.protocol is default in one and mmrec in the other"):
        build_report(runs["lightgcn"], other.path, tmp_path / "d.html")
