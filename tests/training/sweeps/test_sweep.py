"""Sweeps: what they try, what they choose, and that one that was killed goes on as if it had not been."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import forked
import rawrec
from processes_here import Here
from rawrec import RunStopped, UserError, cli
from rawrec.data.dataset import Dataset
from rawrec.training import job, processes
from rawrec.training.runs import RunFolder
from rawrec.training.sweeps.sweep import BY_TEST, sweep
from rawrec.training.sweeps.trial import MedianRule, Pruned, Trial, read_trials, write_trial
from systems import small_dataset

FIXED: dict[str, Any] = {
    "train.epochs": 2,
    "train.batch_size": 64,
    "train.threads": 1,
    "train.device": "cpu",
    "eval.topk": [3],
    "train.metric": "recall@3",
    "model.embedding_size": 4,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users like items of their parity."""
    rows, parts = [], []
    for user in range(16):
        liked = [(user % 2 + 2 * (user + i)) % 12 for i in range(6)]
        rows += [(user, item, 0, 1.0) for item in liked]
        parts += ["train"] * 4 + ["valid", "test"]
    return small_dataset(tmp_path_factory.mktemp("data") / "graph", rows, 12, parts=parts)


def settings(data: Dataset, out: Path, **changes: Any) -> dict[str, Any]:
    """A small grid, with changes."""
    grid = {"model.reg_weight": [0.0, 0.1], "train.lr": [0.001, 0.05]}
    base = {"model": "bpr", "data": str(data.path), "out": str(out), "fixed": FIXED, "search": grid}
    return base | changes


def digest(out: Path) -> dict[str, str]:
    """What a sweep folder says and holds, but for times."""
    found = {p.name: hashlib.sha256((p / "model.safetensors").read_bytes()).hexdigest() for p in out.glob("runs/*")}
    trials = {f"trial {t.number}": repr(t) for t in read_trials(out / "trials.jsonl")}
    return found | trials | {"sweep.json": (out / "sweep.json").read_text()}


# ----------------------------------------------------------------------------------------------------------------- grid
def test_a_grid_chooses_by_the_mean_of_its_seeds(data: Dataset, tmp_path: Path, tasks: list[Any]) -> None:
    said: list[Any] = []
    out = tmp_path / "s"
    result = sweep(settings(data, out, seeds=[0, 3]), observer=lambda event, **values: said.append(values))
    points = [{"model.reg_weight": reg, "train.lr": lr} for reg in (0.0, 0.1) for lr in (0.001, 0.05)]
    trials = read_trials(out / "trials.jsonl")
    assert [t.overrides for t in trials] == points and {t.state for t in trials} == {"finished"}
    assert len(tasks) == 8 == len(list((out / "runs").iterdir())) and len({t.name for t in trials}) == 4
    assert [(v["done"], v["total"]) for v in said] == [(i, 4) for i in range(1, 5)]

    def metric(t: Trial, part: str) -> float:
        texts = [(out / "runs" / f"{t.name}-seed{s}" / "metrics.json").read_text() for s in (0, 3)]
        return sum(json.loads(text)[part]["recall@3"] for text in texts) / 2

    assert [t.value for t in trials] == pytest.approx([metric(t, "valid") for t in trials])
    for key, part in (("best", "valid"), ("best_by_test", "test")):
        best = max(trials, key=lambda t: metric(t, part))
        assert metric(trials[result[key]["trial"]], part) == metric(best, part)
        assert result[key]["overrides"] == trials[result[key]["trial"]].overrides
        assert result[key]["test"]["recall@3"]["mean"] == pytest.approx(metric(trials[result[key]["trial"]], "test"))
    assert result["best"]["choice"] == "chosen by validation" and "chosen by test" in result["best_by_test"]["choice"]
    assert result == json.loads((out / "sweep.json").read_text()) and result["metric"] == "recall@3"
    run = RunFolder.open(out / result["best"]["runs"][1])
    assert run.config().seed == 3 and run.config().train.lr == result["best"]["overrides"]["train.lr"]
    assert len(run.metrics_lines()) == len(trials[0].curve) == 2
    assert yaml.safe_load((out / "sweep.yaml").read_text())["metric"] == "recall@3"
    rawrec.compare(list((out / "runs").iterdir()), metrics=["recall@3"])

    before = digest(out)
    assert sweep(out / "sweep.yaml") == result and len(tasks) == 8 and digest(out) == before


