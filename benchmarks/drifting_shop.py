"""A generated shop that goes on: tastes move, products come, and what anybody would click is known at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.synthetic import APPEAL_STD, READINESS_STD, TASTE_STD, Shop, offset, taste
from rawrec.data.synthetic_items import PERIOD, PRICE, SHAPES, START, VALUES, presence, words
from rawrec.sources.synthetic import write_shop

BEFORE = 0.2
"""Share of the time that is over when the shop goes online; a dataset holds what happened by then."""
FRESH = 0.4
"""Share of the products that come afterwards, until `LAST` of the time online."""
LAST = 0.9
DRIFTING = 0.3
"""Share of users whose taste moves towards another one of their own."""
FASHION = 1.5
"""How far, in logits, what is in fashion moves for everybody: the deviation over products at the end."""
RATE = 0.2
"""Mean probability of a click, over all users and products at the beginning."""


class DriftingShop:
    """Products and users; the same for the same seed. Times go from 0, when the data begin, to 1, the end; `at` turns
    the share of the time online into them. launched: share of the time online at which each product comes, `[items]`,
    below 0 for those that are there from the beginning."""

    def __init__(self, items: int, users: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.seed, self.items, self.users = seed, items, users
        self.codes = {name: rng.integers(len(values), size=items) for name, values in VALUES.items()}
        base = np.array([PRICE[shape] for shape in SHAPES])[self.codes["shape"]]
        has_image, has_description, has_title = presence(items, rng)
        titles, descriptions = words(self.codes, rng)
        self.first = items - round(FRESH * items)
        self.launched = np.full(items, -1.0)
        self.launched[self.first :] = np.sort(rng.uniform(0, LAST, items - self.first))
        nothing = np.zeros(0)
        self.shop = Shop(
            seed=seed,
            size=64,
            codes=self.codes,
            prices=np.round(base * rng.lognormal(0, 0.25, items) * 2) / 2,
            launched=np.full(items, START, np.int64),
            titles=[[text] if ok else [] for text, ok in zip(titles, has_title, strict=True)],
            descriptions=[[text] if ok else [] for text, ok in zip(descriptions, has_description, strict=True)],
            has_image=has_image,
            users=nothing.astype(np.int32),
            items=nothing.astype(np.int32),
            timestamps=nothing.astype(np.int64),
            probability=nothing,
            clicks=nothing,
        )
        user, item = rng.integers(users, size=20_000), rng.integers(items, size=20_000)
        self._scale = TASTE_STD / float(self._taste(user, item, np.zeros(len(user))).std())
        self._fashion = {name: rng.normal(0, 1, len(values)) for name, values in VALUES.items()}
        self._own = rng.normal(0, READINESS_STD, users), rng.normal(0, APPEAL_STD, items)
        self._offset = 0.0
        self._offset = offset(self._logits(user, item, np.zeros(len(user))), RATE)
        self._made: dict[float, np.ndarray] = {}

    def at(self, online: float) -> float:
        """The time at a share of the time online."""
        return BEFORE + (1 - BEFORE) * online

    def _taste(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        return taste(self.codes, user, item, time, self.users, np.random.default_rng([self.seed, 2]), DRIFTING)

    def _logits(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        liked = sum(weights[self.codes[name][item]] for name, weights in self._fashion.items()) / len(VALUES) ** 0.5
        moved = FASHION * np.maximum(time - BEFORE, 0) / (1 - BEFORE) * liked
        return (
            self._scale * self._taste(user, item, time) + moved + self._own[0][user] + self._own[1][item] + self._offset
        )

    def probability(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Of a click, `[n]`."""
        return expit(self._logits(user, item, time))

    def matrix(self, online: float) -> np.ndarray:
        """Of all, at a share of the time online: `[users, items]`; kept."""
        if online not in self._made:
            user, item = np.divmod(np.arange(self.users * self.items), self.items)
            found = self.probability(user, item, np.full(len(user), self.at(online)))
            self._made[online] = found.reshape(self.users, self.items)
        return self._made[online]

    # ------------------------------------------------------------------------------------------------------ what it is
    def item_id(self, item: int) -> str:
        return self.shop.item_ids[item]

    def user_id(self, user: int) -> str:
        return f"u{user + 1}"

    def fields(self, item: int) -> dict[str, Any]:
        """The raw fields of a product but for its picture, as events and the server take them."""
        shop = self.shop
        texts = {
            name: of[item][0] for name, of in (("title", shop.titles), ("description", shop.descriptions)) if of[item]
        }
        return {**texts, "category": [VALUES["shape"][self.codes["shape"][item]]], "price": float(shop.prices[item])}

    def write(self, out: Path, impressions: int) -> Dataset:
        """The dataset: the first products, and so many impressions by chance until the shop goes online."""
        rng, shop, first = np.random.default_rng([self.seed, 3]), self.shop, self.first
        time = np.sort(rng.uniform(0, BEFORE, impressions))
        user, item = rng.integers(self.users, size=impressions), rng.integers(first, size=impressions)
        user[: self.users] = rng.permutation(self.users)
        probability = self.probability(user, item, time)
        made = Shop(
            seed=shop.seed,
            size=shop.size,
            codes={name: codes[:first] for name, codes in shop.codes.items()},
            prices=shop.prices[:first],
            launched=shop.launched[:first],
            titles=shop.titles[:first],
            descriptions=shop.descriptions[:first],
            has_image=shop.has_image[:first],
            users=user.astype(np.int32),
            items=item.astype(np.int32),
            timestamps=(START + time * PERIOD).astype(np.int64),
            probability=probability.astype(np.float32),
            clicks=(rng.random(impressions) < probability).astype(np.float32),
        )
        report = ImportReport(source=f"drifting shop (items={first}, users={self.users}, seed={self.seed})")
        return write_shop(out, made, report, overwrite=True, progress=False)
