"""Who and what can be chosen on a page: best and worst users, further ones, items with what they lack, the map."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.evaluation.ctr import auc, buckets_of
from rawrec.report import build_report, embedding_map
from rawrec.report.catalogue import missing, searchable
from rawrec.report.embedding_map import coloured, make_map, plane, sample
from rawrec.report.page import plain
from rawrec.report.pictures import Tiles
from rawrec.report.run import Run
from rawrec.report.samples import BEST, DRAWN, WORST, sample_users, standing
from report_pages import AnyRecommender, check_self_contained, make_run, read
from systems import small_dataset


@pytest.fixture(scope="module")
def data(shop: Path) -> Dataset:
    return Dataset.open(shop)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Run:
    return Run(make_run(tmp_path_factory.mktemp("runs") / "em3", data, 0.3))


@pytest.fixture(autouse=True)
def _undrawn(undrawn: None) -> None:
    pass


def embedded(path: Path, name: str) -> dict:
    found = re.search(f'<script type="application/json" id="{name}">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_best_and_worst_users_are_those_by_their_auc(run: Run, data: Dataset) -> None:
    found = sample_users(run, data, data.retrieval_split(), None)
    values = {}
    for user in np.unique(run.test["user"]).tolist():
        own = run.test.filter(user=user)
        if len(own) >= 10 and own["label"].n_unique() == 2:
            values[user] = auc(own["label"], own["score"])
    groups = {group: [one for one in found.entries if one.group == group] for group in (DRAWN, BEST, WORST)}
    assert [len(found) for found in groups.values()] == [6, 3, 3]
    eligible = [user for user in values if user in set(run.topk["user"].to_list())]  # pyright: ignore[reportOptionalSubscript]
    order = sorted((values[user] for user in eligible if _has_history(data, user)), reverse=True)
    assert [one.value for one in groups[BEST]] == pytest.approx(order[:3])
    assert [one.value for one in groups[WORST]] == pytest.approx(order[::-1][:3])
    assert not {one.user for one in found.further} & {one.user for one in found.entries}
    by = standing(run, data)
    assert by is not None and by.name == "AUC" and np.isnan(by.values).sum() == data.n_users - len(values)


def _has_history(data: Dataset, user: int) -> bool:
    positive, times = data.positive() & (data.users == user), data.timestamps
    assert times is not None
    test = positive & (data.split() == 2)
    return bool(test.any() and (positive & (times < times[test].min())).any())


def test_items_tell_what_they_lack(run: Run, data: Dataset, tmp_path: Path) -> None:
    path = build_report(run.path, out=tmp_path / "page.html", recommender=AnyRecommender(data))
    check_self_contained(path)
    found = embedded(path, "catalogue")
    assert found["fields"] == ["image", "title", "description", "category", "price"]
    assert len(found["items"]) == data.n_items
    counts = np.bincount(data.items[data.split() == 0], minlength=data.n_items)
    for row, entry in enumerate(found["items"]):
        lacks = [name for bit, name in enumerate(found["fields"]) if entry[2] >> bit & 1]
        assert entry[0] == data.item_ids[row] and entry[3] == counts[row]
        assert lacks == [name for name in found["fields"] if not data.present(name)[row]]
        assert (entry[1] == 0) == ("title" in lacks) and f"category {entry[7].split()[1]}" in entry[7]
    assert run.topk is not None and found["lists"] == len(run.topk)
    assert sum(entry[5] for entry in found["items"]) == 20 * len(run.topk)
    further = embedded(path, "further")
    assert further["by"] == "AUC" and further["users"]
    ids, lists = data.user_ids.tolist(), dict(run.topk.select("user", "items").iter_rows())
    for user, _, _, recommended, _, _ in further["users"]:
        names = [found["items"][place][0] for place in recommended]
        assert names == data.item_ids[lists[ids.index(user)][:8]].tolist()
    buckets = buckets_of(counts)
    by_field = {one.name: one for one in missing(data, buckets)}
    assert by_field["image"].lacking == int((~data.present("image")).sum())
    assert by_field["image"].by_bucket["cold"] == pytest.approx(float((~data.present("image"))[buckets["cold"]].mean()))


def test_a_large_catalogue_is_searched_in_part(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawrec.report.catalogue.SEARCHED", 20)
    monkeypatch.setattr(embedding_map, "LOOKED_AT", 15)
    counts = np.bincount(data.items[data.split() == 0], minlength=data.n_items)
    rows = searchable(data, counts, [3, 5])
    assert {3, 5} <= set(rows.tolist()) and 20 >= len(rows) >= 12 and (np.diff(rows) > 0).all()
    assert set(np.argsort(-counts, kind="stable")[:10].tolist()) <= set(rows.tolist())
    assert len(set(sample(data.n_items).tolist())) == 15 and sorted(sample(10).tolist()) == list(range(10))


def test_the_map_is_the_plane_of_most_variance(data: Dataset) -> None:
    rng = np.random.default_rng(0)
    vectors = np.stack([4 * rng.normal(size=50), 2 * rng.normal(size=50), np.full(50, 30.0)], 1)
    found, shares = plane(vectors)
    direct = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = direct - direct.mean(0)
    values = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    assert shares == pytest.approx(tuple(values[:2] / values.sum()))
    assert found.var(0) * 50 == pytest.approx(values[:2])
    assert plane(np.zeros((4, 3)))[1] == (0.0, 0.0) and plane(np.ones((3, 1)))[0].shape == (3, 2)
    rows = np.arange(data.n_items)
    made = make_map(data, rows, rng.normal(size=(data.n_items, 4)), data.n_items, {})
    assert made is not None and made.by == "category" and sum(n for _, n in made.names) == data.n_items
    assert made.places.min() >= 26 and (made.places.max(0) <= [974, 594]).all()
    sheet = Image.open(io.BytesIO(base64.b64decode(made.sheet.uri.partition(",")[2])))
    assert sheet.size == (40 * made.sheet.across,) * 2 and len(made.sheet.cells) == int(data.present("image").sum())
    assert len(re.findall(r"M\d+ \d+h0", made.drawing)) == data.n_items and str(made.drawing).count("<image") >= 10
    assert make_map(data, rows[:2], np.ones((2, 3)), 2, {}) is None


def test_items_without_categories_have_the_colours_of_popularity(tmp_path: Path) -> None:
    rows = [(user, item, user + item, 1.0) for user in range(9) for item in range(5)]
    data = small_dataset(tmp_path / "data", rows, 8)
    buckets = buckets_of(np.bincount(data.items, minlength=8))
    by, kinds, names = coloured(data, np.arange(8), buckets)
    assert by == "popularity" and names == [("cold", 3), ("medium", 5)] and kinds.tolist() == [1] * 5 + [0] * 3


def test_pictures_fit_into_their_room(data: Dataset) -> None:
    whole = Tiles(data, range(40))
    size = len(whole.style())
    small = Tiles(data, range(40), room=size // 3)
    assert 0 < len(small.style()) <= size // 3 + 40 * 40 and small.name(0) == whole.name(0)
    few = Tiles(data, range(40), room=2500)
    assert 0 < str(few.style()).count("url") < str(whole.style()).count("url")


def test_ids_and_titles_in_data_blocks_are_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(user, item, 10 * item + user, float(item % 2)) for user in range(12) for item in range(10)]
    data = small_dataset(
        tmp_path / "d", rows, 25, categorical=[["</script><script>alert(1)</script>"]] * 5 + [["<b>"]] * 20,
        parts=(["train"] * 6 + ["valid"] * 2 + ["test"] * 2) * 12,
    )  # fmt: skip
    evil = np.array([f'</script><img src=x onerror="alert({n})">\u202e' for n in range(25)], object)
    monkeypatch.setattr(Dataset, "item_ids", evil)
    run = make_run(tmp_path / "run", data, 0.5, "id")
    path = build_report(run, data=data)
    check_self_contained(path)
    page, text = read(path)
    assert "alert(1)" in text and all(tag != "img" for tag, _ in page.tags)
    assert embedded(path, "catalogue")["items"][0][0].startswith("</script><img src=x")


def test_a_map_is_of_items_with_a_vector(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_map, "POINTS", 12)
    found, note = embedding_map.item_map(data, {}, AnyRecommender(data))
    assert found is not None and note == "" and len(found.rows) == 12 and (np.diff(found.rows) > 0).all()
    assert (found.rows % 7 > 0).all() and found.of == sum(row % 7 > 0 for row in range(data.n_items))

    class Without:
        def item_vectors(self, items: list[str]) -> None:
            raise UserError("there are none")

    assert embedding_map.item_map(data, {}, Without()) == (None, "There is no map of the items: there are none.")
    assert embedding_map.item_map(data, {}, None) == (None, "")


def test_numbers_as_they_are() -> None:
    assert [plain(v) for v in (1995.0, 12.5, 12500.0, -3.0, 0.12345, 123456.7)] == [
        "1995", "12.5", "12,500", "−3", "0.1235", "123,457",
    ]  # fmt: skip
