"""LEMUR's document transformer as an encoder of whole items: all texts of an item are one sequence (`joint:<size>`).

[cls], then each text field that the item has, its first words closed by [sep]; then, where pictures are read (ours),
their pieces. What the transformer makes of [cls] is the item's content. It learns from the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.content.encoders.base import Encoder, Kind, Stack
from rawrec.content.encoders.joint_folder import (
    JointFolder,
    joint_folder,
    restore,
    tokenizer_in,
    usual_length,
    weights_in,
)
from rawrec.content.encoders.joint_images import Grid, Patches, Pieces
from rawrec.content.encoders.joint_network import SIZES, JointConfig, JointTransformer, config_of, take_over
from rawrec.content.encoders.joint_rows import WORD, Item, pack, unpack
from rawrec.content.encoders.names import JOINT
from rawrec.content.encoders.one_field import decoded
from rawrec.content.encoders.padding import buckets, pad, rows
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.plain import LENGTH, PlainStack
from rawrec.data import texts
from rawrec.data.ragged import Ragged
from rawrec.data.texts import HashTokenizer, Tokenizer
from rawrec.errors import UserError

Load = Callable[[Kind, str, FieldConfig], tuple[Stack, Any]]
"""The network of an encoder's name, and how its pictures or texts are prepared."""
PATCHES = "patches"
"""In the place of an image encoder: pictures are cut into raw patches."""
UNSPACED = "unspaced"
"""Among what is lost of an item: texts in a script without spaces, where a sentence is taken for one word."""
DEPTH, QUERY_DEPTH = 4, 2  # layers of the document's and the query's transformer, as published
MOST_TOKENS = 4096  # of a sequence from nothing


class JointField(NamedTuple):
    """A field that the transformer reads. length: of a text, words kept, [sep] apart. pictures: at most so many."""

    name: str
    kind: Kind
    length: int = LENGTH
    pictures: int = 4


@dataclass(frozen=True)
class Marked:
    """A tokenizer with the marks that it puts around a text: their ids become [cls] and [sep]."""

    tokenizer: Tokenizer
    cls: int
    sep: int

    @property
    def hashed(self) -> bool:
        """Whether words are what stands between spaces and signs."""
        return isinstance(self.tokenizer, HashTokenizer)

    def __call__(self, strings: Sequence[str], length: int) -> tuple[Ragged, Tensor]:
        """At most `length` words of each text and [sep], int32, and which were cut, `[n]`; an empty text has none."""
        tokens, cut = texts.tokenise(self.tokenizer, strings, length + 2)
        begins = tokens.ptr[:-1][tokens.lengths > 0]
        keep = torch.ones(len(tokens.values), dtype=torch.bool)
        keep[begins] = False
        return Ragged.from_lengths(tokens.values[keep], (tokens.lengths - 1).clamp(min=0)), cut

    def misread(self, strings: Sequence[str]) -> dict[str, Tensor]:
        """UNSPACED, 1 or 0 `[n]`: texts whose words are hashed, and whose sentences are one word each."""
        if not self.hashed:
            return {}
        return {UNSPACED: torch.tensor([texts.unspaced(text) for text in strings], dtype=torch.int32)}


def marked(tokenizer: Tokenizer, name: str) -> Marked:
    """UserError for a tokenizer that does not put one mark before and one behind every text."""
    one, two = tokenizer(["a", "b c"], 8)[0]
    if len(one) < 3 or (one[0], one[-1]) != (two[0], two[-1]):
        raise UserError(f"encoder {JOINT}{name}: its tokenizer does not put a mark before and behind a text")
    return Marked(tokenizer, one[0], one[-1])


class Base(NamedTuple):
    """What transformers are made from. model: the text encoder whose weights they begin with. trained: weights and
    types of a run's transformer, and its name. Neither: random weights."""

    config: JointConfig
    words: Marked
    model: Any = None
    trained: tuple[Mapping[str, Tensor], Sequence[int], str] | None = None

    def network(self, out: int, image_width: int = 0, pieces: int = 0) -> JointTransformer:
        made = JointTransformer(self.config, out, image_width, pieces)
        if self.model is not None:
            take_over(made, self.model)
        if self.trained is not None:
            restore(made, *self.trained)
        return made.eval()


