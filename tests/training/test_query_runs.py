"""Runs on a dataset with queries: encoded once a step, told apart by the contrast, read where they were never seen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import rawrec
from rawrec import cli
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.training.job import load_task, resume, train
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.step_impressions import slice_impressions
from searches import COLOURS, KINDS, SEARCH, written
from systems import STILL, Stop, digest, stopping_after


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("search") / "data").path


def lines(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def system(data: Path, cache: Path, **overrides: Any) -> ImpressionTask:
    torch.set_num_threads(1)
    still = {key: value for key, value in STILL.items() if "fusion" not in key}
    given = {**SEARCH, **still, **{k.replace("__", "."): v for k, v in overrides.items()}}
    made = ImpressionTask(rawrec.config.resolve("em3", given), Dataset.open(data), cache)
    made.refresh(None, 0)
    return made


def gradients(made: ImpressionTask) -> dict[str, Tensor]:
    batch = made.batch(made.begin_epoch(0)[:128], 0, 0)
    live = made.go_live(batch, 0)
    assert live is not None
    for losses in made.losses(batch, live, 0):
        losses["loss"].backward()
    live.backward()
    return {name: p.grad.to_dense() for name, p in made.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("encoder", ["own", "shared"])
def test_documents_come_to_lie_near_their_queries(search: Path, tmp_path: Path, encoder: str) -> None:
    """Also near a query that nobody typed, which is read from its words."""
    made = system(search, tmp_path / "cache", content__query__encoder=encoder)
    assert made.item_model is not None and made.bank is not None
    learns = [p for encoder in made.learners().values() for p in encoder.trained_parameters()]
    optimiser, order = torch.optim.Adam(learns, 3e-3), made.begin_epoch(0)
    for step in range(70):
        batch = made.batch(order[step % 5 * 200 :][:200], 0, step)
        live = made.go_live(batch, step)
        assert live is not None
        loss = next(part["loss"] for part in made.losses(batch, live, step) if "sqdc" in part)
        optimiser.zero_grad()
        loss.backward()
        live.backward()
        optimiser.step()
    asked = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS] + ["coat red", "a blue sofa please"]
    with torch.no_grad():
        queries = functional.normalize(made.item_model.encode_queries(asked), dim=1)
        content = made.item_model.encode(made.bank, torch.arange(made.data.n_items))["content"]
    near = (queries @ functional.normalize(content, dim=1).T).argmax(1) // 2
    right = (near == torch.tensor([*range(20), 4, 8])).tolist()
    assert sum(right[:20]) > 16 and any(right[20:])


def test_the_contrast_falls_in_a_run(search: Path, tmp_path: Path) -> None:
    found = lines(train("em3", search, tmp_path / "run", {**SEARCH, "train.epochs": 5, "train.patience": 5}))
    assert found[-1]["loss/sqdc"] < 0.95 * found[0]["loss/sqdc"]
    assert all(line["sqdc/anchors"] > 20 and line["sqdc/alone"] == 0 and line["sqdc/negatives"] > 20 for line in found)


def test_micro_batches_change_nothing(search: Path, tmp_path: Path) -> None:
    """Distinct queries are encoded once in a step, and again for the backward pass where they do not fit at once."""
    found = [gradients(system(search, tmp_path / "cache", bank__micro_batch=size)) for size in (1000, 5)]
    assert found[0].keys() == found[1].keys()
    assert any(name.startswith("item_model.query.") for name in found[0])
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-3, atol=1e-6)


def test_accumulated_batches_are_one_contrast(search: Path, tmp_path: Path) -> None:
    one = gradients(system(search, tmp_path / "cache"))
    several = gradients(system(search, tmp_path / "cache", train__batch_size=32, train__accumulate=4))
    for name, grad in one.items():
        torch.testing.assert_close(several[name], grad, rtol=1e-3, atol=1e-6)


def test_a_step_holds_queries_against_documents(search: Path, tmp_path: Path) -> None:
    """The published sum, from rows of the dataset itself."""
    made = system(search, tmp_path / "cache", model__sqdc_negatives="batch", model__sqdc_mask=["query", "session"])
    rows = made.begin_epoch(0)[:128]
    batch = made.batch(rows, 0, 0)
    live = made.go_live(batch, 0)
    assert live is not None and live.queries is not None and made.item_model is not None
    data = made.data
    texts = data.queries.take(data.query_rows[rows])
    assert len(live.queries.rows) == len({text for text in texts if text is not None})
    parts = next(part for part in made.losses(batch, live, 0) if "sqdc" in part)
    with torch.no_grad():
        assert made.bank is not None
        content = functional.normalize(made.item_model.encode(made.bank, torch.arange(data.n_items))["content"], dim=1)
        asked = functional.normalize(made.item_model.encode_queries([text or "" for text in texts]), dim=1)
    items, labels, sessions = data.items[rows], data.label("label")[rows], data.session_rows[rows]
    total, anchors = 0.0, 0
    for i, text in enumerate(texts):
        if labels[i] > 0 and text is not None:
            kept = [j for j in range(len(rows)) if j == i or (texts[j] != text and sessions[j] != sessions[i])]
            logits = 50 * content[items[kept]] @ asked[i]
            total += float(torch.logsumexp(logits, 0) - 50 * content[items[i]] @ asked[i])
            anchors += 1
    assert float(parts["sqdc"].detach()) == pytest.approx(total, rel=1e-4)
    assert int(parts["count/sqdc/anchors"]) == anchors


def test_a_stopped_run_ends_the_same(search: Path, tmp_path: Path) -> None:
    given = {**SEARCH, "train.epochs": 2, "train.checkpoint_every": 2, "bank.micro_batch": 12, "train.ema": 0.9}
    expected = digest(train("em3", search, tmp_path / "whole", given).path)
    with pytest.raises(Stop):
        train("em3", search, tmp_path / "run", given, observer=stopping_after(5))
    assert digest(resume(tmp_path / "run").path) == expected


@pytest.mark.parametrize("paradigm", ["frozen", "hybrid"])
def test_queries_learn_beside_frozen_encoders(search: Path, tmp_path: Path, paradigm: str) -> None:
    """As they are no content of items: content.query.train says whether they do."""
    found = []
    for learns in ("all", "none"):
        given = {**SEARCH, "paradigm": paradigm, "content.query.train": learns}
        if learns == "none":
            del given["train.encoder_lr"]
        run = train("em3", search, tmp_path / learns, given)
        task = load_task(run)
        assert isinstance(task, ImpressionTask) and task.item_model is not None
        found.append(task.item_model.encode_queries(["red mug"]).detach())
        assert not any(key.startswith("live_share") for key in lines(run)[0]), "no encoder of items learns"
    fresh = system(search, tmp_path / "cache", paradigm=paradigm, train__encoder_lr=1e-3)
    assert fresh.item_model is not None
    assert torch.equal(found[1], fresh.item_model.encode_queries(["red mug"]).detach())
    assert not torch.allclose(found[0], found[1], atol=1e-3)


@pytest.mark.parametrize("paradigm", ["end_to_end", "hybrid"])
def test_without_the_rankers_gradient_content_learns_by_the_contrast_alone(
    search: Path, tmp_path: Path, paradigm: str
) -> None:
    """Encoders, fusion and queries have the gradient of SQDC; the ranker has the one that it has anyway."""
    found = []
    for alone in (True, False):
        given = {"model__content": "lemur", "paradigm": paradigm, "model__ranking_gradient": alone}
        made = system(search, tmp_path / "cache", **given)
        batch = made.batch(made.begin_epoch(0)[:128], 0, 0)
        live = made.go_live(batch, 0)
        assert live is not None
        for losses in made.losses(batch, live, 0):
            if "sqdc" in losses or not alone:
                losses["loss"].backward()
        live.backward()
        found.append({name: p.grad.to_dense() for name, p in made.named_parameters() if p.grad is not None})
    contrast, both = found
    content = {name for name in both if name.startswith("item_model.")}
    assert {name for name in contrast if name.startswith("item_model.")} == content
    assert any(".query." in name for name in content) and any(".query." not in name for name in content)
    for name in content:
        torch.testing.assert_close(both[name], contrast[name], rtol=1e-4, atol=1e-7)
    usual = gradients(system(search, tmp_path / "cache", model__content="lemur", paradigm=paradigm))
    assert any(not torch.allclose(usual[name], both[name], atol=1e-6) for name in content)
    for name in usual.keys() - content:
        torch.testing.assert_close(both[name], usual[name], rtol=1e-4, atol=1e-7)


def test_content_that_would_learn_from_nothing_is_refused(search: Path, tmp_path: Path) -> None:
    given = {**SEARCH, "model.ranking_gradient": False}
    few = written(tmp_path / "few", rows=100).path  # an epoch of single rows
    for data, changes, said in (
        (search, {"model.sqdc_weight": 0.0, "model.cic_weight": 0.0}, "content learns by contrasts alone then, and"),
        (
            search,
            {"bank.history_grad": "none"},
            "bank.history_grad=none would do nothing: model.ranking_gradient=false",
        ),
        (few, {"train.batch_size": 1, "model.cic_weight": 0.0}, "no contrast reached the encoder|no clicked row with"),
    ):
        with pytest.raises(UserError, match=said):
            train("em3", data, tmp_path / "run", given | changes)


def test_queries_that_would_learn_from_nothing_are_refused(search: Path, tmp_path: Path) -> None:
    """Content learns by a contrast of its own; queries, whose encoder is apart, by none."""
    given = {**SEARCH, "model.content": "lemur", "model.ranking_gradient": False}
    for changes, said in (
        ({"model.sqdc_weight": 0.0, "model.cic_weight": 0.1}, "which is 0; set content.query.train=none, or use"),
        ({"model.sqdc_anchor": "history"}, r"items against items \(model.sqdc_anchor=history\); set content.query"),
    ):
        with pytest.raises(UserError, match=said):
            train("em3", search, tmp_path / "run", given | changes)
    others = {"content.query.train": "none", "model.sqdc_weight": 0.0, "model.cic_weight": 0.1}
    assert system(search, tmp_path / "cache", **given | others).queries is not None


def test_queries_that_no_training_row_has_are_told(tmp_path: Path) -> None:
    data = written(tmp_path / "data", rows=300, asked=0.0)
    with pytest.raises(UserError, match="has none: import it with a column of queries"):
        train("em3", data, tmp_path / "run", {**SEARCH, "model.sqdc_anchor": "query"})
    late = Path(written(tmp_path / "late", rows=300).path)
    opened = Dataset.open(late)
    opened.query_rows[opened.split() == 0] = -1
    with pytest.raises(UserError, match=r"content.query.train=all: in a whole epoch no row had a query"):
        train("em3", opened, tmp_path / "run", SEARCH)


def test_a_user_is_told_where_there_was_nothing_to_contrast(tmp_path: Path) -> None:
    """Few rows in a batch may have no negatives, or no click and not even a term."""
    told: list[str] = []

    def observe(event: str, **values: Any) -> None:
        told.extend([values["text"]] if event == "note" else [])

    data = written(tmp_path / "data", rows=100)
    run = train("em3", data, tmp_path / "run", {**SEARCH, "train.batch_size": 3}, observer=observe)
    without, alone = [note for note in told if "sqdc" in note]
    assert "no clicked row had a document" in without and "no clicked row had a negative" in alone
    (line,) = lines(run)
    assert 0 < line["sqdc/alone"] < 1 and 0 < line["sqdc/anchors"] < 3
    with pytest.raises(UserError, match=r"no clicked row with a query had a negative. Raise train.batch_size"):
        train("em3", data, tmp_path / "alone", {**SEARCH, "train.batch_size": 1})


def test_other_items_than_those_of_the_transformer_have_queries_too(search: Path, tmp_path: Path) -> None:
    """Any encoder of items, with a fusion: the query's transformer then has its own size."""
    given = {key: value for key, value in SEARCH.items() if not key.startswith("content.item")}
    given |= {"content.text.encoder": "random:bert", "content.query.encoder": "joint:tiny"}
    run = train("em3", search, tmp_path / "run", given)
    assert lines(run)[0]["loss/sqdc"] > 0
    with pytest.raises(UserError, match=r"content.query.encoder=own: it is made as the items' encoder"):
        train("em3", search, tmp_path / "other", {**given, "content.query.encoder": "own"})


