"""Searches in a generated shop: what users look for, in which words, and what they are shown.

A search begins with a product that its user likes, of which the user does not know that it is there. The query words
some of its attributes, in one of `FORMS`. What is shown are products that have all of them, some that have one, and
others, in an order that a search engine might give: by match, with noise. Some of what is asked for no words of a
product say: the background never, pattern, badge and colour for some products only; the picture shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rawrec.data.synthetic_items import BADGES, COLOURS, START, VALUES, Popular

ATTRIBUTES = tuple(VALUES)
SYNONYMS = ("crimson", "tangerine", "lemon", "leaf green", "turquoise", "navy", "violet", "rose")
"""Other words for the colours, in their order."""
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "colour": {name: (name, other) for name, other in zip(COLOURS, SYNONYMS, strict=True)},
    "background": {name: (f"on a {name} background", f"in front of {name}") for name in COLOURS},
    "badge": {name: (f"with a {name}", f"that has a {name} on it") for name in BADGES},
    "pattern": {
        "plain": ("in one colour", "without a pattern"),
        "horizontal stripes": ("with horizontal stripes", "striped across"),
        "vertical stripes": ("with vertical stripes", "striped from top to bottom"),
        "diagonal stripes": ("with diagonal stripes", "striped slantwise"),
        "dots": ("with dots", "dotted"),
        "checks": ("with checks", "checked"),
    },
}
"""How a query may word a value; values of other attributes are said as they are called."""
FORMS: dict[str, float] = {
    "{shape}": 1,
    "{colour} {shape}": 3,
    "{shape} {pattern}": 2,
    "{shape} {badge}": 2,
    "{shape} {background}": 2,
    "{material} {shape}": 2,
    "{mood} {shape}": 1,
    "{style} {colour} {shape}": 1,
    "{brand} {shape}": 1,
    "{colour} {shape} {badge}": 1,
    "something {pattern}": 1,
    "{mood} and {style}": 1,
}
"""Forms of queries, and how often each is used."""
WITHOUT_BADGE = 1  # the form of a search for a product without a badge that would ask for one
LIKED_OF = 3  # a user looks for the one that they like best of so many
ALL, ONE = 0.35, 0.3  # shares of what is drawn: with all that is asked for, with one attribute of it
NOISE = 1.0  # standard deviation of what the order of a list goes by, beside the share of attributes that match
SPARE = 3  # so many times what is shown is drawn, since nothing is shown twice in one list

Taste = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Searches:
    """What was shown, a row per product, sessions in their order and each in the order of its list.

    session `[n]`: its number; items `[n]`; position `[n]`, from 0; match `[n]`: share of the attributes asked for that
    the product has. query `[sessions]`: rows of `texts`.
    """

    session: np.ndarray
    items: np.ndarray
    position: np.ndarray
    match: np.ndarray
    query: np.ndarray
    texts: list[str]


def search(
    codes: dict[str, np.ndarray],
    launched: np.ndarray,
    user: np.ndarray,
    when: np.ndarray,
    shown: int,
    taste: Taste,
    rng: np.random.Generator,
) -> Searches:
    """Searches of users at times, `[sessions]` each, that show at most `shown` products; fewer where there are fewer.

    codes, launched: of the products, see `Shop`. taste: users, items and times `[n]` -> what they feel, `[n]`.
    """
    popular = Popular(launched, rng)
    target = _liked(popular, user, when, taste, rng)
    table = np.stack([codes[name] for name in ATTRIBUTES], 1)
    forms = list(FORMS)
    wants = np.array([[f"{{{name}}}" in form for name in ATTRIBUTES] for form in forms])
    form = rng.choice(len(forms), size=len(user), p=np.array([*FORMS.values()]) / sum(FORMS.values()))
    bare = codes["badge"][target] == BADGES.index("none")
    form[bare & wants[form, ATTRIBUTES.index("badge")]] = WITHOUT_BADGE
    query, texts = _worded(forms, form, wants, table[target], rng)

    drawn = _drawn(popular, table, launched, target, wants, form, when, SPARE * shown, rng)
    kept = _first_distinct(drawn, shown)
    session, items = np.nonzero(kept)[0], drawn[kept]
    asked = wants[form][session]
    match = ((table[items] == table[target[session]]) & asked).sum(1) / asked.sum(1)
    order = np.lexsort((-(match + NOISE * rng.normal(size=len(match))), session))
    begin = np.r_[0, np.cumsum(np.bincount(session, minlength=len(user)))[:-1]]
    session, items, match = session[order], items[order], match[order]
    return Searches(session, items, np.arange(len(items)) - begin[session], match, query, texts)


def _liked(popular: Popular, user: np.ndarray, when: np.ndarray, taste: Taste, rng: np.random.Generator) -> np.ndarray:
    """The product that each search looks for, `[sessions]`."""
    found = np.stack([popular.draw(when, rng) for _ in range(LIKED_OF)], 1)
    felt = taste(np.repeat(user, LIKED_OF), found.ravel(), np.repeat(when, LIKED_OF)).reshape(found.shape)
    return found[np.arange(len(user)), felt.argmax(1)]


def _worded(
    forms: list[str], form: np.ndarray, wants: np.ndarray, values: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """The query of each search as a row of the texts, and these. values: of the product looked for, `[n, attributes]`;
    what is not asked for does not matter."""
    words = [[WORDINGS.get(name, {}).get(value, (value,)) for value in VALUES[name]] for name in ATTRIBUTES]
    several = np.array([max(map(len, of_each)) for of_each in words])
    chosen = rng.integers(several, size=values.shape)
    asked = wants[form]
    keys = np.concatenate([form[:, None], np.where(asked, values, -1), np.where(asked, chosen, -1)], 1)
    distinct, rows = np.unique(keys, axis=0, return_inverse=True)
    texts = []
    for which, *rest in distinct.tolist():
        said = zip(ATTRIBUTES, words, rest[: len(ATTRIBUTES)], rest[len(ATTRIBUTES) :], strict=True)
        texts.append(forms[which].format(**{name: of_each[v][c] for name, of_each, v, c in said if v >= 0}))
    return rows.reshape(-1), texts


def _drawn(
    popular: Popular,
    table: np.ndarray,
    launched: np.ndarray,
    target: np.ndarray,
    wants: np.ndarray,
    form: np.ndarray,
    when: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Products for each search, `[sessions, count]`: by chance with all that is asked for, with one attribute of it, or
    any."""
    shape = (len(target), count)
    found = popular.draw(np.repeat(when, count), rng).reshape(shape)
    kind, place = rng.random(shape), rng.random(shape)
    one = np.where(wants[form][:, None], rng.random((*shape, wants.shape[1])), -1.0).argmax(2)
    for which in range(len(wants)):
        rows = (form == which)[:, None] & (kind < ALL)
        _put(found, rows, np.flatnonzero(wants[which]), table, launched, target, when, place)
    for name in range(wants.shape[1]):
        rows = (one == name) & (kind >= ALL) & (kind < ALL + ONE)
        _put(found, rows, np.array([name]), table, launched, target, when, place)
    return found


