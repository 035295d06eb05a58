"""Small networks with random weights, for tests."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from rawrec.config import FieldConfig
from rawrec.content.encoders.pictures import SIZE, Pictures
from rawrec.content.encoders.plain import LENGTH, PlainStack
from rawrec.content.encoders.stacks import ConvStack, probe_pixels, probe_tokens
from rawrec.content.encoders.tokens import Words
from rawrec.data.images import Framing
from rawrec.data.texts import HashTokenizer

VOCABULARY = 2048


def random_bert(cfg: FieldConfig) -> tuple[PlainStack, Words]:
    """A tiny BERT with hashed words: 2 layers, width 32."""
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertModel

    length = cfg.max_length or LENGTH
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=max(512, length),
    )
    tokenizer = HashTokenizer(VOCABULARY)
    model = BertModel(config, add_pooling_layer=False)
    return PlainStack(model, "text", probe_tokens(tokenizer), pooling=("mean",)), Words(tokenizer, length)


def random_vit(cfg: FieldConfig) -> tuple[PlainStack, Pictures]:
    """A tiny vision transformer: 2 layers, width 32, 4 x 4 patches or a few more."""
    from transformers.models.vit.configuration_vit import ViTConfig
    from transformers.models.vit.modeling_vit import ViTModel

    size = cfg.size or SIZE
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=size,
        patch_size=size // 4,
    )
    model = ViTModel(config, add_pooling_layer=False)
    return PlainStack(model, "image", probe_pixels(size)), centred(size)


def random_conv(cfg: FieldConfig) -> tuple[ConvStack, Pictures]:
    """Four small layers, width 64."""
    widths = [3, 16, 32, 48, 64]
    layers: list[nn.Module] = [
        nn.Sequential(
            nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 1)
        )
        for a, b in pairwise(widths)
    ]
    return ConvStack(layers, width=64), centred(cfg.size or SIZE)


def centred(size: int) -> Pictures:
    """Pictures stretched to a square, values about from -1 to 1."""
    return Pictures(Framing(size), (127.0,) * 3, (128.0,) * 3)