# -------------------------------------------------------------------------------------------- trained, kept, read again
KEPT: dict[str, Any] = {
    "model.content": "lemur", "paradigm": "frozen", "content.fusion.kind": "none", "content.query.train": "none",
    "content.dim": 16, "content.item.train": "none",
}  # fmt: skip


@pytest.mark.parametrize("query", ["own", "shared"])
def test_what_a_run_trained_is_the_encoder_of_others(
    search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """Its content and its queries are the same numbers there, frozen; further training begins with them."""
    given = {**SEARCH, "model.content": "lemur", "content.query.encoder": query}
    first = train("em3", search, tmp_path / "run", given)
    folder = tmp_path / "encoder"
    monkeypatch.setattr("sys.argv", ["rawrec", "export", str(first.path), "--to", "encoder", "--out", str(folder)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code and f"wrote {folder}" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "hash_tokenizer.json"}
    rec, items = rawrec.Recommender.load(first.path), [f"i{k}" for k in range(40)]
    frozen = {key: value for key, value in given.items() if key.split(".")[-1] not in ("sqdc_weight", "encoder_lr")}
    frozen = frozen | KEPT | {"content.item.encoder": f"joint:{folder}"}
    if query == "shared":
        del frozen["content.query.train"]
    second = train("em3", search, tmp_path / "second", frozen)
    again = rawrec.Recommender.load(second.path)
    np.testing.assert_allclose(again.embed(items), rec.embed(items), rtol=1e-5, atol=1e-5)
    asked = ["red mug", "a mug that is red", "sofa"]
    made = [one.system.item_model.encode_queries(asked).detach() for one in (rec, again)]  # type: ignore[union-attr]
    torch.testing.assert_close(made[1], made[0], rtol=1e-5, atol=1e-5)
    assert "loss/sqdc" not in lines(second)[0] and not any(key.startswith("live_share") for key in lines(second)[0])
    own = {"title": "red mug", "said": "nice"}
    np.testing.assert_allclose(again.embed([own]), rec.embed([own]), rtol=1e-4, atol=1e-5)
    assert again.score(user="u1", items=["i1"], context={"query": "red mug"})[0] > 0
    digests = second.info()["encoders"]
    assert digests["content"]["encoder"] == f"joint:{folder}" and len(digests) == (2 if query == "own" else 1)
    begun = {"content__item__encoder": f"joint:{folder}", "content__query__encoder": query, "model__content": "lemur"}
    warm = system(search, tmp_path / "cache", **begun)
    assert warm.item_model is not None and warm.bank is not None
    torch.testing.assert_close(warm.bank.content, rec.system.bank.content, rtol=1e-4, atol=1e-5)  # type: ignore[union-attr]
    assert any(".content." in name or "query" in name for name in gradients(warm))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    with pytest.raises(UserError, match=r"the weights of the encoder joint:\S+ \(.*\) have changed"):
        rawrec.Recommender.load(second.path)


def test_what_does_not_fit_a_trained_encoder_is_told(search: Path, tmp_path: Path) -> None:
    first = train("em3", search, tmp_path / "run", {**SEARCH, "content.said.use": False})
    folder = rawrec.Recommender.load(first.path).export_encoder(tmp_path / "encoder")
    given = {key: value for key, value in SEARCH.items() if key not in ("model.sqdc_weight", "train.encoder_lr")}
    given |= KEPT | {"content.item.encoder": f"joint:{folder}", "content.said.use": False}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"content.said.use": True}, "it learned to read title, and not the field said; set content.said.use=false"),
        ({"content.dim": 32}, "it makes content 16 wide; use content.dim=16"),
        ({"content.item.layers": 1}, "layers=1: the encoder"),
        ({"content.text.max_length": 9}, "lower content.<field>.max_length"),
        ({"content.query.max_length": 9}, "lower content.query.max_length"),
        ({"content.query.encoder": "shared", "content.query.train": None}, "it has no queries among the items' fields"),
        ({"content.item.encoder": f"joint:{first.path}"}, "it is a run; write its encoder by `rawrec export"),
        ({"content.fusion.queries": 3}, "paradigm=frozen has no fusion; use hybrid or end_to_end, or content.fusion.k"),
        ({"model.sqdc_weight": 0.1}, "neither content nor queries learn"),
    ]
    for changes, said in cases:
        with pytest.raises(UserError) as caught:
            now = {key: value for key, value in (given | changes).items() if value is not None}
            train("em3", search, tmp_path / "other", now)
        assert said in str(caught.value), f"{changes}: {said!r} is not in {caught.value}"
    with pytest.raises(UserError, match="is there already: give a new folder"):
        rawrec.Recommender.load(first.path).export_encoder(folder)
    ids = train("id", search, tmp_path / "id", {"train.epochs": 1, "train.device": "cpu"})
    with pytest.raises(UserError, match="reads items by no encoder"):
        rawrec.Recommender.load(ids.path).export_encoder(tmp_path / "none")


