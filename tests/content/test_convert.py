"""Published weights become folders that compute the same; what is not understood is refused in one message."""

import json
import math
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rawrec import cli, folders
from rawrec.config import FieldConfig
from rawrec.content.convert import convert
from rawrec.content.convert.vlmo import BIAS_TABLE
from rawrec.content.encoders import make_encoder
from rawrec.content.encoders.vlmo import load_vlmo
from rawrec.errors import UserError
from weight_samples import Clip, Quick, State, as_published, clip, open_clip_folder, small_vlmo, words_of_clip, wrapped

GOLDEN = Path(__file__).parents[1] / "golden"


def ids(words: int) -> Tensor:
    """Texts with the end token, the highest id, at different places."""
    made = torch.randint(1, words - 2, (4, 9), generator=torch.Generator().manual_seed(2))
    for row, end in enumerate((8, 3, 5, 1)):
        made[row, end], made[row, end + 1 :] = words - 1, 0
    return made


def pixels() -> Tensor:
    return torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(3))


def same_features(folder: Path, model: Clip, words: int) -> None:
    from transformers import CLIPModel

    found, info = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    with torch.no_grad():
        image = found.get_image_features(pixel_values=pixels()).pooler_output
        text = found.get_text_features(input_ids=ids(words)).pooler_output
        torch.testing.assert_close(image, model.visual(pixels()), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(text, model.texts(ids(words)), rtol=1e-4, atol=1e-4)
        assert image.abs().mean() > 0.1 and text.abs().mean() > 0.1
    assert found.logit_scale == model.logit_scale


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_clip_of_a_file(tmp_path: Path, act: str) -> None:
    model = clip({"quick_gelu": Quick, "gelu": nn.GELU}[act])
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    done = convert(tmp_path / "clip.safetensors", tmp_path / "out", activation=act)
    same_features(tmp_path / "out", model, 60)
    assert done.family == "clip" and done.missing is not None and "vocab.json and merges.txt" in done.missing
    other = "gelu" if act == "quick_gelu" else "quick_gelu"
    convert(tmp_path / "clip.safetensors", tmp_path / "other", activation=other)
    with pytest.raises(AssertionError, match="not close"):
        same_features(tmp_path / "other", model, 60)


def test_clip_with_openai_s_words(tmp_path: Path) -> None:
    model = clip(words=49408)
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    convert(tmp_path / "clip.safetensors", tmp_path / "out", activation="gelu")
    same_features(tmp_path / "out", model, 49408)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["text_config"]["eos_token_id"] == 49407


def custom_text(state: State) -> State:
    text = ("transformer.", "token_embedding", "positional_embedding", "ln_final", "text_projection")
    return {f"text.{k}" if k.startswith(text) else k: v for k, v in state.items()}


def openai(state: State) -> State:
    sizes = {"input_resolution": 24, "context_length": 9, "vocab_size": 60}
    return state | {name: torch.tensor(size) for name, size in sizes.items()}


def older(state: State) -> State:
    return state | {"attn_mask": torch.full((9, 9), -math.inf).triu_(1)}


@pytest.mark.parametrize("layout", [wrapped, custom_text, openai, older], ids=lambda f: f.__name__)
@pytest.mark.parametrize("legacy", [False, True])
def test_layouts_of_clip(tmp_path: Path, layout: Callable[[State], Any], legacy: bool) -> None:
    model = clip()
    torch.save(layout(model.state_dict()), tmp_path / "clip.pt", _use_new_zipfile_serialization=not legacy)
    done = convert(tmp_path / "clip.pt", tmp_path / "out", activation="gelu")
    same_features(tmp_path / "out", model, 60)
    assert ("epoch, name, optimizer" in " ".join(done.notes)) == (layout is wrapped)


def test_half_precision_is_said_and_exact(tmp_path: Path) -> None:
    model = clip().half()
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    done = convert(tmp_path / "clip.safetensors", tmp_path / "out", activation="gelu")
    same_features(tmp_path / "out", model.float(), 60)
    assert "float16 are written as float32" in " ".join(done.notes)
    assert {v.dtype for v in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_a_folder_of_open_clip_becomes_an_encoder(tmp_path: Path, beside: bool, mode: str) -> None:
    """Pixels, tokens and features are those of the source."""
    import io

    from PIL import Image

    model = clip(Quick)
    source = open_clip_folder(tmp_path / "in", model, quick_gelu=True, preprocess_cfg__resize_mode=mode)
    words_of_clip(source if beside else tmp_path / "words")
    out = tmp_path / "out"
    done = convert(source, out, tokenizer=None if beside else tmp_path / "words")
    assert done.missing is None
    same_features(out, model, 60)

    small = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((24, 24) if mode == "shortest" else (48, 24), Image.Resampling.BICUBIC)
    raw = io.BytesIO()
    picture.save(raw, "PNG")
    expected = torch.from_numpy(np.array(picture.resize((24, 24), Image.Resampling.BICUBIC))).permute(2, 0, 1) / 255
    expected = (expected - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    image = make_encoder("image", FieldConfig(encoder=str(out)), 0, torch.float32)
    text = make_encoder("text", FieldConfig(encoder=str(out)), 0, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(image.encode([[raw.getvalue()]]), model.visual(expected[None]), rtol=1e-3, atol=1e-3)
        given = torch.tensor([[58, 7, 3, 59, 0, 0, 0, 0, 0]])
        torch.testing.assert_close(text.encode([["w7 w3"]]), model.texts(given), rtol=1e-4, atol=1e-4)


def test_activation_is_said_by_config_or_name(tmp_path: Path) -> None:
    model = clip(Quick)
    save_file(model.state_dict(), tmp_path / "ViT-B-32-quickgelu.safetensors")
    convert(tmp_path / "ViT-B-32-quickgelu.safetensors", tmp_path / "out")
    same_features(tmp_path / "out", model, 60)
    named = wrapped(model.state_dict()) | {"name": "2024-model_ViT-B-32-quickgelu-lr_1e-3"}
    torch.save(named, tmp_path / "epoch_3.pt")
    convert(tmp_path / "epoch_3.pt", tmp_path / "named")
    same_features(tmp_path / "named", model, 60)
    plain = clip()
    done = convert(open_clip_folder(tmp_path / "plain", plain), tmp_path / "gelu")
    same_features(tmp_path / "gelu", plain, 60)
    assert any("gelu, as" in note for note in done.notes)
    done = convert(tmp_path / "plain" / "open_clip_model.safetensors", tmp_path / "file")  # with the config beside it
    same_features(tmp_path / "file", plain, 60)


# ------------------------------------------------------------------------------------------------------------ refusals
def refused(source: Path, match: str, **options: Any) -> None:
    out = options.pop("out", source.parent / "refused")
    with pytest.raises(UserError, match=match) as caught:
        convert(source, out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists() or out.name != "refused"
    assert not list(source.parent.glob(".*"))


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda s: s.pop("visual.ln_pre.bias"), r"1 missing \(visual.ln_pre.bias\)"),
        (lambda s: s.pop("visual.proj"), r"1 missing \(visual.proj\)"),
        (lambda s: s.pop("token_embedding.weight"), "lacks token_embedding.weight"),
        (lambda s: s.update({"logit_bias": torch.zeros(())}), r"1 no part of it \(logit_bias\)"),
        (lambda s: s.update({"visual.transformer.resblocks.1.ls_1.gamma": torch.ones(128)}), "ls_1.gamma"),
        (lambda s: s.update({"visual.ln_post.bias": torch.ones(3)}), r"visual.ln_post.bias \[3\] in place of \[128\]"),
        (lambda s: s.update({"visual.positional_embedding": torch.ones(9, 128)}), "8 patches make no square"),
        (lambda s: s.update({"input_resolution": torch.tensor(32)}), "another input_resolution"),
        (lambda s: s.update({"attn_mask": torch.zeros(9, 9)}), "attn_mask of its own"),
        (lambda s: s.update({"text.ln_final.bias": torch.zeros(64)}), "both text.ln_final.bias and ln_final.bias"),
        (lambda s: s.update({"logit_scale": torch.tensor(3)}), "logit_scale is torch.int64"),
        (lambda s: s.update({"visual.trunk.x": torch.zeros(1)}), "timm"),
        (lambda s: s.update({"visual.layer1.0.conv1.weight": torch.zeros(1)}), "ResNet"),
        (lambda s: s.update({"text.transformer.embeddings.x": torch.zeros(1)}), "text tower is of another library"),
        (lambda s: s.update({"text_decoder.x": torch.zeros(1)}), "CoCa"),
        (lambda s: s.update({"text_model.x": torch.zeros(1)}), "transformers already"),
        (lambda s: s.update({"beit3.encoder.x": torch.zeros(1)}), "BEiT-3"),
        (lambda s: [s.pop(key) for key in list(s) if key.startswith("visual.")], "neither CLIP nor VLMo"),
    ],
)
def test_weights_that_are_not_understood(tmp_path: Path, change: Callable[[State], Any], match: str) -> None:
    state = dict(clip().state_dict())
    change(state)
    save_file(state, tmp_path / "clip.safetensors")
    refused(tmp_path / "clip.safetensors", match, activation="gelu")


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"vision_cfg__width": 64}, "vision_cfg.width=64, and the weights say 128"),
        ({"vision_cfg__image_size": 32}, "vision_cfg.image_size=32, and the weights say 24"),
        ({"text_cfg__layers": 12}, "text_cfg.layers=12, and the weights say 2"),
        ({"embed_dim": 512}, "embed_dim=512, and the weights say 40"),
        ({"vision_cfg__head_width": "64"}, "head_width='64': a whole number"),
        ({"preprocess_cfg__mean": [0.5]}, "three numbers are expected"),
        ({"preprocess_cfg__std": None}, "three numbers are expected"),
        ({"vision_cfg": None}, "vision_cfg holds settings by name, found a NoneType"),
        ({"text_cfg__heads": 5}, "5 heads do not divide the width 64"),
        ({"vision_cfg__timm_model_name": "vit"}, "timm_model_name=vit"),
        ({"vision_cfg__attentional_pool": True}, "attentional_pool=True"),
        ({"text_cfg__no_causal_mask": True}, "no_causal_mask=True"),
        ({"text_cfg__hf_tokenizer_name": "x/y"}, "hf_tokenizer_name=x/y"),
        ({"text_cfg__pool_type": "last"}, "pool_type=last"),
        ({"init_logit_bias": -10}, "init_logit_bias=-10"),
        ({"multimodal_cfg": {}}, "model_cfg.multimodal_cfg={} is not known"),
        ({"vision_cfg__never_heard_of": 1}, "vision_cfg.never_heard_of=1 is not known"),
        ({"preprocess_cfg__resize_mode": "longest"}, "resize_mode=longest"),
        ({"preprocess_cfg__interpolation": "lanczos"}, "interpolation=lanczos"),
        ({"preprocess_cfg__size": 32}, "preprocess_cfg.size=32"),
    ],
)
def test_configs_that_are_not_understood(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    source = open_clip_folder(tmp_path / "in", clip(), **changes)
    refused(source, match)


def test_heads_that_a_config_says(tmp_path: Path) -> None:
    """The width of a head, where it is not the usual one: other features than with the usual one."""
    torch.manual_seed(1)
    model = clip()
    for layer in model.visual.transformer.resblocks:
        layer.attn.num_heads, layer.attn.head_dim = 4, 32
    convert(open_clip_folder(tmp_path / "in", model, vision_cfg__head_width=32), tmp_path / "out")
    same_features(tmp_path / "out", model, 60)


@pytest.mark.parametrize(
    "image, text, config, expected",
    [
        (128, 64, None, (2, 1)),
        (1280, 1280, None, (16, 20)),  # ViT-H for pictures, bigG's width for texts
        (1280, 64, {"text_cfg": {"heads": 1}}, (20, 1)),  # what open_clip would make of it
        (128, 64, {"vision_cfg": {"head_width": 32}}, (4, 8)),
    ],
)
def test_heads_by_widths(
    tmp_path: Path, image: int, text: int, config: dict[str, Any] | None, expected: tuple[int, int]
) -> None:
    tensors = {}
    for key, value in clip().state_dict().items():
        width = image if key.startswith("visual.") else text
        old = 128 if key.startswith("visual.") else 64
        scale = {old: width, 3 * old: 3 * width}
        keeps = key.endswith(("text_projection", "visual.proj"))
        shape = [width if keeps and place == 0 else scale.get(n, n) for place, n in enumerate(value.shape)]
        tensors[key] = torch.zeros(shape)
    save_file(tensors, tmp_path / "clip.safetensors")
    if config is not None:
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    done = convert(tmp_path / "clip.safetensors", tmp_path / "out", activation=None if config else "gelu")
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    assert tuple(about[f"{kind}_config"]["num_attention_heads"] for kind in ("vision", "text")) == expected
    assert any("16 heads" in note for note in done.notes) == (expected[0] == 16)


def test_widths_that_say_no_heads(tmp_path: Path) -> None:
    state = dict(clip().state_dict())
    state["visual.conv1.weight"] = torch.zeros(96, 3, 8, 8)
    save_file(state, tmp_path / "clip.safetensors")
    refused(tmp_path / "clip.safetensors", "96 is no multiple of 64.*open_clip_config.json", activation="gelu")


def test_activations_that_are_not_known(tmp_path: Path) -> None:
    model = clip()
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    refused(tmp_path / "clip.safetensors", "give --activation quick_gelu .* or --activation gelu")
    refused(tmp_path / "clip.safetensors", "'relu' is unknown. Known: quick_gelu, gelu", activation="relu")
    refused(tmp_path / "clip.safetensors", "--heads 2.*means nothing", activation="gelu", heads=2)
    folder = open_clip_folder(tmp_path / "in", model, quick_gelu=True)
    refused(folder, "--activation gelu: .*says quick_gelu", activation="gelu")
    named = open_clip_folder(tmp_path / "x-quickgelu", model)
    refused(named, "does not ask for quick_gelu, and 'x-quickgelu' is named after it")


class Anything:
    """What no file of weights may hold."""


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, text, broken, cut = (tmp_path / name for name in ("no.pt", "a.txt", "broken.pt", "cut.safetensors"))
    refused(missing, "does not exist")
    text.write_text("x")
    refused(text, r"\.safetensors and \.pt, \.pth, \.bin, not from '\.txt'")
    broken.write_bytes(b"no weights at all")
    refused(broken, "not whole, or holds more than weights")
    save_file(clip().state_dict(), cut)
    cut.write_bytes(cut.read_bytes()[:1000])
    refused(cut, "not whole")
    torch.save(Anything(), tmp_path / "object.pt")
    refused(tmp_path / "object.pt", "nothing in it is executed")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "no weights by name, but a list")
    torch.save({"state_dict": {}}, tmp_path / "empty.pt")
    refused(tmp_path / "empty.pt", "but nothing")
    torch.save(clip().state_dict() | {"steps": 4}, tmp_path / "steps.pt")
    refused(tmp_path / "steps.pt", r"1 others \(steps\)")
    with zipfile.ZipFile(tmp_path / "ViT-B-32.pt", "w") as archive:
        archive.writestr("ViT-B-32/constants.pkl", b"")
        archive.writestr("ViT-B-32/code/__torch__.py", "raise SystemExit")
    refused(tmp_path / "ViT-B-32.pt", "TorchScript archive.*not executed.*openai/clip-vit-base-patch32")


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    refused(folder, "no open_clip_config.json")
    (folder / "config.json").write_text("{}")
    refused(folder, "use it as an encoder")
    (folder / "open_clip_config.json").write_text("{")
    save_file(clip().state_dict(), folder / "a.safetensors")
    refused(folder, "not valid JSON")
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    refused(folder, "a.safetensors, b.safetensors; name the one")


