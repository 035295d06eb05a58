"""Datasets and runs at addresses: fsspec's store in memory, and moto's S3 server on loopback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawrec
from rawrec import remote
from rawrec.cli.commands import app
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.extras import there
from rawrec.remote import NOTHING, Store, StoreFailed, address_of
from rawrec.training.job import resume, train
from rawrec.training.published import publish
from rawrec.training.runs import RunFolder
from systems import digest

if not there("fsspec"):
    pytest.skip("fsspec is not installed (pip install 'rawrec[remote]')", allow_module_level=True)

GIVEN: dict[str, Any] = {"model.dim": 8, "train.batch_size": 64, "train.epochs": 2, "train.threads": 1}
AT = "memory://store/thing"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty store, and a machine that has nothing of it yet."""
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setenv("RAWREC_CACHE", str(tmp_path / "machine"))
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield MemoryFileSystem.store
    MemoryFileSystem.store.clear()


def folder(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def test_a_path_is_an_address_where_it_names_a_store() -> None:
    assert address_of(Path("s3://b/x/")) == address_of("s3:/b/x") == "s3://b/x"
    assert address_of("data/x") is address_of("/s3:/x") is address_of("hf://a/b") is None


def test_a_dataset_is_read_from_its_address(shop: Path, tmp_path: Path) -> None:
    publish(shop, AT)
    found = Dataset.open(AT)
    assert found.fingerprint() == Dataset.open(shop).fingerprint()
    assert found.path.is_relative_to(tmp_path / "machine") and not (found.path / "cache").exists()
    assert Dataset.open(Path(AT)).path == found.path


def test_a_run_at_an_address_is_the_run_and_goes_on_elsewhere(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(shop, "memory://store/shop")
    run = train("id", "memory://store/shop", AT, {**GIVEN, "train.epochs": 1})
    assert RunFolder.open(AT).info()["finished"] and run.info()["dataset"] == "memory://store/shop"
    with pytest.raises(UserError, match="holds a run already: go on with `rawrec resume memory://store/thing`"):
        train("id", shop, AT, GIVEN)
    monkeypatch.setenv("RAWREC_CACHE", str(tmp_path / "another"))
    gone_on = resume(AT, overrides={"train.epochs": 2})
    straight = train("id", shop, tmp_path / "straight", GIVEN)
    assert digest(gone_on.path) == digest(straight.path)
    assert digest(RunFolder.open(AT).path) == digest(straight.path)


def test_commands_take_addresses_as_they_take_folders(shop: Path, tmp_path: Path, capsys: Any) -> None:
    def command(*words: object) -> str:
        app([*map(str, words)], standalone_mode=False)
        return capsys.readouterr().out

    assert command("publish", shop, "memory://store/shop") == "published as state 1 of memory://store/shop\n"
    given = [f"{name}={value}" for name, value in GIVEN.items()]
    command("train", "id", "--data", "memory://store/shop", "--out", AT, *given)
    assert json.loads(command("evaluate", AT, "--json"))["test"] == RunFolder.open(AT).metrics()["test"]
    command("finish", AT)
    for words in (("publish", shop, "data/x"), ("import", "synthetic", "--out", "memory://store/other")):
        with pytest.raises(UserError, match=r"is no address of a store|written to a folder first"):
            command(*words)
    with pytest.raises(UserError, match="what online learning adds to a run is written to a folder first"):
        command("online", AT, "--events", "x.tsv")
    with pytest.raises(UserError, match="written to a folder first"):
        rawrec.finetune(shop, "pair:random:conv+random:words", "memory://store/encoder")


def test_of_two_writers_one_is_told(tmp_path: Path) -> None:
    first, other = Store(AT), Store(AT)
    start = first.publish(folder(tmp_path / "a", x="1"), "run", NOTHING)
    first.publish(folder(tmp_path / "a", x="2"), "run", start)
    with pytest.raises(UserError, match="another writer has published there"):
        other.publish(folder(tmp_path / "b", x="3"), "run", start)
    assert (first.fetched("run") / "x").read_text() == "2"


def test_of_two_writers_at_the_same_moment_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = Store(AT), Store(AT)
    monkeypatch.setattr(other, "_overtaken", lambda after: first.publish(folder(tmp_path / "a", x="1"), "run", after))
    with pytest.raises(UserError, match="another writer has published there"):
        other.publish(folder(tmp_path / "b", x="3"), "run", NOTHING)
    assert (first.fetched("run") / "x").read_text() == "1"


def test_objects_of_states_that_nobody_reads_any_more_go(tmp_path: Path, store: dict[str, Any]) -> None:
    at, mark = Store(AT), NOTHING
    for k in range(4):
        mark = at.publish(folder(tmp_path / "a", same="all", x=str(k)), "run", mark)
    assert len([name for name in store if "/objects/" in name]) == 3
    assert (at.fetched("run") / "x").read_text() == "3"


def test_a_writer_that_is_killed_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Store(AT)

    def dies(path: str, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(at, "_create", dies)
        at.publish(folder(tmp_path / "a", x="1"), "run", NOTHING)
    with pytest.raises(UserError, match=r"not published to its end: it has objects and no mark"):
        Dataset.open(AT)
    first = Store("memory://store/other").publish(tmp_path / "a", "run", NOTHING)
    other = Store("memory://store/other")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(other, "_create", dies)
        other.publish(folder(tmp_path / "a", x="2"), "run", first)
    assert (other.fetched("run") / "x").read_text() == "1"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError("403"), "the store gives no permission"),
        (OSError("connection reset"), "the store failed: connection reset"),
        (ValueError("no credentials"), "the store failed: ValueError: no credentials"),
    ],
)
def test_what_the_store_has_against_it_is_told_by_its_address(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Store(AT)

    def refuses(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(type(at.files), "put_file", refuses)
    with pytest.raises(StoreFailed, match=f"{AT}: {told}"):
        at.publish(folder(tmp_path / "a", x="1"), "run", NOTHING)


def test_a_store_that_vanishes_midway_does_not_end_the_run(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, calls = Store.publish, list[int]()

    def vanishes(self: Store, *given: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise StoreFailed("memory://store/thing: the store failed: gone")
        return usual(self, *given)

    monkeypatch.setattr(Store, "publish", vanishes)
    with pytest.warns(UserWarning, match="The run goes on in"), pytest.raises(StoreFailed, match="The run is whole in"):
        train("id", shop, AT, GIVEN)
    assert not RunFolder.open(AT).info()["finished"]
    monkeypatch.setattr(Store, "publish", usual)
    resume(AT)
    assert RunFolder.open(AT).info()["finished"]


def test_damage_is_found(shop: Path, store: dict[str, Any], tmp_path: Path) -> None:
    at = Store(AT)
    at.publish(folder(tmp_path / "a", x="1"), "run", NOTHING)
    (name,) = (name for name in store if "/objects/" in name)
    at.files.pipe_file(name, b"2")
    with pytest.raises(UserError, match="x is not as it was published"):
        at.fetched("run")
    (state,) = (name for name in store if "/states/" in name)
    at.files.pipe_file(state, json.dumps({"../../x": ["a", 1]}).encode())
    with pytest.raises(UserError, match="the list of its files is not the one that was published"):
        at.fetched("run")
    assert not [path for path in remote.working_place(AT).rglob("*") if path.name == "x"]


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda: Dataset.open(AT), "holds nothing that rawrec has published"),
        (lambda: train("id", AT, "out"), "holds nothing that rawrec has published"),
        (lambda: resume(AT), "holds nothing that rawrec has published"),
        (lambda: publish("nowhere", AT), "nowhere does not exist"),
    ],
)
def test_an_address_that_holds_nothing_is_named(use: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        use()


def test_a_run_is_no_dataset(tmp_path: Path) -> None:
    Store(AT).publish(folder(tmp_path / "a", x="1"), "run", NOTHING)
    with pytest.raises(UserError, match="holds a run, and a dataset is wanted"):
        Dataset.open(AT)


def test_s3_by_a_server_of_its_own(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (there("moto") and there("s3fs") and there("flask")):
        pytest.skip("moto's server or s3fs is not installed (pip install 's3fs' 'moto[server]')")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StoreFailed, match="s3://none/shop: the store failed"):
            publish(shop, "s3://none/shop")
        Store("s3://bucket").files.mkdir("bucket")
        publish(shop, "s3://bucket/shop")
        assert Dataset.open("s3://bucket/shop").fingerprint() == Dataset.open(shop).fingerprint()
        first, other = Store("s3://bucket/thing"), Store("s3://bucket/thing")
        monkeypatch.setattr(
            other, "_overtaken", lambda after: first.publish(folder(tmp_path / "a", x="1"), "run", after)
        )
        with pytest.raises(UserError, match="another writer has published there"):
            other.publish(folder(tmp_path / "b", x="3"), "run", NOTHING)
        shutil.rmtree(remote.working_place("s3://bucket/thing"), ignore_errors=True)
        assert (first.fetched("run") / "x").read_text() == "1"
    finally:
        server.stop()
