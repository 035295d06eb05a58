"""A run goes on with a stream: each event is trained once, whatever kills it, and items are there when they come."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from kill_points import killed_everywhere
from rawrec.data.dataset import Dataset
from rawrec.errors import RunInterrupted, UserError
from rawrec.files import alone
from rawrec.stream.events import Acted, Gone, Item, Picture, Shown
from rawrec.stream.joiner import Sample
from rawrec.stream.log import Letter, open_log
from rawrec.stream.online import online
from rawrec.stream.sqlite import SqliteLog
from rawrec.stream.trainer import Trainer
from rawrec.training.job import load_task
from rawrec.training.runs import RunFolder
from streams import BEGIN, SETTINGS, check_same, events_of, go_on, picture, state_of, write

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'events.db'}"


def trainer_of(run: Path, **given: Any) -> Trainer:
    (run / "online").mkdir(exist_ok=True)
    return Trainer(RunFolder.open(run), run / "online", SETTINGS | given)


def sample(user: str, item: str, time: float, label: float = 1.0, history: list[str] | None = None) -> Sample:
    return Sample(user, item, history or [], time, label)


# ------------------------------------------------------------------------------------------------------ as offline
@pytest.mark.parametrize("kind", ["id", "hybrid"])
def test_a_batch_is_what_training_makes_of_the_same_impressions(
    kind: str, copied: Callable[..., Path], data: Dataset
) -> None:
    run = RunFolder.open(copied(kind))
    made = trainer_of(run.path)
    offline = load_task(run)
    rows = offline.samples.rows(0)[-40:]
    expected = offline.batch(rows, 0, 0)
    history = [[str(data.item_ids[i]) for i in own if i >= 0] for own in expected.history.tolist()]
    users, items, times = data.user_ids[data.users], data.item_ids[data.items], data.timestamps
    assert times is not None
    samples = [
        Sample(str(users[row]), str(items[row]), own, float(times[row]), label)
        for row, own, label in zip(rows, history, expected.labels[:, 0].tolist(), strict=True)
    ]
    found = made.task.batch(samples, 0, 0)
    for name in ("users", "items", "history", "labels"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    before = made.task.predict(samples, [one.item for one in samples])
    at = np.asarray(offline.score_impressions(expected.sample, 0))[:, 0]
    np.testing.assert_allclose(before, at, atol=2e-6)


def test_a_table_is_read_in_time_order_and_to_its_end(
    copied: Callable[..., Path], data: Dataset, tmp_path: Path
) -> None:
    rows = np.flatnonzero(data.split("default") > 0)
    table = pl.DataFrame(
        {
            "user_id": data.user_ids[data.users[rows]],
            "item_id": data.item_ids[data.items[rows]],
            "timestamp": data.timestamps[rows],
            "label": data.binary("label")[rows],
        }
    )
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=1).sort("timestamp", maintain_order=True)
    one, other = copied("id", "one"), copied("id", "other")
    table.sort("timestamp", maintain_order=True).write_parquet(tmp_path / "clicks.parquet")
    table.sample(fraction=1.0, shuffle=True, seed=1).write_csv(tmp_path / "clicks.csv")
    found = online(one, events=tmp_path / "clicks.parquet", settings=SETTINGS)
    assert "future" not in found["counts"]
    assert found["counts"]["trained"] == len(table) and found["waiting"] == found["ready"] == 0
    lines = [json.loads(line) for line in (one / "online" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["judged"] == len(table) and {"auc", "gauc", "logloss", "ece", "pcoc"} <= lines[0].keys()
    other_found = online(other, events=tmp_path / "clicks.csv", settings=SETTINGS)
    assert other_found["counts"] == found["counts"] and other_found["step"] == found["step"]
    before = state_of(one)
    online(one, events=tmp_path / "clicks.parquet")  # once more: nothing is trained twice
    assert state_of(one) == before
    assert len(shuffled) == len(table)


def test_predictions_come_before_what_they_are_judged_by(copied: Callable[..., Path]) -> None:
    """The first window is judged by the run's own weights: nothing of it has been learned."""
    made = trainer_of(copied("id"), batch_size=8, window=8)
    item, users = next(iter(made.task.items)), list(made.task.users)[:8]
    shown = [
        Shown(producer="p", sequence=n, time=BEGIN + n, request=f"r{n}", items=[item], user=user, labels=[n % 2])
        for n, user in enumerate(users)
    ]
    expected = made.task.predict([sample(user, item, BEGIN + n) for n, user in enumerate(users)], [item] * 8)
    histories = [made.past.at(user, BEGIN + n) for n, user in enumerate(users)]
    assert any(histories)
    expected = made.task.predict(
        [sample(user, item, BEGIN, history=own) for user, own in zip(users, histories, strict=True)], [item] * 8
    )
    judged = []
    made.judged.add = lambda found: judged.extend(found.predicted or [])  # type: ignore[method-assign]
    for event in shown:
        made.take(_Record(event))
        made.train_ready()
    assert judged == expected and made.counts["trained"] == 8
    after = made.task.predict([sample(user, item, BEGIN) for user in users], [item] * 8)
    assert after != expected


