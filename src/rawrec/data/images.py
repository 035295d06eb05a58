"""From the bytes of a picture file to pixels, safely: whatever the bytes are, the answer is pixels or a short reason.

Bytes come from strangers. Only plain raster formats are opened (nothing that runs a program, like EPS), the size is
limited before anything is decoded, and a file that is damaged anywhere is refused as a whole.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition

import numpy as np
from PIL import Image

MAX_PIXELS = 50_000_000
SMALL = 1_000_000
"""A picture of fewer pixels is decoded at once, whatever else is being decoded."""
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM", "ICO", "JPEG2000")
ORIENTATION_TAG = 0x0112
CHECK_SIZE = 32
CERTAIN = ("L", "RGB", "CMYK")
"""Modes that become RGB whatever the pixels are."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MIRRORED = {2: (1, 0), 3: (1, 1), 4: (0, 1), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
"""Orientations whose turn reverses the file's x and y axis."""
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
"""Formats whose further pictures are frames; those of a TIFF are pages."""
LONG = 40 * MAX_PIXELS
"""An animation of which more pixels must be decoded for the frames that are wanted is refused."""
END_OF_PNG = b"IEND\xaeB`\x82"
"""With its check sum; Pillow takes the pixels of a file that was cut off before it."""
JPEG_QUALITY = 90
"""Of frames, which have no file of their own."""
STRIP = 4
"""Pictures longer than so many times their shorter side are not resized as a whole."""
FINE = 4
"""JPEGs that are not decoded in a hurry keep sides of at least so many times those they are resized to."""

# Pillow warns of a decompression bomb and decodes it all the same; here the warning is a refusal. What else Pillow
# warns of (odd EXIF, palettes) concerns nobody: the picture decodes or it does not.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

# Pixels in blocks above 32 MiB go back to the system when they are freed. Those in blocks of the default size stay with
# the thread that used them, some 200 MB each after one large picture.
Image.core.set_block_size(64 << 20)


class ImageError(ValueError):
    """Bytes that are no usable picture; the text is the reason."""


@dataclass(frozen=True)
class Framing:
    """How a picture becomes a square of `side` pixels.

    edge: the shorter side becomes `edge` pixels long and the middle is cut out; None: the whole is stretched.
    resampling: Pillow's name of the filter. quick: JPEGs are decoded at the smallest scale that is large enough, and
    large pictures are made smaller in two steps; a value may be some levels off.
    """

    side: int
    edge: int | None = None
    resampling: str = "BICUBIC"
    quick: bool = True

    @property
    def enough(self) -> int:
        """The shortest side at which a JPEG may be decoded."""
        return self.side if self.quick else FINE * (self.edge or self.side)


class _Room:
    """Room for the pixels that all threads decode at the same time: MAX_PIXELS, small pictures not counted.

    A decoder takes up to some 9 bytes a pixel.
    """

    def __init__(self) -> None:
        self._free = MAX_PIXELS
        self._changed = Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels, at most MAX_PIXELS, have room; give it back at the end."""
        if pixels < SMALL:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


_ROOM = _Room()


def check(data: bytes) -> str | None:
    """None if `data` is a picture that `decode` takes, else a short reason why not.

    It is decoded to its end, JPEG at the smallest scale.
    """
    try:
        with _loaded(data, 1) as image:
            if image.mode not in CERTAIN or "transparency" in image.info:
                _square(image, Framing(CHECK_SIZE))
    except ImageError as error:
        return str(error)
    return None


def picture_type(data: bytes) -> str:
    """The media type of a picture, `image/png`, by its first bytes; `application/octet-stream` for what is none."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return Image.MIME.get(image.format or "", "application/octet-stream")
    except Exception:  # whatever a decoder makes of a stranger's bytes
        return "application/octet-stream"


def decode(data: bytes, framing: Framing | int) -> np.ndarray:
    """The picture as `[3, side, side]` uint8 RGB; a number for the framing: stretched to such a square, quickly.

    Resizing is antialiased. EXIF rotation is applied, transparency laid over white, of an animation the first frame is
    taken, 16-bit values are scaled to 8.

    Raises ImageError with a reason.
    """
    framing = Framing(framing) if isinstance(framing, int) else framing
    with _loaded(data, framing.enough) as image:
        return _square(image, framing)


