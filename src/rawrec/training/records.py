"""What the files of a run folder say, with their types: `run.json`, `metrics.json`, `metrics.jsonl`, and the state in a
checkpoint. Whoever reads them asks here, so that a file that somebody else has made is checked once."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rawrec.errors import UserError
from rawrec.reading import RECORD, read_json, read_json_lines, typed

Count = Annotated[int, Field(ge=0)]
Number = float | int | None
Metrics = dict[str, Number]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Registered(_Record):
    """A part of a model that another package registered."""

    kind: str = ""
    name: str = ""
    package: str | None = None


class _CutShort(_Record):
    epochs: Count
    of: Count


class _Init(_Record):
    run: str
    digest: str


class _Encoder(_Record):
    encoder: str | None = None
    digest: str


class Info(_Record):
    """`run.json`; more than this may stand there."""

    dataset: str
    finished: bool
    seconds: Annotated[float, Field(ge=0)]
    dataset_fingerprint: str
    dataset_name: str | None = None
    dataset_version: Annotated[int, Field(ge=1)] = 1
    model: str = ""
    generated: bool = False
    task: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict)
    paradigm: str | None = None
    registered: list[dict[str, Any]] = Field(default_factory=list)
    split: str = ""
    label_rule: str = ""
    started: str = ""
    pruned: bool = False
    loss_weights: dict[str, float] = Field(default_factory=dict)
    changed: list[dict[str, Any]] = Field(default_factory=list)
    init: _Init | None = None
    parameters: dict[str, Count] = Field(default_factory=dict)
    media: dict[str, Any] = Field(default_factory=dict)
    encoders: dict[str, _Encoder] = Field(default_factory=dict)
    best_epoch: Count | None = None
    steps: Count = 0
    cut_short: _CutShort | None = None
    changed: list[dict[str, Any]] = Field(default_factory=list)
    files: dict[str, str] = Field(default_factory=dict)


SUM = "sum"
"""Stands in `run.json` for the check sum of all else in it; runs of earlier versions have none."""


def info_sum(values: Mapping[str, Any]) -> str:
    """The check sum of what a `run.json` says."""
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def read_info(path: Path) -> dict[str, Any]:
    """What a `run.json` says. UserError where it is damaged."""
    found = read_json(path)
    typed(Info, found, path)
    sum_ = found.pop(SUM, None)
    if sum_ is not None and sum_ != info_sum(found):
        raise UserError(
            f"{path} is damaged: its check sum is not the one it was written with. Take a copy; whoever has changed it "
            f"on purpose removes its line {SUM!r}"
        )
    return {"generated": False, "files": {}, "dataset_name": Path(found["dataset"]).name} | found


class _Parts(_Record):
    valid: Metrics = Field(default_factory=dict)
    test: Metrics = Field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = Field(default_factory=dict)


def read_metrics(path: Path) -> dict[str, Any]:
    """What a `metrics.json` says: metrics by part, and why some are undefined. UserError where it is damaged."""
    found = read_json(path)
    typed(_Parts, found, path)
    return {"valid": {}, "test": {}, "reasons": {}} | found


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; none where there is no file. UserError where it is damaged."""
    try:
        found = read_json_lines(path, RECORD)
    except FileNotFoundError:
        return []
    return typed(list[dict[str, float | int | str | bool | None]], found, path)


class ProgressState(_Record):
    """`Progress`, as a checkpoint holds it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    epoch: Count
    position: Count
    step: Count
    best: float | None
    best_epoch: Count
    bad_epochs: Count
    finished: bool
    sums: dict[str, float]


class Checkpoint(_Record):
    """The state beside the tensors of a checkpoint."""

    format: int
    progress: ProgressState
    metrics_lines: Count
    unproven: list[str] = Field(default_factory=list)
    waiting: list[str] = Field(default_factory=list)


class Published(_Record):
    """The state beside the tensors of `model.safetensors`."""

    format: int
    step: Count
    model: str
