"""When versions are made, and which of them are served: every gate keeps back a version that was made bad for it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from kill_points import killed_everywhere
from rawrec.config.online import OnlineConfig
from rawrec.data.dataset import Dataset
from rawrec.errors import RunInterrupted, UserError
from rawrec.stream import gate, publishing
from rawrec.stream.online import load_version, online
from rawrec.stream.publishing import Publisher
from rawrec.stream.sqlite import SqliteLog
from rawrec.stream.trainer import Trainer
from rawrec.stream.versions import listed
from rawrec.training.runs import RunFolder
from streams import SETTINGS, check_same, events_of, state_of, write

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks

NOT_BY_STEPS = {"publish_every": None}


@pytest.fixture
def url(data: Dataset, tmp_path: Path) -> str:
    url = f"sqlite:{tmp_path / 'events.db'}"
    write(url, events_of(data, 30))
    return url


def names(out: Path) -> list[str]:
    return [one.name for one in listed(out).versions]


def of_versions(out: Path) -> list[tuple[str, dict[str, str], str | None]]:
    return [(one.name, one.files, one.refused) for one in listed(out).versions]


# ----------------------------------------------------------------------------------------------------------------- when
def test_seconds_are_the_events_own_where_a_log_is_read_to_a_position(
    copied: Callable[..., Path], url: str, data: Dataset, tmp_path: Path
) -> None:
    one, pieces = copied("id", "one"), copied("id", "pieces")
    settings = SETTINGS | NOT_BY_STEPS | {"publish_seconds": 200.0}
    online(one, log=url, until="end", settings=settings, publish=tmp_path / "out", data=data)
    found = listed(tmp_path / "out").versions
    times = [version.watermark or 0.0 for version in found]
    assert len(found) > 3 and all(b - a >= 200 for a, b in pairwise(times[:-1]))
    for until in (9, 40, "end"):
        online(pieces, log=url, until=until, settings=settings, publish=tmp_path / "other", data=data)
    assert set(names(tmp_path / "out")) <= set(names(tmp_path / "other"))  # which has those of the ends of pieces, too
    check_same(one, pieces)


def test_a_clock_says_when_and_changes_nothing_that_is_trained(
    copied: Callable[..., Path], url: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who follows a log. The clock here jumps by a second whenever it is asked."""
    clocked, quiet = copied("id", "clocked"), copied("id", "quiet")
    settings = SETTINGS | NOT_BY_STEPS | {"publish_seconds": 11.0}
    ticks = iter(range(10_000))

    class Clock:
        monotonic = staticmethod(lambda: float(next(ticks)))

    monkeypatch.setattr(publishing, "time", Clock)
    monkeypatch.setattr(SqliteLog, "wait", lambda self, after, seconds: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(RunInterrupted):
        online(clocked, log=url, settings=settings, publish=tmp_path / "out", data=data)
    made = names(tmp_path / "out")
    assert len(made) > 3 and len({int(name[:9]) for name in made}) > 2
    online(quiet, log=url, until="end", settings=settings, data=data)
    check_same(clocked, quiet)


def test_killed_at_any_operation_the_same_versions_are_there_in_the_end(
    copied: Callable[..., Path], url: str, data: Dataset, tmp_path: Path
) -> None:
    whole, killed = copied("id", "whole"), copied("id", "killed")
    settings = SETTINGS | {
        "wait": 5.0,
        "batch_size": 8,
        "window": 8,
        "publish_every": 2,
        "checkpoint_every": 3,
        "canaries": 2,
    }
    go = {"log": url, "until": 24, "settings": settings, "data": data}
    online(whole, **go, publish=tmp_path / "one")
    expected, kills = of_versions(tmp_path / "one"), 0
    assert len(expected) > 2
    for _ in killed_everywhere(lambda: online(killed, **go, publish=tmp_path / "two"), every=5):
        kills += 1
        online(killed, **go, publish=tmp_path / "two")
        assert of_versions(tmp_path / "two") == expected
        assert listed(tmp_path / "two").current == expected[-1][0]
        check_same(whole, killed)
        shutil.rmtree(killed / "online")
        shutil.rmtree(tmp_path / "two")
    assert kills > 8


def test_a_stream_that_begins_anew_needs_a_folder_of_its_own(
    copied: Callable[..., Path], url: str, data: Dataset, tmp_path: Path
) -> None:
    run = copied("id", "run")
    online(run, log=url, until=9, settings=SETTINGS, publish=tmp_path / "out", data=data)
    shutil.rmtree(run / "online")
    with pytest.raises(UserError, match="versions of an earlier stream"):
        online(run, log=url, until=9, settings=SETTINGS, publish=tmp_path / "out", data=data)


# ---------------------------------------------------------------------------------------------------------------- gates
def trained(run: Path, url: str, data: Dataset, out: Path, **more: Any) -> Trainer:
    """With one version that is served."""
    online(run, log=url, until=40, settings=SETTINGS | more, publish=out, data=data)
    trainer = Trainer(RunFolder.open(run), run / "online", {}, data)
    trainer.publisher = Publisher(out, trainer)
    assert listed(out).current == names(out)[-1]
    trainer.counts["taken"] += 1  # as if there had been an event, so that the next one has another name
    return trainer


def spoil_values(trainer: Trainer) -> str:
    with torch.no_grad():
        trainer.task.ranker.inputs.ids.item.weight[3, 0] = float("inf")
    return "no numbers"


def spoil_answers(trainer: Trainer) -> str:
    """What is written is not what the trainer answers by."""
    state = trainer.task.serving_state

    def spoilt(*args: Any) -> Any:
        tensors, answers = state(*args)
        name = next(name for name in tensors if name.endswith("ids.item.weight"))
        return tensors | {name: tensors[name] + 1.0}, answers

    trainer.task.serving_state = spoilt  # type: ignore[method-assign]
    return "canary: user "


def spoil_calibration(trainer: Trainer) -> str:
    off = trainer.judged.last["pcoc"]
    trainer.judged.last = trainer.judged.last | {"pcoc": 3 * max(off, 1 / off)}
    return "calibration: "


def spoil_calibration_downwards(trainer: Trainer) -> str:
    spoil_calibration(trainer)
    trainer.judged.last["pcoc"] = 1 / trainer.judged.last["pcoc"]
    return "calibration: "


def spoil_loss(trainer: Trainer) -> str:
    trainer.judged.last = trainer.judged.last | {"logloss": 3.0}
    return "loss: "


@pytest.mark.parametrize(
    "spoil", [spoil_values, spoil_answers, spoil_calibration, spoil_calibration_downwards, spoil_loss]
)
def test_a_bad_version_is_kept_aside_with_its_reason(
    spoil: Callable[[Trainer], str], copied: Callable[..., Path], url: str, data: Dataset, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", list[str]()
    trainer = trained(copied("id", "run"), url, data, out)
    served = listed(out).current
    reason = spoil(trainer)
    trainer.observe = lambda event, **values: told.append(values["text"]) if event == "note" else None
    assert isinstance(trainer.publisher, Publisher)
    bad = trainer.publisher.publish()
    assert bad is not None and bad.refused is not None and reason in bad.refused
    assert trainer.publisher.refused == 1
    assert told == [f"version {bad.name} is kept, and not served: {bad.refused}"] and "\n" not in told[0]
    found = listed(out)
    assert found.current == served and found.versions[-1].refused == bad.refused
    assert load_version(out, data=data)[0].name == served


def test_gates_can_be_opened(copied: Callable[..., Path], url: str, data: Dataset, tmp_path: Path) -> None:
    trainer = trained(copied("id", "run"), url, data, tmp_path / "out", gate_pcoc=None, gate_loss=None, canaries=0)
    for spoil in (spoil_answers, spoil_calibration, spoil_loss):
        spoil(trainer)
    assert isinstance(trainer.publisher, Publisher)
    found = trainer.publisher.publish()
    assert found is not None and found.refused is None and listed(tmp_path / "out").current == found.name


def test_bounds_are_relative_to_what_is_served() -> None:
    cfg = OnlineConfig(gate_pcoc=1.0, gate_loss=0.5)
    good = {"pcoc": 0.8, "logloss": 0.3, "positive": 0.1}
    assert gate.worse(good, {}, cfg) is None and gate.worse({}, good, cfg) is None
    assert gate.worse(good | {"pcoc": 2.4}, good, cfg) is None  # 1.25 off, of which twice is 2.5
    assert "calibration" in (gate.worse(good | {"pcoc": 2.6}, good, cfg) or "")
    assert gate.worse(good | {"pcoc": 0.41}, good, cfg) is None
    assert "calibration" in (gate.worse(good | {"pcoc": 0.39}, good, cfg) or "")
    assert gate.worse(good | {"logloss": 0.44}, good, cfg) is None
    assert "loss" in (gate.worse(good | {"logloss": 0.46}, good, cfg) or "")
    # Ten times as many positives have a larger logloss by themselves.
    assert gate.worse(good | {"logloss": 0.69, "positive": 0.5}, good, cfg) is None
    assert gate.normalised({"logloss": 0.5, "positive": 0.0}) is None


def test_who_loads_a_version_asks_it_again(
    copied: Callable[..., Path], url: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(copied("id", "run"), url, data, tmp_path / "out")
    load_version(tmp_path / "out", data=data)
    monkeypatch.setattr(gate, "answers", lambda task, asked: [(one.probability or 0.0) + 0.01 for one in asked])
    with pytest.raises(UserError, match="answers otherwise than its trainer did"):
        load_version(tmp_path / "out", data=data)


def test_canaries_are_of_what_came_last_and_of_the_dataset(
    copied: Callable[..., Path], url: str, data: Dataset, tmp_path: Path
) -> None:
    trainer = trained(copied("id", "run"), url, data, tmp_path / "out")
    asked = gate.canaries(trainer.task, 6, 0.0)
    assert asked == gate.canaries(trainer.task, 6, 0.0) and len(asked) == 6
    latest = list(trainer.task.items)[-1]
    assert latest not in set(data.item_ids.tolist()) and asked[0].item == latest
    assert any(one.history for one in asked) and sum(one.item in set(data.item_ids.tolist()) for one in asked) >= 3
    assert state_of(tmp_path / "run")[1]["marks"]["step"] >= 0


def test_a_folder_that_is_further_is_told_of_once_and_stays(
    copied: Callable[..., Path], url: str, data: Dataset, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", list[str]()
    trainer = trained(copied("id", "run"), url, data, out)
    before = names(out)
    trainer.counts["taken"] -= 30
    trainer.observe = lambda event, **values: told.append(values["text"]) if event == "note" else None
    assert isinstance(trainer.publisher, Publisher)
    assert trainer.publisher.publish() is None and trainer.publisher.publish() is None
    assert len(told) == 1 and "further" in told[0] and names(out) == before