def decode_many(data: Sequence[bytes], framing: Framing | int, workers: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Pixels `[n, 3, side, side]` uint8 and a mask `[n]` bool of what was decodable; the rest is zeros.

    Runs in `workers` threads (Pillow decodes outside the interpreter's lock).
    """
    framing = Framing(framing) if isinstance(framing, int) else framing
    pixels = np.zeros((len(data), 3, framing.side, framing.side), np.uint8)
    valid = np.zeros(len(data), bool)

    def work(index: int) -> None:
        try:
            pixels[index] = decode(data[index], framing)
            valid[index] = True
        except ImageError:
            pass

    if workers <= 1 or len(data) <= 1:
        for index in range(len(data)):
            work(index)
    else:
        with ThreadPoolExecutor(min(workers, len(data))) as pool:
            list(pool.map(work, range(len(data))))
    return pixels, valid


def frames(data: bytes, choose: Callable[[int], Sequence[int]]) -> tuple[int, list[bytes]]:
    """How many frames an animation has, and those that `choose` takes of so many (ascending numbers from 0), as JPEG,
    transparency over white; of a still picture 1 and none. Raises ImageError with a reason.
    """
    with _loaded(data, 1) as image:
        there = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        if there < 2:
            return 1, []
        chosen, found = choose(there), []
        if (chosen[-1] + 1) * image.width * image.height > LONG:
            raise ImageError(f"too long: {there} frames of {image.width} x {image.height} pixels")
        for at in chosen:
            image.seek(at)
            found.append(jpeg(_over_white(_plain(image))))
        return there, found


def jpeg(image: Image.Image) -> bytes:
    """A frame as the bytes of a file."""
    held = io.BytesIO()
    image.save(held, "JPEG", quality=JPEG_QUALITY)
    return held.getvalue()


def room(pixels: int) -> contextlib.AbstractContextManager[None]:
    """Wait until so many pixels, of what is decoded elsewhere, have room beside those that all threads decode."""
    return _ROOM.taken(min(pixels, MAX_PIXELS))


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


@contextlib.contextmanager
def _loaded(data: bytes, size: int) -> Iterator[Image.Image]:
    """The picture decoded to its end, JPEG at the smallest scale with sides of at least `size`.

    Raises ImageError, also for what the caller's work on the picture raises.
    """
    if not data:
        raise ImageError("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(_too_large(width, height))
            with _ROOM.taken(width * height), contextlib.closing(image):  # which frees its pixels
                image.draft("RGB", (size, size))
                image.load()
                if image.format == "PNG" and END_OF_PNG not in data:
                    raise ImageError("damaged picture: its end is missing")
                yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(_too_large()) from None
    except Image.UnidentifiedImageError:
        raise ImageError("not a picture of a known format") from None
    except Exception as error:  # decoders of hostile bytes raise nearly everything; each means "not decodable"
        raise ImageError(f"damaged picture: {str(error) or type(error).__name__}"[:200]) from None


def _square(image: Image.Image, framing: Framing) -> np.ndarray:
    orientation = _orientation(image)
    turn = TURNS.get(orientation)
    square = _over_white(_resized(_plain(image), orientation, framing))
    if turn is not None:  # a square can be turned after resizing
        square = square.transpose(turn)
    return np.ascontiguousarray(np.asarray(square, np.uint8).transpose(2, 0, 1))


def _resized(image: Image.Image, orientation: int, framing: Framing) -> Image.Image:
    """The square of a picture as it lies in the file.

    Where what is cut off is an odd number of pixels, the smaller half is that at the left and at the top of the picture
    as it is shown.
    """
    filter_, side = Image.Resampling[framing.resampling], framing.side
    if framing.edge is None:
        return image.resize((side, side), filter_, reducing_gap=2.0 if framing.quick else None)
    short = min(image.size)
    width, height = (int(framing.edge * length / short) for length in image.size)
    rests = (width - side, height - side)
    mirrored = MIRRORED.get(orientation, (0, 0))
    left, top = (rest - rest // 2 if turned else rest // 2 for rest, turned in zip(rests, mirrored, strict=True))
    if max(image.size) <= STRIP * short:
        return image.resize((width, height), filter_).crop((left, top, left + side, top + side))
    # only the middle is ever resized: a strip of 1 x 4000 pixels would else fill the memory
    across, down = image.width / width, image.height / height
    right, bottom = min((left + side) * across, image.width), min((top + side) * down, image.height)
    return image.resize((side, side), filter_, box=(left * across, top * down, right, bottom))


def _plain(image: Image.Image) -> Image.Image:
    """The same picture as RGB or, where it has transparency, RGBA with 8 bits per channel."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of 16 or 32 bits or floats as uint8; the range is taken from the type and the largest value."""
    values = np.nan_to_num(values.astype(np.float32))
    top = float(values.max(initial=0))
    scale = 255.0 if 0 < top <= 1 else 1.0 if top <= 255 else 255.0 / 65535.0
    return (values * scale + 0.5).clip(0, 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF says nothing about the pixels
        return 1


def _too_large(width: int | None = None, height: int | None = None) -> str:
    found = f"{width} x {height} pixels, " if width else ""
    return f"too large: {found}more than the limit of {MAX_PIXELS // 1_000_000} million pixels"
