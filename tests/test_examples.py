"""The examples, installed as packages of their own and used through the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import forked

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))
FAST = ["train.epochs=1", "train.threads=1", "train.device=cpu", "eval.topk=[5]"]


WHEELS = """
import os, sys
from setuptools import build_meta
wheels, *folders = sys.argv[1:]
for folder in folders:
    os.chdir(folder)
    build_meta.build_wheel(wheels)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all examples installed, metadata and all: their wheels, which are built in one process, unpacked.
    pip takes two for each."""
    folder = tmp_path_factory.mktemp("examples")
    copies = [shutil.copytree(path, folder / path.name) for path in EXAMPLES]
    (folder / "wheels").mkdir()
    command = [sys.executable, "-c", WHEELS, folder / "wheels", *copies]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for wheel in (folder / "wheels").iterdir():
        with ZipFile(wheel) as packed:
            packed.extractall(folder / "site")
    return folder / "site"


def rawrec(*words: object, site: Path | None = None, code: int = 0) -> str:
    """What a command prints; where it is to fail, what it says of that."""
    paths = [str(ROOT / "src"), *([str(site)] if site else [])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rawrec.cli", *map(str, words)]
    done = forked.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_a_model_and_a_metric_of_packages(shop: Path, site: Path, tmp_path: Path) -> None:
    assert {"name": "fism", "kind": "retrieval"}.items() <= {
        line["name"]: line for line in json.loads(rawrec("models", "--json", site=site))
    }["fism"].items()
    table = json.loads(rawrec("settings", "fism", "--json", site=site))
    assert [line["setting"] for line in table] == ["model.name", "model.dim", "model.alpha"]
    assert "did you mean alpha" in rawrec("train", "fism", "model.alfa=1", *to(shop, tmp_path / "x"), site=site, code=2)
    idle = rawrec("train", "fism", "content.image.train=all", *to(shop, tmp_path / "x"), site=site, code=2)
    assert "model fism reads no features" in idle

    words = ["model.dim=8", "train.batch_size=64", "train.metric=f1@5", *FAST, *to(shop, tmp_path / "run")]
    metrics = json.loads(rawrec("train", "fism", *words, "--json", site=site))
    assert 0 < metrics["test"]["precision@5"] <= metrics["test"]["f1@5"] <= metrics["test"]["hit@5"] <= 1
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [(one["name"], one["package"], one["version"]) for one in info["registered"]] == [
        ("fism", "rawrec-fism", "0.1.0"),
        ("f1", "rawrec-f1", "0.1.0"),
    ]
    packages = json.loads((tmp_path / "run" / "environment.json").read_text())["packages"]
    assert packages["rawrec-fism"] == "0.1.0"
    assert json.loads(rawrec("evaluate", tmp_path / "run", "--json", site=site))["test"] == metrics["test"]

    # Where the packages are not installed, it is told which they are.
    said = rawrec("evaluate", tmp_path / "run", code=2)
    assert "model 'fism' of the package rawrec-fism 0.1.0, which is not installed" in said
    assert "metric 'f1' of the package rawrec-f1 0.1.0" in said


def test_a_fusion_an_encoder_and_a_metric_of_packages(shop: Path, site: Path, tmp_path: Path) -> None:
    words = ["content.fusion.kind=gate", "content.image.encoder=tiles", "content.image.size=32", "content.dim=8"]
    words += ["content.image.train=top:1", "content.text.use=false", "eval.metrics=[brier,f1]", "train.metric=brier"]
    out = to(shop, tmp_path / "run")
    metrics = json.loads(rawrec("train", "em3", "model.dim=8", *words, *FAST, *out, "--json", site=site))
    assert 0 < metrics["test"]["brier"] < 0.5 and 0 < metrics["test"]["f1@5"] <= metrics["test"]["hit@5"]
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [one["name"] for one in info["registered"]] == ["gate", "tiles", "brier", "f1"]
    assert info["best_epoch"] == 1


def test_a_head_of_a_package(shop: Path, site: Path, tmp_path: Path) -> None:
    words = ["model.dim=8", "model.layers=1", "model.content=none", *FAST, *to(shop, tmp_path / "run")]
    metrics = json.loads(rawrec("train", "crossed", *words, "--json", site=site))
    assert 0 < metrics["test"]["auc"] < 1
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [one["package"] for one in info["registered"]] == ["rawrec-crossed"]


def test_a_loss_of_a_package(shop: Path, site: Path, tmp_path: Path) -> None:
    given = ["model.dim=8", "model.content=none", *FAST]
    run = ["model.masked_by=user_id", "model.contrast=0.5", *given, *to(shop, tmp_path / "run")]
    metrics = json.loads(rawrec("train", "session", *run, "--json", site=site))
    assert 0 < metrics["test"]["auc"] < 1
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["loss"] == pytest.approx(line["loss/bce"] + 0.5 * line["loss/contrast"]) and line["loss/contrast"] > 0
    said = rawrec("train", "session", *given, *to(shop, tmp_path / "none"), site=site, code=2)
    assert "'session'" in said and not (tmp_path / "none").exists()


def test_a_source_of_a_package(site: Path, tmp_path: Path) -> None:
    assert {"name": "till", "what": "Import the journal of a till: which card bought what and when."}.items() <= {
        line["name"]: line for line in json.loads(rawrec("sources", "--json", site=site))
    }["till"].items()
    assert "till Of the package rawrec-till 0.1.0." in " ".join(rawrec("import", "--help", site=site).split())
    lines = [f"2024-03-{1 + day:02}T09:12 card-{card} milk,item-{day}" for card in range(6) for day in range(10)]
    (tmp_path / "till.log").write_text("\n".join([*lines, "2024-03-09 torn"]))
    (tmp_path / "names.tsv").write_text("milk\tMilk, 1 l\nitem-1\tBread\n")
    words = [
        "--journal",
        tmp_path / "till.log",
        "--names",
        tmp_path / "names.tsv",
        "--out",
        tmp_path / "data",
        "--json",
    ]
    made = json.loads(rawrec("import", "till", *words, site=site))
    assert made["kept"] | {"users": 6, "interactions": 120} == made["kept"]
    assert made["skipped"]["line of till.log that has not 3 parts"]["examples"] == ["till.log:61"]
    assert made["coverage"]["name"]["items"] == 2 and "(rawrec-till 0.1.0)" in made["source"]
    # Without the package the name is unknown, and the dataset is as any other.
    assert "'till' is unknown" in rawrec("import", "till", *words, code=2)
    assert json.loads(rawrec("inspect", tmp_path / "data", "--json"))["counts"]["interactions"] == 120
    said = rawrec("import", "till", "--journal", tmp_path / "no.log", "--out", tmp_path / "x", site=site, code=2)
    assert "source 'till' failed: FileNotFoundError" in said and not (tmp_path / "x").exists()


def test_pages_show_the_examples_as_they_are() -> None:
    shown = {}
    for page in ("adding-a-model.md", "adding-an-encoder.md", "adding-a-source.md"):
        text = (ROOT / "docs" / page).read_text()
        shown |= dict(re.findall(r"<!-- (examples/\S+) -->\n```\w+\n(.*?)\n```", text, re.DOTALL))
    assert {path.parent.name for path in map(Path, shown)} == {path.name for path in EXAMPLES}
    for path, code in shown.items():
        assert code == (ROOT / path).read_text().rstrip(), f"{path} is another than on its page"


def to(data: Path, out: Path) -> list[str]:
    return ["--data", str(data), "--out", str(out)]