# -------------------------------------------------------------------------------------------- scores that read queries
RANKS = {**SEARCH, "model.name": "dot_mlp", "model.content": "lemur", "train.epochs": 8, "train.patience": 8}


@pytest.fixture(scope="module")
def ranks(search: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train("em3", search, tmp_path_factory.mktemp("ranks") / "run", RANKS)


def test_a_score_depends_on_what_was_typed(search: Path, ranks: RunFolder) -> None:
    assert json.loads((ranks.path / "metrics.json").read_text())["test"]["auc"] > 0.8
    rec = rawrec.Recommender.load(ranks.path)
    items = [f"i{k}" for k in range(40)]
    right = 0
    for k, (colour, kind) in enumerate((c, k) for c in COLOURS for k in KINDS):
        scores = rec.score(user="u1", items=items, context={"query": f"{colour} {kind}"})
        right += int(np.argmax(scores)) // 2 == k
        (best, *_) = rec.recommend(user="u1", k=3, exclude_seen=False, context={"query": f"{colour} {kind}"})
        assert best.score == pytest.approx(max(scores), rel=1e-4)
    assert right > 10
    new = {"title": "red mug", "said": "nice"}
    assert rec.score(user="u1", items=[new], context={"query": "mug that is red"})[0] > 0
    with pytest.warns(UserWarning, match="not in the context, so read as missing: query"):
        rec.score(user="u1", items=items)
    with pytest.raises(UserError, match="query=3: give the text of a query"):
        rec.score(user="u1", items=items, context={"query": 3})


def test_evaluation_reads_the_query_of_each_impression(search: Path, ranks: RunFolder) -> None:
    """The same probability as the recommender gives for that text; queries of a part are encoded once each."""
    task = load_task(ranks)
    assert isinstance(task, ImpressionTask) and task.item_model is not None and task.item_model.query is not None
    sample = task.evaluation_sample(2)
    seen: list[int] = []
    count = task.item_model.query.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    task.cfg.eval.batch_size = 50
    scores = task.score_impressions(sample, 2)
    count.remove()
    assert sample.query is not None and sum(seen) == len({q for q in sample.query.tolist() if q >= 0})
    task.cfg.eval.batch_size = 4096
    np.testing.assert_allclose(task.score_impressions(sample, 2), scores, rtol=1e-4, atol=1e-6)
    blank = slice_impressions(sample, slice(0, 8))
    without = task.score_impressions(blank, 2)
    blank.query = np.full(8, -1)
    assert not np.allclose(task.score_impressions(blank, 2), without, atol=1e-4)


def test_a_ranker_that_only_contrasts_reads_no_query(search: Path, tmp_path: Path) -> None:
    run = train("em3", search, tmp_path / "run", SEARCH)
    with pytest.raises(UserError, match="context: this run reads none"):
        rawrec.Recommender.load(run.path).score(user="u1", items=["i1"], context={"query": "red mug"})


def test_a_part_that_reads_queries_does_without_them(tmp_path: Path) -> None:
    data = written(tmp_path / "data", rows=300, asked=0.0)
    given = {key: value for key, value in RANKS.items() if not key.startswith(("model.sqdc", "content.query"))}
    run = train("em3", data, tmp_path / "run", {**given, "train.epochs": 1, "train.patience": 1})
    assert "loss/sqdc" not in lines(run)[0]


@pytest.mark.parametrize("paradigm", ["frozen", "hybrid"])
def test_queries_are_ranked_by_under_every_paradigm(search: Path, tmp_path: Path, paradigm: str) -> None:
    run = train(
        "em3", search, tmp_path / "run", {**RANKS, "paradigm": paradigm, "train.epochs": 1, "train.patience": 1}
    )
    assert rawrec.Recommender.load(run.path).score(user="u1", items=["i1"], context={"query": "red mug"})[0] > 0