class _Record:
    def __init__(self, event: Any) -> None:
        self.event, self.producer, self.sequence, self.position = event, event.producer, event.sequence, 0


# ----------------------------------------------------------------------------------------------------- exactly once
@pytest.mark.parametrize("late", ["wait", "fake_negative", "elapsed"])
def test_a_stream_in_pieces_is_the_stream_in_one(
    late: str, copied: Callable[..., Path], data: Dataset, url: str
) -> None:
    end = write(url, events_of(data, 60))
    whole, pieces = copied("id", "whole"), copied("id", "pieces")
    found = go_on(whole, url, late=late, elapsed=5.0) if late == "elapsed" else go_on(whole, url, late=late)
    assert found["counts"]["trained"] > 100 and found["counts"]["dead"] == 2
    for until in (1, 9, 10, 40, 77, end):
        go_on(pieces, url, until, late=late, **({"elapsed": 5.0} if late == "elapsed" else {}))
    check_same(whole, pieces)


def test_what_is_ready_does_not_wait_for_a_batch(copied: Callable[..., Path], data: Dataset, url: str) -> None:
    end = write(url, events_of(data, 30))
    whole, pieces, full = copied("id", "whole"), copied("id", "pieces"), copied("id", "full")
    given: dict[str, Any] = {"batch_size": 40, "every": 15.0}
    found = go_on(whole, url, **given)
    for until in (9, 10, 31, end):
        go_on(pieces, url, until, **given)
    check_same(whole, pieces)
    waiting = go_on(full, url, batch_size=40)
    assert found["step"] > waiting["step"] and found["counts"]["trained"] > waiting["counts"]["trained"]


@pytest.mark.parametrize("kind", ["frozen", "hybrid", "end_to_end"])
def test_content_goes_on_where_it_stood(kind: str, copied: Callable[..., Path], data: Dataset, url: str) -> None:
    end = write(url, events_of(data, 40))
    whole, pieces = copied(kind, "whole"), copied(kind, "pieces")
    found = go_on(whole, url)
    assert {"item", "gone", "new_items", "changed_items"} <= found["counts"].keys()
    for until in (12, 50, end):
        go_on(pieces, url, until)
    check_same(whole, pieces)
    tensors, plain, _ = state_of(whole)
    assert "fresh5" in plain["task"]["items"] and any(name.startswith("grown.put.") for name in tensors)


def test_killed_at_any_operation_on_files_it_comes_to_the_same_state(
    copied: Callable[..., Path], data: Dataset, url: str
) -> None:
    write(url, events_of(data, 16))
    whole, killed = copied("id", "whole"), copied("id", "killed")
    settings: dict[str, Any] = {"data": data, "checkpoint_every": 2, "window": 20}
    assert go_on(whole, url, **settings)["step"] > 4
    kills = 0
    for _ in killed_everywhere(lambda: go_on(killed, url, **settings)):
        kills += 1
        go_on(killed, url, **settings)
        check_same(whole, killed)
        shutil.rmtree(killed / "online")
    assert kills > 12