def _put(
    found: np.ndarray,
    rows: np.ndarray,
    same: np.ndarray,
    table: np.ndarray,
    launched: np.ndarray,
    target: np.ndarray,
    when: np.ndarray,
    place: np.ndarray,
) -> None:
    """Into `found`, where `rows` holds, products that have the attributes `same` of the search's product and are there
    by then; which of them, `place` says. Of each there is one at least, the product itself."""
    sizes = tuple(len(VALUES[ATTRIBUTES[name]]) for name in same)
    key = np.ravel_multi_index(tuple(table[:, name] for name in same), sizes)
    span = int(max(launched.max(), when.max())) - START + 2
    keys = key * span + (launched - START)
    order = np.argsort(keys, kind="stable")
    session, _ = np.nonzero(rows)
    begin = np.searchsorted(keys[order], key[target[session]] * span)
    end = np.searchsorted(keys[order], key[target[session]] * span + (when[session] - START), side="right")
    found[rows] = order[begin + (place[rows] * (end - begin)).astype(np.int64)]


def _first_distinct(values: np.ndarray, most: int) -> np.ndarray:
    """Where the first `most` distinct values of each row stand, bool as `values` `[n, m]`."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, 1)
    new = np.ones(values.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty(values.shape, bool)
    np.put_along_axis(first, order, new, 1)
    return first & (np.cumsum(first, 1) <= most)
