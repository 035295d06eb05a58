"""Settings of a run beside its model and its content: what it reads, how it trains, what is measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rawrec.config.lemur import LONGEST
from rawrec.config.metrics import BUCKET_NAMES, followed, own_metric
from rawrec.config.records import Record, Size

DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,3}))?")


def known_device(value: str) -> str:
    """The value, if it names a device that rawrec computes on."""
    if not DEVICE.fullmatch(value):
        raise ValueError("use auto, cpu, cuda or cuda:<n>; rawrec computes on no other device")
    return value


MAPPED_FROM = 50_000_000
"""So many interactions, and more, are memory-mapped unless data.interactions says otherwise."""
WINDOW = 1 << 22
"""`data.shuffle_window` of interactions that are mapped."""
JUDGED = 2_000_000
"""`eval.impressions` of interactions that are mapped."""
Seen = Literal["positives", "interactions", "none"]
"""What of a user's past is left out of lists: what they took, all that they met (whatever its label), or nothing."""

OF_ALL = {"stale": "auc", "shown": "mrr"}
"""What stands before names of metrics, beside buckets and labels; and such a metric."""

UntrainedIds = Literal["zero", "mean", "as_is"]


class DataConfig(Record):
    """What a run reads from its dataset."""

    split: str = Field(default="default", description="name of a stored split (`rawrec split` makes more)")
    label: str = Field(
        default="label",
        description="label column that the model learns; the only one, where there is one; of data.labels the first",
    )
    labels: list[str] = Field(
        default=[],
        description="rankers: label columns that are learned together, a logit each, for example [click,buy]. The "
        "first is the main one, of which are histories, lists, train.metric and what a recommender says unless it is "
        "asked for another. Empty: data.label alone",
    )
    history: int = Field(
        default=20, ge=0, le=LONGEST, description="most recent earlier positives of the user that the model sees"
    )
    history_mode: Literal["rolling", "train"] = Field(
        default="rolling", description="evaluation sees all that came before (rolling) or training rows only (train)"
    )
    negatives: int = Field(
        default=4, ge=1, description="negatives drawn per positive where the data holds positives only"
    )

    interactions: Literal["auto", "memory", "mapped"] = Field(
        default="auto",
        description="rankers: interactions in memory, or memory-mapped from flat files in the dataset's cache, for "
        "more of them than memory holds; the samples are the same. auto: mapped from 50 million on",
    )
    shuffle_window: int | None = Field(
        default=None,
        ge=1,
        description="rankers: training rows of which an epoch's order is drawn at a time; a window is made of blocks "
        "of neighbouring rows, which are drawn from all. null: all at once; where interactions are mapped, 4,194,304",
    )

    def maps(self, interactions: int) -> bool:
        """Whether so many interactions are memory-mapped."""
        return interactions >= MAPPED_FROM if self.interactions == "auto" else self.interactions == "mapped"

    @property
    def label_names(self) -> list[str]:
        """All labels that are learned, the main one first."""
        return self.labels or [self.label]

    @property
    def further_labels(self) -> list[str]:
        """Those beside the main one."""
        return self.labels[1:]

    @field_validator("labels")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        for name in value[1:]:
            if value.count(name) > 1:
                raise ValueError(f"{name} is named twice")
            if name in (*BUCKET_NAMES, *OF_ALL):
                raise ValueError(
                    f"{name}/ is what other metrics are called, such as {name}/{OF_ALL.get(name, 'auc')}: import that "
                    "label under another name"
                )
        return value

    @model_validator(mode="before")
    @classmethod
    def _main(cls, value: Any) -> Any:
        named = value.get("labels") if isinstance(value, Mapping) else None
        return {"label": named[0], **value} if isinstance(named, list) and named else value

    @model_validator(mode="after")
    def _main_is_first(self) -> Self:
        if self.labels and self.label != self.labels[0]:
            raise ValueError(
                f"label={self.label}, but labels={self.labels}: the first is the main one; leave out label"
            )
        return self


