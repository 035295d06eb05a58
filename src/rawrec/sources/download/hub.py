"""Datasets by name on the Hugging Face hub, or in a local folder of the same layout -> files on this machine.

The library `datasets` finds out what belongs to which config and split. It reads no data here: the files go through
the readers of this package. Scripts of a dataset are not executed.
"""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from rawrec.arguments import shown
from rawrec.data.disk import first_line
from rawrec.errors import UserError
from rawrec.extras import install, need
from rawrec.shown import listed

LEAST_VERSION = 5
"""Of `datasets`; versions below 4 executed scripts."""
SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
PLAIN_NAME = re.compile(r"\w[\w.+-]*")
CARDS = ("README.md", ".huggingface.yaml")
"""What says in a dataset which files belong to which config and split."""


@dataclass
class Found:
    """What a name led to. folder: None for the hub. files: split -> its files, local. revision: of the hub.
    features: column -> the library's type, as the dataset's card states it."""

    folder: Path | None
    files: dict[str, list[Path]]
    features: dict[str, Any]
    revision: str | None = None


def loaded() -> Any:
    """The module `datasets`. UserError where it is not installed or too old."""
    module = need("datasets", "this source needs the library datasets")
    if int(module.__version__.split(".")[0]) < LEAST_VERSION:
        raise UserError(
            f"datasets {module.__version__} is too old, old versions execute scripts: {install('datasets')}"
        )
    return module


def find(text: str) -> Found:
    """The files of `NAME[:config][@split]`, all splits where none is named; those of the hub are downloaded.

    NAME: a folder (saved by `save_to_disk`, or of Parquet, Arrow, CSV or JSON lines files), else a dataset of the hub.
    Raises UserError for what does not exist, cannot be reached or read, and for unknown configs and splits, with those
    that there are.
    """
    loaded()
    name, config, split = _parsed(text)
    folder = Path(name)
    if any((folder / file).is_file() for file in ("dataset_dict.json", "state.json")):
        if config is not None:
            raise UserError(f"{text}: {folder} was saved by save_to_disk and has no configs; leave out :{config}")
        splits = _saved(folder)
        return Found(folder, {key: list(_saved_files(path)) for key, path in _chosen(splits, split, name)}, {})
    if folder.is_dir():
        return _local(folder, config, split)
    if folder.exists():
        raise UserError(f"{name} is a file: name the folder that it is in, or use rawrec import table")
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"folder {name} does not exist, and a dataset of the hub is called NAME or OWNER/NAME")
    return _remote(name, config, split)


def _parsed(text: str) -> tuple[str, str | None, str | None]:
    if Path(text).is_dir():
        return text, None, None
    name, _, split = text.rpartition("@") if "@" in text else (text, "", "")
    if Path(name).is_dir():
        return name, None, split or None
    name, _, config = name.rpartition(":") if ":" in name else (name, "", "")
    return name, config or None, split or None


def _chosen(splits: dict[str, Any], split: str | None, name: str) -> Iterator[tuple[str, Any]]:
    if split is not None and split not in splits:
        raise UserError(f"{name} has no split {shown(split)}. It has: {listed(splits, split)}")
    yield from ((key, value) for key, value in splits.items() if split in (None, key))


# --------------------------------------------------------------------------------------------------------------- folder
def _saved(folder: Path) -> dict[str, Path]:
    """Split -> its folder, of what `save_to_disk` wrote."""
    if not (folder / "dataset_dict.json").is_file():
        return {"train": folder}
    names = _json(folder / "dataset_dict.json").get("splits")
    if not isinstance(names, list) or not names or not all(_is_plain(name) for name in names):
        raise UserError(f"{folder}/dataset_dict.json names no splits: the folder is damaged")
    return {name: folder / name for name in names}


def _saved_files(folder: Path) -> Iterator[Path]:
    state = _json(folder / "state.json")
    if state.get("_indices_data_files"):
        raise UserError(f"{folder} was saved by an old version of datasets: load it and save it again")
    entries = state.get("_data_files")
    for entry in entries if isinstance(entries, list) else []:
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not _is_plain(name):
            raise UserError(f"{folder}/state.json names a file {name!r}, which is not in the folder")
        yield folder / name


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it is no JSON object")
    return value


