"""The task of `rawrec finetune`: an encoder of pictures and texts learns from the catalogue's own pairs.

A step encodes the pairs of its batch, some at a time where they do not fit at once (gradient caching, `LiveContent`),
and tells each from all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.config import ContentConfig, TrainConfig
from rawrec.config.finetune import FinetuneConfig
from rawrec.content.caches import Cache
from rawrec.content.columns import static_columns
from rawrec.content.encoders import Encoder
from rawrec.content.finetuning import tuned
from rawrec.content.finetuning.base import Columns
from rawrec.content.item_model import ItemModel
from rawrec.content.live import LiveContent
from rawrec.data.dataset import Dataset
from rawrec.data.pairs import alike, catalogue_pairs, pair_fields
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.evaluation.embeddings import alignment, uniformity
from rawrec.evaluation.retrieval import pair_recall
from rawrec.randomness import drawing, generator_of
from rawrec.training.device import choose_device, choose_precision
from rawrec.training.state import OTHER_MODEL
from rawrec.training.tasks.base import Result, Task

BEGIN = 1024  # pairs that new parts of an encoder are fitted to before the first step


@dataclass
class StepItems:
    """items: `[n]` rows of a step's pairs, on the CPU, where their columns are."""

    items: Tensor


class CatalogueTask(Task):
    """The pairs of a dataset and the encoder that learns from them. There is no bank."""

    noun = "pairs"

    def __init__(self, settings: FinetuneConfig, data: Dataset, cache: Path | Cache, progress: Callable | None = None):
        self.settings, self.data = settings, data
        self.item_model, self.bank = None, None
        self.device = choose_device(settings.device, "device")
        self.train_counts = np.zeros(data.n_items, np.int64)
        images, words = pair_fields(data.fields, settings.image_fields, settings.text_fields)
        settings.image_fields, settings.text_fields = images, words
        with drawing():
            self.model = tuned(settings).to(self.device)
        encoders = {str(kind): encoder.to(self.device) for kind, encoder in self.model.encoders.items()}
        reads = {"image": (tuple(images),), "text": (tuple(words),)}
        item_model = ItemModel(encoders, {}, ContentConfig(), True, reads)
        item_model.autocast = self._precision = choose_precision(settings.precision, self.device)
        columns, self.stats = static_columns(item_model, data, cache, progress)
        self._columns: Columns = {kind: columns[item_model.column(kind)] for kind in self.model.encoders}
        usable, tokens = (self._columns[kind].lengths for kind in ("image", "text"))
        max_images = 1 if settings.pictures == "first" else settings.max_images
        self.pairs = catalogue_pairs(data, images, words, usable, tokens, max_images, settings.held_out)
        self.digests = {"start": {"encoder": settings.encoder, "digest": self.model.digest}}
        self.before = Result()
        self.notes = [*self.pairs.notes(), *self._losses_on_the_way(), *self.model.notes()]
        self._picked = torch.zeros(data.n_items, dtype=torch.int64)
        with self._casting():
            rows = self.pairs.train[:BEGIN].split(settings.micro_batch)
            self.model.begin(self._read(part, self._picked[part]) for part in rows)

    def _losses_on_the_way(self) -> list[str]:
        cut, broken = self.stats["text"].get("truncated", 0), self.stats["image"].get("undecodable", 0)
        said = [f"texts longer than the encoder reads, cut: {cut:,}"] * bool(cut)
        return said + [f"pictures that cannot be read, left out: {broken:,}"] * bool(broken)

    # ------------------------------------------------------------------------------------------------------- settings
    @property
    def label(self) -> str:
        return self.settings.label

    @property
    def schedule(self) -> TrainConfig:
        return self.settings.schedule()

    @property
    def metric(self) -> str:
        return self.settings.metric

    @property
    def lower(self) -> bool:
        return False

    @property
    def like_mmrec(self) -> bool:
        return False

    def shown_metrics(self, metrics: Mapping[str, Any]) -> list[str]:
        return list(dict.fromkeys([self.metric, "recall"]))

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {}

    def train_setting(self, name: str) -> str:
        return f"train={self.settings.train}"

    def beginning(self, batch: StepItems) -> str:
        first = ", ".join(str(self.data.item_ids[row]) for row in batch.items[:5].tolist())
        return (
            f"Its batch of {len(batch.items)} pairs begins with the items {first}. Try a lower lr or projection_lr, a "
            "smaller clip, or precision=fp32"
        )

    # ------------------------------------------------------------------------------------------------------- training
    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {group: list(named.items()) for group, named in self.model.groups().items()}

    def encoders(self) -> dict[str, Encoder]:
        trained = {id(p) for p in self.model.groups()["encoder"].values()}
        found = {str(kind): encoder for kind, encoder in self.model.encoders.items()}
        return {k: e for k, e in found.items() if any(id(p) in trained for p in e.stack.parameters())}

    def present(self, field: str, rows: Tensor) -> Tensor:
        """Whether a gradient is to be expected: it is where one of the pairs can be told from another."""
        same = alike(self.pairs.picture(rows.cpu()), self.pairs.text[rows.cpu()])
        return torch.full(rows.shape, not bool(same.fill_diagonal_(True).all()))

    def begin_epoch(self, epoch: int) -> Tensor:
        """The training pairs in their order; a last one that would stand alone in its batch waits for another epoch."""
        train, settings = self.pairs.train, self.settings
        if settings.pictures == "draw":
            draw = torch.rand(self.data.n_items, generator=generator_of(settings.seed, 3, epoch))
            self._picked = (draw * self._columns["image"].lengths).long()
        order = train[torch.randperm(len(train), generator=generator_of(settings.seed, 0, epoch))]
        return order[:-1] if len(order) % settings.batch_size == 1 else order

    def batch(self, rows: Tensor, epoch: int, step: int) -> StepItems:
        return StepItems(rows)

    def _read(self, rows: Tensor, picked: Tensor) -> Columns:
        """What is cached of the pairs, on the device; of each the picture `picked`, from 0."""
        image, text = self._columns["image"], self._columns["text"].select(rows)
        one = Ragged(image.values[image.ptr[rows] + picked], torch.arange(len(rows) + 1))
        return {"image": one.to(self.device), "text": text.to(self.device)}

    def go_live(self, batch: StepItems, step: int) -> LiveContent:
        """The features of a batch's pairs, side by side."""

        def encode(part: Tensor) -> dict[str, Tensor]:
            with self._casting():
                return self.model.encode(self._read(part, self._picked[part]))

        def side_by_side(rows: Tensor, encoded: Tensor, features: dict[str, Tensor]) -> Tensor:
            return torch.cat(list(features.values()), 1)

        rows = batch.items
        return LiveContent(encode, side_by_side, rows, rows, self.settings.micro_batch, seed=step)

    def losses(self, batch: StepItems, live: LiveContent | None, step: int) -> Iterator[dict[str, Tensor]]:
        assert live is not None
        widths = [values.shape[1] for values in live.features.values()]
        features = dict(zip(live.features, live.leaf.split(widths, 1), strict=True))
        picked = self._picked[batch.items]
        same = alike(self.pairs.picture(batch.items, picked), self.pairs.text[batch.items]).to(self.device)
        if "itc" in self.settings.loss:
            loss = self.model.itc(features, same)
            yield {"loss": loss, "itc": loss}
        if self.settings.loss == ["itc"]:
            return
        columns, generator = self._read(batch.items, picked), generator_of(self.settings.seed, 4, step)
        others = self.model.others(columns, features, same, self.settings.micro_batch, generator)
        while True:
            with self._casting():
                made = next(others, None)
            if made is None:
                return
            yield made

    def _casting(self) -> torch.autocast:
        return torch.autocast(self.device.type, self._precision, enabled=self._precision is not None)

    def write(self, live: LiveContent, step: int) -> None:
        """There is no bank."""

    # ----------------------------------------------------------------------------------------------------- evaluation
    def probe(self) -> Result:
        """The encoder as training finds it, measured."""
        self.before = self.validate(0)
        return self.before

    @torch.no_grad()
    def validate(self, step: int) -> Result:
        """Held-out pairs, by their first pictures: is the one found by the other, and how do they lie?"""
        rows, parts = self.pairs.valid, []
        for part in rows.split(self.settings.micro_batch):
            with self._casting():
                features = self.model.encode(self._read(part, torch.zeros_like(part)), contrast=False)
            parts.append(self.model.embed(features))
        image, text = (torch.cat([part[k] for part in parts]).float() for k in (0, 1))
        numbers = self.pairs.picture(rows).to(self.device), self.pairs.text[rows].to(self.device)
        metrics: dict[str, float | None] = {**pair_recall(image, text, *numbers), "alignment": alignment(image, text)}
        metrics |= {"uniformity_image": uniformity(image), "uniformity_text": uniformity(text)}
        return Result({**metrics, "temperature": self.model.temperature(), "pairs": len(rows)})

    def finish(self, folder: Path, step: int, stale: dict[str, Tensor]) -> dict[str, Result]:
        return {"before": self.before, "valid": self.validate(step)}

    # ---------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.model.parameters_by_name().items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        own = self.model.parameters_by_name()
        if own.keys() != state.keys() or any(own[name].shape != value.shape for name, value in state.items()):
            raise UserError(OTHER_MODEL)
        for name, value in state.items():
            own[name].copy_(value)

    def publish(self, folder: Path, step: int) -> None:
        """The folder of the tuned encoder, in the place of the run."""
        self.model.write(folder)
