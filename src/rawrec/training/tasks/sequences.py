"""The task of sequence models: users whose training positives, in order of time, are learned at every place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rawrec.config import Config
from rawrec.content.caches import Cache
from rawrec.content.later import Known
from rawrec.content.live import LiveContent
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Histories
from rawrec.errors import UserError
from rawrec.models.retrieval.sequences import SequenceModel, ends
from rawrec.randomness import generator_of
from rawrec.training.evaluate import TopKResult
from rawrec.training.tasks.pairs import Beyond, PairTask


@dataclass
class StepSequences:
    """Sequences of a step, on the device. users `[n]`; inputs, positives, negatives `[n, length]` item rows, see
    `SequenceModel.sequence_loss`."""

    users: Tensor
    inputs: Tensor
    positives: Tensor
    negatives: Tensor
    generator: torch.Generator  # of the model's own draws

    @property
    def items(self) -> Tensor:
        """Those with a term in the loss."""
        known = self.inputs >= 0
        return torch.cat([self.positives[known], self.negatives[known]])

    def split(self, size: int) -> Iterator[StepSequences]:
        for start in range(0, len(self.users), size):
            yield self.part(slice(start, start + size))

    def part(self, part: slice) -> StepSequences:
        targets = self.positives[part], self.negatives[part]
        return StepSequences(self.users[part], self.inputs[part], *targets, self.generator)


class SequenceTask(PairTask):
    """A sequence model. A sample is a user with two training positives or more, repeated ones among them.

    Lists of a part are made from what users took in the parts before it, those of the recommender from all that they
    took. Under `data.history_mode=train` and `eval.protocol=mmrec` lists are made from training alone.
    """

    noun = "sequences"

    def __init__(
        self, cfg: Config, data: Dataset, cache: Path | Cache, progress: Callable | None = None, known: Known = None
    ):
        super().__init__(cfg, data, cache, progress, known)
        self._until: int | None = None
        told = ["the data have no times: sequences are in the order of the dataset's rows"] * (data.timestamps is None)
        self._trained = self._taken(1)
        lengths = np.diff(self._trained.ptr)
        assert self.negatives is not None
        chosen = (lengths > 1) & (self.negatives.free.cpu().numpy() > 0)
        if not chosen.any():
            raise UserError(
                f"model {cfg.model.name} learns what follows what, and no user has two training positives (and an item "
                "left that they have not taken)"
            )
        if left_out := int((lengths > 0).sum() - chosen.sum()):
            told.append(f"users of whom nothing is learned, for they have one training positive: {left_out:,}")
        self.notes = [*self.notes, *told]
        self.learned = torch.from_numpy(np.flatnonzero(chosen)).to(self.device)

    @property
    def sequence_model(self) -> SequenceModel:
        return cast(SequenceModel, self.model)

    def _taken(self, until: int | None) -> Histories:
        """The positives of the parts before `until`; None: all."""
        chosen = self.positive if until is None else self.positive & (self.part >= 0) & (self.part < until)
        rows = self.data.in_order(chosen)
        times = None if self.data.timestamps is None else self.data.timestamps[rows]
        return Histories(self.data.users[rows], self.data.items[rows], times, self.data.n_users)

    # ------------------------------------------------------------------------------------------------------- training
    def begin_epoch(self, epoch: int) -> Tensor:
        generator = generator_of(self.cfg.seed, 0, epoch)
        order = torch.randperm(len(self.learned), generator=generator).to(self.device)
        self.model.begin_epoch(self._moved(self.model.draw_epoch(generator)))
        return self.learned[order]

    def batch(self, rows: Tensor, epoch: int, step: int) -> Any:
        generator = generator_of(self.cfg.seed, 1, step)
        read = self._trained.read(rows.cpu().numpy(), None, None, self.cfg.model.max_length + 1)
        sequences = ends(torch.from_numpy(read)).to(self.device)
        inputs, positives = sequences[:, :-1], sequences[:, 1:].clone()
        known = inputs >= 0
        positives[~known] = -1
        negatives = torch.full_like(positives, -1)
        assert self.negatives is not None
        negatives[known] = self.negatives.draw(rows.repeat_interleave(known.sum(1)), generator)
        return StepSequences(rows, inputs, positives, negatives, generator)

    def losses(self, batch: Any, live: LiveContent | None, step: int) -> Iterator[dict[str, Tensor]]:
        total = int((batch.inputs >= 0).sum())
        for part in batch.split(self.cfg.train.batch_size):
            draws = self._moved(self.sequence_model.draw_sequences(part.inputs.shape, part.generator))
            share, own = self.world.share(len(part.users)), part
            if self.world.several:
                own, draws = part.part(share.part), {name: drawn[share.part] for name, drawn in draws.items()}
            with share.drawing(self.device):
                losses = self.sequence_model.sequence_loss(own.inputs, own.positives, own.negatives, draws)
            rate = share.weight * int((own.inputs >= 0).sum()) / total
            yield losses if rate == 1 else {name: value * rate for name, value in losses.items()}

    def beginning(self, batch: Any) -> str:
        users = ", ".join(str(self.data.user_ids[user]) for user in batch.users[:5].tolist())
        return (
            f"Its batch of {len(batch.users)} {self.noun} begins with the users {users}. Try a lower train.lr, or a "
            "smaller train.clip"
        )

    # ------------------------------------------------------------------------------------------------------ evaluation
    def evaluate(self, part: int, buckets: bool = True, beyond: Beyond = "all") -> TopKResult:
        alone = self.cfg.data.history_mode == "train" or self.cfg.eval.protocol == "mmrec"
        self._until = 1 if alone else part
        try:
            return super().evaluate(part, buckets, beyond)
        finally:
            self._until = None

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        users, length = np.arange(self.data.n_users), self.cfg.model.max_length
        taken = self._trained if self._until == 1 else self._taken(self._until)
        sequences = torch.from_numpy(taken.read(users, None, None, length))
        self.sequence_model.read(ends(sequences).to(self.device))
        return super().embeddings()
