"""The content tower: raw item -> encoders -> projections (EM3 eq. 4-5) -> fusion (eq. 6) -> content embedding.

The tower knows where each field's static column ends: at the feature (a frozen encoder, a ready-made feature) or at
the hidden state below the encoder's trained layers. Everything above that boundary it computes anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from rawrec.config import Config, ContentConfig, FieldConfig
from rawrec.content.bank import Bank
from rawrec.content.encoders import Encoder, make_encoder
from rawrec.content.encoders.base import Kind
from rawrec.content.fusion import make_fusion
from rawrec.data.dataset import Fields
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.onednn import Linear

FEATURE_NORM = 4.0  # length of every feature before projections: encoders differ in scale and width
FLAT = 1e-6  # a feature whose deviation is no larger a share of it says nothing: it is rounding
CHUNK = 256  # items decoded and encoded at once while a static column is made


class ItemModel(nn.Module):
    """Content embeddings of items from their static columns.

    encoders: one per raw field in use. features: name -> width of ready-made feature columns.
    frozen (paradigm): no projection, no fusion: the content is the features side by side, each centred and of one
    length. Retrieval models have such a tower, too, and read the features themselves.
    """

    def __init__(self, encoders: dict[str, Encoder], features: dict[str, int], cfg: ContentConfig, frozen: bool):
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.widths = {**{name: e.width for name, e in encoders.items()}, **features}
        self.fields = list(self.widths)
        self.trained = [name for name, encoder in encoders.items() if encoder.trained_parameters()]
        self.frozen = frozen
        self.autocast: torch.dtype | None = None  # of the encoders; projections and fusion are always float32
        self.dim = sum(self.widths.values()) if frozen else cfg.dim
        self.proj = nn.ModuleDict()
        self.fusion = None
        if not frozen and self.fields:
            self.proj.update({name: Linear(width, cfg.dim) for name, width in self.widths.items()})
            self.fusion = make_fusion(cfg.dim, len(self.fields), cfg.fusion)

    def raw_encoders(self) -> Iterator[tuple[str, Encoder]]:
        """Field name and encoder of every raw field."""
        for name, encoder in self.encoders.items():
            assert isinstance(encoder, Encoder)
            yield name, encoder

    def column(self, field: str) -> str:
        """Name of the static column that the field is read from."""
        return f"hidden/{field}" if field in self.trained else f"feature/{field}"

    def _casting(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)

    def forward(self, columns: dict[str, Ragged]) -> Tensor:
        """Content `[n, dim]` of `n` items given as their rows of the static columns; zeros where nothing is there."""
        device = next(self.parameters(), torch.zeros(())).device
        columns = {name: columns[self.column(name)].to(device) for name in self.fields}
        features = {name: self._feature(name, column) for name, column in columns.items()}
        return self.fuse(features, {name: column.lengths > 0 for name, column in columns.items()})

    def _feature(self, name: str, column: Ragged) -> Tensor:
        """What is above a field's static column up to its feature `[n, width]` float32, zeros where it is missing."""
        if name not in self.trained:
            return _dense(column, self.widths[name])
        with self._casting(column.values.device):
            return dict(self.raw_encoders())[name].upper(column).float()

    def fuse(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """Features of all fields `[n, width]` and which of them are there `[n]` bool -> content `[n, dim]`."""
        tokens = []
        for name in self.fields:
            feature = one_length(features[name])
            tokens.append(feature * present[name][:, None] if self.frozen else self.proj[name](feature))
        if self.fusion is None:
            return torch.cat(tokens, 1)
        mask = torch.stack([present[name] for name in self.fields], 1)
        return self.fusion(torch.stack(tokens, 1), mask) * mask.any(1, keepdim=True)

    def encode(self, bank: Bank, rows: Tensor) -> dict[str, Tensor]:
        """What the trained encoders make of the items `rows`: field -> `[n, width]`."""
        return {name: self.feature(bank, name, rows) for name in self.trained}

    def feature(self, bank: Bank, field: str, rows: Tensor) -> Tensor:
        """A field's feature of the items `rows`, `[n, width]` float32, zeros where it is missing."""
        return self._feature(field, bank.read(self.column(field), rows).to(bank.content.device))

    def content(self, bank: Bank, rows: Tensor, encoded: Tensor, features: dict[str, Tensor]) -> Tensor:
        """Content `[n, dim]` of the items `rows` (unique) from their features.

        Those that trained encoders make are the bank's but for the rows `encoded`, some of `rows`, whose are given.
        """
        (position,) = bank.locate(rows, encoded)
        values = {}
        for name in self.fields:
            if name in self.trained:
                values[name] = bank.features[name][rows].index_copy(0, position, features[name])
            else:
                values[name] = _dense(bank.read(self.column(name), rows).to(bank.content.device), self.widths[name])
        return self.fuse(values, {name: bank.present[self.column(name)][rows] for name in self.fields})

    def raw_columns(self, raw: dict[str, Sequence[Sequence[bytes | str]]]) -> dict[str, Ragged]:
        """The static columns of items that are no rows of the dataset, given as raw media per field."""
        count = max((len(v) for v in raw.values()), default=0)
        columns = {}
        encoders = dict(self.raw_encoders())
        for name in self.fields:
            if name in encoders:
                columns[self.column(name)] = self.lower(name, raw.get(name, [[]] * count))[0]
            else:
                columns[self.column(name)] = _empty(count, self.widths[name])
        return columns

    @torch.no_grad()
    def lower(self, field: str, raw: Sequence[Sequence[bytes | str]]) -> tuple[Ragged, dict[str, Tensor]]:
        """The static column of raw media: what the field's frozen layers make of it; and what each item lost on the way
        (see `Encoder.prepare`)."""
        encoder = dict(self.raw_encoders())[field]
        device = next(encoder.parameters()).device
        prepared, lost = encoder.prepare(raw)
        with self._casting(device):
            return encoder.lower(prepared.to(device)).to("cpu"), lost

    @torch.no_grad()
    def refresh(self, bank: Bank, rows: Tensor, step: int, micro_batch: int) -> None:
        """Make `rows` anew in eval mode, features and content (where the bank has any), and write them as of `step`."""
        training = self.training
        self.eval()
        for part in rows.split(max(micro_batch, CHUNK)):
            features = self.encode(bank, part)
            bank.write_features(part, features, step)
            if bank.content.shape[1]:
                bank.write(part, self.content(bank, part, part, features), step)
        self.train(training)


# ------------------------------------------------------------------------------------------------------- construction
def field_configs(cfg: Config, fields: Fields) -> dict[str, FieldConfig]:
    """The settings of every raw field of a dataset: its own, over those of its kind, over the defaults."""
    kinds = dict.fromkeys(fields.image, "image") | dict.fromkeys(fields.text, "text")
    for name in cfg.content.fields:
        if name not in kinds and name not in ("image", "text"):
            known = ", ".join(dict.fromkeys([*kinds, "image", "text"]))
            raise UserError(f"content.{name}: the dataset has no image or text field {name!r}. Known: {known}")
    result = {}
    for name, kind in kinds.items():
        merged: dict = {}
        for key in (kind, name):
            if key in cfg.content.fields:
                merged.update(cfg.content.fields[key].model_dump(exclude_unset=True))
        merged.setdefault("encoder", None)
        merged["encoder"] = merged["encoder"] or {"image": "efficientnet_lite0", "text": "minilm"}[kind]
        if cfg.paradigm != "end_to_end":
            merged["train"] = "none"
        field = FieldConfig.model_validate(merged)
        if field.use:
            result[name] = field
    if cfg.paradigm == "end_to_end" and not result and fields.feature:
        raise UserError(
            f"paradigm=end_to_end trains encoders, but the content of this dataset is ready-made features "
            f"({', '.join(fields.feature)}): choose paradigm=hybrid or paradigm=frozen"
        )
    if cfg.paradigm == "end_to_end" and result and all(f.train == "none" for f in result.values()):
        raise UserError(
            "paradigm=end_to_end trains encoders, but every field has train=none; set for example "
            + " ".join(f"content.{name}.train=top:1" for name in result)
            + ", or choose paradigm=hybrid"
        )
    return result


def build_item_model(cfg: Config, fields: Fields, configs: dict[str, FieldConfig], fused: bool = True) -> ItemModel:
    """The tower of a dataset's fields under `configs` (see `field_configs`); not `fused`: its encoders alone."""
    kinds: dict[str, Kind] = {name: "image" if name in fields.image else "text" for name in configs}
    encoders: dict[str, Encoder] = {}
    for name, field in configs.items():
        try:
            encoders[name] = make_encoder(kinds[name], field, cfg.seed)
        except UserError as error:  # which begins with the setting, or with "encoder"
            raise UserError(
                f"content.{name}.{error}" if "=" in str(error).split()[0] else f"content.{name}: {error}"
            ) from None
    return ItemModel(encoders, dict(fields.feature), cfg.content, frozen=cfg.paradigm == "frozen" or not fused)


def one_length(features: Tensor) -> Tensor:
    """Features `[n, width]`, each centred and brought to length FEATURE_NORM, however small or large its values are.

    Zeros where a feature's entries are all the same but for rounding.
    """
    centred = features - features.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    flat = length <= FLAT * features.norm(dim=1, keepdim=True)
    return centred * torch.where(flat, 0.0, FEATURE_NORM / length.masked_fill(flat, 1.0))


def _dense(column: Ragged, width: int) -> Tensor:
    """A column of at most one row per item as `[n, width]`, zeros where it is missing."""
    out = column.values.new_zeros(len(column), width, dtype=torch.float32)
    out[column.lengths > 0] = column.values.float()
    return out


def _empty(count: int, width: int) -> Ragged:
    return Ragged(torch.zeros(0, width), torch.zeros(count + 1, dtype=torch.int64))
