"""Every setting of a run, typed. A component takes its own record, never the whole config.

Settings are resolved from the preset's YAML and `key.sub=value` overrides; an unknown key, a wrong type or an
impossible combination is a `UserError` that names the setting, the value and what would work.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rawrec.errors import UserError


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


# ---------------------------------------------------------------------------------------------------------------- data
class DataConfig(Record):
    """What a run reads from its dataset."""

    split: str = Field("default", description="name of a stored split (`rawrec split` makes more)")
    label: str = Field("label", description="label column that the model learns")
    history: int = Field(20, ge=0, description="most recent earlier positives of the user that the model sees")
    history_mode: Literal["rolling", "train"] = Field(
        "rolling", description="evaluation sees all that came before (rolling) or training rows only (train)"
    )
    negatives: int = Field(4, ge=1, description="negatives drawn per positive where the data holds positives only")


# ------------------------------------------------------------------------------------------------------------- content
TRAIN_PATTERN = re.compile(r"^(none|all|lora|top:[1-9][0-9]*)$")


class FieldConfig(Record):
    """How one image or text field becomes a feature."""

    use: bool = Field(True, description="false leaves the field out")
    encoder: str | None = Field(
        None, description="efficientnet_lite0, minilm, a hub name or local folder, random:<arch>; null: by kind"
    )
    train: str = Field("none", description="none | lora | top:<n> | all: which layers of the encoder learn")
    lora_rank: int = Field(8, ge=1)
    lora_layers: int | None = Field(None, ge=1, description="LoRA in the top n layers only; null: in all")
    size: int = Field(128, ge=16, le=1024, description="images: side in pixels after resizing")
    max_images: int = Field(4, ge=1, description="images: at most so many per item, the first ones")
    max_length: int = Field(64, ge=4, le=8192, description="texts: tokens kept; what is cut off is counted")

    @field_validator("train")
    @classmethod
    def _train(cls, value: str) -> str:
        if not TRAIN_PATTERN.match(value):
            raise ValueError("use none, lora, all or top:<n> with n >= 1, for example top:1")
        return value


class FusionConfig(Record):
    """How the features of an item become its content embedding (EM3 section 3.2)."""

    kind: Literal["fqformer", "concat", "sum"] = "fqformer"
    queries: int = Field(2, ge=1, description="trainable queries, shared by all items")
    layers: int = Field(1, ge=1)
    heads: int = Field(4, ge=1)
    ffn: bool = Field(False, description="a feed-forward sublayer after attention (the published code has none)")
    dropout: float = Field(0.0, ge=0, lt=1)


class ContentConfig(Record):
    """From raw fields to content embeddings. Any other key is a field's name, or `image` / `text` for all of a kind."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    dim: int = Field(64, ge=1, description="width of a content embedding")
    fusion: FusionConfig = FusionConfig()
    fields: dict[str, FieldConfig] = Field(default_factory=dict, description="resolved, one per field of the dataset")

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        fields = dict(value.get("fields") or {})
        rest = {}
        for key, sub in value.items():
            if key in cls.model_fields:
                rest[key] = sub
            elif isinstance(sub, Mapping | FieldConfig):
                fields[key] = {**_plain(fields.get(key, {})), **_plain(sub)}
            else:
                raise ValueError(_unknown(f"content.{key}", key, list(cls.model_fields) + ["image", "text"]))
        return {**rest, "fields": fields}


class BankConfig(Record):
    """The table of content that histories read (DESIGN: the bank)."""

    history_grad: Literal["live", "none"] = Field(
        "live", description="a live row carries gradient also where it stands in a history (live) or not (none: LEMUR)"
    )
    live_budget: int | None = Field(None, ge=1, description="at most so many items encoded per step; null: all")
    warm_start: bool = Field(True, description="write every row before the first step, so that histories are whole")
    micro_batch: int = Field(256, ge=1, description="items encoded at once; more are done with gradient caching")


# -------------------------------------------------------------------------------------------------------------- models
class RankerConfig(Record):
    """A ranking model: `id` (ids alone) or `em3` (content and interest beside ids)."""

    name: Literal["id", "em3"] = "em3"
    dim: int = Field(32, ge=1, description="width of id embeddings and of attention")
    hidden: list[int] = Field(default=[128, 64], description="widths of the MLP's hidden layers")
    dropout: float = Field(0.1, ge=0, lt=1)
    item_id: bool = Field(True, description="item id embedding as an input of the ranker")
    user_id: bool = Field(True, description="user id embedding as an input of the ranker")
    id_dropout: float = Field(0.1, ge=0, lt=1, description="share of ids read as the unknown id while training")
    columns: Literal["all", "none"] | list[str] = Field(
        "none", description="categorical and numeric item columns that the ranker reads"
    )
    cic_weight: float = Field(0.1, ge=0, description="weight of the Content-ID contrastive loss (eq. 14); 0: none")
    cic_temperature: float = Field(0.1, gt=0)


