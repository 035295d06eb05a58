"""A trained run in use: ids are the user's own, new items are served by their content."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import rawrec
from rawrec import Recommender, UserError
from rawrec.data import vectors
from rawrec.data.exporters import export_mmrec
from rawrec.data.splits import SplitSpec
from rawrec.files import replacing
from rawrec.report import build_report
from rawrec.serving import recommender
from rawrec.sources.mmrec import import_mmrec
from rawrec.sources.table import import_table
from rawrec.training import evaluate
from systems import small_dataset

TINY = {
    "train.epochs": 1,
    "train.threads": 1,
    "train.batch_size": 256,
    "train.precision": "fp32",
    "content.image.encoder": "random:conv",
    "content.image.size": 32,
    "content.text.encoder": "random:bert",
    "eval.full_ranking": False,
}
ODD_USERS = ["007", "Żółw 1", "用户", "a b", "[red]x[/]"]
ODD_ITEMS = ["0001", "1", "01", "ключ", "it em", "a,b", "[bold]", "ümlaut/é", "😀", "null"]


def picture(color: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), color).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def runs(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, result = tmp_path_factory.mktemp("runs"), {}
    for name in ("end_to_end", "hybrid", "frozen"):
        result[name] = rawrec.train("em3", shop, folder / name, TINY | {"paradigm": name}).path
    ids_only = {"train.epochs": 1, "train.threads": 1, "eval.full_ranking": False}
    result["id"] = rawrec.train("id", shop, folder / "id", ids_only).path
    return result


@pytest.fixture(scope="module")
def served(runs: dict[str, Path]) -> dict[str, Recommender]:
    return {name: Recommender.load(path, device="cpu") for name, path in runs.items()}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """A model of the user's own odd ids: positive-only, no time, texts only."""
    folder = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(0)
    pairs = [(u, i) for u in ODD_USERS for i in rng.permutation(ODD_ITEMS)[:6]]
    pl.DataFrame(pairs, schema=["who", "what"], orient="row").write_parquet(folder / "clicks.parquet")
    pl.DataFrame({"what": ODD_ITEMS, "name": [f"thing {i}" for i in ODD_ITEMS]}).write_parquet(folder / "items.parquet")
    import_table(
        folder / "clicks.parquet", "who", "what", out=folder / "data", items=folder / "items.parquet", text=["name"],
        progress=False,
    )  # fmt: skip
    text_only = {key: value for key, value in TINY.items() if "image" not in key}
    run = rawrec.train("em3", folder / "data", folder / "run", text_only)
    return Recommender.load(run.path)


def ids(found: list) -> list[str]:
    return [item for item, _ in found]


MODELS = ["end_to_end", "hybrid", "frozen", "id"]


@pytest.mark.parametrize("name", MODELS)
def test_recommend_for_a_user_a_history_and_both(served: dict[str, Recommender], name: str) -> None:
    rec = served[name]
    user = str(rec.data.user_ids[3])
    found = rec.recommend(user=user, k=5)
    assert len(found) == 5 == len(set(ids(found)))
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True) and all(0 < s < 1 for s in scores)
    history = [str(i) for i in rec.data.item_ids[:3]]
    for known, past in ((None, history), (user, history), (None, [])):
        assert len(rec.recommend(known, past, k=5)) == 5
    assert not set(history) & set(ids(rec.recommend(history=history, k=1000)))
    assert set(history) <= set(ids(rec.recommend(history=history, k=1000, exclude_seen=False)))
    assert len(rec.recommend(history=history, k=1000)) == rec.data.n_items - len(history)


def test_a_recommender_says_what_it_is(served: dict[str, Recommender]) -> None:
    rec = next(iter(served.values()))
    said = repr(rec)
    assert said.startswith(f"Recommender({str(rec.run.path)!r}: ") and f"{rec.data.n_items} items" in said


@pytest.mark.parametrize("name", MODELS)
def test_recommend_agrees_with_score_and_leaves_out_what_was_taken(served: dict[str, Recommender], name: str) -> None:
    rec = served[name]
    data = rec.data
    positive = data.label() > 0
    user = int(np.argmax(np.bincount(data.users[positive])))
    taken = set(data.item_ids[np.unique(data.items[positive & (data.users == user)])])
    found = rec.recommend(str(data.user_ids[user]), k=data.n_items)
    assert set(ids(found)) == set(data.item_ids) - taken
    again = rec.score(str(data.user_ids[user]), ids(found))
    np.testing.assert_allclose([s for _, s in found], again, rtol=1e-4)


