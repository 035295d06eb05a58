"""Which runs a stream can go on with."""

from __future__ import annotations

from rawrec.config import Config
from rawrec.data.queries import ASKED
from rawrec.errors import UserError


def refuse(cfg: Config) -> None:
    """UserError for a run that no stream can go on with yet."""
    reasons = [
        (cfg.retrieval, f"{cfg.label} is a retrieval model: online learning is of rankers"),
        (bool(cfg.data.further_labels), f"data.labels={cfg.data.labels}: a run of several labels"),
    ]
    if not cfg.retrieval:
        model = cfg.model
        reasons += [
            (bool(model.counts), f"model.counts={model.counts} counts rows of the dataset"),
            (model.session != "none", f"model.session={model.session} reads sessions of the dataset"),
            (bool(model.history_marks), "model.lemur.marks reads rows of the dataset"),
            (
                bool(set(model.reads_interactions()) - ASKED.keys()),
                f"model {cfg.label} has a loss that reads rows of the dataset",
            ),
            (cfg.bank.capacity is not None, f"bank.capacity={cfg.bank.capacity}: such a bank does not grow"),
        ]
    for holds, reason in reasons:
        if holds:
            raise UserError(f"{reason}, which `rawrec online` does not go on with; train a run without it")
