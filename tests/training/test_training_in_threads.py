"""Training beside other threads of its process: what it makes is what it makes alone, and nothing of it stays."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from rawrec import Recommender, UserError, evaluate, resume, train
from rawrec.randomness import drawing, seeded
from systems import TIMES, settings

DROPPING: dict[str, Any] = {"train__epochs": 2, "model__dropout": 0.3, "content__fusion__dropout": 0.3}


def bytes_of(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("model.safetensors", "metrics.json", "scores.parquet")}


def test_recommenders_are_loaded_and_asked_meanwhile(shop: Path, tmp_path: Path) -> None:
    alone = train(settings(**DROPPING), shop, tmp_path / "alone").path
    done, errors, made = threading.Event(), list[BaseException](), list[bool]()
    item = {"title": "a red mug"}
    expected = Recommender.load(alone).score(None, [item], history=[])

    def use() -> None:
        try:
            while not done.is_set():
                made.append(Recommender.load(alone).score(None, [item], history=[]) == expected)
        except BaseException as error:
            errors.append(error)

    users = [threading.Thread(target=use) for _ in range(1)]
    for user in users:
        user.start()
    try:
        beside = train(settings(**DROPPING), shop, tmp_path / "beside").path
    finally:
        done.set()
        for user in users:
            user.join()
    assert not errors and made and all(made)
    assert bytes_of(beside) == bytes_of(alone)
    assert evaluate(beside, "valid")["auc"] == evaluate(alone, "valid")["auc"]


def test_one_thread_trains_at_a_time(shop: Path, tmp_path: Path) -> None:
    """Another one hears so at once, and leaves no folder; in the same thread a run may start another one."""
    heard: list[str] = []
    inner = settings(train__epochs=1)

    def other() -> None:
        for again in (lambda: train(inner, shop, tmp_path / "other"), lambda: resume(tmp_path / "run")):
            with pytest.raises(UserError, match="another thread of this process is training now") as caught:
                again()
            heard.append(str(caught.value))

    def observe(event: str, **values: Any) -> None:
        if event == "step" and not heard:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            train(inner, shop, tmp_path / "inner")

    path = train(settings(**DROPPING), shop, tmp_path / "run", observer=observe).path
    assert len(heard) == 2 and not (tmp_path / "other").exists()
    alone = train(settings(**DROPPING), shop, tmp_path / "alone").path
    assert bytes_of(path) == bytes_of(alone)
    assert bytes_of(tmp_path / "inner") == bytes_of(train(inner, shop, tmp_path / "again").path)


def test_no_thread_and_no_file_stays_open(shop: Path, tmp_path: Path) -> None:
    def stopping(event: str, **values: Any) -> None:
        if event == "validated":
            raise KeyboardInterrupt

    train(settings(train__epochs=1), shop, tmp_path / "first")  # what libraries start once
    before = set(threading.enumerate())
    train(settings(train__epochs=1), shop, tmp_path / "second")
    with pytest.raises(KeyboardInterrupt):
        train(settings(train__epochs=2), shop, tmp_path / "third", observer=stopping)
    resume(tmp_path / "third")
    assert set(threading.enumerate()) <= before
    held = {Path("/proc/self/fd", name.name).resolve() for name in Path("/proc/self/fd").iterdir()}
    assert not [path for path in held if tmp_path in path.parents and path.parent.name == "tensorboard"]
    lines = (tmp_path / "third" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 and all(name in lines[0] for name in TIMES)


def test_draws_take_turns() -> None:
    """Inside, numbers are those of the seed, though others draw as often as they can."""
    done, found = threading.Event(), list[torch.Tensor]()

    def draw() -> None:
        while not done.is_set():
            with seeded(5):
                found.append(torch.stack([torch.rand(()) for _ in range(5)]))

    others = [threading.Thread(target=draw) for _ in range(3)]
    for other in others:
        other.start()
    values = []
    for _ in range(50):
        with drawing():
            torch.manual_seed(3)
            values.append([float(torch.rand(())) for _ in range(10)])
            with seeded(5):
                found.append(torch.stack([torch.rand(()) for _ in range(5)]))
    done.set()
    for other in others:
        other.join()
    assert all(one == values[0] for one in values)
    assert all(torch.equal(one, found[0]) for one in found)
