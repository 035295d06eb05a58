"""What each table compares: rankers under settings of their own, all resolved before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rawrec.config.finetune import FinetuneConfig, finetune_config
from rawrec.content.finetuning import tuned
from rawrec.data.dataset import Dataset
from rawrec.data.pairs import pair_fields
from rawrec.errors import IdleSetting, UserError
from rawrec.shown import listed
from rawrec.studies.em3.settings import Em3StudyConfig
from rawrec.studies.resolving import all_features, choices, settled
from rawrec.studies.running import Job, Planned
from rawrec.training.configuring import configure

FUSIONS = {
    "concat": "concat",
    "sum": "sum",
    "one_flow": "1flow",
    "two_flow": "2flow",
    "masked_fq_former": "masked FQ-Former",
    "fqformer": "FQ-Former",
}
"""`content.fusion.kind` and what the paper calls it."""
NEGATIVES = 64
SIDES = {"item": "only item", "user": "only user", "both": "item & user"}
CONTENT = "content"
"""The ready-made feature of a dataset that was made of a run's content."""


@dataclass(frozen=True)
class Arm:
    """A row of a table: a ranker under settings of its own.

    tuned: its encoder is the one tuned on the catalogue. frozen: it reads the content of this arm's first run.
    """

    label: str
    model: str
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tuned: bool = False
    frozen: Arm | None = None

    @property
    def key(self) -> str:
        """Arms with one key are the same runs, whatever their tables call them."""
        return json.dumps([self.model, dict(self.own), self.tuned, self.frozen and self.frozen.key], sort_keys=True)

    @property
    def words(self) -> str:
        return self.label if self.label.startswith(self.model) else f"{self.model} {self.label}"

    @property
    def slug(self) -> str:
        """Its runs' names begin with it."""
        parts = [Path(self.model).stem if self.model.endswith((".yaml", ".yml")) else self.model]
        parts += ["content"] if self.own.get("model.content") == "em3" else []
        return "-".join([*parts, *(["specific"] if self.frozen else ["tuned"] if self.tuned else [])])


@dataclass(frozen=True)
class Comparison:
    """A table: groups of arms, the first of each being the baseline."""

    number: int
    title: str
    groups: list[tuple[Arm, ...]]
    about: str


