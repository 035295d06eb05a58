"""The transformers of LEMUR (2025): one of documents, one of queries, each over all its tokens, in both directions.

A sequence is [cls] and then field after field, each closed by [sep]. A token is the sum of the vectors of its word, of
its place in the sequence and of its field; what the last layer makes of [cls] is mapped to the representation. Width,
heads and norms are not public: ours. Sizes from nothing are in `SIZES`; or embeddings and the first layers are a text
encoder's (`from_text_encoder`), which is ours, too. No dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from rawrec.config.records import Count, Record, Size
from rawrec.errors import UserError

Order = Literal["pre", "post"]
Approximation = Literal["none", "tanh"]
ACTIVATIONS: dict[str, Approximation] = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
"""Names that configs have for GELU, and how torch approximates it."""
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")
"""Text encoders of transformers that are built alike, by the model_type of config.json; MiniLM's says bert."""
BEFORE = {"roberta": 2, "xlm-roberta": 2, "camembert": 2}
"""Rows of the table of positions that no token has."""


class JointConfig(Record):
    """The architecture of a transformer. Without changes: LEMUR's of documents, as far as it is public."""

    model_config = ConfigDict(frozen=True)

    width: Size = Field(default=128, description="of tokens; ours: the published FLOPs of a step come out with it")
    depth: Count = Field(default=4, description="layers")
    heads: Count = Field(default=4, description="of attention")
    hidden: Count = Field(default=512, description="width inside the feed-forward network")
    vocabulary: Count = Field(default=32768, description="words")
    tokens: Count = Field(default=512, description="tokens of a sequence at most, [cls] and [sep] among them")
    fields: Count = Field(default=1, description="kinds of fields that have a vector, that of [cls] apart")
    norm: Order = Field(default="pre", description="before each part of a layer, or after it, as BERT has it")
    epsilon: float = Field(default=1e-6, description="of the norms")
    activation: Approximation = Field(default="none", description="how GELU is approximated")

    @model_validator(mode="after")
    def _fits(self) -> JointConfig:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")
        return self


class Sizes(Record):
    """A document's transformer, how many layers the query's has, and pictures where they are read."""

    document: JointConfig
    query_depth: Count
    image_size: Count
    patch: Count


SIZES: Mapping[str, Sizes] = {
    "tiny": Sizes(
        document=JointConfig(width=32, depth=2, heads=2, hidden=64, vocabulary=8192),
        query_depth=1,
        image_size=32,
        patch=8,
    ),
    "paper": Sizes(document=JointConfig(), query_depth=2, image_size=128, patch=16),
    "base": Sizes(
        document=JointConfig(width=768, depth=12, heads=12, hidden=3072, vocabulary=65536),
        query_depth=4,
        image_size=224,
        patch=16,
    ),
}
"""By the name behind `joint:`."""


