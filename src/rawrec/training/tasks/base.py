"""What the training loop asks of a task: what a sample, a loss and a metric are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.config import Config, TrainConfig
from rawrec.config.metrics import lower_is_better
from rawrec.content.bank import Bank
from rawrec.content.encoders import Encoder, QueryEncoder
from rawrec.content.item_model import QUERY, ItemModel
from rawrec.content.live import LiveContent
from rawrec.content.units import ITEM
from rawrec.data.dataset import Dataset
from rawrec.models.shards import Shards
from rawrec.training import state as checkpoint
from rawrec.world import ALONE, World

COUNTED = "count/"
"""How names begin of what a task counts in a step: no part of the loss, logged by the rest of the name."""
FORMAT = 1  # of model.safetensors
PARTS = {"valid": 1, "test": 2}


@dataclass
class Result:
    """Metrics of one part by name, for those that are undefined (None) the reason, and what the user must be told of
    them."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


class Batch(Protocol):
    """The samples of one step. items: rows of all items with a term in the loss, any shape."""

    @property
    def items(self) -> Tensor: ...


class Task:
    """A model with the data that it learns from. The loop knows steps; everything else is asked here.

    item_model, bank: of the items' content; None where the model reads none. All that is random is a function of seed,
    epoch and step.
    """

    noun: ClassVar[str]
    """What a sample is called."""
    cfg: Config
    data: Dataset
    device: torch.device
    item_model: ItemModel | None
    bank: Bank | None
    train_counts: np.ndarray
    """Training rows of each item, `[n_items]`."""
    stats: dict[str, dict[str, int]]
    """Per field, what was cut off or lost while its column was made."""
    digests: Mapping[str, Mapping[str, Any]] = {}
    """Name and weights of the encoders that it began with, by what they make, and what else is known of them."""
    notes: Sequence[str] = ()
    """What the user is told before the first step."""
    world: World = ALONE
    """The processes that train it together; all hold the whole of it, but for `shards`."""
    shards: Shards | None = None
    """Tables of which each process holds some rows."""
    observe: Callable[..., None] = staticmethod(lambda event, **values: None)
    """Is told how far an evaluation is: `scoring`, with what, done and total. The loop puts its own observer here."""

    def join(self, world: World) -> None:
        """From now on it is trained by these processes."""
        self.world = world

    # ------------------------------------------------------------------------------------------------------- settings
    @property
    def label(self) -> str:
        """What is trained, as messages call it."""
        return f"model {self.cfg.label}"

    @property
    def schedule(self) -> TrainConfig:
        """What the loop and the optimiser go by."""
        return self.cfg.train

    @property
    def metric(self) -> str:
        """What early stopping follows, of `validate`."""
        return self.cfg.train.metric

    @property
    def lower(self) -> bool:
        """Whether less of it is better."""
        return lower_is_better(self.metric)

    @property
    def like_mmrec(self) -> bool:
        """Whether early stopping compares four decimals and comes an evaluation later."""
        return self.cfg.eval.protocol == "mmrec"

    def train_setting(self, name: str) -> str:
        """The setting by which an encoder is trained, as it was given."""
        if name == QUERY:
            return f"content.query.train={self.cfg.content.query.train}"
        given, fields = self.cfg.content.fields, self.data.fields
        own = name if self.item_model is None else self.item_model.base(name)
        key = ITEM if ITEM in given and ITEM not in (*fields.image, *fields.text) else own
        return f"content.{key}.train={given[key].train}"

    def beginning(self, batch: Any) -> str:
        """What a batch begins with, and what to try where its loss is not finite."""
        first = batch.users[:5].tolist(), batch.items.reshape(len(batch.users), -1)[:5, 0].tolist()
        pairs = ", ".join(f"({self.data.user_ids[u]}, {self.data.item_ids[i]})" for u, i in zip(*first, strict=True))
        trains = bool(self.encoders())
        return (
            f"Its batch of {len(batch.users)} {self.noun} begins with the (user, item) pairs {pairs}. Try a "
            f"lower train.lr{' or train.encoder_lr' * trains}, a smaller train.clip"
            f"{', or train.precision=fp32' * trains}"
        )

    def shown_metrics(self, metrics: Mapping[str, Any]) -> list[str]:
        """Which validation metrics the line of an epoch shows: that which is followed, registered ones, and of lists
        those at 20, or at the longest cut-off."""
        lists = [int(name.removeprefix("recall@")) for name in metrics if re.fullmatch(r"recall@\d+", name)]
        k = 20 if 20 in lists else max(lists, default=0)
        usual = ("auc", "qauc", "logloss", f"recall@{k}", f"ndcg@{k}", "recall", *self.cfg.eval.metrics)
        asked = [name for name in metrics if name.partition("@")[0] in self.cfg.eval.metrics]
        return [name for name in dict.fromkeys([self.metric, *usual, *asked]) if name in metrics]

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weights of the parts of the loss, as far as they are known; those of retrieval models stand in their
        settings, such as reg_weight for reg."""
        names = ("_weight", "_alpha")
        given = self.cfg.model.model_dump()
        return {
            name.removesuffix(end): float(value)
            for end in names
            for name, value in given.items()
            if name.endswith(end) and isinstance(value, int | float)
        }

    # ------------------------------------------------------------------------------------------------------- training
    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Named trainable parameters in the groups that `Optimiser` knows."""
        raise NotImplementedError

    def encoders(self) -> dict[str, Encoder]:
        """Field -> encoder with trained layers."""
        model = self.item_model
        if model is None or not model.trained:
            return {}
        return {name: encoder for name, encoder in model.raw_encoders() if name in model.trained}

    def learners(self) -> dict[str, Encoder | QueryEncoder]:
        """All that must have a gradient in training: `encoders`, and that of queries as `QUERY`."""
        query = None if self.item_model is None else self.item_model.query
        return {**self.encoders(), **({QUERY: query} if query is not None and query.trained_parameters() else {})}

    def shown(self, name: str, batch: Any, live: LiveContent) -> tuple[bool, bool]:
        """Whether all items of a step's loss had media for a trained encoder, and whether one that was encoded had."""
        if name == QUERY:  # which may rightly have no gradient in a step without clicks
            return False, live.queries is not None and len(live.queries.rows) > 0
        return bool(self.present(name, batch.items).all()), bool(self.present(name, live.encoded).any())

    def without_gradient(self, name: str) -> str:
        """What the user is told where a learner (`learners`) had items, and no gradient."""
        given = self.train_setting(name)
        setting = given.partition("=")[0]
        if name == QUERY:
            return (
                f"{given}: in a whole epoch no gradient reaches the encoder of queries: no clicked row with a query "
                f"had a negative. Raise train.batch_size, shorten model.sqdc_mask, or set {setting}=none"
            )
        return (
            f"{given}: no gradient reaches the encoder of {name!r} under these settings of {self.label}. Set "
            f"{setting}=none, or {setting.startswith('content') * 'train.'}precision=fp32 if it is lost in rounding"
        )

    def without_items(self, name: str) -> str:
        """The same where it had nothing to encode in a whole epoch."""
        given = self.train_setting(name)
        if name == QUERY:
            return f"{given}: in a whole epoch no row had a query, so their encoder learns nothing"
        return (
            f"{given}: in a whole epoch no item with {name!r} was encoded, so its encoder learns nothing. Set "
            f"{given.partition('=')[0]}=none, or raise bank.live_budget where it is small"
        )

    def levels(self) -> dict[int, int]:
        """Of each parameter of the encoders, by id, how many layers lie above its own: see `Encoder.levels`."""
        found: dict[int, int] = {}
        for encoder in self.learners().values():
            for key, level in encoder.levels().items():
                found[key] = max(level, found.get(key, 0))
        return found

    def present(self, field: str, rows: Tensor) -> Tensor:
        """Which of the item rows have media for a trained encoder, bool of the same shape."""
        assert self.bank is not None and self.item_model is not None
        return self.bank.present[self.item_model.column(field)][rows]

    def contrast(self, live: LiveContent | None) -> Iterator[dict[str, Tensor]]:
        """The image-text contrast of the items that a step encodes, where content.itc_weight asks for it."""
        model = self.item_model
        if live is None or model is None or model.itc is None:
            return
        present = {name: self.present(name, live.encoded) for name in model.trained}
        value = model.contrast(live.features, present)
        if value is not None:
            value = self.world.part(value)
            yield {"loss": self.cfg.content.itc_weight * value.double(), "itc": value}

    def begun_with_other_weights(self) -> None:
        """Weights of another run have taken the place of those that it was made with: what was made by them is anew."""

    def begin(self) -> None:
        """What happens before the first step of a run."""

    def begin_epoch(self, epoch: int) -> Any:
        """The samples of an epoch in their order: anything with a length that slices. Also begins a resumed epoch."""
        raise NotImplementedError

    def resumes_within_epoch(self) -> bool:
        """Whether `begin_epoch` in the middle of an epoch does what it did at its beginning; else checkpoints wait."""
        return True

    def batch(self, rows: Any, epoch: int, step: int) -> Batch:
        """The samples `rows`, a slice of what `begin_epoch` gave."""
        raise NotImplementedError

    def hands_over(self, epoch: int, ends: bool) -> bool:
        """Whether a second phase of training begins after `epoch` epochs; ends: early stopping would end the first."""
        return False

    def frozen_from_now(self) -> list[str]:
        """Names of the parameters that do not learn in the second phase."""
        return []

    def hand_over(self) -> None:
        """Begin the second phase: other parameters learn."""

    def phase(self) -> dict[str, float]:
        """What `metrics.jsonl` says of the phase, where there are two; the loop adds its time and memory."""
        return {}

    def closing_notes(self) -> list[str]:
        """What the user is told after the last epoch."""
        return []

    def go_live(self, batch: Any, step: int) -> LiveContent | None:
        """The content that the step makes with gradient."""
        raise NotImplementedError

    def losses(self, batch: Any, live: LiveContent | None, step: int) -> Iterator[dict[str, Tensor]]:
        """Of each accumulated batch: "loss", which is minimised, and its parts, for the log."""
        raise NotImplementedError

    def write(self, live: LiveContent, step: int) -> None:
        """Write what the step has made of its items into the bank."""
        raise NotImplementedError

    # ----------------------------------------------------------------------------------------------------- evaluation
    def probe(self) -> Result:
        """Metrics on the validation part of a model that knows nothing: are they defined? Raises UserError."""
        raise NotImplementedError

    def validate(self, step: int) -> Result:
        """Metrics of the validation part from a fresh view; `stale/` ones of the bank as training left it."""
        raise NotImplementedError

    def stale(self) -> dict[str, Tensor]:
        """What must be kept of the bank for the `stale/` metrics of the end: a copy."""
        return {}

    def finish(self, folder: Path, step: int, stale: dict[str, Tensor]) -> dict[str, Result]:
        """Metrics of `valid` and `test` under the weights as they are, content made anew; files with what is behind
        them go to `folder`. stale: what `stale` gave in the epoch of these weights."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Tensor]:
        """Everything that training changes, but the bank."""
        raise NotImplementedError

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The reverse of `state`. Raises UserError where it is of another model."""
        raise NotImplementedError

    def kept(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside that, and nobody else reads."""
        return {}

    def load_kept(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `kept`."""

    def publish(self, folder: Path, step: int) -> None:
        """Write what training has made, for its users."""
        about = {"format": FORMAT, "step": step, "model": self.cfg.label}
        checkpoint.save(folder / "model.safetensors", self.published(), about)

    def published(self) -> dict[str, Tensor]:
        """What `model.safetensors` holds: the state, and what is served of the bank."""
        raise NotImplementedError

    def name_now(self, name: str) -> str:
        """What a tensor is called today that an earlier version may have called otherwise."""
        return name

    def load_published(self, tensors: dict[str, Tensor], step: int) -> None:
        """The reverse of `published`."""
        raise NotImplementedError
