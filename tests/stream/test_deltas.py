"""A chain of what has changed is, bit by bit, the version that was written whole; and is never cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kill_points import killed_everywhere
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.serving.published import Published
from rawrec.stream import deltas, versions
from rawrec.stream.events import Acted, Shown
from rawrec.stream.online import online
from rawrec.stream.version_files import HISTORIES, TENSORS
from rawrec.stream.versions import listed, prune, publish, read, rollback
from streams import BEGIN, SETTINGS, events_of, small_run, write

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks


# --------------------------------------------------------------------------------------------------------- what changed
def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        (a := one[name]).shape == (b := other[name]).shape
        and a.dtype == b.dtype
        and a.numpy().tobytes() == b.numpy().tobytes()
        for name in one
    )


def test_rows_that_changed_by_a_bit_and_rows_that_are_new() -> None:
    before = {
        "table": torch.randn(500, 4),
        "bias": torch.zeros(2000),
        "known": torch.zeros(3000, dtype=torch.bool),
        "dense": torch.randn(5, 5),
        "still": torch.full((900, 2), torch.nan),
        "scalar": torch.tensor(3),
        "wide": torch.randn(400, 3),
        "gone": torch.ones(3),
        "shorter": torch.randn(900, 2),
        "typed": torch.zeros(4),
    }
    now = {name: values.clone() for name, values in before.items() if name != "gone"}
    now["table"][[3, 77]] += 1
    now["table"] = torch.cat([now["table"], torch.ones(2, 4)])
    now["bias"][5] = -0.0
    now["known"][9] = True
    now["dense"][0, 0] = torch.nan
    now["scalar"] = torch.tensor(4)
    now["wide"] = torch.randn(400, 5)
    now["shorter"] = now["shorter"][:800]
    now["typed"] = torch.zeros(4, dtype=torch.float64)
    now["new"] = torch.ones(2)
    found, about = deltas.differ(now, before)
    assert found["rows.table"].tolist() == [3, 77, 500, 501] and found["rows.bias"].tolist() == [5]
    assert {"whole.dense", "whole.scalar", "whole.wide", "whole.shorter", "whole.typed", "whole.new"} < found.keys()
    assert about["gone"] == ["gone"] and not any("still" in name for name in found)
    kept = {name: values.clone() for name, values in before.items()}
    assert same(deltas.apply(before, found, json.loads(json.dumps(about))), now)
    assert same(before, kept)
    assert deltas.differ(now, now)[0] == {}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=1), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, VALUES)
def test_plain_values(now: Any, before: Any) -> None:
    kept, part = json.dumps(before), deltas.differ_plain(now, before)
    found = deltas.apply_plain(before, json.loads(json.dumps(part)))
    assert json.dumps(found, sort_keys=True) == json.dumps(now, sort_keys=True) and json.dumps(before) == kept


# -------------------------------------------------------------------------------------------------------------- chains
def about(number: int) -> versions.Version:
    name = versions.name_of(number, number)
    return versions.Version(
        format=versions.FORMAT, name=name, run="a", folder="/run", step=number, events=number, watermark=1.5,
        positions={}, items=2, users=1, files={},
    )  # fmt: skip


def values(number: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    table = torch.arange(2000.0).view(500, 4)
    table[: 3 * number] += number
    past = {f"u{n}": [[float(k), f"i{k}"] for k in range(n + number)] for n in range(max(4 - number, 0), 4)}
    users = [f"u{n}" for n in range(number)]
    return {"table": table, "w": torch.tensor([float(number)])}, {"users": users, "histories": past, "n": number}


def put(out: Path, number: int, full_every: int = 3, **more: Any) -> versions.Version:
    tensors, plain = values(number)
    return publish(out, about(number), tensors | more, plain, full_every=full_every)[0]


def check_all(out: Path) -> None:
    for version in listed(out).versions:
        if version.refused is None:
            _, tensors, plain = read(out, version.name)
            expected, text = values(version.step)
            assert same(dict(tensors), expected) and plain == text, version.name


def test_a_chain_is_what_was_written_whole_and_bounded(tmp_path: Path) -> None:
    for number in range(1, 9):
        put(tmp_path, number)
    name = versions.name_of
    bases = [version.base for version in listed(tmp_path).versions]
    assert bases == [None, name(1, 1), name(2, 2), None, name(4, 4), name(5, 5), None, name(7, 7)]
    check_all(tmp_path)
    pointer = json.loads((tmp_path / versions.POINTER).read_text())
    assert pointer["chain"] == [name(7, 7), name(8, 8)] and pointer["version"] == name(8, 8)
    sizes = [(tmp_path / "versions" / name(n, n) / TENSORS).stat().st_size for n in (7, 8)]
    assert sizes[1] < sizes[0] / 5
    assert rollback(tmp_path, name(3, 3)) == name(3, 3)
    assert json.loads((tmp_path / versions.POINTER).read_text())["chain"] == [name(n, n) for n in (1, 2, 3)]


def test_cleaning_leaves_what_a_chain_needs(tmp_path: Path) -> None:
    for number in range(1, 9):
        put(tmp_path, number)
    rollback(tmp_path, versions.name_of(2, 2))
    assert prune(tmp_path, 1) == [versions.name_of(n, n) for n in (3, 4, 5, 6)]
    assert [version.step for version in listed(tmp_path).versions] == [1, 2, 7, 8]
    check_all(tmp_path)


def test_a_version_that_was_refused_is_nobodys_base(tmp_path: Path) -> None:
    put(tmp_path, 1)
    bad = put(tmp_path, 2, more=torch.tensor([torch.nan]))
    good = put(tmp_path, 3)
    assert bad.refused and bad.base == good.base == versions.name_of(1, 1)
    check_all(tmp_path)


def test_a_chain_with_damage_is_refused_by_name_and_the_next_version_is_full(tmp_path: Path) -> None:
    for number in (1, 2):
        put(tmp_path, number)
    path = tmp_path / "versions" / versions.name_of(1, 1) / HISTORIES
    content = path.read_bytes()
    path.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    with pytest.raises(UserError, match=r"000000001-000000000001.*damaged"):
        read(tmp_path)
    assert put(tmp_path, 3).base is None and read(tmp_path)[0].step == 3
    path.write_bytes(content)
    check_all(tmp_path)
    shutil.rmtree(path.parent)
    with pytest.raises(UserError, match=r"made of version 000000001-000000000001, which is not there"):
        rollback(tmp_path, versions.name_of(2, 2))


def test_killed_at_any_operation_every_chain_is_whole(tmp_path: Path) -> None:
    out, kills = tmp_path / "out", 0
    for _ in killed_everywhere(lambda: [put(out, number) for number in (1, 2, 3)] + [prune(out, 1)], every=3):
        kills += 1
        if (out / "versions").is_dir() and listed(out).current is not None:
            served, tensors, plain = read(out)
            assert same(dict(tensors), values(served.step)[0]) and plain == values(served.step)[1]
        for number in (1, 2, 3):
            put(out, number)
        check_all(out)
        assert read(out)[0].step == 3 and listed(out).versions[-1].base == versions.name_of(2, 2)
        shutil.rmtree(out)
    assert kills > 10


# --------------------------------------------------------------------------------------------------------- of a stream
@pytest.mark.parametrize("kind", ["id", "hybrid"])
def test_deltas_of_a_stream_are_its_full_versions(kind: str, data: Dataset, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", data, kind)
    other = Path(shutil.copytree(run, tmp_path / "other"))
    url = f"sqlite:{tmp_path / 'events.db'}"
    write(url, events_of(data, 22))
    settings = SETTINGS | {"publish_every": 1, "batch_size": 12, "expire_after": 100.0, "canaries": 2}
    one, two = tmp_path / "one", tmp_path / "two"
    online(run, log=url, until="end", settings=settings | {"publish_full_every": 3}, publish=one, data=data)
    online(other, log=url, until="end", settings=settings | {"publish_full_every": 1}, publish=two, data=data)
    found = listed(one).versions
    assert [v.name for v in found] == [v.name for v in listed(two).versions] and len(found) > 3
    assert 0 < sum(v.base is None for v in found) < len(found) / 2 + 1
    for version in found:
        _, tensors, plain = read(one, version.name)
        _, expected, text = read(two, version.name)
        assert same(dict(tensors), dict(expected)) and plain == text


def test_users_are_served_by_what_they_took_in_the_stream(data: Dataset, tmp_path: Path) -> None:
    """A server that heard none of it; of users of the dataset, who came, and who have no id of their own yet."""
    run, url, out = small_run(tmp_path / "run", data, "id"), f"sqlite:{tmp_path / 'e.db'}", tmp_path / "out"
    old, items = str(data.user_ids[0]), [str(item) for item in data.item_ids[:12]]
    events: list[Any] = []
    for n, (user, item) in enumerate((user, item) for item in items for user in (old, "comes", "other")):
        if user == "other" and item != items[3]:
            continue
        head = {"producer": "p", "time": BEGIN + n}
        events.append(Shown(**head, sequence=len(events), request=f"r{n}", items=[item], user=user))
        events.append(Acted(**head, sequence=len(events), request=f"r{n}", item=item))
    write(url, events, strange=False)
    settings = SETTINGS | {"wait": 1.0, "batch_size": 4, "admit_after": 2, "publish_every": 1}
    online(run, log=url, until=20, settings=settings, publish=out, data=data)
    early = Published.of(out, data=data)
    online(run, log=url, until="end", settings=settings, publish=out, data=data)
    rec = Published.of(out, data=data)
    assert len(early.heard("comes")) < len(rec.heard("comes")) and rec.about.base is not None
    length = rec.history_length
    before = early.data.item_ids[early.data.items[early.data.in_order(early.data.positive() & (early.data.users == 0))]]
    assert rec.history(old) == [*map(str, before), *rec.heard(old)]
    assert rec.heard("comes") == items[-len(rec.heard("comes")) :] and rec.history("comes") == rec.heard("comes")
    assert rec.knows_user("other") and rec.history("other") == [items[3]] and "other" not in rec._stream.users
    for user in ("comes", "other", old):
        seen = {one.item for one in rec.recommend(user, k=60)}
        assert not seen & set(rec.history(user)) and len(seen) > 20
        mine = data.item_ids[20:25].tolist()
        np.testing.assert_allclose(
            rec.score(user, mine), rec.score(user, mine, history=rec.history(user)[-length:]), atol=1e-6
        )
    assert rec.score("other", items[:1]) != rec.score("other", items[:1], history=[])
    assert len(rec.recommend(users=["comes", old], k=3)) == 2
    with pytest.raises(UserError):
        rec.recommend("nobody", k=3)
