"""The folder of a tuned encoder: safetensors and JSON; config.json, which makes it an encoder, is written last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rawrec.content import lora
from rawrec.files import copy, replacing, write_tensors, write_text
from rawrec.folders import own_folder

WORDS = ("*.json", "*.txt", "*.model", "*.jinja", "*/config.json")
"""Files beside the weights that an encoder's folder may have: settings, tokenizer, image processor, pooling."""
OURS = ("run.json", "metrics.json", "environment.json", "conversion.json", "weights_elsewhere.json")
CONFIG = "config.json"


def weights(module: nn.Module) -> dict[str, Tensor]:
    """All weights of a network by name, adapters of LoRA added to what they adapt."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in lora.merged_state(module).items()}


def write(
    folder: Path, tensors: Mapping[str, Tensor], source: Path | None = None, config: Mapping[str, Any] | None = None
) -> None:
    """source: a folder whose files beside the weights are copied; config: in the place of its config.json."""
    (folder / CONFIG).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if source is not None:
        copy_words(source, folder, but=(CONFIG,))
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(folder / "model.safetensors") as partial:
        write_tensors(plain, partial, {"format": "pt"})
    if config is None and source is not None:
        config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    assert config is not None
    write_json(folder / CONFIG, config)


def copy_words(source: Path, folder: Path, but: tuple[str, ...] = ()) -> None:
    """Copy what stands beside the weights in the folder of an encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in WORDS:
        for file in sorted(source.glob(pattern)):
            place = file.relative_to(source)
            index = file.name.endswith(".index.json")
            if file.is_file() and not index and place.name not in OURS and str(place) not in but:
                if len(place.parts) > 1:
                    own_folder((folder / place).parent)
                with replacing(folder / place) as partial:
                    copy(file, partial)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
