"""Folders of encoders that are damaged, incomplete or made for something else: each mistake is told by name."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_two_towers import make, save

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.serving.encoding import encode

WIDTHS: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
PROJECTION = "visual_projection.weight"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("clip") / "whole", "clip")


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def rename(folder: Path) -> None:
    changed(folder, lambda state: [state.update({f"other.{key}": state.pop(key)}) for key in sorted(state)[:5]])


def widen(folder: Path) -> None:
    changed(folder, lambda state: state.update({PROJECTION: torch.zeros(16, 99)}))


def pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])


def lose_words(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename, r"5 missing \(logit_scale, text_model\S+, text_model\S+\); 5 no part of it \(other\.logit_scale, "),
        (widen, rf"do not fit .*1 of another shape \({re.escape(PROJECTION)} \[16, 99\] in place of \[16, 32\]\)"),
        (pickle, r"its weights are in pytorch_model\.bin, .*model\.safetensors; or, if you trust the file"),
        (cut, "not a model that can be loaded: .*deserializing header"),
        (lose_words, r"its tokenizer's files are not in .*copy tokenizer\.json, or vocab\.json and merges\.txt, from"),
    ],
)
def test_what_is_wrong_with_a_folder(clip: Path, tmp_path: Path, damage: Callable, message: str) -> None:
    folder = shutil.copytree(clip, tmp_path / "bad")
    damage(folder)
    with pytest.raises(UserError, match=f"encoder {re.escape(str(folder))}: .*{message}"):
        make(folder, "text")


def test_words_without_merges(tmp_path: Path) -> None:
    save(tmp_path, "clip")
    lose_words(tmp_path)
    (tmp_path / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "film</w>": 3}')
    with pytest.raises(UserError, match=r"its tokenizer cannot be loaded: .*merges.*; copy all its files"):
        make(tmp_path, "text")


def test_a_folder_of_the_other_kind(tmp_path: Path) -> None:
    vision = transformers.ViTConfig(**WIDTHS, image_size=32, patch_size=8)
    transformers.ViTModel(vision).save_pretrained(tmp_path / "vit")
    transformers.BertModel(transformers.BertConfig(**WIDTHS, vocab_size=99)).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="vit reads pictures, but the field is of kind text; choose another encoder"):
        make(tmp_path / "vit", "text")
    with pytest.raises(UserError, match="bert reads texts, but the field is of kind image; choose another encoder"):
        make(tmp_path / "bert", "image")
    with pytest.raises(UserError, match=r"tokenizer's files .*tokenizer\.json, or vocab\.txt, from"):
        make(tmp_path / "bert", "text")  # transformers makes a tokenizer without words of that


def test_a_tokenizer_without_a_token_for_unknown_words(tmp_path: Path) -> None:
    """As a file with one word changed makes it: transformers loads it, and the library gives up at the first text."""
    config = transformers.BertConfig(vocab_size=32, **WIDTHS)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    words = {word: n for n, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "a", "mug"])}
    (tmp_path / "bert" / "tokenizer.json").write_text(
        json.dumps(
            {
                "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None, "decoder": None,
                "truncation": None, "padding": None, "pre_tokenizer": {"type": "Whitespace"},
                "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
            }
        )
    )  # fmt: skip
    with pytest.raises(UserError, match=r"encoder .*bert: its tokenizer cannot read every text: .*UNK.*copy all its"):
        make(tmp_path / "bert", "text")


def test_offline_the_way_to_bring_a_model_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = r"HF_HUB_OFFLINE is set, .*`hf download owner/nothing-here --local-dir FOLDER`.*, and use FOLDER"
    with pytest.raises(UserError, match=said):
        make(Path("owner/nothing-here"), "text")


def test_numbers_that_are_not_finite_reach_no_cache(clip: Path, shop: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip, tmp_path / "bad")
    changed(folder, lambda state: state[PROJECTION].fill_(torch.nan))
    bare = shutil.ignore_patterns("cache")  # which other tests fill
    data = Dataset.open(shutil.copytree(shop, tmp_path / "shop", ignore=bare))
    with pytest.raises(UserError, match=rf"content\.image: encoder {folder} makes numbers that are not finite"):
        encode(data, encoder=str(folder), field="image")
    assert not list((data.path / "cache").glob("*.safetensors"))


def test_tokens_that_the_network_does_not_know_are_refused(clip: Path) -> None:
    """A tokenizer of another model, or one with words of its own behind the network's."""

    class Beyond:
        identity = "beyond"

        def __call__(self, texts: list[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
            return [[1, 10_000]] * len(texts), [False] * len(texts)

    encoder = make(clip, "text")
    encoder.prepare([["a word"]])
    encoder.tokenizer = Beyond()
    with pytest.raises(UserError, match=rf"encoder {clip}: its tokenizer makes the token 10000, and its network knows"):
        encoder.prepare([["a word"]])
