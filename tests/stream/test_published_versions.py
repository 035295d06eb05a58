"""Versions are whole and never change; one pointer says which is served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kill_points import killed_everywhere
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.stream import versions
from rawrec.stream.joiner import Sample
from rawrec.stream.online import load_version, online
from rawrec.stream.trainer import Trainer
from rawrec.stream.version_files import HISTORIES, PLAIN, TENSORS
from rawrec.stream.versions import LATEST, Version, listed, prune, publish, read, rollback
from rawrec.training.runs import RunFolder
from streams import BEGIN, SETTINGS, check_same, events_of, small_run, write

pytestmark = pytest.mark.filterwarnings("ignore")


FILES = (TENSORS, PLAIN, HISTORIES, versions.MANIFEST)


def version(number: int, run: str = "a") -> Version:
    name = versions.name_of(number, number)
    return Version(
        format=versions.FORMAT, name=name, run=run, folder="/run", step=number, events=number, watermark=1.5,
        positions={}, items=2, users=1, files={},
    )  # fmt: skip


def put(out: Path, number: int, value: float = 1.0, **more: Any) -> Version:
    return publish(out, version(number, **more), {"w": torch.tensor([value, number])}, {"items": ["i"]})[0]


def test_the_latest_is_served_until_somebody_rolls_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in (1, 2, 3):
        put(out, number)
    one, two, three = (versions.name_of(n, n) for n in (1, 2, 3))
    assert [v.name for v in listed(out).versions] == [one, two, three] and listed(out).current == three
    assert read(out)[1]["w"].tolist() == [1, 3] and read(out, one)[1]["w"].tolist() == [1, 1]
    assert rollback(out) == two and rollback(out) == one
    put(out, 4)
    assert listed(out).current == one and listed(out).held
    with pytest.raises(UserError, match="no version before"):
        rollback(out)
    assert rollback(out, three) == three
    assert rollback(out, LATEST) == versions.name_of(4, 4) and not listed(out).held
    put(out, 5)
    assert listed(out).current == versions.name_of(5, 5)
    with pytest.raises(UserError, match="has no version 'x'"):
        rollback(out, "x")
    rollback(out, one)
    assert prune(out, 2) == [two, three]
    assert [v.step for v in listed(out).versions] == [1, 4, 5] and read(out)[0].name == one


def test_what_is_not_finite_is_kept_aside(tmp_path: Path) -> None:
    put(tmp_path, 1)
    made = put(tmp_path, 2, float("nan"))
    assert made.refused and "no numbers" in made.refused
    assert listed(tmp_path).current == versions.name_of(1, 1) and len(listed(tmp_path).versions) == 2
    with pytest.raises(UserError, match="refused"):
        rollback(tmp_path, made.name)
    put(tmp_path, 3)
    assert rollback(tmp_path) == versions.name_of(1, 1)


def test_versions_of_another_run_and_folders_without(tmp_path: Path) -> None:
    put(tmp_path, 1)
    with pytest.raises(UserError, match="another run"):
        put(tmp_path, 2, run="b")
    with pytest.raises(UserError, match="holds no versions"):
        listed(tmp_path / "nowhere")


def test_killed_at_any_operation_what_is_served_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kills = 0
    for _ in killed_everywhere(lambda: [put(out, 1), put(out, 2)]):
        kills += 1
        if (out / "versions").is_dir() and listed(out).current is not None:
            found, tensors, _ = read(out)
            assert tensors["w"].tolist() == [1, found.step]
        for number in (1, 2):
            put(out, number)
        assert [v.step for v in listed(out).versions] == [1, 2] and read(out)[0].step == 2
        assert not [path for path in out.rglob("*") if path.name.endswith(".partial")]
        shutil.rmtree(out)
    assert kills > 8


def test_damage_is_named(tmp_path: Path) -> None:
    put(tmp_path, 1)
    made = put(tmp_path, 2)
    paths = [tmp_path / "versions" / made.name / name for name in FILES]
    for path in (*paths, tmp_path / versions.POINTER):
        content = path.read_bytes()
        for place in range(0, len(content), max(len(content) // 12, 1)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
            try:
                found, tensors, plain = read(tmp_path)
            except UserError as error:
                assert str(tmp_path) in str(error)
            else:  # white space, or what is said of the version and nobody goes by
                assert path in (paths[-1], tmp_path / versions.POINTER)
                assert tensors["w"].tolist() == [1, found.step] and plain == {"items": ["i"], "histories": {}}
        path.write_bytes(content)
    assert rollback(tmp_path) == versions.name_of(1, 1)


@pytest.mark.parametrize("which", [versions.MANIFEST, versions.POINTER])
def test_versions_of_another_format(which: str, tmp_path: Path) -> None:
    made = put(tmp_path, 1)
    path = tmp_path / (which if which == versions.POINTER else f"versions/{made.name}/{which}")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": versions.FORMAT + 1}))
    with pytest.raises(UserError, match=rf"format {versions.FORMAT + 1}, and .* reads {versions.FORMAT}: publish into"):
        listed(tmp_path)


# ---------------------------------------------------------------------------------------------------------- of a stream
@pytest.mark.parametrize("kind", ["hybrid", "end_to_end", "frozen"])
def test_a_version_says_what_its_trainer_says(kind: str, data: Dataset, tmp_path: Path) -> None:
    """Of known and new users and items; and publishing changes nothing of what is trained."""
    run = small_run(tmp_path / "run", data, kind)
    quiet = Path(shutil.copytree(run, tmp_path / "quiet"))
    url, out = f"sqlite:{tmp_path / 'events.db'}", tmp_path / "out"
    write(url, events_of(data, 30))
    settings = SETTINGS | {"publish_every": 4}
    online(run, log=url, until="end", settings=settings, publish=out)
    online(quiet, log=url, until="end", settings=settings)
    tensors = [state_of_tensors(path) for path in (run, quiet)]
    assert tensors[0] == tensors[1]
    found = listed(out)
    assert len(found.versions) > 1 and found.current == found.versions[-1].name
    _, served = load_version(out, data=data)
    users, items = ["new1", str(data.user_ids[0]), "nobody"], ["fresh5", str(data.item_ids[1]), "fresh17"]
    asked = [Sample(user, item, [str(i) for i in data.item_ids[:3]], BEGIN, 0.0) for user in users for item in items]
    names = [one.item for one in asked]
    fresh = Trainer(RunFolder.open(quiet), quiet / "online", {})
    with fresh.task.view(None, fresh.steps.progress.step):
        table = fresh.task.table()
    assert table is not None
    mine = served.table()
    assert mine is not None
    torch.testing.assert_close(mine.values[mine.valid], table.values[mine.valid], atol=1e-5, rtol=1e-4)
    assert served.items == fresh.task.items and served.users == fresh.task.users and served.gone == fresh.task.gone
    if kind == "frozen":  # whose content is never stale
        assert served.predict(asked, names) == pytest.approx(fresh.task.predict(asked, names), abs=1e-6)
    assert len(set(served.predict(asked, names))) > 3


def state_of_tensors(run: Path) -> dict[str, bytes]:
    from rawrec.training import state

    found, _ = state.load(run / "online" / "checkpoint" / "state.safetensors")
    return {name: values.contiguous().numpy().tobytes() for name, values in found.items()}


def test_a_version_is_published_once_however_often_its_trainer_is_killed(data: Dataset, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", data, "id")
    other = Path(shutil.copytree(run, tmp_path / "other"))
    url = f"sqlite:{tmp_path / 'events.db'}"
    end = write(url, events_of(data, 30))
    settings = SETTINGS | {"publish_every": 4, "checkpoint_every": 7}
    online(run, log=url, until=end, settings=settings, publish=tmp_path / "one")

    def stop(event: str, **values: Any) -> None:
        if event == "published":
            raise KeyboardInterrupt

    stopped = 0
    for _ in range(40):
        try:
            told = stop if stopped < 3 else None
            online(other, log=url, until=end, settings=settings, publish=tmp_path / "two", observer=told)
            break
        except KeyboardInterrupt:
            stopped += 1
    assert stopped == 3
    one, two = listed(tmp_path / "one"), listed(tmp_path / "two")
    assert [v.name for v in one.versions] == [v.name for v in two.versions] and one.current == two.current
    for a, b in zip(one.versions, two.versions, strict=True):
        assert a.files == b.files
    check_same(run, other)


def test_versions_are_not_written_among_the_runs_own(data: Dataset, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", data, "id")
    with pytest.raises(UserError, match="in the folder of the run"):
        online(run, log=f"sqlite:{tmp_path / 'x.db'}", publish=run / "versions")
    with pytest.raises(UserError, match="holds no versions"):
        load_version(tmp_path / "nothing")
