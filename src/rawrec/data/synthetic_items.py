"""Products of a generated shop: their attributes, when they come, what is missing of them, their words."""

from __future__ import annotations

import numpy as np

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
PRICE = {"mug": 14, "shirt": 29, "bag": 55, "bottle": 19, "lamp": 68, "cushion": 24, "vase": 36, "hat": 27}


# Shares of items.
NO_IMAGE, NO_DESCRIPTION, NO_MEDIA = 0.08, 0.10, 0.01
LATE_SHARE, LATER_SHARE = 0.18, 0.22


class Popular:
    """Products as they are met by chance: some more often than others, new ones twice as often as that."""

    def __init__(self, launched: np.ndarray, rng: np.random.Generator) -> None:
        self.launched = launched
        self.order = np.argsort(launched, kind="stable")
        popularity = rng.lognormal(0, 0.8, len(self.order))
        popularity[launched > START + LATE[0] * PERIOD] *= 2  # a shop shows what is new
        self.total = np.cumsum(popularity[self.order])

    def draw(self, when: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A product for each time, of those launched by then, `[n]`."""
        known = np.searchsorted(self.launched[self.order], when, side="right") - 1
        drawn = np.searchsorted(self.total, rng.random(len(when)) * self.total[known], side="right")
        return self.order[np.minimum(drawn, known)]


def _exactly(n: int, share: float) -> int:
    return min(n, max(1, round(share * n)))


def launches(items: int, rng: np.random.Generator) -> np.ndarray:
    """Launch of each item as a share of the period, `[items]`: most at 0, some during it, `LATE_SHARE` in `LATE`."""
    at = np.zeros(items)
    order = rng.permutation(items)
    late, later = _exactly(items, LATE_SHARE), round(LATER_SHARE * items)
    at[order[:late]] = rng.uniform(*LATE, late)
    at[order[late : late + later]] = rng.uniform(0, 0.75, len(order[late : late + later]))
    return at


def presence(items: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def words(codes: dict[str, np.ndarray], rng: np.random.Generator) -> tuple[list[str], list[str]]:
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
