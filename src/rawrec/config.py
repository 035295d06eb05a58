"""Every setting of a run, typed. A component takes its own record, never the whole config.

Settings are resolved from the preset's YAML and `key.sub=value` overrides; an unknown key, a wrong type or an
impossible combination is a `UserError` that names the setting, the value and what would work.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from rawrec.errors import UserError
from rawrec.models.retrieval import configs, retrieval_model
from rawrec.models.retrieval.configs import RetrievalConfig
from rawrec.records import Count, Record


# ---------------------------------------------------------------------------------------------------------------- data
class DataConfig(Record):
    """What a run reads from its dataset."""

    split: str = Field(default="default", description="name of a stored split (`rawrec split` makes more)")
    label: str = Field(
        default="label", description="label column that the model learns; the only one, where there is one"
    )
    history: int = Field(default=20, ge=0, description="most recent earlier positives of the user that the model sees")
    history_mode: Literal["rolling", "train"] = Field(
        default="rolling", description="evaluation sees all that came before (rolling) or training rows only (train)"
    )
    negatives: int = Field(
        default=4, ge=1, description="negatives drawn per positive where the data holds positives only"
    )


# ------------------------------------------------------------------------------------------------------------- content
TRAIN_PATTERN = re.compile(r"^(none|all|lora|top:[1-9][0-9]*)$")


class FieldConfig(Record):
    """How one image or text field becomes a feature."""

    use: bool = Field(default=True, description="false leaves the field out")
    encoder: str | None = Field(
        default=None, description="efficientnet_lite0, minilm, a hub name or local folder, random:<arch>; null: by kind"
    )
    train: str = Field(
        default="none",
        description="none | lora | top:<n> | all: which layers of the encoder learn; where any do, the features are no "
        "parameters of a retrieval model, whatever model.train_features says",
    )
    lora_rank: int = Field(default=8, ge=1, description="rank of LoRA's matrices")
    lora_layers: int | None = Field(default=None, ge=1, description="LoRA in the top n layers only; null: in all")
    size: int = Field(default=128, ge=16, le=1024, description="images: side in pixels after resizing")
    max_images: int = Field(default=4, ge=1, description="images: at most so many per item, the first ones")
    max_length: int = Field(default=64, ge=4, le=8192, description="texts: tokens kept; what is cut off is counted")

    @field_validator("train")
    @classmethod
    def _train(cls, value: str) -> str:
        if not TRAIN_PATTERN.match(value):
            raise ValueError("use none, lora, all or top:<n> with n >= 1, for example top:1")
        return value


class FusionConfig(Record):
    """How the features of an item become its content embedding (EM3 section 3.2)."""

    kind: Literal["fqformer", "concat", "sum"] = Field(
        default="fqformer", description="attention with shared queries, one linear map, or the mean"
    )
    queries: int = Field(default=2, ge=1, description="fqformer: trainable queries, shared by all items")
    layers: int = Field(default=1, ge=1, description="fqformer: transformer layers")
    heads: int = Field(default=4, ge=1, description="fqformer: attention heads; content.dim must be a multiple of it")
    ffn: bool = Field(
        default=False, description="fqformer: a feed-forward sublayer after attention (the published code has none)"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout inside the fusion")


class ContentConfig(Record):
    """From raw fields to content embeddings. Any other key is a field's name, or `image` / `text` for all of a kind."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    dim: int = Field(default=64, ge=1, description="width of a content embedding")
    fusion: FusionConfig = Field(default_factory=FusionConfig, description="how the features of an item are joined")
    order: list[str] | None = Field(
        default=None,
        description="retrieval models: order of modalities for models that give them roles, all fields in use; null: "
        "the dataset's: images, texts, ready-made",
    )
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
            elif key in ("image", "text"):
                raise ValueError(_has_settings(f"content.{key}", sub, FieldConfig))
            else:
                known = [*(name for name in cls.model_fields if name != "fields"), "image", "text"]
                raise ValueError(_unknown(f"content.{key}", str(key), known) + ", or a field of the dataset")
        return {**rest, "fields": fields}


class BankConfig(Record):
    """The table of content that histories read (DESIGN: the bank)."""

    history_grad: Literal["live", "none"] = Field(
        default="live",
        description="a live row carries gradient also where it stands in a history (live) or not (none: LEMUR)",
    )
    live_budget: int | None = Field(default=None, ge=1, description="at most so many items encoded per step; null: all")
    warm_start: bool = Field(
        default=True, description="write every row before the first step, so that histories are whole"
    )
    micro_batch: int = Field(
        default=256, ge=1, description="items encoded at once; more are done with gradient caching"
    )


