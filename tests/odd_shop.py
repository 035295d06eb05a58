"""A shop of 48 items with pictures and words, some of whose ids and titles a page must never take for markup."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

import rawrec
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter

ITEMS, USERS, PLAIN = 48, 14, 40
MARKUP = "</script><img src=x onerror=document.title='taken'>/../?&#%2F"
CHINESE, ARABIC, EMOJI = "商品一号", "مصباح أحمر", "🦄🪔👩‍👩‍👧 <b>bold</b>"
LONG = "long" * 75
TURNED = "\u202etxet denrut\u2066 \x1b[31mred\x07"
SIGNS = "a,b \"c\" 'd' `e` \\ ${f}"
STRANGE = {
    MARKUP: MARKUP,
    CHINESE: "红色的灯",
    ARABIC: ARABIC,
    EMOJI: EMOJI,
    LONG: "word " * 400,
    TURNED: TURNED,
    SIGNS: SIGNS,
}
COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 70, 200)}
QUICK = {
    "train.epochs": 1, "train.threads": 1, "train.precision": "fp32", "eval.topk": [20], "paradigm": "frozen",
    "content.photo.encoder": "random:conv", "content.photo.size": 32, "content.title.encoder": "random:bert",
}  # fmt: skip


def odd_shop(out: Path) -> Dataset:
    """Items i0 to i39 have a kind, a brand, a price, a title with a colour and a picture of it, which every seventh
    lacks; then come those of STRANGE, without pictures, and one without anything. Users u0 to u12, one with markup for
    an id, and `quiet`, who took nothing before the run is judged. The last ten items are in no training row."""
    rng = np.random.default_rng(0)
    ids = [f"i{k}" for k in range(PLAIN)] + list(STRANGE) + ["bare"]
    colours = [list(COLOURS)[k % 3] for k in range(PLAIN)]
    titles = [f"Item {k} in {colour}" for k, colour in enumerate(colours)] + list(STRANGE.values()) + [None]
    kinds = ["lamp", "chair", "mug", MARKUP]
    fields = Fields(image=["photo"], text=["title"], categorical=["kind", "brand"], numeric=["price"])
    writer = DatasetWriter(out, fields=fields, source="test", labels=["label"], has_time=True)
    with writer:
        writer.add_items(
            {
                "item_id": ids,
                "photo": [[] if k % 7 == 6 or k >= PLAIN else [_picture(COLOURS[colours[k]], k)] for k in range(ITEMS)],
                "title": [[title] if title else [] for title in titles],
                "kind": [[kinds[k % 4]] for k in range(ITEMS)],
                "brand": [[f"b{k % 5}"] for k in range(ITEMS)],
                "price": [float(k) if k < PLAIN else None for k in range(ITEMS)],
            }
        )
        names = [f"u{u}" for u in range(USERS - 1)] + [MARKUP]
        early = [(u, int(i), t) for u in range(USERS) for t, i in enumerate(rng.permutation(ITEMS - 10)[:16])]
        late = [(u, int(i), 100 + t) for u in range(USERS) for t, i in enumerate(rng.permutation(ITEMS)[:4])]
        users = [names[u] for u, _, _ in early + late] + ["quiet"]
        items = [ids[i] for _, i, _ in early + late] + ["i3"]
        times = [t for _, _, t in early + late] + [101]
        labels = [float(rng.random() < 0.6) for _ in early] + [float(t % 2) for _, _, t in late] + [1.0]
        writer.add_interactions(
            {
                "user_id": users,
                "item_id": items,
                "timestamp": [1_700_000_000 + 86_400 * t for t in times],
                "label": labels,
            }
        )
        return writer.finish(SplitSpec(kind="time_global", ratios=(0.79, 0.1, 0.11)), ImportReport(source="test"))


def odd_runs(folder: Path) -> dict[str, Path]:
    """Finished runs of `em3`, `bpr` and `id` on it."""
    data = odd_shop(folder / "data")
    small = {"train.epochs": 1, "train.threads": 1, "eval.topk": [20]}
    em3 = QUICK | {"model.columns": ["kind", "price"], "content.dim": 8, "model.dim": 8}
    settings = {"em3": em3, "bpr": small, "id": small | {"model.dim": 8}}
    return {name: rawrec.train(name, data, folder / name, own, progress=False).path for name, own in settings.items()}


def _picture(colour: tuple[int, int, int], number: int) -> bytes:
    image = Image.new("RGB", (80, 60), colour)
    image.paste((250, 250, 250), (number, 10, number + 30, 40))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
