"""VLMo (Bao et al., NeurIPS 2022): one transformer for pictures, for texts, and for both at once.

A layer has one attention for all tokens and several feed-forward networks, its experts. A picture alone goes through
the experts of vision, a text alone through those of language. Of both at once, text first, each token goes through the
expert of its kind below `vl_layer` and through the expert of both from there on. Positions are biases of the attention
(Base, Large) or are added to the tokens (Base Plus).

Three tasks train it: pictures and texts are told apart by cosine (ITC), pairs are told from false pairs (ITM), hidden
words are guessed with the picture at hand (MLM). What the published code does beside the paper is kept: a second ITC,
whose upper layers use the expert of both; keys without a bias; MLM at a quarter of its weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from rawrec.config.records import Count, Record, Size
from rawrec.content.encoders.loading import check_weights, first_line, settings
from rawrec.content.encoders.positions import Interpolation, interpolate_bias, interpolate_positions
from rawrec.errors import UserError

Kind = Literal["image", "text", "image_text"]
"""What a sequence of tokens is of; `image_text`: the text's tokens, then the picture's."""
MODEL_TYPE = "vlmo"
MLM_WEIGHT = 0.25
TEXT, IMAGE = 0, 1  # rows of the table that says what kind a token is of


# ------------------------------------------------------------------------------------------------------- architecture
class VlmoConfig(Record):
    """The architecture. Without changes: VLMo Base."""

    model_config = ConfigDict(frozen=True)

    width: Size = Field(default=768, description="of tokens and features")
    depth: Count = Field(default=12, description="layers")
    heads: Count = Field(default=12, description="of attention")
    hidden: Count = Field(default=3072, description="width inside an expert")
    patch: Count = Field(default=16, description="side of a patch in pixels")
    image_size: Count = Field(default=224, description="side of a picture in pixels")
    vl_layer: int = Field(default=10, ge=0, description="the first layer with an expert of both; depth: none has one")
    vocabulary: Count = Field(default=30522, description="words")
    max_text: int = Field(default=40, ge=2, description="tokens of a text at most")
    relative_bias: bool = Field(
        default=True, description="attention has a bias by distance; false: texts get positions"
    )
    reach: int = Field(default=196, ge=2, description="distances between words for which the table of biases has room")
    image_positions: bool = Field(default=False, description="positions are added to the tokens of a picture")
    layer_scale: float | None = Field(default=0.1, description="at the beginning; null: branches are not scaled")

    @model_validator(mode="after")
    def _fits(self) -> VlmoConfig:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")
        if self.image_size % self.patch:
            raise ValueError(f"image_size={self.image_size} is no multiple of patch={self.patch}")
        if self.vl_layer > self.depth:
            raise ValueError(f"vl_layer={self.vl_layer} is above depth={self.depth}")
        if self.relative_bias and self.max_text > self.reach:
            raise ValueError(f"max_text={self.max_text} is above reach={self.reach}")
        return self

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch

    @property
    def image_tokens(self) -> int:
        """[CLS] and the patches."""
        return self.grid**2 + 1

    @property
    def bias_rows(self) -> int:
        """Rows of the table of biases: see `relative_index`."""
        return (2 * self.grid - 1) ** 2 + 3 + 2 + 2 * self.reach


PRESETS: Mapping[str, VlmoConfig] = {
    "base": VlmoConfig(),
    "base_plus": VlmoConfig(
        width=544, depth=24, heads=16, hidden=2176, vl_layer=21,
        relative_bias=False, image_positions=True, layer_scale=None,
    ),
    "large": VlmoConfig(width=1024, depth=24, heads=16, hidden=4096, vl_layer=21),
}  # fmt: skip


def relative_index(cfg: VlmoConfig) -> Tensor:
    """Which row of the table of biases is of a query and a key: `[max_text + image_tokens]` squared, int32.

    The rows: every distance between two patches, down and across; [CLS] to patch, patch to [CLS], [CLS] to itself;
    text to picture, picture to text; every distance between two words, of which the last three are free and stand for
    first token to word, word to first token, first token to itself.
    """
    span, texts, images = 2 * cfg.grid - 1, cfg.max_text, cfg.image_tokens
    index = torch.empty(texts + images, texts + images, dtype=torch.int32, device="cpu")
    first = span**2

    steps = torch.arange(cfg.grid, device="cpu")
    places = torch.cartesian_prod(steps, steps)
    apart = places[:, None] - places[None] + cfg.grid - 1
    image = index[texts:, texts:]
    image[1:, 1:] = apart[..., 0] * span + apart[..., 1]
    image[0], image[:, 0], image[0, 0] = first, first + 1, first + 2

    index[:texts, texts:], index[texts:, :texts] = first + 3, first + 4

    steps = torch.arange(texts - 1, device="cpu")
    text = index[:texts, :texts]
    text[1:, 1:] = first + 5 + cfg.reach - 2 + steps[None] - steps[:, None]
    text[0], text[:, 0], text[0, 0] = cfg.bias_rows - 3, cfg.bias_rows - 2, cfg.bias_rows - 1
    return index


# -------------------------------------------------------------------------------------------------------------- layers
class Attention(nn.Module):
    """Of all tokens to all; scores and their softmax are float32 under autocast, too."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        """x: `[batch, tokens, width]`; mask: `[batch, tokens]`, true for what is seen; bias: `[heads, query, key]`."""
        biases = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = (self.qkv(self.norm(x)) + biases).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        with torch.autocast(x.device.type, enabled=False):
            scores = (q.float() * q.shape[-1] ** -0.5) @ k.float().transpose(-2, -1)
            if bias is not None:
                scores = scores + bias.float()
            if mask is not None:  # the lowest number, no infinity: rows that see nothing become no NaN
                scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
            weights = scores.softmax(-1)
        return self.proj((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))


class Expert(nn.Module):
    """A feed-forward network with the norm before it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """A layer, with its own part of the table of biases, so that it stands for itself."""

    def __init__(self, cfg: VlmoConfig, number: int, index: Tensor) -> None:
        """index: what `relative_index` says."""
        super().__init__()
        self.max_text, self.image_tokens = cfg.max_text, cfg.image_tokens
        self.attention = Attention(cfg.width, cfg.heads)
        names = ["text", "image"] + (["vl"] if number >= cfg.vl_layer else [])
        self.experts = nn.ModuleDict({name: Expert(cfg.width, cfg.hidden) for name in names})
        self.bias = nn.Parameter(torch.zeros(cfg.bias_rows, cfg.heads)) if cfg.relative_bias else None
        self.index: Tensor
        self.attention_scale: nn.Parameter | None
        self.expert_scale: nn.Parameter | None
        self.register_buffer("index", index, persistent=False)
        for name in ("attention_scale", "expert_scale"):
            scale = None if cfg.layer_scale is None else nn.Parameter(torch.full((cfg.width,), cfg.layer_scale))
            self.register_parameter(name, scale)

    def forward(self, x: Tensor, mask: Tensor | None, kind: Kind, vl: bool = False) -> Tensor:
        """x: `[batch, tokens, width]` -> the same; mask: `[batch, tokens]`, true for what is seen; None: all is.

        vl: through the expert of both, whatever the kind.
        """
        x = x + _scaled(self.attention(x, mask, self.position_bias(kind, x.shape[1])), self.attention_scale)
        if "vl" in self.experts and (vl or kind == "image_text"):
            return x + _scaled(self.experts["vl"](x), self.expert_scale)
        if kind != "image_text":
            return x + _scaled(self.experts[kind](x), self.expert_scale)
        text, image = x.split([x.shape[1] - self.image_tokens, self.image_tokens], 1)
        made = torch.cat([self.experts["text"](text), self.experts["image"](image)], 1)
        return x + _scaled(made, self.expert_scale)

    def position_bias(self, kind: Kind, tokens: int) -> Tensor | None:
        """`[heads, tokens, tokens]`; texts may be shorter than the longest."""
        if self.bias is None:
            return None
        index, first = self.index, self.max_text
        if kind == "text":
            index = index[:tokens, :tokens]
        elif kind == "image":
            index = index[first:, first:]
        elif (texts := tokens - self.image_tokens) < first:
            index = torch.cat([index[:texts], index[first:]])
            index = torch.cat([index[:, :texts], index[:, first:]], 1)
        return functional.embedding(index, self.bias).permute(2, 0, 1)


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale


class WordHead(nn.Module):
    """Logits of the words at each token."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.norm(functional.gelu(self.dense(x))))


class Pass(NamedTuple):
    """What a pass over some inputs made; states are `[batch, tokens, width]`."""

    kind: Kind
    mask: Tensor | None
    below: Tensor
    """What enters layer `vl_layer`."""
    top: Tensor
    """What the last layer puts out."""
    states: Tensor
    """The same after the final norm."""

    @property
    def features(self) -> Tensor:
        """`[batch, width]`: the first token, [CLS] of the picture or, where there is one, of the text."""
        return self.states[:, 0]


class Vlmo(nn.Module):
    """The network with the heads of its three tasks.

    A pass is `embed_image` or `embed_text` or both of them (`embed`), then `blocks`, then `norm`; each can be called on
    its own. Texts have `max_text` tokens or fewer: how far they are filled up changes nothing.
    """

    def __init__(self, cfg: VlmoConfig) -> None:
        super().__init__()
        self.cfg, width = cfg, cfg.width
        self.patches = nn.Conv2d(3, width, cfg.patch, cfg.patch)
        self.image_cls = nn.Parameter(torch.zeros(1, 1, width))
        positions = torch.zeros(1, cfg.image_tokens, width)
        self.image_positions = nn.Parameter(positions) if cfg.image_positions else None
        self.words = nn.Embedding(cfg.vocabulary, width, padding_idx=0)
        self.text_positions = None if cfg.relative_bias else nn.Embedding(cfg.max_text, width)
        self.segments = nn.Embedding(2, width)  # of BERT: all is of the first
        self.text_norm = nn.LayerNorm(width, eps=1e-12)
        self.kinds = nn.Embedding(2, width)
        index = relative_index(cfg) if cfg.relative_bias else torch.empty(0, device="cpu")
        self.blocks = nn.ModuleList([Block(cfg, number, index) for number in range(cfg.depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

        self.pooler = nn.Linear(width, width)
        self.itm = nn.Linear(width, 2)
        self.itc_heads = nn.ModuleDict({kind: nn.Linear(width, width, bias=False) for kind in ("image", "text")})
        self.itc_vl_heads = nn.ModuleDict({kind: nn.Linear(width, width, bias=False) for kind in ("image", "text")})
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.logit_vl_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.mlm = WordHead(width, cfg.vocabulary)
        self._begin()

    def _begin(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
        with torch.no_grad():
            self.words.weight[0].zero_()
        for parameter in (self.image_cls, self.image_positions):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    # ------------------------------------------------------------------------------------------------------ its layers
    def embed_image(self, pixels: Tensor) -> Tensor:
        """pixels: `[batch, 3, image_size, image_size]`, values from -1 to 1 -> `[batch, image_tokens, width]`."""
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.image_cls.expand(len(x), -1, -1).to(x.dtype), x], 1)
        if self.image_positions is not None:
            x = x + self.image_positions
        return x + self.kinds.weight[IMAGE]

    def embed_text(self, ids: Tensor) -> Tensor:
        """ids: `[batch, tokens]`, [CLS] first, 0 is padding -> `[batch, tokens, width]`."""
        x = self.words(ids) + self.segments.weight[0]
        if self.text_positions is not None:
            x = x + self.text_positions.weight[: ids.shape[1]]
        return self.text_norm(x) + self.kinds.weight[TEXT]

    def embed(
        self, pixels: Tensor | None, ids: Tensor | None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Kind]:
        """Tokens of a picture, a text or both, with what of them is seen, `[batch, tokens]` (None: all), and the kind.

        mask: `[batch, tokens]` bool, true for those of `ids` that are no padding.
        """
        if ids is None:
            assert pixels is not None
            return self.embed_image(pixels), None, "image"
        if pixels is None:
            return self.embed_text(ids), mask, "text"
        image = self.embed_image(pixels)
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(image.shape[:2])], 1)
        return torch.cat([self.embed_text(ids), image], 1), mask, "image_text"

    def run(
        self, x: Tensor, mask: Tensor | None, kind: Kind, first: int = 0, last: int | None = None, vl: bool = False
    ) -> Tensor:
        """Through the layers from `first` to before `last` (None: all)."""
        for block in self.blocks[first:last]:
            x = block(x, mask, kind, vl)
        return x

    def forward(self, pixels: Tensor | None = None, ids: Tensor | None = None, mask: Tensor | None = None) -> Pass:
        """A pass over a picture, over a text, or over both, as they are given; see `embed`."""
        x, mask, kind = self.embed(pixels, ids, mask)
        below = self.run(x, mask, kind, 0, self.cfg.vl_layer)
        top = self.run(below, mask, kind, self.cfg.vl_layer)
        return Pass(kind, mask, below, top, self.norm(top))

    # ------------------------------------------------------------------------------------------------------- its heads
    def pooled(self, states: Tensor) -> Tensor:
        """`[batch, width]`: what ITM reads of the first of the normed `states`."""
        return torch.tanh(self.pooler(states[:, 0]))

    def itc(self, seen: Pass) -> Tensor:
        """`[batch, width]`, of length 1: a picture or a text in the space that both share."""
        return functional.normalize(self.itc_heads[seen.kind](seen.features), dim=-1)

    def itc_vl(self, seen: Pass) -> Tensor:
        """The same from layers that use the expert of both from `vl_layer` on."""
        top = self.run(seen.below, seen.mask, seen.kind, self.cfg.vl_layer, vl=True)
        return functional.normalize(self.itc_vl_heads[seen.kind](self.norm(top)[:, 0]), dim=-1)

    def itm_logits(self, seen: Pass) -> Tensor:
        """`[batch, 2]`, of a pass over both: no pair, a pair."""
        return self.itm(self.pooled(seen.states))

    def mlm_logits(self, seen: Pass) -> Tensor:
        """`[batch, tokens, vocabulary]`, at the tokens of the text, of a pass over both."""
        return self.mlm(seen.states[:, : -self.cfg.image_tokens])


# -------------------------------------------------------------------------------------------------------------- losses
def contrast(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """Which text is of a picture and which picture of a text, `[n, width]` each: row i of the one is of row i of the
    other."""
    logits = log_scale.exp() * image @ text.T
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits.float(), own) + functional.cross_entropy(logits.T.float(), own)) / 2


def itc_loss(model: Vlmo, image: Pass, text: Pass) -> Tensor:
    """Mean of the contrast and of that by the expert of both, over pictures and texts of the same `n` pairs."""
    plain = contrast(model.itc(image), model.itc(text), model.logit_scale)
    return (plain + contrast(model.itc_vl(image), model.itc_vl(text), model.logit_vl_scale)) / 2


@torch.no_grad()
def hard_negatives(
    image: Tensor, text: Tensor, log_scale: Tensor, generator: torch.Generator, alike: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Of two pairs or more: a picture for each text and a text for each picture, of other pairs, `[n]` each.

    Drawn by the softmax of the contrast's logits. image, text: `[n, width]`, what `itc` puts out. generator: of the
    CPU. alike: `[n, n]` bool, pairs that are no negatives of each other; each must have another that is.
    """
    logits = (log_scale.exp() * image @ text.T).float().cpu()
    left_out = torch.eye(len(logits), dtype=torch.bool, device="cpu")
    if alike is not None:
        left_out = left_out | alike.cpu()
    images, texts = (z.masked_fill(left_out, -torch.inf).softmax(1) for z in (logits.T, logits))
    return tuple(torch.multinomial(w, 1, generator=generator)[:, 0].to(image.device) for w in (images, texts))  # type: ignore[return-value]