def test_losses_are_chosen_low(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    fixed = {"train.epochs": 1, "train.threads": 1, "train.metric": "logloss"}
    given = {"model": "id", "data": str(shop), "out": str(tmp_path / "s"), "fixed": fixed}
    result = sweep(given | {"search": {"train.lr": [1e-5, 0.01]}})
    values = [t.value or 0 for t in read_trials(tmp_path / "s" / "trials.jsonl")]
    assert values[result["best"]["trial"]] == min(values) < max(values)
    assert [entry["valid"]["mean"] for entry in result["ranking"]] == sorted(values)


# ----------------------------------------------------------------------------------------------------------- going on
class Stop(Exception):
    pass


def stopping_after(events: int) -> Callable[..., None]:
    left = [events]

    def observe(event: str, **values: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise Stop

    return observe


@pytest.mark.parametrize("method", ["grid", "optuna"])
def test_stopped_anywhere_it_goes_on_as_if_it_had_not(
    data: Dataset, tmp_path: Path, tasks: list[Any], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    more: dict[str, Any] = {"seeds": [0, 1]}
    if method == "optuna":
        search = {"train.lr": {"low": "1e-4", "high": 0.1, "log": True}, "model.reg_weight": [0.0, 0.1]}
        more |= {"method": "optuna", "trials": 3, "search": search}
    sweep(settings(data, tmp_path / "whole", **more))
    whole = digest(tmp_path / "whole")
    given = settings(data, tmp_path / "s", **more)
    for events in (4, 9, 12):  # within the first run, within a later one, within the next trial
        with monkeypatch.context() as patch:
            observer = stopping_after(events)
            patch.setattr(processes, "train", lambda *a, o=observer, **k: job.train(*a, **{**k, "observer": o}))
            with pytest.raises(Stop):
                sweep(given)
        assert not (tmp_path / "s" / "sweep.json").exists()
    with (tmp_path / "s" / "trials.jsonl").open("a") as journal:
        journal.write('{"number": 1, "na')  # killed while it wrote
    (tmp_path / "s" / "runs" / f"{read_trials(tmp_path / 's' / 'trials.jsonl')[-1].name}-seed1").mkdir(exist_ok=True)
    sweep(given)
    assert digest(tmp_path / "s") == whole


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells of the end of a process that is no child")
def test_killed_with_its_processes(data: Dataset, tmp_path: Path, tasks: list[Any]) -> None:
    """A sweep that is killed takes its run with it; the same command ends it (here), and the run is whole."""
    fixed = FIXED | {"train.epochs": 150, "train.patience": 150}
    given = settings(data, tmp_path / "s", fixed=fixed, search={"train.lr": [0.05]}, jobs=2)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "rawrec.cli", "sweep", str(tmp_path / "sweep.yaml")]
    process = forked.Process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def epochs() -> int:
        return sum(len(path.read_text().splitlines()) for path in tmp_path.glob("s/runs/*/metrics.jsonl"))

    while process.poll() is None and not epochs() > 9:
        time.sleep(0.02)
    (run,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    running = os.pidfd_open(int(run))
    process.kill()
    process.wait()
    ended, _, _ = select.select([running], [], [], 60)  # seconds
    os.close(running)
    assert ended, f"the run's process {run} goes on without its sweep"
    assert 9 < epochs() < 150
    result = sweep(given)
    assert result["trials"] == {"finished": 1, "pruned": 0, "failed": 0}
    overrides = fixed | result["best"]["overrides"] | {"seed": 0}
    alone = job.train("bpr", data, tmp_path / "alone", overrides)
    names = [tmp_path / "s" / result["best"]["runs"][0], alone.path]
    one, other = (hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest() for path in names)
    assert one == other


# ------------------------------------------------------------------------------------------------------------- optuna
def test_optuna_stays_within_ranges_and_repeats_itself(data: Dataset, tmp_path: Path, tasks: list[Any]) -> None:
    search = {
        "train.lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "model.embedding_size": {"low": 2, "high": 5},
        "model.reg_weight": {"low": 0, "high": 1},
        "train.batch_size": {"low": 32, "high": 64, "type": "int"},
    }
    fixed = {key: value for key, value in FIXED.items() if key not in search} | {"train.epochs": 1}
    given = settings(data, tmp_path / "a", method="optuna", trials=13, search=search, fixed=fixed)
    sweep(given)
    tried = [t.overrides for t in read_trials(tmp_path / "a" / "trials.jsonl")]
    assert len(tried) == 13
    for point in tried:
        assert 1e-3 <= point["train.lr"] <= 0.1 and 0 <= point["model.reg_weight"] <= 1
        assert point["model.embedding_size"] in (2, 3, 4, 5) and isinstance(point["train.batch_size"], int)
    assert any(point["model.reg_weight"] not in (0, 1) for point in tried)
    sweep(given | {"out": str(tmp_path / "b"), "trials": 11})
    sweep(given | {"out": str(tmp_path / "b")})  # more of the same
    assert [t.overrides for t in read_trials(tmp_path / "b" / "trials.jsonl")] == tried


def test_no_point_is_tried_twice(data: Dataset, tmp_path: Path, tasks: list[Any]) -> None:
    result = sweep(settings(data, tmp_path / "s", method="optuna", trials=9))
    assert result["trials"]["finished"] == 4 == len(tasks)


# ------------------------------------------------------------------------------------------------- pruning and failing
def finished_trials(path: Path, curves: list[list[float]]) -> None:
    for number, curve in enumerate(curves):
        write_trial(path, Trial(number, str(number), {}, state="finished", valid=[max(curve)], curve=[*curve]))


def test_the_median_rule(tmp_path: Path) -> None:
    finished_trials(tmp_path / "t", [[0.1 * k, 0.2 * k, 0.3 * k] for k in range(1, 6)])  # medians .3, .6, .9
    run = RunFolder(tmp_path)

    def pruned(values: list[float], lower: bool = False, trials: str = "t", warmup: int = 0) -> bool:
        lines = [json.dumps({"valid/recall@3": value}) + "\n" for value in values]
        (tmp_path / "metrics.jsonl").write_text("".join(lines))
        try:
            MedianRule(run.path, str(tmp_path / trials), "recall@3", lower, warmup)("validated")
        except Pruned:
            return True
        return False

    assert pruned([0.29]) and not pruned([0.31]) and pruned([0.5, 0.59]) and not pruned([0.61, 0.1])
    assert not pruned([0.31], lower=True) is pruned([0.29], lower=True) is False
    assert pruned([0.29, 0.29], warmup=1) and not pruned([0.29], warmup=1)
    finished_trials(tmp_path / "few", [[1.0]] * 4)
    assert not pruned([0.0], trials="few") and not pruned([0.0], trials="none")
    MedianRule(run.path, str(tmp_path / "t"), "recall@3", False, 0)("step")


def test_a_pruned_trial_is_no_failure(data: Dataset, tmp_path: Path, tasks: list[Any]) -> None:
    """The last trial cannot learn: it is stopped, its other seed never starts, and it is not in the choice."""
    fixed = {key: value for key, value in FIXED.items() if key != "train.threads"}
    fixed |= {"train.epochs": 6, "train.patience": 3}
    search = {"train.lr": [0.05, 0.051, 0.052, 0.053, 0.054, 1e-9]}
    result = sweep(settings(data, tmp_path / "s", fixed=fixed, search=search, seeds=[0, 1], pruning=True))
    assert all(task["overrides"]["train.threads"] >= 1 for task in tasks)
    last = read_trials(tmp_path / "s" / "trials.jsonl")[-1]
    assert last.state == "pruned" and last.value is None and 3 < len(last.curve) < 6
    assert result["trials"]["pruned"] >= 1 and last.number not in [entry["trial"] for entry in result["ranking"]]
    assert [task["overrides"]["seed"] for task in tasks].count(1) == result["trials"]["finished"]
    assert all((task["pruning"] is None) == (task["overrides"]["seed"] == 1) for task in tasks)
    run = tmp_path / "s" / "runs" / f"{last.name}-seed0"
    assert RunFolder(run).info()["pruned"] is True and "pruned" in (run / "log.txt").read_text()
    with pytest.raises(UserError, match="pruned"):
        rawrec.compare([run, tmp_path / "s" / result["best"]["runs"][0]])
    assert job.resume(run).info()["finished"]  # nothing is lost


def test_a_run_that_diverges_fails_alone(
    data: Dataset, tmp_path: Path, tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(model: str, data: str, run: Path, overrides: dict[str, Any], **options: Any) -> RunFolder:
        if overrides["train.lr"] == 0.05:
            raise RunStopped("the loss of step 3 is nan")
        return job.train(model, data, run, overrides, **options)

    monkeypatch.setattr(processes, "train", diverging)
    result = sweep(settings(data, tmp_path / "s", seeds=[0, 1]))
    trials = read_trials(tmp_path / "s" / "trials.jsonl")
    assert [t.state for t in trials] == ["finished", "failed"] * 2 and "nan" in trials[1].reason
    assert result["trials"] == {"finished": 2, "pruned": 0, "failed": 2} and len(tasks) == 6
    with pytest.raises(RunStopped, match="step 3 is nan"):
        sweep(settings(data, tmp_path / "none", search={"train.lr": [0.05]}))


def test_what_all_runs_would_refuse_is_told_at_once(data: Dataset, tmp_path: Path, tasks: list[Any]) -> None:
    with pytest.raises(UserError, match="bpr"):  # the dataset has no features
        sweep(settings(data, tmp_path / "s", model="vbpr", fixed=FIXED, search={"train.lr": [0.1, 0.2]}))
    assert len(tasks) == 1


def test_a_process_that_dies_stops_the_sweep(
    data: Dataset, tmp_path: Path, tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Here, "returncode", -9)
        with pytest.raises(RunStopped, match=r"exit code -9: see .*logs.*fewer jobs"):
            sweep(settings(data, tmp_path / "s"))
    assert sweep(settings(data, tmp_path / "s"))["trials"]["finished"] == 4


# ------------------------------------------------------------------------------------------------------------- mistakes
def test_a_full_disk_is_told_with_its_place(
    data: Dataset, tmp_path: Path, tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of an exit code; the same command goes on."""
    train = processes.train

    def full(*given: Any, **more: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "s" / "runs" / "model.safetensors"))

    monkeypatch.setattr(processes, "train", full)
    with pytest.raises(RunStopped) as caught:
        sweep(settings(data, tmp_path / "s"))
    assert f"No space left on device: {tmp_path / 's' / 'runs'}" in str(caught.value)
    assert "goes on with the sweep" in str(caught.value) and "memory" not in str(caught.value)
    monkeypatch.setattr(processes, "train", train)
    assert sweep(settings(data, tmp_path / "s"))["best"]


def test_mistakes_are_found_before_anything_runs(data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "s"
    lr = {"low": 0.001, "high": 0.1}
    optuna: dict[str, Any] = {"method": "optuna", "trials": 3}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"serach": {}}, "did you mean search"),
        ({"model": "lightgnc"}, "did you mean lightgcn"),
        ({"data": str(tmp_path / "gone")}, "gone"),
        ({"search": {}}, "search"),
        ({"search": {"train.lr": []}}, "train.lr"),
        ({"search": {"train.lr": 0.1}}, "valid list"),
        ({"search": {"train.lrr": [0.1]}}, "did you mean lr"),
        ({"search": {"train.lr": [0.1, -1]}}, "train.lr=-1"),
        ({"search": {"train.lr": [0.1], "model.n_layers": [1]}}, "n_layers"),
        ({"search": {"train.id_weight_decay": [0.5, 0.9]}}, "would do nothing"),
        ({"model": "mmgcn", "search": {"model.reg_weight": [0.1, 1.0]}}, "would do nothing: ids and preferences"),
        ({"search": {"seed": [1, 2]}}, "seeds"),
        ({"fixed": {"seed": 1}}, "seeds"),
        ({"fixed": FIXED | {"train.lr": 0.1}}, "train.lr is given in fixed and in search: 0.1 and [0.001, 0.05]"),
        ({"fixed": FIXED | {"train": {"lr": 0.1}}}, "train.lr is given twice: 0.1 and 0.001"),
        ({"fixed": FIXED | {"model": {"embedding_size": 8}}}, "model.embedding_size is given twice: 4 and 8"),
        ({"fixed": FIXED | {"data.split": "nope"}}, "Known: default"),
        ({"fixed": FIXED | {"data.label": "nope"}}, "nope"),
        ({"search": {"train.lr": lr}}, "method: optuna"),
        ({"trials": 3}, "as many trials as points"),
        ({"method": "optuna"}, "trials"),
        (optuna | {"search": {"train.lr": {"low": 0, "high": 0.1}}}, "train.lr=0"),
        (optuna | {"search": {"train.lr": lr | {"low": 0.2}}}, "below"),
        (optuna | {"search": {"train.lr": {"low": 0, "high": 0.1, "log": True}}}, "logarithm"),
        (optuna | {"search": {"train.lr": lr | {"type": "int"}}}, "whole numbers"),
        (optuna | {"search": {"train.lr": lr | {"step": 2}}}, "Known: low, high, log, type"),
        (optuna | {"search": {"train.lr": {"low": 0.1}}}, "train.lr.high is missing"),
        (optuna | {"fixed": {}, "search": {"model.embedding_size": {"low": 0, "high": 4}}}, "embedding_size=0"),
        (optuna | {"fixed": {}, "search": {"train.epochs": {"low": 8, "high": 9, "type": "float"}}}, "epochs=8.6"),
        ({"seeds": []}, "seeds"),
        ({"seeds": 3}, "seeds=3"),
        ({"seeds": [1, 1]}, "twice"),
        ({"jobs": 0}, "jobs"),
        ({"metric": "auc"}, "judged by lists"),
        ({"metric": "recall@20"}, "recall@3"),
        ({"metric": "ndcg@3", "pruning": True}, "add train.metric: ndcg@3"),
        ({"search": {"train.metric": ["recall@3", "ndcg@3"]}, "fixed": {"eval.topk": [3]}}, "give `metric`"),
    ]
    for changes, said in cases:
        with pytest.raises(UserError) as caught:
            sweep(settings(data, out) | changes)
        assert said in str(caught.value), f"{changes}: {said!r} is not in {caught.value}"
    assert not out.exists()


def test_a_file_that_is_no_sweep(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    for text, said in [("- a", "key: value"), ("a: [", "not valid YAML"), ("model: bpr", "data is missing")]:
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            sweep(path)
    with pytest.raises(UserError, match="cannot be read"):
        sweep(tmp_path / "none.yaml")


def test_a_refused_sweep_leaves_what_was_there(data: Dataset, tmp_path: Path, tasks: list[Any]) -> None:
    """Nothing; an empty folder; or the sweep that it would have replaced."""
    refused = settings(data, tmp_path / "deep" / "s", model="vbpr", search={"train.lr": [0.01]})  # it has no features
    with pytest.raises(UserError, match="vbpr"):
        sweep(refused)
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="vbpr"):
        sweep(refused | {"out": str(tmp_path / "empty")})
    assert not list((tmp_path / "empty").iterdir())
    out = tmp_path / "s"
    before = sweep(settings(data, out, search={"train.lr": [0.01]}))
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="vbpr"):
        sweep(refused | {"out": str(out)}, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files
    assert sweep(settings(data, out, search={"train.lr": [0.01]})) == before


def test_folders_in_the_way(data: Dataset, tmp_path: Path, tasks: list[Any]) -> None:
    out = tmp_path / "s"
    given = settings(data, out, search={"train.lr": [0.01]})
    sweep(given)
    with pytest.raises(UserError, match="holds another sweep, with search"):
        sweep(settings(data, out, search={"train.lr": [0.02]}))
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="running in"):
            sweep(given)
    with pytest.raises(UserError, match="no sweep folder"):
        sweep(settings(data, data.path))
    again = sweep(settings(data, out, search={"train.lr": [0.02]}), overwrite=True)
    assert again["best"]["overrides"] == {"train.lr": 0.02} and len(list((out / "runs").iterdir())) == 1
    (out / "trials.jsonl").write_text('{"number": 0}\n')
    with pytest.raises(UserError, match="damaged"):
        sweep(out / "sweep.yaml")


def test_the_command_shows_test_only_for_the_chosen(
    data: Dataset, tmp_path: Path, tasks: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(settings(data, tmp_path / "s")))
    monkeypatch.setattr("sys.argv", ["rawrec", "sweep", str(path), "--jobs", "2"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    out, err = capsys.readouterr()
    shown = 1 if "the same trial" in out else 2
    assert out.count("test recall@3") == shown and BY_TEST in out and "chosen by validation" in out
    assert "4 of 4" in err and "the best so far" in err and "train.lr=0.05" in out
    assert yaml.safe_load((tmp_path / "s" / "sweep.yaml").read_text())["jobs"] == 2
    assert os.listdir(tmp_path / "s" / "logs")  # noqa: PTH208
