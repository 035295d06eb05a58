"""A generated shop: products that are drawn and described, users with tastes, clicks from a known probability.

Nothing here is real. A product has visual attributes (shape, body colour, background colour, pattern, badge), which
its picture shows, and textual ones (material, style, brand, mood), which its words say; the words also say some of the
visual ones. A user likes attribute values and pairs of a visual and a textual value. An impression is clicked with
probability `sigmoid(taste + appeal of the item + click-readiness of the user + a constant)`, which is kept, so the
best AUC that any model can reach is known. If asked for, what was clicked is bought with another known probability,
`sigmoid(taste in buying + a constant - price)`, the price being that of the kind of product, standardised.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw
from scipy.special import expit

START = 1_767_225_600  # 2026-01-01T00:00:00Z
PERIOD = 90 * 86_400  # seconds that the generated log spans
LATE = (0.82, 0.97)  # share of the period in which late items are launched: after the training part of a time split

COLOURS = {
    "red": (206, 59, 58),
    "orange": (236, 137, 52),
    "yellow": (240, 200, 72),
    "green": (84, 154, 88),
    "teal": (54, 158, 160),
    "blue": (62, 104, 186),
    "purple": (128, 84, 162),
    "pink": (226, 122, 158),
}
SHAPES = ("mug", "shirt", "bag", "bottle", "lamp", "cushion", "vase", "hat")
PATTERNS = ("plain", "horizontal stripes", "vertical stripes", "diagonal stripes", "dots", "checks")
BADGES = ("none", "star", "heart", "tick", "moon", "bolt")

VALUES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(COLOURS),
    "pattern": PATTERNS,
    "badge": BADGES,
    "material": (
        "recycled cork",
        "brushed steel",
        "organic cotton",
        "bamboo",
        "stoneware",
        "felted wool",
        "clear resin",
    ),
    "style": ("classic", "minimal", "rustic", "retro", "sporty", "baroque"),
    "brand": (
        "Norvelle",
        "Talua",
        "Brindle",
        "Ostrava",
        "Pellow",
        "Quessa",
        "Rovane",
        "Sundry",
        "Ulverton",
        "Wexcombe",
    ),
    "mood": ("cosy", "bold", "playful", "calm", "festive", "elegant"),
}
# How much tastes differ over the values of an attribute or of a pair of attributes (logits, before scaling).
TASTE = {
    "shape": 0.4,
    "colour": 0.9,
    "background": 0.6,
    "pattern": 0.8,
    "badge": 1.2,
    "material": 0.7,
    "style": 0.6,
    "brand": 0.4,
    "mood": 0.6,
}
PAIRS = {("pattern", "style"): 0.7, ("colour", "material"): 0.7, ("badge", "mood"): 0.9}
PRICE = {"mug": 14, "shirt": 29, "bag": 55, "bottle": 19, "lamp": 68, "cushion": 24, "vase": 36, "hat": 27}

# Shares of items, and standard deviations in logits.
NO_IMAGE, NO_DESCRIPTION, NO_MEDIA = 0.08, 0.10, 0.01
LATE_SHARE, LATER_SHARE = 0.18, 0.22
ARCHETYPES = 5
STRONG = 0.2
WEAK = 0.1
OWN = 0.5
MIX = 0.1
AGES = ("16-24", "25-39", "40-59", "60+")
DEVICES = ("phone", "tablet", "desktop")
# Effects with `context`, in logits: the deviation of what an age group feels for a shape, that of each device, half the
# way from the best hour of the day to the worst one, and what each place in the list costs.
AGE_STD, DEVICE_EFFECT, BEST_HOUR, HOUR_EFFECT, POSITION_EFFECT = 0.6, (-0.5, 0.0, 0.5), 20, 0.6, -0.15
POSITIONS, USUAL_DEVICE = 10, 0.8
TASTE_STD, APPEAL_STD, READINESS_STD = 1.75, 0.2, 0.3
BUYING_STD, PRICE_STD = 1.25, 0.5
DRIFTING = 0.3  # share of users whose taste moves towards another one over the period


@dataclass(frozen=True)
class Shop:
    """A whole generated shop but for its pictures, which `picture` draws one at a time.

    codes: attribute -> `[items]` int64, index into `VALUES[attribute]`.
    prices: `[items]` float64. launched: `[items]` int64, seconds.
    titles, descriptions: `[items]`, each a list of no or one string. has_image: `[items]` bool.
    users, items: `[impressions]` int32, ordered by time. timestamps: `[impressions]` int64, seconds.
    ages: `[users]`, devices: `[impressions]` int64 indices into `AGES`, `DEVICES`; positions: `[impressions]` int64,
    from 0: None in a shop without context.
    probability: `[impressions]` float32, of a click. clicks: `[impressions]` float32, 0 or 1. buy_probability, buys:
    likewise, of a purchase given a click, and purchases; None for a shop without.
    """

    seed: int
    size: int
    codes: dict[str, np.ndarray]
    prices: np.ndarray
    launched: np.ndarray
    titles: list[list[str]]
    descriptions: list[list[str]]
    has_image: np.ndarray
    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    probability: np.ndarray
    clicks: np.ndarray
    ages: np.ndarray | None = None
    devices: np.ndarray | None = None
    positions: np.ndarray | None = None
    buy_probability: np.ndarray | None = None
    buys: np.ndarray | None = None

    @cached_property
    def item_ids(self) -> list[str]:
        width = max(4, len(str(len(self.prices))))
        return [f"p{i + 1:0{width}d}" for i in range(len(self.prices))]

    def picture(self, item: int) -> bytes | None:
        """The JPEG of an item, the same for the same seed; None where the picture is missing."""
        if not self.has_image[item]:
            return None
        values = {name: VALUES[name][codes[item]] for name, codes in self.codes.items()}
        return draw(values, self.size, np.random.default_rng([self.seed, item]))


def generate(
    *,
    items: int,
    users: int,
    impressions: int,
    seed: int = 0,
    size: int = 64,
    history_events: int | None = None,
    click_rate: float = 0.25,
    context: bool = False,
    buy_rate: float | None = None,
) -> Shop:
    """A shop of `items` products, `users` people and about `impressions` impressions; the same for the same seed.

    `history_events`: every user has at least so many impressions. `click_rate`: mean probability of a click.
    `buy_rate`: that of a purchase given a click, over all impressions; None: nothing is bought, all else is the same.
    Pictures are `size` x `size` pixels. context: clicks also depend on the user's age group, the device, the hour of
    the day and the position in the list; all that is drawn without it is the same with it, but the clicks.
    """
    rng = np.random.default_rng(seed)
    codes = {name: rng.integers(len(values), size=items) for name, values in VALUES.items()}
    base = np.array([PRICE[shape] for shape in SHAPES])[codes["shape"]]
    prices = np.round(base * rng.lognormal(0, 0.25, items) * 2) / 2
    launched = START + (_launches(items, rng) * PERIOD).astype(np.int64)
    has_image, has_description, has_title = _presence(items, rng)
    titles, descriptions = _words(codes, rng)

    # Impressions: busy users, popular items, each shown to a user once while there is something new to show.
    count = _activity(users, impressions, history_events or 0, rng)
    user = np.repeat(np.arange(users), count)
    when = START + rng.integers(PERIOD, size=len(user))
    item = _shown(user, when, launched, rng)

    logits = _taste(codes, user, item, (when - START) / PERIOD, users, rng)
    logits *= TASTE_STD / max(float(logits.std()), 1e-9)
    logits += rng.normal(0, APPEAL_STD, items)[item] + rng.normal(0, READINESS_STD, users)[user]
    around = _context(codes["shape"][item], user, when, users, np.random.default_rng([seed, 1])) if context else None
    if around is not None:
        logits += around[0]
    probability = expit(logits + _offset(logits, click_rate)).astype(np.float32)
    clicks = (rng.random(len(user)) < probability).astype(np.float32)

    buy_probability = buys = None
    if buy_rate is not None:
        own = np.random.default_rng([seed, 1])  # apart from all other draws
        logits = _taste(codes, user, item, (when - START) / PERIOD, users, own)
        logits *= BUYING_STD / max(float(logits.std()), 1e-9)
        dear = np.log(base)
        logits -= (PRICE_STD * (dear - dear.mean()) / max(float(dear.std()), 1e-9))[item]
        buy_probability = expit(logits + _offset(logits, buy_rate)).astype(np.float32)
        buys = clicks * (own.random(len(user)) < buy_probability)

    order = np.lexsort((user, when))
    return Shop(
        seed=seed,
        size=size,
        codes=codes,
        prices=prices,
        launched=launched,
        titles=[[t] if ok else [] for t, ok in zip(titles, has_title, strict=True)],
        descriptions=[[t] if ok else [] for t, ok in zip(descriptions, has_description, strict=True)],
        has_image=has_image,
        users=user[order].astype(np.int32),
        items=item[order].astype(np.int32),
        timestamps=when[order],
        probability=probability[order],
        clicks=clicks[order],
        ages=None if around is None else around[1],
        devices=None if around is None else around[2][order],
        positions=None if around is None else around[3][order],
        buy_probability=None if buy_probability is None else buy_probability[order],
        buys=None if buys is None else buys[order],
    )


# ---------------------------------------------------------------------------------------------- items and their words
def _exactly(n: int, share: float) -> int:
    return min(n, max(1, round(share * n)))


def _launches(items: int, rng: np.random.Generator) -> np.ndarray:
    """Launch of each item as a share of the period, `[items]`: most at 0, some during it, `LATE_SHARE` in `LATE`."""
    at = np.zeros(items)
    order = rng.permutation(items)
    late, later = _exactly(items, LATE_SHARE), round(LATER_SHARE * items)
    at[order[:late]] = rng.uniform(*LATE, late)
    at[order[late : late + later]] = rng.uniform(0, 0.75, len(order[late : late + later]))
    return at


def _presence(items: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which items have a picture, a description, a title: `[items]` bool each; a few have none of them."""
    empty = rng.permutation(items)[: _exactly(items, NO_MEDIA)]
    present = []
    for share in (NO_IMAGE, NO_DESCRIPTION, 0.0):
        has = np.ones(items, bool)
        if share:
            has[rng.permutation(items)[: _exactly(items, share - NO_MEDIA)]] = False
        has[empty] = False
        present.append(has)
    return present[0], present[1], present[2]


