"""Damaged pictures: pixels or a short reason, soon and in little memory, whatever the bytes are."""

from __future__ import annotations

import random
import resource
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

from mutations import CASES, cut, flips, limit, sizes
from rawrec.data import images

SIZE = 24
SECONDS = 1.0
MEGABYTES = 300


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    pixels[:12] = 200  # something to compress
    buffer = BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


TURNED = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
FRAMES = [Image.new("P", (SIZE, SIZE), i) for i in range(3)]
SEEDS = {
    "jpeg": encoded("JPEG"),
    "jpeg-progressive": encoded("JPEG", progressive=True, exif=TURNED),
    "jpeg-cmyk": encoded("JPEG", "CMYK"),
    "png": encoded("PNG"),
    "png-palette": encoded("PNG", "P"),
    "png-16": encoded("PNG", "I;16"),
    "gif": encoded("GIF", save_all=True, append_images=FRAMES),
    "bmp": encoded("BMP"),
    "tiff": encoded("TIFF"),
    "tiff-lzw": encoded("TIFF", compression="tiff_lzw"),
    "tiff-deflate": encoded("TIFF", compression="tiff_adobe_deflate"),
    "tiff-float": encoded("TIFF", "F"),
    "ico": encoded("ICO"),
    "ppm": encoded("PPM"),
    "pgm": encoded("PPM", "L"),
}  # fmt: skip
for feature, kind in {"webp": "WEBP", "avif": "AVIF", "jpg_2000": "JPEG2000"}.items():
    if features.check(feature):
        SEEDS[feature] = encoded(kind)


def damaged(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice([1, 1, 2, 4])):
        data = chance.choice([flips, flips, sizes, sizes, cut, spliced])(data, chance)
    return data


def spliced(data: bytes, chance: random.Random) -> bytes:
    """With a piece of another picture."""
    other = chance.choice(list(SEEDS.values()))
    at, start = chance.randrange(len(data) + 1), chance.randrange(len(other))
    return data[:at] + other[start : start + chance.choice([4, 40, len(other)])] + data[at + chance.choice([0, 40]) :]


def test_the_pictures_are_good_before() -> None:
    assert {name: images.check(data) for name, data in SEEDS.items()} == dict.fromkeys(SEEDS)


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_pictures(name: str) -> None:
    chance = random.Random(name)
    made = [damaged(SEEDS[name], chance) for _ in range(10 * CASES)]
    reasons: list[str | None] = []
    for data in made:
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        with limit():
            reasons.append(images.check(data))
        took, grown = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert took < SECONDS, (took, data)
        assert grown < MEGABYTES << 10, (grown, data)
    assert all(reason is None or (0 < len(reason) <= 250 and reason.isprintable()) for reason in reasons), reasons
    pixels, valid = images.decode_many(made, 16)
    assert valid.tolist() == [reason is None for reason in reasons]
    for data, good, found in zip(made, valid, pixels, strict=True):
        if good:
            alone = images.decode(data, 16)
            assert alone.shape == (3, 16, 16) and np.array_equal(alone, found)
        else:
            assert not found.any()
