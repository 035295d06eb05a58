"""Fine-tuning of CLIP and its kin and of VLMo: their own losses, their own folders."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from colours import COLOURS, colours
from safetensors.torch import load_file
from torch.nn import functional

from rawrec.config import FieldConfig
from rawrec.config.finetune import finetune_config
from rawrec.content.contrast import sigmoid_contrast, softmax_contrast
from rawrec.content.encoders import Networks, make_encoder
from rawrec.content.encoders.vlmo import MLM_WEIGHT, Vlmo, VlmoConfig, itc_loss, itm_loss, itm_pairs
from rawrec.content.finetuning.whole import WholeItems
from rawrec.content.finetuning.words import IGNORED, WordPieces
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.files import write_tensors
from rawrec.training.job import finetune, resume
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.catalogue import CatalogueTask
from systems import TIMES, Stop, stopping_after

SMALL: dict[str, Any] = {
    "batch_size": 32, "warmup_steps": 0, "epochs": 2, "held_out": 0.2, "lr": 1e-3, "threads": 1, "precision": "fp32",
    "checkpoint_share": 1, "device": "cpu",
}  # fmt: skip
CLASSES = {"clip": "CLIP", "siglip": "Siglip", "chinese_clip": "ChineseCLIP", "metaclip_2": "MetaClip2"}
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return colours(tmp_path_factory.mktemp("colours") / "data")


def metrics(run: RunFolder) -> dict[str, Any]:
    return json.loads((run.path / "metrics.json").read_text())


def words(folder: Path, pieces: bool) -> int:
    """A tokenizer of the colours' names, cut in two where it is one of word pieces; how many it has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "on"]
    known += sorted({part for c in COLOURS for part in ((c[:2], f"##{c[2:]}") if pieces else (c,))})
    vocabulary = {word: k for k, word in enumerate(known)}
    make = models.WordPiece if pieces else models.WordLevel
    backend = Tokenizer(make(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
        cls_token="[CLS]", model_max_length=10,
    ).save_pretrained(folder)  # fmt: skip
    return len(known)


# ---------------------------------------------------------------------------------------------------------- two towers
def two_towers(folder: Path, kind: str) -> Path:
    torch.manual_seed(1)
    size = words(folder, pieces=False)
    text = {**TOWER, "vocab_size": size, "max_position_embeddings": 10, "pad_token_id": 0}
    text |= {"projection_size": 32} if kind == "siglip" else {}
    text |= {} if kind == "chinese_clip" else {"bos_token_id": 2, "eos_token_id": 3}
    more = {} if kind == "siglip" else {"projection_dim": 16}
    config = getattr(transformers, f"{CLASSES[kind]}Config")(
        text_config=text, vision_config={**TOWER, "image_size": 16, "patch_size": 4}, **more
    )
    model = getattr(transformers, f"{CLASSES[kind]}Model")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "train"),
    [
        *((kind, "all") for kind in CLASSES),
        *((kind, train) for kind in ("clip", "siglip") for train in ("lora", "top:1")),
    ],
)
def test_two_towers_learn_and_stay_what_they_are(data: Dataset, tmp_path: Path, kind: str, train: str) -> None:
    """The new folder has all weights of the old one, loads as its class, and makes the features that were measured."""
    folder = two_towers(tmp_path / "weights", kind)
    run = finetune(data, folder, tmp_path / "tuned", {**SMALL, "train": train})
    old, new = load_file(folder / "model.safetensors"), load_file(run.path / "model.safetensors")
    assert old.keys() == new.keys() and all(old[name].shape == new[name].shape for name in old)
    moved = {name for name in old if not torch.equal(old[name].float(), new[name])}
    assert "logit_scale" in moved and ("logit_bias" in moved) == (kind == "siglip")
    assert any("vision" in name for name in moved) and any("text" in name for name in moved)
    first = [name for name in moved if ".layers.0." in name or ".layer.0." in name]
    assert bool(first) == (train != "top:1")
    made = getattr(transformers, f"{CLASSES[kind]}Model").from_pretrained(run.path)
    assert made.config.model_type == kind
    task = CatalogueTask(finetune_config({**SMALL, "encoder": str(run.path)}), data, tmp_path / "cache")
    again, known = task.probe().metrics, metrics(run)["valid"]
    assert again["recall"] == pytest.approx(known["recall"], abs=0.03)
    assert again["alignment"] == pytest.approx(known["alignment"], abs=1e-3)
    assert again["temperature"] == pytest.approx(known["temperature"], rel=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_loss_is_the_familys_own(data: Dataset, tmp_path: Path, kind: str) -> None:
    """By the class's own features, scale and bias."""
    folder = two_towers(tmp_path / "weights", kind)
    task = CatalogueTask(finetune_config({**SMALL, "encoder": str(folder)}), data, tmp_path / "cache")
    batch = task.batch(task.begin_epoch(0)[:9], 0, 0)
    live = task.go_live(batch, 0)
    (losses,) = task.losses(batch, live, 0)
    model = getattr(transformers, f"{CLASSES[kind]}Model").from_pretrained(folder).eval()
    image, text = (make_encoder(k, FieldConfig(encoder=str(folder)), 0, torch.float32) for k in ("image", "text"))
    rows = batch.items.tolist()
    x = functional.normalize(image.encode(data.images("front", rows)), dim=1)
    y = functional.normalize(text.encode(data.texts("title", rows)), dim=1)
    scale = model.logit_scale.detach().exp()
    if kind == "siglip":
        expected = sigmoid_contrast(x, y, scale, model.logit_bias.detach())
    else:
        expected = softmax_contrast(x, y, scale)
    torch.testing.assert_close(losses["loss"].detach(), expected.reshape(()), rtol=1e-4, atol=1e-5)


def test_a_pair_of_folders_needs_them_no_more(data: Dataset, tmp_path: Path) -> None:
    folder = two_towers(tmp_path / "weights", "clip")
    small = {**SMALL, "dim": 8, "epochs": 1}
    run = finetune(data, f"pair:random:vit+{folder}", tmp_path / "tuned", {**small, "size": 16, "max_length": 8})
    known = metrics(run)["valid"]
    (tmp_path / "weights").rename(tmp_path / "gone")
    again = CatalogueTask(finetune_config({**SMALL, "encoder": str(run.path)}), data, tmp_path / "cache").probe()
    assert again.metrics["alignment"] == pytest.approx(known["alignment"], abs=1e-3)
    assert not (run.path / "text" / "model.safetensors").exists()


# ---------------------------------------------------------------------------------------------------------------- VLMo
def vlmo_folder(folder: Path, pieces: bool = True) -> Path:
    folder.mkdir()
    size = words(folder, pieces)
    torch.manual_seed(0)
    cfg = VlmoConfig(width=32, depth=3, heads=4, hidden=64, patch=4, image_size=16, vl_layer=2, vocabulary=size,
                     max_text=8, reach=8, layer_scale=None)  # fmt: skip
    net = Vlmo(cfg)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1 and "bias" not in name:
                parameter.mul_(6)  # as if it had been trained: small weights say the same of all pictures
    write_tensors(net.state_dict(), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "vlmo", **cfg.model_dump(mode="json")}))
    return folder


