"""Items alike by one kind of field: an item's own picture, and its own title, find that item first."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_recommender import TINY

import rawrec
from rawrec import Recommender, UserError
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter

ITEMS, NO_PICTURE, NO_TITLE = 14, 5, 9
WITH = {"photo": [k for k in range(ITEMS) if k != NO_PICTURE], "title": [k for k in range(ITEMS) if k != NO_TITLE]}
STILL = {"content.image.train": "none", "content.text.train": "none"}
LAST = {"content.image.train": "top:1", "content.text.train": "top:1"}
RUNS: dict[str, dict[str, Any]] = {
    "em3 hybrid": TINY | STILL | {"paradigm": "hybrid"},
    "em3 end_to_end": TINY | LAST | {"paradigm": "end_to_end"},
    "vbpr hybrid": TINY | STILL | {"paradigm": "hybrid"},
    "vbpr end_to_end": TINY | LAST | {"paradigm": "end_to_end"},
    "id": {"train.epochs": 1, "train.threads": 1, "eval.full_ranking": False},
}


def picture(k: int) -> Image.Image:
    pixels = np.random.default_rng(k).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((40, 40), Image.Resampling.NEAREST)


def as_bytes(k: int) -> bytes:
    stream = io.BytesIO()
    picture(k).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Distinct pictures and titles; one item lacks the one, another the other."""
    rng = np.random.default_rng(0)
    writer = DatasetWriter(
        tmp_path_factory.mktemp("alike") / "data",
        fields=Fields(image=["photo"], text=["title"]),
        source="test",
        labels=["label"],
        has_time=True,
    )
    with writer:
        words = ["red", "blue", "cup", "lamp", "old", "new", "big"]
        writer.add_items(
            {
                "item_id": [f"i{k}" for k in range(ITEMS)],
                "photo": [[] if k == NO_PICTURE else [as_bytes(k)] for k in range(ITEMS)],
                "title": [[] if k == NO_TITLE else [f"{words[k % 7]} {words[k // 2]} {k}"] for k in range(ITEMS)],
            }
        )
        rows = [(u, int(i), t) for u in range(8) for t, i in enumerate(rng.permutation(ITEMS)[:10])]
        writer.add_interactions(
            {
                "user_id": [f"u{u}" for u, _, _ in rows],
                "item_id": [f"i{i}" for _, i, _ in rows],
                "timestamp": [t for _, _, t in rows],
                "label": [float(rng.random() < 0.6) for _ in rows],
            }
        )
        return writer.finish(SplitSpec(kind="time_user"), ImportReport(source="test"))


@pytest.fixture(scope="module")
def served(shop: Dataset) -> dict[str, Recommender]:
    found = {}
    for name, settings in RUNS.items():
        model, own = name.split()[0], dict(settings)
        if model == "vbpr":
            own.pop("eval.full_ranking")
            own["model.embedding_size"] = 8
        found[name] = Recommender.load(rawrec.train(model, shop, shop.path.parent / name, own).path, device="cpu")
    return found


def ids(found: list) -> list[str]:
    return [item for item, _ in found]


@pytest.mark.parametrize("name", [name for name in RUNS if name != "id"])
def test_an_items_own_picture_and_title_find_it_first(served: dict[str, Recommender], name: str) -> None:
    rec = served[name]
    titles = rec.data.texts("title", np.arange(ITEMS))
    for k in WITH["photo"]:
        first = rec.similar({"photo": as_bytes(k)}, 3, by="image")
        assert first[0].item == f"i{k}" and first[0].score == pytest.approx(1, abs=1e-4) and first[1].score < 1
    for k in WITH["title"]:
        assert ids(rec.similar({"title": titles[k]}, 1, by="text")) == [f"i{k}"]
    one = dict(rec.similar({"image": picture(3), "text": "something else"}, 99, by="image"))
    assert one == dict(rec.similar({"photo": as_bytes(3)}, 99, by="photo"))
    assert sorted(one) == sorted(f"i{k}" for k in WITH["photo"])
    assert dict(rec.similar("i3", 99, by="image")) == pytest.approx(
        {k: v for k, v in one.items() if k != "i3"}, abs=1e-5
    )
    for item, by in (({"title": "x"}, "image"), (f"i{NO_PICTURE}", "photo"), (f"i{NO_TITLE}", "text"), ({}, "text")):
        with pytest.raises(UserError, match=f"by='{by}': the item has no"):
            rec.similar(item, by=by)
    with pytest.raises(UserError, match="by='colour': use content, id, image, text or a field: photo, title"):
        rec.similar("i1", by="colour")
    with pytest.raises(UserError, match="by=5: give a string"):
        rec.similar("i1", by=5)  # type: ignore[arg-type]


def test_by_content_and_by_id(served: dict[str, Recommender]) -> None:
    rec = served["em3 hybrid"]
    assert rec.similar("i3", by="content") == rec.similar("i3")
    weights = rec.system.ranker.inputs.ids.item.weight[1:].detach().numpy()
    trained = rec.system.samples.train_counts > 0
    found = rec.similar(f"i{int(np.flatnonzero(trained)[0])}", 99, by="id")
    row = weights[trained][0]
    cosines = weights[trained] @ row / np.linalg.norm(weights[trained], axis=1) / np.linalg.norm(row)
    np.testing.assert_allclose([s for _, s in found], np.sort(cosines)[::-1][1:], atol=1e-5)
    assert served["id"].similar("i3", by="id") == served["id"].similar("i3")
    for name, item, by, said in [
        ("id", "i3", "content", "model `id`, which has no content"),
        ("id", "i3", "image", "model `id`, makes no feature of this kind alone; it makes none"),
        ("em3 hybrid", {"title": "x"}, "id", "a new item has no id"),
        ("vbpr hybrid", "i3", "content", "an item has one vector"),
        ("vbpr hybrid", "i3", "id", "an item has one vector"),
    ]:
        with pytest.raises(UserError, match=said):
            served[name].similar(item, by=by)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["em3 hybrid", "em3 end_to_end"])
def test_items_that_were_added_are_found_by_their_picture(served: dict[str, Recommender], name: str) -> None:
    rec = Recommender.load(served[name].run.path, device="cpu")
    rec.add_items([{"item_id": "n1", "photo": as_bytes(100)}, {"item_id": "n2", "title": "a new one"}])
    rec.add_items([{"item_id": "n3", "photo": [picture(101)], "title": "b"}])
    assert ids(rec.similar({"photo": as_bytes(100)}, 1, by="image")) == ["n1"]
    assert ids(rec.similar({"photo": as_bytes(101)}, 1, by="image")) == ["n3"]
    assert ids(rec.similar({"title": "a new one"}, 1, by="text")) == ["n2"]
    assert ids(rec.similar("n1", 99, by="image"))[-1] != "n2" and "n1" not in ids(rec.similar("n1", by="image"))
    assert not {"n1", "n2", "n3"} & set(ids(rec.similar("i3", 99, by="id")))