def itm_pairs(
    model: Vlmo, pixels: Tensor, ids: Tensor, mask: Tensor, negative_image: Tensor, negative_text: Tensor
) -> Tensor:
    """Logits `[3 n, 2]`: the pairs, then each text with its false picture, then each picture with its false text.

    pixels, ids, mask: of n pairs. negative_image, negative_text: rows of them, `[n]`.
    """
    own = torch.arange(len(ids), device=ids.device)
    images, texts = torch.cat([own, negative_image, own]), torch.cat([own, own, negative_text])
    return model.itm_logits(model(pixels[images], ids[texts], mask[texts]))


def itm_loss(logits: Tensor) -> Tensor:
    """Of the logits of `itm_pairs`."""
    labels = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    labels[: len(logits) // 3] = 1
    return functional.cross_entropy(logits.float(), labels)


def mlm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """At a quarter of its weight. logits: `[batch, tokens, vocabulary]`; labels: `[batch, tokens]`, -100 where no word
    was hidden."""
    return MLM_WEIGHT * functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)


# ------------------------------------------------------------------------------------------------------------- folders
def bare(cfg: VlmoConfig) -> Vlmo:
    """The network without memory for its parameters."""
    with torch.device("meta"):
        return Vlmo(cfg)


def load_vlmo(folder: str | Path, image_size: int | None = None, bias: Interpolation = "geometric") -> Vlmo:
    """The network in a folder that `rawrec convert` wrote, float32, in eval mode.

    image_size: of other pictures than it was made for, see `at_size`. UserError for a folder of something else, or
    whose weights are not those that its config.json asks for.
    """
    folder = Path(folder)
    about = settings(folder / "config.json")
    if about.get("model_type") != MODEL_TYPE:
        found = f"config.json says model_type={about.get('model_type')}" if about else "it has no config.json"
        raise UserError(f"{folder} is no folder of VLMo ({found}): make one of the published file with rawrec convert")
    try:
        cfg = VlmoConfig.model_validate({key: value for key, value in about.items() if key != "model_type"})
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "the architecture"
        raise UserError(f"{folder / 'config.json'}: {where}: {wrong['msg']}") from None
    try:
        state = load_file(folder / "model.safetensors")
    except FileNotFoundError:
        raise UserError(f"{folder} has no model.safetensors: copy the folder whole, or convert again") from None
    except SafetensorError as error:
        raise UserError(f"{folder / 'model.safetensors'} is not whole: {first_line(error)}") from None
    model = bare(cfg)
    expected = model.state_dict()
    check_weights(state, {name: value.shape for name, value in expected.items()}, f"{folder / 'model.safetensors'}")
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return at_size(model, cfg.image_size if image_size is None else image_size, bias).eval()


# -------------------------------------------------------------------------------------------- pictures of another size
def at_size(model: Vlmo, image_size: int, bias: Interpolation = "geometric") -> Vlmo:
    """The network for pictures of `image_size` pixels: itself, or one with positions between those it has.

    bias: how biases by distance are found, see `interpolate_bias`.
    """
    if image_size == model.cfg.image_size:
        return model
    old = model.cfg
    if image_size < old.patch or image_size % old.patch:
        raise UserError(f"image_size={image_size}: VLMo's patches have {old.patch} pixels; use a multiple of that")
    cfg = old.model_copy(update={"image_size": image_size})
    state = dict(model.state_dict())
    if old.image_positions:
        state["image_positions"] = interpolate_positions(state["image_positions"], cfg.grid)
    if old.relative_bias:
        for name in [f"blocks.{number}.bias" for number in range(old.depth)]:
            state[name] = interpolate_bias(state[name], old.grid, cfg.grid, bias)
    resized = bare(cfg)
    resized.load_state_dict(state, assign=True)
    for new, given in zip(resized.parameters(), model.parameters(), strict=True):
        new.requires_grad_(given.requires_grad)
    return resized.to(model.image_cls.device).train(model.training)