def test_vlmo_learns_by_all_three(data: Dataset, tmp_path: Path) -> None:
    folder = vlmo_folder(tmp_path / "weights")
    settings = {**SMALL, "loss": "itc,itm,mlm", "epochs": 12, "patience": 12, "micro_batch": 16}
    run = finetune(data, folder, tmp_path / "tuned", settings)
    lines, found = run.metrics_lines(), metrics(run)
    for name in ("itc", "itm", "mlm"):
        assert lines[-1][f"loss/{name}"] < lines[0][f"loss/{name}"], name
    assert lines[0]["loss"] == pytest.approx(sum(lines[0][f"loss/{name}"] for name in ("itc", "itm", "mlm")), rel=1e-5)
    assert found["before"]["recall"] < 0.4 and found["valid"]["recall"] > 0.6
    old, new = load_file(folder / "model.safetensors"), load_file(run.path / "model.safetensors")
    assert old.keys() == new.keys()
    networks, cfg = Networks(), FieldConfig(encoder=str(run.path))
    rows = list(range(5))
    raw = {"image": data.images("front", rows), "text": data.texts("title", rows)}
    made = {kind: make_encoder(kind, cfg, 0, networks=networks) for kind in ("image", "text", "image_text")}
    assert all(e.encode(*(raw[k] for k in e.kinds)).shape == (5, 32) for e in made.values())


