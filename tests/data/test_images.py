"""Decoding: every odd picture gives pixels or a reason, never a traceback, never a warning."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late

import numpy as np
import pytest
from PIL import Image, ImageOps

from rawrec.data import images

RED, BLUE, WHITE = (200, 30, 40), (20, 40, 210), (255, 255, 255)


def encode(image: Image.Image, fmt: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def halves(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def colour(pixels: np.ndarray, x: float, y: float) -> np.ndarray:
    size = pixels.shape[1]
    return pixels[:, int(y * size), int(x * size)].astype(int)


def assert_halves(pixels: np.ndarray, tolerance: int = 12) -> None:
    assert pixels.dtype == np.uint8
    assert np.abs(colour(pixels, 0.2, 0.5) - RED).max() <= tolerance
    assert np.abs(colour(pixels, 0.8, 0.5) - BLUE).max() <= tolerance


@pytest.mark.parametrize(
    ("mode", "fmt", "tolerance"),
    [
        ("RGB", "JPEG", 12),
        ("RGB", "PNG", 0),
        ("RGBA", "PNG", 0),
        ("P", "PNG", 40),
        ("P", "GIF", 40),
        ("CMYK", "JPEG", 30),
        ("CMYK", "TIFF", 12),
        ("RGB", "WEBP", 30),
        ("RGB", "BMP", 0),
        ("YCbCr", "TIFF", 6),
    ],
)
def test_modes_and_formats(mode, fmt, tolerance):
    data = encode(halves(mode), fmt)
    assert images.check(data) is None
    pixels = images.decode(data, 32)
    assert pixels.shape == (3, 32, 32)
    assert pixels.flags.c_contiguous
    assert_halves(pixels, tolerance)


def test_sixteen_bits_and_bilevel():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(8, 0)
    pixels = images.decode(encode(Image.fromarray(ramp), "PNG"), 64)
    expected = np.linspace(0, 255, 64)
    assert np.abs(pixels[0, 32] - expected).max() < 3
    assert (pixels[0] == pixels[2]).all()
    bilevel = Image.new("1", (8, 8), 1)
    assert (images.decode(encode(bilevel, "PNG"), 16) == 255).all()
    floats = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    assert np.abs(images.decode(encode(floats, "TIFF"), 16).astype(int) - 128).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(mode):
    clear = Image.new("RGBA", (10, 10), (*RED, 0)).convert(mode)
    assert (images.decode(encode(clear, "PNG"), 16) == 255).all()


def test_palette_with_transparency():
    image = Image.new("P", (10, 10), 0)
    image.putpalette([*RED, *BLUE])
    data = encode(image, "PNG", transparency=bytes([0, 255]))
    assert (images.decode(data, 16) == 255).all()


@pytest.mark.parametrize(
    ("orientation", "red_at"), [(1, (0.2, 0.5)), (3, (0.8, 0.5)), (6, (0.5, 0.2)), (8, (0.5, 0.8))]
)
def test_exif_rotation(orientation, red_at):
    exif = Image.Exif()
    exif[images.ORIENTATION_TAG] = orientation
    pixels = images.decode(encode(halves(), "JPEG", exif=exif, quality=95), 32)
    assert np.abs(colour(pixels, *red_at) - RED).max() <= 12


def test_broken_exif_does_not_matter():
    data = encode(halves(), "JPEG", exif=b"Exif\x00\x00garbage-garbage-garbage", quality=95)
    assert_halves(images.decode(data, 32))


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(fmt):
    other = Image.new("RGB", (40, 20), (0, 255, 0))
    data = encode(halves(), fmt, save_all=True, append_images=[other])
    assert_halves(images.decode(data, 32), 40)


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000), (3, 700)])
def test_extreme_shapes(size):
    pixels = images.decode(encode(Image.new("RGB", size, RED), "PNG"), 32)
    assert (pixels == np.array(RED, np.uint8)[:, None, None]).all()


def test_large_jpeg_decodes_small_and_right():
    data = encode(halves(size=(2000, 1500)), "JPEG", quality=95)
    assert_halves(images.decode(data, 64))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7_100, 9_600, 40_000])  # below Pillow's warning, above it, above its error
def test_bombs_are_refused_before_decoding(side):
    reason = images.check(png_header(side, side))
    assert reason is not None
    assert "50 million pixels" in reason


def test_large_pictures_wait_for_room_and_small_ones_do_not():
    large = encode(Image.new("L", (2000, 1000)), "PNG")
    small = encode(Image.new("L", (900, 1000)), "PNG")
    with ThreadPoolExecutor(2) as pool:
        with images._ROOM.taken(images.MAX_PIXELS - 1_999_999):
            waiting = pool.submit(images.check, large)
            assert pool.submit(images.check, small).result() is None
            with pytest.raises(Late):
                waiting.result(0.05)
        assert waiting.result(5) is None
        assert all(pool.map(images.check, [large[:-100], large[:500]]))
    with images._ROOM.taken(images.MAX_PIXELS):  # all that was taken is back, also by what was damaged
        pass


@pytest.mark.parametrize("keep", [-1, -5, -12])
def test_a_png_without_its_end(keep: int) -> None:
    """Its pixels are whole, but nobody knows what else is missing."""
    whole = encode(halves(), "PNG")
    assert images.check(whole) is None and images.check(whole + b"more") is None
    assert images.check(whole[:keep]) == "damaged picture: its end is missing"
    with pytest.raises(images.ImageError, match="its end is missing"):
        images.decode(whole[:keep], 8)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_truncated(fmt, keep):
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    data = encode(Image.fromarray(noise), fmt)
    assert images.check(data) is None
    assert images.check(data[: int(len(data) * keep)]) is not None


@pytest.mark.parametrize(
    "data",
    [b"", b"hello, I am a text", b"<html></html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", bytes(1000)],
)
def test_not_a_picture(data):
    reason = images.check(data)
    assert reason
    assert len(reason) <= 220
    with pytest.raises(images.ImageError):
        images.decode(data, 16)


def test_formats_that_run_programs_are_not_opened():
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert images.check(data) == "not a picture of a known format"


def test_decode_many_keeps_order_and_marks_the_bad():
    good = encode(halves(), "PNG")
    other = encode(Image.new("RGB", (5, 5), WHITE), "PNG")
    for workers in (1, 3):
        pixels, valid = images.decode_many([good, b"no", other, b""], 16, workers)
        assert valid.tolist() == [True, False, True, False]
        assert (pixels[0] == images.decode(good, 16)).all()
        assert (pixels[2] == 255).all()
        assert not pixels[1].any()
    pixels, valid = images.decode_many([], 16, 2)
    assert pixels.shape == (0, 3, 16, 16)
    assert valid.shape == (0,)


def test_random_damage_never_escapes():
    rng = np.random.default_rng(1)
    for fmt in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        data = bytearray(encode(halves(), fmt))
        for _ in range(40):
            damaged = bytearray(data)
            for place in rng.integers(0, len(damaged), 5):
                damaged[place] = int(rng.integers(256))
            images.check(bytes(damaged))


@pytest.mark.parametrize("size", [(97, 61), (61, 97), (300, 201), (40, 40), (33, 500), (224, 225)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_middle_is_cut_out_of_the_picture_as_it_is_shown(size: tuple[int, int], orientation: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), "PNG", exif=exif)
    for edge, side in ((48, 48), (56, 47)):
        found = images.decode(data, images.Framing(side, edge, quick=False)).astype(int)
        shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        width, height = (int(edge * length / min(shown.size)) for length in shown.size)
        left, top = (width - side) // 2, (height - side) // 2
        whole = shown.resize((width, height), Image.Resampling.BICUBIC)
        expected = np.asarray(whole.crop((left, top, left + side, top + side))).transpose(2, 0, 1).astype(int)
        turned = orientation > 4  # columns are then resized before rows
        strip = max(size) > images.STRIP * min(size)
        assert np.abs(found - expected).max() <= (6 if turned else 2 if strip else 0)
        assert np.abs(found - expected).mean() < 0.3


def test_a_strip_is_not_resized_as_a_whole() -> None:
    data = encode(Image.new("RGB", (1, 4000), RED), "PNG")
    assert (images.decode(data, images.Framing(224, 224, quick=False)) == images.decode(data, 224)).all()


def test_a_large_jpeg_decoded_at_a_smaller_scale_is_nearly_the_same() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise).resize((1000, 1500), Image.Resampling.BICUBIC), "JPEG", quality=92)
    whole = Image.open(io.BytesIO(data)).resize((64, 96), Image.Resampling.BICUBIC).crop((0, 16, 64, 80))
    found = images.decode(data, images.Framing(64, 64, quick=False)).astype(int)
    assert np.abs(found - np.asarray(whole).transpose(2, 0, 1)).mean() < 0.6