# -------------------------------------------------------------------------------------------------------------- layers
class Layer(nn.Module):
    """Attention of all tokens to all, and a feed-forward network."""

    def __init__(self, cfg: JointConfig) -> None:
        super().__init__()
        width = cfg.width
        self.heads, self.pre, self.activation = cfg.heads, cfg.norm == "pre", cfg.activation
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm = nn.LayerNorm(width, eps=cfg.epsilon)
        self.up, self.down = nn.Linear(width, cfg.hidden), nn.Linear(cfg.hidden, width)
        self.norm = nn.LayerNorm(width, eps=cfg.epsilon)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: `[batch, tokens, width]` -> the same; mask: `[batch, tokens]` bool, true for what is seen."""
        if self.pre:
            x = x + self._attend(self.attention_norm(x), mask)
            return x + self._feed(self.norm(x))
        x = self.attention_norm(x + self._attend(x, mask))
        return self.norm(x + self._feed(x))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        made = functional.scaled_dot_product_attention(q, k, v, mask[:, None, None])
        return self.output(made.transpose(1, 2).flatten(2))

    def _feed(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x), approximate=self.activation))


class JointTransformer(nn.Module):
    """From tokens to the representation. `embed`, then `run`, then `read`; each can be called on its own.

    image_width: of what a piece of a picture is given as, its pixels or what an encoder makes of it; pieces: of a
    picture. 0: no pictures are read.
    """

    def __init__(self, cfg: JointConfig, out: int, image_width: int = 0, pieces: int = 0) -> None:
        super().__init__()
        self.cfg, self.out_width, width = cfg, out, cfg.width
        self.words = nn.Embedding(cfg.vocabulary, width)
        self.positions = nn.Embedding(cfg.tokens, width)
        self.types = nn.Embedding(1 + cfg.fields, width)  # the first is of [cls]
        self.embedding_norm = nn.LayerNorm(width, eps=cfg.epsilon)
        self.image = nn.Linear(image_width, width) if image_width else None
        self.image_positions = nn.Embedding(pieces, width) if image_width else None
        self.layers = nn.ModuleList([Layer(cfg) for _ in range(cfg.depth)])
        self.last = nn.LayerNorm(width, eps=cfg.epsilon) if cfg.norm == "pre" else nn.Identity()
        self.out = nn.Linear(width, out)
        for part in self.modules():
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)

    def embed(self, ids: Tensor, types: Tensor) -> Tensor:
        """Words: ids and types `[batch, tokens]`, [cls] first -> `[batch, tokens, width]`."""
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.embedding_norm(self.words(ids) + self.positions(places) + self.types(types))

    def embed_images(self, pieces: Tensor, types: Tensor) -> Tensor:
        """Pieces of pictures `[pictures, pieces, image_width]`, types `[pictures]` -> `[pictures, pieces, width]`."""
        assert self.image is not None and self.image_positions is not None
        places = self.image_positions.weight[: pieces.shape[1]]
        return self.embedding_norm(self.image(pieces) + places + self.types(types)[:, None])

    def run(self, x: Tensor, mask: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Through the layers from `first` to before `last` (None: all)."""
        for layer in self.layers[first:last]:
            x = layer(x, mask)
        return x

    def read(self, x: Tensor) -> Tensor:
        """What the last layer puts out `[batch, tokens, width]` -> the representation `[batch, out]`."""
        return self.out(self.last(x[:, 0]))

    def forward(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """Of words alone, `[batch, tokens]` each -> `[batch, out]`."""
        return self.read(self.run(self.embed(ids, types), mask))


# ------------------------------------------------------------------------------------------------------- text encoders
def config_of(model: Any, name: str, depth: int) -> JointConfig:
    """The architecture with the embeddings of a text encoder of transformers and its first `depth` layers.

    UserError for a network that is not built as BERT is, or has fewer layers.
    """
    said = model.config
    known = f"known are {', '.join(FAMILIES)} (MiniLM and others say bert)"
    if said.model_type not in FAMILIES:
        raise UserError(f"encoder joint:{name}: a {said.model_type} is not built as BERT is; {known}")
    activation, positions = str(said.hidden_act), str(getattr(said, "position_embedding_type", "absolute"))
    if activation not in ACTIVATIONS or positions != "absolute":
        odd = f"activation {activation}" if activation not in ACTIVATIONS else f"positions {positions}"
        raise UserError(f"encoder joint:{name}: its {odd} cannot be taken over; {known}, with GELU and positions added")
    if depth > said.num_hidden_layers:
        raise UserError(f"layers={depth}: the encoder {name} has {said.num_hidden_layers} layers; use at most so many")
    return JointConfig(
        width=said.hidden_size,
        depth=depth,
        heads=said.num_attention_heads,
        hidden=said.intermediate_size,
        vocabulary=said.vocab_size,
        tokens=said.max_position_embeddings - BEFORE.get(said.model_type, 0),
        norm="post",
        epsilon=said.layer_norm_eps,
        activation=ACTIVATIONS[activation],
    )  # fmt: skip


@torch.no_grad()
def take_over(network: JointTransformer, model: Any) -> None:
    """Give `network`, made by `config_of`, the weights of the text encoder; each field begins with BERT's first type.

    So what it makes of one text is at first the state that the encoder itself has at its first token.
    """
    words = model.embeddings
    network.words.weight.copy_(words.word_embeddings.weight)
    network.positions.weight.copy_(words.position_embeddings.weight[BEFORE.get(model.config.model_type, 0) :])
    network.types.weight.copy_(words.token_type_embeddings.weight[:1].expand_as(network.types.weight))
    network.embedding_norm.load_state_dict(words.LayerNorm.state_dict())
    for own, theirs in zip(network.layers, model.encoder.layer, strict=False):
        assert isinstance(own, Layer)
        attention = theirs.attention
        for mine, given in (
            (own.query, attention.self.query),
            (own.key, attention.self.key),
            (own.value, attention.self.value),
            (own.output, attention.output.dense),
            (own.attention_norm, attention.output.LayerNorm),
            (own.up, theirs.intermediate.dense),
            (own.down, theirs.output.dense),
            (own.norm, theirs.output.LayerNorm),
        ):
            mine.load_state_dict(given.state_dict())
