"""What a sweep searches: its settings, the points of a grid, and points that Optuna proposes.

Every point of a grid, and the ends and the inside of every range, is resolved to a whole config before anything runs.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from rawrec.config import Config, resolve, strict_yaml
from rawrec.config.metrics import lower_is_better
from rawrec.config.records import Count, Record
from rawrec.errors import UserError
from rawrec.extras import need
from rawrec.reading import SETTINGS, read_text
from rawrec.shown import listed, several
from rawrec.training.sweeps.trial import Trial, study

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

INSIDE = 0.6180339887  # where in a range a value is tried that is no whole number
TPE_DRAWS, DRAWS = 10, 100  # proposals of a point that is new: by Optuna's sampler, then at random


class Range(Record):
    """Values between two numbers, both included."""

    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(default=False, description="search evenly in the logarithm")
    type: Literal["float", "int"] | None = Field(default=None, description="null: int where the setting is one")

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low={self.low:g} must be below high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low:g} has no logarithm: give a number above 0, or log: false")
        if self.type == "int" and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low={self.low:g} and high={self.high:g} must be whole numbers with type: int")
        return self


def _form(value: Any) -> str:
    return "range" if isinstance(value, Mapping | Range) else "values"


def _shown(choice: Range | list[Any]) -> str:
    return f"{choice.low:g} to {choice.high:g}" if isinstance(choice, Range) else str(choice)


Values = Annotated[list[Any], Field(min_length=1)]
Choice = Annotated[Annotated[Range, Tag("range")] | Annotated[Values, Tag("values")], Discriminator(_form)]


class SweepConfig(Record):
    """What `sweep.yaml` holds. Paths are as seen from the working directory."""

    model: str = Field(description="preset, or the path of a .yaml file")
    data: Path = Field(description="dataset folder")
    out: Path = Field(description="sweep folder to write, or to go on with")
    fixed: dict[str, Any] = Field(default_factory=dict, description="settings that all trials share")
    search: dict[str, Choice] = Field(min_length=1, description="key: [values], or {low, high, log, type}")
    method: Literal["grid", "optuna"] = Field(default="grid", description="every combination, or Optuna's TPE sampler")
    trials: Count | None = Field(default=None, description="optuna: so many points")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[0], min_length=1, description="runs of each trial; trials are judged by their mean"
    )
    jobs: Count = Field(default=1, description="runs at the same time; each has its share of the CPU's threads")
    metric: str | None = Field(
        default=None, description="validation metric that chooses the best trial; null: train.metric"
    )
    pruning: bool = Field(default=False, description="stop trials that are worse than the median of the finished ones")

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("a seed is given twice")
        return value

    @model_validator(mode="after")
    def _together(self) -> SweepConfig:
        for where, keys in (("fixed", self.fixed), ("search", self.search)):
            if "seed" in keys:
                raise ValueError(f"{where}: give seeds by `seeds`, for example seeds: [0, 1, 2]")
        both = next((key for key in self.search if key in self.fixed), None)
        if both is not None:
            raise ValueError(
                f"{both} is given in fixed and in search: {self.fixed[both]} and {_shown(self.search[both])}; leave "
                "one out"
            )
        ranges = [key for key, choice in self.search.items() if isinstance(choice, Range)]
        if self.method == "grid" and ranges:
            raise ValueError(f"search.{ranges[0]}: a grid needs a list of values; a range needs method: optuna")
        if self.method == "grid" and self.trials is not None:
            raise ValueError(f"trials={self.trials}: a grid has as many trials as points; leave it out")
        if self.method == "optuna" and self.trials is None:
            raise ValueError("trials: say how many, for example trials: 30")
        return self


def load(source: str | Path | Mapping[str, Any]) -> SweepConfig:
    """The settings of a sweep from a YAML file or a mapping. Raises UserError that names what is wrong."""
    name = "the sweep" if isinstance(source, Mapping) else str(source)
    try:
        tree = source if isinstance(source, Mapping) else strict_yaml.load(read_text(Path(source), SETTINGS, True))
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(tree, Mapping):
        raise UserError(f"{name} must hold settings as `key: value`: {', '.join(SweepConfig.model_fields)}")
    try:
        return SweepConfig.model_validate(_numbers(tree))
    except ValidationError as error:
        raise UserError(several(f"{name}: {_explain(e)}" for e in error.errors())) from None


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as a text; people mean a number."""
    if isinstance(value, Mapping):
        return {key: _numbers(sub) for key, sub in value.items()}
    if isinstance(value, list):
        return [_numbers(sub) for sub in value]
    number = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value)
    return float(value) if number else value


def _explain(error: Any) -> str:
    path = [str(part) for part in error["loc"] if part not in ("range", "values")]
    where, message = ".".join(path), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = list(SweepConfig.model_fields if len(path) == 1 else Range.model_fields)
        near = difflib.get_close_matches(path[-1], known, n=1)
        return f"{where} is unknown{f'; did you mean {near[0]}?' if near else '.'} Known: {listed(known, path[-1])}"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}={error['input']!r}: {message[:1].lower()}{message[1:]}"


