"""Settings of ranking models, by the part that reads them: inputs, content part, and one record per head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from rawrec.config.lemur import LemurConfig
from rawrec.config.records import Count, ModelRecord, Record, Size

PRESETS: dict[str, tuple[str, str]] = {
    "id": ("dot_mlp", "none"),
    "em3": ("dot_mlp", "em3"),
    "lemur": ("rankmixer", "lemur"),
}
"""Short names of pairs of `model.name` (the head) and `model.content`: what a user reads in reports and comparisons.

Folders of runs made before heads had names of their own say them as `model.name`.
"""

ABOUT: dict[str, str] = {
    "id": "The ranker on ids alone: dot_mlp without a content part, the baseline of all that read content.",
    "em3": "EM3: content of the candidate and of the history beside ids, in the ranker dot_mlp (Deng et al., 2024).",
    "lemur": "LEMUR: a decoder over content of the history, and its similarity to the candidate, in the ranker "
    "rankmixer (2025).",
}
"""What they are, in a sentence each."""


SqdcMask = Literal["query", "document", "session", "user"]
READING_QUERIES: frozenset[str] = frozenset({"lemur"})
"""Content parts that read an impression's query where the dataset has any."""


class InputsConfig(Record):
    """What a ranker reads beside content."""

    dim: int = Field(default=32, ge=1, le=65536, description="width of id embeddings and of attention")
    tables: Literal["replicated", "sharded"] = Field(
        default="replicated",
        description="where the tables of ids live when several processes train: whole in each of them, or a share of "
        "the rows, with the optimiser's state of it, in each",
    )
    item_id: bool = Field(default=True, description="item id embedding as an input of the ranker")
    user_id: bool = Field(default=True, description="user id embedding as an input of the ranker")
    id_dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of ids read as the unknown id while training, without their popularity and counts, which "
        "what training never saw has not",
    )
    id_history: int = Field(
        default=20,
        ge=0,
        description="most recent items whose ids the ranker attends to; 0: none, the ids of a history are not read; "
        "content reads all of data.history",
    )
    columns: Literal["all", "none"] | list[str] = Field(
        default="none", description="categorical and numeric item columns that the ranker reads"
    )
    popularity: bool = Field(
        default=False, description="log of the item's and of the user's training rows as inputs of the ranker"
    )

    user_columns: Literal["all", "none"] | list[str] = Field(
        default="none", description="categorical and numeric attributes of users that the ranker reads"
    )
    context: Literal["all", "none"] | list[str] = Field(
        default="none",
        description="columns of the context of an impression that the ranker reads, for example [device,hour]; beside "
        "those of the dataset there are hour (of the day, UTC) and weekday (Monday is 0), made of the time",
    )
    numbers: Literal["standard", "buckets"] = Field(
        default="standard",
        description="numeric columns as numbers with mean 0 and deviation 1, or as one of `buckets` codes",
    )
    buckets: int = Field(
        default=10, ge=2, le=65536, description="codes of a numeric column, between quantiles of its training values"
    )
    hash_above: int | None = Field(
        default=None,
        ge=1,
        description="a categorical column with more values in training is hashed into so many; null: never",
    )

    counts: list[str] = Field(
        default=[],
        description="of what training rows before the impression are counted, with their clicks and click rate: item, "
        "user, or a categorical column in `columns`",
    )
    counts_smoothing: float = Field(
        default=20.0, gt=0, description="so many rows at the rate of all training rows are added to a click rate"
    )
    session: str = Field(
        default="none",
        description="what names the session whose earlier items and clicks the ranker reads: a categorical column of "
        "the context, gap (a session ends with a pause), or none",
    )
    session_gap: int = Field(default=1800, ge=1, description="seconds without a row that end a session")

    @field_validator("columns", "user_columns", "context", mode="wrap")
    @classmethod
    def _columns(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        example = {"context": "[device,hour]", "user_columns": "[age,country]"}.get(
            info.field_name or "", "[genres,year]"
        )
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"use all, none or a list of columns, for example {example}") from None


