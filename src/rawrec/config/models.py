"""Models by name: the settings record of each, and where its class is. Own ones are registered beside ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, overload

from pydantic import BeforeValidator, SerializeAsAny, ValidationError
from pydantic_core import PydanticCustomError

from rawrec import plugins
from rawrec.config import baselines, retrieval, sequences
from rawrec.config.heads import RANKERS
from rawrec.config.ranking import PRESETS, DotMlpConfig
from rawrec.config.records import ModelRecord
from rawrec.config.retrieval import RetrievalConfig
from rawrec.config.wording import unknown
from rawrec.errors import UserError


@dataclass(frozen=True)
class ModelEntry(plugins.Entry):
    """A model's class, or where it is, and its settings."""

    record: type[ModelRecord]


_HEADS = {
    "dot_mlp": "dot_mlp:DotMlp",
    "wide_deep": "wide_deep:WideDeep",
    "deepfm": "deepfm:DeepFM",
    "dcnv2": "dcnv2:DCNv2",
    "din": "din:DIN",
    "rankmixer": "rankmixer:RankMixer",
    "tokenmixer_large": "tokenmixer_large:TokenMixerLarge",
}
_RETRIEVAL = {
    "bpr": ("bpr:BPR", retrieval.BPRConfig),
    "lightgcn": ("lightgcn:LightGCN", retrieval.LightGCNConfig),
    "vbpr": ("vbpr:VBPR", retrieval.VBPRConfig),
    "freedom": ("freedom:FREEDOM", retrieval.FREEDOMConfig),
    "em3_freedom": ("em3_freedom:EM3", retrieval.EM3FreedomConfig),
    "bm3": ("bm3:BM3", retrieval.BM3Config),
    "slmrec": ("slmrec:SLMRec", retrieval.SLMRecConfig),
    "mmgcn": ("mmgcn:MMGCN", retrieval.MMGCNConfig),
    "mmgcl": ("mmgcl:MMGCL", retrieval.MMGCLConfig),
    "lattice": ("lattice:LATTICE", retrieval.LATTICEConfig),
    "mgcn": ("mgcn:MGCN", retrieval.MGCNConfig),
    "smore": ("smore:SMORE", retrieval.SMOREConfig),
    "dragon": ("dragon:DRAGON", retrieval.DRAGONConfig),
    "lgmrec": ("lgmrec:LGMRec", retrieval.LGMRecConfig),
    "pop": ("pop:Pop", baselines.PopConfig),
    "random": ("random:Random", baselines.RandomConfig),
    "itemknn": ("itemknn:ItemKNN", baselines.ItemKNNConfig),
    "ease": ("ease:EASE", baselines.EASEConfig),
    "sasrec": ("sasrec:SASRec", sequences.SASRecConfig),
}
RETRIEVAL: dict[str, type[RetrievalConfig]] = {name: record for name, (_, record) in _RETRIEVAL.items()}
"""The records of our own retrieval models by name."""
MODELS: dict[str, ModelEntry] = {
    **{name: ModelEntry(f"rawrec.models.ranking.{place}", RANKERS[name]) for name, place in _HEADS.items()},
    **{name: ModelEntry(f"rawrec.models.retrieval.{place}", record) for name, (place, record) in _RETRIEVAL.items()},
}
"""Every model; that of a ranker is its head. Own ones are added as they are registered, or asked for by name."""
DEFAULT_MODEL: str = DotMlpConfig().name
M = TypeVar("M", bound=type)
_building = Lock()  # of a record's validator, which is made when it is first asked for


@overload
def register_model(name: str, record: type[ModelRecord], cls: str) -> None: ...
@overload
def register_model(name: str, record: type[ModelRecord], cls: M) -> M: ...
@overload
def register_model(name: str, record: type[ModelRecord], cls: None = None) -> Callable[[M], M]: ...
def register_model(name: str, record: type[ModelRecord], cls: Any = None) -> Any:
    """Enter a model of your own: `rawrec train NAME`, its settings and its runs are then as those of ours.

    record: its settings, a `RetrievalConfig` or `RankerConfig` of your own. cls: the class, or where it is as
    "module:Class"; without it this is a decorator of the class. Raises UserError for a name that is taken.

    >>> @rawrec.register_model("fism", FISMConfig)
    ... class FISM(rawrec.RetrievalModel): ...
    """
    if not (isinstance(record, type) and issubclass(record, ModelRecord) and hasattr(record, "kind")):
        raise UserError(f"model {name!r}: its settings must be a RetrievalConfig or RankerConfig of its own: {record}")
    try:
        record(name=name)
    except ValidationError as error:
        raise UserError(
            f"model {name!r}: {record.__name__} must have a default for every setting and allow this name: "
            f"{error.errors()[0]['msg']} ({'.'.join(map(str, error.errors()[0]['loc']))})"
        ) from None

    if name in PRESETS:
        raise UserError(f"model {name!r}: the name is taken by rawrec itself; choose another")

    def enter(cls: Any) -> Any:
        plugins.register("models", MODELS, name, ModelEntry(cls, record))
        return cls

    return enter if cls is None else enter(cls) if not isinstance(cls, str) else enter(cls) and None


def _bring(name: str, found: Any) -> None:
    """What an entry point leads to: a class whose settings are its `config`."""
    if not hasattr(found, "config"):
        raise UserError("its module must call rawrec.register_model, or the class have its record as `config`")
    register_model(name, found.config, found)


def model_entry(name: Any) -> ModelEntry | None:
    """The entry of a model's name, loaded from the installed package that brings it; None for an unknown one."""
    return plugins.find("models", MODELS, name, _bring) if isinstance(name, str) else None


def model_names() -> list[str]:
    """The names of all models: ours, short ones too, registered ones, and those of installed packages."""
    ours = plugins.names("models", MODELS)
    return [*(name for name in ours if name in RANKERS), *PRESETS, *(name for name in ours if name not in RANKERS)]


def model_record(value: Any) -> type[ModelRecord]:
    """The record that settings of a model, nested or typed, belong to; the default model's where that is unknown."""
    if isinstance(value, ModelRecord):
        return type(value)
    name = value.get("name") if isinstance(value, Mapping) else None
    entry = model_entry(PRESETS[str(name)][0] if str(name) in PRESETS else name)
    return MODELS[DEFAULT_MODEL].record if entry is None else entry.record


def _typed(value: Any) -> Any:
    """Nested settings of a model -> its record."""
    if not isinstance(value, Mapping):
        return value
    entry = model_entry(value.get("name"))
    if entry is None:
        text = unknown("model.name", str(value.get("name")), model_names())
        raise PydanticCustomError("model_name", "{text}", {"text": text})
    with _building:
        entry.record.model_rebuild()
    return entry.record.model_validate(value)


if TYPE_CHECKING:
    ModelConfig = Any
else:
    ModelConfig = Annotated[SerializeAsAny[ModelRecord], BeforeValidator(_typed)]
