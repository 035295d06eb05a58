"""The item model: from raw media to content, and live items with and without gradient caching."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rawrec.config import resolve
from rawrec.content.item_model import FEATURE_NORM, ItemModel, one_length
from rawrec.content.live import LiveContent
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.training.tasks.impressions import ImpressionTask
from systems import STILL, config, content_of, live_of, small_dataset, system


def gradients(made: ImpressionTask, live: LiveContent, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a loss that uses some rows twice."""
    made.zero_grad()
    (live.leaf * weight).sum().backward()
    live.leaf[:3].square().sum().backward()
    live.backward()
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


# ----------------------------------------------------------------------------------------------------- gradient caching
@pytest.mark.parametrize("train", ["top:1", "all", "lora"])
def test_micro_batches_have_the_gradient_of_one_batch(shop: Path, tmp_path: Path, train: str) -> None:
    made = system(shop, tmp_path, content__image__train=train, content__text__train=train, **STILL)
    made.train()
    rows = made.bank.valid.nonzero()[:30, 0]
    weight = torch.randn(30, 16)
    whole, parts = live_of(made, rows, 30), live_of(made, rows, 7)
    torch.testing.assert_close(parts.leaf, whole.leaf)
    expected, got = gradients(made, whole, weight), gradients(made, parts, weight)
    assert expected.keys() == got.keys()
    for kind in ("item_model.proj", "item_model.fusion", "item_model.encoders.image", "item_model.encoders.title"):
        assert any(name.startswith(kind) and grad.any() for name, grad in expected.items()), kind
    for name, grad in expected.items():
        torch.testing.assert_close(got[name], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()) + 1e-7, msg=name)


def test_fusion_has_one_dropout_however_many_micro_batches(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path, content__fusion__dropout=0.5)
    made.train()
    rows, weight = made.bank.valid.nonzero()[:30, 0], torch.randn(30, 16)
    torch.manual_seed(99)
    live = live_of(made, rows, 7, seed=5)
    torch.manual_seed(98)  # what the ranker draws in between must not matter
    got = gradients(made, live, weight)

    torch.manual_seed(5)
    whole = content_of(made, rows)
    torch.testing.assert_close(live.leaf, whole)
    made.eval()
    assert not torch.allclose(live.leaf, content_of(made, rows), atol=1e-2)  # there was dropout
    made.zero_grad()
    ((whole * weight).sum() + whole[:3].square().sum()).backward()
    for name, p in made.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(got[name], p.grad, rtol=1e-4, atol=1e-5 * float(p.grad.abs().max()) + 1e-7)