def base_of(
    name: str,
    depth: int | None,
    fields: int,
    tokens: int,
    load: Load,
    query: bool = False,
    names: Sequence[str] = (),
    out: int | None = None,
) -> Base:
    """What `joint:<size>`, `joint:<text encoder>` or `joint:<folder of a run's>` stands for.

    depth: layers, None: the usual number. fields: kinds of fields, queries among them where they are one; names: of the
    others. tokens: that a sequence may have. query: of queries. out: the width that content is to have.
    """
    inner = name.removeprefix(JOINT)
    if (saved := joint_folder(inner)) is not None:
        return _of_run(inner, saved, depth, fields, tokens, query, names, out)
    if inner in SIZES:
        sizes = SIZES[inner]
        usual = sizes.query_depth if query else sizes.document.depth
        changes = {"depth": depth or usual, "fields": fields, "tokens": tokens}
        if tokens > MOST_TOKENS:
            raise UserError(f"{name}: its texts have {tokens} words together; cut them by max_length to {MOST_TOKENS}")
        words = marked(HashTokenizer(sizes.document.vocabulary), inner)
        return Base(sizes.document.model_copy(update=changes), words)
    stack, reading = load("text", inner, FieldConfig())
    if not isinstance(stack, PlainStack):
        raise UserError(
            f"encoder {name}: {inner} is no plain text encoder; use {', '.join(JOINT + size for size in SIZES)}, or "
            f"{JOINT}NAME with a BERT, RoBERTa or MiniLM, for example {JOINT}minilm"
        )
    model: Any = stack.model
    usual = min(QUERY_DEPTH if query else DEPTH, model.config.num_hidden_layers)
    config = config_of(model, inner, depth or usual)
    if tokens > config.tokens:
        raise UserError(
            f"encoder {name}: an item's texts have up to {tokens} tokens, and it reads at most {config.tokens}; give "
            "content.<field>.max_length"
        )
    return Base(config.model_copy(update={"fields": fields}), marked(reading.tokenizer, inner), model)


def _of_run(
    inner: str,
    saved: JointFolder,
    depth: int | None,
    fields: int,
    tokens: int,
    query: bool,
    names: Sequence[str],
    out: int | None,
) -> Base:
    """The transformers that a run trained."""
    name, config = JOINT + inner, saved.query if query else saved.document
    shares = not query and fields > len(names)
    if config is None or (shares and not saved.shared):
        of = "no transformer of queries" if query else "no queries among the items' fields"
        other = "content.query.encoder=shared" if saved.shared else "another content.query.encoder, such as joint:paper"
        raise UserError(f"encoder {name}: it has {of}; use {other}")
    if out is not None and out != saved.width:
        raise UserError(f"encoder {name}: it makes content {saved.width} wide; use content.dim={saved.width}")
    if depth not in (None, config.depth):
        raise UserError(f"layers={depth}: the encoder {name} has {config.depth} trained layers; leave it out")
    kinds = [1] if query else saved.kinds(names, name) + [len(saved.fields) + 1] * shares
    if tokens > config.tokens:
        which = "content.query.max_length" if query else "content.<field>.max_length"
        raise UserError(
            f"encoder {name}: sequences have up to {tokens} tokens, and it reads {config.tokens}; lower {which}"
        )
    weights = weights_in(Path(inner), "query" if query else "document")
    words = marked(tokenizer_in(Path(inner)), inner)
    return Base(config.model_copy(update={"fields": len(kinds)}), words, trained=(weights, kinds, name))