@pytest.mark.parametrize("step", [1, 4, 7])
def test_killed_between_two_checkpoints_it_comes_to_the_same_state(
    step: int, copied: Callable[..., Path], data: Dataset, url: str
) -> None:
    write(url, events_of(data, 40))
    whole, killed = copied("id", "whole"), copied("id", "killed")
    go_on(whole, url)
    process = os.fork()
    if not process:
        steps = []

        def observe(event: str, **values: Any) -> None:
            steps.append(event)
            if steps.count("online") == step:
                os._exit(9)

        online(killed, log=url, until="end", settings=SETTINGS, observer=observe, data=data)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    go_on(killed, url)
    check_same(whole, killed)


def test_a_signal_ends_it_between_two_events(copied: Callable[..., Path], data: Dataset, url: str) -> None:
    import signal

    write(url, events_of(data, 40))
    whole, ended = copied("id", "whole"), copied("id", "ended")
    go_on(whole, url)

    def observe(event: str, **values: Any) -> None:
        if event == "online" and values["samples"] == 32:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(RunInterrupted, match="the same command goes on"):
        online(ended, log=url, until="end", settings=SETTINGS, observer=observe)
    assert go_on(ended, url)["counts"]["trained"] > 32
    check_same(whole, ended)


def test_an_event_that_comes_twice_is_trained_once(copied: Callable[..., Path], data: Dataset, tmp_path: Path) -> None:
    """Another log, with the same events again at other positions, as one that keeps no ids has it."""
    events = events_of(data, 20)
    one, two = f"sqlite:{tmp_path / 'one.db'}", f"sqlite:{tmp_path / 'two.db'}"
    write(one, events, strange=False)
    write(two, events[10:], strange=False)
    run = copied("id")
    before = go_on(run, one)
    after = go_on(run, two)
    assert after["counts"]["duplicate"] == len(events) - 10
    assert after["counts"]["trained"] == before["counts"]["trained"]


# -------------------------------------------------------------------------------------------------- items and users
def test_an_item_has_content_as_soon_as_it_comes(copied: Callable[..., Path], data: Dataset) -> None:
    made = trainer_of(copied("hybrid"))
    task, bank = made.task, made.task.bank
    assert bank is not None
    image, text = data.fields.image[0], data.fields.text[0]
    user = str(data.user_ids[0])
    head = {"producer": "p", "time": BEGIN}
    nothing = task.predict([sample(user, "unknown", BEGIN)], ["unknown"])
    whole, broken = Picture(data=picture(1)), Picture(data=b"no picture")
    made.take(_Record(Item(**head, sequence=0, item="new", fields={text: "a striped mug"}, pictures={image: [whole]})))
    row = task.items["new"]
    assert row == len(task.items) - 1 and bool(bank.valid[row]) and int(bank.written[row]) >= 0
    content = bank.rows(torch.tensor([row])).clone()
    assert content.abs().sum() > 0
    assert task.predict([sample(user, "new", BEGIN)], ["new"]) != nothing
    assert not task.ranker.inputs.ids.known_items[row]
    # A broken picture: the good parts are in, the rest is counted.
    values = {text: "a plain mug", "colour of the moon": "x"}
    made.take(_Record(Item(**head, sequence=1, item="new", fields=values, pictures={image: [broken, whole]})))
    changed = bank.rows(torch.tensor([row])).clone()
    assert not torch.equal(changed, content)
    assert task.counts["item/broken_picture"] == task.counts["item/unknown_field"] == task.counts["changed_items"] == 1
    # What is not named, or cannot be used at all, stays as it was.
    made.take(_Record(Item(**head, sequence=2, item="new", pictures={image: [broken]})))
    assert torch.equal(bank.rows(torch.tensor([row])), changed)
    made.take(_Record(Gone(**head, sequence=3, item="new")))
    assert task.gone == {"new"}


