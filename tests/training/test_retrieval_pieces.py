"""Retrieval models on items with several pictures and texts, each a token of EM3's fusion."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_retrieval import settings as small

import rawrec
from rawrec import Recommender, UserError
from rawrec.config import resolve
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.training.job import resume, train
from rawrec.training.tasks.pairs import PairTask
from systems import FAST, Stop, digest, stopping_after

USERS, ITEMS = 12, 16
RAW = {key: value for key, value in FAST.items() if key.startswith(("content.image.", "content.text."))}
EACH = {
    "content__image__tokens": "each",
    "content__image__max_images": 3,
    "content__text__tokens": "each",
    "content__text__max_texts": 2,
}


def picture(level: int) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (40, 40), (level, 255 - level, level // 2)).save(held, "PNG")
    return held.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Item k has k modulo 4 pictures and one text or two; clicks by chance."""
    rng = np.random.default_rng(0)
    out = tmp_path_factory.mktemp("data") / "d"
    pairs = [(u, i) for u in range(USERS) for i in rng.permutation(ITEMS)[:8].tolist()]
    fields = Fields(image=["image"], text=["title"])
    with DatasetWriter(out, fields=fields, source="test", labels=[], has_time=False) as writer:
        pictures = [[picture((40 * k + 60 * n) % 256) for n in range(k % 4)] for k in range(ITEMS)]
        titles = [[f"thing {k}", "red"][: 1 + k % 2] for k in range(ITEMS)]
        writer.add_items({"item_id": [f"i{k}" for k in range(ITEMS)], "image": pictures, "title": titles})
        rows = {"user_id": [f"u{u}" for u, _ in pairs], "item_id": [f"i{i}" for _, i in pairs]}
        writer.add_interactions(rows)
        return writer.finish(SplitSpec(kind="random_user"), ImportReport())


def overrides(paradigm: str, **more: Any) -> dict[str, Any]:
    raw = RAW if paradigm == "end_to_end" else {k: v for k, v in RAW.items() if not k.endswith(".train")}
    made = small("em3_freedom", **EACH, **more) | raw | {"paradigm": paradigm}
    return made | ({"train.precision": "fp32"} if paradigm == "end_to_end" else {})


@pytest.mark.parametrize("paradigm", ["frozen", "end_to_end"])
def test_modalities_of_pieces(data: Dataset, tmp_path: Path, paradigm: str) -> None:
    cfg = resolve("em3_freedom", overrides(paradigm, content__order=["title", "image"]))
    task = PairTask(cfg, data, tmp_path / "cache")
    model = task.model
    assert model.modalities == ("title", "title[2]", "image", "image[2]", "image[3]")
    counts = np.arange(ITEMS) % 4
    for n, name in enumerate(("image", "image[2]", "image[3]"), 1):
        np.testing.assert_array_equal(model.present(name).numpy(), counts >= n)
    np.testing.assert_array_equal(model.present("title[2]").numpy(), np.arange(ITEMS) % 2 == 1)
    assert not model.feature("image[3]")[~model.present("image[3]")].any()
    assert cfg.content.fields["image"].max_images == 3  # what a loaded run reads again
    apart = {"content.image.tokens", "content.text.tokens", "content.text.max_texts"}
    joined = {key: value for key, value in overrides(paradigm).items() if key not in apart}
    plain = PairTask(resolve("em3_freedom", joined), data, tmp_path / "cache").model
    mean, known = model.of_field("image")
    assert known.equal(plain.present("image"))
    torch.testing.assert_close(mean, plain.feature("image"), atol=2e-3, rtol=2e-3)  # caches are of half precision


def test_a_run_resumes_exactly_and_serves(data: Dataset, tmp_path: Path) -> None:
    settings = overrides("end_to_end") | {"content.image.max_images": 5}  # no item has a fourth
    train("em3_freedom", data, tmp_path / "whole", settings)
    with pytest.raises(Stop):
        train("em3_freedom", data, tmp_path / "cut", settings, observer=stopping_after(5))
    resume(tmp_path / "cut")
    assert digest(tmp_path / "whole") == digest(tmp_path / "cut")
    recommender = Recommender.load(tmp_path / "whole")
    assert len(recommender.recommend(user="u1", k=3)) == 3 and len(recommender.similar(item="i7", k=3)) == 3
    line = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["bank/coverage"] == 1


def test_models_without_a_fusion_refuse(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"freedom reads one feature of each field.*em3_freedom alone has a fusion"):
        rawrec.train("freedom", data, tmp_path / "run", small("freedom", content__image__tokens="each"))
    with pytest.raises(UserError, match=r"content\.image\.tokens=each: train=side:1"):
        more = {"content.image.train": "side:1"}
        rawrec.train("em3_freedom", data, tmp_path / "run", overrides("end_to_end") | more)
