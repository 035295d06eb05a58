"""A run evaluated as if no item had pictures, or texts: its content is that of items which never had them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_retrieval import ITEMS
from small_retrieval import settings as small

from rawrec.config import RETRIEVAL, resolve
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.training import masking
from rawrec.training.evaluate import evaluate_part
from rawrec.training.job import evaluate, load_task, train
from rawrec.training.masking import fields_of, masked
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.pairs import PairTask
from systems import STILL, settings, system


def alone(made: ImpressionTask, left: list[str]) -> torch.Tensor:
    """Content of all items of the dataset as new ones that have the fields `left` alone."""
    data, model = made.data, made.item_model
    assert model is not None
    rows, raw = np.arange(data.n_items), {}
    for name in [*data.fields.image, *data.fields.text]:
        read = data.images if name in data.fields.image else data.texts
        raw[name] = read(name, rows) if name in left else [[]] * data.n_items
    with torch.no_grad():
        return model.eval()(model.raw_columns(raw))


@pytest.mark.parametrize("paradigm", ["end_to_end", "hybrid", "frozen"])
@pytest.mark.parametrize("without", ["image", "text", "title"])
def test_content_is_that_of_items_without(shop: Path, tmp_path: Path, paradigm: str, without: str) -> None:
    learning = {} if paradigm == "end_to_end" else {"content__image__train": "none", "content__text__train": "none"}
    made = system(shop, tmp_path, paradigm=paradigm, **learning, **{k.replace(".", "__"): v for k, v in STILL.items()})
    made.eval()
    made.refresh(None, 0)
    bank, before = made.bank, made.bank.content.clone()  # pyright: ignore[reportOptionalMemberAccess]
    gone = {"image": ["image"], "text": ["title", "description"], "title": ["title"]}[without]
    left = [name for name in ("image", "title", "description") if name not in gone]
    with masked(made, [without]):
        table = made.table()
        assert table is not None and made.bank is not bank
        wanted = alone(made, left)
        there = np.logical_or.reduce([made.data.present(name) for name in left])
        assert table.valid.numpy().tolist() == there.tolist()
        known = torch.from_numpy(there)
        read = made.read_content(wanted)
        assert torch.allclose(table.values[known], read[known], atol=1e-5)
    assert made.bank is bank and bank.content.equal(before)  # pyright: ignore[reportOptionalMemberAccess]


def test_scores_change_where_content_is_left_out(shop: Path, tmp_path: Path) -> None:
    run = train(settings(train__lr=0.01), shop, tmp_path / "run")
    task = load_task(run)
    assert isinstance(task, ImpressionTask)
    whole, _, scores = evaluate_part(task, 2, task.cfg.seed)
    with masked(task, ["text"]):
        less, _, other = evaluate_part(task, 2, task.cfg.seed)
    assert not scores["score"].equals(other["score"]) and scores["label"].equals(other["label"])
    again, _, _ = evaluate_part(task, 2, task.cfg.seed)
    assert again["auc"] == whole["auc"] == evaluate(run.path)["auc"]
    assert evaluate(run.path, without=["text"])["auc"] == pytest.approx(less["auc"], abs=1e-6)
    assert evaluate(run.path, without=["image", "text"])["auc"] != less["auc"]
    sample = task.evaluation_sample(2)
    with masked(task, ["text"], task.rows_read(sample, 2)):  # of the items that are read alone
        some = task.score_impressions(sample, 2)
    assert np.allclose(some.ravel(), other["score"].to_numpy(), atol=1e-6)


def test_an_encoder_of_several_fields(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of one kind are left out of what was cached, or all is made again: the same."""
    given = {
        "content.item.encoder": "joint:tiny", "content.image.encoder": "patches", "content.text.max_length": 8,
        "content.dim": 16, "model.hidden": [16], "model.dim": 8, "data.history": 5, "train.threads": 1,
        "train.device": "cpu", "train.precision": "fp32", "content.image.size": 16,
    }  # fmt: skip
    made = ImpressionTask(resolve("em3", given), Dataset.open(shop), tmp_path)
    made.eval()
    made.refresh(None, 0)
    for kind, other in (("image", "text"), ("text", "image")):
        with masked(made, [kind]):
            table = made.table()
            assert table is not None
            quick = table.values.clone(), table.valid.clone()
        monkeypatch.setattr(masking, "JointEncoder", type("Another", (), {}))
        with masked(made, [kind]):
            table = made.table()
            assert table is not None
            assert torch.allclose(table.values, quick[0], atol=1e-5) and table.valid.equal(quick[1])
        monkeypatch.undo()
        of = made.data.fields.image if other == "image" else made.data.fields.text
        assert quick[1].numpy().tolist() == np.logical_or.reduce([made.data.present(name) for name in of]).tolist()


READERS = [name for name, record in RETRIEVAL.items() if getattr(record(), "reads_features", lambda: False)()]


@pytest.mark.parametrize("name", READERS)
def test_retrieval_models_without_a_feature(graph: Dataset, tmp_path: Path, name: str) -> None:
    task = PairTask(resolve(name, small(name)), graph, tmp_path / "cache")
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    whole = task.evaluate(2)
    if not task.model.content_in_vectors:
        with pytest.raises(UserError, match="recommends by its ids alone"), masked(task, ["image"]):
            pass
        return
    with masked(task, ["image"]):
        assert not task.model.present("image").any() and not task.model.feature("image").any()
        assert task.model.feature("text").any()
        less = task.evaluate(2)
        assert np.isfinite(less.lists.scores[less.lists.items >= 0]).all()
    assert task.model.live == {} and int(task.model.present("image").sum()) == ITEMS - 1
    assert all(value.equal(before[key]) for key, value in task.model.state_dict().items())
    assert np.array_equal(task.evaluate(2).lists.scores, whole.lists.scores)


def test_vbpr_without_pictures_is_its_product_with_zeros(graph: Dataset, tmp_path: Path) -> None:
    task = PairTask(resolve("vbpr", small("vbpr")), graph, tmp_path / "cache")
    with masked(task, ["image"]):
        _, items = task.model.embeddings()
    task.model.get_buffer("image_feature").zero_()
    assert items.equal(task.model.embeddings()[1])


def test_what_cannot_be_left_out_is_said(shop: Path, graph: Dataset, tmp_path: Path) -> None:
    data = Dataset.open(shop)
    assert fields_of(data, ["text"]) == {"title", "description"} and fields_of(data, ["image", "title"]) == {
        "image",
        "title",
    }
    assert fields_of(graph, ["image"]) == {"image"}  # a ready-made feature of this name
    with pytest.raises(UserError, match=r"colour.*Known: image, text, title, description"):
        fields_of(data, ["colour"])
    ids = system(shop, tmp_path, model__name="id", model__content="none")
    with pytest.raises(UserError, match="reads no content"), masked(ids, ["image"]):
        pass
    titles = system(shop, tmp_path, content__image__use=False)
    with pytest.raises(UserError, match="does not read image"), masked(titles, ["image"]):
        pass
    lightgcn = PairTask(resolve("lightgcn", small("lightgcn")), graph, tmp_path / "cache")
    with pytest.raises(UserError, match="does not read image"), masked(lightgcn, ["image"]):
        pass
