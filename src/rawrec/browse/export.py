"""The page as one file that opens from the disk: the answers for a sample of users and items stand in it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawrec.browse import shell
from rawrec.browse.points import points
from rawrec.browse.view import View, Wish
from rawrec.errors import UserError
from rawrec.files import write_text
from rawrec.report.page import source_hash
from rawrec.report.pictures import Tiles
from rawrec.training.evaluate import teller

NAME = "index.html"
ROOM = 12_000_000
"""Characters that the pictures may take: where they would take more they are made smaller."""

Answer = dict[str, Any]


@dataclass
class Exported:
    """The file, and how much is in it."""

    path: Path
    users: int
    items: int
    size: int


def export_page(
    view: View, folder: Path, users: int = 50, items: int = 500, observer: Callable[..., None] | None = None
) -> Exported:
    """Write `index.html` into `folder`: of `users` users, drawn once, those first of whom it is known what came next,
    their lists and reasons; of `items` items (those of the lists, a fifth cold ones, then the most popular and some
    drawn) their neighbours and places on the map. observer: told how many answers are made, as that of `rawrec.train`.

    Raises UserError where the folder is no folder, or inside of the run or its dataset.
    """
    rec, target = view.recs[0], folder / NAME
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--export {folder} is a file: give a folder")
    for one in view.recs:
        one.run.check_export(target, one.data)
    names = [str(view.people.data.user_ids[row]) for row in view.people.drawn(users)]
    ways = [(of, by) for of, one in enumerate(view.recs) for by in one.ways()]
    count = len(names) * (1 + 2 * len(view.recs)) + min(items, rec.n_items) * (1 + len(ways))
    made = _Answers(view, (lambda _: None) if observer is None else teller(observer, "answers", count))
    made.users(names)
    rows = _sample(view, items, made.named)
    ids = [rec.item_ids[row] for row in rows.tolist()]
    made.items(ids, ways)
    data = {
        "about": _about(view, len(names), ids, made.facts),
        "users": view.people.counts(names),
        "items": view.facts[0].by_popularity(ids),
        "answers": made.found,
        "facts": made.facts,
        "map": _map(view, rows),
        "pictures": _pictures(view, made.facts),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = page_of(data)
    write_text(target, text)
    return Exported(target, len(names), len(ids), len(text))


class _Answers:
    """Answers by what was asked, as `browse-base.js` looks for them; facts of all items that they name."""

    def __init__(self, view: View, tell: Callable[[int], None]) -> None:
        self.view, self.tell = view, tell
        self.found: dict[str, dict[str, Answer]] = {"user": {}, "list": {}, "item": {}, "near": {}}
        self.facts: dict[str, Answer] = {}

    @property
    def named(self) -> list[str]:
        """The items that answers have named so far."""
        return list(self.facts)

    def users(self, names: list[str]) -> None:
        for user in names:
            self._keep("user", user, lambda user=user: self.view.user(user))
            for of in range(len(self.view.recs)):
                for until in ("train", "now"):
                    wish = Wish(user, until=until)
                    self._keep("list", f"{of} {until} {user}", lambda wish=wish, of=of: self.view.list(wish, of))

    def items(self, ids: list[str], ways: list[tuple[int, str]]) -> None:
        for item in ids:
            self._keep("item", item, lambda item=item: self.view.item(item))
            for of, by in ways:
                self._keep("near", f"{of} {by} {item}", lambda item=item, of=of, by=by: self.view.near(item, by, of))

    def _keep(self, kind: str, key: str, ask: Callable[[], Answer]) -> None:
        answer: Answer
        try:
            answer = ask()
        except UserError as error:
            answer = {"error": str(error)}
        named: dict[str, Answer] = answer.pop("facts", {})
        self.facts |= named
        self.found[kind][key] = answer
        self.tell(1)


def _sample(view: View, items: int, named: list[str]) -> NDArray[np.int64]:
    """Rows of the items that are exported, in the order of the catalogue."""
    rec, facts = view.recs[0], view.facts[0]
    if rec.n_items <= items:
        return np.arange(rec.n_items)
    places = rec.places(named)
    drawn = np.random.default_rng(0).permutation(rec.n_items)
    cold = drawn[facts.bucket_rows("cold")[drawn]][: items // 5]
    popular = np.argsort(-facts.train, kind="stable")[: items // 5]
    order = np.concatenate([cold, places[places >= 0], popular, drawn])
    _, first = np.unique(order, return_index=True)
    return np.sort(order[np.sort(first)][:items])


def _about(view: View, users: int, ids: list[str], facts: dict[str, Answer]) -> Answer:
    about, items = view.about(), len(ids)
    buckets = Counter(facts[item]["bucket"] for item in ids)
    day = time.strftime("%Y-%m-%d", time.gmtime())
    sample = (
        f"An exported page, of {day}: {users:,} of {about['users']:,} users and {items:,} of {about['items']:,} items. "
        "Filters, other histories and new items ask the model: rawrec browse."
    )
    return about | {"sample": sample, "columns": [], "buckets": {name: buckets[name] for name in about["buckets"]}}


def _map(view: View, rows: NDArray[np.int64]) -> Answer:
    try:
        return points(view.facts[0], rows)
    except UserError as error:
        return {"error": str(error)}


def _pictures(view: View, named: dict[str, Answer]) -> dict[str, str]:
    """Pictures as data, by id."""
    found: dict[str, str] = {}
    for rec, facts in zip(view.recs, view.facts, strict=True):
        ids = [item for item in named if item not in found and named[item]["picture"] and item in rec]
        places = dict(zip(ids, rec.places(ids).tolist(), strict=True))
        own = {item: row for item, row in places.items() if row < facts.data.n_items}
        tiles = Tiles(facts.data, own.values(), ROOM // len(view.recs))
        for item, row in own.items():
            picture = tiles.tile(row).picture
            if picture is not None:
                found[item] = picture.uri
    return found


def page_of(data: Answer) -> str:
    """The page with its data. It may run its own scripts alone, which it names by their hashes, and fetch nothing."""
    styles = [f"\n{shell.text_of(name).strip()}\n" for name in shell.STYLES]
    scripts = [f"\n{shell.text_of(name).strip()}\n" for name in shell.SCRIPTS]
    named = {kind: " ".join(f"'{source_hash(text)}'" for text in all_)
             for kind, all_ in (("script", scripts), ("style", styles))}  # fmt: skip
    policy = (
        f"default-src 'none'; img-src data:; style-src {named['style']}; script-src {named['script']}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    head += "\n".join(f"<style>{text}</style>" for text in styles)
    block = f'<script type="application/json" id="data">{plain_json(data)}</script>\n'
    body = block + "\n".join(f"<script>{text}</script>" for text in scripts)
    page, _, rest = shell.text_of("browse.html").partition("<!-- head -->")
    middle, _, end = rest.partition("<!-- data -->")
    return page + head + middle + body + end


def plain_json(value: Any) -> str:
    """JSON that is text and nothing else in a page, whatever others have written into it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
