"""Models of the open_clip library (Ilharco et al., 2021): `open_clip:ARCH[@WEIGHTS]`, and folders of its kind.

A dual stream: one tower for pictures, one for texts, their features in one space.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rawrec.config import FieldConfig
from rawrec.content.encoders import loading
from rawrec.content.encoders.base import Kind
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.plain import fitting
from rawrec.content.encoders.sequences import SequenceStack
from rawrec.content.encoders.stacks import probe_tokens
from rawrec.content.encoders.timm_pictures import RANDOM, said, weights_in
from rawrec.content.encoders.tokens import CutAtEnd, Ids, Words
from rawrec.content.encoders.tried import Probe
from rawrec.content.encoders.weight_files import read_weights
from rawrec.data.images import Framing
from rawrec.errors import UserError
from rawrec.shown import listed

PREFIX = "open_clip:"
CONFIG = "open_clip_config.json"
MODEL_TYPE = "open_clip"
"""Said by config.json in folders that `rawrec finetune` wrote; others have none."""
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors")
OF_TEXTS = (
    "transformer",
    "token_embedding",
    "positional_embedding",
    "ln_final",
    "text_projection",
    "attn_mask",
    "text",
)
RESAMPLINGS = ("bicubic", "bilinear")


class OpenClipStack(SequenceStack):
    """One tower, with what makes its feature; `open_clip`'s own `encode_image` and `encode_text` run it.

    Texts whose feature is the state at the end token, of which nothing later is seen, are kept without padding
    (`ends`); all others as the library fills them up.
    """

    config_file = CONFIG

    def __init__(
        self, model: Any, kind: Kind, output: str, probe: Probe, about: dict[str, Any], tokenizer: Any, ends: bool
    ) -> None:
        """about: what open_clip_config.json says. tokenizer: the library's."""
        self.about, self.tokenizer, self.end = about, tokenizer, tokenizer.eot_token_id if ends else None
        self.length: int = model.context_length
        for name in ("visual",) if kind == "text" else OF_TEXTS:
            if hasattr(model, name):
                setattr(model, name, None)
        if output == "pooled":
            _unproject(model, kind)
        super().__init__(model, kind, probe, f"open_clip {json.dumps(about, sort_keys=True)} {output}")

    def whole(self, x: Tensor, mask: Tensor | None) -> Tensor:
        model: Any = self.model
        if self.kind == "image":
            return model.encode_image(x)
        return model.encode_text(functional.pad(x, (0, self.length - x.shape[1])))

    def run(self, x: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        if mask is None:
            return super().run(x, None, first, last)
        tokens = mask.shape[1]
        if first:
            x = functional.pad(x, (0, 0, 0, self.length - tokens))
        made = super().run(x, mask, first, last)
        return made if last == self.depth else made[:, :tokens]

    def stand_in(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return x.new_zeros(1, *self._probe.shape[1:])
        ids = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
        return ids if self.end is None else ids.scatter_(1, mask.sum(1, keepdim=True) - 1, self.end)

    def pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """The class token of open_clip's own vision transformer; of texts the end token; else the mean."""
        model: Any = self.model
        if mask is None and hidden.ndim == 3 and getattr(model.visual, "pool_type", "") == "tok":
            return hidden[:, 0]
        if mask is not None and self.end is not None:
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        return hidden.float().mean((2, 3)) if hidden.ndim == 4 else hidden.float().mean(1)

    def write_words(self, folder: Path) -> None:
        """Write the files of a tokenizer that is none of open_clip's own."""
        theirs: Any = getattr(self.tokenizer, "tokenizer", None)
        if hasattr(theirs, "save_pretrained"):
            theirs.save_pretrained(folder)


def _unproject(model: Any, kind: Kind) -> None:
    """Change `model` so that its features are those before the projection."""
    owner = model.visual if kind == "image" else getattr(model, "text", None) or model
    name = "proj" if kind == "image" else "text_projection"
    if not hasattr(owner, name):
        raise UserError(
            f"output=pooled: a {type(owner).__name__} of open_clip has no feature before its projection that is known "
            "here; use output=projected"
        )
    setattr(owner, name, None)


class OpenClipWords:
    """A tokenizer of open_clip, as ours. ends: its end token's id, and what is behind it is left out; None: texts are
    filled up to `length` tokens."""

    def __init__(self, tokenizer: Any, length: int, ends: bool) -> None:
        self.tokenizer, self.length, self.ends = tokenizer, length, ends
        theirs = getattr(tokenizer, "tokenizer", None)
        words = tokenizer.encoder if theirs is None else [theirs.get_vocab(), repr(theirs.init_kwargs)]
        plain = {k: v for k, v in vars(tokenizer).items() if isinstance(v, str | int | bool)}
        clean = getattr(getattr(tokenizer, "clean_fn", None), "__name__", "")
        about = json.dumps([type(tokenizer).__name__, clean, plain, words], sort_keys=True)
        self.identity = f"open_clip({length}, {ends}, {hashlib.sha256(about.encode()).hexdigest()})"

    def __call__(self, texts: list[str], max_length: int) -> Ids:
        if self.ends:
            begin, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
            inner = [self.tokenizer.encode(text) for text in texts]
            room = max_length - 2
            return [[begin, *one[:room], end] for one in inner], [len(one) > room for one in inner]
        kept = self.tokenizer(texts, context_length=self.length)
        longer = self.tokenizer(texts, context_length=self.length + 1)
        theirs = getattr(self.tokenizer, "tokenizer", None)
        fill = 0 if theirs is None else theirs.pad_token_id
        over = (longer != fill).sum(1) > (kept != fill).sum(1)
        return kept.tolist(), over.tolist()


def is_open_clip(folder: Path) -> bool:
    """Whether a folder is of open_clip and of nothing else."""
    if not (folder / CONFIG).is_file():
        return False
    config = folder / "config.json"
    return not config.is_file() or loading.settings(config).get("model_type") == MODEL_TYPE


def by_name(kind: Kind, name: str, cfg: FieldConfig) -> tuple[OpenClipStack, Any]:
    """One tower of `open_clip:ARCH[@WEIGHTS]`, and how its input is prepared. Raises ImportError without open_clip."""
    library = _library()
    architecture, given, weights = name.removeprefix(PREFIX).partition("@")
    config = library.get_model_config(architecture)
    if config is None:
        near = difflib.get_close_matches(architecture, library.list_models(), n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        raise UserError(
            f"encoder {name}: open_clip has no architecture {architecture!r}{hint} open_clip.list_models() names all"
        )
    tags = library.list_pretrained_tags_by_model(architecture)
    if not weights:
        what = "nothing stands behind @" if given else "which weights is not said"
        raise UserError(
            f"encoder {name}: {what}; give {PREFIX}{architecture}@ with a file, a folder, {RANDOM}"
            + (f", or one of open_clip's own: {listed(tags)}" if tags else "")
        )
    published = library.get_pretrained_cfg(architecture, weights if weights in tags else tags[0]) if tags else {}
    about = {"model_cfg": config, "preprocess_cfg": {**published, "size": config["vision_cfg"]["image_size"]}}
    if weights == RANDOM:
        return _tower(kind, about, None, None, name, cfg, architecture)
    path = Path(weights).expanduser()
    if weights in tags and not path.exists():
        config["quick_gelu"] = bool(published.get("quick_gelu"))
        return _published(kind, about, str(published.get("hf_hub") or ""), name, cfg, architecture)
    if not path.is_dir():
        return _tower(kind, about, path, None, name, cfg, architecture)
    if (path / CONFIG).is_file():
        theirs = loading.settings(path / CONFIG).get("model_cfg")
        if not isinstance(theirs, dict) or theirs.get("embed_dim") != config["embed_dim"]:
            raise UserError(f"encoder {name}: {path / CONFIG} is of another architecture than {architecture}")
        return from_folder(kind, path, name, cfg)
    return _tower(kind, about, weights_in(path, name, FILES), path, name, cfg, architecture)


def _published(
    kind: Kind, about: dict[str, Any], place: str, name: str, cfg: FieldConfig, architecture: str
) -> tuple[OpenClipStack, Any]:
    """Weights of the hub. place: owner/name/ and a file's name, where it is not the usual one."""
    parts = place.strip("/").split("/")
    if len(parts) < 2:
        raise UserError(f"encoder {name}: the hub has no weights of it; give a file as {PREFIX}{architecture}@FILE")
    folder = loading.find_folder("/".join(parts[:2]), f"{PREFIX}{architecture}")
    usual = ("/".join(parts[2:]),) if len(parts) > 2 else FILES
    return _tower(kind, about, weights_in(folder, name, usual), None, name, cfg, architecture)


def from_folder(kind: Kind, folder: Path, name: str, cfg: FieldConfig) -> tuple[OpenClipStack, Any]:
    """One tower of the model in a folder with open_clip_config.json. Raises ImportError without open_clip."""
    loading.unfinished(folder)
    about = loading.settings(folder / CONFIG)
    model, pictures = about.get("model_cfg"), about.get("preprocess_cfg") or {}
    if not isinstance(model, dict) or not isinstance(model.get("vision_cfg"), dict) or "text_cfg" not in model:
        raise UserError(f"encoder {name}: {folder / CONFIG} has no model_cfg with vision_cfg and text_cfg")
    pictures = {"size": model["vision_cfg"].get("image_size"), **pictures}
    elsewhere = (folder / loading.ELSEWHERE).is_file()
    path = None if elsewhere else weights_in(folder, name, FILES)
    return _tower(kind, {"model_cfg": model, "preprocess_cfg": pictures}, path, folder, name, cfg, None)


def _tower(
    kind: Kind,
    about: dict[str, Any],
    path: Path | None,
    folder: Path | None,
    name: str,
    cfg: FieldConfig,
    architecture: str | None,
) -> tuple[OpenClipStack, Any]:
    """path: of the weights; None: random ones. folder: with the tokenizer's files, if not those of `architecture`."""
    about = deepcopy(about)
    pictures = prepared(about["preprocess_cfg"], name).sized(cfg.size if kind == "image" else None)
    side, native = pictures.framing.side, about["model_cfg"]["vision_cfg"].get("image_size")
    about["model_cfg"]["vision_cfg"]["image_size"] = side
    about["preprocess_cfg"] = {k: about["preprocess_cfg"][k] for k in PREPARED if k in about["preprocess_cfg"]}
    about["preprocess_cfg"]["size"] = side
    model = fitting(lambda: _loaded(about["model_cfg"], path, name), name, side, native)
    tokenizer, ends = _words(model, about["model_cfg"], folder, name, architecture)
    length = int(model.context_length)
    if kind == "image":
        picture = torch.linspace(-1, 1, 3 * side * side).view(1, 3, side, side).sin()
        probe: Probe = torch.cat([picture, picture.flip(3)]), None
        stack = fitting(
            lambda: OpenClipStack(model, kind, cfg.output, probe, about, tokenizer, ends), name, side, native
        )
        stack.check(cfg, name)
        return stack, pictures
    ours = OpenClipWords(tokenizer, length, ends)
    words = Words(CutAtEnd(ours, tokenizer.eot_token_id) if ends else ours, length)
    if cfg.max_length is not None and ends:
        words = Words(words.tokenizer, loading.checked_length(cfg.max_length, length, length, name))
    elif cfg.max_length not in (None, length):
        raise UserError(f"max_length={cfg.max_length}: the encoder {name} reads texts of exactly {length} tokens")
    stack = OpenClipStack(model, kind, cfg.output, probe_tokens(words.tokenizer), about, tokenizer, ends)
    stack.check(cfg, name)
    return stack, words


PREPARED = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")


def prepared(given: dict[str, Any], name: str) -> Pictures:
    """How pictures are prepared, as `preprocess_cfg` says."""
    size, how = given.get("size"), given.get("resize_mode") or "shortest"
    resampling = given.get("interpolation") or "bicubic"
    side = size[0] if isinstance(size, list | tuple) and len(set(size)) == 1 else size
    if not isinstance(side, int) or how not in ("shortest", "squash") or resampling not in RESAMPLINGS:
        raise UserError(
            f"encoder {name}: pictures are prepared by size {size}, resize_mode {how} and {resampling}, which is not "
            "known here; choose another encoder"
        )
    framing = Framing(side, side if how == "shortest" else None, resampling.upper(), quick=False)
    constants = _library().constants
    mean = given.get("mean") or constants.OPENAI_DATASET_MEAN
    return Pictures.of(framing, mean, given.get("std") or constants.OPENAI_DATASET_STD)


def _loaded(config: dict[str, Any], path: Path | None, name: str) -> Any:
    library, own = _library(), deepcopy(config)
    text, vision = own["text_cfg"], own["vision_cfg"]
    custom = own.pop("custom_text", False) or "hf_model_name" in text
    if "multimodal_cfg" in own:
        raise UserError(f"encoder {name}: CoCa, which also writes texts, is not supported; choose another encoder")
    text |= {"hf_model_pretrained": False} if "hf_model_name" in text else {}
    vision |= {"timm_model_pretrained": False} if "timm_model_name" in vision else {}
    try:
        with _quiet():
            model = (library.CustomTextCLIP if custom else library.CLIP)(**own).float().eval()
    except (TypeError, KeyError, OSError, AttributeError) as error:
        raise UserError(f"encoder {name}: open_clip cannot make the network: {said(error)}") from None
    if path is None:
        return model
    read_weights(path)
    try:
        with _quiet():
            library.load_checkpoint(model, str(path))
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"encoder {name}: the weights in {path} do not fit the network: {said(error)}") from None
    return model


def _words(
    model: Any, config: dict[str, Any], folder: Path | None, name: str, architecture: str | None
) -> tuple[Any, bool]:
    """The library's tokenizer, and whether texts are kept without padding."""
    library, text = _library(), config["text_cfg"]
    theirs = bool(text.get("hf_tokenizer_name")) or "siglip" in (architecture or "").lower()
    try:
        with _quiet():
            if folder is not None and (folder / CONFIG).is_file():
                tokenizer = library.get_tokenizer(f"local-dir:{folder}")
            elif architecture is not None:
                tokenizer = library.get_tokenizer(architecture)
            else:
                tokenizer = library.SimpleTokenizer(context_length=model.context_length)
    except Exception as error:  # of another library's files or the hub: all have one way out
        raise UserError(f"encoder {name}: its tokenizer cannot be loaded: {said(error)}") from None
    tower = getattr(model, "text", None) or model
    pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", ""))
    causal = getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
    return tokenizer, not theirs and isinstance(tokenizer, library.SimpleTokenizer) and causal and pool == "argmax"


def _library() -> Any:
    import open_clip  # pyright: ignore[reportMissingImports]

    return open_clip


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip speaks through the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
