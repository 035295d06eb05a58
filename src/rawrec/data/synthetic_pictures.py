"""Pictures of the products of a generated shop: drawn, with the attributes that a picture can show."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageDraw

from rawrec.data.synthetic_items import COLOURS

# Products in a unit square, drawn in order: (part, primitive, coordinates). The body wears the pattern, the trim is
# darker.
Part = tuple[str, str, tuple[float, ...]]
OUTLINES: dict[str, list[Part]] = {
    "mug": [("trim", "ring", (0.55, 0.36, 0.88, 0.70)), ("body", "round", (0.18, 0.24, 0.70, 0.82))],
    "shirt": [
        ("body", "polygon", (0.35, 0.16, 0.65, 0.16, 0.71, 0.46, 0.71, 0.86, 0.29, 0.86, 0.29, 0.46)),
        ("body", "polygon", (0.35, 0.16, 0.07, 0.36, 0.19, 0.54, 0.32, 0.44)),
        ("body", "polygon", (0.65, 0.16, 0.93, 0.36, 0.81, 0.54, 0.68, 0.44)),
        ("trim", "ellipse", (0.40, 0.11, 0.60, 0.25)),
    ],
    "bag": [("trim", "ring", (0.31, 0.12, 0.69, 0.66)), ("body", "round", (0.17, 0.38, 0.83, 0.88))],
    "bottle": [
        ("body", "round", (0.42, 0.16, 0.58, 0.50)),
        ("body", "round", (0.29, 0.34, 0.71, 0.92)),
        ("trim", "round", (0.39, 0.08, 0.61, 0.19)),
    ],
    "lamp": [
        ("trim", "polygon", (0.46, 0.50, 0.54, 0.50, 0.54, 0.86, 0.46, 0.86)),
        ("trim", "ellipse", (0.29, 0.80, 0.71, 0.92)),
        ("body", "polygon", (0.34, 0.12, 0.66, 0.12, 0.88, 0.58, 0.12, 0.58)),
    ],
    "cushion": [
        ("trim", "ellipse", (0.09, 0.15, 0.25, 0.31)),
        ("trim", "ellipse", (0.75, 0.15, 0.91, 0.31)),
        ("trim", "ellipse", (0.09, 0.69, 0.25, 0.85)),
        ("trim", "ellipse", (0.75, 0.69, 0.91, 0.85)),
        ("body", "round", (0.13, 0.19, 0.87, 0.81)),
    ],
    "vase": [
        ("body", "polygon", (0.38, 0.14, 0.62, 0.14, 0.58, 0.46, 0.42, 0.46)),
        ("body", "ellipse", (0.21, 0.34, 0.79, 0.90)),
        ("trim", "round", (0.34, 0.09, 0.66, 0.18)),
    ],
    "hat": [
        ("trim", "ellipse", (0.05, 0.56, 0.95, 0.84)),
        ("body", "ellipse", (0.22, 0.14, 0.78, 0.62)),
        ("body", "round", (0.22, 0.36, 0.78, 0.74)),
    ],
}
_ANGLE = np.arange(10) * math.pi / 5
_STAR = np.stack([np.sin(_ANGLE), -np.cos(_ANGLE)], 1) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
_TURN = np.linspace(0, 2 * math.pi, 24)
_HEART = (
    np.stack(
        [
            16 * np.sin(_TURN) ** 3,
            -13 * np.cos(_TURN) + 5 * np.cos(2 * _TURN) + 2 * np.cos(3 * _TURN) + np.cos(4 * _TURN),
        ],
        1,
    )
    / 17
)
_ARC = np.linspace(0.2 * math.pi, 1.8 * math.pi, 16)
_MOON = np.concatenate(
    [
        np.stack([np.cos(_ARC), np.sin(_ARC)], 1),
        np.stack([0.35 + 0.72 * np.cos(_ARC[::-1]), 0.72 * np.sin(_ARC[::-1])], 1),
    ]
)
# Symbols in a square from -1 to 1, `[points, 2]`.
SYMBOLS: dict[str, np.ndarray] = {
    "star": _STAR,
    "heart": _HEART,
    "moon": _MOON,
    "tick": np.array([(-0.9, 0.1), (-0.6, -0.2), (-0.25, 0.2), (0.6, -0.8), (0.95, -0.5), (-0.25, 0.85)]),
    "bolt": np.array([(0.3, -1.0), (-0.65, 0.2), (-0.1, 0.2), (-0.3, 1.0), (0.65, -0.25), (0.1, -0.25)]),
}
INK, PAPER = (44, 48, 58), (250, 248, 242)
OVERSAMPLE = 3


def _mix(a: tuple[int, ...], b: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(round(x * (1 - share) + y * share) for x, y in zip(a, b, strict=True))


def draw(values: dict[str, str], size: int, rng: np.random.Generator) -> bytes:
    """A picture of a product with these attribute values: JPEG bytes, `size` x `size` pixels.

    Position, scale, rotation, light, the badge's corner and the JPEG quality vary with `rng`.
    """
    side = size * OVERSAMPLE
    body, ground = COLOURS[values["colour"]], _mix(COLOURS[values["background"]], PAPER, 0.35)
    canvas = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, round(0.72 * side), side, side), fill=_mix(ground, INK, 0.10))

    # The product on a square of its own, then turned, scaled and put down.
    scale = rng.uniform(0.66, 0.80)
    inner = round(side * scale)
    masks = {"body": Image.new("L", (inner, inner)), "trim": Image.new("L", (inner, inner))}
    for part, primitive, at in OUTLINES[values["shape"]]:
        _primitive(ImageDraw.Draw(masks[part]), primitive, [x * inner for x in at])
    product = Image.new("RGB", (inner, inner), _mix(body, INK, 0.45))
    product.paste(Image.fromarray(_surface(values["pattern"], body, inner, rng)), mask=masks["body"])
    outline = Image.new("L", (inner, inner))
    for mask in (masks["trim"], masks["body"]):
        outline.paste(255, mask=mask)
    angle = rng.uniform(-12, 12)
    product = product.rotate(angle, Image.Resampling.BILINEAR, fillcolor=_mix(body, INK, 0.45))
    outline = outline.rotate(angle, Image.Resampling.BILINEAR)
    x, y = (round((side - inner) / 2 + rng.uniform(-0.07, 0.07) * side) for _ in range(2))
    floor = y + 0.88 * inner
    pen.ellipse((x + 0.1 * inner, floor - 0.05 * inner, x + 0.9 * inner, floor + 0.06 * inner), _mix(ground, INK, 0.3))
    canvas.paste(product, (x, y), outline)

    # The badge: a paper disc with a dark symbol, in one of the corners.
    corner = rng.integers(2, size=2)
    turn, radius = math.radians(rng.uniform(-15, 15)), 0.13 * side
    if values["badge"] != "none":
        centre = np.where(corner == 1, side - 1.25 * radius, 1.25 * radius)
        pen.ellipse((*(centre - radius), *(centre + radius)), fill=PAPER, outline=INK, width=max(1, side // 90))
        spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        pen.polygon((SYMBOLS[values["badge"]] @ spin * 0.66 * radius + centre).ravel().tolist(), fill=INK)

    light = rng.uniform(0.88, 1.08)
    picture = canvas.reduce(OVERSAMPLE).point(lambda value: value * light)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=int(rng.integers(70, 96)))
    return data.getvalue()


def _primitive(pen: ImageDraw.ImageDraw, kind: str, at: list[float]) -> None:
    width = at[2] - at[0]
    if kind == "polygon":
        pen.polygon(at, fill=255)
    elif kind == "ellipse":
        pen.ellipse(at, fill=255)
    elif kind == "ring":
        pen.ellipse(at, outline=255, width=max(1, round(0.2 * width)))
    else:
        pen.rounded_rectangle(at, radius=0.18 * width, fill=255)


def _surface(pattern: str, body: tuple[int, ...], side: int, rng: np.random.Generator) -> np.ndarray:
    """The body's colour, its pattern in a light tone of it, lit softly from the left: `[side, side, 3]` uint8."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    period = rng.uniform(0.15, 0.20)
    u, v = x / period + rng.random(), y / period + rng.random()
    if pattern == "plain":
        on = np.zeros((side, side), bool)
    elif pattern == "dots":
        on = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.09
    elif pattern == "checks":
        on = (u % 1 < 0.5) ^ (v % 1 < 0.5)
    else:
        along = {"horizontal stripes": v, "vertical stripes": u, "diagonal stripes": (u + v) / math.sqrt(2)}[pattern]
        on = along % 1 < 0.45
    tones = np.array([body, _mix(body, PAPER, 0.72)], np.float32)[on.astype(np.intp)]
    return np.clip(tones * (1.1 - 0.3 * x)[..., None], 0, 255).astype(np.uint8)
