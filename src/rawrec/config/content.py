"""Settings of content: its fields, how they are joined, and the bank that keeps what comes out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from rawrec.config.parts import ContentFusion
from rawrec.config.records import Record, Size
from rawrec.config.wording import has_settings, unknown

HANDOVER_PATTERN = re.compile(r"^(none|settled|epoch:[1-9][0-9]{0,8})$")
JOINT = "joint:"
"""How names of LEMUR's transformer begin, which makes an item's content itself."""
QUERY_PATTERN = re.compile(r"^(own|shared|joint:.+)$")
TRAIN_PATTERN = re.compile(r"^(none|all|lora|(top|side):[1-9][0-9]{0,8})$")


class FieldConfig(Record):
    """How one image or text field becomes a feature."""

    use: bool = Field(default=True, description="false leaves the field out")
    encoder: str | None = Field(
        default=None,
        description="efficientnet_lite0, minilm, a hub name or local folder, random:<arch>, a registered one; null: "
        "by kind. content.item alone: joint:<tiny, paper, base, or a text encoder>, LEMUR's transformer of all texts; "
        "an image field is read by it where its own encoder is patches, or one whose grid is read",
    )
    train: str = Field(
        default="none",
        description="none | side:<n> | lora | top:<n> | all: which layers of the encoder learn; side: none of them, "
        "but a small network that reads what n of them say of an item; where anything learns, the features are no "
        "parameters of a retrieval model, whatever model.train_features says",
    )
    side_width: Size = Field(default=64, description="side:<n>: width inside the network beside the layers")
    lora_rank: int = Field(
        default=8, ge=1, description="rank of LoRA's matrices, at most the width of the widest matrix that it adapts"
    )
    lora_layers: int | None = Field(default=None, ge=1, description="LoRA in the top n layers only; null: in all")
    layers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="joint: layers of the transformer; null: as its size has them, or the first 4 of a text encoder",
    )
    recompute: bool = Field(
        default=False,
        description="layers that learn are computed a second time in the backward pass, in which the first one's "
        "inner values need not be kept: less memory, more time, the same gradients",
    )
    output: Literal["projected", "pooled"] = Field(
        default="projected",
        description="CLIP and its relatives: the feature in the space that pictures and texts share, or the one before "
        "the projection; other encoders have one feature",
    )
    size: int | None = Field(
        default=None,
        ge=16,
        le=1024,
        description="images: side in pixels after resizing; null: as the encoder was made for, else 128",
    )
    max_images: int = Field(default=4, ge=1, description="images: at most so many per item, the first ones")
    tokens: Literal["mean", "each"] = Field(
        default="mean",
        description="what several pictures or texts of an item are to the fusion: one token, of the mean over pictures "
        "or of all texts as one (mean), or one token each (each), up to max_images and max_texts; "
        "of retrieval models em3_freedom has a fusion",
    )
    max_texts: int = Field(
        default=4, ge=1, description="texts with tokens=each: tokens per item; the last is of all further texts as one"
    )
    max_length: int | None = Field(
        default=None,
        ge=4,
        le=8192,
        description="texts: tokens kept, what is cut off is counted; null: 64, or as CLIP and its kin were trained; "
        "joint: of each field, [sep] apart",
    )

    @field_validator("train")
    @classmethod
    def _train(cls, value: str) -> str:
        if not TRAIN_PATTERN.match(value):
            raise ValueError("use none, lora, all, top:<n> or side:<n> with n >= 1, for example top:1")
        return value

    @property
    def side(self) -> int:
        """How many layers the network beside them reads; 0 where there is none."""
        return int(self.train.removeprefix("side:")) if self.train.startswith("side:") else 0


class FusionConfig(Record):
    """How the features of an item become its content embedding (EM3 section 3.2)."""

    kind: ContentFusion = Field(
        default="fqformer",
        description="fqformer (attention with shared queries), masked_fq_former (nobody attends to the queries), "
        "one_flow (transformer layers over the tokens alone), two_flow (one of pictures, one of texts, with "
        "cross-attention), concat (one linear map), sum (the mean), none (an item's one feature is its content as it "
        "is: of content.item.encoder=joint:..., end to end or frozen), or your own",
    )
    queries: int = Field(
        default=2, ge=1, description="fqformer, masked_fq_former: trainable queries, shared by all items"
    )
    layers: int = Field(default=1, ge=1, description="fusions with attention: transformer layers")
    heads: int = Field(
        default=4, ge=1, description="fusions with attention: heads; content.dim must be a multiple of it"
    )
    ffn: bool = Field(
        default=False,
        description="fusions with attention: a feed-forward sublayer after it (the published code has none)",
    )
    field_embedding: bool = Field(
        default=False,
        description="a learned vector of its field is added to every token; beside the bias of the field's projection, "
        "which is one, too",
    )
    text_flow: list[str] | None = Field(
        default=None,
        min_length=1,
        description="two_flow: the features of its text flow, all others being the picture flow; null: text fields",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout inside the fusion")


class LoraConfig(Record):
    """LoRA on projections and fusion, for long histories (EM3 section 3.3.2): a first phase in which all of them learns
    from histories of data.history, then one in which small matrices beside the frozen ones learn from longer ones."""

    handover: str = Field(
        default="none",
        description="when the second phase begins: epoch:<n>, after n epochs; settled, when every matrix changed less "
        "than 1 % over an epoch; both also when train.patience would end the first phase; none: never",
    )
    rank: int = Field(default=8, ge=1, description="rank of the small matrices")
    history: int | None = Field(
        default=None, ge=1, le=65536, description="data.history of the second phase; null: that of the first"
    )
    stop_gradient: bool = Field(
        default=True,
        description="the frozen matrix passes no gradient to what is below it (eq. 9); false: LoRA as it is usual",
    )

    @field_validator("handover")
    @classmethod
    def _handover(cls, value: str) -> str:
        if not HANDOVER_PATTERN.match(value):
            raise ValueError("use none, settled, or epoch:<n> with n >= 1, for example epoch:3")
        return value

    @property
    def after(self) -> int | None:
        """The epochs of the first phase, where they are given."""
        return int(self.handover.removeprefix("epoch:")) if self.handover.startswith("epoch:") else None


class QueryConfig(Record):
    """How what a user typed becomes a vector in the space of items' content (LEMUR)."""

    encoder: str | None = Field(
        default=None,
        description="own (a transformer of its own, made as that of content.item.encoder=joint:...), shared (that one "
        "itself; ours), or joint:<tiny, paper, base, or a text encoder>; null: own, or joint:paper beside encoders of "
        "other kinds",
    )
    layers: int | None = Field(
        default=None, ge=1, le=1024, description="layers; null: 2, or as the size has them (tiny 1, base 4)"
    )
    max_length: int = Field(default=16, ge=1, le=1024, description="words of a query that are read")
    train: Literal["none", "all"] = Field(
        default="all",
        description="whether it learns, at train.encoder_lr, whatever the paradigm; shared: as the items'",
    )

    @field_validator("encoder")
    @classmethod
    def _encoder(cls, value: str | None) -> str | None:
        if value is not None and not QUERY_PATTERN.match(value):
            raise ValueError("use own, shared, or joint:<size or text encoder>, for example joint:paper")
        return value


