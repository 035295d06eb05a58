"""Which items of a step of rankers have content with a gradient, and a batch that reads it: see `LiveContent`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rawrec.config import Config
from rawrec.content.bank import Bank
from rawrec.content.item_model import ItemModel
from rawrec.content.live import LiveContent
from rawrec.content.policy import LivePolicy
from rawrec.distinct import distinct
from rawrec.models.ranking.batch import RankingBatch
from rawrec.training.tasks.past import PastContent
from rawrec.world import ALONE, World


class LiveItems:
    """Of a ranker with content. through: the map that frozen content goes through, None under other paradigms."""

    world: World = ALONE

    def __init__(
        self,
        cfg: Config,
        bank: Bank,
        item_model: ItemModel,
        policy: LivePolicy,
        past: PastContent,
        through: nn.Module | None,
    ):
        self.cfg, self.bank, self.item_model, self.policy = cfg, bank, item_model, policy
        self.past, self.through = past, through
        # The map of frozen content is the ranker's own, and learns with it.
        taught = cfg.model.ranking_gradient and cfg.paradigm != "frozen"
        self.teaches = taught or through is not None

    def content(self, items: Tensor, history: Tensor, seed: int) -> LiveContent:
        """The content that a step makes with gradient. items, history: of its candidates and histories, item rows."""
        generator = torch.Generator().manual_seed(seed)
        rows, encoded = self.rows(items, history, generator)
        encoded, learning = self.policy.learning(self.bank, encoded, items, generator)
        return self.content_of(rows, encoded, seed, learning)

    def content_of(self, rows: Tensor, encoded: Tensor, seed: int, learning: int | None = None) -> LiveContent:
        """The content of `rows` with gradient; those of them in `encoded` go through the trained encoders, the first
        `learning` (None: all) with a gradient."""
        bank, item_model = self.bank, self.item_model

        def fuse(rows: Tensor, encoded: Tensor, features: dict[str, Tensor]) -> Tensor:
            if self.through is not None:
                return self.through(bank.rows(rows))
            return item_model.content(bank, rows, encoded, features)

        def settled(rows: Tensor, encoded: Tensor, features: dict[str, Tensor]) -> Tensor:
            training = item_model.training
            content = item_model.eval().content(bank, rows, encoded, features)
            item_model.train(training)
            return content

        drops = self.through is None and self.cfg.content.fusion.dropout > 0
        return LiveContent(
            lambda part: item_model.encode(bank, part),
            fuse,
            rows,
            encoded,
            self.cfg.bank.micro_batch,
            seed,
            settled if drops else None,
            learning=learning,
            world=self.world,
        )

    def rows(self, items: Tensor, history: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The items whose content a step makes with gradient, and those of them that it encodes; unique, with media.

        End to end these are the candidates, of which a share is encoded, and at most the live budget (`LivePolicy`):
        the others' features are the bank's (who has none yet is left out). Under hybrid and frozen, where content is
        cheap, histories are live as well (but with bank.history=bank) and nothing is encoded.
        """
        end_to_end = self.cfg.paradigm == "end_to_end"
        still = self.cfg.paradigm == "frozen" and self.through is None
        alone = end_to_end or still or self.cfg.bank.history == "bank"
        rows = distinct(items if alone else torch.cat([items.flatten(), self.past.whole(history).flatten()]))
        rows = rows[rows >= 0]
        rows = rows[self.bank.valid[rows]]
        if not end_to_end:
            return rows, rows[:0]
        encoded = self.policy.encoded(self.bank, rows, generator)
        return rows[(self.bank.encoded[rows] >= 0) | torch.isin(rows, encoded)], encoded

    def batch(self, users: Tensor, items: Tensor, history: Tensor, live: LiveContent) -> RankingBatch:
        """A batch with content: live rows where there are any, the bank's rows elsewhere. Good until the next one."""
        (at_items,) = self.bank.locate(live.rows, items)
        values = live.leaf if self.teaches else live.leaf.detach()
        if self.through is not None:  # every row is live: the bank's own rows are of another width
            content = torch.zeros(*items.shape, self.cfg.content.dim, device=self.bank.device)
        else:
            content = self.bank.rows(items.clamp(min=0)) * (items >= 0)[..., None]
        if len(values):
            content = torch.where((at_items >= 0)[..., None], values[at_items.clamp(min=0)], content)
        keep = values if self.cfg.bank.history_grad == "live" else values.detach()
        past, long = self.past.of_step(self.bank, self.through, history, items.shape[1], live, keep)
        return RankingBatch(users, items, history, content, past, long_history=long)
