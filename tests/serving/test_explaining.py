"""Reasons are the model's own weights, and parts are what a scorer without the part says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import rawrec
from lists_shop import ITEMS, KINDS, PRICES, QUICK, make_runs, make_shop
from rawrec import Recommender, UserError
from rawrec.data.dataset import Dataset
from rawrec.serving.explaining import REASONS, Explained

PAST = ["i1", "i8", "i15"]
SOME = ["i2", "i30", "i6", "i9"]
FURTHER = {
    "din": {"model.content": "none", "model.columns": []},
    "lemur": {"model.content": "lemur", "model.lemur.layers": 0, "model.id_history": 0, "paradigm": "hybrid"},
    "marked": {"model.content": "lemur", "model.lemur.marks": ["gap"], "model.lemur.queries": 2, "paradigm": "hybrid"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_shop(tmp_path_factory.mktemp("explained") / "data")


@pytest.fixture(scope="module")
def served(data: Dataset) -> dict[str, Recommender]:
    runs = make_runs(data, data.path.parent)
    return {name: Recommender.load(path, device="cpu") for name, path in runs.items()}


def copies(rec: Recommender, items: list[str]) -> list[dict]:
    """The items as new ones, whose ids training never saw."""
    look, valid = rec.data.feature("look")
    rows = rec.data.item_rows(items).tolist()
    return [
        {"look": look[k] if valid[k] else None, "kind": KINDS[k % 3], "price": PRICES[k]} for k in rows
    ]  # fmt: skip


def parts(found: list[Explained], name: str) -> list[float]:
    return [one.parts[name] for one in found]


def test_parts_are_what_a_scorer_without_them_loses(served: dict[str, Recommender]) -> None:
    rec = served["em3"]
    found = rec.explain("u3", SOME, history=PAST)
    scores = np.array(rec.score("u3", SOME, history=PAST))
    np.testing.assert_allclose([one.score for one in found], scores, atol=1e-6)
    assert [one.item for one in found] == SOME and all(set(one.parts) == {"ids", "content", "history"} for one in found)
    alone = np.array(rec.score("u3", SOME, history=[]))
    np.testing.assert_allclose(parts(found, "history"), scores - alone, atol=1e-6)
    unknown = np.array(rec.score(history=copies(rec, PAST), items=copies(rec, SOME)))
    np.testing.assert_allclose(parts(found, "ids"), scores - unknown, atol=1e-6)
    bare = Recommender.load(rec.run.path, device="cpu")
    assert bare._table is not None
    bare._table.valid.zero_()
    np.testing.assert_allclose(parts(found, "content"), scores - bare.score("u3", SOME, history=PAST), atol=1e-6)
    assert all(np.abs(parts(found, name)).max() > 1e-6 for name in ("ids", "content", "history"))
    new = rec.explain("u3", [*copies(rec, ["i2"]), {"kind": "mug"}], history=PAST)
    assert [one.item for one in new] == ["new item 0", "new item 1"]
    assert set(served["id"].explain("u3", SOME)[0].parts) == {"ids", "history"}
    assert rec.explain("u3", []) == []


def test_popularity_is_a_part_of_a_model_that_reads_it(data: Dataset, tmp_path: Path) -> None:
    run = rawrec.train("id", data, tmp_path / "run", QUICK | {"model.dim": 8, "model.popularity": True}, progress=False)
    rec = Recommender.load(run.path, device="cpu")
    found = rec.explain("u3", SOME, history=PAST)
    assert set(found[0].parts) == {"ids", "popularity", "history"}
    bare = Recommender.load(run.path, device="cpu")
    for table in (bare.system.ranker.inputs.columns.numbers, bare.system.ranker.inputs.columns.users):
        table[:, 0] = table[-1, 0]  # all as popular as what training never saw
    lost = np.array([one.score for one in found]) - bare.score("u3", SOME, history=PAST)
    np.testing.assert_allclose(parts(found, "popularity"), lost, atol=1e-6)
    assert np.abs(lost).max() > 1e-4
    assert rec.score("u3", SOME, history=PAST) == [one.score for one in found]  # nothing is left out behind it


def test_reasons_are_the_attention(served: dict[str, Recommender]) -> None:
    """Of ids: softmax of a map of the candidate's vector with those of the history."""
    rec = served["id"]
    inputs = rec.system.ranker.inputs
    past, rows = (torch.from_numpy(rec.data.item_rows(items)) for items in (PAST, SOME))
    codes = [inputs.ids.item_codes(own) for own in (past, rows)]
    with torch.no_grad():
        of_past, of_items = (inputs.ids.item(own) for own in codes)
        weights = torch.softmax(inputs.id_query(of_items) @ of_past.T / rec.system.cfg.model.dim**0.5, 1)
    for one, own in zip(rec.explain(history=PAST, items=SOME), weights, strict=True):
        assert one.by == "attention"
        np.testing.assert_allclose([dict(one.because)[item] for item in PAST], own.numpy(), rtol=1e-4)
        assert [reason.weight for reason in one.because] == sorted((r.weight for r in one.because), reverse=True)
    (one,) = rec.explain(history=["i1", "i1"], items=["i2"])
    assert [reason.item for reason in one.because] == ["i1"] and one.because[0].weight == pytest.approx(1.0, abs=1e-5)
    (one,) = rec.explain(history=[], items=["i2"])
    assert one.because == [] and one.parts["history"] == 0
    long = rec.explain("u3", ["i2"])[0].because
    assert len(long) <= REASONS and {item for item, _ in long} <= set(rec.data.item_ids)