class ContentConfig(Record):
    """From raw fields to content embeddings.

    Any other key is a field's name, `image` or `text` for all of a kind, or `item` for one encoder of all of them,
    whose networks they share.
    """

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    dim: int = Field(
        default=64, ge=1, description="width of a content embedding; with content.item.encoder=joint:... 128"
    )
    fusion: FusionConfig = Field(default_factory=FusionConfig, description="how the features of an item are joined")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="LoRA on projections and fusion")
    order: list[str] | None = Field(
        default=None,
        description="retrieval models: order of modalities for models that give them roles, all fields in use; null: "
        "the dataset's: images, texts, ready-made",
    )
    features: list[str] | None = Field(
        default=None,
        min_length=1,
        description="which of the features that encoders make enter the model, by name: of a field, or, of an encoder "
        "of whole items, image, text, image_text; null: all",
    )
    itc_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the image-text contrast beside the model's own loss, end to end: an item's pictures and "
        "texts are told from those of the step's other items; their features must be of one width (CLIP, VLMo, pair:)",
    )
    query: QueryConfig = Field(default_factory=QueryConfig, description="how queries are read, by models that do so")
    fields: dict[str, FieldConfig] = Field(default_factory=dict, description="resolved, one per field of the dataset")

    @property
    def joint(self) -> bool:
        """Whether an item's content is made by LEMUR's transformer."""
        item = self.fields.get("item")
        return item is not None and (item.encoder or "").startswith(JOINT)

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        given = value.get("fields") or {}
        if not isinstance(given, Mapping):
            return value  # which is refused by its type
        fields = dict(given)
        rest = {}
        for key, sub in value.items():
            if key in cls.model_fields:
                rest[key] = sub
            elif isinstance(sub, Mapping | FieldConfig):
                if not isinstance(known := fields.get(key, {}), Mapping | FieldConfig):
                    raise ValueError(has_settings(f"content.fields.{key}", known, FieldConfig))
                fields[key] = {**_plain(known), **_plain(sub)}
            elif key in ("image", "text", "item"):
                raise ValueError(has_settings(f"content.{key}", sub, FieldConfig))
            else:
                known = [*(name for name in cls.model_fields if name != "fields"), "image", "text", "item"]
                raise ValueError(unknown(f"content.{key}", str(key), known) + ", or a field of the dataset")
        return {**rest, "fields": fields}


