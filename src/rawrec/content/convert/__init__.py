"""Published weights -> a folder that an encoder is read from: files of OpenAI's CLIP and of open_clip, VLMo's files.

What a file is, and how large the network, is read off its weights. Whatever is not understood is refused by name:
weights that are left over or loaded under the wrong activation raise no error later, they are only worse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from rawrec.content.convert.clip import convert_clip
from rawrec.content.convert.reading import read
from rawrec.content.convert.vlmo import convert_vlmo
from rawrec.content.convert.writing import Converted, check_place, write
from rawrec.errors import UserError
from rawrec.shown import listed

__all__ = ["Converted", "convert"]

Family = Literal["clip", "vlmo"]
OTHERS = {
    r"beit3\.": "BEiT-3, which is not supported. CLIP and VLMo are",
    r"visual\.trunk\.": "a CLIP whose image tower is of the timm library, which is not supported. Those with "
    "open_clip's own vision transformer are",
    r"visual\.(layer1|attnpool)\.": "a CLIP with a ResNet, which is not supported. Those with a vision transformer are",
    r"(text\.)?transformer\.(embeddings|encoder|roberta|pooler)\.": "a CLIP whose text tower is of another library, "
    "which is not supported. Use the model's own folder of transformers, if there is one",
    r"text_decoder\.": "CoCa, which is not supported. CLIP and VLMo are",
    r"(text_model|vision_model)\.": "a model of transformers already: use its folder, with its config.json, as an "
    "encoder",
}
"""How keys of what is refused by name begin, and what it is then."""


def convert(
    source: str | Path,
    out: str | Path,
    *,
    activation: str | None = None,
    heads: int | None = None,
    image_size: int | None = None,
    tokenizer: str | Path | None = None,
    overwrite: bool = False,
) -> Converted:
    """Make the folder `out` of the weights in `source`, a file or a folder of open_clip.

    activation: of CLIP, `quick_gelu` or `gelu`, where neither a config nor a name says it. heads, image_size: of VLMo,
    where its weights do not say them. tokenizer: a folder with the tokenizer's files, where they are not beside the
    weights. overwrite: replaces what was converted before, nothing else.

    Of CLIP: a folder of transformers whose features are the source's. Of VLMo: a folder for `load_vlmo`. UserError for
    what cannot be read or is not understood, and where `out` is taken.
    """
    source, out = Path(source), Path(out)
    check_place(out, source, overwrite)
    given = read(source)
    family = recognise(given.tensors, given.path)
    options = {
        "clip": {"--heads": heads, "--image-size": image_size},
        "vlmo": {"--activation": activation},
    }[family]
    for option, value in options.items():
        if value is not None:
            raise UserError(f"{option} {value}: {given.path} is of {family}, to which it means nothing; leave it out")
    made = convert_clip(given, activation) if family == "clip" else convert_vlmo(given, heads, image_size)
    return write(made, given, out, None if tokenizer is None else Path(tokenizer), overwrite)


def recognise(keys: Iterable[str], path: Path) -> Family:
    """What the weights are of, by how their keys begin; UserError for what is neither CLIP nor VLMo."""
    keys = list(keys)
    for start, what in OTHERS.items():
        if any(re.match(start, key) for key in keys):
            raise UserError(f"{path} is {what}")
    if "visual.conv1.weight" in keys:
        return "clip"
    if any(re.match(r"transformer\.blocks\.\d+\.(mlp|norm2)_(text|imag)\.", key) for key in keys):
        return "vlmo"
    raise UserError(f"{path} is neither CLIP nor VLMo: its {len(keys)} weights begin with {listed(keys[:3])}")
