"""The folder that is made: written beside its place, and put there when it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from rawrec.content.convert.reading import Checkpoint
from rawrec.content.encoders.loading import read_json
from rawrec.errors import UserError
from rawrec.files import copy, write_tensors, write_text
from rawrec.folders import placing
from rawrec.shown import listed

RECORD = "conversion.json"
MORE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files of a tokenizer that it can do without."""


@dataclass(frozen=True)
class Words:
    """The tokenizer that weights belong to. either: sets of files of which one is enough. usual: settings where there
    is no file of them."""

    size: int
    either: tuple[tuple[str, ...], ...]
    where: str
    usual: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Made:
    """What a family made of a checkpoint. files: JSON by name. notes: what the user should know."""

    family: str
    what: str
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Any]
    words: Words
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Converted:
    """folder: that was written. missing: files that are still to be brought into it, with where they are from."""

    folder: Path
    family: str
    what: str
    notes: list[str]
    missing: str | None


def check_place(out: Path, source: Path, overwrite: bool) -> bool:
    """Whether a converted folder stands at `out` and may be replaced; UserError where the place is taken."""
    target = out.absolute()
    if not target.name:
        raise UserError(f"--out {out} cannot be written: name a new folder")
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise UserError(f"--out {out} holds {source}, which is read: choose another folder")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / RECORD).is_file():
        raise UserError(f"--out {out} exists and was not made by rawrec convert: choose another folder")
    if not overwrite:
        raise UserError(f"--out {out} exists: choose another folder, or replace it with --overwrite")
    return True


def write(made: Made, given: Checkpoint, out: Path, tokenizer: Path | None, overwrite: bool) -> Converted:
    """tokenizer: a folder with its files; None: they are looked for beside the weights."""
    notes = list(made.notes)
    if given.left_out:
        notes.append(f"left out what the file holds beside its weights: {listed(given.left_out)}")
    words = _tokenizer_files(made.words, given.path.parent if tokenizer is None else tokenizer, tokenizer is not None)
    missing = None
    if not words:
        names = " or ".join(" and ".join(names) for names in made.words.either)
        missing = f"{names} ({made.words.where}): put them into {out}, or convert again with --tokenizer FOLDER"
    with placing(out.absolute()) as folder:
        write_tensors(made.tensors, folder / "model.safetensors", {"format": "pt"})
        for name, value in made.files.items():
            _write_json(folder / name, value)
        for file in words:
            copy(file, folder / file.name)
        if made.words.usual is not None and not (folder / MORE[0]).exists():
            _write_json(folder / MORE[0], made.words.usual)
        done = Converted(out, made.family, made.what, notes, missing)
        record = {"source": str(given.path.absolute()), "family": made.family, "what": made.what, "notes": notes}
        _write_json(folder / RECORD, record)
        check_place(out, given.path, overwrite)  # what came there meanwhile is not replaced
    return done


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _tokenizer_files(words: Words, folder: Path, wanted: bool) -> list[Path]:
    """Of the tokenizer in `folder`, whose words must be those of the weights; none, if there is none and none is
    `wanted`."""
    if wanted and not folder.is_dir():
        raise UserError(f"--tokenizer {folder} is no folder")
    files = [folder / name for names in words.either if _all_in(folder, names) for name in names]
    if not files:
        if wanted:
            names = " nor ".join(" and ".join(names) for names in words.either)
            raise UserError(f"--tokenizer {folder} has neither {names}")
        return []
    for file in files:
        size = _size(file)
        if size is not None and size != words.size:
            raise UserError(
                f"{file} has ids for {size} words, the weights for {words.size}: it is another model's tokenizer. Give "
                "the right one with --tokenizer FOLDER"
            )
    return files + [folder / name for name in MORE if (folder / name).is_file()]


def _all_in(folder: Path, names: tuple[str, ...]) -> bool:
    return all((folder / name).is_file() for name in names)


def _size(file: Path) -> int | None:
    """How many words a file of a tokenizer has ids for; None: it has no ids."""
    if file.name == "vocab.txt":
        try:
            with file.open(encoding="utf-8") as lines:
                return sum(1 for _ in lines)
        except UnicodeDecodeError:
            raise UserError(f"{file} is no vocab.txt of a tokenizer: it is not UTF-8") from None
    if file.suffix != ".json":
        return None
    found = read_json(file)
    try:
        if file.name == "tokenizer.json":
            listed = found["model"]["vocab"]
            ids = list(listed.values()) if isinstance(listed, Mapping) else list(range(len(listed)))
            ids += [token["id"] for token in found["added_tokens"]]
        else:
            ids = list(found.values())
        return max(ids) + 1
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{file} is no {file.name} of a tokenizer: it has no list of words with their ids") from None
