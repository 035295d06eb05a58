"""What each table compares: rankers under settings of their own, all resolved before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rawrec.config.models import model_entry
from rawrec.data.dataset import Dataset
from rawrec.errors import IdleSetting, UserError
from rawrec.studies.gains import Judged
from rawrec.studies.lemur.settings import LemurStudyConfig
from rawrec.studies.resolving import all_features, choices, settled
from rawrec.studies.running import Planned
from rawrec.training.configuring import configure

PRESET = "lemur"
RATES = ((100, 100), (100, 20), (20, 20), (10, 10))
"""Percent of a step's candidates that are encoded, and through which a gradient goes."""
BY_FOLDER = ("content.item.layers", "content.query.layers", "content.query.encoder")
"""Settings of encoders that one which was trained before brings itself."""
JOINT = "joint:"
CIC_WEIGHT = 0.1


@dataclass(frozen=True)
class Arm:
    """A row of a table: a ranker under settings of its own.

    after: the row whose runs trained the encoder that it reads frozen, seed by seed. read: of the row's runs, which
    were trained for another row, the kinds of fields that are read in evaluation; None: all, as they were trained.
    """

    label: str
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)
    after: Arm | None = None
    read: str | None = None

    @property
    def trained(self) -> str:
        """Arms with one such key are the same runs, whatever their tables call them."""
        return json.dumps([dict(self.own), self.after and self.after.trained], sort_keys=True)

    @property
    def key(self) -> str:
        """And, read alike, the same results."""
        return f"{self.trained} {self.read or ''}"

    @property
    def slug(self) -> str:
        """Its runs' names begin with it."""
        content = [] if self.own.get("model.content") == "none" else ["frozen" if self.after else "content"]
        return "-".join([str(self.own["model.name"]), *content])


@dataclass(frozen=True)
class Comparison:
    """A table: arms, the first of which is what the others are held against."""

    number: int
    title: str
    arms: tuple[Arm, ...]
    about: str


