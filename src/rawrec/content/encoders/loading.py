"""Folders and hub repositories of the transformers library: their files, weights and tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rawrec.arguments import shown
from rawrec.content.encoders.tokens import Cleaned, FastTokenizer, SlowTokenizer
from rawrec.data.texts import HashTokenizer, Tokenizer
from rawrec.errors import UserError
from rawrec.reading import RECORD, panicked, read_text
from rawrec.shown import listed

ELSEWHERE = "weights_elsewhere.json"
"""In a folder without weights: they are put in by whoever reads it (`pair.py`)."""
HASHED = "hash_tokenizer.json"
"""In the place of a tokenizer's files: words by checksum, of networks that were random once."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
"""Weights in forms that are not read here."""
LAYERS, LARGEST = 1000, 10**7
"""The most layers, and the largest other number, that a network of a folder may have."""
SPARE = 1 << 22  # weights that a network may have beside those that are kept
NAMED = 3  # of the keys that do not fit


def find_folder(name: str, encoder: str | None = None) -> Path:
    """The local folder with the model's files, downloaded if `name` is of the hub and not there yet. encoder: what the
    user called it, if not so."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except Exception as error:  # no network, no such repository, no permission: all have one way out
        from huggingface_hub import constants

        offline = "HF_HUB_OFFLINE is set, and it was not downloaded before"
        why = offline if constants.HF_HUB_OFFLINE else first_line(error)
        wanted = f"{encoder}@FOLDER" if encoder else "FOLDER"
        raise UserError(
            f"encoder {encoder or name}: there is no such folder, and the hub did not give {name if encoder else 'it'} "
            f"({why}). Check the name; without a network, run `hf download {name} --local-dir FOLDER` where there is "
            f"one, bring the local folder here, and use {wanted}"
        ) from None


def load_model(folder: Path, name: str) -> nn.Module:
    """The network in `folder`, float32, from safetensors; UserError where weights of a part in use are missing."""
    unfinished(folder)
    if not (folder / ELSEWHERE).is_file():
        _needs_safetensors(folder, name)
    from transformers.models.auto.configuration_auto import AutoConfig
    from transformers.models.auto.modeling_auto import AutoModel

    try:
        _check_sizes(folder, name)
        if (folder / ELSEWHERE).is_file():
            return AutoModel.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
        with quiet():
            model, info = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
            )
    except (UserError, MemoryError):
        raise
    except Exception as error:  # transformers and what is below it raise whatever a strange file leads to
        raise UserError(
            f"encoder {name}: not a model that can be loaded: {first_line(error)}. "
            "The folder needs config.json and model.safetensors of a model that transformers knows."
        ) from None
    _check_loaded(info, name)
    return model


def _check_sizes(folder: Path, name: str) -> None:
    """UserError where the network of config.json has far more weights than the folder holds: it would be made of
    random numbers first, which takes memory and time without a bound, and then refused."""
    from transformers.models.auto.configuration_auto import AutoConfig
    from transformers.models.auto.modeling_auto import AutoModel

    for key, value in _numbers(settings(folder / "config.json")):
        most = LAYERS if "layer" in key or "depth" in key else LARGEST
        if "token_id" not in key and abs(value) > most:
            raise UserError(
                f"encoder {name}: {key} of its config.json is {shown(value)}, and at most {most:,} are read"
            )
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        bare = AutoModel.from_config(config)
    needed = sum(value.numel() for value in bare.parameters())
    held = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not (folder / ELSEWHERE).is_file() and needed > 8 * held + SPARE:  # a weight takes a byte or more, if not shared
        raise UserError(
            f"encoder {name}: the network of its config.json has {needed:,} weights, and its safetensors hold "
            f"{held:,} bytes; use config.json and model.safetensors of one model"
        )


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers in settings, each with the name it stands under."""
    inner = (
        value.items() if isinstance(value, dict) else ((key, one) for one in value) if isinstance(value, list) else ()
    )
    for name, one in inner:
        if isinstance(one, int) and not isinstance(one, bool):
            yield str(name), one
        else:
            yield from _numbers(one, str(name))