def test_items_that_fit_are_encoded_once(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls = system(shop, tmp_path), []
    encode = ItemModel.encode
    monkeypatch.setattr(ItemModel, "encode", lambda *args: (calls.append(len(args[2])), encode(*args))[1])
    rows = made.bank.valid.nonzero()[:20, 0]
    gradients(made, live_of(made, rows, 20), torch.ones(20, 16))
    assert calls == [20]
    calls.clear()
    gradients(made, live_of(made, rows, 8), torch.ones(20, 16))
    assert calls == [8, 8, 4, 8, 8, 4]
    live_of(made, rows[:0], 8).backward()


@pytest.mark.parametrize("micro_batch", [3, 100])
def test_rows_that_are_not_encoded_are_fused_from_the_banks_features(
    shop: Path, tmp_path: Path, micro_batch: int
) -> None:
    """Under a live budget: all rows teach the fusion, the encoded ones the encoders as well."""
    made = system(shop, tmp_path, bank__micro_batch=micro_batch, **STILL)
    rows = made.bank.valid.nonzero()[:20, 0]
    made.refresh(None, 0)
    for values in made.bank.features.values():
        values += torch.randn_like(values)  # as if encoders had moved on since
    encoded = rows[::4]
    live = made.live.content_of(rows, encoded, seed=0)
    fresh = content_of(made, rows)
    expected = made.item_model.content(made.bank, rows, encoded, made.item_model.encode(made.bank, encoded))
    torch.testing.assert_close(live.leaf, expected)
    torch.testing.assert_close(live.leaf[::4], fresh[::4], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(live.leaf[1::4], fresh[1::4], rtol=1e-2, atol=1e-2)
    weight = torch.randn(20, 16)
    got = gradients(made, live, weight)
    made.zero_grad()
    ((expected * weight).sum() + expected[:3].square().sum()).backward()
    assert any(name.startswith("item_model.encoders.image") and grad.any() for name, grad in got.items())
    for name, p in made.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(got[name], p.grad, rtol=1e-4, atol=1e-5 * float(p.grad.abs().max()) + 1e-7)


# ------------------------------------------------------------------------------------------------------- the item model
@pytest.mark.parametrize("paradigm", ["frozen", "hybrid", "end_to_end"])
def test_an_item_without_media_is_zero_and_does_not_disturb(shop: Path, tmp_path: Path, paradigm: str) -> None:
    made = system(shop, tmp_path, paradigm=paradigm, **STILL).eval()
    rows = torch.arange(60)
    content = content_of(made, rows).detach()
    assert content.shape == (60, 64 + 2 * 32 if paradigm == "frozen" else 16)
    assert torch.equal(content.any(1), made.bank.valid) and not made.bank.valid.all()
    alone = torch.cat([content_of(made, rows[i : i + 1]) for i in range(0, 60, 7)]).detach()
    torch.testing.assert_close(content[::7], alone, rtol=1e-3, atol=1e-4)


def test_frozen_content_is_the_normalised_features_side_by_side(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path, paradigm="frozen")
    start = 0
    for field, width in (("image", 64), ("title", 32), ("description", 32)):
        column = made.bank.static[f"feature/{field}"]
        part = made.bank.content[:, start : start + width]
        there = column.lengths > 0
        expected = torch.nn.functional.layer_norm(column.values.float(), (width,), eps=0) * FEATURE_NORM / width**0.5
        torch.testing.assert_close(expected.norm(dim=1), torch.full((len(expected),), FEATURE_NORM))
        torch.testing.assert_close(part[there], expected, rtol=1e-4, atol=1e-5)
        assert there.any() and not there.all() and not part[~there].any()
        start += width
    assert made.bank.content.shape[1] == start


def test_columns_end_where_training_begins(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path, content__text__train="none", content__title__train="top:1")
    assert set(made.bank.static) == {"hidden/image", "hidden/title", "feature/description"}
    assert made.bank.static["hidden/title"].lengths.max() > 1  # tokens
    assert made.bank.static["feature/description"].lengths.max() == 1


def test_raw_media_give_what_the_dataset_gave(shop: Path, tmp_path: Path) -> None:
    """An item that the dataset does not know is encoded as if it had been in it."""
    made, data = system(shop, tmp_path), Dataset.open(shop)
    made.eval()
    raw = {"image": data.images("image", range(20)), "title": data.texts("title", range(20))}
    new = made.item_model(made.item_model.raw_columns(raw)).detach()
    description = made.bank.static["hidden/description"]
    without = description.lengths[:20] == 0
    assert without.any()
    known = content_of(made, torch.arange(20)).detach()
    torch.testing.assert_close(new[without], known[without], rtol=1e-3, atol=1e-3)
    differ = (new - known).abs().amax(1) > 1e-3
    assert torch.equal(differ, ~without)


def test_columns_are_cached_by_what_they_depend_on(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = system(shop, tmp_path)
    files = {p.name for p in tmp_path.iterdir()}
    assert {name.rsplit("-", 1)[0] for name in files} == {"image", "title", "description"}
    made: list[str] = []
    prepare = ItemModel.prepare
    monkeypatch.setattr(ItemModel, "prepare", lambda self, name, raw: (made.append(name), prepare(self, name, raw))[1])
    again = system(shop, tmp_path, train__lr=0.5)
    assert made == [] and again.stats == first.stats
    for name, column in first.bank.static.items():
        assert torch.equal(column.values, again.bank.static[name].values)
        assert torch.equal(column.ptr, again.bank.static[name].ptr)
    system(shop, tmp_path, content__image__size=48)
    assert made == ["image"]
    system(shop, tmp_path, content__title__train="top:2")
    assert made == ["image", "title"]
    assert files < {p.name for p in tmp_path.iterdir()}


def test_ready_made_features(tmp_path: Path) -> None:
    feature = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    valid = np.array([True, True, False, True, True, True])
    rows = [(u, (u + t) % 6, t, float(t % 2)) for u in range(3) for t in range(8)]
    data = small_dataset(tmp_path / "d", rows, 6, feature=feature, valid=valid)

    made = ImpressionTask(resolve({}, {"content.dim": 4, "paradigm": "hybrid"}), data, tmp_path / "cache")
    assert made.bank.valid.tolist() == valid.tolist()
    made.refresh(None, 0)
    normal = torch.from_numpy(feature)
    normal = normal - normal.mean(1, keepdim=True)
    normal = normal * FEATURE_NORM / normal.norm(dim=1, keepdim=True)
    tokens = made.item_model.proj["feature"](normal)[:, None]
    expected = made.item_model.fusion(tokens, torch.ones(6, 1, dtype=torch.bool)) * torch.from_numpy(valid)[:, None]
    torch.testing.assert_close(made.bank.content, expected.detach(), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- settings
def test_mistakes_are_named(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"content\.tilte.*no image or text field 'tilte'.*title.*description"):
        system(shop, tmp_path, content__tilte__train="all")
    with pytest.raises(UserError, match=r"paradigm=end_to_end.*content\.image\.train=top:1.*paradigm=hybrid"):
        system(shop, tmp_path, content__image__train="none", content__text__train="none")
    with pytest.raises(UserError, match="every content field has use=false"):
        system(shop, tmp_path, content__image__use=False, content__text__use=False)
    with pytest.raises(UserError, match=r"^content\.image\.train=top:99: the encoder random:conv has 4 layers"):
        system(shop, tmp_path, content__image__train="top:99")
    with pytest.raises(UserError, match=r"^content\.title: encoder .*nothing"):
        system(shop, tmp_path, content__title__encoder="nothing/here")
    with pytest.raises(UserError, match=r"heads=3"):
        system(shop, tmp_path, content__fusion__heads=3)


def test_projection_and_fusion_are_as_wide_as_asked() -> None:
    made = ItemModel({}, {"a": 3, "b": 7}, config(content__dim=8).content, frozen=False)
    assert {name: tuple(p.weight.shape) for name, p in made.proj.items()} == {"a": (8, 3), "b": (8, 7)}
    assert made.dim == 8 and made.column("a") == "feature/a"


@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1e-3, 3e-3, 1.0, 1e4])
def test_features_of_any_deviation_come_to_one_length(scale: float) -> None:
    features = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    made = one_length(features * scale)
    torch.testing.assert_close(made.norm(dim=1), torch.full((6,), 4.0))
    torch.testing.assert_close(made.mean(1), torch.zeros(6), rtol=0, atol=1e-6)
    torch.testing.assert_close(made, one_length(features), rtol=1e-5, atol=1e-6)


def test_ordinary_features_are_as_layer_norm_has_them() -> None:
    features = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    usual = torch.nn.functional.layer_norm(features, (32,)) * 4 / 32**0.5
    torch.testing.assert_close(one_length(features), usual, rtol=1e-4, atol=1e-5)  # of its epsilon


def test_features_that_say_nothing_stay_zero_and_have_a_finite_gradient() -> None:
    features = torch.stack([torch.zeros(32), torch.full((32,), 7.3), torch.arange(32.0)]).requires_grad_()
    made = one_length(features)
    assert not made[:2].any() and made[2].any()
    made.square().sum().backward()
    assert features.grad is not None and features.grad.isfinite().all() and not features.grad[:2].any()