# -------------------------------------------------------------------------------------------------------------- models
class RankerConfig(Record):
    """A ranking model: `id` (ids alone) or `em3` (content and interest beside ids)."""

    name: Literal["id", "em3"] = Field(default="em3", description="id: ids alone; em3: content and interest beside ids")
    dim: int = Field(default=32, ge=1, description="width of id embeddings and of attention")
    hidden: list[Count] = Field(default=[128, 64], description="widths of the MLP's hidden layers")
    dropout: float = Field(default=0.4, ge=0, lt=1, description="dropout after each hidden layer")
    item_id: bool = Field(default=True, description="item id embedding as an input of the ranker")
    user_id: bool = Field(default=True, description="user id embedding as an input of the ranker")
    id_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of ids read as the unknown id while training")
    id_history: int = Field(
        default=20,
        ge=1,
        description="most recent items whose ids the ranker attends to; content reads all of data.history",
    )
    columns: Literal["all", "none"] | list[str] = Field(
        default="none", description="categorical and numeric item columns that the ranker reads"
    )
    popularity: bool = Field(
        default=False, description="log of the item's and of the user's training rows as inputs of the ranker"
    )
    cic_weight: float = Field(
        default=0.1, ge=0, description="weight of the Content-ID contrastive loss (eq. 14); 0: none"
    )
    cic_temperature: float = Field(default=0.1, gt=0, description="temperature of that loss")

    @field_validator("columns", mode="wrap")
    @classmethod
    def _columns(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError("use all, none or a list of columns, for example [genres,year]") from None


RANKERS: tuple[str, ...] = get_args(RankerConfig.model_fields["name"].annotation)
RETRIEVAL: dict[str, type[RetrievalConfig]] = {
    record.model_fields["name"].default: record
    for record in vars(configs).values()
    if isinstance(record, type) and issubclass(record, RetrievalConfig) and record is not RetrievalConfig
}
"""The records of retrieval models by name: those that `models/retrieval/configs.py` defines."""


def _model_name(value: Any) -> Any:
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    return RANKERS[0] if name in RANKERS else name


if TYPE_CHECKING:
    ModelConfig = Any
else:
    _TAGGED = tuple(Annotated[record, Tag(name)] for name, record in {RANKERS[0]: RankerConfig, **RETRIEVAL}.items())
    ModelConfig = Annotated[Union[_TAGGED], Discriminator(_model_name)]  # noqa: UP007


# ------------------------------------------------------------------------------------------------- training, evaluation
BUCKET = r"((cold|rare|medium|warm)/)?"
IMPRESSION_METRIC = re.compile(rf"^{BUCKET}(auc|gauc|logloss|ece|share)$")
LIST_METRIC = re.compile(rf"^{BUCKET}(recall|ndcg|precision|map)@([1-9][0-9]*)$")
NO_GRADIENT: dict[str, tuple[str, float, str]] = {
    "freedom": ("reg_weight", 0, "features only make the frozen item graph"),
    "bm3": ("cl_weight", 0, "features have no part in the loss"),
    "lattice": ("lambda_coeff", 1, "the item graph is the frozen one alone"),
}
"""Retrieval model -> a setting, the value under which no gradient of the loss reaches the features, and why."""
RETRIEVAL_DEFAULTS: dict[str, Any] = {
    "paradigm": "hybrid",
    "train": {
        "epochs": 1000,
        "batch_size": 2048,
        "lr": 1e-3,
        "weight_decay": 0.0,
        "patience": 20,
        "metric": "recall@20",
    },
}
"""What the settings that rankers share are for a retrieval model unless given: as its published runs had them."""


OUR_NAMES: dict[str, tuple[str, ...]] = {
    "embedding_size": ("model.embedding_size", "model.recdim", "model.latent_dim", "model.dim"),
    "eval_batch_size": ("eval.batch_size",),
    "learning_rate": ("train.lr",),
    "learning_rate_scheduler": ("train.lr_decay",),
    "n_layers": ("model.n_layers", "model.n_ui_layers", "model.layer_num"),
    "stopping_step": ("train.patience",),
    "train_batch_size": ("train.batch_size",),
    "valid_metric": ("train.metric",),
}
"""What MMRec and RecBole call a setting -> what it is here: the first of these that the model has."""


class TrainConfig(Record):
    """The training loop."""

    epochs: int = Field(default=10, ge=1, description="at most so many passes over the training part")
    batch_size: int = Field(default=256, ge=1, description="samples per batch")
    accumulate: int = Field(default=1, ge=1, description="batches per optimiser step")
    lr: float = Field(default=3e-3, gt=0, description="learning rate of everything but encoders")
    encoder_lr: float = Field(default=1e-4, gt=0, description="learning rate of the encoders' trained layers")
    lr_decay: float = Field(
        default=1.0, gt=0, le=1, description="retrieval models: factor of the learning rate per 50 epochs, gradually"
    )
    weight_decay: float = Field(
        default=0.1,
        ge=0,
        description="weight decay of weight matrices other than encoders (none) and id embeddings (AdamW); retrieval "
        "models: L2 penalty of all parameters but encoders' (Adam)",
    )
    id_weight_decay: float = Field(default=5.0, ge=0, description="weight decay of id embeddings")
    ema: float = Field(
        default=0.998,
        ge=0,
        lt=1,
        description="decay per step of the averaged weights that are evaluated and kept; 0: the last weights",
    )
    warmup_steps: int = Field(default=50, ge=0, description="steps over which the learning rates rise to their values")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    patience: int = Field(default=3, ge=1, description="epochs without improvement before the run stops")
    metric: str = Field(
        default="auc",
        description="validation metric that early stopping follows: auc, gauc, logloss, ece, share (generated data); "
        "retrieval models: recall@K, ndcg@K, precision@K, map@K; or one of them within a bucket, as cold/auc",
    )
    device: str = Field(default="auto", description="auto | cpu | cuda | cuda:<n>")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    checkpoint_every: int = Field(default=500, ge=1, description="steps between checkpoints inside an epoch")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; null: all cores")

    @field_validator("metric")
    @classmethod
    def _metric(cls, value: str) -> str:
        if not (IMPRESSION_METRIC.match(value) or LIST_METRIC.match(value)):
            raise ValueError(
                "use auc, gauc, logloss, ece or share, for retrieval models recall@20 or the like, or one of them "
                "in a bucket, for example cold/auc"
            )
        return value


class EvalConfig(Record):
    """What is measured, and how."""

    topk: list[Count] = Field(
        default=[5, 10, 20, 50], min_length=1, description="cut-offs of Recall, NDCG, Precision and MAP"
    )
    protocol: Literal["default", "mmrec"] = Field(
        default="default",
        description="retrieval models; default: lists leave out what the user took in earlier parts; mmrec: training "
        "positives only, also at test, users unseen in training are dropped, early stopping compares values rounded to "
        "4 decimals and comes one evaluation after train.patience",
    )
    batch_size: int = Field(default=4096, ge=1, description="impressions scored at once")
    full_ranking: bool = Field(default=True, description="Recall@K and the like over the full catalogue on test")
    bootstrap: int = Field(default=1000, ge=0, description="resamplings of users behind an interval")


class Config(Record):
    """Every setting of a run; `config.yaml` of a run folder holds all of it, resolved."""

    model: ModelConfig = Field(
        default_factory=RankerConfig, description="the model; its name says which settings it has"
    )
    paradigm: Literal["frozen", "hybrid", "end_to_end"] = Field(
        default="end_to_end",
        description="what is trained of the content: nothing (frozen), fusion (hybrid), encoders too (end_to_end); "
        "retrieval models map and join features in ways of their own, so that frozen and hybrid are the same for them",
    )
    seed: int = Field(default=0, ge=0, description="of weights, order and negatives; the same seed gives the same run")
    data: DataConfig = Field(default_factory=DataConfig, description="what is read")
    content: ContentConfig = Field(default_factory=ContentConfig, description="from raw fields to content embeddings")
    bank: BankConfig = Field(default_factory=BankConfig, description="the table of content that histories read")
    train: TrainConfig = Field(default_factory=TrainConfig, description="the training loop")
    eval: EvalConfig = Field(default_factory=EvalConfig, description="what is measured")

    @property
    def retrieval(self) -> bool:
        """Whether the model scores all items for a user (retrieval) or one impression (ranking)."""
        return isinstance(self.model, RetrievalConfig)

    @model_validator(mode="before")
    @classmethod
    def _fitting_defaults(cls, value: Any) -> Any:
        """A model without a name is the default one; a retrieval model has defaults of its own."""
        if not isinstance(value, Mapping) or not isinstance(value.get("model"), Mapping):
            return value
        model = {"name": RankerConfig().name, **value["model"]}
        value = {**value, "model": model}
        if model["name"] not in RETRIEVAL or not isinstance(value.get("train", {}), Mapping):
            return value
        train = {**RETRIEVAL_DEFAULTS["train"], **value.get("train", {})}
        if "train_batch_size" in RETRIEVAL[model["name"]].model_fields:
            model = {"train_batch_size": train["batch_size"], **model}
        return {**RETRIEVAL_DEFAULTS, **value, "train": train, "model": model}

    @model_validator(mode="after")
    def _metric_fits(self) -> Config:
        metric, name = self.train.metric, self.model.name
        cut = LIST_METRIC.match(metric)
        if not self.retrieval and cut:
            raise ValueError(f"train.metric={metric}: model {name} is judged by impressions; use for example auc")
        if self.retrieval and not cut:
            raise ValueError(f"train.metric={metric}: model {name} is judged by lists; use for example recall@20")
        if cut and int(cut[4]) not in self.eval.topk:
            raise ValueError(
                f"train.metric={metric}: lists are cut at eval.topk={self.eval.topk}; add {cut[4]} to it, or use "
                f"{cut[3]}@{max(self.eval.topk)}"
            )
        return self

    @model_validator(mode="after")
    def _heads(self) -> Config:
        dim, fusion = self.content.dim, self.content.fusion
        if self.model.name == "em3" and self.paradigm != "frozen" and fusion.kind == "fqformer" and dim % fusion.heads:
            raise ValueError(
                f"content.dim={dim} is no multiple of content.fusion.heads={fusion.heads}; "
                f"use for example content.dim={math.ceil(dim / fusion.heads) * fusion.heads}"
            )
        return self

    @model_validator(mode="after")
    def _encoders_get_gradient(self) -> Config:
        setting, value, reason = NO_GRADIENT.get(self.model.name, ("name", None, ""))
        if self.paradigm == "end_to_end" and getattr(self.model, setting) == value:
            usual = type(self.model).model_fields[setting].default
            raise ValueError(
                f"paradigm=end_to_end: with model.{setting}={value} no gradient reaches the encoders, for {reason}; "
                f"use for example model.{setting}={usual}, or paradigm=hybrid"
            )
        return self

    def dump(self) -> dict[str, Any]:
        """Plain values, complete: what `config.yaml` holds."""
        return self.model_dump(mode="json")


# ---------------------------------------------------------------------------------------------------------- resolution
def presets() -> dict[str, str]:
    """Name and text of every preset that comes with the package."""
    folder = resources.files("rawrec") / "presets"
    return {p.name.removesuffix(".yaml"): p.read_text() for p in folder.iterdir() if p.name.endswith(".yaml")}


def resolve(
    preset: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Config:
    """The config of a preset's name, a YAML file or a mapping, with `{"train.epochs": 5}`-style overrides.

    kinds: "image", "text" or "feature" for the fields of the dataset, so that overrides of single ones can be judged.
    Raises UserError for what is unknown or impossible, and for an override that would do nothing.
    """
    tree = dict(preset) if isinstance(preset, Mapping) else _read_preset(preset)
    flat = dict(_flatten(overrides or {}))
    for key, value in flat.items():
        _give_way(tree, key, kinds or {})
        _set(tree, key, value)
    cfg = validate(tree)
    for key, value in flat.items():
        reason = _idle(cfg, key, value, kinds or {})
        if reason is not None:
            raise UserError(f"{key}={_short(value)} would do nothing: {reason}")
    return cfg


def _read_preset(preset: str | Path) -> dict[str, Any]:
    known, path = presets(), Path(preset)
    if str(preset) in known:
        text = known[str(preset)]
    elif path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"config file {path} does not exist")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"config file {path} is no text in UTF-8") from None
    else:
        raise UserError(_unknown("model", str(preset), sorted(known)) + ", or the path of a .yaml file")
    try:
        tree = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{preset} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{preset} must hold settings as `key: value`, found {type(tree).__name__}")
    return tree