def test_reasons_of_content_are_a_mean_of_two_attentions(served: dict[str, Recommender]) -> None:
    rec = served["em3"]
    for one in rec.explain(history=[*PAST, *copies(rec, ["i4"])], items=SOME):
        assert one.by == "attention" and {item for item, _ in one.because} == {*PAST, "new item 3"}
        assert sum(weight for _, weight in one.because) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", FURTHER)
def test_other_heads_and_contents(data: Dataset, tmp_path: Path, name: str) -> None:
    model = "din" if name == "din" else "em3"
    small = {"model.dim": 8} if model == "din" else {"content.dim": 8, "model.dim": 8}
    rec = Recommender.load(
        rawrec.train(model, data, tmp_path / "run", QUICK | small | FURTHER[name]).path, device="cpu"
    )
    for one in rec.explain("u3", SOME, history=PAST):
        assert 0 < len(one.because) <= 3 or one.by == "cosine"
        assert one.by == ("cosine" if name == "lemur" else "attention")
        total = sum(weight for _, weight in one.because)
        if name == "marked":
            assert total == pytest.approx(1.0, abs=1e-5)
        elif name == "din":
            assert 0 < total <= 1 + 1e-6
        else:
            expected = rec.embed([one.item, *PAST])
            lengths = np.linalg.norm(expected, axis=1)
            cosines = dict(zip(PAST, (expected @ expected[0] / (lengths * lengths[0]).clip(1e-12))[1:], strict=True))
            assert dict(one.because) == pytest.approx({k: v for k, v in cosines.items() if v > 0}, abs=1e-5)


def test_a_retrieval_model_without_ids_and_content(served: dict[str, Recommender]) -> None:
    rec = served["vbpr"]
    scores = np.array(rec.score("u3", SOME))
    found = rec.explain("u3", SOME)
    model = Recommender.load(rec.run.path, device="cpu")._retrieval.model  # type: ignore[attr-defined]
    rows, user = torch.from_numpy(rec.data.item_rows(SOME)), int(rec.data.user_rows(["u3"])[0])
    with torch.no_grad():
        model.look_feature[rows] = 0
        users, items = model.embeddings()
        np.testing.assert_allclose(parts(found, "content"), scores - (items[rows] @ users[user]).numpy(), atol=1e-5)
    again = Recommender.load(rec.run.path, device="cpu")._retrieval.model  # type: ignore[attr-defined]
    with torch.no_grad():
        for table in again.parameters():
            if table.shape[:1] == (ITEMS,):
                table[rows] = 0
        users, items = again.embeddings()
        np.testing.assert_allclose(parts(found, "ids"), scores - (items[rows] @ users[user]).numpy(), atol=1e-5)
    np.testing.assert_allclose(rec.score("u3", SOME), scores)  # as before
    vectors = rec._vectors()[0].numpy()
    taken = rec._past.items[rec._past.ptr[user] : rec._past.ptr[user + 1]]
    one = found[0]
    assert one.by == "cosine" and one.because[0].item in set(rec.data.item_ids[taken])
    near = vectors[taken] @ vectors[int(rows[0])] / np.linalg.norm(vectors[taken], axis=1)
    assert one.because[0].weight == pytest.approx(near.max() / np.linalg.norm(vectors[int(rows[0])]), abs=1e-5)


@pytest.mark.parametrize("model", ["em3", "id", "vbpr"])
def test_a_list_with_reasons_is_the_list(served: dict[str, Recommender], model: str) -> None:
    rec = served[model]
    plain = rec.recommend("u3", k=4, where={"in_stock": True}, diversity=0.2)
    found = rec.recommend("u3", k=4, where={"in_stock": True}, diversity=0.2, explain=True)
    assert [one.item for one in found] == [one.item for one in plain]
    np.testing.assert_allclose([one.score for one in found], [one.score for one in plain], rtol=1e-4)
    again = rec.explain("u3", [one.item for one in plain])
    assert [one.because for one in again] == [one.because for one in found]
    with pytest.raises(UserError, match="explain=True is of one list"):
        rec.recommend(users=["u1"], explain=True)  # type: ignore[call-overload]
    with pytest.raises(UserError, match="explain='yes': give True or False"):
        rec.recommend("u1", explain="yes")  # type: ignore[call-overload]
