"""A search is a list of the catalogue for what was typed: the ranker's, the nearest by content, or both in turn."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rawrec
from rawrec import Recommender, UserError
from rawrec.serving.recommender import Scored
from search_data import search

TINY: dict[str, Any] = {
    "model.dim": 8, "data.history": 5, "content.item.encoder": "joint:tiny", "content.text.max_length": 8,
    "content.query.max_length": 4, "content.dim": 16, "train.epochs": 1, "train.threads": 1, "train.batch_size": 64,
    "train.precision": "fp32", "train.device": "cpu", "eval.full_ranking": False,
}  # fmt: skip
MUG = "red mug"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """lemur reads queries; em3 and frozen were only taught by them; apart reads them without that loss; id knows none;
    bpr is a retrieval model."""
    folder = tmp_path_factory.mktemp("searches")
    data = search(folder / "data", labels=("label", "buy"))
    settings: dict[str, tuple[str, dict[str, Any]]] = {
        "lemur": ("lemur", TINY | {"data.labels": ["label", "buy"]}),
        "em3": ("em3", TINY | {"model.sqdc_weight": 0.02}),
        "frozen": ("em3", TINY | {"model.sqdc_weight": 0.02, "paradigm": "frozen"}),
        "apart": ("lemur", TINY | {"model.sqdc_weight": 0}),
        "id": ("id", {"train.epochs": 1, "train.threads": 1, "eval.full_ranking": False}),
        "bpr": ("bpr", {"train.epochs": 1, "train.threads": 1, "data.label": "label"}),
    }
    return {name: rawrec.train(model, data, folder / name, given).path for name, (model, given) in settings.items()}


@pytest.fixture(scope="module")
def served(runs: dict[str, Path]) -> dict[str, Recommender]:
    return {name: Recommender.load(path, device="cpu") for name, path in runs.items()}


def items_of(found: list[Scored]) -> list[str]:
    return [item for item, _ in found]


def ranked(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda item: -scores[item])


WHO: list[dict[str, Any]] = [
    {"user": "u3"}, {"history": ["i4", "i7"]}, {"user": "u3", "history": ["i4"]}, {"history": []}, {},
]  # fmt: skip


@pytest.mark.parametrize("who", WHO, ids=["user", "history", "both", "empty history", "nobody"])
@pytest.mark.parametrize("label", [None, "buy"])
def test_scores_are_those_of_the_query_in_the_context(
    served: dict[str, Recommender], who: dict[str, Any], label: str | None
) -> None:
    rec = served["lemur"]
    items = [str(item) for item in rec.data.item_ids]
    expected = rec.score(items=items, context={"query": MUG}, label=label, **(who or {"history": []}))
    found = rec.search(MUG, k=99, label=label, **who)
    assert len(found) == rec.data.n_items == len(set(items_of(found))), "what was had is found again"
    given = [score for _, score in found]
    np.testing.assert_allclose(given, sorted(expected, reverse=True), atol=1e-6, rtol=0)
    of_item = dict(zip(items, expected, strict=True))
    np.testing.assert_allclose(given, [of_item[item] for item in items_of(found)], atol=1e-6, rtol=0)
    assert rec.search(MUG, k=3, label=label, **who) == found[:3]


def test_what_was_had_is_left_out_where_it_is_asked_for(served: dict[str, Recommender]) -> None:
    rec = served["lemur"]
    data = rec.data
    own = data.users == data.user_rows(["u3"])[0]
    positives = set(data.item_ids[data.items[own & (data.label("label") > 0)]])
    everything = set(data.item_ids)
    for by in ("score", "content"):
        for wanted in (True, "positives", None):
            assert set(items_of(rec.search(MUG, user="u3", k=99, by=by, exclude_seen=wanted))) == everything - positives
        assert set(items_of(rec.search(MUG, history=["i4"], k=99, by=by, exclude_seen=True))) == everything - {"i4"}
    with pytest.raises(UserError, match=r"exclude_seen='positives': give a user or a history"):
        rec.search(MUG, exclude_seen=True)


@pytest.mark.parametrize("name", ["lemur", "em3", "frozen"])
def test_by_content_it_is_the_cosine_of_query_and_item(served: dict[str, Recommender], name: str) -> None:
    rec = served[name]
    items = [str(item) for item in rec.data.item_ids]
    content = rec.embed(items)
    vector = rec.system.queries.of_text(MUG)[0, 0].numpy()
    cosines = content @ vector / np.linalg.norm(content, axis=1) / np.linalg.norm(vector)
    found = rec.search(MUG, k=99, by="content")
    of_item = dict(zip(items, cosines.tolist(), strict=True))
    assert len(found) == len(items)
    np.testing.assert_allclose([score for _, score in found], [of_item[item] for item in items_of(found)], atol=1e-5)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


@pytest.mark.parametrize("name", ["lemur", "em3"])
def test_of_candidates_the_nearest_are_ranked(served: dict[str, Recommender], name: str) -> None:
    rec = served[name]
    near = items_of(rec.search(MUG, k=7, by="content"))
    context = {"query": MUG} if name == "lemur" else None
    scores = dict(zip(near, rec.score("u3", near, context=context), strict=True))
    found = rec.search(MUG, user="u3", k=3, candidates=7)
    assert items_of(found) == ranked(scores)[:3]
    np.testing.assert_allclose([score for _, score in found], [scores[item] for item in items_of(found)], atol=1e-6)
    left = rec.search(MUG, history=near[:2], k=5, candidates=5, exclude_seen=True)
    assert set(items_of(left)) == set(near[2:]), "what is left out is no candidate"


def test_among_all_candidates_it_is_the_exact_list(served: dict[str, Recommender]) -> None:
    rec = served["lemur"]
    exact, some = rec.search(MUG, user="u3", k=30), rec.search(MUG, user="u3", k=30, candidates=1000)
    assert items_of(exact) == items_of(some)
    np.testing.assert_allclose([score for _, score in exact], [score for _, score in some], atol=1e-6)


def test_items_that_were_added_are_found(runs: dict[str, Path]) -> None:
    rec = Recommender.load(runs["lemur"], device="cpu")
    new = {"title": "thing 4"}
    assert rec.add_items([{"item_id": "new", **new}, {"item_id": "bare"}]) == 2
    found = dict(rec.search(MUG, history=["i4"], k=99))
    assert len(found) == rec.data.n_items + 2
    assert found["new"] == pytest.approx(rec.score(history=["i4"], items=[new], context={"query": MUG})[0], abs=1e-6)
    near = dict(rec.search(MUG, k=99, by="content"))
    assert near["new"] == pytest.approx(near["i4"], abs=1e-4), "it has the same words"
    assert "bare" not in near, "it has no content to compare"
    assert "new" in items_of(rec.search(MUG, user="u1", k=31, candidates=31))
    assert "new" not in items_of(rec.search(MUG, history=["new"], k=99, exclude_seen=True))


def test_an_empty_query_is_none(runs: dict[str, Path]) -> None:
    """As in a dataset, where an empty or blank one counts as none."""
    rec = Recommender.load(runs["lemur"], device="cpu")
    with pytest.warns(UserWarning, match="read as missing: query"):
        without = rec.recommend("u3", k=9, exclude_seen=False)
    assert not rec.data.query_rows.min() >= 0, "training has met impressions without a query"
    with pytest.warns(UserWarning, match="the query is empty, so read as missing"):
        assert rec.search("", user="u3", k=9) == without
    for blank in ("", "  \n\t", "\0"):
        assert rec.search(blank, user="u3", k=9) == without
        for how in ({"by": "content"}, {"candidates": 9}):
            with pytest.raises(UserError, match=r"query=.* is empty, so there is nothing to compare"):
                rec.search(blank, k=9, **how)


def test_what_is_not_read_of_a_query_is_told_once(runs: dict[str, Path]) -> None:
    rec = Recommender.load(runs["lemur"], device="cpu")
    long = "red mug with dots and stripes " * 20_000
    for query, said in ((long, "only its first 4 words are read"), ("我要一个红色的杯子", "without spaces")):
        with pytest.warns(UserWarning, match=said) as told:
            found = rec.search(query, k=5, by="content")
        assert len(found) == 5 and len(told) == 1
        assert Path(told[0].filename) == Path(__file__), "of who asked, not of the library's own line"
        rec.search(query, k=5)
    assert rec.search("red mug with dots", by="content") == rec.search(long, by="content")


@pytest.mark.parametrize("query", ["😀", "кружка", "杯子", "كوب أحمر", "\ud83d mug", "mug\0", "<b>", "🏽‍🏽"])
def test_any_text_is_a_query(served: dict[str, Recommender], query: str) -> None:
    rec = served["lemur"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(rec.search(query, k=4, by="content")) == len(rec.search(query, k=4)) == 4
    if query not in ("mug\0", "\ud83d mug"):
        assert rec.search(query, k=9) != rec.search("mug", k=9)


def test_a_ranker_that_was_only_taught_by_queries(served: dict[str, Recommender]) -> None:
    with pytest.raises(UserError, match=r"model `em3`, do not depend on what was typed: use by='content'"):
        served["em3"].search(MUG)
    with pytest.raises(UserError, match=r"model\.content=lemur"):
        served["em3"].search(MUG, user="u1")


def test_cosines_without_a_loss_of_theirs_are_told(served: dict[str, Recommender]) -> None:
    with pytest.warns(UserWarning, match=r"no loss that brings queries near .*model.sqdc_weight.* say little"):
        assert len(served["apart"].search(MUG, by="content")) == 10
    assert len(served["apart"].search(MUG, k=3)) == 3


@pytest.mark.parametrize("name", ["id", "bpr"])
def test_a_run_that_reads_no_queries_says_how_to_have_one(served: dict[str, Recommender], name: str) -> None:
    for how in ({}, {"by": "content"}, {"user": "u1"}):
        with pytest.raises(UserError, match=rf"model `{name}`, reads no queries: train one.* `rawrec train lemur`"):
            served[name].search(MUG, **how)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"query": 3}, "query=3: give the text of a query"),
        ({"query": None}, "query=None: give the text"),
        ({"query": [MUG]}, r"query=\['red mug'\]: give the text"),
        ({"query": b"mug"}, "query=b'mug': give the text"),
        ({"k": 0}, "k=0: give a whole number, 1 or more"),
        ({"k": 2.5}, "k=2.5: give a whole number, 1 or more"),
        ({"k": "3"}, "k='3': give a whole number"),
        ({"k": True}, "k=True: give a whole number"),
        ({"candidates": 20.0}, "candidates=20.0: give a whole number"),
        ({"candidates": 0}, "candidates=0: give a whole number, 1 or more"),
        ({"history": 3}, "history=3: give a list"),
        ({"history": iter(["i1"])}, "history=<.*>: give a list"),
        ({"context": "device"}, "context='device': give values by name"),
        ({"by": "buy"}, "by='buy': use score or content; the probability of a label is label="),
        ({"user": "u99"}, "user 'u99' is not in .* close to it: u9.* Of somebody new give a history"),
        ({"history": ["i999"]}, "i999"),
        ({"history": "i1"}, "history='i1': give a list"),
        ({"label": "like"}, "label 'like': this run has learned label, buy"),
        ({"context": {"query": "hat"}}, "context: query='hat': what is searched for is given already"),
        ({"context": {"device": "phone"}}, "this run reads query alone"),
        ({"candidates": 4}, "candidates=4: the 10 best are chosen among them, so give 10 at least"),
        ({"candidates": 40, "by": "content"}, "candidates=40 does nothing with by='content'"),
        ({"user": "u1", "by": "content"}, "user='u1' does nothing with by='content'"),
        ({"label": "buy", "by": "content"}, "label='buy' does nothing"),
        ({"exclude_seen": "all", "user": "u1"}, "exclude_seen='all': use positives"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_bad_searches_are_named(served: dict[str, Recommender], given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        served["lemur"].search(**({"query": MUG} | given))


def test_a_list_is_no_longer_than_the_catalogue(served: dict[str, Recommender]) -> None:
    assert len(served["lemur"].search(MUG, k=10**9)) == served["lemur"].data.n_items


def test_what_is_hidden_is_not_found(served: dict[str, Recommender], runs: dict[str, Path]) -> None:
    rec = Recommender.load(runs["lemur"], device="cpu")
    for by in ("score", "content"):
        best = items_of(rec.search(MUG, k=3, by=by))
        rec.hide(best[:1])
        assert best[0] not in items_of(rec.search(MUG, k=99, by=by)) and best[1] in items_of(
            rec.search(MUG, k=3, by=by)
        )
        rec.show()