@contextmanager
def strange(name: str) -> Iterator[None]:
    """Inside, whatever goes wrong with the folder of the encoder `name`, which somebody else may have made, is told."""
    try:
        yield
    except (UserError, MemoryError, ImportError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not panicked(error):
            raise
        raise UserError(
            f"encoder {name}: its folder cannot be used ({type(error).__name__}: {first_line(error)}). Copy all its "
            "files anew from where they come from"
        ) from error


def _needs_safetensors(folder: Path, name: str) -> None:
    """UserError for a folder with weights in other forms alone, which are not read: they may hold code."""
    if not (folder / "config.json").is_file() or any(folder.glob("*.safetensors")):
        return
    others = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    if others:
        raise UserError(
            f"encoder {name}: its weights are in {others[0]}, and weights are read from safetensors alone, which hold "
            "no code. Take a revision of the model that has model.safetensors; or, if you trust the file, write it "
            "with the transformers library: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW)"
        )


def _check_loaded(info: Mapping[str, Any], name: str) -> None:
    """UserError that names weights of another shape, and those that the network has and the file lacks.

    info: as of transformers. The file may hold more: a head that was trained for something else is left out.
    """
    shapes = sorted(info["mismatched_keys"])
    missing = sorted(key for key in info["missing_keys"] if "pooler.dense" not in key)  # which is thrown away
    missing = [key for key in missing if key not in {key for key, *_ in shapes}]
    said = []
    if shapes:
        named = (f"{key} {[*found]} in place of {[*wanted]}" for key, found, wanted in shapes[:NAMED])
        said.append(f"{len(shapes)} of another shape ({listed(named)})")
    if missing:
        said.append(f"{len(missing)} missing ({listed(missing[:NAMED])})")
    more = sorted(info["unexpected_keys"])
    if said and more:
        said.append(f"{len(more)} no part of it ({listed(more[:NAMED])})")
    if said:
        raise UserError(
            f"encoder {name}: its weights do not fit the network of its config.json: {'; '.join(said)}; use "
            "config.json and model.safetensors of one model"
        )


def unfinished(folder: Path) -> None:
    """UserError for the folder of a fine-tuning that has not come to its end."""
    if (folder / "run.json").is_file() and not (folder / "config.json").is_file():
        raise UserError(f"encoder {folder}: no encoder yet: `rawrec resume {folder}` goes on with its training")


PROBES = ["a probe of words", "\U0001f9ea\ufffd"]
"""Texts that every tokenizer must be able to read, of words that it may not know."""


def load_tokenizer(folder: Path, name: str) -> tuple[Tokenizer, Any]:
    """The tokenizer in `folder` as ours, and as the object of transformers, for what it knows of itself."""
    if hashed := settings(folder / HASHED):
        return HashTokenizer(int(hashed["vocabulary"])), None
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(
            f"encoder {name}: its tokenizer cannot be loaded: {first_line(error)}; copy all its files from "
            "where its weights come from"
        ) from None
    _needs_words(tokenizer, folder, name)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    ours = SlowTokenizer(tokenizer) if backend is None else FastTokenizer(backend)
    try:
        ours(PROBES, 8)
    except UserError as error:
        raise UserError(f"encoder {name}: {error}") from None
    lower = settings(folder / "sentence_bert_config.json").get("do_lower_case")  # of the sentence-transformers library
    return (Cleaned(ours, lower_case) if lower else ours), tokenizer


def _needs_words(tokenizer: Any, folder: Path, name: str) -> None:
    """UserError for a tokenizer without its files, of which transformers makes one that knows no words."""
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        files = {key: file for key, file in tokenizer.vocab_files_names.items() if not key.startswith("added")}
        wanted = " and ".join(file for key, file in files.items() if key != "tokenizer_file")
        raise UserError(
            f"encoder {name}: its tokenizer's files are not in {folder}: copy tokenizer.json"
            f"{f', or {wanted},' if wanted else ''} from where its weights come from"
        )


def lower_case(text: str) -> str:
    return text.lower()


def checked_length(wanted: int | None, usual: int, limit: int, name: str) -> int:
    """How many tokens are kept: what the user wants, else what is usual; UserError for more than the encoder reads."""
    if wanted is not None and wanted > limit:
        raise UserError(f"max_length={wanted}: the encoder {name} reads at most {limit} tokens; use {limit} or less")
    return min(usual, limit) if wanted is None else wanted


def settings(path: Path) -> dict[str, Any]:
    """What a JSON file holds by name; nothing if there is no such file."""
    found = read_json(path) or {}
    if not isinstance(found, dict):
        raise UserError(f"{path}: settings by name are expected, found a {type(found).__name__}")
    return found


def read_json(path: Path) -> Any:
    """What a JSON file of at most 64 MiB holds; None if there is no such file. Folders of the hub are made of links."""
    try:
        return json.loads(read_text(path, RECORD, links=True)) if path.is_file() else None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {first_line(error)}") from None


def check_weights(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], where: str) -> None:
    """UserError that names what is missing, what is no part of the network, and what has another shape."""
    lists = {
        "missing": [name for name in expected if name not in state],
        "no part of it": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {list(state[name].shape)} in place of {list(shape)}"
            for name, shape in expected.items()
            if name in state and state[name].shape != shape
        ],
    }
    said = [f"{len(names)} {what} ({listed(names[:3])})" for what, names in lists.items() if names]
    if said:
        raise UserError(f"{where}: its weights do not fit the network: {'; '.join(said)}")


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Neither progress bars nor advice from transformers."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