class TrainConfig(Record):
    """The training loop."""

    epochs: int = Field(default=10, ge=1, description="at most so many passes over the training part")
    batch_size: int = Field(default=256, ge=1, description="samples per batch")
    accumulate: int = Field(default=1, ge=1, description="batches per optimiser step")
    lr: float = Field(default=3e-3, gt=0, description="learning rate of everything but encoders")
    id_lr: float | None = Field(
        default=None, gt=0, description="learning rate of rankers' id embeddings; null: train.lr"
    )
    encoder_lr: float = Field(default=1e-4, gt=0, description="learning rate of the encoders' trained layers")
    encoder_lr_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="factor of train.encoder_lr from a layer to the one below it, embeddings being below all; the last "
        "layer, and what stands above it, learn at train.encoder_lr",
    )
    lr_decay: float = Field(
        default=1.0, gt=0, le=1, description="factor of the learning rates per 50 epochs, gradually"
    )
    optimizer: Literal["adamw", "adam", "sparse_adam"] = Field(
        default="adamw",
        description="adamw: decay beside the gradient; adam: decay as an L2 penalty, in the gradient; sparse_adam: "
        "adam, where bpr and vbpr update the rows of users and items in the batch alone, as rankers always do, so that "
        "a step costs the same whatever their number",
    )
    weight_decay: float = Field(
        default=0.1,
        ge=0,
        description="weight decay of all but encoders (none), biases and norms (none) and rankers' id embeddings; of a "
        "retrieval model, of all its parameters",
    )
    id_weight_decay: float = Field(
        default=1.0,
        ge=0,
        description="weight decay of rankers' id embeddings, made up for when an id is in the batch again",
    )
    id_decay_steps: int = Field(
        default=32,
        ge=1,
        description="of the steps since an id was last used so many count for its decay, at most, so that seldom used "
        "ids of a large catalogue do not fade; 1: ids decay by use",
    )
    ema: float = Field(
        default=0.998,
        ge=0,
        lt=1,
        description="decay per step of the averaged weights that are evaluated and kept; 0: the last weights",
    )
    warmup_steps: int = Field(default=50, ge=0, description="steps over which the learning rates rise to their values")
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient; null: any")
    patience: int = Field(default=3, ge=1, description="epochs without improvement before the run stops")
    metric: str = Field(
        default="auc",
        description="validation metric that early stopping follows: auc, gauc, logloss, ece, share (generated data); "
        "qauc, of data with queries; shown/ndcg@K, shown/mrr, with sessions; of lists recall@K, ndcg@K, precision@K, "
        "map@K, hit@K, mrr@K: of retrieval models always, of rankers with eval.full_ranking, whose lists are then made "
        "after every epoch, of as many users as eval.topk_users says; a registered one; or one of them within a "
        "bucket, as cold/auc",
    )
    init: str | None = Field(
        default=None,
        description="a finished run of the same model whose weights this one begins with; users and items by their "
        "ids, those that it does not know as unknown ones (docs/runs.md)",
    )
    device: str = Field(default="auto", description="auto | cpu | cuda | cuda:<n>")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    checkpoint_every: int = Field(
        default=500,
        ge=1,
        description="steps between checkpoints inside an epoch, beside that at its end; not of models that draw or "
        "make something at the beginning of an epoch",
    )
    checkpoint_share: float = Field(
        default=0.05, gt=0, le=1, description="checkpoints take at most this share of the time; 1: none is left out"
    )
    on_interrupt: Literal["keep", "finish"] = Field(
        default="keep",
        description="what Ctrl-C (or SIGTERM) leaves: keep, a run to resume, exactly; finish, the best epoch so far, "
        "evaluated on test as if by `rawrec finish`, where one is done",
    )
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="CPU threads; null: the cores that are there for this process"
    )

    processes: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="so many processes of this machine train the model together, each with train.threads of its own; "
        "null: as many as were started, by torchrun for example (docs/scale.md)",
    )

    _device = field_validator("device")(known_device)

    @field_validator("metric")
    @classmethod
    def _metric(cls, value: str) -> str:
        followed(value)
        return value


class EvalConfig(Record):
    """What is measured, and how."""

    topk: list[Size] = Field(default=[5, 10, 20, 50], min_length=1, description="cut-offs K of the metrics of lists")
    shown: list[Size] = Field(
        default=[5, 10],
        min_length=1,
        description="rankers, of data with sessions: cut-offs of shown/ndcg@K, within what a session showed",
    )
    topk_users: int | None = Field(
        default=None,
        ge=1,
        description="at most so many users of a part get lists: drawn once for a split, whatever model and seed, "
        "fewer from among more, so that runs are compared on the same users. null: all; of rankers, which score every "
        "item for every user, as many as make 200 million scores, and 100 or more",
    )
    protocol: Literal["default", "mmrec"] = Field(
        default="default",
        description="retrieval models; default: lists leave out what the user took in earlier parts; mmrec: training "
        "positives only, also at test, users unseen in training are dropped, early stopping compares values rounded to "
        "4 decimals and comes one evaluation after train.patience",
    )
    exclude_seen: Seen | None = Field(
        default=None,
        description="left out of a user's lists, in evaluation and by the run's recommender: earlier positives; all "
        "earlier interactions, whatever their label (ratings: what was rated badly does not come back); or nothing "
        "(repeat purchases). true and false: positives and none. null: interactions where the dataset says that what a "
        "user rated is seen (--rated), else positives; the run's config says which. What is left out is not asked for, "
        "but counted (topk_repeated)",
    )
    untrained_ids: UntrainedIds | None = Field(
        default=None,
        description="retrieval models: the id row of an item without a training positive, in evaluation, in the run's "
        "recommender and in exported vectors: zero; mean, of the items that have one; or as_is, random as it was drawn "
        "(published codes). null: as_is under protocol=mmrec, else zero",
    )
    batch_size: int = Field(default=4096, ge=1, description="impressions scored at once")
    impressions: int | None = Field(
        default=None,
        ge=1,
        description="rankers: at most so many impressions of a part are judged: those of users drawn once for the "
        "split, all of each. null: all; where interactions are mapped, 2 million",
    )
    full_ranking: bool = Field(
        default=True,
        description="recall@K and the like over the full catalogue on test, and on valid if train.metric is one",
    )
    metrics: list[str] = Field(
        default=[], description="registered metrics that are measured beside ours, by name, those of lists without @K"
    )
    bootstrap: int = Field(default=1000, ge=0, description="resamplings of users behind an interval")

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, value: list[str]) -> list[str]:
        for name in value:
            own_metric(name)
        return list(dict.fromkeys(value))

    @property
    def seen(self) -> Seen:
        """What `exclude_seen` comes to: a run has it resolved, unless it is from before it was a setting."""
        return self.exclude_seen or "positives"

    @field_validator("exclude_seen", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        return ("positives" if value else "none") if isinstance(value, bool) else value
