"""What a model, an encoder or a fusion of your own must pass: plain functions that raise AssertionError.

>>> from rawrec.testing import check_encoder, check_fusion, check_model
>>> check_model("mine", {"dim": 8})
>>> check_encoder("tiles", kind="image")
>>> check_fusion("gate")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rawrec.config.models import MODELS, model_entry
from rawrec.config.ranking import RankerConfig
from rawrec.errors import UserError
from rawrec.testing import ranking, retrieval
from rawrec.testing.encoders import check_encoder
from rawrec.testing.fusions import check_fusion

__all__ = ["check_encoder", "check_fusion", "check_model"]


def check_model(
    model: str | type[Any],
    settings: Mapping[str, Any] | None = None,
    epochs: int = 40,
    lr: float = 0.02,
    memorises: bool = True,
) -> None:
    """All that every model of ours must do: it learns a checkerboard, overfits a tiny set, survives saving and loading,
    is the same twice with one seed, and stands a missing modality and a cold item.

    model: a registered name, or the class (of a ranker: its head). settings: over its record's defaults, fit for a
    graph of 24 users and 20 items. epochs, lr: enough to learn that. memorises: False for a retrieval model that is not
    made to learn likes without any pattern by heart. Raises AssertionError that says what failed.
    """
    name = model if isinstance(model, str) else next((n for n, e in MODELS.items() if e.what is model), None)
    entry = None if name is None else model_entry(name)
    if entry is None:
        raise UserError(f"{model} is no registered model; call rawrec.register_model first")
    cls, cfg = entry.load(), entry.record.model_validate({"name": name, **(settings or {})})
    if isinstance(cfg, RankerConfig):
        ranking.check(cfg, epochs, lr)
    else:
        retrieval.check(lambda *args: cls(cfg, *args), cfg.reads_features(), epochs, lr, memorises)
