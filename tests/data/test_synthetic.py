"""The generated shop: the same by seed, as designed, and with a best AUC that is what it says."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from rawrec.data.dataset import Dataset
from rawrec.data.synthetic import generate
from rawrec.data.synthetic_items import BADGES, COLOURS, PATTERNS, SHAPES
from rawrec.data.synthetic_pictures import draw
from rawrec.errors import UserError
from rawrec.sources.synthetic import best_auc, import_synthetic


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("synthetic") / "shop"
    return import_synthetic(out, items=200, users=150, impressions=12_000, progress=False)


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_seed_same_data(tmp_path: Path) -> None:
    a, b, c = (
        import_synthetic(tmp_path / name, items=30, users=10, impressions=300, seed=seed, progress=False)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    rows = np.arange(30)
    assert a.images("image", rows) == b.images("image", rows) != c.images("image", rows)
    assert a.texts("description", rows) == b.texts("description", rows)
    assert _sha(a.path / "interactions.parquet") == _sha(b.path / "interactions.parquet")
    assert _sha(a.path / "interactions.parquet") != _sha(c.path / "interactions.parquet")
    assert a.fingerprint() == b.fingerprint() != c.fingerprint()


def test_says_that_it_is_generated(data: Dataset) -> None:
    assert data.meta.generated and "generated" in data.meta.source
    assert "not real" in (data.path / "import.json").read_text()


def test_coverage_as_designed(data: Dataset) -> None:
    image, title, description = (data.present(f) for f in ("image", "title", "description"))
    assert data.n_items == 200
    assert image.sum() == 184 and title.sum() == 198 and 180 <= description.sum() <= 182
    nothing = ~(image | title | description)
    assert nothing.sum() == 2
    ptr, codes, words = data.categorical("category")
    assert np.array_equal(ptr, np.arange(201)) and set(words) <= set(SHAPES) and codes.max() < len(words)
    assert np.nanmin(data.numeric("price")) > 0


def test_best_auc_is_that_of_the_probability(data: Dataset) -> None:
    test = data.split() == 2
    best = best_auc(data, test)
    assert best == pytest.approx(roc_auc_score(data.label()[test], data.column("probability")[test]), abs=1e-12)
    assert 0.78 < best < 0.90
    assert np.isnan(best_auc(data, data.label() > 0))


def test_clicks_follow_their_probability(data: Dataset) -> None:
    clicks, probability = data.label(), data.column("probability").astype(float)
    assert 0.2 < clicks.mean() < 0.3
    for part in np.array_split(np.argsort(probability), 10):
        error = np.sqrt((probability[part] * (1 - probability[part])).sum()) / len(part)
        assert abs(clicks[part].mean() - probability[part].mean()) < 4.5 * error


def test_cold_items_in_the_test_part(data: Dataset) -> None:
    split, launched, timestamps = data.split(), data.launched, data.timestamps
    assert launched is not None and timestamps is not None
    assert (timestamps >= launched[data.items]).all()
    trained = np.bincount(data.items[split == 0], minlength=data.n_items)
    cold = trained == 0
    assert 0.15 <= cold.mean() <= 0.25
    assert 0.1 < cold[data.items[split == 2]].mean() < 0.5
    assert (launched[cold] > timestamps[split == 0].max()).mean() > 0.9


def test_nearly_nobody_sees_an_item_twice_in_a_large_catalogue() -> None:
    shop = generate(items=500, users=200, impressions=4_000)
    key = shop.users.astype(np.int64) * 500 + shop.items
    assert len(np.unique(key)) > 0.99 * len(key)


def test_users_differ_in_taste() -> None:
    shop = generate(items=100, users=50, impressions=20_000)
    mean = np.bincount(shop.items, shop.probability, 100) / np.maximum(np.bincount(shop.items, minlength=100), 1)
    ids_alone = roc_auc_score(shop.clicks, mean[shop.items])
    assert 0.5 < ids_alone < roc_auc_score(shop.clicks, shop.probability) - 0.1


def test_words_say_only_a_part() -> None:
    shop = generate(items=1000, users=5, impressions=100)
    said = np.array(
        [PATTERNS[code] in "".join(text) for code, text in zip(shop.codes["pattern"], shop.descriptions, strict=True)]
    )
    assert 0.2 < said.mean() < 0.4


def test_long_histories(tmp_path: Path) -> None:
    data = import_synthetic(
        tmp_path / "x", items=40, users=6, impressions=100, history_events=300, click_rate=0.9, progress=False
    )
    assert np.bincount(data.users).min() == 300
    assert 0.85 < data.label().mean() < 0.95


@pytest.mark.parametrize("size", [32, 64, 96])
def test_pictures_differ_by_every_attribute(size: int) -> None:
    base = {"shape": "mug", "colour": "red", "background": "blue", "pattern": "plain", "badge": "none"}
    options = {"shape": SHAPES, "colour": COLOURS, "background": COLOURS, "pattern": PATTERNS, "badge": BADGES}
    seen = set()
    for name, values in options.items():
        for value in values:
            picture = draw({**base, name: value}, size, np.random.default_rng(0))
            with Image.open(io.BytesIO(picture)) as image:
                assert image.size == (size, size) and image.format == "JPEG"
            seen.add(picture)
    assert len(seen) == sum(len(v) for v in options.values()) - len(options) + 1


def test_tiny_and_impossible_sizes(tmp_path: Path) -> None:
    tiny = import_synthetic(tmp_path / "tiny", items=30, users=10, impressions=200, progress=False)
    assert tiny.n_items == 30 and tiny.n_users == 10 and tiny.n_interactions == 200
    wrong: list[dict[str, Any]] = [
        {"items": 3},
        {"users": 0},
        {"size": 4},
        {"click_rate": 1.5},
        {"seed": -1},
        {"history_events": 0},
    ]
    for bad in wrong:
        with pytest.raises(UserError, match=next(iter(bad))):
            import_synthetic(tmp_path / "bad", progress=False, **bad)
    assert not (tmp_path / "bad").exists()


def test_context_changes_clicks_alone_and_by_known_effects() -> None:
    from scipy.special import logit

    from rawrec.data.synthetic import BEST_HOUR, DEVICE_EFFECT, HOUR_EFFECT, POSITION_EFFECT

    plain, shop = (generate(items=60, users=40, impressions=20_000, seed=3, context=on) for on in (False, True))
    for name in ("users", "items", "timestamps", "prices"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(shop, name))
    assert plain.ages is None and shop.ages is not None and shop.devices is not None and shop.positions is not None
    assert len(shop.ages) == 40 and len(shop.devices) == len(shop.positions) == len(shop.users)
    # What context added, but for a constant and what an age group feels for a shape, is what the constants say.
    added = logit(shop.probability.astype(float)) - logit(plain.probability.astype(float))
    hour = shop.timestamps // 3600 % 24
    added -= np.array(DEVICE_EFFECT)[shop.devices] + POSITION_EFFECT * shop.positions
    added -= HOUR_EFFECT * np.cos(2 * np.pi * (hour - BEST_HOUR) / 24)
    cell = shop.ages[shop.users] * 8 + shop.codes["shape"][shop.items]
    for value in np.unique(cell):
        assert np.ptp(added[cell == value]) < 1e-3
    assert np.std([added[cell == value].mean() for value in np.unique(cell)]) > 0.3
    assert abs(shop.clicks.mean() - 0.25) < 0.02
