"""A finished run and its dataset, in places that nobody may write to, and used by another user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_recommender import TINY

import forked
import other_user
import rawrec

COMMANDS: dict[str, list[str]] = {
    "recommend": ["recommend", "RUN", "--user", "u1", "-k", "3"],
    "similar": ["similar", "RUN", "--item", "p0001", "-k", "3"],
    "evaluate": ["evaluate", "RUN"],
    "report": ["report", "RUN", "--out", "OUT/report.html"],
    "vectors": ["export", "RUN", "--out", "OUT/vectors.parquet"],
    "features": ["export", "RUN", "--to", "features", "--field", "title", "--out", "OUT/title.npy"],
    "lists": ["recommend", "RUN", "--all-users", "OUT/lists.csv"],
    "recbole": ["export", "DATA", "--to", "recbole", "--out", "OUT/recbole"],
    "inspect": ["inspect", "DATA"],
    "validate": ["validate", "DATA"],
    "resume": ["resume", "RUN"],
    "train": ["train", "id", "--data", "DATA", "--out", "OUT/run", "train.epochs=1", "train.threads=1"],
}
REFUSED: dict[str, tuple[list[str], str]] = {
    "report": (["report", "RUN"], "the report cannot be written to RUN/report.html: WHY; name another place"),
    "vectors": (["export", "RUN"], "RUN/vectors.parquet: WHY"),
    "encode": (["encode", "DATA", "--field", "title", "--encoder", "random:bert", "content.title.max_length=4"],
               "DATA/cache: WHY"),
    "split": (["split", "DATA", "--name", "n", "--by", "random_user"],
              "cannot write the dataset DATA: writing is not permitted there"),
}  # fmt: skip
CHILD = """
import io, json, sys, contextlib, tempfile
tempfile.tempdir = None  # what the forked server has found
sys.path.insert(0, sys.argv.pop(1))
import other_user
other_user.become()
from rawrec import cli
said = {}
for name, words in json.loads(sys.argv[1]).items():
    sys.argv = ["rawrec", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
    said[name] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, shop: Path) -> Iterator[tuple[Path, Path]]:
    """A dataset and a run of it, which nobody but root may write to."""
    folder = tmp_path_factory.mktemp("closed")
    shutil.copytree(shop, folder / "shop")
    shutil.rmtree(folder / "shop" / "cache", ignore_errors=True)
    rawrec.train("em3", folder / "shop", folder / "em3", TINY | {"eval.full_ranking": True})
    other_user.close(folder)
    yield folder / "shop", folder / "em3"
    other_user.close(folder, closed=False)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that everybody may write to."""
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    return tmp_path / "out"


def commands(of: dict[str, list[str]], data: Path, run: Path, out: Path) -> dict[str, tuple[int, str, str]]:
    """Exit code, stdout and stderr of each command, done by another user."""
    for path in (data.parent, *data.parent.parents):  # a further pytest, begun since, closes the folder of all
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o555)
    named = {"RUN": str(run), "DATA": str(data), "OUT": str(out)}
    words = {
        name: [*(w if w[:4] != "OUT/" else str(out / w[4:]) for w in (named.get(w, w) for w in line))]
        for name, line in of.items()
    }
    env = {**os.environ, "HOME": "/nonexistent", "TMPDIR": str(out), "MPLCONFIGDIR": str(out)}
    code = [sys.executable, "-c", CHILD, str(Path(__file__).resolve().parents[1]), json.dumps(words)]
    done = forked.run(code, capture_output=True, text=True, env=env)
    if "the right to read everything is not given" in done.stderr:
        pytest.skip("as root, without CAP_DAC_READ_SEARCH")
    assert done.returncode == 0, done.stderr
    return {name: (found[0], found[1], found[2]) for name, found in json.loads(done.stdout.splitlines()[-1]).items()}


def files(folder: Path) -> set[Path]:
    return set(folder.parent.rglob("*"))


def test_a_run_serves_where_nothing_can_be_written(places: tuple[Path, Path], out: Path) -> None:
    data, run = places
    before = files(run)
    for name, (code, _, err) in commands(COMMANDS, data, run, out).items():
        assert code == 0, f"{name}: {err}"
        assert "Traceback" not in err and "encoding" not in err and "made for this process" not in err, f"{name}: {err}"
    assert files(run) == before
    assert {path.name for path in out.iterdir()} >= {"report.html", "vectors.parquet", "title.npy", "lists.csv", "run"}


def test_what_must_be_written_there_is_refused(places: tuple[Path, Path], out: Path) -> None:
    data, run = places
    before = files(run)
    found = commands({name: words for name, (words, _) in REFUSED.items()}, data, run, out)
    for name, (_, expected) in REFUSED.items():
        code, _, err = found[name]
        wanted = expected.replace("RUN", str(run)).replace("DATA", str(data)).replace("WHY", "Permission denied")
        assert code == 2 and wanted in err, f"{name}: {err}"
    assert files(run) == before


def test_without_a_cache_columns_are_made_for_the_process(places: tuple[Path, Path], out: Path) -> None:
    data, run = places
    asked = {"score": COMMANDS["recommend"]}
    expected: Any = commands(asked, data, run, out)["score"][1]
    cache = data / "cache"
    other_user.close(data, closed=False)
    cache.rename(data.parent.parent / "aside")
    other_user.close(data)
    try:
        before = files(run)
        code, said, err = commands(asked, data, run, out)["score"]
        assert (code, said) == (0, expected), err
        assert f"{cache} and {run}/cache cannot be written: what encoders make of the items is made for this" in err
        assert files(run) == before and not list(out.glob("rawrec-*"))
        file = ["encode", str(data), "--field", "title", "--encoder", "random:bert", "--out", "OUT/f.npy"]
        code, said, err = commands({"encode": file}, data, run, out)["encode"]
        assert code == 0 and said.splitlines()[-1].endswith(f"; in {out}/f.npy"), err
    finally:
        other_user.close(data, closed=False)
        (data.parent.parent / "aside").rename(cache)
        other_user.close(data)


def test_a_cache_in_the_run_is_read_where_the_dataset_has_none(places: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = places
    shutil.copytree(data, tmp_path / "shop", ignore=shutil.ignore_patterns("cache"))
    shutil.copytree(run, tmp_path / "em3")
    shutil.copytree(data / "cache", tmp_path / "em3" / "cache")
    other_user.close(tmp_path / "shop", closed=False)
    other_user.close(tmp_path / "em3", closed=False)
    served = rawrec.Recommender.load(tmp_path / "em3", tmp_path / "shop")
    assert served.recommend("u1", k=3) and not (tmp_path / "shop" / "cache").exists()


def test_all_files_are_readable_for_others(places: tuple[Path, Path]) -> None:
    """As the umask lets them be: nothing is made for its owner alone, as temporary files are."""
    umask = os.umask(0)
    os.umask(umask)
    for place in places:
        for path in place.rglob("*"):
            mode = path.stat().st_mode & 0o444
            assert mode == 0o444 & ~umask, path


def test_other_processes_are_told_apart_by_their_rights(places: tuple[Path, Path], out: Path) -> None:
    """The mechanism of these tests: who became another user cannot write."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import other_user; other_user.become(); open(sys.argv[2], 'w')"
    words = [sys.executable, "-c", code, str(Path(__file__).resolve().parents[1]), str(places[1] / "new")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode == 1 and "PermissionError" in done.stderr) or "is not given" in done.stderr
