"""Networks that read pictures alone or texts alone, such as ViT, Swin, ConvNeXt, BERT, RoBERTa, MPNet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.content.encoders import sentences
from rawrec.content.encoders.base import Kind, Stack
from rawrec.content.encoders.loading import checked_length, first_line, load_tokenizer
from rawrec.content.encoders.pictures import SIZE, Pictures, read_pictures
from rawrec.content.encoders.stacks import Probe, TransformerStack, native_size, probe_pixels, probe_tokens
from rawrec.content.encoders.tokens import Words
from rawrec.data.images import Framing
from rawrec.errors import UserError

S = TypeVar("S", bound=nn.Module)
LENGTH = 64  # tokens kept, where the user does not say
READS = {"pixel_values": "pictures", "input_ids": "texts", "input_values": "sounds", "input_features": "sounds"}
FIRST = {"beit", "data2vec-vision", "deit", "dinov2", "dinov2_with_registers", "vit", "vit_msn"}
"""Networks whose first token stands for the picture."""
# fmt: off
MEAN = {
    "albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert",
    "electra", "ernie", "flaubert", "fnet", "funnel", "ibert", "longformer", "megatron-bert", "mobilebert",
    "modernbert", "mpnet", "mra", "mt5", "nomic_bert", "nystromformer", "rembert", "roberta", "roberta-prelayernorm",
    "roformer", "squeezebert", "t5", "xlm", "xlm-roberta", "xlm-roberta-xl", "xmod", "yoso",
}
"""Networks that see a text in both directions: the mean over tokens stands for it, if the folder says nothing else."""
# fmt: on


class PlainStack(TransformerStack):
    """pooling: of texts, keys of `sentences.POOLINGS`; head: what the pooled vector goes through; said: that in words.
    Of pictures: the model's own pooled output, else the first token where it stands for the picture, else the mean over
    a map of features."""

    def __init__(
        self,
        model: nn.Module,
        kind: Kind,
        probe: Probe,
        pooling: tuple[str, ...] = (),
        head: nn.Sequential | None = None,
        said: str = "",
    ) -> None:
        self.pooling = pooling
        super().__init__(model, kind, probe)
        self.description += f" {' '.join([*pooling, said]).rstrip()}"
        if head is not None and len(head):
            self.head = head.eval()
            self.width = self.run(*probe, 0, self.depth).shape[-1]

    def feature(self, inputs: dict[str, Any], mask: Tensor | None) -> Tensor:
        result = self.model(**inputs)
        hidden = result.last_hidden_state
        if self.kind == "image":
            if result.get("pooler_output") is not None:
                return result.pooler_output.flatten(1)
            return hidden.mean((2, 3)) if hidden.ndim == 4 else hidden[:, 0]
        head, pooled = getattr(self, "head", None), self.pooled(hidden, mask)
        return pooled if head is None else head(pooled)

    def pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        if self.kind == "image":
            model: Any = self.model
            if hidden.ndim == 3 and getattr(model.config, "use_mean_pooling", False):  # of patches, in BEiT
                return hidden[:, 1:].float().mean(1)
            first = hidden.ndim == 3 and model.config.model_type in FIRST
            return hidden[:, 0] if first else super().pooled(hidden, None)
        assert mask is not None
        return sentences.pool(hidden, mask, self.pooling)


def text_stack(model: Any, folder: Path, name: str, cfg: FieldConfig) -> tuple[Stack, Words]:
    """`model`, its pooling as the folder or its kind has it, and its tokenizer."""
    model = _encoder(model, name, "text")
    after = _after(folder, model, name)
    first = after.head[0] if len(after.head) else None
    if isinstance(first, sentences.Dense):
        wanted, given = first.linear.in_features, len(after.pooling or ()) * model.config.hidden_size
        if wanted != given:
            raise UserError(f"encoder {name}: its Dense layer reads {wanted} numbers, and pooling makes {given}")
    tokenizer, theirs = load_tokenizer(folder, name)
    positions = getattr(model.config, "max_position_embeddings", None) or theirs.model_max_length
    limit = int(min(positions, theirs.model_max_length))
    length = checked_length(cfg.max_length, LENGTH, limit, name)
    probe = probe_tokens(tokenizer)
    return PlainStack(model, "text", probe, after.pooling or (), after.head, after.said), Words(tokenizer, length)


def image_stack(model: Any, folder: Path, name: str, cfg: FieldConfig) -> tuple[Stack, Pictures]:
    """`model`, and its pictures: as its image processor has them, else stretched, values from -1 to 1."""
    model = _encoder(model, name, "image")
    native = native_size(model)
    usual = Pictures.of(Framing(native or SIZE), [0.5] * 3, [0.5] * 3)
    pictures = (read_pictures(folder, name, native) or usual).sized(cfg.size)
    size = pictures.framing.side
    stack = fitting(lambda: PlainStack(model, "image", probe_pixels(size)), name, size, native)
    with torch.no_grad():
        result = model(pixel_values=probe_pixels(size)[0], **stack.positions())
    kind = model.config.model_type
    if result.get("pooler_output") is None and result.last_hidden_state.ndim == 3 and kind not in FIRST:
        raise UserError(
            f"encoder {name}: how a {kind} makes one vector of a picture is not known; choose another encoder"
        )
    return stack, pictures


def fitting(make: Callable[[], S], name: str, size: int, native: int | None) -> S:
    """What `make` makes; UserError where the network cannot read pictures of `size`."""
    try:
        return make()
    except (ValueError, RuntimeError, AssertionError) as error:
        hint = f"; use size={native}" if native else ""
        raise UserError(
            f"size={size}: the encoder {name} cannot read such pictures: {first_line(error)}{hint}"
        ) from None


def _encoder(model: Any, name: str, kind: Kind) -> nn.Module:
    """The part of `model` that reads pictures or texts, without a head that was trained for something else."""
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    expected = "pixel_values" if kind == "image" else "input_ids"
    if getattr(model, "main_input_name", expected) != expected:
        what = READS.get(model.main_input_name, model.main_input_name)
        raise UserError(f"encoder {name} reads {what}, but the field is of kind {kind}; choose another encoder")
    if hasattr(getattr(model, "pooler", None), "dense"):
        model.pooler = None
    model.config.use_cache = False
    return model


def _after(folder: Path, model: Any, name: str) -> sentences.After:
    """What the folder says of pooling and what follows it, else what is known of the kind."""
    found = sentences.after(folder, name)
    if found.pooling is not None:
        return found
    if model.config.model_type in MEAN:
        return found._replace(pooling=("mean",))
    raise UserError(
        f"encoder {name}: how a {model.config.model_type} makes one vector of a text is not known, and the folder does "
        "not say it (1_Pooling/config.json of the sentence-transformers library); choose another encoder"
    )