class Arms:
    """The comparisons of a study and the runs behind them. Creating one resolves every run: UserError for a mistake."""

    def __init__(self, cfg: Em3StudyConfig, data: Dataset, out: Path):
        self.cfg, self.data, self.out = cfg, data, out
        self._check()
        make: dict[int, Callable[[], Comparison]] = {
            1: self._rankers, 2: self._modalities, 3: self._fusions, 4: self._lengths, 5: self._contrast,
            6: self._sides, 7: self._modes,
        }  # fmt: skip
        self.comparisons = [make[number]() for number in cfg.tables if number in make]
        self.spaces = (self.baseline(), self.em3("EM3"), self._ready("PE")) if {8, 9} & {*cfg.tables} else ()
        self.planned: dict[str, Planned] = {}
        for arm in self.arms():
            if arm.key not in self.planned:
                self.planned[arm.key] = self._plan(arm, data)

    def arms(self) -> Iterator[Arm]:
        """Of all tables, one that another reads before it."""
        for comparison in self.comparisons:
            for arm in (arm for group in comparison.groups for arm in group):
                if arm.frozen is not None:
                    yield arm.frozen
                yield arm
        yield from self.spaces

    def _check(self) -> None:
        if unknown := [label for label in self.cfg.labels if label not in self.data.meta.labels]:
            known = listed(self.data.meta.labels, unknown[0])
            raise UserError(f"--labels {unknown[0]}: the dataset has no such label. It has: {known}")
        for head in self.cfg.heads:
            model = configure(head, self.data, self._label(self._labels[0])).model
            if model.kind != "ranking":
                raise UserError(f"--heads {head}: it is no ranker; choose heads of rankers (rawrec models)")

    # ------------------------------------------------------------------------------------------------------------- arms
    @property
    def _labels(self) -> list[str]:
        """The labels that rankers learn; an empty one where the dataset has none."""
        return self.cfg.labels or self.data.meta.labels or [""]

    def _label(self, label: str) -> dict[str, Any]:
        return {"data.label": label} if label else {}

    def _features(self) -> dict[str, Any]:
        """All that the dataset has beside content."""
        found = all_features(self.data)
        return {key: value for key, value in found.items() if key not in {**self.cfg.settings, **self.cfg.search}}

    def baseline(self, head: str | None = None, label: str | None = None, name: str = "baseline") -> Arm:
        own = self._label(self._labels[0] if label is None else label)
        return Arm(name, head or self.cfg.heads[0], {**own, **self._features(), "model.content": "none"})

    def em3(self, name: str, changes: Mapping[str, Any] | None = None, base: Arm | None = None) -> Arm:
        """The same with content, and what else is changed."""
        base = base or self.baseline()
        content = {"model.content": "em3", "paradigm": self.cfg.paradigm}
        return Arm(name, base.model, {**base.own, **content, **(changes or {})})

    def _rankers(self) -> Comparison:
        groups = []
        for label in self._labels:
            for head in self.cfg.heads:
                words = f"{head} {label}" if len(self._labels) > 1 else head
                base = self.baseline(head, label, f"{words}: baseline")
                groups.append((base, self.em3(f"{words}: EM3", base=base)))
        about = (
            "Baselines are rankers of open papers with all features of the dataset; the paper's are confidential. Both "
            "have the same settings and the same choice by validation (--search)."
        )
        return Comparison(1, "Baselines and EM3", groups, about)

    @property
    def _fields(self) -> dict[str, str]:
        """Fields of content that are read, and their kinds."""
        fields = self.data.fields
        kinds = dict.fromkeys(fields.image, "image") | dict.fromkeys(fields.text, "text")
        kinds |= dict.fromkeys(fields.feature, "feature")
        off = {key.split(".")[1] for key, value in self.cfg.settings.items() if key.endswith(".use") and not value}
        return {name: kind for name, kind in kinds.items() if not {name, kind} & off}

    def _modalities(self) -> Comparison:
        fields = self._fields
        chosen = {"only images": [n for n, kind in fields.items() if kind == "image"],
                  "only texts": [n for n, kind in fields.items() if kind == "text"]}  # fmt: skip
        if len(fields) > 2:
            chosen |= {f"without {name}": [other for other in fields if other != name] for name in fields}
        arms, seen = [self.baseline()], [[*fields]]
        for name, read in chosen.items():
            if read and read not in seen:
                seen.append(read)
                arms.append(self.em3(name, {f"content.{n}.use": False for n in fields if n not in read}))
        about = "What the content part reads. Several fields of one kind (title, description) are tokens of their own."
        return Comparison(2, "Modalities", [(*arms, self.em3("all"))], about)

    def _fusions(self) -> Comparison:
        usual = configure("em3", self.data, {}).content.fusion.kind
        arms = [
            self.em3(words, {} if kind == usual else {"content.fusion.kind": kind}) for kind, words in FUSIONS.items()
        ]
        return Comparison(3, "Fusion", [(self.baseline(), *arms)], "How the fields of an item become its content.")

    def _contrast(self) -> Comparison:
        arms = [self.em3("w/o CIC", {"model.cic_weight": 0.0}), self.em3("w/ CIC")]
        arms.append(self.em3(f"w/ CIC, {NEGATIVES} negatives", {"model.cic_negatives": NEGATIVES}))
        if "model.columns" in self.baseline().own:
            arms.append(self.em3("w/ CIC, ids side by side", {"model.cic_id": "concat"}))
        about = "The Content-ID contrast: none, against all other items of a step, against some, with concatenated ids."
        return Comparison(5, "Content-ID contrast", [(self.baseline(), *arms)], about)

    def _sides(self) -> Comparison:
        arms = [self.em3(words, {} if side == "both" else {"model.content_side": side})
                for side, words in SIDES.items()]  # fmt: skip
        about = "Content of the candidate (item), of the history (user), of both."
        return Comparison(6, "Item and user", [(self.baseline(), *arms)], about)

    def _lengths(self) -> Comparison:
        first, *longer = self.cfg.lengths
        arms = [
            self.em3(f"length={length} w/o LoRA", {"paradigm": "hybrid", "data.history": length})
            for length in self.cfg.lengths
        ]
        lora = {"paradigm": "hybrid", "data.history": first, "content.lora.handover": self.cfg.handover}
        arms += [self.em3(f"length={length} w/ LoRA", {**lora, "content.lora.history": length}) for length in longer]
        about = (
            f"Histories of content; LoRA begins with those of {first} and goes on with longer ones "
            f"(content.lora.handover={self.cfg.handover}). All are hybrid."
        )
        return Comparison(4, "Length of histories and LoRA", [(self.baseline(), *arms)], about)

    def _ready(self, name: str) -> Arm:
        """Frozen features of the tuned encoder."""
        frozen = self.em3(name, {"paradigm": "frozen", "model.cic_weight": 0.0})
        return Arm(name, frozen.model, frozen.own, tuned=True)

    def _modes(self) -> Comparison:
        ends = self.em3("E2E")
        specific = Arm("task-specific PE", ends.model, self._ready("").own, frozen=ends)
        arms = [self._ready("PE"), specific, ends]
        if self.cfg.paradigm == "hybrid":
            arms.append(self.em3("E2E, encoders too", {"paradigm": "end_to_end"}))
        about = (
            "PE: frozen features of an encoder that was tuned on the catalogue's pictures and texts. Task-specific PE: "
            "the content of the first run of E2E, frozen, in a fresh ranker. Frozen content has no contrast with ids."
        )
        return Comparison(7, "Split of the gains", [(self.baseline(), *arms)], about)

    # ------------------------------------------------------------------------------------------------------------- runs
    def _plan(self, arm: Arm, data: Dataset) -> Planned:
        planned = Planned(arm.words, arm.slug, arm.model, self.cfg.seeds)
        if arm.frozen is None:
            self._settle(planned, arm, data, self.cfg.settings)
        if arm.own["model.content"] == "em3":
            planned.columns = frozenset({("content",)})
        return planned

    def plan_frozen(self, arm: Arm, data: Dataset) -> Planned:
        """The runs of an arm on the dataset that holds the content which it reads."""
        planned = self.planned[arm.key]
        shared = {key: value for key, value in self.cfg.settings.items() if not _of_field(key)}
        self._settle(planned, arm, data, shared)
        return planned

    def _settle(self, planned: Planned, arm: Arm, data: Dataset, shared: Mapping[str, Any]) -> None:
        own = dict(arm.own)
        try:
            if arm.tuned:
                pair_fields(self.data.fields)
        except UserError as error:
            planned.undefined = str(error)
            return
        try:
            if arm.tuned:
                planned.after = self.tuning_job()
                own["content.item.encoder"] = str(self.tuned_folder)
            for chosen in choices(self.cfg.search):
                given, cfg = settled(arm.model, data, {**shared, **chosen}, own, planned.words)
                left = {key: value for key, value in chosen.items() if key in given}
                if left not in [known for known, _ in planned.candidates]:
                    planned.candidates.append((left, given))
                planned.metric = cfg.train.metric
        except IdleSetting as error:
            planned.undefined = str(error).removeprefix(f"{planned.words}: ")

    @property
    def unused(self) -> list[str]:
        """Settings given for all runs that no run has a use for."""
        used = {key for one in self.planned.values() for _, given in one.candidates for key in given}
        return [key for key in (*self.cfg.settings, *self.cfg.search) if key not in used]

    # ---------------------------------------------------------------------------------------------------------- encoder
    @property
    def tuned_folder(self) -> Path:
        return self.out / "encoders" / "tuned"

    def tuning(self) -> FinetuneConfig:
        """How the encoder is tuned on the catalogue."""
        return finetune_config({"encoder": self.cfg.encoder, **self.cfg.finetune}, self.cfg.finetune)

    def tuning_job(self) -> Job:
        settings = self.tuning().model_dump(mode="json", exclude_unset=True, exclude={"encoder"})
        task = {"encoder": self.cfg.encoder, "data": str(self.data.path), "run": str(self.tuned_folder)}
        return Job(self.tuned_folder, f"tuning {self.cfg.encoder}", {**task, "settings": settings})

    def check(self) -> None:
        """Load the encoder that is to be tuned. Raises UserError where it cannot be had, or finds nothing to read."""
        if any(planned.after is not None for planned in self.planned.values()):
            tuned(self.tuning())


def _of_field(key: str) -> bool:
    """Whether a setting is of a field of content: content.image.size."""
    head, *rest = key.split(".")
    return head == "content" and len(rest) == 2 and rest[0] not in ("fusion", "lora")