class Sequences(NamedTuple):
    """Sequences of tokens, filled up: ids and types `[n, words]`, `words` bool of the same shape. Of pictures: whose
    they are and the first place that each has, `[pictures]`, the types, and the values `[pictures, pieces, width]`."""

    ids: Tensor
    types: Tensor
    words: Tensor
    owners: Tensor
    places: Tensor
    kinds: Tensor
    values: Tensor


class JointStack(Stack):
    """The document's transformer; `run` takes `Sequences` where `first` is 0."""

    def __init__(self, network: JointTransformer, pieces: Pieces | None, description: str) -> None:
        super().__init__()
        self.network, self.pieces = network, pieces
        self.width, self.depth = network.out_width, network.cfg.depth
        self.description = f"joint {network.cfg.model_dump_json()} {description}"

    def run(self, x: Tensor | Sequences, mask: Tensor | None, first: int, last: int) -> Tensor:
        assert mask is not None
        states = self._embedded(x, mask) if isinstance(x, Sequences) else x
        states = self.network.run(states, mask, first, last)
        return self.network.read(states) if last == self.depth else states

    def _embedded(self, x: Sequences, mask: Tensor) -> Tensor:
        words = self.network.embed(x.ids, x.types)
        if not len(x.owners):
            return words
        images = self.network.embed_images(x.values, x.kinds)
        places = x.places[:, None] + torch.arange(images.shape[1], device=mask.device)
        states = words.new_zeros(*mask.shape, words.shape[2])
        states[:, : words.shape[1]] = words * x.words[..., None]
        return states.index_put((x.owners[:, None].expand_as(places), places), images.to(words.dtype))

    def can_split(self, boundary: int) -> bool:
        return True

    def above(self, boundary: int | None) -> list[nn.Parameter]:
        if boundary is None:
            return list(self.network.parameters())
        parts = [*self.network.layers[boundary:], self.network.last, self.network.out]
        return [p for part in parts for p in part.parameters()]

    def below(self, boundary: int) -> list[nn.Parameter]:
        above = {id(p) for p in self.above(0)}
        embeddings = [p for p in self.network.parameters() if id(p) not in above]
        return embeddings + [p for layer in self.network.layers[:boundary] for p in layer.parameters()]

    def layers_above(self, boundary: int) -> list[nn.Module]:
        return list(self.network.layers[boundary:])


