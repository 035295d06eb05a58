"""The points of a study and the settings of their runs, all resolved before anything runs.

A point is a model with an encoder, a paradigm and modalities. Its candidates are the settings of which validation
chooses on the first seed: the learning rates of encoders (end to end) by the values of `search`. A model of ids alone
is one point without an encoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rawrec.config import Config
from rawrec.config.finetune import FinetuneConfig
from rawrec.content.finetuning import tuned as tuned_encoder
from rawrec.data.dataset import Dataset
from rawrec.data.pairs import pair_fields
from rawrec.errors import UserError
from rawrec.studies.lmm.encoders import LETTERS, StudyEncoder, parse
from rawrec.studies.lmm.settings import Modalities, Paradigm, Part, StudyConfig
from rawrec.studies.resolving import choices, settled
from rawrec.studies.running import Candidate, Job, Planned
from rawrec.training.configuring import configure
from rawrec.training.tasks.pairs import encoders_of

PATIENCE = 50
CUTS = (10, 20)
PROTOCOLS: dict[str, dict[str, Any]] = {
    "mmrec": {"eval.protocol": "mmrec", "train.patience": PATIENCE},
    "default": {},
}


@dataclass(frozen=True)
class Point:
    """encoder, paradigm and modalities are None where the model reads ids alone."""

    model: str
    encoder: StudyEncoder | None = None
    paradigm: Paradigm | None = None
    modalities: Modalities | None = None

    @property
    def words(self) -> str:
        parts = (self.model_label, self.encoder and self.encoder.label, self.paradigm, self.modalities)
        return " ".join(part for part in parts if part)

    @property
    def model_label(self) -> str:
        return Path(self.model).stem if self.model.endswith((".yaml", ".yml")) else self.model

    @property
    def slug(self) -> str:
        parts = (self.model_label, self.encoder and self.encoder.slug, self.paradigm, self.modalities)
        return "-".join(part for part in parts if part)

    @property
    def undefined(self) -> str | None:
        """Why there is no such thing; None where there is."""
        return None if self.encoder is None or self.paradigm is None else self.encoder.undefined(self.paradigm)

    @property
    def needs_tuning(self) -> bool:
        return self.encoder is not None and self.paradigm is not None and self.encoder.needs_tuning(self.paradigm)


class Grid:
    """The points of all parts of a study, in the order in which they were asked for.

    Creating one resolves every run: raises UserError for a mistake in settings. `check` looks at encoders.
    """

    def __init__(self, cfg: StudyConfig, data: Dataset, out: Path):
        self.cfg, self.data, self.out = cfg, data, out
        seeds: dict[Point, int] = {}
        for part in cfg.grid:
            for point in self.points(part):
                seeds[point] = max(seeds.get(point, 0), part.seeds)
        self._tell_apart(point.encoder for point in seeds)
        self.planned = {point: self._plan(point, count) for point, count in seeds.items()}

    def points(self, part: Part) -> Iterator[Point]:
        """The points of a part of the grid."""
        encoders = parse(part.encoders, self.data.fields)
        for model in part.models:
            if not self._reads_features(model):
                yield Point(model)
                continue
            for encoder, paradigm, modalities in itertools.product(encoders, part.paradigms, part.modalities):
                self._has_fields(encoder, modalities)
                yield Point(model, encoder, paradigm, modalities)

    @staticmethod
    def _tell_apart(encoders: Iterable[StudyEncoder | None]) -> None:
        labels = [encoder.label for encoder in dict.fromkeys(encoders) if encoder is not None]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise UserError(
                f"--encoders: two of them are called {twice}, so that no table can tell them apart: rename one"
            )

    def _reads_features(self, model: str) -> bool:
        cfg = configure(model, self.data, {})
        if not cfg.retrieval:
            raise UserError(
                f"--models {model}: the study compares lists of the whole catalogue, and {cfg.label} ranks "
                "impressions; choose retrieval models (rawrec models)"
            )
        return cfg.model.reads_features()

    def _has_fields(self, encoder: StudyEncoder, modalities: Modalities) -> None:
        if encoder.kind == "ready":
            return
        fields = self.data.fields
        if encoder.kind == "single" and not (fields.image and fields.text):
            raise UserError(
                f"--encoders {encoder.label}: a single stream reads pictures together with texts, and the dataset has "
                f"no {'text' if fields.image else 'image'} field: import it with both, or choose other encoders"
            )
        for (kind, letter), there in zip(LETTERS.items(), (fields.image, fields.text), strict=True):
            if letter in modalities and not there:
                other = "T" if letter == "V" else "V"
                way = f"use --modalities {other}, or " if fields.image or fields.text else ""
                own = "+".join([*fields.feature][:2])
                ready = f" Its ready-made features: --encoders ready:{own}" if own else ""
                raise UserError(
                    f"--modalities {modalities}: the dataset has no {kind} field, so {encoder.label} has nothing to "
                    f"read there; {way}import the dataset with {kind}s.{ready}"
                )

    # --------------------------------------------------------------------------------------------------------- settings
    def _plan(self, point: Point, seeds: int) -> Planned:
        planned = Planned(point.words, point.slug, point.model, seeds, undefined=point.undefined)
        if point.undefined is not None:
            return planned
        if point.encoder is not None and point.paradigm is not None and point.modalities is not None:
            folder = self.tuned_folder(point.encoder) if point.needs_tuning else None
            planned.after = self._tuning(point.encoder, folder) if folder else None
            planned.columns = point.encoder.columns(point.paradigm, point.modalities, folder and str(folder))
        for chosen in self._choices(point):
            given, cfg = self.configured(point, chosen)
            self._measures(cfg)
            left = {key: value for key, value in chosen.items() if key in given}
            if left not in [known for known, _ in planned.candidates]:
                planned.candidates.append((left, given))
            planned.metric = cfg.train.metric
        return planned

    def _choices(self, point: Point) -> Iterator[dict[str, Any]]:
        lists = dict(self.cfg.search)
        if point.paradigm == "end_to_end":
            lists = {"train.encoder_lr": self.cfg.encoder_lrs, **lists}
        yield from choices(lists)

    def configured(self, point: Point, chosen: Candidate, tuned: str | None = None) -> tuple[dict[str, Any], Config]:
        """The overrides of a run, and the config that they make.

        tuned: the folder in place of a tuned encoder's own, see `tuned_folder`.
        """
        own: dict[str, Any] = {}
        if point.encoder is not None and point.paradigm is not None and point.modalities is not None:
            folder = (tuned or str(self.tuned_folder(point.encoder))) if point.needs_tuning else None
            own = point.encoder.content(point.paradigm, point.modalities, self.data.fields, self.cfg.train, folder)
        shared = {**PROTOCOLS[self.cfg.protocol], **self.cfg.settings, **chosen}
        if clash := sorted(own.keys() & shared.keys()):
            raise UserError(f"{clash[0]}: the study sets it for {point.words}; leave it out")
        return settled(point.model, self.data, shared, own, point.words)

    def _measures(self, cfg: Config) -> None:
        if lacking := [cut for cut in CUTS if cut not in cfg.eval.topk]:
            raise UserError(f"eval.topk={cfg.eval.topk}: the tables show lists of 10 and of 20; add {lacking[0]}")

    @cached_property
    def unused(self) -> list[str]:
        """Settings given for all runs that no run has a use for."""
        used = {key for one in self.planned.values() for _, given in one.candidates for key in given}
        return [key for key in (*self.cfg.settings, *self.cfg.search) if key not in used]

    # --------------------------------------------------------------------------------------------------------- encoders
    @property
    def encoders(self) -> list[StudyEncoder]:
        return list(dict.fromkeys(point.encoder for point in self.planned if point.encoder is not None))

    def tuned_folder(self, encoder: StudyEncoder) -> Path:
        return self.out / "encoders" / encoder.slug

    def tuning(self, encoder: StudyEncoder) -> FinetuneConfig:
        return encoder.tuning(self.cfg.finetune)

    def _tuning(self, encoder: StudyEncoder, folder: Path) -> Job:
        settings = self.tuning(encoder).model_dump(mode="json", exclude_unset=True, exclude={"encoder"})
        task = {"encoder": encoder.name, "data": str(self.data.path), "run": str(folder), "settings": settings}
        return Job(folder, f"tuning {encoder.label}", task, frozenset({("tuning", encoder.name)}))

    def check(self, points: list[Point]) -> None:
        """Load every encoder of these points once, as it will be used. Raises UserError for one that cannot be had, or
        does not read what the dataset has."""
        for encoder in dict.fromkeys(point.encoder for point in points if point.encoder is not None):
            mine = [point for point in points if point.encoder == encoder and point.undefined is None]
            try:
                if any(point.needs_tuning for point in mine):
                    pair_fields(self.data.fields, None, None)
                    tuned_encoder(self.tuning(encoder))
                fitting = [point for point in mine if not (encoder.kind == "pair" and point.needs_tuning)]
                for point in _most_telling(fitting):
                    self._load(point)
            except UserError as error:
                raise UserError(f"--encoders {encoder.label}: {error}") from None

    def _load(self, point: Point) -> None:
        """The encoders of a point; of a tuned one those that it will be made of."""
        assert point.encoder is not None
        (chosen, _), *_ = self.planned[point].candidates
        _, cfg = self.configured(point, chosen, tuned=point.encoder.name)
        encoders_of(cfg, self.data.fields)


def _most_telling(points: list[Point]) -> list[Point]:
    """Of points with one encoder those whose loading shows what loading all would: trained ones, with most to read."""
    trained = [point for point in points if point.paradigm == "end_to_end"] or points
    both = [point for point in trained if point.modalities == "VT"]
    return both[:1] or list({point.modalities: point for point in trained}.values())
