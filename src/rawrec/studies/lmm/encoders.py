"""The encoders of a study: what `--encoders` names, what of them a model reads, and how each is tuned on its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rawrec.config.finetune import FinetuneConfig, finetune_config
from rawrec.content.encoders import pair, reads_whole_items
from rawrec.content.encoders.whole import RANDOM
from rawrec.data.dataset import Fields
from rawrec.errors import IdleSetting, UserError
from rawrec.shown import listed
from rawrec.studies.lmm.settings import Modalities, Paradigm

READY = "ready:"
LETTERS = {"image": "V", "text": "T"}
Kind = Literal["apart", "ready", "pair", "dual", "single"]


@dataclass(frozen=True)
class StudyEncoder:
    """name: as the study keeps it, folders in full. kind: two encoders apart, two ready-made features, a pair that has
    no common space yet, a dual stream (CLIP and its kin, tuned pairs) or a single stream (VLMo)."""

    name: str
    kind: Kind

    @property
    def specific(self) -> bool:
        """One encoder per modality, without a common space: the paper's baseline."""
        return self.kind in ("apart", "ready")

    @property
    def parts(self) -> tuple[str, str]:
        """Of pictures and of texts."""
        image, text = self.name.removeprefix(READY).removeprefix(pair.PREFIX).split("+")
        return image, text

    @property
    def label(self) -> str:
        """Its name as tables have it: of folders the last part."""
        prefix = next((p for p in (READY, pair.PREFIX) if self.name.startswith(p)), "")
        if self.kind in ("dual", "single"):
            return _last(self.name)
        return prefix + "+".join(map(_last, self.parts))

    @property
    def slug(self) -> str:
        """Its name as a file's."""
        plain = re.sub(r"[^A-Za-z0-9]+", "_", self.label).strip("_")
        return plain if "/" not in self.name else f"{plain}_{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"

    def undefined(self, paradigm: Paradigm) -> str | None:
        """Why the paradigm means nothing for it; None where it does."""
        if self.kind == "ready" and paradigm != "pretrained":
            return "ready-made features have no encoder to train"
        if self.kind == "apart" and paradigm == "two_stage":
            return f"two encoders apart have no common space to be tuned in; pair:{self.name} gives them one"
        if self.kind == "pair" and paradigm == "pretrained":
            apart = "+".join(self.parts)
            return f"a pair has no common space before it is tuned; its frozen features are those of {apart}"
        return None

    def needs_tuning(self, paradigm: Paradigm) -> bool:
        """Whether the paradigm reads the tuned encoder. End to end, a pair goes on from its common space."""
        return paradigm == "two_stage" or (self.kind == "pair" and paradigm == "end_to_end")

    def content(
        self, paradigm: Paradigm, modalities: Modalities, fields: Fields, train: str, tuned: str | None
    ) -> dict[str, Any]:
        """The settings `content.*` of a run, and its paradigm. tuned: the folder to read in place of the encoder."""
        kinds = [kind for kind, letter in LETTERS.items() if letter in modalities]
        raw: dict[str, list[str]] = {"image": fields.image, "text": fields.text}
        given: dict[str, Any] = {"paradigm": "end_to_end"} if paradigm == "end_to_end" else {}
        if self.kind == "ready":
            used = [feature for feature, kind in zip(self.parts, LETTERS, strict=True) if kind in kinds]
            unused = [name for name in (*fields.image, *fields.text, *fields.feature) if name not in used]
            return given | {f"content.{name}.use": False for name in unused}
        if self.kind == "single":
            given |= {"content.item.encoder": tuned or self.name}
            given |= {} if modalities == "VT" else {"content.features": kinds}
            unused = []
        else:
            if self.kind == "apart":
                read = [(kind, part) for kind, part in zip(LETTERS, self.parts, strict=True) if kind in kinds]
                given |= {f"content.{field}.encoder": part for kind, part in read for field in raw[kind]}
            else:
                given |= {"content.item.encoder": tuned or self.name}
            unused = [field for kind in LETTERS if kind not in kinds for field in raw[kind]]
        if paradigm == "end_to_end":
            given["content.item.train"] = train
        return given | {f"content.{name}.use": False for name in (*unused, *fields.feature)}

    def columns(self, paradigm: Paradigm, modalities: Modalities, tuned: str | None) -> frozenset[tuple[str, ...]]:
        """What is encoded once, before a run of it begins, by what it is: two runs with one in common wait for it."""
        if self.kind == "ready":
            return frozenset()
        how = "trained" if paradigm == "end_to_end" else "frozen"
        return frozenset((tuned or self.name, how, letter) for letter in modalities)

    def tuning(self, settings: Mapping[str, Any]) -> FinetuneConfig:
        """How it is tuned on the catalogue. settings: those of all encoders; what one of them has no use for is left
        out of its own."""
        given = dict(settings)
        if self.kind != "single":
            given.pop("loss", None)  # of VLMo alone; a dual stream has no other than itc
        elif "loss" not in given:
            given["loss"] = ["itc", "itm"] if self.name == RANDOM else ["itc", "itm", "mlm"]
        while True:
            try:
                return finetune_config({"encoder": self.name, **given}, given)
            except IdleSetting as error:
                del given[error.key]


def _last(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name


def parse(words: Sequence[str], fields: Fields) -> list[StudyEncoder]:
    """The encoders that words name. Raises UserError for words of no such form, or features that there are not."""
    return [_parse(word, fields) for word in words]


def _parse(word: str, fields: Fields) -> StudyEncoder:
    if word.startswith(READY):
        return _ready(word, fields)
    if word.startswith(pair.PREFIX):
        image, text = pair.names(word).values()
        return StudyEncoder(f"{pair.PREFIX}{_full(image)}+{_full(text)}", "pair")
    if "+" in word and not Path(word).is_dir():
        image, text = pair.names(pair.PREFIX + word).values()
        return StudyEncoder(f"{_full(image)}+{_full(text)}", "apart")
    return StudyEncoder(_full(word), "single" if reads_whole_items(word) else "dual")


def _full(name: str) -> str:
    """Folders in full: a study may be gone on with from another place."""
    return str(Path(name).absolute()) if name and Path(name).is_dir() else name


def _ready(word: str, fields: Fields) -> StudyEncoder:
    parts = word.removeprefix(READY).split("+")
    known = listed(fields.feature, parts[0])
    if len(parts) != 2:
        raise UserError(f"--encoders {word}: give the feature of pictures and that of texts, as ready:image+text")
    for part in parts:
        if part not in fields.feature:
            raise UserError(f"--encoders {word}: the dataset has no ready-made feature {part!r}. It has: {known}")
    return StudyEncoder(word, "ready")
