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
import torch

import rawrec
from rawrec import Recommender, RunStopped, UserError
from rawrec.config import RETRIEVAL, parse_overrides, resolve
from rawrec.data.dataset import Dataset
from rawrec.data.importers.mmrec import import_mmrec
from rawrec.evaluation.topk import TopK
from rawrec.models.graph import Interactions
from rawrec.report import build_report
from rawrec.training.job import evaluate, load_system, resume, train
from rawrec.training.negatives import Negatives
from rawrec.training.retrieval import DECAY_EPOCHS, RetrievalSystem, RetrievalTrainer
from rawrec.training.run import RunFolder
from systems import TIMES, Stop, digest, stopping_after

USERS, ITEMS = 40, 30
MODELS = sorted(RETRIEVAL)
SMALL: dict[str, Any] = {
    "train.threads": 1,
    "train.device": "cpu",
    "train.epochs": 3,
    "train.batch_size": 100,
    "train.lr": 0.01,
    "eval.topk": [5, 20],
}


def settings(model: str, **overrides: Any) -> dict[str, Any]:
    """Overrides of the preset `model` that fit the small graph; `__` stands for the dot."""
    fields = RETRIEVAL[model].model_fields
    narrow = {"embedding_size": 8, "knn_k": 3, "image_knn_k": 3, "text_knn_k": 3, "feat_embed_dim": 8}
    narrow |= {"recdim": 8, "latent_dim": 8, "weight_size": [8, 8], "latent_sizes": [6], "user_neighbours": 5}
    own = {f"model.{name}": value for name, value in narrow.items() if name in fields}
    return SMALL | own | {key.replace("__", "."): value for key, value in overrides.items()}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users like items of their parity. User 0 has taken every item, user 1 is unseen in training, as is item 1."""
    folder = tmp_path_factory.mktemp("mmrec") / "graph"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = [(0, item, 0) for item in range(ITEMS) if item != 1] + [(1, 3, 1), (1, 5, 2)]
    for user in range(2, USERS):
        liked = rng.permutation(np.arange(user % 2, ITEMS, 2))[:9]
        lines += [(user, item, 0 if item != 1 and place < 6 else 1 + place % 2) for place, item in enumerate(liked)]
    table = pl.DataFrame(lines, schema=["userID", "itemID", "x_label"], orient="row")
    table.write_csv(folder / "graph.inter", separator="\t")
    for name, width in (("image", 6), ("text", 5)):
        features = rng.normal(size=(ITEMS, width)).astype(np.float32)
        features[:, 0] += 3 * (np.arange(ITEMS) % 2)
        features[7] = np.nan if name == "image" else features[7]
        np.save(folder / f"{name}_feat.npy", features)
    return import_mmrec(folder, out=folder.parent / "data", progress=False)


def make(data: Dataset, folder: Path, model: str = "lightgcn", **overrides: Any) -> RetrievalTrainer:
    """A trainer before its first step."""
    cfg = resolve(model, settings(model, **overrides))
    system = RetrievalSystem(cfg, data, folder / "cache")
    return RetrievalTrainer(system, RunFolder.create(folder / "run", system.cfg, data, overwrite=True))


# --------------------------------------------------------------------------------------------------------- every model
@pytest.mark.parametrize("model", MODELS)
def test_a_run_is_stopped_goes_on_and_says_the_same_when_loaded(graph: Dataset, tmp_path: Path, model: str) -> None:
    whole = train(model, graph, tmp_path / "whole", settings(model))
    stored = json.loads((whole.path / "metrics.json").read_text())
    assert stored["test"]["recall@20"] > 0 and len(whole.metrics_lines()) == 3
    assert evaluate(whole.path, "test") == stored["test"]
    assert evaluate(whole.path, "valid") == stored["valid"]

    draw = random.Random(model)
    with pytest.raises(Stop):
        train(model, graph, tmp_path / "run", settings(model), observer=stopping_after(draw.randint(5, 9)))
    with pytest.raises(Stop):
        resume(tmp_path / "run", stopping_after(draw.randint(3, 7)))
    assert digest(resume(tmp_path / "run").path) == digest(whole.path)


def test_killed_and_resumed(graph: Dataset, tmp_path: Path) -> None:
    given = settings("lightgcn", train__epochs=400, train__patience=400)
    whole = digest(train("lightgcn", graph, tmp_path / "whole", given).path)
    words = ["train", "lightgcn", "--data", str(graph.path), "--out", str(tmp_path / "run")]
    words += [f"{key}={json.dumps(value)}" for key, value in given.items()]
    process = subprocess.Popen([sys.executable, "-m", "rawrec.cli", *words], stderr=subprocess.DEVNULL)
    lines = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (lines.is_file() and len(lines.read_text().splitlines()) > 30):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert 30 < len(lines.read_text().splitlines()) < 400
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
        load_system(RunFolder.open(tmp_path / "run"))
    assert digest(resume(tmp_path / "run").path) == whole


def test_the_best_epoch_is_kept(graph: Dataset, tmp_path: Path) -> None:
    run = train("bpr", graph, tmp_path / "run", settings("bpr", train__epochs=8, train__lr=0.3))
    values = [line["valid/recall@20"] for line in run.metrics_lines()]
    assert run.info()["best_epoch"] == int(np.argmax(values)) + 1
    assert json.loads((run.path / "metrics.json").read_text())["valid"]["recall@20"] == max(values)
    lines = pl.read_parquet(run.path / "topk.parquet")
    assert lines.columns[:2] == ["user", "items"] and "recall@20" in lines.columns


# ----------------------------------------------------------------------------------------------------------- protocols
@pytest.mark.parametrize("protocol", ["default", "mmrec"])
@pytest.mark.parametrize("part", [1, 2])
def test_protocols_against_a_plain_computation(graph: Dataset, tmp_path: Path, protocol: str, part: int) -> None:
    trainer = make(graph, tmp_path, eval__protocol=protocol)
    trainer._epoch()
    result = trainer.system.evaluate(part)
    split, users, items = graph.split(), graph.users, graph.items
    user_vectors, item_vectors = (vectors.numpy() for vectors in trainer.system.embeddings())
    recalls, judged = [], []
    for user in range(graph.n_users):
        mine = users == user
        train_items, wanted = items[mine & (split == 0)], items[mine & (split == part)]
        if not len(wanted) or (protocol == "mmrec" and not len(train_items)):
            continue
        hidden = items[mine & (split == 0)] if protocol == "mmrec" else items[mine & (split < part)]
        scores = item_vectors @ user_vectors[user]
        scores[hidden] = -np.inf
        best = np.argsort(-scores)[:5]
        recalls.append(len(np.intersect1d(best, wanted)) / len(wanted))
        judged.append(user)
        row = result.users.tolist().index(user)
        assert not np.isin(result.lists.items[row], hidden).any()
    assert result.users.tolist() == judged
    assert (1 in [int(graph.user_ids[u]) for u in judged]) == (protocol == "default")
    assert result.metrics["recall@5"] == pytest.approx(np.mean(recalls), abs=1e-9)


@pytest.mark.parametrize(("protocol", "epochs"), [("default", 4), ("mmrec", 5)])
def test_early_stopping(graph: Dataset, tmp_path: Path, protocol: str, epochs: int) -> None:
    """Weights that stand still: the first epoch is the best; three, or the fourth, without improvement end it."""
    still = {"train.lr": 1e-30, "train.patience": 3, "train.epochs": 50, "eval.protocol": protocol}
    run = train("bpr", graph, tmp_path / "run", settings("bpr") | still)
    assert len(run.metrics_lines()) == epochs and run.info()["best_epoch"] == 1


def test_only_mmrec_rounds_before_it_compares(graph: Dataset, tmp_path: Path) -> None:
    for protocol, expected in (("default", 0.12344), ("mmrec", 0.1234)):
        trainer = make(graph, tmp_path, eval__protocol=protocol)
        result = trainer.system.judge(1, TopK(np.zeros((len(trainer.system.tasks[1].users), 20), int), np.zeros(0)))
        result.metrics["recall@20"] = 0.12344
        assert trainer._monitored(result) == expected


# ----------------------------------------------------------------------------------------------------------- negatives
def test_negatives_are_uniform_over_what_the_user_has_not_taken() -> None:
    rng = np.random.default_rng(0)
    taken = rng.random((12, 15)) < rng.uniform(0.1, 0.9, (12, 1))
    taken[:, [4, 9]] = False  # never seen in training
    taken[3] = True
    taken[3, [2, 4, 9]] = False  # one left
    users, items = (torch.from_numpy(rows) for rows in np.nonzero(taken))
    shuffled = torch.randperm(len(users), generator=torch.Generator().manual_seed(0))
    negatives = Negatives(Interactions(users[shuffled], items[shuffled], 12, 15))
    wanted = torch.arange(12).repeat_interleave(6000)
    drawn = negatives.draw(wanted, torch.Generator().manual_seed(1))
    counts = np.zeros((12, 15))
    np.add.at(counts, (wanted.numpy(), drawn.numpy()), 1)
    seen = taken.any(0)
    free = seen & ~taken
    assert (counts[~free] == 0).all()
    share = counts / 6000 * free.sum(1, keepdims=True)
    assert np.abs(share[free] - 1).max() < 0.2
    assert drawn[wanted == 3].unique().tolist() == [2]
    again = negatives.draw(wanted, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again)


def test_users_who_have_taken_everything_give_no_negatives(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path)
    assert 0 in trainer.system.pairs.users and 0 not in trainer.pairs.users
    all_of_it = Interactions(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2, 2)
    trainer.pairs = all_of_it
    with pytest.raises(UserError, match="every user of the training part has taken all items"):
        trainer._with_negatives(Negatives(all_of_it))


def test_models_without_negatives_learn_from_every_pair(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path, "bm3")
    assert trainer.negatives is None and len(trainer.pairs.users) == (graph.split() == 0).sum()


# ---------------------------------------------------------------------------------------------------------------- loop
def test_three_steps_are_those_of_dense_adam(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path, train__weight_decay=0.01, train__lr=0.01)
    plain = make(graph, tmp_path / "plain", train__weight_decay=0.01)
    optimizer = torch.optim.Adam(plain.parameters, lr=0.01, weight_decay=0.01, fused=False, foreach=False)
    for rows in torch.randperm(len(trainer.pairs.users), generator=torch.Generator().manual_seed(0)).split(70)[:3]:
        draw = trainer.negatives.draw
        drawn: list[torch.Tensor] = []
        trainer.negatives.draw = lambda *a, draw=draw, drawn=drawn: drawn.append(draw(*a)) or drawn[0]  # type: ignore
        trainer._step(rows)
        trainer.negatives.draw = draw  # type: ignore[method-assign]
        optimizer.zero_grad()
        plain.model.loss(plain.pairs.users[rows], plain.pairs.items[rows], drawn[0], {})["loss"].backward()
        optimizer.step()
    for ours, theirs in zip(trainer.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_falls(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path, train__lr_decay=0.5, train__lr=0.1)
    rates = []
    for epoch in (0, DECAY_EPOCHS // 2, DECAY_EPOCHS):
        trainer.progress.epoch = epoch
        trainer._epoch()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1 * 0.5**0.5, 0.05])


def test_a_loss_that_is_not_finite_stops_the_run(graph: Dataset, tmp_path: Path) -> None:
    trainer = make(graph, tmp_path)
    with torch.no_grad():
        trainer.parameters[0].fill_(torch.inf)
    before = [p.detach().clone() for p in trainer.parameters]
    with pytest.raises(RunStopped, match=r"no checkpoint yet.*lower train\.lr"):
        trainer._epoch()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True)) and not trainer.progress.step


def test_metrics_of_every_epoch(graph: Dataset, tmp_path: Path) -> None:
    events: list[tuple[str, dict]] = []
    run = train("freedom", graph, tmp_path / "run", settings("freedom"), observer=lambda e, **v: events.append((e, v)))
    line = run.metrics_lines()[-1]
    assert {"epoch", "step", "loss", "valid/recall@20", "valid/ndcg@5", "valid/map@5", *TIMES} <= line.keys()
    assert any(key.startswith("loss/") for key in line)
    assert [e for e, _ in events if e != "step"] == ["epoch", "validated"] * 3 + ["evaluating"]
    assert list((run.path / "tensorboard").iterdir())
    info = run.info()
    assert info["paradigm"] == "hybrid" and info["parameters"]["model"] > 0 and info["steps"] == line["step"]


# ------------------------------------------------------------------------------------------------------------ features
def test_missing_rows_and_fields_left_out(graph: Dataset, tmp_path: Path) -> None:
    model = make(graph, tmp_path, "vbpr").model
    assert model.modalities == ("image", "text")
    assert not model.present("image")[7] and model.present("image").sum() == ITEMS - 1 and model.present("text").all()
    trainer = make(graph, tmp_path, "vbpr", content__image__use=False)
    assert trainer.model.modalities == ("text",)
    assert not trainer.cfg.content.fields["image"].use  # in config.yaml, for whoever loads the run


def test_features_of_raw_fields(shop: Path, tmp_path: Path) -> None:
    """Frozen encoders make them once; labels decide which interactions are positives."""
    tiny = {"content.image.encoder": "random:conv", "content.image.size": 32, "content.text.encoder": "random:bert"}
    data = Dataset.open(shop)
    run = train("vbpr", data, tmp_path / "run", settings("vbpr") | tiny | {"train.precision": "fp32"})
    system = load_system(run)
    assert isinstance(system, RetrievalSystem)
    assert set(system.model.modalities) == {*data.fields.image, *data.fields.text}
    assert all(system.model.present(name).any() for name in system.model.modalities)
    liked = (data.split() == 0) & (data.label() > 0)
    pairs = set(zip(data.users[liked].tolist(), data.items[liked].tolist(), strict=True))
    found = zip(system.pairs.users.tolist(), system.pairs.items.tolist(), strict=True)
    assert sorted(pairs) == sorted(found)


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
        ("bpr train.ema=0.9", ["ranking models"]),
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
        ("id train.lr_decay=0.9", ["setting of retrieval models"]),
        ("id train.metric=recall@20", ["model id is judged by impressions"]),
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
        from rawrec.data.splits import SplitSpec

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


def test_a_ready_item_graph_needs_no_features(graph: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the folder that a run was started in, when it is loaded again."""
    rows, columns = np.arange(ITEMS), (np.arange(ITEMS) + 2) % ITEMS
    np.savez(tmp_path / "graph.npz", row=rows, col=columns, value=np.ones(ITEMS, np.float32))
    monkeypatch.chdir(tmp_path)
    given = settings("freedom", model__item_graph="graph.npz", model__reg_weight=0)
    del given["model.knn_k"]
    run = train("freedom", graph, tmp_path / "run", given)
    assert run.info()["paradigm"] is None
    monkeypatch.chdir(tmp_path.parent)
    system = load_system(run)
    assert isinstance(system, RetrievalSystem) and not system.reads_features and not system.model.modalities
    with pytest.raises(UserError, match="reads no features"):
        train("freedom", graph, tmp_path / "again", given | {"content.image.use": False})


