"""A typed config from plain values, and in words what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from rawrec.config.content import ContentConfig, FieldConfig
from rawrec.config.models import model_record
from rawrec.config.run import Config
from rawrec.config.training import DataConfig, EvalConfig, TrainConfig
from rawrec.config.wording import has_settings, short, unknown
from rawrec.errors import UserError
from rawrec.shown import several

OUR_NAMES: dict[str, tuple[str, ...]] = {
    "embedding_size": ("model.embedding_size", "model.recdim", "model.latent_dim", "model.dim"),
    "eval_batch_size": ("eval.batch_size",),
    "learning_rate": ("train.lr",),
    "learning_rate_scheduler": ("train.lr_decay",),
    "n_layers": ("model.n_layers", "model.n_ui_layers", "model.layer_num"),
    "stopping_step": ("train.patience",),
    "train_batch_size": ("train.batch_size",),
    "valid_metric": ("train.metric",),
}
"""What MMRec and RecBole call a setting -> what it is here: the first of these that the model has."""


def validate(tree: Mapping[str, Any], where: str = "") -> Config:
    """A `Config` from nested plain values; every mistake becomes a `UserError` that names it.

    where: what stands before each of them, such as the file that the values are from.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        model = model_record(tree.get("model"))
        raise UserError(several(where + _explain(e, model) for e in error.errors())) from None


def _explain(error: Any, model: type[BaseModel]) -> str:
    """One sentence about one problem that pydantic found: the setting, the value, what would work.

    model: the record of the model in question.
    """
    record: type[BaseModel] | None = Config
    path: list[str] = []
    for part in map(str, error["loc"]):
        if record is None:  # inside a value: a list's index, a union's branch
            break
        if record is ContentConfig and part == "fields":
            continue
        path.append(part)
        if part in record.model_fields:
            kind = record.model_fields[part].annotation
            record = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
            record = model if path == ["model"] else record
        elif record is ContentConfig:
            record = FieldConfig
        elif meant := _elsewhere(part, model):
            return f"{'.'.join(path)}: unknown; rawrec calls it {meant}"
        else:
            return unknown(".".join(path), part, list(record.model_fields))
    where, message = ".".join(path), error["msg"].removeprefix("Value error, ")
    if error["type"] == "model_name":
        return message
    if record is None:
        return f"{where}={short(error['input'])}: {message[:1].lower()}{message[1:]}"
    if error["type"] == "value_error":  # a check across settings, which names them itself
        return message
    return has_settings(where, error["input"], record)


def elsewhere(name: str) -> str | None:
    """The setting that a bare name stands for, whatever the model: epochs, train.epochs and RecBole's learning_rate."""
    part, dot, _ = name.partition(".")
    if dot:
        return name if part in Config.model_fields else None
    return _elsewhere(name, BaseModel) or (name if name in Config.model_fields else None)


def _elsewhere(name: str, model: type[BaseModel]) -> str | None:
    """The setting that an unknown `name` stands for: one of another part of the config, or another program's word."""
    parts = {"": Config, "model.": model, "train.": TrainConfig, "eval.": EvalConfig, "data.": DataConfig}
    known = [prefix + setting for prefix, record in parts.items() for setting in record.model_fields]
    meant = [*OUR_NAMES.get(name, ()), *(prefix + name for prefix in parts)]
    return next((key for key in meant if key in known), None)