def validate(tree: Mapping[str, Any]) -> Config:
    """A `Config` from nested plain values; every mistake becomes a `UserError` that names it."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        model = RETRIEVAL.get(_model_name(tree.get("model")), RankerConfig)
        raise UserError("\n".join(dict.fromkeys(_explain(e, model) for e in error.errors()))) from None


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """`["train.epochs=5"]` -> `{"train.epochs": 5}`; values are YAML."""
    result = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(f"override {word!r} is not of the form key=value, for example train.epochs=5")
        if key in result:
            raise UserError(f"override {word!r}: {key} is given twice")
        try:
            result[key] = yaml.safe_load(_float(text))
        except (yaml.YAMLError, ValueError, RecursionError):
            raise UserError(f"override {word!r}: the value is not valid YAML") from None
    return result


def _float(text: str) -> str:
    """YAML 1.1 reads 1e-3 as a string; people mean a number."""
    return repr(float(text)) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text) else text


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Overrides as single settings: `{"content.image": {"train": "all"}}` is `content.image.train`."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield re.sub(r"^content\.fields\.", "content.", f"{prefix}{key}"), value


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for i, part in enumerate(parents):
        sub = tree.get(part)
        if sub is not None and not isinstance(sub, Mapping):
            raise UserError(f"{key}: {'.'.join(parents[: i + 1])} holds the value {sub!r}, not settings of its own")
        tree[part] = dict(sub or {})  # a copy: the preset may be the caller's own
        tree = tree[part]
    tree[last] = value


def _give_way(tree: dict[str, Any], key: str, kinds: Mapping[str, str]) -> None:
    """An override for all fields of a kind also replaces what a complete config (of a run) says of each of them."""
    part = key.split(".")
    fields = (tree.get("content") or {}).get("fields")
    if len(part) != 3 or part[0] != "content" or part[1] not in ("image", "text") or not isinstance(fields, Mapping):
        return
    replaced = {
        name: {k: v for k, v in field.items() if kinds.get(name) != part[1] or k != part[2]}
        for name, field in fields.items()
        if isinstance(field, Mapping)
    }
    tree["content"] = {**tree["content"], "fields": {**fields, **replaced}}


def _idle(cfg: Config, key: str, value: Any, kinds: Mapping[str, str]) -> str | None:
    """Why a setting has no effect under the rest of the config; None where it has one."""
    of_features = re.fullmatch(r"paradigm|content\..+|bank\..+|train\.(encoder_lr|precision)", key)
    if cfg.retrieval and of_features and not retrieval_model(cfg.model.name).reads_features(cfg.model):
        return f"model {cfg.model.name} reads no features of items"
    for pattern, holds, reason in _retrieval_rules(cfg) if cfg.retrieval else _ranking_rules(cfg):
        if holds and re.fullmatch(pattern, key):
            return reason
    part = key.split(".")
    if len(part) == 3 and part[0] == "content" and part[1] != "fusion":
        return _idle_field(cfg, part[1], part[2], value, kinds)
    return None


def _ranking_rules(cfg: Config) -> list[tuple[str, bool, str]]:
    """Settings (a pattern of their keys), whether they have no effect, and why."""
    end_to_end, fusion = cfg.paradigm == "end_to_end", cfg.content.fusion.kind
    return [
        (
            r"paradigm|content\..+|bank\..+|model\.cic_.+|train\.(encoder_lr|precision)",
            cfg.model.name == "id",
            "model id has no content. Leave it out, or train em3",
        ),
        (r"train\.encoder_lr", not end_to_end, f"paradigm={cfg.paradigm} trains no encoder; use paradigm=end_to_end"),
        (r"bank\.live_budget", not end_to_end, f"paradigm={cfg.paradigm} encodes every item; use paradigm=end_to_end"),
        (r"content\.fusion\..+", cfg.paradigm == "frozen", "paradigm=frozen has no fusion; use hybrid or end_to_end"),
        (r"bank\.warm_start", cfg.paradigm == "frozen", "paradigm=frozen always writes every row first"),
        (
            r"content\.fusion\.(queries|layers|heads|ffn)",
            fusion != "fqformer",
            f"content.fusion.kind={fusion} has no such part; use content.fusion.kind=fqformer",
        ),
        (r"model\.cic_temperature", not cfg.model.cic_weight, "model.cic_weight=0 switches that loss off"),
        (
            r"model\.id_dropout",
            not (cfg.model.item_id or cfg.model.user_id or cfg.model.cic_weight),
            "the model reads no ids (model.item_id=false, model.user_id=false)",
        ),
        (r"eval\.topk", not cfg.eval.full_ranking, "eval.full_ranking=false makes no lists; set it to true"),
        (
            r"eval\.protocol|train\.lr_decay|content\.order",
            True,
            f"it is a setting of retrieval models, and {cfg.model.name} is none",
        ),
    ]


def _retrieval_rules(cfg: Config) -> list[tuple[str, bool, str]]:
    """The same for a retrieval model."""
    name, end_to_end = cfg.model.name, cfg.paradigm == "end_to_end"
    trains_none = f"paradigm={cfg.paradigm} trains no encoder; use paradigm=end_to_end"
    return [
        (r"data\.(history|history_mode)", True, f"model {name} reads no histories"),
        (r"data\.negatives", True, f"model {name} draws one negative per positive, or none, as it was published"),
        (r"content\.(dim|fusion\..+)", True, f"model {name} joins features in its own way; see model.*"),
        (r"bank\.history_grad", True, f"model {name} reads no histories"),
        (r"bank\.warm_start", True, f"model {name} reads all items' features, so every row is written first"),
        (r"bank\.(live_budget|micro_batch)|train\.encoder_lr", not end_to_end, trains_none),
        (
            r"train\.(id_weight_decay|ema|warmup_steps|clip|accumulate|checkpoint_every)",
            True,
            f"it is a setting of ranking models, and {name} is none",
        ),
        (r"eval\.full_ranking", True, f"model {name} is always evaluated by lists of the full catalogue"),
        (r"eval\.batch_size", True, f"model {name} makes lists for as many users at once as fit its catalogue"),
        *((rf"model\.({'|'.join(rule.options)})", rule.when(cfg.model), rule.reason) for rule in cfg.model.idle_rules),
    ]


def _idle_field(cfg: Config, name: str, setting: str, value: Any, kinds: Mapping[str, str]) -> str | None:
    """The same for a setting of one field, or of all fields of a kind."""
    kind = name if name in ("image", "text") and name not in kinds else kinds.get(name)
    settings: dict[str, Any] = {}
    for source in dict.fromkeys((kind, name)):
        if source in cfg.content.fields:
            settings |= cfg.content.fields[source].model_dump(exclude_unset=True)
    field = FieldConfig.model_validate(settings)
    if kind == "feature" and setting != "use":
        return f"{name} is a ready-made feature, and its only setting is content.{name}.use"
    if setting == "train" and value != "none" and cfg.paradigm != "end_to_end":
        return f"paradigm={cfg.paradigm} keeps encoders frozen; use paradigm=end_to_end"
    if setting != "use" and not field.use:
        return f"content.{name}.use=false leaves the field out"
    # A field's own `train` may differ from its kind's: lora anywhere among them is enough.
    trains = [field.train] + [f.train for n, f in cfg.content.fields.items() if name in ("image", "text", kinds.get(n))]
    if setting in ("lora_rank", "lora_layers") and "lora" not in trains:
        return f"content.{name}.train={field.train} has no LoRA; use content.{name}.train=lora"
    if setting in ("size", "max_images") and kind == "text":
        return "it is a setting of image fields"
    if setting == "max_length" and kind == "image":
        return "it is a setting of text fields; images have size"
    return None


# ------------------------------------------------------------------------------------------------------------- in words
def describe() -> str:
    """All settings as a Markdown page, made from the records: what `docs/settings.md` holds."""
    lines = [
        "# Settings",
        "",
        "Every setting of a run, with its default. Give them as `key=value` after `rawrec train MODEL`, or in a YAML",
        "file whose path stands in place of the model's name. `config.yaml` of a run folder holds all of them.",
        "",
        "This page is generated from `rawrec.config` (`python -m rawrec.config > docs/settings.md`).",
        "",
        *_table("Run", Config, ""),
        *_table(f"model ({', '.join(RANKERS)})", RankerConfig, "model."),
    ]
    for name, record in RETRIEVAL.items():
        lines += _table(f"model ({name})", record, "model.")
    lines += _retrieval_defaults()
    for name, field in Config.model_fields.items():
        record = field.annotation
        if isinstance(record, type) and issubclass(record, BaseModel):
            lines += _table(name, record, f"{name}.")
    lines += _table("content.fusion", FusionConfig, "content.fusion.")
    lines += _table("content.<field>", FieldConfig, "content.<field>.")
    return "\n".join(lines)


def _retrieval_defaults() -> list[str]:
    flat = dict(_flatten(RETRIEVAL_DEFAULTS))
    return [
        "## Defaults of retrieval models",
        "",
        "Retrieval models have other defaults than the tables below say, those of their published runs:",
        ", ".join(f"`{key}={value}`" for key, value in flat.items()) + ".",
        "",
    ]


def _table(title: str, record: type[BaseModel], prefix: str) -> list[str]:
    doc = " ".join((record.__doc__ or "").split())
    lines = [f"## {title}", "", doc, "", "| setting | values | default | meaning |", "|---|---|---|---|"]
    for name, field in record.model_fields.items():
        if field.annotation is not None and not _is_record(field.annotation):
            default = yaml.safe_dump(field.get_default(call_default_factory=True), default_flow_style=True)  # type: ignore[call-arg]
            values = _values(field).replace("|", "\\|")
            text = (field.description or "").replace("|", "\\|")
            lines.append(f"| `{prefix}{name}` | {values} | `{default.splitlines()[0]}` | {text} |")
    return [*lines, ""]


def _is_record(kind: Any) -> bool:
    """Whether a field's type is a record, or a choice between records."""
    return (isinstance(kind, type) and issubclass(kind, BaseModel)) or any(map(_is_record, get_args(kind)))


