"""What is set before torch is loaded, and how many cores there are."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rawrec import cores

LOADED = "print(sorted({'torch', 'numpy', 'polars', 'pyarrow', 'pydantic', 'typer', 'rich'} & set(sys.modules)))"


def run(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, whose environment says of threads what is given and nothing else."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


# ------------------------------------------------------------------------------------------------------------- waiting
def openmp() -> str:
    """Code that loads the OpenMP that torch brings, where it does, without all the rest."""
    (torch,) = getattr(importlib.util.find_spec("torch"), "submodule_search_locations", None) or [""]
    found = sorted(Path(torch, "lib").glob("libgomp*"))
    return f"import ctypes; ctypes.CDLL({str(found[0])!r})" if found else "import torch"


def displayed(code: str, **environment: str) -> dict[str, str]:
    """What OpenMP says of itself: name -> value."""
    lines = run(code, OMP_DISPLAY_ENV="verbose", **environment).stderr.splitlines()
    found = dict(line.split("]")[-1].strip().split(" = ", 1) for line in lines if " = " in line)
    if "GOMP_SPINCOUNT" not in found:
        pytest.skip("torch has another OpenMP than GNU's here")
    return {name: value.strip("'") for name, value in found.items()}


@contextmanager
def others() -> Iterator[None]:
    """One process more than there are cores that does nothing but run, behind all others."""
    code = "import os; os.nice(19)\nwhile True: pass"
    loops = [subprocess.Popen([sys.executable, "-c", code]) for _ in range((os.cpu_count() or 1) + 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.skipif(not Path("/proc/loadavg").is_file(), reason="this system does not say what runs")
def test_threads_sleep_at_barriers_where_others_hold_the_machine() -> None:
    with others():
        for first in ("import rawrec", "from rawrec.cli import main", "import rawrec.config"):
            found = displayed(f"{first}; {openmp()}")
            assert found["GOMP_SPINCOUNT"] == cores.SPINS, f"{first} comes after torch"
            assert found["OMP_WAIT_POLICY"] == "PASSIVE"


ALONE = """
import importlib.util, os
spec = importlib.util.spec_from_file_location("cores", {path!r})
cores = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cores)
cores.crowded = lambda: {crowded}
cores.prepare()
print(os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(("crowded", "policy"), [(True, "PASSIVE"), (False, "None")])
def test_on_an_idle_machine_threads_may_spin(crowded: bool, policy: str) -> None:
    assert run(ALONE.format(path=cores.__file__, crowded=crowded)).stdout.strip() == policy


@pytest.mark.parametrize(
    ("text", "machine", "ours", "expected"),
    [
        ("0.10 0.20 0.30 1/180 4242", 2, 2, False),  # we alone run
        ("0.10 0.20 0.30 2/180 4242", 2, 2, True),
        ("9.00 9.00 9.00 1/180 4242", 2, 2, False),  # what ran before is over
        ("9.00 9.00 9.00 5/180 4242", 8, 4, False),  # four others on the four cores that are not ours
        ("9.00 9.00 9.00 6/180 4242", 8, 4, True),
        ("", 2, 2, False),
        ("nonsense", 2, 2, False),
    ],
)
def test_what_counts_as_crowded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, machine: int, ours: int, expected: bool
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(cores, "usable", lambda: ours)
    (tmp_path / "loadavg").write_text(text)
    assert cores.crowded(str(tmp_path / "loadavg")) is expected
    assert not cores.crowded(str(tmp_path / "absent"))


@pytest.mark.parametrize("given", [{"GOMP_SPINCOUNT": "12345"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_what_the_user_has_set_stays(given: dict[str, str]) -> None:
    found = displayed(f"import rawrec; {openmp()}", **given)
    assert {name: found[name] for name in given} == given


@pytest.mark.skipif(not Path("/proc/loadavg").is_file(), reason="this system does not say what runs")
def test_after_torch_nothing_is_set() -> None:
    """Here something of its name stands for torch, which takes long to load; without it something is set."""
    code = "before = dict(os.environ); import rawrec; print(dict(os.environ) == before)"
    stands = "import os, sys; sys.modules['torch'] = sys; "
    with others():
        assert run(stands + code).stdout == "True\n" and run("import os; " + code).stdout == "False\n"


# --------------------------------------------------------------------------------------------------------------- cores
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone knows affinity")
def test_cores_are_those_that_the_process_may_run_on() -> None:
    code = "import os, rawrec.cores as c; one = min(os.sched_getaffinity(0)); os.sched_setaffinity(0, {one})"
    assert run(code + "; print(c.usable())").stdout == "1\n"


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_quotas_of_version_2(tmp_path: Path) -> None:
    """Of every group above; `max` is none."""
    where = tmp_path / "where"
    where.write_text("0::/job/step\n")
    group(tmp_path, cpu__max="max 100000\n")
    group(tmp_path / "job", cpu__max="350000 100000\n")
    group(tmp_path / "job" / "step", cpu__max="400000 200000\n")
    assert cores.quotas(str(tmp_path), str(where)) == [3.5, 2.0]
    where.write_text("0::/a/path/of/the/host\n")  # as a container sees it
    group(tmp_path, cpu__max="150000 100000\n")
    assert cores.quotas(str(tmp_path), str(where)) == [1.5]


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quotas_of_version_1(tmp_path: Path, mount: str) -> None:
    where = tmp_path / "where"
    where.write_text("5:cpuset:/x\n4:cpu,cpuacct:/x\n0::/\n")
    group(tmp_path / mount, cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert cores.quotas(str(tmp_path), str(where)) == []
    group(tmp_path / mount / "x", cpu__cfs_quota_us="250000\n", cpu__cfs_period_us="100000\n")
    assert set(cores.quotas(str(tmp_path), str(where))) == {2.5}


def test_files_that_say_nothing(tmp_path: Path) -> None:
    assert cores.quotas(str(tmp_path), str(tmp_path / "none")) == []
    (tmp_path / "where").write_text("0::/\nrubbish\n")
    group(tmp_path, cpu__max="0 0\n")
    assert cores.quotas(str(tmp_path), str(tmp_path / "where")) == []


@pytest.mark.parametrize(("quota", "used"), [(0.5, 1), (1.9, 1), (2.0, 2), (1e9, 3)])
def test_a_quota_limits_cores_and_threads(monkeypatch: pytest.MonkeyPatch, quota: float, used: int) -> None:
    """At least one; never more than a quota pays for, or the kernel stops all of them for the rest of its period."""
    monkeypatch.setattr(cores, "quotas", lambda: [64.0, quota])
    monkeypatch.setattr(cores, "_allowed", lambda: 3)
    assert cores.usable() == used
    for name in (*cores.GIVEN, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    cores.prepare()
    assert os.environ.get("OMP_NUM_THREADS") == (str(used) if used < 3 else None)
    os.environ["OMP_NUM_THREADS"] = "7"
    cores.prepare()
    assert os.environ["OMP_NUM_THREADS"] == "7"


# ------------------------------------------------------------------------------------------------------------ start-up
def test_import_loads_nothing_else() -> None:
    assert run("import rawrec, sys; dir(rawrec); " + LOADED).stdout == "[]\n"


@pytest.mark.parametrize("words", [["--help"], ["import", "--help"], ["train", "--help"]])
def test_help_loads_no_library_of_numbers(words: list[str]) -> None:
    """typer itself loads pydantic, for a command's own options."""
    code = f"import sys; from rawrec import cli; sys.argv = ['rawrec', *{words}]\n"
    code += f"try: cli.main()\nexcept SystemExit: pass\n{LOADED}"
    needed = {"typer", "rich"} if words == ["--help"] else {"typer", "rich", "pydantic"}
    assert set(words_of(run(code).stdout.splitlines()[-1])) <= needed


def words_of(text: str) -> list[str]:
    return [word.strip(" '") for word in text.strip("[]").split(",") if word]


def test_public_names_are_listed() -> None:
    import rawrec

    names = {name for name in dir(rawrec) if not name.startswith("_")}
    assert names == set(rawrec.__all__) == set(rawrec._HOMES)
    for name in rawrec.__all__:
        assert getattr(rawrec, name).__doc__, name


def test_help_of_the_package() -> None:
    import pydoc

    import rawrec

    page = pydoc.plain(pydoc.render_doc(rawrec))
    assert "train(preset" in page and "class Recommender" in page and "Recommenders trained end to end" in page
