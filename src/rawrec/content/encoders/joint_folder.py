"""The folder of LEMUR's transformers as a run trained them, which `rawrec export RUN --to encoder` writes.

`config.json` says what they are (`JointFolder`), `model.safetensors` holds `document.*` and, of queries that have a
transformer of their own, `query.*`; beside them stands the tokenizer. `joint:FOLDER` names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from rawrec.config.records import Count, Record, Size
from rawrec.content.encoders import loading
from rawrec.content.encoders.base import Kind
from rawrec.content.encoders.joint_network import JointConfig, JointTransformer
from rawrec.content.encoders.names import JOINT
from rawrec.content.encoders.tokens import Cleaned, FastTokenizer
from rawrec.content.encoders.weight_files import read_weights
from rawrec.data.texts import HashTokenizer, Tokenizer
from rawrec.errors import UserError
from rawrec.shown import listed

MODEL_TYPE = "rawrec_joint"
WORDS = "tokenizer.json"
"""Of the tokenizers library; `hash_tokenizer.json` where words are numbers by checksum."""
LOWER = "sentence_bert_config.json"
EXPORT = "rawrec export {} --to encoder --out FOLDER"


class SavedField(Record):
    """A field that the documents' transformer learned to read. length: words of a text; pictures: at most so many."""

    name: str
    kind: Literal["image", "text"]
    length: Count
    pictures: Count


class SavedPictures(Record):
    """How pictures become tokens: by the encoder of that name (patches: cut into raw ones of so many pixels)."""

    encoder: str
    size: Count | None = None
    patch: Count | None = None


class JointFolder(Record):
    """What `config.json` holds."""

    model_type: Literal["rawrec_joint"] = MODEL_TYPE
    width: Size = Field(description="of the content that it makes")
    document: JointConfig
    fields: list[SavedField] = Field(min_length=1, description="in the order of their tokens and of their types")
    pictures: SavedPictures | None = None
    query: JointConfig | None = Field(default=None, description="of a transformer of its own")
    shared: bool = Field(default=False, description="queries are the last kind of field of the documents' transformer")
    query_length: Count | None = Field(default=None, description="words of a query that are read")

    def kinds(self, names: Sequence[str], where: str) -> list[int]:
        """The types of the fields `names`. UserError for one that it does not know."""
        known = {field.name: kind for kind, field in enumerate(self.fields, 1)}
        for name in names:
            if name not in known:
                raise UserError(
                    f"encoder {where}: it learned to read {listed(known, name)}, and not the field {name}; set "
                    f"content.{name}.use=false"
                )
        return [known[name] for name in names]


def joint_folder(name: str) -> JointFolder | None:
    """What the folder behind `joint:` holds; None where that is no such folder. UserError for a damaged one, and for a
    run in its place."""
    folder = Path(name.removeprefix(JOINT))
    if not folder.is_dir():
        return None
    path = folder / "config.json"
    if not path.is_file() and (folder / "run.json").is_file():
        raise UserError(f"encoder {JOINT}{folder}: it is a run; write its encoder by `{EXPORT.format(folder)}`")
    found = loading.settings(path)
    if found.get("model_type") != MODEL_TYPE:
        return None
    try:
        return JointFolder.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; export it anew") from None


def tokenizer_in(folder: Path) -> Tokenizer:
    """The tokenizer that stands beside the weights."""
    if hashed := loading.settings(folder / loading.HASHED):
        return HashTokenizer(int(hashed["vocabulary"]))
    from tokenizers import Tokenizer as Backend

    try:
        ours = FastTokenizer(Backend.from_file(str(folder / WORDS)))
    except Exception as error:  # the library raises its own kinds
        raise UserError(f"{folder / WORDS} cannot be read: {error}; export the encoder anew") from None
    return Cleaned(ours, loading.lower_case) if loading.settings(folder / LOWER).get("do_lower_case") else ours


def weights_in(folder: Path, part: str) -> dict[str, Tensor]:
    """Weights of `document` or of `query`, by name."""
    tensors = read_weights(folder / "model.safetensors").tensors
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}


@torch.no_grad()
def restore(network: JointTransformer, state: Mapping[str, Tensor], kinds: Sequence[int], where: str) -> None:
    """Give `network` the weights `state`; kinds: which of the types there are those that it has, [cls] apart.

    Where it reads no pictures, what was learned of them is not needed.
    """
    state, expected = dict(state), {name: value.shape for name, value in network.state_dict().items()}
    types = state.get("types.weight")
    if types is not None and len(types) > max(kinds, default=0):
        state["types.weight"] = types[[0, *kinds]]
    if network.image is None:
        state = {name: value for name, value in state.items() if not name.startswith(("image.", "image_positions."))}
    loading.check_weights(state, expected, where)
    network.load_state_dict(state)


def usual_length(folder: JointFolder | None, name: str, kind: Kind) -> int | None:
    """How many words of a text field the folder's transformer learned to read; None: not known."""
    if folder is None or kind != "text":
        return None
    return next((field.length for field in folder.fields if field.name == name), None)