class ContentPartConfig(Record):
    """What a ranker makes of content embeddings."""

    content: Literal["none", "em3", "lemur"] = Field(
        default="em3",
        description="none: ids alone; em3: content of the candidate and of the history beside ids; lemur: the same by "
        "a decoder over the history, and its similarity to the candidate",
    )
    content_side: Literal["both", "item", "user"] = Field(
        default="both",
        description="which content the ranker reads: the candidate's (item), the history's (user: interest and "
        "profile), or both and the product of the two",
    )
    ranking_gradient: bool = Field(
        default=True,
        description="the loss of the labels teaches what makes content and queries; false: these learn by the "
        "contrasts alone (model.sqdc_weight, model.cic_weight, content.itc_weight), and the ranker reads them as they "
        "come",
    )
    cic_weight: float = Field(
        default=0.1,
        ge=0,
        description="weight of the Content-ID contrastive loss (eq. 14); 0: none, "
        "which is the default of model.content=lemur",
    )
    cic_temperature: float = Field(default=0.1, gt=0, description="temperature of that loss")
    cic_negatives: Literal["all"] | Count = Field(
        default="all",
        description="negatives of each item in it: all other items of the step, or so many of them drawn at random "
        "(eq. 12-13); items of equal content are never negatives of each other",
    )
    cic_id: Literal["sum", "concat"] = Field(
        default="sum",
        description="an item's id in it: the sum of the id's vector and those of its categories (model.columns), as "
        "the ranker reads it, or the vectors side by side (paper)",
    )
    lemur: LemurConfig = Field(default_factory=LemurConfig, description="what model.content=lemur makes of histories")

    @model_validator(mode="before")
    @classmethod
    def _no_contrast_in_lemur(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("content") == "lemur":
            return {"cic_weight": 0.0, **value}
        return value

    sqdc_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of LEMUR's contrast of a query with the document clicked for it (SQDC); 0: none. With "
        "sqdc_reduction=sum it grows with the batch, so that small weights suit it",
    )
    sqdc_anchor: Literal["auto", "query", "history"] = Field(
        default="auto",
        description="what a clicked document is held against: its query, or the user's closest earlier positive in the "
        "history (item to item); auto: query where the dataset has queries, else history",
    )
    sqdc_neighbour: Literal["live", "bank"] = Field(
        default="live",
        description="sqdc_anchor=history: that item's content is made in the step, with gradient (live), or is the "
        "bank's unless the step makes it anyway (bank)",
    )
    sqdc_scale: float = Field(default=50.0, gt=0, description="the cosines are multiplied by it (T)")
    sqdc_learned_scale: bool = Field(
        default=False, description="ours: that learns, from sqdc_scale on, up to 100, or as far as it began"
    )
    sqdc_mask: list[SqdcMask] = Field(
        default=["query"],
        description="which rows are no negatives of each other: those of one query (published; with "
        "sqdc_anchor=history: of one anchor item), and, ours, of one document, of one session, of one user; []: all "
        "are",
    )
    sqdc_negatives: Literal["positives", "batch"] = Field(
        default="positives", description="negatives are the other positives' documents, or those of all of the step"
    )
    sqdc_positives: Literal["own", "all"] = Field(
        default="own",
        description="own: each row's own document is its positive; all (ours): with all others that were clicked for "
        "its query",
    )
    sqdc_directions: Literal["one", "both"] = Field(
        default="one", description="which document is of the query; both (ours): half of it is which query is of it"
    )
    sqdc_reduction: Literal["sum", "mean"] = Field(
        default="sum", description="over the step's clicked rows: their sum (published) or mean (ours)"
    )

    @field_validator("cic_negatives", mode="wrap")
    @classmethod
    def _cic_negatives(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError("use all, or how many, for example 64") from None

    @field_validator("sqdc_mask", mode="wrap")
    @classmethod
    def _sqdc_mask(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return list(dict.fromkeys(handler(value)))
        except ValidationError:
            raise ValueError("use a list of query, document, session and user, for example [query,document]") from None


class LabelsConfig(Record):
    """What a ranker makes of several labels (`data.labels`)."""

    multi_label: Literal["independent", "esmm"] = Field(
        default="independent",
        description="of several labels: independent, a logit of one network each; esmm, of a click and what follows "
        "it: a network each, of clicks and of conversions given a click, which learn through their product",
    )
    label_weights: list[Annotated[float, Field(gt=0)]] = Field(
        default=[], description="weights of the losses of data.labels, in their order; empty: 1 each"
    )


class _Named(ModelRecord):
    """The head's name, which comes first."""

    kind = "ranking"

    name: str = Field(default="dot_mlp", description="the head")


class RankerConfig(LabelsConfig, ContentPartConfig, InputsConfig, _Named):
    """A ranking model: what it reads, its content part, and a head, which adds settings of its own."""

    @property
    def reads_content(self) -> bool:
        """Whether the ranker has a content part."""
        return self.content != "none"

    def whole(self, history: int) -> int:
        """Of so many items of a history, how many, the last ones, have their content read whatever the candidate is."""
        return self.lemur.whole(history) if self.content == "lemur" else history

    @property
    def history_marks(self) -> list[str]:
        """What is read of the events of a history beside their items."""
        return list(self.lemur.marks) if self.content == "lemur" and self.lemur.layers else []

    def searched(self, history: int) -> int:
        """Of so many items of a history, how many, the last ones, are searched for those like a candidate."""
        return self.lemur.lengths(history).get("long", 0) if self.content == "lemur" and self.lemur.search else 0

    @property
    def live_apart(self) -> bool:
        """Whether live rows stand apart from a history's others, also where they have no gradient there: the order of
        sums that em3 has always had."""
        return self.content != "lemur"

    def reads_features(self) -> bool:
        return self.reads_content

    @property
    def contrasts_queries(self) -> bool:
        """Whether a loss holds documents against queries, which a dataset must have then but for sqdc_anchor=auto."""
        return self.reads_content and self.sqdc_weight > 0 and self.sqdc_anchor != "history"

    @property
    def reads_queries(self) -> bool:
        """Whether queries are encoded, where the dataset has any."""
        return self.contrasts_queries or self.ranks_by_queries

    @property
    def ranks_by_queries(self) -> bool:
        """Whether a score depends on the impression's query, where the dataset has any."""
        return self.content in READING_QUERIES

    def reads_interactions(self) -> tuple[str, ...]:
        """Columns of the interactions that a loss of the head reads, such as a session (`RankingBatch.keys`)."""
        return ()

    @property
    def label(self) -> str:
        """What the model is called: the preset's name where it has one, else head and content part."""
        pair = (self.name, self.content)
        named = next((label for label, other in PRESETS.items() if other == pair), None)
        return named or (f"{self.name}+{self.content}" if self.reads_content else self.name)


class DotMlpConfig(RankerConfig):
    """Tokens and their dot products into an MLP; the presets `id` (no content) and `em3` are of it."""

    name: Literal["dot_mlp"] = Field(default="dot_mlp", description="tokens and their dot products into an MLP")
    hidden: list[Size] = Field(default=[128, 64], description="widths of the MLP's hidden layers")
    dropout: float = Field(default=0.4, ge=0, lt=1, description="dropout after each hidden layer")


def present_form(model: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a model with the short name of a ranker (`id`, `em3`) as its name, as head and content part.

    Raises ValueError where the content part is given too, and is another one.
    """
    name = model.get("name")
    if not isinstance(name, str) or name not in PRESETS:
        return dict(model)
    head, content = PRESETS[name]
    if model.get("content", content) != content:
        raise ValueError(
            f"model.name={name} means model.name={head} with model.content={content}, but "
            f"model.content={model['content']} is given; use model.name={head}"
        )
    return {**model, "name": head, "content": content}
