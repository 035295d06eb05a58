"""`make dist`: sdist and wheel in `dist/`, after the wheel was tried as somebody has it who installs it.

The files that git knows are copied, the sdist is built of the copy and the wheel of the unpacked sdist, so that neither
holds what lies about here, and the sdist alone is enough. The wheel goes into a fresh environment, which borrows the
packages that rawrec needs from the one that runs this, and is used from a folder outside the repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path
from sysconfig import get_path

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_{}(sys.argv[1]))"
PLAIN = ("rawrec/", "rawrec-")
"""All that a wheel holds begins so: the package, and what is said of it."""


def run(*words: str | Path, at: Path) -> str:
    """What the command prints; its mistakes are shown, and end this one. Nothing of the repository is on its path."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MAKEFLAGS", "VIRTUAL_ENV")}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
    done = subprocess.run([str(word) for word in words], cwd=at, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(str(word) for word in words)}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def known() -> list[str]:
    """The repository's files: those that git knows, and new ones that it does not ignore.
    Where there is no git, or this is no checkout, all files but those of folders that are made."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        names = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if not _made(path.relative_to(ROOT))]
    return sorted(name for name in set(names) if name and (ROOT / name).is_file() and not (ROOT / name).is_symlink())


def _made(path: Path) -> bool:
    """Whether a file is of something that is made here, or of a tool."""
    tops, words = {"dist", "build", "data", "runs"}, (".", "__pycache__")
    return path.parts[0] in tops or any(part.startswith(words) or part.endswith(".egg-info") for part in path.parts)


def built(what: str, source: Path, out: Path) -> Path:
    """The sdist or the wheel of the sources, without the network."""
    out.mkdir(exist_ok=True)
    return out / run(sys.executable, "-c", BUILD.format(what), out, at=source).splitlines()[-1]


def check_sdist(sdist: Path, names: list[str]) -> None:
    """It has every file of the package and what a reader needs, and no tests."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {n for n in names if n.startswith(("src/", "docs/")) or ("/" not in n and n.endswith((".md", ".cff")))}
    wanted |= {"pyproject.toml", "LICENSE"}
    assert not wanted - held, f"the sdist lacks {sorted(wanted - held)}"
    assert not [name for name in held if name.startswith(("tests", "benchmarks"))], "the sdist holds tests"


def check_wheel(wheel: Path, names: list[str]) -> None:
    """It has every file of the package, also presets, templates and py.typed, nothing else, and says what it is."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        about = next(name for name in held if name.endswith(".dist-info/METADATA"))
        said = message_from_string(archive.read(about).decode())
    wanted = {name.removeprefix("src/") for name in names if name.startswith("src/rawrec/")}
    assert "rawrec/py.typed" in wanted and "rawrec/presets/em3.yaml" in wanted
    assert not wanted - held, f"the wheel lacks {sorted(wanted - held)}: see package-data in pyproject.toml"
    strange = [name for name in held - wanted if not name.startswith(PLAIN[1])]
    assert not strange, f"the wheel holds {strange}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(said.get_all("Provides-Extra", [])) >= {n.replace("_", "-") for n in project["optional-dependencies"]}
    assert said["Requires-Python"] == project["requires-python"] and said["License-Expression"] == project["license"]
    assert any(name.endswith("LICENSE") and ".dist-info/" in name for name in held), "the wheel has no licence"


def try_wheel(wheel: Path, folder: Path) -> str:
    """Install it, import, train; what `--version` says."""
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", at=folder)
    python, rawrec = folder / "venv/bin/python", folder / "venv/bin/rawrec"
    (own,) = (folder / "venv").glob("lib/python*/site-packages")
    install = ("-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", "--no-compile")
    run(sys.executable, *install, wheel, at=folder)
    (own / "borrowed.pth").write_text(get_path("purelib") + "\n")  # behind its own; links of editable ones are not read
    outside = folder / "elsewhere"
    outside.mkdir()
    version = run(rawrec, "--version", at=outside)
    assert wheel.name.split("-")[1] in version, version
    place = run(python, "-c", "import rawrec; print(rawrec.__file__)", at=outside)
    assert place.startswith(str(own)), f"{place} is not the wheel's"
    sizes = ("--items", "30", "--users", "20", "--impressions", "500")
    run(rawrec, "import", "synthetic", "--out", "shop", *sizes, at=outside)
    run(rawrec, "train", "id", "--data", "shop", "--out", "run", "train.epochs=1", at=outside)
    said = json.loads((outside / "run" / "environment.json").read_text())["packages"]["rawrec"]
    assert said == wheel.name.split("-")[1] and (outside / "run" / "metrics.json").is_file()
    return version


def main() -> None:
    names = known()
    with tempfile.TemporaryDirectory(prefix="rawrec-dist-") as name:
        folder = Path(name)
        for file in names:
            if not file.startswith(("tests/", "benchmarks/")):
                (folder / "copy" / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / file, folder / "copy" / file)
        sdist = built("sdist", folder / "copy", folder / "made")
        check_sdist(sdist, names)
        with tarfile.open(sdist) as archive:
            archive.extractall(folder / "unpacked", filter="data")
        (source,) = (folder / "unpacked").iterdir()
        wheel = built("wheel", source, folder / "made")
        check_wheel(wheel, names)
        version = try_wheel(wheel, folder)
        out = ROOT / "dist"
        out.mkdir(exist_ok=True)
        for file in (sdist, wheel):
            shutil.copyfile(file, out / file.name)
            print(f"dist/{file.name}  {file.stat().st_size / 1024:,.0f} KiB")
    print(f"tried outside the repository: {version}")


if __name__ == "__main__":
    main()