TITLES = ("{brand} {style}{colour} {shape}", "{style}{colour} {shape} by {brand}", "{brand}: {style}{colour} {shape}")
MATERIALS = ("Made of {material}.", "The {shape} is {material} through and through.", "Crafted from {material}.")
MOODS = ("A {mood} piece for the home.", "Gives a {mood} touch to every day.", "For everyone who likes it {mood}.")
PATTERNED = ("Comes with a {pattern} finish.", "The surface: {pattern}.")
BADGED = ("Carries our {badge} mark.", "Part of the {badge} collection.")
FILLERS = (
    "Ships within two days.",
    "Wipe clean with a damp cloth.",
    "Packed in paper, not plastic.",
    "Designed in our own studio.",
    "A gift that is hard to get wrong.",
    "Returns are free for a month.",
)


def _words(codes: dict[str, np.ndarray], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Title and description of every item.

    A title says brand, style and shape, and in 40 % the colour. A description says material and mood, in 30 % each the
    pattern and the badge, and something that says nothing.
    """
    n = len(codes["shape"])
    told = {name: rng.random(n) < share for name, share in (("colour", 0.4), ("pattern", 0.3), ("badge", 0.3))}
    pick = rng.integers(12, size=(n, 6))
    shuffle = rng.random((n, 5)).argsort(axis=1)
    titles, descriptions = [], []
    for i in range(n):
        values = {name: VALUES[name][code[i]] for name, code in codes.items()}
        colour = f" {values['colour']}" if told["colour"][i] else ""
        title = TITLES[pick[i, 0] % len(TITLES)].format(**{**values, "colour": colour})
        titles.append(title[0].upper() + title[1:])
        badged = told["badge"][i] and values["badge"] != "none"
        lines = (
            MATERIALS[pick[i, 1] % len(MATERIALS)],
            MOODS[pick[i, 2] % len(MOODS)],
            PATTERNED[pick[i, 3] % len(PATTERNED)] if told["pattern"][i] else "",
            BADGED[pick[i, 4] % len(BADGED)] if badged else "",
            FILLERS[pick[i, 5] % len(FILLERS)],
        )
        descriptions.append(" ".join(lines[j].format(**values) for j in shuffle[i] if lines[j]))
    return titles, descriptions


# ----------------------------------------------------------------------------------------------- users and impressions
def _activity(users: int, impressions: int, least: int, rng: np.random.Generator) -> np.ndarray:
    """Impressions of each user, `[users]`: skewed, at least `max(1, least)`, in sum `impressions` where that allows."""
    least = max(1, least)
    share = rng.gamma(1.5, 1.0, users)
    extra = max(0, impressions - least * users)
    return least + rng.multinomial(extra, share / share.sum())


def _shown(user: np.ndarray, when: np.ndarray, launched: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The item of each impression, `[impressions]`: drawn by popularity among those launched by `when`.

    An item that a user was shown is drawn anew a few times, so that repeats only stay where a user sees most of the
    catalogue.
    """
    order = np.argsort(launched, kind="stable")
    popularity = rng.lognormal(0, 0.8, len(order))
    popularity[launched > START + LATE[0] * PERIOD] *= 2  # a shop shows what is new
    total = np.cumsum(popularity[order])
    known = np.searchsorted(launched[order], when, side="right") - 1
    item = np.empty(len(user), np.int64)
    todo = np.arange(len(user))
    for _ in range(12):
        drawn = np.searchsorted(total, rng.random(len(todo)) * total[known[todo]], side="right")
        item[todo] = order[np.minimum(drawn, known[todo])]
        key = user * len(order) + item
        first = np.unique(key, return_index=True)[1]
        repeated = np.ones(len(user), bool)
        repeated[first] = False
        todo = np.flatnonzero(repeated)
        if not len(todo):
            break
    return item


def _taste(
    codes: dict[str, np.ndarray],
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    users: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """What a user feels for an item's attributes at a time (0 to 1), `[impressions]` float64, before scaling.

    A user mixes a few of `ARCHETYPES` tastes and has a like of their own. A taste gives every value of an attribute
    and every pair of values a weight: mostly small, a few strong. A drifting user moves towards another mixture.
    """
    mix, later = rng.dirichlet(np.full(ARCHETYPES, MIX), (2, users))
    moving = (rng.random(users) < DRIFTING) * rng.uniform(0.3, 0.8, users)
    total = np.zeros(len(user))
    for names, scale in {**{(name,): s for name, s in TASTE.items()}, **PAIRS}.items():
        shape = tuple(len(VALUES[name]) for name in names)
        code = np.ravel_multi_index(tuple(codes[name] for name in names), shape)
        width = math.prod(shape)
        strong = rng.random((ARCHETYPES, width)) < STRONG
        weights = scale * (rng.normal(0, WEAK, (ARCHETYPES, width)) + 2 * strong)
        now, then = mix @ weights, later @ weights
        if len(names) == 1:
            now[np.arange(users), rng.integers(width, size=users)] += OWN * scale
        shift = moving[user] * time
        total += (1 - shift) * now[user, code[item]] + shift * then[user, code[item]]
    return total


def _context(
    shape: np.ndarray, user: np.ndarray, when: np.ndarray, users: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the situation adds to the logits of impressions `[n]`; age groups `[users]`, devices and positions `[n]`.

    A user has a usual device, which `USUAL_DEVICE` of the impressions are on; positions are drawn by chance.
    """
    ages = rng.integers(len(AGES), size=users)
    usual, other = rng.integers(len(DEVICES), size=users), rng.integers(len(DEVICES), size=len(user))
    devices = np.where(rng.random(len(user)) < USUAL_DEVICE, usual[user], other)
    positions = rng.integers(POSITIONS, size=len(user))
    likes = rng.normal(0, AGE_STD, (len(AGES), len(SHAPES)))
    hour = when // 3600 % 24
    total = likes[ages[user], shape] + np.array(DEVICE_EFFECT)[devices] + POSITION_EFFECT * positions
    return total + HOUR_EFFECT * np.cos(2 * np.pi * (hour - BEST_HOUR) / 24), ages, devices, positions


def _offset(logits: np.ndarray, rate: float) -> float:
    """The constant that makes the mean probability `rate`, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(logits + middle).mean() < rate else (low, middle)
    return (low + high) / 2


# ------------------------------------------------------------------------------------------------------------- pictures
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