def test_places_that_are_taken(tmp_path: Path) -> None:
    model = clip()
    source = open_clip_folder(tmp_path / "in", model)
    out = tmp_path / "out"
    convert(source, out)
    before = (out / "model.safetensors").stat().st_ino
    refused(source, "exists: .*--overwrite", out=out)
    assert (out / "model.safetensors").stat().st_ino == before
    (out / "mine.txt").write_text("left from before")
    convert(source, out, overwrite=True)
    assert not (out / "mine.txt").exists()
    same_features(out, model, 60)
    other = tmp_path / "other"
    other.mkdir()
    convert(source, other)  # empty
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "mine.txt").write_text("x")
    refused(source, "not made by rawrec convert", out=strange, overwrite=True)
    refused(source, "holds .* which is read", out=source, overwrite=True)
    (tmp_path / "file").write_text("x")
    refused(source, "not made by rawrec convert", out=tmp_path / "file", overwrite=True)


def test_a_conversion_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rawrec.content.convert import writing

    model = clip()
    source = open_clip_folder(tmp_path / "in", model)
    convert(source, tmp_path / "out")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_tensors", full)
    for name in ("out", "new"):
        with pytest.raises(OSError, match="No space"):
            convert(source, tmp_path / name, overwrite=True)
    same_features(tmp_path / "out", model, 60)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    monkeypatch.undo()
    before = (tmp_path / "out" / "model.safetensors").stat().st_ino
    monkeypatch.setattr(folders, "_exchanger", lambda: None)
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial") and not target.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output"):
        convert(source, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "model.safetensors").stat().st_ino == before
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_tokenizers_of_other_models(tmp_path: Path) -> None:
    source = open_clip_folder(tmp_path / "in", clip())
    words_of_clip(tmp_path / "words", 50)
    refused(source, "ids for 50 words, the weights for 60", tokenizer=tmp_path / "words")
    refused(source, "is no folder", tokenizer=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refused(source, "neither tokenizer.json nor vocab.json and merges.txt", tokenizer=tmp_path / "empty")
    (source / "vocab.json").write_text('{"a": 59}')
    done = convert(source, tmp_path / "half")
    assert done.missing is not None and not (tmp_path / "half" / "vocab.json").exists()
    (source / "merges.txt").write_text("a b")
    assert convert(source, tmp_path / "whole").missing is None
    assert (tmp_path / "whole" / "merges.txt").read_text() == "a b"
    (source / "vocab.json").write_text("[1]")
    refused(source, "no list of words with their ids")


# ---------------------------------------------------------------------------------------------------------------- VLMo
def published(name: str) -> State:
    """The authors' weights of a fixture, by their names."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {k.removeprefix("param/"): torch.from_numpy(arrays[k]) for k in arrays if k.startswith("param/")}


@pytest.mark.parametrize("name, options", [("vlmo", {"image_size": 32}), ("vlmo-abs", {"heads": 4})])
@pytest.mark.parametrize("wrapper", ["state_dict", "module", "model", None])
def test_vlmo_of_a_file(tmp_path: Path, name: str, options: dict[str, int], wrapper: str | None) -> None:
    """The weights of the reference, as it would save them, make what the reference made."""
    state: Any = published(name)
    if wrapper:
        state = {wrapper: {f"module.{k}": v for k, v in state.items()}, "global_step": 7}
    torch.save(state, tmp_path / "vlmo.pt")
    done = convert(tmp_path / "vlmo.pt", tmp_path / "out", **options)
    assert done.family == "vlmo" and done.missing is not None and "vocab.txt" in done.missing
    model = load_vlmo(tmp_path / "out")
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays, torch.no_grad():
        given = {k: torch.from_numpy(arrays[f"input/{k}"]) for k in ("pixel_values", "token_ids", "attention_mask")}
        image, text, mask = given["pixel_values"], given["token_ids"], given["attention_mask"].bool()
        both = model(image, text, mask)
        for ours, expected in (
            (model(image).states, "out/image/tokens"),
            (model.itc_vl(model(ids=text, mask=mask)), "out/text/itc_vl_embedding"),
            (model.pooled(both.states), "out/vl/pooled"),
        ):
            np.testing.assert_allclose(ours.numpy(), arrays[expected], 1e-5, 1e-5)
        hidden = model(image, torch.from_numpy(arrays["input/token_ids_mlm"]), mask)
        np.testing.assert_allclose(model.mlm_logits(hidden).numpy(), arrays["out/mlm_logits"], 1e-5, 1e-5)


@pytest.mark.parametrize(
    "changes, options",
    [
        ({}, {}),  # the index beside the weights says how large pictures are
        ({"vl_layer": 3}, {}),
        ({"image_positions": True}, {}),
        ({"relative_bias": False, "image_positions": True, "layer_scale": None, "reach": 196}, {"heads": 3}),
        ({"width": 48, "heads": 4, "depth": 2, "vl_layer": 1, "max_text": 5}, {}),
    ],
)
def test_vlmo_is_the_same_after_conversion(tmp_path: Path, changes: dict[str, Any], options: dict[str, int]) -> None:
    model = small_vlmo(**changes)
    torch.save({"state_dict": as_published(model)}, tmp_path / "vlmo.pt")
    (tmp_path / "vocab.txt").write_text("".join(f"w\x85{k}\n" for k in range(30)), encoding="utf-8")
    done = convert(tmp_path / "vlmo.pt", tmp_path / "out", **options)
    assert done.missing is None and (tmp_path / "out" / "vocab.txt").is_file()
    found = load_vlmo(tmp_path / "out")
    assert found.cfg == model.cfg
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.state_dict().items())


def test_published_room_for_words_says_the_picture_size(tmp_path: Path) -> None:
    model = small_vlmo(reach=196)
    state = {k: v for k, v in as_published(model).items() if "position_index" not in k}
    torch.save(state, tmp_path / "vlmo.pt")
    done = convert(tmp_path / "vlmo.pt", tmp_path / "out")
    assert load_vlmo(tmp_path / "out").cfg == model.cfg
    assert any("12 pixels" in note for note in done.notes)


def test_words_of_vlmo_are_read_by_transformers(tmp_path: Path) -> None:
    from rawrec.content.encoders.loading import load_tokenizer

    torch.save(as_published(small_vlmo()), tmp_path / "vlmo.pt")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "shoe", *(f"w{k}" for k in range(23))]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    convert(tmp_path / "vlmo.pt", tmp_path / "out")
    tokenizer, _ = load_tokenizer(tmp_path / "out", "out")
    assert tokenizer(["Red shoe"], 7) == ([[2, 5, 6, 3]], [False])


@pytest.mark.parametrize(
    "change, options, match",
    [
        (lambda s: s.pop("pooler.dense.bias"), {}, r"1 missing \(pooler.dense.bias\)"),
        (lambda s: s.pop("transformer.blocks.1.gamma_1"), {}, r"1 missing \(transformer.blocks.1.gamma_1\)"),
        (lambda s: s.pop("transformer.blocks.2.mlp_vl.fc1.bias"), {}, "transformer.blocks.2.mlp_vl.fc1.bias"),
        (lambda s: s.pop("text_embeddings.word_embeddings.weight"), {}, "lacks text_embeddings.word_embeddings"),
        (lambda s: s.update({"vqa_classifier.0.weight": torch.zeros(2)}), {}, r"no part of it \(vqa_classifier"),
        (lambda s: s.update({"itm_score.fc.bias": torch.zeros(3)}), {}, r"itm_score.fc.bias \[3\] in place of \[2\]"),
        (lambda s: s["relative_position_index"].add_(1), {}, "numbers positions in another way"),
        (lambda s: s["text_embeddings.position_ids"].add_(1), {}, "not 0, 1, 2"),
        (lambda s: s.update({BIAS_TABLE: torch.zeros(48, 8)}), {}, "no equal share for each of 3 layers"),
        (lambda s: s.pop("relative_position_index"), {}, "give --image-size N"),
        (lambda s: s.pop("relative_position_index"), {"image_size": 13}, "--image-size 13 is no multiple of 4"),
        (lambda s: s.pop("relative_position_index"), {"image_size": 40}, "48 rows does not fit pictures of 40 pixels"),
        (lambda s: None, {"image_size": 16}, "--image-size 16: .* is of 12 pixels"),
        (lambda s: None, {"heads": 4}, "--heads 4: .* has 3"),
        (lambda s: None, {"activation": "gelu"}, "--activation gelu.*means nothing"),
        (
            lambda s: (s.pop(BIAS_TABLE), s.update({"transformer.pos_embed": torch.zeros(1, 10, 24)})),
            {},
            "--heads N",
        ),
        (lambda s: s.update({"beit3.encoder.x": torch.zeros(1)}), {}, "BEiT-3"),
    ],
)
def test_vlmo_that_is_not_understood(
    tmp_path: Path, change: Callable[[State], Any], options: dict[str, Any], match: str
) -> None:
    state = as_published(small_vlmo())
    change(state)
    torch.save(state, tmp_path / "vlmo.pt")
    refused(tmp_path / "vlmo.pt", match, **options)


# ----------------------------------------------------------------------------------------------------- the command line
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = clip()
    save_file(model.state_dict(), tmp_path / "clip.safetensors")

    def rawrec(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rawrec", "convert", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    code, out, err = rawrec(tmp_path / "clip.safetensors", "--out", tmp_path / "out")
    assert code == 2 and not out and len(err.splitlines()) == 1 and "--activation quick_gelu" in err
    words = (tmp_path / "clip.safetensors", "--out", tmp_path / "out", "--activation", "gelu")
    code, out, _ = rawrec(*words)
    assert code == 0 and "CLIP ViT-8 of 24 pixels" in out and "still to be brought: tokenizer.json" in out
    code, out, _ = rawrec(*words, "--overwrite", "--json")
    assert code == 0 and json.loads(out)["family"] == "clip"
    assert rawrec(*words)[0] == 2
    same_features(tmp_path / "out", model, 60)
