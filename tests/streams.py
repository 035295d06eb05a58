"""Runs that streams go on from, and streams of events with all that can come."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rawrec import train
from rawrec.data.dataset import Dataset
from rawrec.stream import saved
from rawrec.stream.events import Acted, Event, Gone, Item, Picture, Shown, write_event
from rawrec.stream.log import Entry, open_log
from rawrec.stream.online import online
from systems import FAST

TABLES = ("model.dim", "model.hidden", "data.history", "train.batch_size", "train.epochs", "train.threads")
BEGIN = 1_800_000_000.0
SETTINGS: dict[str, Any] = {"wait": 50.0, "batch_size": 16, "window": 60, "checkpoint_every": 3}


def small_run(out: Path, data: Dataset, kind: str) -> Path:
    """A run of one epoch: `id`, or em3 under a paradigm."""
    given = {name: value for name, value in FAST.items() if kind != "id" or name in TABLES} | {"train.epochs": 1}
    given.pop("model.name", None)
    if kind in ("hybrid", "frozen"):
        given = {name: value for name, value in given.items() if name.split(".")[-1] not in ("train", "precision")}
    if kind != "id":
        given["paradigm"] = kind
    return train("id" if kind == "id" else "em3", data, out, given).path


def picture(seed: int) -> bytes:
    """A PNG of noise."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def events_of(data: Dataset, requests: int, seed: int = 0) -> list[Event]:
    """Requests of known and new users for known and new items, clicks in time, late and for nothing; items that come
    with pictures, change and go. Producers number what they append."""
    rng, found, number, time = np.random.default_rng(seed), list[Event](), 0, BEGIN
    items, users = [str(i) for i in data.item_ids[:20]], [str(u) for u in data.user_ids[:6]] + ["new1", "new2"]
    image, text = data.fields.image[:1], data.fields.text[:1]

    def add(kind: Callable[..., Event], **values: Any) -> None:
        nonlocal number
        found.append(kind(producer="shop", sequence=number, time=time, **values))
        number += 1

    for n in range(requests):
        time += float(rng.integers(1, 10))
        if n % 12 == 5:
            fresh = f"fresh{n}"
            pictures = {name: [Picture(data=picture(n))] for name in image}
            add(Item, item=fresh, fields=dict.fromkeys(text, f"a new thing {n}"), pictures=pictures)
            items.append(fresh)
        if n % 12 == 9:
            add(Item, item=items[-1], fields=dict.fromkeys(text, "changed"))
            add(Gone, item=items[int(rng.integers(20))])
        shown = [items[k] for k in rng.choice(len(items), 4, replace=False)] + ([f"odd{n}"] if n % 10 == 3 else [])
        request, user = f"r{n}", str(rng.choice(users))
        add(Shown, request=request, items=shown, user=user, scores=[0.5] * len(shown) if n % 2 else None)
        if rng.random() < 0.6:
            time += float(rng.integers(0, 80))
            add(Acted, request=request, item=str(rng.choice(shown)))
        if n % 9 == 4:
            add(Acted, request="never", item="i", user=user)
    return found


def write(url: str, events: list[Event], strange: bool = True) -> int:
    """Append them, and between them what is no event; where the log ends then."""
    with open_log(url) as log:
        entries = [Entry(event.producer, event.sequence, write_event(event)) for event in events]
        if strange:
            entries[7:7] = [Entry("bad", 0, b"\xff"), Entry("bad", 1, b'{"kind": "shown"}')]
        log.append_raw(entries)
        return log.end()


def state_of(run: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """All that a stream's trainer is: tensors, as bytes, plain values, lines of metrics."""
    found = saved.load(run / "online" / "checkpoint", _run_of(run))
    assert found is not None
    tensors = {name: (tuple(t.shape), t.contiguous().numpy().tobytes()) for name, t in found[0].items()}
    return tensors, found[1], (run / "online" / "metrics.jsonl").read_text()


def _run_of(run: Path) -> str:
    from rawrec.training.runs import RunFolder

    return RunFolder.open(run).info()["files"]["model.safetensors"]


def check_same(one: Path, other: Path) -> None:
    """Two runs went on to the same state, to the bit."""
    (tensors, plain, lines), (tensors_, plain_, lines_) = state_of(one), state_of(other)
    assert tensors.keys() == tensors_.keys()
    assert [name for name in tensors if tensors[name] != tensors_[name]] == []
    assert {k: v for k, v in plain.items() if plain_[k] != v} == {}
    assert lines == lines_


def go_on(run: Path, url: str, until: int | str = "end", **more: Any) -> dict[str, Any]:
    data = more.pop("data", None)
    return online(run, log=url, until=until, settings=SETTINGS | more, data=data)