def test_the_order_of_modalities(graph: Dataset, tmp_path: Path) -> None:
    """It is the dataset's unless given, and a run that is loaded again has it."""
    assert make(graph, tmp_path / "a", "freedom").model.modalities == ("image", "text")
    first = make(graph, tmp_path / "b", "freedom", content__order=["text", "image"]).model
    assert first.modalities == ("text", "image") and first.width("text") == 5
    run = train("freedom", graph, tmp_path / "run", settings("freedom", content__order=["text", "image"]))
    loaded = load_system(run)
    assert isinstance(loaded, RetrievalSystem) and loaded.model.modalities == ("text", "image")
    alone = make(graph, tmp_path / "c", "freedom", content__order=["text"], content__image__use=False)
    assert alone.model.modalities == ("text",)


@pytest.mark.parametrize("order", [[], ["text"], ["text", "image", "text"], ["text", "audio"]])
def test_an_order_that_is_not_of_all_modalities(graph: Dataset, tmp_path: Path, order: list[str]) -> None:
    with pytest.raises(UserError, match=r"content\.order=\[image,text\]") as caught:
        make(graph, tmp_path, "freedom", content__order=order)
    assert str(caught.value).startswith(f"content.order=[{','.join(order)}]")


def test_a_split_without_validation_positives(graph: Dataset, tmp_path: Path) -> None:
    from rawrec.data.splits import SplitSpec

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
