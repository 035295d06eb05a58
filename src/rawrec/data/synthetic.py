"""A generated shop: products that are drawn and described, users with tastes, clicks from a known probability.

Nothing here is real. A product has visual attributes (shape, body colour, background colour, pattern, badge), which
its picture shows, and textual ones (material, style, brand, mood), which its words say; the words also say some of the
visual ones. A user likes attribute values and pairs of a visual and a textual value. An impression is clicked with
probability `sigmoid(taste + appeal of the item + click-readiness of the user + a constant)`, which is kept, so the
best AUC that any model can reach is known. With queries users search (`synthetic_searches.py`), and the logit also has
the share of what was asked for that a product has, and its place in the list. If asked for, what was clicked is bought
with another known probability, `sigmoid(taste in buying + a constant - price)`, the price being that of the kind of
product, standardised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit

from rawrec.data.synthetic_items import PERIOD, PRICE, SHAPES, START, VALUES, Popular, launches, presence, words
from rawrec.data.synthetic_pictures import draw
from rawrec.data.synthetic_searches import Searches, search

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
# Standard deviations in logits, and shares.
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
# With queries, in logits: the deviation of tastes, and what a product gains that has all that was asked for.
SEARCH_TASTE_STD, MATCH_EFFECT = 1.25, 3.0
BUYING_STD, PRICE_STD = 1.25, 0.5
DRIFTING = 0.3  # share of users whose taste moves towards another one over the period


@dataclass(frozen=True)
class Shop:
    """A whole generated shop but for its pictures, which `picture` draws one at a time.

    codes: attribute -> `[items]` int64, index into `VALUES[attribute]`.
    prices: `[items]` float64. launched: `[items]` int64, seconds.
    titles, descriptions: `[items]`, each a list of no or one string. has_image: `[items]` bool.
    users, items: `[impressions]` int32, ordered by time. timestamps: `[impressions]` int64, seconds.
    ages: `[users]`, devices: `[impressions]` int64 indices into `AGES`, `DEVICES`: None in a shop without context;
    positions: `[impressions]` int64, from 0: None in one without context and queries. searches: what was asked for;
    session: `[impressions]` int64, its sessions; match: `[impressions]` float32: None in a shop without queries.
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
    searches: Searches | None = None
    session: np.ndarray | None = None
    match: np.ndarray | None = None
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
    queries: bool = False,
    shown: int = 8,
) -> Shop:
    """A shop of `items` products, `users` people and about `impressions` impressions; the same for the same seed.

    `history_events`: every user has at least so many impressions. `click_rate`: mean probability of a click.
    `buy_rate`: that of a purchase given a click, over all impressions; None: nothing is bought, all else is the same.
    Pictures are `size` x `size` pixels. context: clicks also depend on the user's age group, the device, the hour of
    the day and the position in the list; all that is drawn without it is the same with it, but the clicks. queries:
    users search, and are shown `shown` products at once; the products are the same with it, all else is another shop.
    """
    rng = np.random.default_rng(seed)
    codes = {name: rng.integers(len(values), size=items) for name, values in VALUES.items()}
    base = np.array([PRICE[shape] for shape in SHAPES])[codes["shape"]]
    prices = np.round(base * rng.lognormal(0, 0.25, items) * 2) / 2
    launched = START + (launches(items, rng) * PERIOD).astype(np.int64)
    has_image, has_description, has_title = presence(items, rng)
    titles, descriptions = words(codes, rng)

    # Impressions: busy users, popular items, each shown to a user once while there is something new to show.
    each = shown if queries else 1
    count = _activity(users, -(-impressions // each), -(-(history_events or 0) // each), rng)
    user = np.repeat(np.arange(users), count)
    when = START + rng.integers(PERIOD, size=len(user))
    around = _situations(user, users, np.random.default_rng([seed, 1])) if context else None
    found = None
    if queries:

        def felt(user: np.ndarray, item: np.ndarray, when: np.ndarray) -> np.ndarray:
            return taste(codes, user, item, (when - START) / PERIOD, users, np.random.default_rng([seed, 2]))

        found = search(codes, launched, user, when, shown, felt, np.random.default_rng([seed, 3]))
        user, when, item = user[found.session], when[found.session], found.items
        around = around and around.of(found.session, found.position)
        logits = felt(user, item, when)
    else:
        item = _shown(user, when, launched, rng)
        logits = taste(codes, user, item, (when - START) / PERIOD, users, rng)
    logits *= (SEARCH_TASTE_STD if queries else TASTE_STD) / max(float(logits.std()), 1e-9)
    logits += rng.normal(0, APPEAL_STD, items)[item] + rng.normal(0, READINESS_STD, users)[user]
    if found is not None:
        logits += MATCH_EFFECT * found.match
    positions = around.positions if around is not None else found.position if found is not None else None
    if around is not None:
        logits += around.effect(codes["shape"][item], user, when)
    elif positions is not None:
        logits += POSITION_EFFECT * positions
    probability = expit(logits + offset(logits, click_rate)).astype(np.float32)
    clicks = (rng.random(len(user)) < probability).astype(np.float32)

    buy_probability = buys = None
    if buy_rate is not None:
        own = np.random.default_rng([seed, 1])  # apart from all other draws
        logits = taste(codes, user, item, (when - START) / PERIOD, users, own)
        logits *= BUYING_STD / max(float(logits.std()), 1e-9)
        dear = np.log(base)
        logits -= (PRICE_STD * (dear - dear.mean()) / max(float(dear.std()), 1e-9))[item]
        buy_probability = expit(logits + offset(logits, buy_rate)).astype(np.float32)
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
        ages=None if around is None else around.ages,
        devices=None if around is None else around.devices[order],
        positions=None if positions is None else positions[order],
        searches=found,
        session=None if found is None else found.session[order],
        match=None if found is None else found.match[order].astype(np.float32),
        buy_probability=None if buy_probability is None else buy_probability[order],
        buys=None if buys is None else buys[order],
    )


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
    popular = Popular(launched, rng)
    item = np.empty(len(user), np.int64)
    todo = np.arange(len(user))
    for _ in range(12):
        item[todo] = popular.draw(when[todo], rng)
        key = user * len(launched) + item
        first = np.unique(key, return_index=True)[1]
        repeated = np.ones(len(user), bool)
        repeated[first] = False
        todo = np.flatnonzero(repeated)
        if not len(todo):
            break
    return item


def taste(
    codes: dict[str, np.ndarray],
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    users: int,
    rng: np.random.Generator,
    drifting: float = DRIFTING,
) -> np.ndarray:
    """What a user feels for an item's attributes at a time (0 to 1), `[impressions]` float64, before scaling.

    A user mixes a few of `ARCHETYPES` tastes and has a like of their own. A taste gives every value of an attribute
    and every pair of values a weight: mostly small, a few strong. A drifting user, as the share `drifting` of them
    are, moves towards another mixture. The same for the same draws.
    """
    mix, later = rng.dirichlet(np.full(ARCHETYPES, MIX), (2, users))
    moving = (rng.random(users) < drifting) * rng.uniform(0.3, 0.8, users)
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


@dataclass(frozen=True)
class _Situations:
    """What impressions happen in. ages `[users]`; devices, positions `[n]`; likes `[ages, shapes]`: what an age group
    feels for each shape of product."""

    ages: np.ndarray
    devices: np.ndarray
    positions: np.ndarray
    likes: np.ndarray

    def of(self, session: np.ndarray, position: np.ndarray) -> _Situations:
        """Those of the products that sessions show, at their places."""
        return _Situations(self.ages, self.devices[session], position, self.likes)

    def effect(self, shape: np.ndarray, user: np.ndarray, when: np.ndarray) -> np.ndarray:
        """What they add to the logits `[n]`."""
        total = self.likes[self.ages[user], shape] + np.array(DEVICE_EFFECT)[self.devices]
        total = total + POSITION_EFFECT * self.positions
        return total + HOUR_EFFECT * np.cos(2 * np.pi * (when // 3600 % 24 - BEST_HOUR) / 24)


def _situations(user: np.ndarray, users: int, rng: np.random.Generator) -> _Situations:
    """Of impressions, or of sessions, of users `[n]`. A user has a usual device, which `USUAL_DEVICE` of them are on;
    positions are drawn by chance."""
    ages = rng.integers(len(AGES), size=users)
    usual, other = rng.integers(len(DEVICES), size=users), rng.integers(len(DEVICES), size=len(user))
    devices = np.where(rng.random(len(user)) < USUAL_DEVICE, usual[user], other)
    positions = rng.integers(POSITIONS, size=len(user))
    return _Situations(ages, devices, positions, rng.normal(0, AGE_STD, (len(AGES), len(SHAPES))))


def offset(logits: np.ndarray, rate: float) -> float:
    """The constant that makes the mean probability `rate`, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(logits + middle).mean() < rate else (low, middle)
    return (low + high) / 2