def test_values_that_are_not_of_their_field_stop_nothing(copied: Callable[..., Path], data: Dataset) -> None:
    """Whatever an item brings under the name of a field, the next event is taken, and the state can be saved."""
    made, number = trainer_of(copied("hybrid")), 0
    kinds = data.fields
    assert kinds.image and kinds.text and kinds.categorical and kinds.numeric
    for name in (*kinds.names(), "nobody's"):
        for given in (3.5, "", "a", [], ["a"], [1.0, 2.0], 3e38):
            event = Item(producer="p", time=BEGIN, sequence=number, item=f"n{number % 3}", fields={name: given})
            made.take(_Record(event))
            number += 1
        pictures = {name: [Picture(data=b"no picture")]}
        made.take(_Record(Item(producer="p", time=BEGIN, sequence=number, item="n0", pictures=pictures)))
        number += 1
    image = len(kinds.image)
    assert made.task.counts["item/broken_picture"] == 7 * image  # six values that are none, and one picture
    assert made.task.counts["item/no_picture_field"] == len(kinds.names()) - image
    assert made.task.counts["item/unknown_field"] == 8
    made.save()
    again = trainer_of(made.run.path)
    assert again.task.counts == made.task.counts and again.task.facts == made.task.facts


def test_content_of_a_new_item_is_that_of_its_twin(copied: Callable[..., Path], data: Dataset) -> None:
    """The raw fields of an item of the dataset, under another id, have its content."""
    made = trainer_of(copied("hybrid"))
    task, bank, row = made.task, made.task.bank, 3
    assert bank is not None
    at = np.array([row])
    fields: dict[str, Any] = {name: data.texts(name, at)[0] for name in data.fields.text}
    pictures = {name: [Picture(data=one) for one in data.images(name, at)[0]] for name in data.fields.image}
    made.take(_Record(Item(producer="p", sequence=0, time=BEGIN, item="twin", fields=fields, pictures=pictures)))
    twin = task.items["twin"]
    np.testing.assert_allclose(bank.content[twin], bank.content[row], atol=1e-5)


def test_ids_have_rows_of_their_own_after_enough_impressions(copied: Callable[..., Path]) -> None:
    made = trainer_of(copied("id"), admit_after=2)
    task, ids = made.task, made.task.ranker.inputs.ids
    users = len(task.users)
    unknown = task.predict([sample("stranger", "odd", BEGIN)], ["odd"])
    task.note([sample("stranger", "odd", BEGIN)])
    assert not ids.item.known[task.items["odd"]] and "stranger" not in task.users
    task.note([sample("stranger", "odd", BEGIN)])
    assert ids.item.known[task.items["odd"]] and task.users["stranger"] == users
    assert task.predict([sample("stranger", "odd", BEGIN)], ["odd"]) == pytest.approx(unknown, abs=0.05)
    row = task.items["odd"] + 1
    assert torch.equal(ids.item.weight[row], ids.item.weight[0])
    before = ids.item.weight[row].clone()
    for _ in range(3):
        made.joiner.ready.extend([sample("stranger", "odd", BEGIN)] * 16)
        made.train_ready()
    assert not torch.equal(ids.item.weight[row], before)


