"""How an encoder wants its pictures: what the files beside its weights say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rawrec.content.encoders.loading import first_line, quiet, settings
from rawrec.data.images import Framing
from rawrec.errors import UserError

SIZE = 128  # where neither the user nor the encoder says one
USUAL = (
    "BeitImageProcessorPil",
    "BitImageProcessorPil",
    "BlipImageProcessorPil",
    "CLIPImageProcessorPil",
    "ChineseCLIPImageProcessorPil",
    "ConvNextImageProcessorPil",
    "DeiTImageProcessorPil",
    "MobileNetV1ImageProcessorPil",
    "MobileNetV2ImageProcessorPil",
    "PvtImageProcessorPil",
    "SiglipImageProcessorPil",
    "ViTImageProcessorPil",
)
"""Image processors that resize, cut out the middle and scale values, and do nothing else to a picture."""
WARPED = 384  # ConvNeXt's pictures of so many pixels or more are stretched


@dataclass(frozen=True)
class Pictures:
    """Pixels of `framing`, less `mean`, divided by `std`: per channel, of values from 0 to 255."""

    framing: Framing
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def of(framing: Framing, mean: Any, std: Any, factor: float = 1 / 255) -> Pictures:
        """From a mean and a deviation of values that were multiplied by `factor` first."""
        scale = 255.0 if abs(1 / factor - 255) < 1e-6 else 1 / factor
        return Pictures(framing, tuple(scale * float(m) for m in mean), tuple(scale * float(s) for s in std))

    def sized(self, side: int | None) -> Pictures:
        """The same for squares of another `side`; the share that is cut off stays."""
        if side is None or side == self.framing.side:
            return self
        edge = None if self.framing.edge is None else max(side, round(self.framing.edge * side / self.framing.side))
        return replace(self, framing=replace(self.framing, side=side, edge=edge))


def read_pictures(folder: Path, name: str, native: int | None) -> Pictures | None:
    """What `preprocessor_config.json` (or its part of `processor_config.json`) says; None: there is no such file.

    native: the side that the network was made for, used where the file names none. UserError for an image processor
    that does something else, or makes no squares.
    """
    given = settings(folder / "processor_config.json").get("image_processor")
    given = given or settings(folder / "preprocessor_config.json")
    if not given:
        return None
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    try:
        with quiet():
            processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    except Exception as error:  # of the library's many ways to fail, all have one way out
        raise _unusable(name, f"cannot be loaded ({first_line(error)})") from None
    kind = type(processor).__name__
    if kind not in USUAL:
        raise _unusable(name, f"is a {kind}, and what that does to a picture is not known here")
    if not processor.do_resize or getattr(processor, "do_pad", False):
        raise _unusable(name, "keeps or pads pictures of different sizes")
    if not processor.do_rescale:
        raise _unusable(name, "does not rescale values (do_rescale)")
    mean, std = ([0.0] * 3, [1.0] * 3) if not processor.do_normalize else (processor.image_mean, processor.image_std)
    framing = _framing(processor, name, native if "size" not in given else None)
    return Pictures.of(framing, _three(mean), _three(std), processor.rescale_factor)


def _framing(processor: Any, name: str, native: int | None) -> Framing:
    """How a processor makes squares. native: the side in the place of the one that its class has for all."""
    from PIL import Image

    resampling = Image.Resampling(2 if processor.resample is None else int(processor.resample)).name
    size: dict[str, Any] = dict(processor.size)
    crop: dict[str, Any] = dict(processor.crop_size) if processor.do_center_crop else {}
    if native is not None:
        size = {"shortest_edge": native} if size.get("shortest_edge") else {"height": native, "width": native}
        crop = {"height": native, "width": native} if crop else {}
    edge, square, side = size.get("shortest_edge"), _square(size), _square(crop)
    if type(processor).__name__.startswith("ConvNext") and edge:
        inner = None if edge >= WARPED else int(edge / processor.crop_pct)
        return Framing(edge, inner, resampling, quick=False)
    if square and not edge and (not crop or side == square):
        return Framing(square, None, resampling, quick=False)
    if edge and not size.get("longest_edge") and side and side <= edge:
        return Framing(side, edge, resampling, quick=False)
    cut = f" and cuts out {crop}" if crop else ""
    raise _unusable(name, f"resizes to {size}{cut}; known are squares, stretched or cut out of the middle")


def _square(size: dict[str, Any]) -> int | None:
    return size.get("height") if size.get("height") == size.get("width") else None


def _three(values: Any) -> list[float]:
    return [float(values)] * 3 if isinstance(values, int | float) else [float(v) for v in values]


def _unusable(name: str, what: str) -> UserError:
    return UserError(
        f"encoder {name}: its image processor {what}. Choose another encoder, or take preprocessor_config.json out of "
        "a copy of the folder: pictures are then prepared as is usual for such models"
    )
