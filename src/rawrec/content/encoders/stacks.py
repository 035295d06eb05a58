"""Encoders of the transformers library: by hub name, from a local folder, or with random weights for tests."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rawrec.content.encoders.base import Kind, Stack, mean
from rawrec.data.texts import HashTokenizer, Tokenizer
from rawrec.errors import UserError

RANDOM_VOCABULARY = 2048
TOLERANCE = 1e-4


class TransformerStack(Stack):
    """Any transformers model that has a list of layers, such as BERT, RoBERTa, ViT, CLIP's towers, Swin, ConvNeXt.

    The model's own `forward` runs every part of the way: its list of layers is shortened to those wanted, and what
    comes from below the boundary is put in at the first of them. Whether a model stands this is tried out, with the
    whole model as the judge, before it is relied upon.

    pooling: texts: `mean` over tokens, `cls` or `last` token; pictures: the model's own pooled output, else the first
    token or the mean over the picture.
    """

    def __init__(self, model: nn.Module, kind: Kind, pooling: str, probe: Tensor, size: int) -> None:
        """probe: token ids `[2, tokens]` or pixels `[1, 3, size, size]`, to try the model with."""
        super().__init__()
        self.model = model
        self.kind = kind
        self.pooling = pooling
        self._probe = probe
        self._mask = None if kind == "image" else _probe_mask(probe)
        self._size = size
        self._owner, self._attribute = _find_layers(model)
        self.depth = len(self._layers())
        model.eval()
        self.width = self.run(probe, self._mask, 0, self.depth).shape[-1]

    def _layers(self) -> nn.ModuleList:
        return getattr(self.model.get_submodule(self._owner), self._attribute)

    def run(self, x: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        if x.device.type == "cpu":  # where the fused attention's backward takes longer than the layer beside it
            config: Any = self.model.config
            config._attn_implementation = "eager"
        inputs: dict[str, Any]
        if self.kind == "text":
            assert mask is not None
            ids = x if first == 0 else torch.ones(mask.shape, dtype=torch.int64, device=x.device)
            inputs = {"input_ids": ids, "attention_mask": mask.long()}
        else:
            pixels = x if first == 0 else x.new_zeros(1).expand(len(x), 3, self._size, self._size)
            inputs = {"pixel_values": pixels}
            if "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters:
                inputs["interpolate_pos_encoding"] = self._size != getattr(self.model.config, "image_size", self._size)
        with self._window(x, first, last) as outputs:
            result = self.model(**inputs)
        return self._pool(result, mask) if last == self.depth else outputs[0]

    @contextmanager
    def _window(self, x: Tensor, first: int, last: int) -> Iterator[list[Tensor]]:
        """Within, the model has layers `first` to `last` only, starts from `x` if `first > 0`, and the output of the
        last one is noted in the list that is handed out."""
        layers, owner = self._layers(), self.model.get_submodule(self._owner)
        part = nn.ModuleList(layers[first:last])
        embeddings = getattr(self.model, "embeddings", None) if first else None
        outputs: list[Tensor] = []

        def start(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
            return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

        def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            outputs.append(output if isinstance(output, Tensor) else output[0])

        handles = [part[-1].register_forward_hook(note)]
        if first:
            handles.append(part[0].register_forward_pre_hook(start, with_kwargs=True))
        setattr(owner, self._attribute, part)
        if embeddings is not None:
            embeddings.forward = lambda *args, **kwargs: x  # saves the work: the first layer is given `x` anyway
        try:
            yield outputs
        finally:
            setattr(owner, self._attribute, layers)
            for handle in handles:
                handle.remove()
            if embeddings is not None:
                del embeddings.forward

    def _pool(self, result: Any, mask: Tensor | None) -> Tensor:
        hidden = result.last_hidden_state
        if self.kind == "image":
            if result.get("pooler_output") is not None:
                return result.pooler_output.flatten(1)
            return hidden.mean((2, 3)) if hidden.ndim == 4 else hidden[:, 0]
        assert mask is not None
        if self.pooling == "mean":
            return mean(hidden, mask)
        place = torch.zeros_like(mask[:, 0], dtype=torch.int64) if self.pooling == "cls" else mask.sum(1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), place]

    @torch.no_grad()
    def can_split(self, boundary: int) -> bool:
        if boundary == 0:
            return True
        whole = self.run(self._probe, self._mask, 0, self.depth)
        try:
            hidden = self.run(self._probe, self._mask, 0, boundary)
            if len(hidden) != len(self._probe) or (self._mask is not None and hidden.shape[:2] != self._mask.shape):
                return False
            parts = self.run(hidden, self._mask, boundary, self.depth)
        except Exception:  # the model's code is not ours: whatever it raises, it cannot be split here
            return False
        return parts.shape == whole.shape and torch.allclose(parts, whole, rtol=TOLERANCE, atol=TOLERANCE)

    def above(self, boundary: int | None) -> list[nn.Parameter]:
        """Those that a gradient reaches when what enters layer `boundary` is held fixed."""
        handle = None
        if boundary is not None:
            handle = self._layers()[boundary].register_forward_pre_hook(_detach, with_kwargs=True)
        self.model.requires_grad_(True)
        with torch.enable_grad():
            self.run(self._probe, self._mask, 0, self.depth).sum().backward()
        if handle is not None:
            handle.remove()
        reached = [p for p in self.model.parameters() if p.grad is not None]
        self.model.zero_grad(set_to_none=True)
        return reached

    def layers_above(self, boundary: int) -> list[nn.Module]:
        return list(self._layers()[boundary:])


class FastTokenizer:
    """A tokenizer of the tokenizers library, with its special tokens."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        backend.no_padding()

    def __call__(self, texts: list[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
        self.backend.enable_truncation(max_length)
        encodings = self.backend.encode_batch(texts)
        return [e.ids for e in encodings], [bool(e.overflowing) for e in encodings]


# ------------------------------------------------------------------------------------------------------------- loading
def text_model(name: str, max_length: int) -> tuple[TransformerStack, Tokenizer]:
    """The text encoder in the folder or hub repository `name`, and its tokenizer."""
    folder = _folder(name)
    model = _load(folder, name, "text")
    from transformers import AutoTokenizer

    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise UserError(f"encoder {name}: its tokenizer cannot be loaded: {_first_line(error)}") from None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"encoder {name}: its tokenizer has no fast version (tokenizer.json); convert it first")
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    limit = int(min(positions, tokenizer.model_max_length))
    if max_length > limit:
        raise UserError(
            f"max_length={max_length}: the encoder {name} reads at most {limit} tokens; use {limit} or less"
        )
    fast = FastTokenizer(backend)
    return TransformerStack(model, "text", _text_pooling(folder, model), _probe_tokens(fast), 0), fast


def image_model(name: str, size: int) -> tuple[TransformerStack, list[float], list[float]]:
    """The vision encoder in the folder or hub repository `name`, and the mean and deviation of its pixels (0-255)."""
    folder = _folder(name)
    model = _load(folder, name, "image")
    settings = _settings(folder / "preprocessor_config.json")
    mean_, std = settings.get("image_mean") or [0.5] * 3, settings.get("image_std") or [0.5] * 3
    try:
        stack = TransformerStack(model, "image", "", _probe_pixels(size), size)
    except (ValueError, RuntimeError) as error:
        native = getattr(model.config, "image_size", None)
        hint = f"; use size={native}" if native else ""
        raise UserError(
            f"size={size}: the encoder {name} cannot read such pictures: {_first_line(error)}{hint}"
        ) from None
    return stack, [255 * float(m) for m in mean_], [255 * float(s) for s in std]


def random_bert(max_length: int) -> tuple[TransformerStack, Tokenizer]:
    """A tiny BERT with random weights and hashed words: 2 layers, width 32."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=RANDOM_VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=max(512, max_length),
    )
    tokenizer = HashTokenizer(RANDOM_VOCABULARY)
    model = BertModel(config, add_pooling_layer=False)
    return TransformerStack(model, "text", "mean", _probe_tokens(tokenizer), 0), tokenizer


def random_vit(size: int) -> TransformerStack:
    """A tiny vision transformer with random weights: 2 layers, width 32, 4 x 4 patches or a few more."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=size,
        patch_size=size // 4,
    )
    return TransformerStack(ViTModel(config, add_pooling_layer=False), "image", "", _probe_pixels(size), size)