# ------------------------------------------------------------------------------------------------- training, evaluation
class TrainConfig(Record):
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(512, ge=1, description="samples per batch")
    accumulate: int = Field(1, ge=1, description="batches per optimiser step")
    lr: float = Field(1e-3, gt=0, description="learning rate of everything but encoders")
    encoder_lr: float = Field(1e-4, gt=0, description="learning rate of the encoders' trained layers")
    weight_decay: float = Field(0.0, ge=0)
    id_weight_decay: float = Field(0.0, ge=0, description="weight decay of id embeddings")
    warmup_steps: int = Field(50, ge=0)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    patience: int = Field(3, ge=1, description="epochs without improvement before the run stops")
    metric: str = Field("auc", description="validation metric that early stopping follows")
    device: str = Field("auto", description="auto | cpu | cuda | cuda:<n>")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the hardware has it")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints inside an epoch")
    threads: int | None = Field(None, ge=1, description="CPU threads; null: all cores")


class EvalConfig(Record):
    topk: list[int] = Field(default=[5, 10, 20, 50], description="cut-offs of Recall, NDCG, Precision and MAP")
    batch_size: int = Field(4096, ge=1, description="impressions scored at once")
    full_ranking: bool = Field(True, description="Recall@K and the like over the full catalogue on test")
    bootstrap: int = Field(1000, ge=0, description="resamplings of users behind an interval")


class Config(Record):
    """Every setting of a run; `config.yaml` of a run folder holds all of it, resolved."""

    model: RankerConfig = RankerConfig()
    paradigm: Literal["frozen", "hybrid", "end_to_end"] = "end_to_end"
    seed: int = Field(0, ge=0)
    data: DataConfig = DataConfig()
    content: ContentConfig = ContentConfig()
    bank: BankConfig = BankConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    def dump(self) -> dict[str, Any]:
        """Plain values, complete: what `config.yaml` holds."""
        return self.model_dump(mode="json")


# ---------------------------------------------------------------------------------------------------------- resolution
def presets() -> dict[str, str]:
    """Name and text of every preset that comes with the package."""
    folder = resources.files("rawrec") / "presets"
    return {p.name.removesuffix(".yaml"): p.read_text() for p in folder.iterdir() if p.name.endswith(".yaml")}


def resolve(preset: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Config:
    """The config of a preset's name, a YAML file or a mapping, with `{"train.epochs": 5}`-style overrides."""
    if isinstance(preset, Mapping):
        tree = dict(preset)
    else:
        known = presets()
        path = Path(preset)
        if str(preset) in known:
            text = known[str(preset)]
        elif path.suffix in (".yaml", ".yml"):
            if not path.is_file():
                raise UserError(f"config file {path} does not exist")
            text = path.read_text()
        else:
            raise UserError(_unknown("model", str(preset), sorted(known)) + " (or give the path of a .yaml file)")
        try:
            tree = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise UserError(f"{preset} is not valid YAML: {error}") from None
        if not isinstance(tree, dict):
            raise UserError(f"{preset} must hold settings as `key: value`, found {type(tree).__name__}")
    for key, value in (overrides or {}).items():
        _set(tree, key, value)
    return validate(tree)


def validate(tree: Mapping[str, Any]) -> Config:
    """A `Config` from nested plain values; every mistake becomes a `UserError` that names it."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(_explain(e) for e in error.errors())) from None


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """`["train.epochs=5"]` -> `{"train.epochs": 5}`; values are YAML."""
    result = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(f"override {word!r} is not of the form key=value, for example train.epochs=5")
        try:
            result[key] = yaml.safe_load(_float(text))
        except yaml.YAMLError:
            raise UserError(f"override {word!r}: the value is not valid YAML") from None
    return result


def _float(text: str) -> str:
    """YAML 1.1 reads 1e-3 as a string; people mean a number."""
    return repr(float(text)) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text) else text


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for i, part in enumerate(parents):
        sub = tree.setdefault(part, {})
        if not isinstance(sub, dict):
            raise UserError(f"{key}: {'.'.join(parents[: i + 1])} holds the value {sub!r}, not settings of its own")
        tree = sub
    if isinstance(tree.get(last), dict) and not isinstance(value, Mapping):
        names = ", ".join(f"{key}.{k}" for k in tree[last])
        raise UserError(f"{key}={value!r}: {key} holds settings of its own: {names}")
    tree[last] = value


def _plain(value: Any) -> dict[str, Any]:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else dict(value)


def _unknown(where: str, word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{where}: {word!r} is unknown{hint} Known: {', '.join(known)}"


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    where = ".".join(part for part in location if part != "fields")
    if error["type"] == "extra_forbidden":
        record: Any = Config
        for part in location[:-1]:
            if isinstance(record, type) and issubclass(record, BaseModel) and part in record.model_fields:
                record = record.model_fields[part].annotation
            elif record is not FieldConfig:
                record = FieldConfig
        known = list(record.model_fields) if isinstance(record, type) and issubclass(record, BaseModel) else []
        return _unknown(where, location[-1], known)
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}={error['input']!r}: {message}" if where != "content" else message