def _plain(value: Any) -> dict[str, Any]:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else dict(value)


class BankConfig(Record):
    """The table of content that histories read (DESIGN: the bank)."""

    history: Literal["live", "bank"] = Field(
        default="live",
        description="hybrid: content of histories is made in every step, with gradient (live), or read from the bank, "
        "as it was when the item was last a candidate (bank): a step then costs the same whatever data.history",
    )
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
    forward_rate: float = Field(
        default=100.0,
        gt=0,
        le=100,
        description="percent of a step's candidates that are encoded, drawn anew in every step; of the others the "
        "bank's features are read (LEMUR: 20)",
    )
    backward_rate: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="percent of a step's candidates through whose encoding a gradient goes, at most forward_rate "
        "(LEMUR: 20); null: all that are encoded. Projections and fusion, which cost little, learn from all candidates",
    )
    sampling: Literal["uniform", "popularity"] = Field(
        default="uniform",
        description="which candidates these are: any, or more often those with more training rows (the paper says "
        "neither)",
    )
    refresh_share: Literal["all"] | Annotated[float, Field(ge=0, le=100)] = Field(
        default=0.0,
        description="ours: after each step the rows that were made longest ago are made anew, so many for each item "
        "that the step made; 0: none; all: every row, so that none is ever stale, at the cost of the whole catalogue",
    )
    momentum: float = Field(
        default=0.0, ge=0, lt=1, description="ours: share of a row's old content that stays when training rewrites it"
    )
    dtype: Literal["float32", "bf16", "int8"] = Field(
        default="float32",
        description="ours: numbers of the rows in training; int8 has a scale per row. What evaluation reads, and what "
        "is published, is float32",
    )
    capacity: int | None = Field(
        default=None,
        ge=1,
        description="ours: at most so many rows in training, those of the items that were used last; null: one for "
        "each item. Evaluation and publishing hold all",
    )

    @field_validator("refresh_share", mode="wrap")
    @classmethod
    def _refresh_share(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError("use a number from 0 to 100, or all") from None

    @model_validator(mode="after")
    def _nothing_but_what_is_encoded_learns(self) -> Self:
        if (self.backward_rate or 0) > self.forward_rate:
            raise ValueError(
                f"bank.backward_rate={self.backward_rate:g}: a gradient goes through what is encoded alone, that is "
                f"bank.forward_rate={self.forward_rate:g} percent; raise the one, or lower the other"
            )
        return self