@pytest.mark.parametrize("model", ["id", "bpr"])
def test_what_lists_leave_out(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positives, as the run was evaluated with; all that was met, badly rated items too; or nothing."""
    rng = np.random.default_rng(0)
    rows = [(u, int(i), t, float(rng.random() < 0.7)) for u in range(8) for t, i in enumerate(rng.permutation(30)[:15])]
    data = small_dataset(tmp_path / "data", rows, 30)
    kept = {"train.epochs": 1, "train.threads": 1, "eval.topk": [20]}
    path = rawrec.train(model, data, tmp_path / "run", kept).path
    given = rawrec.train(model, data, tmp_path / "given", kept | {"eval.exclude_seen": "interactions"}).path
    served, usual = Recommender.load(path), Recommender.load(given)
    own, everything = data.users == data.user_rows(["u3"])[0], set(data.item_ids)
    unmet, untaken = (everything - set(data.item_ids[data.items[own & rows]]) for rows in (own, data.label() > 0))
    assert len(unmet) < len(untaken) < 30
    for made, wanted, expected in [
        (served, None, untaken),
        (served, True, untaken),
        (served, "positives", untaken),
        (served, "interactions", unmet),
        (served, False, everything),
        (served, "none", everything),
        (usual, None, unmet),
        (usual, True, unmet),
        (usual, "positives", untaken),
        (usual, False, everything),
    ]:
        found = ids(made.recommend("u3", k=30, exclude_seen=wanted))
        assert set(found) == expected
        lists = pl.read_parquet(made.recommend_all(tmp_path / "all.parquet", 30, wanted))
        assert lists.filter(pl.col("user_id") == "u3")["items"].to_list() == [found]
    with monkeypatch.context() as patch:  # a dataset of ratings
        patch.setattr(data.meta, "rated", "seen")
        rated = rawrec.train(model, data, tmp_path / "rated", kept)
    assert rated.config().eval.exclude_seen == "interactions"
    found, same, other = (
        json.loads((run / "metrics.json").read_text())["test"]["ndcg@20"] for run in (rated.path, given, path)
    )
    assert found == same != other
    assert set(ids(Recommender.load(rated.path).recommend("u3", k=30))) == unmet
    with pytest.raises(UserError, match="exclude_seen='all': use positives, interactions, none"):
        served.recommend("u3", exclude_seen="all")  # type: ignore[arg-type]


def test_the_latest_is_what_was_done_last(tmp_path: Path) -> None:
    """Under a random split too, and whatever the order of the file."""
    rows = [(u, (u + k) % 12, 100 - k, 1.0) for u in range(6) for k in range(9)]
    data = small_dataset(tmp_path / "data", rows, 12, labelled=False, split=SplitSpec(kind="random_user"))
    chosen = {"train.epochs": 1, "train.threads": 1, "eval.full_ranking": False, "data.history": 3}
    served = Recommender.load(rawrec.train("id", data, tmp_path / "run", chosen).path)
    past = served._who("u2", None).past
    assert data.item_ids[past[0]].tolist() == ["i4", "i3", "i2"]  # k = 2, 1, 0
    assert served.score("u2", ["i9"]) == pytest.approx(served.score("u2", ["i9"], history=["i4", "i3", "i2"]))


def test_recommend_all_says_how_far_it_is(odd: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "TOLD_EVERY", 0.0)
    told: list[dict] = []
    odd.recommend_all(tmp_path / "l.csv", k=2, user_batch=2, observer=lambda event, **values: told.append(values))
    assert [values["done"] for values in told][-1] == odd.data.n_users == told[0]["total"] and len(told) > 1


@pytest.mark.parametrize("name", ["end_to_end", "id"])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_recommend_all_is_recommend_for_each(
    served: dict[str, Recommender], tmp_path: Path, name: str, exclude_seen: bool
) -> None:
    rec = served[name]
    path = rec.recommend_all(tmp_path / "deep" / "all.parquet", k=7, exclude_seen=exclude_seen, user_batch=16)
    table = pl.read_parquet(path)
    assert table["user_id"].to_list() == list(rec.data.user_ids)
    for user, items, scores in table.iter_rows():
        single = rec.recommend(user, k=7, exclude_seen=exclude_seen)
        assert items == ids(single)
        np.testing.assert_allclose(scores, [s for _, s in single], rtol=1e-4)
    whole = pl.read_parquet(rec.recommend_all(tmp_path / "whole.parquet", k=10_000))
    assert max(whole["items"].list.len().to_list()) <= rec.data.n_items
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


def test_lists_of_all_users_in_every_form(
    served: dict[str, Recommender], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = served["hybrid"]
    whole = pl.read_parquet(rec.recommend_all(tmp_path / "whole.parquet", k=4))
    monkeypatch.setattr(recommender, "WRITTEN", 8)  # 40 users in five parts
    assert pl.read_parquet(rec.recommend_all(tmp_path / "l.parquet", k=4, user_batch=8)).equals(whole)
    lines = pl.read_ndjson(rec.recommend_all(tmp_path / "l.jsonl", k=4, user_batch=8))
    assert lines["user_id"].equals(whole["user_id"]) and lines["items"].equals(whole["items"])
    rows = pl.read_csv(rec.recommend_all(tmp_path / "l.csv.gz", k=4, user_batch=8), infer_schema=False)
    long = whole.explode("items", "scores")
    assert rows["user_id"].to_list() == long["user_id"].to_list()
    assert rows["item_id"].to_list() == long["items"].to_list()
    assert rows["rank"].to_list() == ["1", "2", "3", "4"] * 40
    np.testing.assert_allclose(rows["score"].cast(pl.Float64), long["scores"], rtol=1e-6)


def test_score_new_items_in_every_form(served: dict[str, Recommender], tmp_path: Path) -> None:
    rec = served["end_to_end"]
    path = tmp_path / "new.jpg"
    path.write_bytes(picture())
    user, known = str(rec.data.user_ids[0]), str(rec.data.item_ids[0])
    same = [
        {"image": str(path), "title": "A red lamp"},
        {"image": path, "title": ["A red lamp"]},
        {"image": picture(), "title": ["A red lamp", None, ""]},
        {"image": [picture()], "title": "A red lamp", "description": None, "price": 3.0},
    ]
    scores = rec.score(user, [same[0], known, *same[1:], {"title": "Something else"}])
    assert len(scores) == 6
    np.testing.assert_allclose([scores[0], *scores[2:5]], scores[0], rtol=1e-5)
    assert scores[1] == pytest.approx(rec.score(user, [known])[0], rel=1e-5)
    assert scores[5] != pytest.approx(scores[0], rel=1e-7)
    assert rec.score(user, []) == []


@pytest.mark.parametrize("name", ["end_to_end", "hybrid", "frozen"])
def test_embed_of_raw_media_is_the_row_of_the_bank(served: dict[str, Recommender], name: str) -> None:
    rec = served[name]
    rows = np.arange(12)
    raw: list[dict] = [{} for _ in rows]
    for field in (*rec.data.fields.image, *rec.data.fields.text):
        read = rec.data.images if field in rec.data.fields.image else rec.data.texts
        for item, values in zip(raw, read(field, rows), strict=True):
            item[field] = values
    stored = rec.embed([str(i) for i in rec.data.item_ids[rows]])
    np.testing.assert_allclose(rec.embed(raw), stored, rtol=1e-3, atol=1e-4)
    mixed = rec.embed([raw[0], str(rec.data.item_ids[1]), raw[2]])
    np.testing.assert_allclose(mixed, stored[:3], rtol=1e-3, atol=1e-4)
    assert stored.dtype == np.float32 and rec.embed([]).shape == (0, stored.shape[1])
    assert not rec.embed([{}]).any()


def test_added_items_are_found_and_recommended(runs: dict[str, Path]) -> None:
    rec = Recommender.load(runs["end_to_end"])
    n, twin = rec.data.n_items, str(rec.data.item_ids[5])
    copy = {f: rec.data.images(f, [5])[0] for f in rec.data.fields.image}
    copy |= {f: rec.data.texts(f, [5])[0] for f in rec.data.fields.text}
    assert rec.add_items([{"item_id": "new 1", **copy}, {"item_id": 0, "title": "no picture"}]) == 2
    assert rec.similar(twin, 1)[0].item == "new 1"
    assert rec.similar(twin, 1)[0].score == pytest.approx(1, abs=1e-3)
    assert rec.similar("new 1", 1)[0].item == twin
    everything = ids(rec.recommend(history=[], k=1000))
    assert {"new 1", "0"} <= set(everything) and len(everything) == n + 2
    assert "new 1" not in ids(rec.recommend(history=["new 1"], k=1000))
    assert rec.add_items(pl.DataFrame({"item_id": ["new 2"], "title": ["polars"], "description": [None]})) == 1
    assert len(rec.score(history=["new 1"], items=["new 2", twin])) == 2
    assert rec.embed(["new 1"])[0] == pytest.approx(rec.embed([twin])[0], rel=1e-3, abs=1e-4)


def test_add_items_takes_all_or_nothing(runs: dict[str, Path]) -> None:
    rec = Recommender.load(runs["hybrid"])
    known = str(rec.data.item_ids[0])
    for bad, said in [
        ([{"item_id": "a", "title": "x"}, {"title": "x"}], "new item 1 has no item_id"),
        ([{"item_id": "a"}, {"item_id": "a"}], "already"),
        ([{"item_id": "a"}, {"item_id": known}], "already"),
        ([{"item_id": "a", "titel": "x"}], "titel"),
        ({"item_id": "a"}, "give a list"),
    ]:
        with pytest.raises(UserError, match=said):
            rec.add_items(bad)  # type: ignore[arg-type]
    assert rec.add_items([]) == 0
    assert len(rec.recommend(history=[], k=1000)) == rec.data.n_items
    many = ({"item_id": f"n{i}", "title": f"thing {i}"} for i in range(600))  # more than are encoded at once
    assert rec.add_items(many) == 600
    assert rec.embed(["n599"])[0] == pytest.approx(rec.embed([{"title": "thing 599"}])[0], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"image": "/nowhere/x.jpg"}, "there is no file /nowhere/x.jpg"),
        ({"image": b"not a picture"}, "cannot be used"),
        ({"image": 5}, "path or bytes"),
        ({"title": 5}, "expected text"),
        ({"text": "x"}, "Known: image, title, description"),
        ({"item_id": "p1", "title": "x"}, "item_id"),
    ],
)
def test_bad_new_items_are_named(served: dict[str, Recommender], item: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        served["end_to_end"].score(history=[], items=[item])


def test_bad_questions(served: dict[str, Recommender]) -> None:
    rec = served["end_to_end"]
    user, item = str(rec.data.user_ids[0]), str(rec.data.item_ids[0])
    for ask in (
        lambda: rec.recommend(),
        lambda: rec.recommend(user, k=0),
        lambda: rec.recommend_all("x.parquet", k=0),
        lambda: rec.recommend_all("x.xlsx"),
        lambda: rec.similar(item, k=-1),
        lambda: rec.recommend(user="nobody"),
        lambda: rec.recommend(history=["nothing"]),
        lambda: rec.recommend(history=item),
        lambda: rec.score(user, item),
        lambda: rec.score(user, {"title": "x"}),  # type: ignore[arg-type]
        lambda: rec.similar({}),
        lambda: rec.similar("nothing"),
        lambda: rec.embed(item),
    ):
        with pytest.raises(UserError):
            ask()
    with pytest.raises(UserError, match=f"close to it.*{item}"):
        rec.similar(item + "x")


def test_a_model_on_ids_refuses_new_items(served: dict[str, Recommender]) -> None:
    rec = served["id"]
    for ask in (
        lambda: rec.score(history=[], items=[{"title": "x"}]),
        lambda: rec.embed([str(rec.data.item_ids[0])]),
        lambda: rec.add_items([{"item_id": "a", "title": "x"}]),
        lambda: rec.similar({"title": "x"}),
    ):
        with pytest.raises(UserError, match=r"model `id`.*train em3"):
            ask()
    trained = rec.system.samples.train_counts > 0
    found = rec.similar(str(rec.data.item_ids[trained][0]), 1000)
    assert len(found) == trained.sum() - 1
    with pytest.raises(UserError, match="no training interaction"):
        rec.similar(str(rec.data.item_ids[~trained][0]))


def test_items_without_content(served: dict[str, Recommender]) -> None:
    rec = served["hybrid"]
    table = rec.system.table()
    assert table is not None
    empty = np.flatnonzero(~table.valid.cpu().numpy())
    for row in empty:
        with pytest.raises(UserError, match="no content"):
            rec.similar(str(rec.data.item_ids[row]))
    assert len(rec.score(history=[], items=[{}])) == 1


@pytest.mark.parametrize("name", ["end_to_end", "id"])
def test_exported_vectors_have_their_ids(served: dict[str, Recommender], tmp_path: Path, name: str) -> None:
    rec = served[name]
    table = pl.read_parquet(rec.export_vectors(tmp_path / "v.parquet"))
    assert table.columns == ["item_id", "vector", "valid"]
    assert table["item_id"].to_list() == list(rec.data.item_ids)
    vectors = table["vector"].to_numpy()
    if name != "id":
        known = table["valid"].to_numpy()
        np.testing.assert_array_equal(vectors[known], rec.embed(table["item_id"].to_list())[known])
    np.testing.assert_array_equal(np.load(rec.export_vectors(tmp_path / "n.npy"), allow_pickle=False), vectors)
    tensors = load_file(rec.export_vectors(tmp_path / "s.safetensors"))
    np.testing.assert_array_equal(tensors["vectors"], vectors)
    for stem in ("n", "s"):
        lines = [json.loads(line) for line in (tmp_path / f"{stem}.ids.jsonl").read_text().splitlines()]
        assert [line["item_id"] for line in lines] == list(rec.data.item_ids)
        assert [line["valid"] for line in lines] == table["valid"].to_list()
    for bad in (tmp_path / "v.csv", tmp_path, rec.run.path / "scores.parquet", rec.run.path / "model.safetensors"):
        with pytest.raises(UserError):
            rec.export_vectors(bad)


def test_an_index_of_vectors_gives_what_similar_gives(served: dict[str, Recommender], tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    rec = served["end_to_end"]
    index = faiss.read_index(str(rec.export_vectors(tmp_path / "v.faiss", "flat")))
    known = pl.read_parquet(tmp_path / "v.ids.parquet")["item_id"].to_list()
    query = rec.embed(known[:9])
    faiss.normalize_L2(query)
    scores, found = index.search(query, 4)
    for item, values, rows in zip(known, scores, found, strict=False):
        similar = rec.similar(item, 3)
        assert [known[row] for row in rows] == [item, *ids(similar)]
        np.testing.assert_allclose(values, [1, *(score for _, score in similar)], rtol=1e-4)
    with pytest.raises(UserError, match="no Faiss index"):
        rec.export_vectors(tmp_path / "v.npy", "flat")


@pytest.mark.parametrize("name", ["end_to_end", "hybrid", "frozen"])
@pytest.mark.parametrize("field", ["image", "description"])
def test_features_are_what_the_encoder_makes(
    served: dict[str, Recommender], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, field: str
) -> None:
    rec = served[name]
    monkeypatch.setattr(recommender, "WRITTEN", 25)  # 60 items in three parts
    data, item_model = rec.data, rec.system.item_model
    assert item_model is not None
    table = pl.read_parquet(rec.export_features(tmp_path / "f.parquet", field))
    assert table["item_id"].to_list() == list(data.item_ids)
    read = data.images if field == "image" else data.texts
    raw = read(field, np.arange(data.n_items))
    assert table["valid"].to_list() == [bool(values) for values in raw] and not table["valid"].all()
    encoder = dict(item_model.raw_encoders())[field]
    with torch.no_grad():
        hidden, _ = item_model.lower(field, [raw])
        made = encoder.upper(hidden) if field in item_model.trained else hidden.values
    expected = np.zeros(table["vector"].to_numpy().shape, np.float32)
    valid = table["valid"].to_numpy()
    expected[valid] = made.numpy()[valid] if len(made) == len(valid) else made.numpy()
    np.testing.assert_allclose(table["vector"].to_numpy(), expected, rtol=1e-3, atol=1e-4)
    assert len(np.unique(expected[valid], axis=0)) > 20


def test_features_ask_for_a_field(served: dict[str, Recommender], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"several fields. Name one of image, title, description"):
        served["hybrid"].export_features(tmp_path / "f.npy")
    with pytest.raises(UserError, match=r"'poster': this run does not read it. Name one of image"):
        served["hybrid"].export_features(tmp_path / "f.npy", "poster")
    with pytest.raises(UserError, match="model `id`, which reads no features"):
        served["id"].export_features(tmp_path / "f.npy", "image")
    with pytest.raises(UserError, match="folder of the dataset"):
        served["hybrid"].export_features(served["hybrid"].data.path / "interactions.parquet", "image")
    with pytest.raises(UserError, match="file of the run"):
        served["hybrid"].recommend_all(served["hybrid"].run.path / "metrics.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_no_export_stands_among_the_files_of_a_run_or_a_dataset(served: dict[str, Recommender], tmp_path: Path) -> None:
    """Whatever links and dots lead there."""
    rec = served["hybrid"]
    (tmp_path / "run").symlink_to(rec.run.path)
    (tmp_path / "data").symlink_to(rec.data.path)
    (rec.run.path / "checkpoint").mkdir(exist_ok=True)
    run = (
        "topk.parquet",
        "TOPK.parquet",
        "../RUN/topk.parquet",
        "checkpoint/last.parquet",
        ".hidden.parquet",
        "x/y.csv",
    )
    for name in run:
        for place in (rec.run.path, tmp_path / "run"):
            with pytest.raises(UserError, match="file of the run"):
                rec.recommend_all(place / name.replace("RUN", rec.run.path.name))
    for name in ("interactions.parquet", "cache/x.npy", "splits/default.parquet", "items.lance/x.npy", "new.parquet"):
        for place in (rec.data.path, tmp_path / "data", tmp_path / "data" / ".." / rec.data.path.name):
            with pytest.raises(UserError, match="folder of the dataset"):
                rec.export_vectors(place / name)
    with pytest.raises(UserError, match="file of the run"):
        build_report(rec.run.path, out=rec.run.path / "config.yaml")
    assert rec.export_vectors(tmp_path / "run" / "mine.parquet").is_file()


def test_two_exports_to_one_file(
    served: dict[str, Recommender], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one file both succeed; of two files that belong together the second is told."""
    rec, write = served["hybrid"], vectors.create
    said = []

    def meanwhile(path: Path) -> Any:
        if not said:
            said.append("")
            with suppress(UserError):
                rec.export_vectors(tmp_path / "x.npy")
                said.append("both")
        return write(path)

    monkeypatch.setattr(vectors, "create", meanwhile)
    rec.export_vectors(tmp_path / "x.npy")
    assert said == [""] and sorted(path.name for path in tmp_path.iterdir()) == ["x.ids.jsonl", "x.npy"]
    with replacing(tmp_path / "x.parquet"):
        assert rec.export_vectors(tmp_path / "x.parquet").is_file()


def test_features_for_a_folder_of_mmrec(tmp_path: Path) -> None:
    """The last item has no positive, so MMRec's numbers are others than ours; one item has no text."""
    rng = np.random.default_rng(0)
    pairs = [(f"u{u}", f"i{i}") for u in range(8) for i in rng.permutation(7)[:5]]
    pl.DataFrame(pairs, schema=["user", "item"], orient="row").write_csv(tmp_path / "c.csv")
    names = ["a lamp", "a red chair", "", "one table", "two tables", "a cup", "a bowl", "a vase", "never taken"]
    items = pl.DataFrame({"item": [f"i{k}" for k in range(len(names))], "name": names})
    items.write_csv(tmp_path / "i.csv")
    data = import_table(
        tmp_path / "c.csv", "user", "item", out=tmp_path / "data", items=tmp_path / "i.csv", text=["name"],
        progress=False,
    )  # fmt: skip
    text_only = {key: value for key, value in TINY.items() if "image" not in key}
    rec = Recommender.load(rawrec.train("em3", data, tmp_path / "run", text_only).path)
    ours = pl.read_parquet(rec.export_features(tmp_path / "f.parquet"))
    export_mmrec(data, tmp_path / "mmrec")
    rec.export_features(tmp_path / "mmrec" / "text_feat.npy", "name")
    back = import_mmrec(tmp_path / "mmrec", out=tmp_path / "back", progress=False)
    values, valid = back.feature("text")
    assert valid.all() and list(back.item_ids) != list(data.item_ids)
    expected, there = ours["vector"].to_numpy(), ours["valid"].to_numpy()
    assert there.tolist() == [bool(name) for name in names]
    rows = data.item_rows(list(back.item_ids))
    np.testing.assert_array_equal(values[there[rows]], expected[rows][there[rows]])
    np.testing.assert_allclose(values[~there[rows]][0], expected[there].mean(0), rtol=1e-5, atol=1e-6)
    (tmp_path / "mmrec" / "i_id_mapping.csv").write_text("asin\titemID\ni0\t0\nother\t1\n")
    with pytest.raises(UserError, match="does not number the 9 items of the run's dataset"):
        rec.export_features(tmp_path / "mmrec" / "text_feat.npy", "name")
    (tmp_path / "mmrec" / "i_id_mapping.csv").write_text("asin\titemID\ni0\tnought\n")
    with pytest.raises(UserError, match=r"i_id_mapping.csv cannot be read"):
        rec.export_features(tmp_path / "mmrec" / "text_feat.npy", "name")


@pytest.mark.parametrize("paradigm", ["hybrid", "end_to_end"])
def test_features_and_lists_of_a_retrieval_model(shop: Path, tmp_path: Path, paradigm: str) -> None:
    settings = {key: value for key, value in TINY.items() if key != "eval.full_ranking"}
    settings |= {"paradigm": paradigm, "model.embedding_size": 8}
    if paradigm == "end_to_end":
        settings |= {"content.image.train": "top:1", "content.text.train": "top:1"}
    rec = Recommender.load(rawrec.train("vbpr", shop, tmp_path / "run", settings).path)
    table = pl.read_parquet(rec.export_features(tmp_path / "f.parquet", "image"))
    raw = rec.data.images("image", np.arange(rec.data.n_items))
    valid = table["valid"].to_numpy()
    assert valid.tolist() == [bool(values) for values in raw]
    values = table["vector"].to_numpy()
    assert not values[~valid].any() and len(np.unique(values[valid], axis=0)) > 20
    lists = pl.read_ndjson(rec.recommend_all(tmp_path / "l.jsonl", k=3))
    for user, items, _ in lists.iter_rows():
        assert items == (ids(rec.recommend(user, k=3)) if items else [])
    assert lists["items"].list.len().sum() > 3 * 20


def test_odd_ids_go_in_and_come_out_as_they_are(odd: Recommender, tmp_path: Path) -> None:
    assert sorted(odd.data.item_ids) == sorted(ODD_ITEMS) and sorted(odd.data.user_ids) == sorted(ODD_USERS)
    for user in ODD_USERS:
        assert set(ids(odd.recommend(user, k=99, exclude_seen=False))) == set(ODD_ITEMS)
    for item in ODD_ITEMS:
        assert item not in ids(odd.recommend(history=[item], k=99))
        assert set(ids(odd.similar(item, 99))) == set(ODD_ITEMS) - {item}
    table = pl.read_parquet(odd.recommend_all(tmp_path / "all.parquet"))
    assert table["user_id"].to_list() == list(odd.data.user_ids)
    assert len(odd.recommend(history=[1], k=1, exclude_seen=False)) == 1  # type: ignore[list-item]


def test_recommend_all_agrees_where_the_data_have_no_time(odd: Recommender, tmp_path: Path) -> None:
    for user, items, _ in pl.read_parquet(odd.recommend_all(tmp_path / "all.parquet", k=3)).iter_rows():
        assert items == ids(odd.recommend(user, k=3))


def test_ready_made_features_of_new_items(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{u}\t{i}\t{rng.integers(0, 3)}" for u in range(12) for i in rng.permutation(8)[:5]]
    (tmp_path / "x.inter").write_text("\n".join(["userID\titemID\tx_label", *rows]) + "\n")
    features = rng.normal(size=(8, 5)).astype(np.float32)
    np.save(tmp_path / "image_feat.npy", features)
    import_mmrec(tmp_path, out=tmp_path / "data", progress=False)
    settings = {"paradigm": "hybrid", "train.epochs": 1, "train.threads": 1, "eval.full_ranking": False}
    rec = Recommender.load(rawrec.train("em3", tmp_path / "data", tmp_path / "run", settings).path)
    assert rec.embed([{"image": features[3]}])[0] == pytest.approx(rec.embed(["3"])[0], rel=1e-4, abs=1e-5)
    assert rec.similar({"image": features[3].tolist()}, 1)[0].item == "3"
    for bad in ([1.0, 2.0], "x", [float("nan")] * 5):
        with pytest.raises(UserError, match=r"vector of 5|of 5 finite"):
            rec.embed([{"image": bad}])


def test_load_refuses_what_is_no_finished_run(shop: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        Recommender.load(tmp_path)
    with pytest.raises(UserError, match="no run folder"):
        Recommender.load(shop)
    assert Recommender.load(runs["id"], data=shop).recommend(history=[], k=1)