def _values(field: FieldInfo) -> str:
    bounds = [f"{sign} {getattr(m, key)}" for m in field.metadata for key, sign in BOUNDS.items() if hasattr(m, key)]
    return ", ".join([_kind(field.annotation), *bounds])


BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
KINDS = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", type(None): "null"}


def _kind(kind: Any) -> str:
    """A type in words."""
    if kind in KINDS:
        return KINDS[kind]
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return " | ".join(f"`{part}`" for part in parts)
    if get_origin(kind) is list:
        return f"list of {_kind(parts[0])}s"
    if get_origin(kind) is Annotated:
        return _kind(parts[0])
    return " or ".join(_kind(part) for part in parts)


def _plain(value: Any) -> dict[str, Any]:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else dict(value)


def _unknown(where: str, word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"{where}: {word!r} is unknown{hint} Known: {', '.join(known)}"


def _short(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _elsewhere(name: str, model: type[BaseModel]) -> str | None:
    """The setting that an unknown `name` stands for: one of another part of the config, or another program's word."""
    parts = {"": Config, "model.": model, "train.": TrainConfig, "eval.": EvalConfig, "data.": DataConfig}
    known = [prefix + setting for prefix, record in parts.items() for setting in record.model_fields]
    meant = [*OUR_NAMES.get(name, ()), *(prefix + name for prefix in parts)]
    return next((key for key in meant if key in known), None)


def _explain(error: Any, model: type[BaseModel]) -> str:
    """One sentence about one problem that pydantic found: the setting, the value, what would work.

    model: the record of the model in question.
    """
    record: type[BaseModel] | None = Config
    path: list[str] = []
    for part in map(str, error["loc"]):
        if record is None:  # inside a value: a list's index, a union's branch
            break
        if record is ContentConfig and part == "fields":
            continue
        if record is RankerConfig and path == ["model"] and part in (*RANKERS, *RETRIEVAL):  # a branch of the union
            record = RETRIEVAL.get(part, RankerConfig)
            continue
        path.append(part)
        if part in record.model_fields:
            kind = record.model_fields[part].annotation
            record = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
            record = RankerConfig if path == ["model"] else record
        elif record is ContentConfig:
            record = FieldConfig
        elif meant := _elsewhere(part, model):
            return f"{'.'.join(path)}: unknown; rawrec calls it {meant}"
        else:
            return _unknown(".".join(path), part, list(record.model_fields))
    where, message = ".".join(path), error["msg"].removeprefix("Value error, ")
    if error["type"] == "union_tag_invalid":
        return _unknown("model.name", str(error["ctx"]["tag"]), [*RANKERS, *RETRIEVAL])
    if record is None:
        return f"{where}={_short(error['input'])}: {message[:1].lower()}{message[1:]}"
    if error["type"] == "value_error":  # a check across settings, which names them itself
        return message
    return _has_settings(where, error["input"], record)


def _has_settings(where: str, value: Any, record: type[BaseModel]) -> str:
    names = ", ".join(f"{where}.{name}" for name in record.model_fields)
    return f"{where}={_short(value)}: {where} holds settings of its own: {names}"


if __name__ == "__main__":
    print(describe())