def test_what_a_user_did_before_is_of_the_dataset_and_the_stream(copied: Callable[..., Path], data: Dataset) -> None:
    made = trainer_of(copied("id"))
    rows = np.flatnonzero(data.binary("label") > 0)
    user = int(np.bincount(data.users[rows]).argmax())
    own = rows[data.users[rows] == user]
    own = own[np.argsort(data.timestamps[own], kind="stable")]
    name, times = str(data.user_ids[user]), data.timestamps[own]
    middle = float(times[len(own) // 2])
    expected = [str(data.item_ids[i]) for i in data.items[own[times < middle]]][-5:]
    assert made.past.at(name, middle) == expected
    made.take(_Record(Acted(producer="p", sequence=0, time=BEGIN, item="x", user=name)))
    assert made.past.at(name, BEGIN) == [str(data.item_ids[i]) for i in data.items[own]][-5:]
    assert made.past.at(name, BEGIN + 1) == [*[str(data.item_ids[i]) for i in data.items[own]][-4:], "x"]


# --------------------------------------------------------------------------------------------------------- refusals
def test_what_cannot_be_read_is_buried(copied: Callable[..., Path], data: Dataset, url: str) -> None:
    write(url, events_of(data, 10))
    go_on(copied("id"), url)
    with open_log(url) as log:
        assert [letter.position for letter in log.dead()] == [8, 9]
        assert all(isinstance(letter, Letter) and letter.reason for letter in log.dead())


def test_a_log_is_trimmed_behind_the_state_and_never_before(
    copied: Callable[..., Path], data: Dataset, url: str
) -> None:
    end = write(url, events_of(data, 12))
    run, late = copied("id"), copied("id", "late")
    online(run, log=url, until=20, settings=SETTINGS, trim=True)
    with open_log(url) as log:
        assert [record.position for record in log.read(20, 1)] == [21]
        with pytest.raises(UserError, match="trimmed"):
            log.read(19)
    with pytest.raises(UserError, match="was trimmed up to position 20"):
        go_on(late, url)
    assert go_on(run, url)["positions"] == {url: end}


def test_the_end_is_reached_where_nothing_stands_at_the_last_positions(
    copied: Callable[..., Path], data: Dataset, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a log may have given to duplicates that it refused."""
    events, own = events_of(data, 6), SqliteLog.end
    write(url, events, strange=False)
    monkeypatch.setattr(SqliteLog, "end", lambda log: own(log) + 3)
    assert go_on(copied("id"), url)["counts"]["taken"] == len(events)


def test_two_do_not_go_on_with_one_run(copied: Callable[..., Path], data: Dataset, url: str) -> None:
    write(url, events_of(data, 3))
    run = copied("id")
    with alone(run / "online", "held"), pytest.raises(UserError, match="another process goes on"):
        go_on(run, url)


def test_damage_is_named(copied: Callable[..., Path], data: Dataset, url: str) -> None:
    write(url, events_of(data, 12))
    run = copied("id")
    go_on(run, url)
    folder = run / "online" / "checkpoint"
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in (0, len(content) // 3, len(content) // 2, len(content) - 3):
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
            try:
                go_on(run, url)
            except UserError as error:
                assert str(folder) in str(error) or path.name in str(error)
            else:  # a byte of the manifest's white space
                assert path.name == "manifest.json"
            path.write_bytes(content)
        path.unlink()
        with pytest.raises(UserError, match="damaged"):
            go_on(run, url)
        path.write_bytes(content)
    go_on(run, url)


def test_a_state_of_another_run_is_refused(copied: Callable[..., Path], data: Dataset, url: str) -> None:
    write(url, events_of(data, 3))
    one, other = copied("id", "one"), copied("hybrid", "other")
    go_on(one, url)
    shutil.copytree(one / "online", other / "online")
    with pytest.raises(UserError, match="other weights"):
        go_on(other, url)


def test_mistakes_are_told(copied: Callable[..., Path], tmp_path: Path, url: str) -> None:
    run = copied("id")
    for given, said in (
        ({}, "give a log"),
        ({"log": url, "events": "x.csv"}, "give a log"),
        ({"log": url}, "is not there"),
        ({"events": tmp_path / "no.csv"}, "no such file"),
        ({"events": tmp_path / "no.csv", "until": 3}, "to its end"),
        ({"log": url, "settings": {"online.wiat": 3}}, "did you mean wait"),
        ({"log": url, "settings": {"online.elapsed": 3.0}}, "would do nothing"),
        ({"log": url, "settings": {"late": "elapsed", "wait": 5}}, "not below wait"),
    ):
        with pytest.raises(UserError, match=said):
            online(run, **given)  # type: ignore[arg-type]
    (tmp_path / "odd.csv").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(UserError, match="lacks timestamp"):
        online(run, events=tmp_path / "odd.csv")
    (tmp_path / "odd.csv").write_text("user_id,item_id,timestamp\n1,2,3\n")
    with pytest.raises(UserError, match="lacks the label"):
        online(run, events=tmp_path / "odd.csv")
