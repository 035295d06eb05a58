"""The item model: raw item -> encoders -> projections (EM3 eq. 4-5) -> fusion (eq. 6) -> content embedding.

It knows where each field's static column ends: at the feature (a frozen encoder, a ready-made feature) or at
the hidden state below the encoder's trained layers. Everything above that boundary it computes anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rawrec.config import ContentConfig, FusionConfig
from rawrec.config.parts import NO_FUSION
from rawrec.config.wording import unknown
from rawrec.content import lora
from rawrec.content.bank import Bank
from rawrec.content.encoders import (
    Encoder,
    QueryEncoder,
)
from rawrec.content.encoders.vlmo import contrast
from rawrec.content.fusion import make_fusion
from rawrec.content.later import About, Later
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.onednn import Linear
from rawrec.randomness import drawing
from rawrec.shown import listed
from rawrec.threads import Mutex
from rawrec.world import ALONE, Owners, World

FEATURE_NORM = 4.0  # length of every feature before projections: encoders differ in scale and width
ITC_SCALE = math.log(1 / 0.07)  # of the contrast's logits, at the beginning
QUERY = "(query)"
"""In files of weights: what the encoder of queries learns; no feature is called so."""
FLAT = 1e-6  # a feature whose deviation is no larger a share of it says nothing: it is rounding
Pieces = Sequence[Sequence[bytes | str]]
"""The pictures or the strings of every item."""
CHUNK = 256  # items decoded and encoded at once while a static column is made


class ItemModel(nn.Module):
    """Content embeddings of items from their static columns.

    encoders: one per feature that is made of raw fields, some of which may share a network; or what makes them all when
    one is asked for first, in whatever thread. features: name -> width of ready-made feature columns. reads: for each
    encoder the raw fields of every kind; if not said, the one of its name. pieces: of an encoder that reads some of an
    item's pieces alone: of which feature they are, whose projection they share, and which ones.
    frozen (paradigm): no projection, no fusion: the content is the features side by side, each centred and of one
    length. Retrieval models have one, too, and read the features themselves (not `joined`). plain
    (content.fusion.kind=none): the content is the one feature as it is, under any paradigm. query: encoder of queries,
    in the space of content, where a model reads them. keys: of encoders, see `key_of`.
    """

    def __init__(
        self,
        encoders: dict[str, Encoder] | Later,
        features: dict[str, int],
        cfg: ContentConfig,
        frozen: bool,
        reads: Mapping[str, tuple[tuple[str, ...], ...]] | None = None,
        pieces: Mapping[str, tuple[str, slice]] | None = None,
        joined: bool = True,
        keys: Mapping[str, str | None] | None = None,
    ):
        super().__init__()
        self._later = encoders if isinstance(encoders, Later) else None
        self._given: dict[str, Tensor] | None = None  # what encoders that are not made yet have learned
        self._making = Mutex()
        if isinstance(encoders, Later):
            self.encoders, self.about = nn.ModuleDict(), encoders.about
        else:
            known = {name: About.of(encoder, (keys or {}).get(name)) for name, encoder in encoders.items()}
            self.encoders, self.about = nn.ModuleDict(encoders), known
        self.reads = {name: (reads or {}).get(name, ((name,),)) for name in self.about}
        self.widths = {**{name: one.width for name, one in self.about.items()}, **features}
        self.fields = list(self.widths)
        self.pieces = dict(pieces or {})
        self.trained = [name for name, one in self.about.items() if one.learns]
        self.frozen = frozen
        self.autocast: torch.dtype | None = None  # of the encoders; projections and fusion are always float32
        self.dim = sum(self.widths.values()) if frozen else cfg.dim
        self.itc = nn.Parameter(torch.tensor(ITC_SCALE)) if cfg.itc_weight else None
        self._place: Tensor
        self.register_buffer("_place", torch.zeros(0), persistent=False)  # where `to` brought it
        self.proj = nn.ModuleDict()
        self.fusion = None
        self.query: QueryEncoder | None = None
        self.plain = joined and cfg.fusion.kind == NO_FUSION
        if self.plain:
            self._check_plain(cfg.dim)
        elif not frozen and self.fields:
            self.bases = list(dict.fromkeys(map(self.base, self.fields)))
            self.proj.update({name: Linear(self.widths[name], cfg.dim) for name in self.bases})
            self.fusion = make_fusion(cfg.dim, len(self.fields), cfg.fusion, self._text_flow(cfg.fusion))
        self.lora, self.seed = cfg.lora, 0
        if self.lora.handover != "none":
            lora.check_rank(self.matrices().items(), self.lora.rank)
        self.field_embedding = None
        if self.fusion is not None and cfg.fusion.field_embedding:
            self.field_embedding = nn.Parameter(torch.randn(len(self.bases), cfg.dim) * 0.02)

    def raw_encoders(self) -> Iterator[tuple[str, Encoder]]:
        """Name and encoder of every feature that is made of raw fields."""
        self.make_encoders()
        for name, encoder in self.encoders.items():
            assert isinstance(encoder, Encoder)
            yield name, encoder

    def make_encoders(self) -> None:
        """Make the encoders, unless they are there. UserError where they cannot be made, or are others than they
        were."""
        if self._later is None:
            return
        with drawing(), self._making:
            if self._later is None:
                return
            made = self._later.make()
            for name, encoder in made.items():
                self.about[name].check(About.of(encoder), name)
                encoder.to(self._place.device)
            if self._given is not None:
                _put(self._given, _learning(made))
            self.encoders.update(made)
            self._later = self._given = None

    def _check_plain(self, dim: int) -> None:
        """UserError where content.fusion.kind=none has not one feature that is as wide as content."""
        if len(self.fields) != 1:
            raise UserError(
                f"content.fusion.kind=none: an item's content is its one feature as it is, and here are "
                f"{listed(self.fields)}; use content.fusion.kind=fqformer"
            )
        if self.widths[self.fields[0]] != dim:
            raise UserError(
                f"content.fusion.kind=none: {self.fields[0]} is {self.widths[self.fields[0]]} wide and content "
                f"content.dim={dim}; use content.dim={self.widths[self.fields[0]]}, or content.fusion.kind=fqformer"
            )

    def _text_flow(self, cfg: FusionConfig) -> list[int]:
        """Which tokens are of texts, or named by content.fusion.text_flow. UserError for a name that is no feature."""
        named = cfg.text_flow or [name for name, one in self.about.items() if one.kinds == ("text",)]
        for name in named:
            if name not in self.fields:
                raise UserError(unknown("content.fusion.text_flow", name, self.bases))
        return [k for k, name in enumerate(self.fields) if self.base(name) in named]

    # ----------------------------------------------------------------------------------------------------------- LoRA
    def matrices(self) -> dict[str, Linear]:
        """The linear layers of projections and fusion, by name."""
        return {
            name: part
            for name, part in self.named_modules()
            if name.partition(".")[0] in ("proj", "fusion") and isinstance(part, Linear)
        }

    @property
    def adapted(self) -> bool:
        """Whether they are frozen, with LoRA beside."""
        return any(isinstance(layer, lora.LowRankLinear) for layer in self.matrices().values())

    def adapt(self, adapted: bool = True) -> None:
        """Freeze them and put LoRA beside, as `content.lora` says; `adapted` false: the reverse."""
        if adapted == self.adapted:
            return
        if adapted:
            lora.adapt(self.matrices().values(), self.lora.rank, self.lora.stop_gradient, self.seed)
        else:
            lora.release(self.matrices().values())

    def base(self, name: str) -> str:
        """The feature that `name` is of the pieces of: itself, unless several of an item's pieces are tokens each."""
        return self.pieces[name][0] if name in self.pieces else name

    def digests(self) -> dict[str, dict[str, Any]]:
        """Name and digest of the weights, as they were loaded, of the encoder of every feature, and of queries where
        these have one of their own; with what else `About` knows."""
        found: dict[str, dict[str, Any]] = {field: one._asdict() for field, one in self.about.items()}
        if self.query is not None and self.query.digest:
            found[QUERY] = {"encoder": self.query.name, "digest": self.query.digest}
        return found

    def column(self, field: str) -> str:
        """Name of the static column that the field is read from."""
        return f"hidden/{field}" if field in self.trained else f"feature/{field}"

    def _casting(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)

    def forward(self, columns: dict[str, Ragged]) -> Tensor:
        """Content `[n, dim]` of `n` items given as their rows of the static columns; zeros where nothing is there."""
        return self.fuse(*self.features(columns))

    def features(self, columns: dict[str, Ragged]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features of all fields `[n, width]`, zeros where missing, and which are there `[n]` bool, of such items."""
        columns = {name: columns[self.column(name)].to(self._place.device) for name in self.fields}
        made = {name: self._feature(name, column) for name, column in columns.items()}
        return made, {name: column.lengths > 0 for name, column in columns.items()}

    def _feature(self, name: str, column: Ragged) -> Tensor:
        """What is above a field's static column up to its feature `[n, width]` float32, zeros where it is missing."""
        if name not in self.trained:
            return dense(column, self.widths[name])
        with self._casting(column.values.device):
            return dict(self.raw_encoders())[name].upper(column).float()

    def fuse(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """Features of all fields `[n, width]` and which of them are there `[n]` bool -> content `[n, dim]`."""
        if self.plain:
            (name,) = self.fields
            return features[name] * present[name][:, None]
        tokens = []
        for name in self.fields:
            feature = one_length(features[name])
            token = feature * present[name][:, None] if self.frozen else self.proj[self.base(name)](feature)
            if self.field_embedding is not None:
                token = token + self.field_embedding[self.bases.index(self.base(name))]
            tokens.append(token)
        if self.fusion is None:
            return torch.cat(tokens, 1)
        mask = torch.stack([present[name] for name in self.fields], 1)
        return self.fusion(torch.stack(tokens, 1), mask) * mask.any(1, keepdim=True)

    def encode(self, bank: Bank, rows: Tensor) -> dict[str, Tensor]:
        """What the trained encoders make of the items `rows`: field -> `[n, width]`."""
        return {name: self.feature(bank, name, rows) for name in self.trained}

    def feature(self, bank: Bank, field: str, rows: Tensor) -> Tensor:
        """A field's feature of the items `rows`, `[n, width]` float32, zeros where it is missing."""
        return self._feature(field, bank.read(self.column(field), rows).to(bank.device))

    def content(self, bank: Bank, rows: Tensor, encoded: Tensor, features: dict[str, Tensor]) -> Tensor:
        """Content `[n, dim]` of the items `rows` (unique) from their features.

        Those that trained encoders make are the bank's but for the rows `encoded`, some of `rows`, whose are given.
        """
        (position,) = bank.locate(rows, encoded)
        values = {}
        for name in self.fields:
            if name in self.trained:
                values[name] = bank.feature_rows(name, rows).index_copy(0, position, features[name])
            else:
                values[name] = dense(bank.read(self.column(name), rows).to(bank.device), self.widths[name])
        return self.fuse(values, {name: bank.present[self.column(name)][rows] for name in self.fields})

    def raw_columns(self, raw: Mapping[str, Pieces]) -> dict[str, Ragged]:
        """The static columns of items that are no rows of the dataset, given as raw media per field."""
        count = max((len(v) for v in raw.values()), default=0)
        columns = {}
        for name in self.fields:
            if name in self.reads:
                given = {field: raw.get(field, [[]] * count) for field in self.read_by(name)}
                columns[self.column(name)] = self.lower(name, self.by_kind(name, given))[0]
            else:
                columns[self.column(name)] = _empty(count, self.widths[name])
        return columns

    def read_by(self, name: str) -> list[str]:
        """The raw fields that the encoder `name` reads."""
        return [field for fields in self.reads[name] for field in fields]

    def by_kind(self, name: str, raw: Mapping[str, Pieces]) -> list[Pieces]:
        """What the encoder `name` is given: for each kind that it reads, every item's pieces of all fields of it."""
        result = []
        for fields in self.reads[name]:
            own = [raw[field] for field in fields]
            if name in self.pieces:
                own = [[item[self.pieces[name][1]] for item in pieces] for pieces in own]
            together = ([piece for pieces in item for piece in pieces] for item in zip(*own, strict=True))
            result.append(own[0] if len(own) == 1 else list(together))
        return result

    @torch.no_grad()
    def lower(self, name: str, raw: Sequence[Pieces]) -> tuple[Ragged, dict[str, Tensor]]:
        """The static column of raw media (see `by_kind`): what the encoder's frozen layers make of it; and what each
        item lost on the way (see `Encoder.prepare`)."""
        prepared, lost = self.prepare(name, raw)
        return self.lower_prepared(name, prepared), lost

    def prepare(self, name: str, raw: Sequence[Pieces]) -> tuple[Ragged, dict[str, Tensor]]:
        """Raw media (see `by_kind`) as the encoder `name` takes them, on the CPU; and what each item lost."""
        return dict(self.raw_encoders())[name].prepare(*raw)

    @torch.no_grad()
    def lower_prepared(self, name: str, prepared: Ragged) -> Ragged:
        encoder = dict(self.raw_encoders())[name]
        with self._casting(encoder.device):
            return encoder.lower(prepared.to(encoder.device)).to("cpu")

    def contrast(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor | None:
        """The image-text contrast (ITC) of items by what trained encoders made of them: the mean over all pairs of a
        picture's feature and a text's; None where no two items have both.

        features: `[n, width]`; present: bool `[n]`, the item has what the feature is made of.
        """
        assert self.itc is not None
        losses = []
        for image, text in self.itc_pairs():
            both = present[image] & present[text]
            if int(both.sum()) > 1:
                one, other = (nn.functional.normalize(features[name][both], dim=1) for name in (image, text))
                losses.append(contrast(one, other, self.itc))
        return torch.stack(losses).mean() if losses else None

    def itc_pairs(self) -> list[tuple[str, str]]:
        """Features of pictures and of texts that trained encoders make."""
        kinds = {name: one.kinds for name, one in self.about.items()}
        images, texts = ([name for name in self.trained if kinds[name] == (kind,)] for kind in ("image", "text"))
        return [(image, text) for image in images for text in texts]

    # --------------------------------------------------------------------------------------------------------- queries
    def encode_queries(self, queries: Sequence[str]) -> Tensor:
        """Vectors `[n, content.dim]` float32 of what users typed, any text, with gradient; zeros for an empty one."""
        assert self.query is not None
        return self.query_content(self.query.prepare(queries)[0])

    def query_content(self, prepared: Ragged) -> Tensor:
        """The same of prepared ones, see `QueryEncoder.prepare`."""
        assert self.query is not None
        with self._casting(self._place.device):
            return self.query(prepared.to(self._place.device)).float()

    # ---------------------------------------------------------------------------------------------------------- state
    def top_state(self) -> dict[str, Tensor]:
        """All that stands above the features, by name: projections, fusion, vectors of fields."""
        return {
            k: v for k, v in self.state_dict().items() if k.partition(".")[0] in ("proj", "fusion", "field_embedding")
        }

    def load_top_state(self, state: Mapping[str, Tensor]) -> None:
        """Put a `top_state` back; KeyError or RuntimeError if it is of other settings."""
        self.adapt(any(name.endswith(".lora_a") for name in state))
        own = self.top_state()
        if own.keys() != state.keys():
            raise KeyError(f"{own.keys() ^ state.keys()}")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What encoders learn, by `<feature>.<name>`, once where several share it; and `itc`, the contrast's scale."""
        return _learning(dict(self.raw_encoders())) | self._beside()

    def _beside(self) -> dict[str, nn.Parameter]:
        """The same beside the encoders of items."""
        found = {}
        if self.query is not None:
            found = {f"{QUERY}.{own}": p for own, p in self.query.named_parameters() if p.requires_grad}
        return found if self.itc is None else {**found, "itc": self.itc}

    def trained_state(self) -> dict[str, Tensor]:
        """The same, detached and contiguous: what a checkpoint holds beside the config."""
        given = self._given
        if self._later is not None and given is not None:
            return given | _values(self._beside())
        return _values(self.trained_parameters())

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Put a `trained_state` back; UserError if it is of encoders with other settings. Of encoders that are not made
        yet that is told when they are."""
        with self._making:
            if self._later is not None:
                beside = self._beside()
                own = {name: value for name, value in state.items() if name in beside or not self.trained}
                _put(own, beside)
                self._given = {name: value for name, value in state.items() if name not in own}
                return
        _put(state, self.trained_parameters())

    @torch.no_grad()
    def refresh(
        self,
        bank: Bank,
        rows: Tensor,
        step: int,
        micro_batch: int,
        tell: Callable[[int], None] | None = None,
        world: World = ALONE,
    ) -> None:
        """Make `rows` anew in eval mode, features and content (where the bank has any), and write them as of `step`.

        tell: called with how many more are done. In a `world` of several processes each makes its own of them.
        """
        training = self.training
        self.eval()
        for part in rows.split(max(micro_batch, CHUNK) * world.size):
            owners = Owners(world, part) if world.several else None
            own = part if owners is None else part[owners.mine]
            if len(own):
                features = self.encode(bank, own)
                content = self.content(bank, own, own, features) if bank.width else None
            else:
                features = {name: torch.zeros(0, self.widths[name], device=bank.device) for name in self.trained}
                content = torch.zeros(0, bank.width, device=bank.device) if bank.width else None
            if owners is not None:
                features = {name: owners.gathered(values, "refresh") for name, values in features.items()}
                content = None if content is None else owners.gathered(content, "refresh")
            bank.write_features(part, features, step)
            if content is not None:
                bank.write(part, content, step)
            if tell is not None:
                tell(len(part))
        self.train(training)


def _learning(encoders: Mapping[str, Encoder]) -> dict[str, nn.Parameter]:
    """What encoders learn, by `<feature>.<name>`, once where several share it."""
    found: dict[str, nn.Parameter] = {}
    known: set[int] = set()
    for name, encoder in encoders.items():
        for own, parameter in encoder.stack.named_parameters():
            if parameter.requires_grad and id(parameter) not in known:
                known.add(id(parameter))
                found[f"{name}.{own}"] = parameter
    return found


def _values(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().contiguous() for name, parameter in parameters.items()}


@torch.no_grad()
def _put(state: Mapping[str, Tensor], own: Mapping[str, nn.Parameter]) -> None:
    """Give parameters their values; UserError where these are of others."""
    wrong = [n for n in own.keys() | state.keys() if n not in own or n not in state or own[n].shape != state[n].shape]
    if wrong:
        raise UserError(
            f"the saved weights do not fit the encoders' settings (train, lora_rank, lora_layers, side_width): "
            f"{len(wrong)} differ, first {min(wrong)}. Use the settings of the run that saved them."
        )
    for name, parameter in own.items():
        parameter.copy_(state[name])


def one_length(features: Tensor) -> Tensor:
    """Features `[n, width]`, each centred and brought to length FEATURE_NORM, however small or large its values are.

    Zeros where a feature's entries are all the same but for rounding.
    """
    centred = features - features.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    flat = length <= FLAT * features.norm(dim=1, keepdim=True)
    return centred * torch.where(flat, 0.0, FEATURE_NORM / length.masked_fill(flat, 1.0))


def dense(column: Ragged, width: int) -> Tensor:
    """A column of at most one row per item as `[n, width]`, zeros where it is missing."""
    out = column.values.new_zeros(len(column), width, dtype=torch.float32)
    out[column.lengths > 0] = column.values.float()
    return out


def _empty(count: int, width: int) -> Ragged:
    return Ragged(torch.zeros(0, width), torch.zeros(count + 1, dtype=torch.int64))
