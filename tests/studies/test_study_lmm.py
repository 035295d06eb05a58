"""`rawrec study lmm` on the generated shop: what is run, what goes on after a kill, what fails alone, mistakes."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import rawrec
from processes_here import Here
from rawrec import RunStopped, UserError, cli
from rawrec.data.dataset import Dataset
from rawrec.studies.folder import Study
from rawrec.studies.lmm.study import study_lmm
from rawrec.training import job, processes
from rawrec.training.runs import RunFolder
from systems import small_dataset

pytestmark = pytest.mark.usefixtures("undrawn")

APART = "random:conv+random:bert"
PAIR = f"pair:{APART}"
QUICK: dict[str, Any] = {
    "train.epochs": 2, "train.threads": 1, "train.device": "cpu", "train.precision": "fp32", "train.batch_size": 256,
    "model.embedding_size": 4, "content.image.size": 32, "content.text.max_length": 8, "bank.live_budget": 16,
}  # fmt: skip
TUNING: dict[str, Any] = {
    "epochs": 1, "size": 32, "max_length": 8, "dim": 8, "threads": 1, "device": "cpu", "batch_size": 16,
    "held_out": 0.3,
}  # fmt: skip


def study(shop: Path, out: Path, **changes: Any) -> Study:
    given: dict[str, Any] = {
        "models": "vbpr", "encoders": APART, "paradigms": "pretrained", "seeds": 1, "encoder_lrs": [1e-3, 1e-2],
        "settings": QUICK, "finetune": TUNING,
    }  # fmt: skip
    return study_lmm(shop, out, **(given | changes))


def points(found: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    keys = ("model", "encoder", "paradigm", "modalities")
    return {tuple(point[key] for key in keys): point for point in found["points"]}


class Stop(Exception):
    pass


def stopping_after(events: int) -> Callable[..., None]:
    left = [events]

    def observe(event: str, **values: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise Stop

    return observe


# -------------------------------------------------------------------------------------------------------------- running
GRID: dict[str, Any] = {
    "models": "vbpr,mmgcl,bpr", "encoders": f"{APART},{PAIR}", "paradigms": "pretrained,two_stage,end_to_end",
}  # fmt: skip


def test_a_study_that_was_killed_goes_on_as_if_it_had_not(
    shop: Path,
    tmp_path: Path,
    tasks: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {key: value for key, value in QUICK.items() if key != "model.embedding_size"}
    more = GRID | {"settings": settings, "encoder_lrs": [1e-2]}
    whole = study(shop, tmp_path / "whole", **more)
    found = points(whole.found)
    assert len(found) == 2 * 2 * 3 + 1
    states = {key[1:3]: point["state"] for key, point in found.items()}
    assert states == {
        (None, None): "finished", (APART, "pretrained"): "finished", (APART, "two_stage"): "undefined",
        (APART, "end_to_end"): "finished", (PAIR, "pretrained"): "undefined", (PAIR, "two_stage"): "finished",
        (PAIR, "end_to_end"): "finished",
    }  # fmt: skip
    tuned = [task for task in tasks if "encoder" in task]
    assert [task["encoder"] for task in tuned] == [PAIR], "once, whatever the number of models"
    trained = [task for task in tasks if "encoder" not in task]
    assert len(trained) == 2 * (1 + 1 + 1 + 1) + 1
    assert len({task["run"] for task in trained}) == len(trained)
    tuned_run = next(key for key in found if key[1:3] == (PAIR, "two_stage"))
    cfg = RunFolder(whole.path / found[tuned_run]["runs"][0]).config()
    assert cfg.content.fields["item"].encoder == str(whole.path / "encoders" / whole.found["encoders"][1]["tuned"][9:])
    assert cfg.eval.protocol == "mmrec" and cfg.train.patience == 50

    tasks.clear()
    for events in (3, 25):  # while the pair is tuned, and in later runs
        with monkeypatch.context() as patch:
            observer = stopping_after(events)
            for name in ("train", "finetune"):
                work = getattr(job, name)
                patch.setattr(processes, name, lambda *a, w=work, o=observer, **k: w(*a, **{**k, "observer": o}))
            with pytest.raises(Stop):
                study(shop, tmp_path / "s", **more)
        assert not (tmp_path / "s" / "study.json").exists()
    again = study(shop, tmp_path / "s", **more)
    assert again.found == whole.found
    assert (tmp_path / "s" / "tables.md").read_text() == (tmp_path / "whole" / "tables.md").read_text()
    tasks.clear()
    assert study(shop, tmp_path / "s", **more).found == whole.found and not tasks

    page = (whole.path / "study.html").read_text()
    ET.fromstring(well_formed(page))
    assert not re.search(r"(src|href|url)\W+http", page) and page.count("<svg") == 4
    text = (whole.path / "tables.md").read_text()
    assert "## Table 4" in text and f"vbpr {APART}-ETE" in text and "not defined: two encoders apart" in text
    assert "The data is generated" in text and "the split default is time_global" in text
    latex = (whole.path / "tables.tex").read_text()
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 4 and r"random:conv+random:bert-ETE" in latex


def well_formed(page: str) -> str:
    """HTML as XML: elements that have no end get one, and the script, which is no XML, is left out."""
    page = re.sub(r"(<script\b[^>]*>).*?(</script>)", r"\1\2", page, flags=re.DOTALL)
    return re.sub(r"<(meta|img)\b([^>]*[^/])>", r"<\1\2/>", page).replace("<!doctype html>", "")


def test_the_grid_grows_and_settings_stay(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    out = tmp_path / "s"
    first = study(shop, out)
    assert len(tasks) == 1
    second = study(shop, out, modalities="V,T", seeds=2)
    assert len(tasks) == 5 and len(points(second.found)) == 3
    keys = [(*key[:3], read) for key in points(first.found) for read in ("VT", "V", "T")]
    found = points(second.found)
    assert [found[key]["seeds"] for key in keys] == [1, 2, 2]
    assert found[keys[0]] == points(first.found)[keys[0]]
    for key, used in zip(keys, (["image", "title", "description"], ["image"], ["title", "description"]), strict=True):
        fields = RunFolder(out / found[key]["runs"][-1]).config().content.fields
        assert [name for name in ("image", "title", "description") if fields[name].use] == used
    table = second.tables[0]
    assert [row.label for row in table.groups[0]] == ["vbpr (V&T)", "vbpr (V)", "vbpr (T)"]
    assert [row.seeds for row in table.groups[0]] == [1, 2, 2]
    assert found[keys[1]]["test"]["ndcg@20"]["deviation"] is not None
    assert study(shop, out, seeds=2).found["points"][0]["seeds"] == 2 and len(tasks) == 6
    assert [part["seeds"] for part in yaml.safe_load((out / "study.yaml").read_text())["grid"]] == [1, 2, 2]
    for changes, said in (
        ({"encoder_lrs": [1e-3]}, "a study with encoder_lrs: 0.001, 0.01, and here it is 0.001"),
        ({"settings": QUICK | {"train.epochs": 3}}, "settings: train.epochs=2, and here it is train.epochs=3"),
        ({"protocol": "default"}, "protocol: mmrec"),
        ({"search": {"train.lr": [0.1, 0.2]}}, "search: no train.lr, and here it is train.lr=0.1, 0.2"),
    ):
        with pytest.raises(UserError, match=said):
            study(shop, out, **changes)
    anew = study(shop, out, encoder_lrs=[1e-3], overwrite=True)
    assert len(points(anew.found)) == 1 and len(tasks) == 7


def test_validation_chooses_the_rate_of_every_end_to_end_point(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    done = study(shop, tmp_path / "s", paradigms="end_to_end", modalities="VT,V", seeds=2)
    found = points(done.found)
    assert len(tasks) == 2 * (2 + 1), "two rates with the first seed, the better one with the second"
    for key, point in found.items():
        runs = [RunFolder(path) for path in (done.path / "runs").glob(f"vbpr-*-{key[3]}-*-seed0")]
        scores = {
            run.config().train.encoder_lr: json.loads((run.path / "metrics.json").read_text())["valid"]["recall@20"]
            for run in runs
        }
        assert scores.keys() == {1e-3, 1e-2} and point["candidates"] == 2
        chosen = [RunFolder(done.path / run).config() for run in point["runs"]]
        assert [cfg.seed for cfg in chosen] == [0, 1] and chosen[0].paradigm == "end_to_end"
        assert {cfg.train.encoder_lr for cfg in chosen} == {point["chosen"]["train.encoder_lr"]}
        assert scores[point["chosen"]["train.encoder_lr"]] == max(scores.values())
        assert chosen[0].bank.live_budget == 16 and chosen[0].content.fields["item"].train == "top:1"
        test = [json.loads((done.path / run / "metrics.json").read_text())["test"]["ndcg@20"] for run in point["runs"]]
        assert point["test"]["ndcg@20"]["mean"] == pytest.approx(sum(test) / 2)


def test_search_tunes_every_point_alike(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    more: dict[str, Any] = {"search": {"train.lr": [1e-4, 1e-2], "model.reg_weight": [0.1, 0.0]}, "seeds": 2}
    found = study(shop, tmp_path / "s", models="vbpr,bpr", **more).found
    assert [point["candidates"] for point in found["points"]] == [4, 4] and len(tasks) == 2 * (4 + 1)
    for point in found["points"]:
        settings = [RunFolder(tmp_path / "s" / run).config() for run in point["runs"]]
        assert [cfg.seed for cfg in settings] == [0, 1]
        assert {cfg.train.lr for cfg in settings} == {point["chosen"]["train.lr"]}


def test_a_point_that_fails_is_told_and_the_rest_goes_on(
    shop: Path,
    tmp_path: Path,
    tasks: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[dict[str, Any]] = []

    def diverging(model: str, data: str, run: Path, overrides: dict[str, Any], **options: Any) -> RunFolder:
        if model == "vbpr" or overrides.get("train.encoder_lr") == 1e-2:
            raise RunStopped("the loss of step 3 is nan")
        return job.train(model, data, run, overrides, **options)

    def refusing(*args: Any, **options: Any) -> RunFolder:
        raise UserError("no pair was found")

    with monkeypatch.context() as patch:
        patch.setattr(processes, "train", diverging)
        patch.setattr(processes, "finetune", refusing)
        settings = {key: value for key, value in QUICK.items() if key != "model.embedding_size"}
        more = GRID | {"models": "vbpr,mmgcl", "settings": settings}
        done = study(shop, tmp_path / "s", **more, observer=lambda event, **values: said.append(values))
    found = points(done.found)
    assert {key[0] for key, point in found.items() if point["state"] == "failed" and key[1] == APART} == {"vbpr"}
    assert found["vbpr", APART, "pretrained", "VT"]["reason"] == "the loss of step 3 is nan"
    ending = found["mmgcl", APART, "end_to_end", "VT"]
    assert ending["state"] == "finished" and ending["chosen"] == {"train.encoder_lr": 1e-3}
    assert ending["failed_candidates"] == ["train.encoder_lr=0.01: the loss of step 3 is nan"]
    for paradigm in ("two_stage", "end_to_end"):
        assert found["mmgcl", PAIR, paradigm, "VT"]["reason"] == "its encoder was not tuned: no pair was found"
    assert "failed: the loss of step 3 is nan" in (tmp_path / "s" / "tables.md").read_text()
    assert any(values.get("reason") == "no pair was found" for values in said)
    assert said[2] == {"text": "points: 8; runs: 13, of which 0 are done"}
    said.clear()
    again = study(shop, tmp_path / "s", **more, observer=lambda event, **values: said.append(values))
    assert all(point["state"] != "failed" for point in again.found["points"])
    done = said[2]["text"].split()[6]
    assert [values["done"] for values in said[3:]] == [*range(int(done) + 1, 14)], "what was done is not done again"


def test_a_process_that_dies_fails_alone(
    shop: Path,
    tmp_path: Path,
    tasks: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Here, "returncode", -9)
        (point,) = study(shop, tmp_path / "s").found["points"]
    assert point["state"] == "failed" and "was killed, as where memory ran out" in point["reason"]
    assert study(shop, tmp_path / "s").found["points"][0]["state"] == "finished"


def test_ready_made_features_are_the_baseline(tmp_path: Path, tasks: list[Any]) -> None:
    import numpy as np

    rows, parts = [], []
    for user in range(16):
        rows += [(user, (user % 2 + 2 * (user + i)) % 24, 0, 1.0) for i in range(6)]
        parts += ["train"] * 4 + ["valid", "test"]
    feature = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    data = small_dataset(tmp_path / "data", rows, 24, feature=feature, parts=parts)
    settings = {"train.epochs": 1, "train.threads": 1, "train.device": "cpu", "model.embedding_size": 4}
    done = study_lmm(data, tmp_path / "s", "vbpr", "ready:feature+feature", seeds=1, settings=settings)
    assert [point["state"] for point in done.found["points"]] == ["finished", "undefined", "undefined"]
    with pytest.raises(UserError, match="random:vlmo: a single stream reads pictures together with texts"):
        study_lmm(data, tmp_path / "t", "vbpr", "random:vlmo", seeds=1)
    with pytest.raises(UserError, match=r"no image field.*--encoders ready:feature"):
        study_lmm(data, tmp_path / "t", "vbpr", APART, seeds=1)


def test_the_same_is_not_encoded_twice_at_a_time(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs at a time: one that reads what another still encodes waits until that has begun to train."""
    going: list[Path] = []

    def make(jobs: int, more: Callable[[], Any], ended: Callable[..., None]) -> None:
        going.append(more().task["run"])
        assert more() is None, "the second model waits"
        run = RunFolder(Path(going[0]))
        run.path.mkdir(parents=True)
        (run.path / "run.json").write_text(json.dumps({"parameters": {}}))
        second = more()
        assert second is not None and more() is None
        raise Stop

    monkeypatch.setattr("rawrec.studies.running.make_runs", make)
    settings = {key: value for key, value in QUICK.items() if key != "model.embedding_size"}
    with pytest.raises(Stop):
        study(shop, tmp_path / "s", models="vbpr,mmgcl", jobs=2, settings=settings)