def test_random_vlmo_is_written_with_its_tokenizer(data: Dataset, tmp_path: Path) -> None:
    run = finetune(data, "random:vlmo", tmp_path / "x", {**SMALL, "size": 16, "max_length": 6, "loss": "itm,itc"})
    again = CatalogueTask(finetune_config({**SMALL, "encoder": str(run.path)}), data, tmp_path / "cache").probe()
    assert again.metrics["alignment"] == pytest.approx(metrics(run)["valid"]["alignment"], abs=1e-4)


@pytest.mark.parametrize("train", ["all", "lora", "top:1"])
def test_vlmo_stopped_and_resumed(data: Dataset, tmp_path: Path, train: str) -> None:
    folder = vlmo_folder(tmp_path / "weights")
    settings = {**SMALL, "loss": "itc,itm,mlm", "train": train, "checkpoint_every": 1, "micro_batch": 12}
    whole = finetune(data, folder, tmp_path / "whole", settings)
    with pytest.raises(Stop):
        finetune(data, folder, tmp_path / "cut", settings, observer=stopping_after(10))
    cut = resume(tmp_path / "cut")
    assert (cut.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    lines = [[{k: v for k, v in x.items() if k not in TIMES} for x in run.metrics_lines()] for run in (cut, whole)]
    assert lines[0] == lines[1]


def test_losses_of_vlmo_are_those_of_its_network(data: Dataset, tmp_path: Path) -> None:
    folder = vlmo_folder(tmp_path / "weights")
    settings = {**SMALL, "encoder": str(folder), "loss": "itc,itm", "micro_batch": 4}
    task = CatalogueTask(finetune_config(settings), data, tmp_path / "cache")
    model = task.model
    assert isinstance(model, WholeItems)
    batch = task.batch(task.begin_epoch(0)[:10], 0, 0)
    live = task.go_live(batch, 0)
    itc, *itm = list(task.losses(batch, live, 0))
    pixels, ids, mask = model._inputs(task._read(batch.items, torch.zeros(10, dtype=torch.int64)))
    with torch.no_grad():
        image, text = model.net(pixels), model.net(None, ids, mask)
        torch.testing.assert_close(itc["itc"].detach(), itc_loss(model.net, image, text), rtol=1e-4, atol=1e-5)
        from rawrec.content.encoders.vlmo import hard_negatives
        from rawrec.randomness import generator_of

        false = hard_negatives(model.net.itc(image), model.net.itc(text), model.net.logit_scale, generator_of(0, 4, 0))
        expected = itm_loss(itm_pairs(model.net, pixels, ids, mask, *false))
    assert len(itm) == math.ceil(30 / 4)
    torch.testing.assert_close(sum(one["itm"].detach() for one in itm), expected, rtol=1e-4, atol=1e-5)


def test_mlm_by_hand(data: Dataset, tmp_path: Path) -> None:
    folder = vlmo_folder(tmp_path / "weights")
    settings = {**SMALL, "encoder": str(folder), "loss": "mlm", "micro_batch": 3}
    task = CatalogueTask(finetune_config(settings), data, tmp_path / "cache")
    model = task.model
    assert isinstance(model, WholeItems) and model.pieces is not None
    columns = task._read(task.pairs.train[:7], torch.zeros(7, dtype=torch.int64))
    pixels, ids, mask = model._inputs(columns)
    parts = list(model._mlm(model.pieces, pixels, ids, mask, 3, torch.Generator().manual_seed(5)))
    shown, labels = model.pieces.hide(ids, torch.Generator().manual_seed(5))
    total, count = 0.0, 0
    with torch.no_grad():
        logits = model.net.mlm_logits(model.net(pixels, shown, mask)).double()
    for i, j in (labels != IGNORED).nonzero().tolist():
        total -= float(logits[i, j].log_softmax(0)[labels[i, j]])
        count += 1
    assert len(parts) == 3 and count >= 7
    assert float(sum(p["mlm"].detach() for p in parts)) == pytest.approx(MLM_WEIGHT * total / count, rel=1e-4)


# ------------------------------------------------------------------------------------------------------------- words
def test_whole_words_are_hidden(tmp_path: Path) -> None:
    from rawrec.content.encoders.loading import load_tokenizer

    size = words(tmp_path, pieces=True)
    tokenizer, _ = load_tokenizer(tmp_path, "here")
    pieces = WordPieces(tokenizer, size, "here")
    (one, two), _ = tokenizer(["red on blue", "pink"], 10)
    assert len(one) == 7
    ids = torch.tensor([one, two + [0] * (len(one) - len(two))])
    assert pieces.words(ids).tolist() == [[-1, 0, 0, 1, 2, 2, -1], [-1, 0, 0, -1, -1, -1, -1]]
    many = ids[:1].expand(6000, -1)
    shown, labels = pieces.hide(many, torch.Generator().manual_seed(0))
    chosen = labels != IGNORED
    assert (chosen[:, 1] == chosen[:, 2]).all() and (chosen[:, 4] == chosen[:, 5]).all(), "words are hidden whole"
    assert not chosen[:, [0, 6]].any() and torch.equal(labels[chosen], many[chosen])
    assert (chosen[:, [1, 3, 4]].sum(1) == 1).all(), "15 % of three words, one at least"
    assert torch.equal(shown[~chosen], many[~chosen])
    asked = shown[chosen]
    masked, same = (asked == pieces.mask).float().mean(), (asked == many[chosen]).float().mean()
    assert abs(float(masked) - 0.8) < 0.02 and abs(float(same) - 0.1 - 0.1 / len(pieces.ordinary)) < 0.02
    again = pieces.hide(many, torch.Generator().manual_seed(0))
    assert torch.equal(again[0], shown)


def test_of_many_words_fifteen_per_cent(tmp_path: Path) -> None:
    from rawrec.content.encoders.loading import load_tokenizer

    size = words(tmp_path, pieces=True)
    tokenizer, _ = load_tokenizer(tmp_path, "here")
    pieces = WordPieces(tokenizer, size, "here")
    (ids,), _ = tokenizer([" ".join([*COLOURS] * 4)], 200)
    _, labels = pieces.hide(torch.tensor([ids]), torch.Generator().manual_seed(1))
    of = pieces.words(torch.tensor([ids]))[labels != IGNORED]
    assert len(set(of.tolist())) == round(44 * 0.15)


def test_words_without_pieces_are_refused(data: Dataset, tmp_path: Path) -> None:
    folder = vlmo_folder(tmp_path / "weights", pieces=False)
    with pytest.raises(UserError, match=r"loss=mlm hides whole words, .* a tokenizer of word pieces, with \[MASK\]"):
        finetune(data, folder, tmp_path / "x", {**SMALL, "loss": "mlm"})
    for train in ("top:7", "lora"):
        extra = {"lora_layers": 9} if train == "lora" else {}
        with pytest.raises(UserError, match=r"has 3 layers; use at most 3"):
            finetune(data, folder, tmp_path / "x", {**SMALL, "train": train, **extra})
