"""A real Ray of this machine, begun once: what its workers make is what processes of our own make, to the bit."""

from __future__ import annotations

import gc
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawrec
from rawrec.errors import UserError
from rawrec.extras import there

if not there("ray"):
    pytest.skip("Ray is not installed (pip install -c constraints.txt 'rawrec[ray]')", allow_module_level=True)

from rawrec.ray_cluster import cluster, load
from rawrec.serving.encoding import encode
from rawrec.training import on_ray
from rawrec.training.on_ray import train_on_ray
from systems import digest

import world_faults, worlds  # isort: skip  # noqa: E401

GIVEN: dict[str, Any] = {"model.dim": 8, "train.batch_size": 64, "train.epochs": 1, "train.threads": 1}
HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Two processors, no dashboard. Workers find this process's modules."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    found = load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield found
        found.shutdown()
        gc.collect()  # Ray's own handles of processes, which it ends without waiting for them


def test_workers_of_ray_train_what_processes_of_torchrun_do(ray: Any, shop: Path, tmp_path: Path) -> None:
    told: list[str] = []
    run = train_on_ray("id", shop, tmp_path / "ray", GIVEN, observer=lambda event, **_: told.append(event), workers=2)
    settings = [f"{key}={value}" for key, value in GIVEN.items()]
    words = ["-m", "rawrec", "train", "id", "--data", str(shop), "--out", str(tmp_path / "torchrun"), *settings]
    assert [one.code for one in worlds.together(2, words)] == [0, 0]
    assert digest(run.path) == digest(tmp_path / "torchrun")
    assert {"epoch", "step", "validated", "evaluating"} <= {*told}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ray", "torchrun"]


def test_what_the_user_has_to_hear_is_told_once_and_without_another_try(ray: Any, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^2 processes share a batch, and train.batch_size=1 has fewer"):
        train_on_ray("id", shop, tmp_path / "run", {**GIVEN, "train.batch_size": 1}, workers=2)
    assert not any(tmp_path.iterdir())


WORKER = on_ray._worker


def dies_once(config: dict[str, Any]) -> None:
    """In a worker of Ray: the second of them is killed in step 5, the first time."""
    died = Path(config["task"]["out"]).with_name("died")
    if os.environ["RANK"] == "1" and not died.exists():
        died.touch()
        world_faults.break_at("kill", 5)
    WORKER(config)


def test_a_worker_that_dies_is_started_again_and_the_run_goes_on(
    ray: Any, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_worker", dies_once)
    given = {**GIVEN, "train.checkpoint_every": 3, "train.checkpoint_share": 1}
    run = train_on_ray("id", shop, tmp_path / "run", given, workers=2)
    log = (run.path / "log.txt").read_text()
    assert "resumed at epoch 1, step 3" in log and log.count("finished") == 1


def test_more_workers_than_processors_are_refused(ray: Any, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 workers want a processor each, and Ray has 2"):
        train_on_ray("id", shop, tmp_path / "run", GIVEN, workers=3)


def test_a_sweep_on_ray_is_the_sweep(ray: Any, shop: Path, tmp_path: Path) -> None:
    search = {"train.lr": [0.001, 0.003]}
    cfg = {"model": "id", "data": str(shop), "search": search, "fixed": GIVEN, "seeds": [1]}
    found = [
        rawrec.sweep({**cfg, "out": str(tmp_path / name)}, jobs=2, on=name if name == "ray" else None)
        for name in ("ray", "here")
    ]
    assert found[0] == found[1]


def test_items_are_encoded_on_ray_as_they_are_here(ray: Any, shop: Path, tmp_path: Path) -> None:
    copies = [tmp_path / "ray", tmp_path / "here"]
    for copy in copies:
        shutil.copytree(shop, copy, ignore=shutil.ignore_patterns("cache"))
        encode(copy, "random:conv", field="image", on=copy.name if copy.name == "ray" else None)
    (one,), (other,) = ([*(copy / "cache").glob("*.safetensors")] for copy in copies)
    assert one.name == other.name and one.read_bytes() == other.read_bytes()


# --------------------------------------------------------------------------------------------------------- without Ray
@pytest.mark.parametrize("address", ["http://a:1", "a:b", ":1", "ray://", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load(), "is_initialized", lambda: False)
    with pytest.raises(UserError, match="give HOST:PORT, ray://HOST:PORT or auto"), cluster(address, 1):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_answers_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load(), "is_initialized", lambda: False)
    address = f"{scheme}127.0.0.1:{worlds.free_port()}"
    with pytest.raises(UserError, match=f"--address {address}: nobody answers there"), cluster(address, 1):
        pass