def _is_plain(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and PLAIN_NAME.fullmatch(name) is not None


def _local(folder: Path, config: str | None, split: str | None) -> Found:
    for card in CARDS:
        if (folder / card).is_file():
            _check_card(folder / card)
    builder = _builder(str(folder.resolve()), str(folder), config)
    roots = [folder.resolve(), folder.resolve().parent.parent / "blobs"]  # the second: the hub's own cache
    files: dict[str, list[Path]] = {}
    for key, paths in _chosen(_data_files(builder, str(folder)), split, str(folder)):
        files[key] = [Path(path) for path in paths]
        for path in files[key]:
            if not any(path.resolve().is_relative_to(root) for root in roots):
                raise UserError(f"{path} leads out of the folder {folder} by a link: put the file itself there")
    return Found(folder, files, dict(builder.info.features or {}))


def _check_card(path: Path) -> None:
    """UserError if a card names data outside of its folder: files elsewhere, or addresses to read from."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".md":
        found = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
        text = found[1] if found else ""
    try:
        card = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    for name in _strings(card.get("configs") if isinstance(card, dict) else None):
        if "://" in name or "::" in name or name.startswith(("/", "~")) or ".." in Path(name).parts:
            raise UserError(f"{path} names data outside of its folder, which is not read: {name!r}")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


# ------------------------------------------------------------------------------------------------------------------ hub
def _remote(name: str, config: str | None, split: str | None) -> Found:
    hub = importlib.import_module("huggingface_hub")
    builder = _builder(f"hf://datasets/{name}", name, config)
    found = Found(None, {}, dict(builder.info.features or {}))
    for key, addresses in _chosen(_data_files(builder, name), split, name):
        found.files[key] = []
        for address in addresses:
            match = re.fullmatch(rf"hf://datasets/{re.escape(name)}@([^/]+)/(.+)", address)
            if match is None:
                raise UserError(f"{name} names data outside of itself, which is not read: {address!r}")
            found.revision = match[1]
            try:
                path = hub.hf_hub_download(name, match[2], repo_type="dataset", revision=match[1])
            except Exception as error:  # of the network, the disk, the hub: each in its own class
                raise UserError(f"{name}: {match[2]} cannot be downloaded: {first_line(error)}") from None
            found.files[key].append(Path(path))
    return found


def _data_files(builder: Any, name: str) -> dict[str, list[str]]:
    """Split -> its files; UserError if there are none or they are of a kind that is not read."""
    files = {str(key): list(map(str, paths)) for key, paths in (builder.config.data_files or {}).items()}
    for path in (path for paths in files.values() for path in paths):
        if not path.removesuffix(".gz").lower().endswith(SUFFIXES) or "::" in path:
            hint = "; rawrec import webdataset reads tar files" if path.endswith(".tar") else ""
            raise UserError(f"{name} holds files such as {Path(path).name}; read are {', '.join(SUFFIXES)}{hint}")
    if not files:
        raise UserError(f"{name} holds no data files")
    return files


def _builder(path: str, name: str, config: str | None) -> Any:
    """What `datasets` makes of a dataset; nothing but its card and the list of its files is read."""
    datasets = loaded()
    with tempfile.TemporaryDirectory() as cache:
        try:
            return datasets.load_dataset_builder(path, config, cache_dir=cache)
        except ConnectionError:
            raise UserError(
                f"{name} is no folder, and the hub cannot be reached: check the name and the network"
            ) from None
        except Exception as error:  # a strange card makes the library raise nearly everything
            raise UserError(_explained(name, config, error)) from None


def _explained(name: str, config: str | None, error: Exception) -> str:
    text = str(error)
    if "gated" in text:
        return f"{name} is gated: ask for access at https://huggingface.co/datasets/{name}, then run hf auth login"
    if "doesn't exist on the Hub" in text:
        return (
            f"{name} is no folder, and not on the hub or private: check the name, for a private one run hf auth login"
        )
    if "scripts are no longer supported" in text:
        return f"{name} is made by a script, which is not executed: look for a version in Parquet"
    if found := re.search(r"(?:Available: |available configs: )\[(.*?)\]", text):
        configs = found[1].replace("'", "")
        if config is not None:
            return f"{name} has no config {config!r}. It has: {configs}"
        return f"{name} has several configs: name one, as in {name}:{configs.split(', ')[0]}. It has: {configs}"
    return f"{name} cannot be opened: {first_line(error)}"