class Arms:
    """The comparisons of a study and the runs behind them. Creating one resolves every run: UserError for a mistake."""

    def __init__(self, cfg: LemurStudyConfig, data: Dataset, out: Path):
        self.cfg, self.data, self.out = cfg, data, out
        self.given = {**cfg.settings, **cfg.search}
        for option, head in (("head", cfg.head), ("baseline", cfg.baseline)):
            if configure(head, data, {}).model.kind != "ranking":
                raise UserError(f"--{option} {head}: it is no ranker; choose the head of a ranker (rawrec models)")
        self.usual = configure(PRESET, data, {"model.name": cfg.head, **self._of_lemur})
        make: dict[int, Callable[[], Comparison]] = {
            1: self._cumulative, 2: self._training, 3: self._ablations, 4: self._sampling, 5: self._staleness,
            6: self._modalities,
        }  # fmt: skip
        self.comparisons = [make[number]() for number in cfg.tables]
        self.planned: dict[str, Planned] = {}
        for arm in self.arms():
            if arm.trained not in self.planned:
                self.planned[arm.trained] = self._plan(arm)

    def arms(self) -> Iterator[Arm]:
        """Of all tables, one that another reads before it."""
        for comparison in self.comparisons:
            for arm in comparison.arms:
                if arm.after is not None:
                    yield arm.after
                yield arm

    @property
    def metric(self) -> Judged:
        """What the tables judge by: QAUC where impressions have queries."""
        return "qauc" if self.data.has_queries and len(self.data.queries) else "gauc"

    # ------------------------------------------------------------------------------------------------------------- arms
    @property
    def _of_lemur(self) -> dict[str, Any]:
        """What the caller says of LEMUR's histories and sampling."""
        keys = ("data.history", "model.lemur.short", "model.lemur.long", "bank.forward_rate", "bank.backward_rate")
        return {key: self.cfg.settings[key] for key in keys if key in self.cfg.settings}

    @property
    def _common(self) -> dict[str, Any]:
        """Of all rows, but for what the caller says of it."""
        found = {**all_features(self.data), "train.metric": self.metric, "eval.full_ranking": False}
        return {key: value for key, value in found.items() if key not in self.given}

    @property
    def _sequence(self) -> dict[str, Any]:
        """The decoder over ids reads as long a history as content has."""
        return {} if "model.id_history" in self.given else {"model.id_history": self.usual.data.history}

    def ids(self, label: str, head: str | None = None, sequence: bool = True) -> Arm:
        """A ranker without content."""
        past = self._sequence if sequence else {"model.id_history": 0}
        return Arm(label, {**self._common, "model.name": head or self.cfg.head, "model.content": "none", **past})

    def lemur(self, label: str, changes: Mapping[str, Any] | None = None, after: Arm | None = None) -> Arm:
        """LEMUR, and what is changed of it."""
        return Arm(label, {**self._common, "model.name": self.cfg.head, **self._sequence, **(changes or {})}, after)

    def _cumulative(self) -> Comparison:
        whole = {"bank.forward_rate": 100.0, "bank.backward_rate": 100.0}
        arms = (
            self.ids(self.cfg.baseline, self.cfg.baseline, sequence=False),
            self.ids(f"+ {self.cfg.head}", sequence=False),
            self.ids("+ sequence over ids"),
            self.lemur("+ content, without bank", {"model.lemur.short": 0, "model.lemur.long": 0, **whole}),
            self.lemur("+ bank: LEMUR"),
        )
        about = (
            "Each row adds to the one above it. Without a bank there is content of the candidate and of the query, and "
            "SQDC, but none of histories; every candidate is encoded."
        )
        return Comparison(1, "Part by part", arms, about)

    def _training(self) -> Comparison:
        first = self.lemur("first stage", {"model.ranking_gradient": False})
        arms = (self.ids("baseline"), self.two_stages("two stages", first), self.lemur("one stage: LEMUR"))
        about = (
            "Two stages: the transformers learn by SQDC alone from the training part, then are kept as they are, and "
            "a fresh ranker learns from the same rows. The baseline has the sequence over ids and no content."
        )
        return Comparison(2, "Two stages against one", arms, about)

    def two_stages(self, label: str, first: Arm) -> Arm:
        """A ranker that reads the encoder of `first` as it is."""
        frozen = {"paradigm": "frozen", "content.fusion.kind": "none", "model.sqdc_weight": 0.0}
        if self.given.get("content.query.encoder") == "shared":
            frozen["content.query.encoder"] = "shared"
        else:
            frozen |= {"content.query.encoder": "own", "content.query.train": "none"}
        return self.lemur(label, frozen, first)

    def _ablations(self) -> Comparison:
        without = {
            "without the ranker's gradient into the encoder": {"model.ranking_gradient": False},
            "without the short sequence": {"model.lemur.short": 0},
            "without the long sequence": {"model.lemur.long": 0},
            "without similarity features": {"model.lemur.similarity": []},
            "without SQDC": {"model.sqdc_weight": 0.0},
            "without SQDC's mask": {"model.sqdc_mask": []},
            "with CIC added": {"model.cic_weight": self.given.get("model.cic_weight", CIC_WEIGHT)},
            "gradient into histories as well (ours)": {"bank.history_grad": "live"},
        }
        arms = [self.lemur("LEMUR"), *(self.lemur(label, changes) for label, changes in without.items())]
        about = "One part of LEMUR taken away, or added, at a time."
        return Comparison(3, "What LEMUR is without", tuple(arms), about)

    def _sampling(self) -> Comparison:
        arms = [self.ids("baseline")]
        for forward, backward in RATES:
            rates = {"bank.forward_rate": float(forward), "bank.backward_rate": float(backward)}
            bank = self.usual.bank
            its_own = (bank.forward_rate, bank.backward_rate) == (forward, backward)  # the runs of LEMUR itself
            arms.append(self.lemur(f"{forward} / {backward}", {} if its_own else rates))
        about = (
            "Percent of a step's candidates that are encoded, and that are encoded with gradient. Time is of training "
            "steps, on this machine; items are those of a step."
        )
        return Comparison(4, "Sampling", tuple(arms), about)

    def _staleness(self) -> Comparison:
        arms = (
            self.lemur("oracle: every row anew after each step", {"bank.refresh_share": "all"}),
            self.lemur("LEMUR"),
            self.lemur("+ refresher: a stale row for each that is made (ours)", {"bank.refresh_share": 1.0}),
            self.lemur("no row before its item was shown", {"bank.warm_start": False}),
        )
        about = (
            "Gains are against the oracle. Age: steps since a row was made; cosine: of training's rows with fresh "
            "encodings by the averaged weights that are evaluated; both of the best epoch, over all items and those of "
            "few training rows (1 to 4) and of many (20 and more)."
        )
        return Comparison(5, "Staleness", arms, about)

    def _modalities(self) -> Comparison:
        fields, read = self.data.fields, {"content.image.encoder": self.cfg.images}
        only = {
            "text": {f"content.{name}.use": False for name in fields.image} if self._reads_pictures else {},
            "image": read | {f"content.{name}.use": False for name in fields.text},
        }
        both = self.lemur("pictures and texts", read)
        arms = (
            self.ids("baseline"),
            self.lemur("texts alone", only["text"]),
            self.lemur("pictures alone", only["image"]),
            both,
            Arm("pictures and texts, texts read", both.own, read="text"),
            Arm("pictures and texts, pictures read", both.own, read="image"),
        )
        about = (
            f"Pictures are read by content.image.encoder={self.cfg.images}. The last two rows are the runs above them, "
            "with the other kind of field left out in evaluation."
        )
        return Comparison(6, "Pictures and texts", arms, about)

    @property
    def _reads_pictures(self) -> bool:
        """Whether the caller's settings have pictures read by all rows."""
        names = ("image", *self.data.fields.image)
        return any(f"content.{name}.encoder" in self.given for name in names)

    # ------------------------------------------------------------------------------------------------------------- runs
    def _plan(self, arm: Arm) -> Planned:
        content = arm.own.get("model.content") != "none"
        name = str(arm.own["model.name"])
        words = arm.label if content or arm.label == name else f"{name}: {arm.label}"
        planned = Planned(words, arm.slug, PRESET, self.cfg.seeds)
        planned.columns = frozenset({("content",)}) if content else frozenset()
        if (reason := self._undefined(arm)) is not None:
            planned.undefined = reason
        elif arm.after is None:
            self._settle(planned, arm, {})
        else:
            self._settle(planned, arm, {"content.item.encoder": f"{JOINT}{self.out / 'encoders' / 'first'}"})
            planned.candidates.clear()  # once it is there
        return planned

    def plan_frozen(self, arm: Arm, folders: list[Path]) -> Planned:
        """The runs of an arm that reads the encoders in `folders`, one for each seed."""
        planned = self.planned[arm.trained]
        planned.by_seed = [{"content.item.encoder": f"{JOINT}{folder}"} for folder in folders]
        planned.candidates.clear()
        self._settle(planned, arm, planned.by_seed[0])
        return planned

    def _undefined(self, arm: Arm) -> str | None:
        """Why there is no such row on this dataset."""
        fields, own = self.data.fields, arm.own
        lengths = self.usual.model.lemur.lengths(self.usual.data.history)
        content = own.get("model.content") != "none"
        if own.get("content.image.encoder") and not fields.image:
            return "the dataset has no image field"
        if content and not fields.text and not own.get("content.image.encoder") and not self._reads_pictures:
            return "the dataset has no text field"
        if own.get("content.image.encoder") and not fields.text and not any(key.endswith(".use") for key in own):
            return "the dataset has no text field"
        gone = [name for name in ("short", "long") if own.get(f"model.lemur.{name}") == 0]
        if len(gone) == 1 and len(lengths) < 2:
            there = "no" if not lengths else f"the {next(iter(lengths))} sequence alone"
            return f"data.history={self.usual.data.history} has {there} to read; raise it above model.lemur.short"
        return None

    def _settle(self, planned: Planned, arm: Arm, encoder: Mapping[str, Any]) -> None:
        head = str(arm.own["model.name"])
        shared = {key: value for key, value in self.cfg.settings.items() if self._has(head, key)}
        if arm.after is not None:
            shared = {key: value for key, value in shared.items() if key not in BY_FOLDER}
        try:
            search = {key: values for key, values in self.cfg.search.items() if self._has(head, key)}
            for chosen in choices(search):
                given, cfg = settled(PRESET, self.data, {**shared, **chosen}, {**arm.own, **encoder}, planned.words)
                left = {key: value for key, value in chosen.items() if key in given and key not in arm.own}
                if left not in [known for known, _ in planned.candidates]:
                    planned.candidates.append((left, given))
                planned.metric = cfg.train.metric
        except IdleSetting as error:
            planned.undefined = str(error).removeprefix(f"{planned.words}: ")

    def _has(self, head: str, key: str) -> bool:
        """Whether a setting may be one of a head's: what the other one alone has, as model.tokens, is not."""
        name = key.removeprefix("model.").partition(".")[0]
        entries = {one: model_entry(one) for one in (self.cfg.head, self.cfg.baseline)}
        fields = {one: set(entry.record.model_fields) for one, entry in entries.items() if entry is not None}
        known = set().union(*fields.values())
        return not key.startswith("model.") or name not in known or name in fields.get(head, known)

    @property
    def unused(self) -> list[str]:
        """Settings given for all runs that no run has a use for."""
        used = {key for one in self.planned.values() for _, given in one.candidates for key in given}
        return [key for key in self.given if key not in used]