# ------------------------------------------------------------------------------------------------------------- mistakes
def test_mistakes_are_found_before_anything_runs(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"models": "vpbr"}, "did you mean vbpr"),
        ({"models": "em3"}, "--models em3: the study compares lists"),
        ({"models": "vbpr,vbpr"}, "--models vbpr,vbpr: vbpr is named twice"),
        ({"paradigms": "frozen"}, "--paradigms frozen"),
        ({"modalities": "VTA"}, "--modalities VTA"),
        ({"seeds": 0}, "--seeds 0"),
        ({"train": "none"}, "--train none: use top:<n>"),
        ({"protocol": "mmrecs"}, "--protocol mmrecs"),
        ({"encoder_lrs": [0]}, "--encoder-lrs 0"),
        ({"encoders": "random:conv+"}, "give an image and a text encoder"),
        ({"encoders": "random:cnv+random:bert"}, "did you mean random:conv"),
        ({"encoders": "random:bert+random:conv"}, "--encoders random:bert+random:conv: content.image: encoder"),
        ({"encoders": "minilm"}, "does not read fields of kind image"),
        ({"encoders": "clip"}, "--encoders clip: content.image: encoder 'clip' is unknown"),
        ({"encoders": "ready:image+text"}, "no ready-made feature 'image'. It has: none"),
        ({"encoders": PAIR, "paradigms": "two_stage", "finetune": {"epoch": 1}}, "did you mean epochs"),
        ({"encoders": "pair:random:conv+minlm", "paradigms": "two_stage"}, "minlm"),
        ({"encoders": "random:vlmo", "paradigms": "end_to_end", "train": "top:9"}, "--encoders random:vlmo"),
        ({"settings": {"train.lrr": 1}}, "vbpr random:conv+random:bert pretrained VT: train.lrr"),
        ({"settings": {"seed": 1}}, "use --seeds"),
        ({"settings": {"content.item.encoder": "x"}}, "use --encoders"),
        ({"settings": {"content": {"image": {"use": False}}}}, "content.image.use"),
        ({"settings": {"eval.topk": [10]}}, "add 20"),
        ({"search": {"train.lr": [0.1, -1]}}, "train.lr=-1"),
        ({"search": {"train.lr": []}}, "--search"),
        ({"search": {"train.epochs": [1]}}, "train.epochs is given for all runs and in search"),
        ({"finetune": {"seed": 1}}, "finetune: encoder and seed"),
    ]
    for changes, said in cases:
        with pytest.raises(UserError) as caught:
            study(shop, out, **changes)
        assert said in str(caught.value), f"{changes}: {said!r} is not in {caught.value}"
    assert not out.exists()
    with pytest.raises(UserError, match="is no study folder"):
        study(shop, Dataset.open(shop).path)


