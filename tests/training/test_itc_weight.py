"""The image-text contrast beside a model's own loss, end to end: `content.itc_weight`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import rawrec
from rawrec.config import resolve
from rawrec.content.building import build_item_model
from rawrec.content.units import content_units
from rawrec.data.dataset import Dataset, Fields
from rawrec.errors import UserError

VLMO: dict[str, Any] = {
    "paradigm": "end_to_end", "content.item.encoder": "random:vlmo", "content.item.train": "all", "train.epochs": 1,
    "train.threads": 1, "train.precision": "fp32", "content.itc_weight": 0.5,
}  # fmt: skip
FIELDS = Fields(image=["image"], text=["title", "plot"], categorical=[], numeric=[], feature={})


def made(**overrides: Any) -> Any:
    cfg = resolve("em3", {**VLMO, **overrides})
    return build_item_model(cfg, FIELDS, content_units(cfg, FIELDS))


def test_against_a_loop_over_pairs() -> None:
    """Row i of the pictures belongs to row i of the texts; items that lack one take no part."""
    model = made()
    assert model.itc_pairs() == [("image", "text")]
    draw = torch.Generator().manual_seed(0)
    image, text = torch.randn(5, 32, generator=draw), torch.randn(5, 32, generator=draw)
    present = {"image": torch.tensor([1, 1, 0, 1, 1]).bool(), "text": torch.tensor([1, 1, 1, 1, 0]).bool()}
    found = model.contrast({"image": image, "text": text}, present)
    rows = [0, 1, 3]
    cosine = functional.cosine_similarity(image[rows][:, None], text[rows][None], dim=-1) / 0.07
    by_text = [-(cosine[i, i] - torch.logsumexp(cosine[i], 0)) for i in range(3)]
    by_image = [-(cosine[i, i] - torch.logsumexp(cosine[:, i], 0)) for i in range(3)]
    torch.testing.assert_close(found, (sum(by_text) + sum(by_image)) / 6, rtol=1e-5, atol=1e-6)
    alone = {"image": torch.tensor([1, 0, 0, 0, 0]).bool(), "text": present["text"]}
    assert model.contrast({"image": image, "text": text}, alone) is None


@pytest.mark.parametrize("model", ["em3", "vbpr"])
def test_micro_batches_change_nothing(shop: Path, tmp_path: Path, model: str) -> None:
    """The contrast is over all items that a step encodes, also where they do not fit at once."""
    weights = []
    for size in (256, 7):
        given = {**VLMO, "bank.micro_batch": size, "train.batch_size": 512, "train.clip": None}
        run = rawrec.train(model, shop, tmp_path / f"{model}-{size}", given)
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        weights.append(lines[0]["loss/itc"])
    assert weights[0] == pytest.approx(weights[1], rel=1e-3)


@pytest.mark.parametrize("model", ["em3", "bm3"])
def test_pictures_and_texts_come_together(shop: Path, tmp_path: Path, model: str) -> None:
    given = {**VLMO, "content.itc_weight": 5.0, "train.epochs": 6, "train.encoder_lr": 3e-3, "train.patience": 6}
    run = rawrec.train(model, shop, tmp_path / "run", given)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss/itc"] for line in lines if "loss/itc" in line]
    assert losses[-1] < 0.97 * losses[0]
    assert rawrec.Recommender.load(run.path).recommend(user="u1", k=2)


def test_without_weight_nothing_is_added() -> None:
    assert made(**{"content.itc_weight": 0.0}).itc is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"paradigm": "hybrid", "content.item.train": "none"}, "itc_weight=0.5 would do nothing: .*trains no encoder"),
        ({"content.item.encoder": None, "content.image.encoder": "random:conv", "content.text.encoder": "random:bert"},
         "features of image and title are 64 and 32 wide, in no common space"),
        ({"content.features": ["image"]}, "no encoder of both kinds is trained"),
    ],
)  # fmt: skip
def test_mistakes_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(**overrides)


def test_a_killed_run_goes_on_with_the_learned_scale(shop: Path, tmp_path: Path) -> None:
    whole = rawrec.train("em3", shop, tmp_path / "whole", {**VLMO, "train.epochs": 2})

    class Stop(Exception):
        pass

    def observer(event: str, **values: Any) -> None:
        if event == "validated":
            raise Stop

    with pytest.raises(Stop):
        rawrec.train("em3", Dataset.open(shop), tmp_path / "cut", {**VLMO, "train.epochs": 2}, observer=observer)
    rawrec.resume(tmp_path / "cut")
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == other and whole.path.name == "whole"
