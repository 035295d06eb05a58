"""Settings of `rawrec online`: a finished run that goes on learning from events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from rawrec.config.records import Record
from rawrec.config.wording import short, unknown
from rawrec.errors import IdleSetting, UserError
from rawrec.shown import several

PREFIX = "online."


class OnlineConfig(Record):
    """A finished run of a ranker that goes on with events as they come: `rawrec online RUN --log URL`."""

    wait: float = Field(
        default=600.0,
        ge=0,
        le=2**31,
        description="seconds after an impression in which what is done counts for it; then its label is final",
    )
    late: Literal["wait", "fake_negative", "elapsed"] = Field(
        default="wait",
        description="when an impression is trained. wait: when its label is final. fake_negative: at once as a "
        "negative, and again as a positive when it becomes one, with importance weights (Ktena et al. 2019). elapsed: "
        "after online.elapsed seconds with what was done by then, and again when it becomes a positive (Yang et al. "
        "2021)",
    )
    elapsed: float = Field(default=60.0, gt=0, le=2**31, description="late=elapsed: seconds before it is trained")
    actions: list[str] = Field(
        default=[], description="names of the actions that make a positive, with a value above 0; empty: all of them"
    )
    pending: int = Field(
        default=200_000, ge=1, description="impressions that wait for their label; of more, the oldest are final early"
    )
    ahead: float = Field(
        default=86_400.0,
        gt=0,
        description="seconds that an event's time may be ahead of all before it; beyond, it is read as theirs, until "
        "more and more events agree",
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="impressions of a step; null: train.batch_size of the run"
    )
    every: float | None = Field(
        default=None,
        gt=0,
        description="seconds of the stream's time after which what is ready is trained, though it fills no batch; "
        "null: full batches alone",
    )
    rate: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="learning rates but for those of ids, as a share of the run's (train.lr, train.encoder_lr)",
    )
    id_rate: float = Field(
        default=1.0, gt=0, le=10, description="the same of id tables (train.id_lr, or train.lr where that is null)"
    )
    admit_after: int = Field(
        default=2, ge=1, description="trained impressions after which a user or item new to the run has an id row"
    )
    expire_after: float | None = Field(
        default=None,
        gt=0,
        description="seconds of the stream's time without a trained impression after which a user or item loses its id "
        "row, and may get one as if it were new; what a user took in the stream is forgotten, too; null: never",
    )
    refresh_share: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="after each step so many items are made anew for each one that the step made; 0: none; null: "
        "bank.refresh_share of the run",
    )
    refresh_popular: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of these that are drawn of the items of the latest impressions, so that one is as likely "
        "as it is popular now; the others are those that were made longest ago",
    )
    checkpoint_every: int = Field(default=200, ge=1, description="steps between checkpoints")
    publish_every: int | None = Field(
        default=500, ge=1, description="steps between versions (--publish); null: no number of steps makes one"
    )
    publish_seconds: float | None = Field(
        default=None,
        gt=0,
        description="seconds between versions, beside online.publish_every: by the clock for who follows a log, by the "
        "time of events for what is read to an end (--until, --events); null: no time makes one",
    )
    publish_full_every: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="of so many versions one is full, the others hold what has changed since the one before",
    )
    canaries: int = Field(
        default=16,
        ge=0,
        le=1000,
        description="requests that a version must answer as its trainer does before it is served, and when it is "
        "loaded; 0: none, and no second model in the trainer's memory",
    )
    gate_pcoc: float | None = Field(
        default=1.0,
        ge=0,
        description="by what factor above 1 the mean prediction of the last window may be further from its mean label, "
        "to either side, than it was for the version that is served (1: twice as far); null: any",
    )
    gate_loss: float | None = Field(
        default=0.5,
        ge=0,
        description="by what share the loss of the last window (normalised entropy) may be above that of the version "
        "that is served; null: any",
    )
    window: int = Field(default=2000, ge=1, description="impressions of a window of prequential metrics")

    @model_validator(mode="after")
    def _fits(self) -> OnlineConfig:
        if self.late == "elapsed" and self.elapsed >= self.wait:
            raise ValueError(f"elapsed={self.elapsed:g} is not below wait={self.wait:g}: use late=wait")
        return self

    def dump(self) -> dict[str, Any]:
        """Plain values, complete."""
        return self.model_dump(mode="json")


def online_config(given: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> OnlineConfig:
    """The settings from plain values under their names, with `online.` before them or without. before: those of the
    state that is gone on with. Every mistake becomes a UserError that names it."""
    values = {key.removeprefix(PREFIX): value for key, value in given.items()}
    try:
        cfg = OnlineConfig.model_validate({**(before or {}), **values})
    except ValidationError as error:
        raise UserError(several(_explain(e) for e in error.errors())) from None
    if "elapsed" in values and cfg.late != "elapsed":
        raise IdleSetting(
            f"{PREFIX}elapsed", f"{PREFIX}elapsed={short(values['elapsed'])} would do nothing: late={cfg.late}"
        )
    return cfg


def _explain(error: Any) -> str:
    where, message = ".".join(map(str, error["loc"][:1])), error["msg"].removeprefix("Value error, ")
    if where and where not in OnlineConfig.model_fields:
        return unknown("online", where.partition(".")[0], list(OnlineConfig.model_fields))
    if not where:  # a check across settings, which names them itself
        return f"{PREFIX}{message}"
    return f"{PREFIX}{where}={short(error['input'])}: {message[:1].lower()}{message[1:]}"