class JointEncoder(Encoder):
    """All fields of an item -> its content.

    A prepared row is as `joint_rows.pack` has it; `lower` puts the grid of an image encoder in the place of pixels.
    """

    stack: JointStack

    def __init__(
        self,
        name: str,
        stack: JointStack,
        fields: Sequence[JointField],
        words: Marked,
        cfg: FieldConfig,
        seed: int,
        hidden_dtype: torch.dtype,
    ) -> None:
        self.kinds = tuple(field.kind for field in fields)
        lengths = tuple((field.kind, field.length if field.kind == "text" else field.pictures) for field in fields)
        super().__init__(
            name, stack, cfg, (lengths, words.tokenizer.identity, words.cls, words.sep, UNSPACED), seed, hidden_dtype
        )
        self.fields, self.words, self.pieces = tuple(fields), words, stack.pieces

    def prepare(self, *raw: Sequence[Sequence[Any]]) -> tuple[Ragged, dict[str, Tensor]]:
        count = len(raw[0])
        found: dict[Kind, list[tuple[int, Ragged]]] = {"text": [], "image": []}
        lost: dict[str, Tensor] = {}
        for kind, (field, given) in enumerate(zip(self.fields, raw, strict=True), 1):
            if field.kind == "text":
                strings = [texts.join(each) for each in given]
                made, cut = self.words(strings, field.length)
                missing = {"truncated": cut, **self.words.misread(strings)}
            else:
                assert self.pieces is not None
                pixels, missing = decoded(given, self.pieces.framing, field.pictures)
                made = Ragged(self.pieces.cut(pixels.values), pixels.ptr)
            found[field.kind].append((kind, made))
            lost |= {what: number + lost[what] if what in lost else number for what, number in missing.items()}
        there = torch.zeros(count, dtype=torch.bool)
        for _, made in (*found["text"], *found["image"]):
            there |= made.lengths > 0
        begin = Ragged.from_lengths(torch.full((int(there.sum()),), self.words.cls, dtype=torch.int32), there.long())
        word_rows = _side_by_side([(0, begin), *found["text"]])
        if self.pieces is None:
            none = Ragged(torch.zeros(0, dtype=torch.int32), torch.zeros(count + 1, dtype=torch.int64))
            return pack(Item(word_rows, none, torch.zeros(0, 1, WORD, dtype=torch.uint8))), lost
        kinds, order = _kinds(found["image"])
        pieces = torch.cat([made.values for _, made in found["image"]])[order]
        return pack(Item(word_rows, kinds, pieces)), lost

    @torch.no_grad()
    def lower(self, x: Ragged) -> Ragged:
        if isinstance(self.pieces, Grid):
            item = unpack(x, self.pieces.given)
            x = pack(item._replace(pieces=self.pieces.lower(item.pieces)))
        return super().lower(x) if self.lower_is_identity or self.pooled else self._states(x)

    def _unpacked(self, x: Ragged) -> tuple[Item, Tensor]:
        """The words and pictures of lowered rows, and how many tokens they are, `[n]`."""
        count = 1 if self.pieces is None else self.pieces.count
        item = unpack(x, count)
        return item, item.words.lengths + count * item.kinds.lengths

    def _sequences(self, item: Item, items: Tensor, lengths: Tensor) -> tuple[Sequences, Tensor]:
        """Some of the items, and which of their tokens are no padding, `[n, tokens]`."""
        chosen, kinds = item.words.select(items), item.kinds.select(items)
        ids, there = pad(Ragged(chosen.values[:, 0], chosen.ptr))
        types, _ = pad(Ragged(chosen.values[:, 1], chosen.ptr))
        mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
        owners = kinds.owners()
        values = item.pieces.new_zeros(0, 0, 0)
        places = owners
        if self.pieces is not None:
            number = torch.arange(len(owners), device=owners.device) - kinds.ptr[owners]
            places = chosen.lengths[owners] + number * self.pieces.count
            values = self.pieces.values(item.pieces[rows(item.kinds.ptr, items)])
        return Sequences(ids.long(), types.long(), there, owners, places, kinds.values.long(), values), mask

    def _states(self, x: Ragged) -> Ragged:
        """Hidden states at the boundary, a row for each token."""
        item, lengths = self._unpacked(x)
        ptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        width = self.stack.network.cfg.width
        hidden = torch.zeros(int(ptr[-1]), width, dtype=self.hidden_dtype, device=x.values.device)
        for items in buckets(lengths):
            given, mask = self._sequences(item, items, lengths[items])
            hidden[rows(ptr, items)] = self._store(self.stack.run(given, mask, 0, self.boundary)[mask])
        return Ragged(hidden, ptr)

    def _features(self, x: Ragged, first: int) -> Tensor:
        item, lengths = (None, x.lengths) if first else self._unpacked(x)
        features = torch.zeros(len(x), self.stack.width, device=x.values.device)
        order, parts = [], []
        for items in buckets(lengths):
            if item is None:
                states, mask = pad(x.select(items))
                given: Any = states.float()
            else:
                given, mask = self._sequences(item, items, lengths[items])
            parts.append(self.stack.run(given, mask, first, self.stack.depth).float())
            order.append(items)
        return features.index_copy(0, torch.cat(order), torch.cat(parts)) if parts else features


def _side_by_side(parts: Sequence[tuple[int, Ragged]]) -> Ragged:
    """Values of several kinds, those of an item one after the other in the order of the kinds, `[values, 2]` int32 with
    their kind behind."""
    owners = torch.cat([values.owners() for _, values in parts])
    order = torch.argsort(owners, stable=True)
    with_kind = [torch.stack([v.values, torch.full_like(v.values, kind)], 1) for kind, v in parts]
    lengths = torch.stack([values.lengths for _, values in parts]).sum(0)
    return Ragged.from_lengths(torch.cat(with_kind)[order], lengths)


