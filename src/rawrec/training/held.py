"""What a process holds of what grows with users and items, in bytes: exact arithmetic, without making any of it."""

from __future__ import annotations

from rawrec.config import Config

STORED = {"float32": 4, "bf16": 2, "int8": 1}
NUMBER = 4  # bytes of a float32, and of an int32


def held_bytes(cfg: Config, users: int, items: int, processes: int = 1) -> dict[str, int]:
    """Of a ranker, by part: `ids` (tables), `optimiser` (of them: two moments, uses, last use), `averages` and `best`
    (the tables of the best epoch so far); of its content `bank` and `ages`. Of the process that holds most. Retrieval
    models have tables of their own kinds: nothing is told of them.

    Not told: dense weights, columns of features, activations, and how far each draw and each list is.
    """
    if cfg.retrieval:
        return {}
    shares = processes if cfg.model.tables == "sharded" else 1
    rows = sum(-(-(count + 1) // shares) for count in (users, items))
    ids = rows * (cfg.model.dim + 1) * NUMBER
    found = {"ids": ids, "optimiser": 2 * ids + 2 * 2 * rows * NUMBER, "best": ids}
    if cfg.train.ema:
        found["averages"] = ids + 2 * rows * NUMBER
    if cfg.reads_content:
        capacity = getattr(cfg.bank, "capacity", None) or items
        each = cfg.content.dim * STORED[cfg.bank.dtype] + NUMBER * (cfg.bank.dtype == "int8")
        found |= {"bank": min(capacity, items) * each, "ages": 2 * 8 * items}
    return found
