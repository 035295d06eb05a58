"""Tables as streams: what is read of them, and what a run reads of what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from rawrec import train
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.stream.events import Shown
from rawrec.stream.joiner import Sample
from rawrec.stream.online import online, table_of
from rawrec.stream.tables import EventTable
from rawrec.stream.trainer import Trainer
from rawrec.training.runs import RunFolder
from systems import small_dataset

QUICK = {"train.epochs": 1, "train.threads": 1, "train.batch_size": 64, "model.dim": 8, "model.hidden": [16]}
LATER = 2_000_000.0


def write(path: Path, **columns: Any) -> Path:
    table = pl.DataFrame(columns)
    table.write_parquet(path) if path.suffix == ".parquet" else table.write_csv(path)
    return path


def test_rows_come_in_order_of_time_and_odd_ones_are_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv",
        user_id=["01", "2", None, "4", "5"],
        item_id=["a", "b", "c", "d", "e"],
        timestamp=[30, 10, 5, None, 20],
        label=[1.0, 0.0, 1.0, 1.0, None],
    )
    table = EventTable(path, "label", {}, None)
    assert table.skipped == 2 and table.end() == 3
    found = table.read(0)
    assert [(one.event.user, one.event.items, one.event.labels) for one in found] == [
        ("2", ["b"], [0.0]), ("5", ["e"], [0.0]), ("01", ["a"], [1.0]),
    ]  # fmt: skip
    assert [one.position for one in table.read(1, 1)] == [2]
    moved = path.rename(tmp_path / "other.csv")
    assert EventTable(moved, "label", {}, None).name == table.name


def test_a_row_has_what_an_event_of_the_wire_has(tmp_path: Path) -> None:
    """The joiner reads either; a label that is no number is none."""
    columns = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2], "label": [float("nan"), 2.0]}
    path = write(tmp_path / "t.parquet", **columns, device=["tv", None])
    found = EventTable(path, "label", {"device": "categorical"}, None).read(0)
    for one, label, context in zip(found, (0.0, 1.0), ({"device": "tv"}, {}), strict=True):
        names = {name: getattr(one.event, name) for name in one.event.__slots__}
        made = Shown(producer="p", sequence=1, **names)
        assert {
            name: getattr(made, name) for name in Shown.model_fields if name not in ("producer", "sequence")
        } == names
        assert made.labels == [label] and made.context == context


def test_times_as_times(tmp_path: Path) -> None:
    times = pl.Series([1_000_000_000_500, 1_000]).cast(pl.Datetime("ms"))
    path = write(tmp_path / "t.parquet", user_id=[1, 2], item_id=[3, 4], timestamp=times, label=[1, 0])
    assert [one.event.time for one in EventTable(path, "label", {}, None).read(0)] == [1.0, 1_000_000_000.5]


def test_negatives_are_drawn_beside_rows_without_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (int(u), int(i), t, 1.0)
        for t, (u, i) in enumerate(zip(rng.integers(8, size=300), rng.integers(30, size=300), strict=True))
    ]
    rows = list({(u, i): (u, i, t, label) for u, i, t, label in rows}.values())
    data = small_dataset(tmp_path / "data", rows, 40, labelled=False)
    run = train("id", data, tmp_path / "run", QUICK).path
    path = write(tmp_path / "t.parquet", user_id=["u0", "new"], item_id=["i1", "i2"], timestamp=[LATER, LATER + 1])
    (run / "online").mkdir()
    task = Trainer(RunFolder.open(run), run / "online", {}).task
    (run / "online").rmdir()
    events = [one.event for one in table_of(task, path).read(0)]
    known = {str(data.item_ids[i]) for i in np.flatnonzero(task.train_counts)}
    taken = {str(data.item_ids[i]) for i in data.items[data.users == task.users["u0"]]}
    for event, mine in zip(events, (taken, set()), strict=True):
        positive, *others = event.items
        assert len(others) == len(set(others)) == 4 and set(others) <= known - mine - {positive}
        assert event.labels == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert [one.event for one in table_of(task, path).read(0)] == events
    found = online(run, events=path)
    assert found["counts"]["shown"] == 2 and found["counts"]["trained"] == 10


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A run that reads the device, which alone says what is clicked, and its dataset."""
    folder, n, rng = tmp_path_factory.mktemp("devices"), 1200, np.random.default_rng(0)
    device = np.array(["phone", "tv"], object)[rng.integers(2, size=n)]
    writer = DatasetWriter(
        folder / "data", fields=Fields(), source="made", labels=["label"], extra={"device": pa.string()},
        context=Columns(categorical=["device"]), has_time=True,
    )  # fmt: skip
    with writer:
        writer.add_interactions(
            {
                "user_id": [str(i % 50) for i in range(n)],
                "item_id": [str(i % 7) for i in range(n)],
                "timestamp": np.arange(n),
                "label": (device == "phone").astype(np.float32),
                "device": device,
            }
        )
        data = writer.finish(SplitSpec(kind="time_global"), ImportReport(source="made"))
    given = QUICK | {"model.context": ["device"], "train.epochs": 4, "train.lr": 0.02, "train.warmup_steps": 0}
    return train("id", data, folder / "run", given).path, data


def test_the_context_of_an_event_is_read(devices: tuple[Path, Dataset], tmp_path: Path) -> None:
    run, _ = devices
    (run / "online").mkdir(exist_ok=True)
    task = Trainer(RunFolder.open(run), run / "online", {}).task
    on = [{"device": "phone"}, {"device": "tv"}, {}, {"device": "watch"}, {"device": "phone", "other": 3}]
    samples = [Sample("1", "2", [], LATER, 1.0, context=context) for context in on]
    phone, tv, _, _, other = task.predict(samples, ["2"] * len(on))
    assert phone > 0.7 > 0.3 > tv and other == pytest.approx(phone, abs=1e-6)
    batch = task.batch(samples, 0, 0)
    assert batch.context is not None and batch.context.codes[0] != batch.context.codes[1]
    odd = [Sample("1", "2", [], LATER, 1.0, context={"device": 3.5}), samples[0]]
    found = task.predict(odd, ["2", "2"])
    assert found[1] == pytest.approx(phone, abs=1e-6) and task.counts["context"] == 1
    times, device = [LATER, LATER + 1], ["tv", None]
    path = write(tmp_path / "t.csv", user_id=[1, 1], item_id=[2, 2], timestamp=times, label=[1, 0], device=device)
    assert [one.event.context for one in table_of(task, path).read(0)] == [{"device": "tv"}, {}]