class Search:
    """The points of a sweep. `configure(overrides)` is the whole config of a run, or raises UserError.

    Creating one checks everything; `configs` are those that were resolved. `metric` and `lower` (less of it is better)
    say how trials are judged.
    """

    def __init__(self, cfg: SweepConfig, configure: Callable[[Mapping[str, Any]], Config]):
        self.cfg, self.configure = cfg, configure
        if cfg.method == "optuna" or cfg.pruning:
            which = "method: optuna" if cfg.method == "optuna" else "pruning: true"
            need("optuna", f"{which} of a sweep needs Optuna")
        self.points: list[dict[str, Any]] = []  # of a grid
        self.distributions: dict[str, BaseDistribution] = {}  # of Optuna
        self.configs: list[Config] = []
        if cfg.method == "grid":
            lists = [choice for choice in cfg.search.values() if isinstance(choice, list)]
            self.points = [dict(zip(cfg.search, values, strict=True)) for values in itertools.product(*lists)]
            self.configs = [self.resolve(point) for point in self.points]
        else:
            self.distributions = self._distributions()
        self.metric = self._metric()
        self.lower = lower_is_better(self.metric)

    @property
    def total(self) -> int:
        """Trials of the whole sweep."""
        return self.cfg.trials or len(self.points)

    @property
    def warmup(self) -> int:
        """Epochs before a trial may be pruned: as many as a run may go without improvement (train.patience)."""
        return max(cfg.train.patience for cfg in self.configs)

    def resolve(self, point: Mapping[str, Any]) -> Config:
        """The whole config of a point."""
        return self.configure({**self.cfg.fixed, **point})

    def _distributions(self) -> dict[str, BaseDistribution]:
        """Of every setting, after its values, or the ends and the inside of its range, were found possible."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        search = self.cfg.search
        base = {key: choice[0] if isinstance(choice, list) else choice.low for key, choice in search.items()}
        found: dict[str, BaseDistribution] = {}
        for key, choice in search.items():
            if isinstance(choice, list):
                self.configs += [self.resolve({**base, key: value}) for value in choice]
                found[key] = CategoricalDistribution(range(len(choice)))
                continue
            self.configs += [self.resolve({**base, key: value}) for value in (choice.low, choice.high)]
            if self._takes_fractions(base, key, choice):
                found[key] = FloatDistribution(choice.low, choice.high, log=choice.log)
            else:
                found[key] = IntDistribution(int(choice.low), int(choice.high), log=choice.log)
        return found

    def _takes_fractions(self, base: Mapping[str, Any], key: str, choice: Range) -> bool:
        if choice.type == "int":
            return False
        try:
            self.resolve({**base, key: choice.low + INSIDE * (choice.high - choice.low)})
        except UserError:
            if choice.type == "float" or not (choice.low.is_integer() and choice.high.is_integer()):
                raise
            return False
        return True

    def _metric(self) -> str:
        """The metric that chooses. Raises UserError where a model does not have it, or trials follow several."""
        followed = list(dict.fromkeys(cfg.train.metric for cfg in self.configs))
        metric = self.cfg.metric
        if metric is None:
            if len(followed) > 1:
                raise UserError(f"trials follow different metrics ({listed(followed)}): give `metric`")
            return followed[0]
        for cfg in self.configs:
            if resolve(cfg.dump(), {"train.metric": metric}).follows_lists and not cfg.follows_lists:
                raise UserError(
                    f"metric: {metric} is of lists, which model {cfg.label} makes of the validation part only where "
                    f"train.metric is of lists, too, and it is {cfg.train.metric}: add train.metric: {metric} to fixed"
                )
        if self.cfg.pruning and followed != [metric]:
            raise UserError(
                f"pruning compares what every epoch measures, {listed(followed)}, and the metric is {metric}: "
                f"add train.metric: {metric} to fixed"
            )
        return metric

    def next(self, trials: Sequence[Trial]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The next point, and Optuna's words for it; None where there is no new one.

        A function of the trials so far, so that a sweep that goes on proposes what it would have proposed.
        """
        if self.points:
            return (self.points[len(trials)], {}) if len(trials) < len(self.points) else None
        from optuna.samplers import RandomSampler, TPESampler

        taken = [trial.overrides for trial in trials]
        for attempt in range(DRAWS):
            seed = int(np.random.SeedSequence([len(trials), attempt]).generate_state(1)[0])
            sampler = TPESampler(seed=seed) if attempt < TPE_DRAWS else RandomSampler(seed=seed)
            params = study(trials, self.lower, self.distributions, sampler).ask(self.distributions).params
            point = {key: self._value(key, value) for key, value in params.items()}
            if point not in taken:
                return point, params
        return None

    def _value(self, key: str, value: Any) -> Any:
        choice = self.cfg.search[key]
        return choice[value] if isinstance(choice, list) else value