def _kinds(parts: Sequence[tuple[int, Ragged]]) -> tuple[Ragged, Tensor]:
    """The kind of each picture, item by item, and the order in which the pictures of all kinds are theirs."""
    owners = torch.cat([pictures.owners() for _, pictures in parts])
    order = torch.argsort(owners, stable=True)
    kinds = torch.cat([torch.full((len(p.values),), kind, dtype=torch.int32) for kind, p in parts])
    lengths = torch.stack([pictures.lengths for _, pictures in parts]).sum(0)
    return Ragged.from_lengths(kinds[order], lengths), order


# -------------------------------------------------------------------------------------------------------- construction
def joint_encoder(
    fields: Sequence[JointField],
    images: FieldConfig | None,
    cfg: FieldConfig,
    out: int,
    query_length: int | None,
    seed: int,
    dtype: torch.dtype,
    load: Load,
) -> JointEncoder:
    """images: settings of the image fields among `fields`, where there are any. out: width of the content.
    query_length: words of a query, where queries are read by the same transformer, as one more kind of field."""
    name = cfg.encoder or ""
    if cfg.train not in ("all", "none") and not cfg.train.startswith("top:"):
        raise UserError(
            f"train={cfg.train}: {name} learns as a whole (all), in its last layers (top:<n>), or not (none)"
        )
    words = sum(field.length + 1 for field in fields if field.kind == "text")
    shares = query_length is not None
    tokens = max(1 + words, 2 + query_length if query_length is not None else 0)
    base = base_of(name, cfg.layers, len(fields) + shares, tokens, load, names=[one.name for one in fields], out=out)
    pieces = None if images is None else _pieces(name, images, load)
    if pieces is not None and cfg.train.startswith("top:"):
        raise UserError(f"train={cfg.train}: beside pictures {name} learns as a whole; use train=all")
    network = base.network(out, *((pieces.width, pieces.count) if pieces is not None else ()))
    described = "" if pieces is None else pieces.description
    stack = JointStack(network, pieces, described).requires_grad_(False)
    return JointEncoder(name, stack, fields, base.words, cfg, seed, dtype)


def joint_length(name: str, field: str, kind: Kind) -> int:
    """Words of a text field that `joint:...` reads where no max_length is given."""
    return usual_length(joint_folder(name), field, kind) or LENGTH


def joint_pictures(name: str) -> dict[str, Any]:
    """Settings of image fields that `joint:<folder of a run's>` brings: encoder, and size."""
    saved = joint_folder(name)
    if saved is None or saved.pictures is None:
        return {}
    given = {"encoder": saved.pictures.encoder, "size": saved.pictures.size}
    return {key: value for key, value in given.items() if value is not None}


def _pieces(name: str, images: FieldConfig, load: Load) -> Pieces:
    saved = joint_folder(name)
    known = None if saved is None else saved.pictures
    if saved is not None and (known is None or known.encoder != images.encoder):
        has = "texts alone" if known is None else f"pictures by {known.encoder}"
        raise UserError(f"content.image.encoder={images.encoder}: {name} learned to read {has}; leave it out")
    if images.encoder == PATCHES and known is not None:
        return Patches(images.size or known.size or SIZES["paper"].image_size, known.patch or SIZES["paper"].patch)
    if images.encoder == PATCHES:
        sizes = SIZES.get(name.removeprefix(JOINT), SIZES["paper"])
        return Patches(images.size or sizes.image_size, sizes.patch)
    if images.train != "none":
        raise UserError(f"train={images.train}: {name} reads the grid of an image encoder as it is; use train=none")
    stack, pictures = load("image", images.encoder or "", images)
    assert isinstance(pictures, Pictures)
    return Grid(stack, pictures, images.encoder or "")
