"""What stands before all commands."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata

import pytest

import forked
import rawrec
from rawrec import cli


def versions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["rawrec", "--version"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    return capsys.readouterr().out


def test_versions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = versions(monkeypatch, capsys)
    assert said == (
        f"rawrec {rawrec.__version__} (Python {platform.python_version()}, torch {metadata.version('torch')})\n"
    )


def test_versions_where_torch_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert versions(monkeypatch, capsys).endswith("no torch)\n")


def test_versions_load_nothing() -> None:
    code = "import sys; from rawrec import cli; sys.argv = ['rawrec', '--version']\n"
    code += "try: cli.main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'lance', 'polars', 'pyarrow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_too_few_addresses() -> None:
    """Before anything is imported that needs more."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
    code += "from rawrec import cli; cli.main()"
    done = subprocess.run([sys.executable, "-c", code, "models"], capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(
        "rawrec: this process may use 3,072 MiB of addresses (ulimit -v), and 4,000 are needed"
    )


FEW = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv.pop(1)), {most}))\n"
FEW += "from rawrec import cli; cli.main()"


@pytest.mark.parametrize(("few", "most", "code"), [(20, 20, 2), (20, 4000, 0), (63, 63, 2), (64, 64, 0)])
def test_too_few_open_files(few: int, most: int, code: int) -> None:
    """Nothing is begun; where the system allows more, more are taken."""
    words = [sys.executable, "-c", FEW.format(most=most), str(few), "models"]
    done = forked.run(words, capture_output=True, text=True)
    assert done.returncode == code
    assert (
        not code
        or done.stderr == f"rawrec: this process may open {few} files, and 64 are needed: allow more (ulimit -n 1024)\n"
    )