def _folder(name: str) -> Path:
    """The local folder with the model's files, downloaded if `name` is of the hub and not there yet."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except Exception as error:  # no network, no such repository, no permission: all have one way out
        raise UserError(
            f"encoder {name}: there is no such folder, and the hub did not give it ({_first_line(error)}). "
            "Give a local folder with config.json and model.safetensors, or check the name and the network."
        ) from None


def _load(folder: Path, name: str, kind: Kind) -> nn.Module:
    from transformers import AutoModel

    try:
        with _quiet():
            model, info = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"encoder {name}: not a model that can be loaded: {_first_line(error)}. "
            "The folder needs config.json and model.safetensors of a model that transformers knows."
        ) from None
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise UserError(f"encoder {name}: its weights lack {len(missing)} parts of the network, first {missing[0]}")
    return _tower(model, name, kind)


def _tower(model: Any, name: str, kind: Kind) -> nn.Module:
    """The part of `model` that reads pictures or texts, without a head that was trained for something else."""
    tower = getattr(model, "vision_model" if kind == "image" else "text_model", model)
    if tower is model and model.config.is_encoder_decoder:
        tower = model.get_encoder()
    expected = "pixel_values" if kind == "image" else "input_ids"
    if getattr(tower, "main_input_name", expected) != expected:
        raise UserError(
            f"encoder {name} reads {tower.main_input_name}, but the field is of kind {kind}; choose another"
        )
    if hasattr(getattr(tower, "pooler", None), "dense"):
        tower.pooler = None
    tower.config.use_cache = False
    return tower


def _text_pooling(folder: Path, model: Any) -> str:
    """What the folder says (sentence-transformers writes it down), else the end token for CLIP, else the mean."""
    if _settings(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token"):
        return "cls"
    return "last" if model.config.model_type == "clip_text_model" else "mean"


def _settings(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if there is no such file."""
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {_first_line(error)}") from None


def _find_layers(model: nn.Module) -> tuple[str, str]:
    """Owner and attribute of the longest list of layers that lies in no other list."""
    lists = {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = {n: c for n, c in lists.items() if not any(n.startswith(other + ".") for other in lists)}
    if not outer:
        raise UserError(f"{type(model).__name__} has no list of layers; choose another encoder")
    owner, _, attribute = max(outer, key=lambda n: outer[n]).rpartition(".")
    return owner, attribute


def _detach(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
    if args:
        return (args[0].detach(), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": kwargs["hidden_states"].detach()}


def _probe_tokens(tokenizer: Tokenizer) -> Tensor:
    """Two texts of the same length; `_probe_mask` shortens the second."""
    return torch.tensor(tokenizer(["a small probe of words"], 8)[0]).expand(2, -1)


def _probe_mask(tokens: Tensor) -> Tensor:
    mask = torch.ones(tokens.shape, dtype=torch.bool)
    mask[1, -2:] = False
    return mask


def _probe_pixels(size: int) -> Tensor:
    return torch.linspace(-1, 1, 3 * size * size).view(1, 3, size, size).sin()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither progress bars nor advice from transformers."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
