"""What every head of a ranker must do, in a ranker with and without content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rawrec.config.ranking import RankerConfig
from rawrec.config.training import TrainConfig
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.columns import ItemColumns
from rawrec.models.ranking.history import HistoryContent
from rawrec.models.ranking.ranker import Ranker
from rawrec.testing.retrieval import one_thread
from rawrec.training.optimiser import Optimiser

USERS, ITEMS, COLD, WIDTH = 12, 30, 6, 5
KNOWN, UNSEEN = 0.95, 0.9  # of the pairs of known and of cold items are in order where a head has learned


def check(cfg: RankerConfig, epochs: int, lr: float) -> None:
    """Every check of this file, for a head's settings."""
    with one_thread():
        for content in ("em3", "lemur", "none"):
            given = cfg.model_copy(update={"content": content, "id_dropout": 0.0, "item_id": True, "user_id": True})
            learns_a_checkerboard(given, epochs, lr)
            is_the_same_twice(given, lr)
            survives_save_and_load(given, lr)
            scores_one_as_among_others(given)


def _ranker(cfg: RankerConfig, seed: int = 0) -> Ranker:
    torch.manual_seed(seed)
    columns = ItemColumns({}, torch.zeros(ITEMS + 1, 0), torch.zeros(USERS + 1, 0))
    known = torch.arange(ITEMS) < ITEMS - COLD
    return Ranker(cfg, torch.ones(USERS, dtype=torch.bool), known, columns, WIDTH if cfg.reads_content else None)


def _board(cfg: RankerConfig) -> tuple[RankingBatch, Tensor]:
    """All users with all items, and whether they like them: those of their parity, which the content shows.

    Users have met four items that they like; item 3 lacks content, and the last items have never been seen.
    """
    users, items = torch.arange(USERS), torch.arange(ITEMS)
    table = 0.3 * torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(0))
    table[:, 0] += 2.0 * (items % 2) - 1
    table[3] = 0
    history = (users % 2)[:, None] + torch.tensor([0, 4, 6, 8])
    labels = ((users[:, None] + items) % 2 == 0).float()
    if not cfg.reads_content:
        return RankingBatch(users, items[None], history), labels
    past = HistoryContent(table[history], history != 3)
    return RankingBatch(users, items[None], history, table[None], past), labels


def _train(
    ranker: Ranker,
    batch: RankingBatch,
    labels: Tensor,
    steps: int,
    lr: float,
    learned: Callable[[], bool] = lambda: False,
) -> list[float]:
    """The losses of so many steps, or of fewer: whether it has `learned` is asked at every twentieth."""
    train = TrainConfig(lr=lr, weight_decay=0.0, ema=0.0, warmup_steps=0, clip=None)
    optimiser, curve = Optimiser({"rest": list(ranker.named_parameters())}, train), []
    ranker.train()
    for step in range(steps):
        logits = ranker(batch).float()
        assert logits.shape == labels.shape, f"logits must be {list(labels.shape)}: {list(logits.shape)}"
        loss = nn.functional.binary_cross_entropy_with_logits(logits[:, :-COLD], labels[:, :-COLD])
        assert loss.isfinite(), "the loss is not finite"
        optimiser.zero_grad()
        loss.backward()
        optimiser.clip()
        optimiser.step(step, 0)
        curve.append(loss.item())
        if step % 20 == 19 and learned():
            break
        ranker.train()
    ranker.eval()
    return curve


def _in_order(scores: Tensor, labels: Tensor) -> float:
    """The share of pairs of a liked and another item of a user in which the liked one scores higher."""
    good, bad = labels > 0, labels == 0
    wins = (scores[:, :, None] > scores[:, None, :]) & good[:, :, None] & bad[:, None, :]
    return wins.sum().item() / (good[:, :, None] & bad[:, None, :]).sum().item()


@torch.no_grad()
def _scores(ranker: Ranker, batch: RankingBatch) -> Tensor:
    return ranker.eval()(batch)


def learns_a_checkerboard(cfg: RankerConfig, epochs: int, lr: float) -> None:
    """The likes of known items by heart, and with content those of cold ones."""
    (batch, labels), ranker = _board(cfg), _ranker(cfg)

    def in_order() -> tuple[float, float]:
        scores = _scores(ranker, batch)
        return _in_order(scores[:, :-COLD], labels[:, :-COLD]), _in_order(scores[:, -COLD:], labels[:, -COLD:])

    def learned() -> bool:
        known, cold = in_order()
        return known > KNOWN and (cold > UNSEEN or not cfg.reads_content)

    curve = _train(ranker, batch, labels, 5 * epochs, lr, learned)
    known, cold = in_order()
    what = f"head {cfg.name} with model.content={cfg.content}"
    assert known > KNOWN, f"{what}: {known:.2f} of the pairs of a checkerboard are in order; loss {curve[-1]:.3f}"
    if cfg.reads_content:
        assert cold > UNSEEN, f"{what}: {cold:.2f} of the pairs of cold items are in order, which content tells apart"


def is_the_same_twice(cfg: RankerConfig, lr: float) -> None:
    batch, labels = _board(cfg)
    curves: list[Any] = []
    for seed in (4, 4, 5):
        curves.append(_train(_ranker(cfg, seed), batch, labels, 3, lr))
    assert curves[0] == curves[1], "two runs of one seed differ"
    assert curves[0] != curves[2], "runs of two seeds are the same"


def survives_save_and_load(cfg: RankerConfig, lr: float) -> None:
    (batch, labels), ranker, other = _board(cfg), _ranker(cfg, 0), _ranker(cfg, 1)
    _train(ranker, batch, labels, 3, lr)
    other.load_state_dict(ranker.state_dict())
    assert _scores(ranker, batch).equal(_scores(other, batch)), "what it learned is not all in state_dict()"


def scores_one_as_among_others(cfg: RankerConfig) -> None:
    (batch, _), ranker = _board(cfg), _ranker(cfg)
    past = batch.history_content
    alone = RankingBatch(
        batch.users[:1],
        batch.items[:, :1],
        batch.history[:1],
        None if batch.content is None else batch.content[:, :1],
        None if past is None else HistoryContent(past.bank[:1], past.valid[:1]),
    )
    close = torch.allclose(_scores(ranker, alone), _scores(ranker, batch)[:1, :1], atol=1e-5)
    assert close, "an impression scored alone has another score than among others"