def test_the_command(
    shop: Path,
    tmp_path: Path,
    tasks: list[Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(
            "sys.argv", ["rawrec", "study", "lmm", "--data", str(shop), "--out", str(tmp_path / "s"), *words]
        )
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    settings = [f"{key}={value}" for key, value in QUICK.items()]
    words = [
        "--models",
        "vbpr",
        "--encoders",
        f"{APART},random:vlmo",
        "--paradigms",
        "pretrained",
        "--seeds",
        "1",
        *settings,
    ]
    code, out, err = run(*words, "--search", "train.lr=1e-3,1e-2")
    assert not code and "Table 3" in out and "vbpr random:vlmo" in out and "study.html" in out
    assert "4 of 4 runs: vbpr random:vlmo pretrained VT train.lr=0.01 seed 0: recall@20 0." in err
    assert "Settings without effect in these runs: bank.live_budget" in err
    code, out, err = run(*words, "--search", "train.lr=1e-3,1e-2", "--json")
    assert not code and json.loads(out) == json.loads((tmp_path / "s" / "study.json").read_text())
    for wrong, said in (
        (["--search", "train.lr"], "give KEY=VALUE,VALUE"),
        (["--encoder-lrs", "fast"], "give numbers"),
        (["--search", "train.lr=1", "--search", "train.lr=2"], "given twice"),
    ):
        code, _, err = run(*words, *wrong)
        assert code == 2 and said in err and "Traceback" not in err
    assert rawrec.study_lmm is study_lmm
