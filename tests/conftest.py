"""Data that tests share: a tiny generated shop, and real data where they are at hand."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Several workers share one server of forked processes."""
    if getattr(config.option, "numprocesses", None):  # of the process that starts them
        import forked

        forked.start()


def pytest_collection_finish() -> None:
    """What was loaded until now stays: from here on the collector of garbage leaves it alone, which is quicker."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated dataset of about 60 items and 40 users, built once; not to be changed by a test."""
    from rawrec.sources.synthetic import import_synthetic

    out = tmp_path_factory.mktemp("data") / "shop"
    import_synthetic(out, items=60, users=40, impressions=2000, progress=False)
    return out


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: the environment's RAWREC_TEST_DATA, or ../shared/data beside the project."""
    path = Path(os.environ.get("RAWREC_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path} (set RAWREC_TEST_DATA)")
    return path


@pytest.fixture(scope="session", autouse=True)
def unflushed() -> Iterator[None]:
    """Files are written without waiting for the disk: no test cuts the power, and a killed process loses nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The runs of sweeps and studies are made in this process; the tasks that were."""
    from processes_here import Here

    Here.tasks = []
    monkeypatch.setattr("rawrec.training.processes.subprocess", SimpleNamespace(Popen=Here, PIPE=subprocess.PIPE))
    return Here.tasks


@pytest.fixture
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plots of pages are made and described, but not drawn, which is half of a page's work; those of tests that are
    marked `drawn` are."""
    from markupsafe import Markup

    from rawrec.report import plots

    def described(figure: Any, description: str) -> Markup:
        return Markup('<div class="plot" role="img" aria-label="{}"><svg></svg></div>').format(description)

    if request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr(plots, "_svg", described)


@pytest.fixture(scope="session", autouse=True)
def networks() -> Iterator[None]:
    """Pretrained and random networks of encoders are made once, see `networks_once.py`."""
    if "rawrec.content.encoders" not in sys.modules:
        yield
        return
    from networks_once import once
    from rawrec.content import encoders

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "_network", once(encoders._network))
        yield


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of encoders are made each time."""
    from rawrec.content import encoders

    monkeypatch.setattr(encoders, "_network", getattr(encoders._network, "__wrapped__", encoders._network))
