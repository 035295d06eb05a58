"""`rawrec study em3` on the generated shop: its tables, what goes on, what fails alone, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rawrec
from rawrec import RunStopped, UserError, cli
from rawrec.studies.em3 import published
from rawrec.studies.em3.study import study_em3
from rawrec.studies.folder import Study
from rawrec.training import job, processes
from rawrec.training.runs import RunFolder
from systems import small_dataset

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK: dict[str, Any] = {
    "train.epochs": 1, "train.threads": 1, "train.device": "cpu", "train.precision": "fp32", "train.batch_size": 512,
    "model.dim": 4, "content.dim": 8, "content.image.encoder": "random:conv", "content.image.size": 32,
    "content.text.encoder": "random:bert", "content.text.max_length": 8, "data.history": 4,
}  # fmt: skip
TUNING: dict[str, Any] = {
    "epochs": 1, "size": 32, "max_length": 8, "dim": 8, "threads": 1, "device": "cpu", "batch_size": 16,
    "held_out": 0.3,
}  # fmt: skip


def study(shop: Path, out: Path, tables: Any, **changes: Any) -> Study:
    given: dict[str, Any] = {
        "seeds": 1, "heads": "din", "encoder": "pair:random:conv+random:bert", "settings": QUICK, "finetune": TUNING,
    }  # fmt: skip
    return study_em3(shop, out, tables, **(given | changes))


def rows(done: Study, number: int) -> dict[str, Any]:
    table = next(table for table in done.tables if table.number == number)
    return {row.label: row for group in table.groups for row in group}


def configs(done: Study) -> dict[str, Any]:
    return {point["words"]: RunFolder(done.path / point["runs"][0]).config() for point in done.found["points"]}


def test_baselines_beside_em3(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    done = study(shop, tmp_path / "s", [1], heads="din,rankmixer", seeds=2)
    assert len(tasks) == 2 * 2 * 2
    found = rows(done, 1)
    assert list(found) == ["din: baseline", "din: EM3", "rankmixer: baseline", "rankmixer: EM3"]
    for point in done.found["points"]:
        assert point["state"] == "finished" and point["seeds"] == 2
        cfg = RunFolder(done.path / point["runs"][1]).config()
        assert cfg.seed == 1 and cfg.model.name == point["model"] and cfg.model.popularity
        assert (cfg.model.content == "em3") == ("EM3" in point["words"])
    auc = {row["row"]: row["cells"]["auc"]["mean"] for row in done.found["tables"]["table 1"]["rows"]}
    (gain, _) = done.found["tables"]["table 1"]["tests"]
    assert gain["auc_gain"] == pytest.approx(auc["din: EM3"] / auc["din: baseline"] - 1)
    assert gain["interval"][0] <= gain["auc_gain"] <= gain["interval"][1] and 0 <= gain["p"] <= 1
    text = (done.path / "tables.md").read_text()
    assert "| e-com EM3 | 0.7823 | 0.256% |" in text and "95 % of users" in text and "confidential" in text
    assert r"\%" in (done.path / "tables.tex").read_text() and "<svg" in (done.path / "study.html").read_text()
    tasks.clear()
    assert study(shop, tmp_path / "s", [1], heads="din,rankmixer", seeds=1).found == done.found and not tasks


def test_a_study_grows_by_tables(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    """The second table's baseline and full model are those of the first."""
    done = study(shop, tmp_path / "s", "5")
    assert list(rows(done, 5))[:4] == ["baseline", "w/o CIC", "w/ CIC", "w/ CIC, 64 negatives"]
    before = len(tasks)
    done = study(shop, tmp_path / "s", [6])
    assert [task["run"].split("/")[-1].split("-")[0] for task in tasks[before:]] == ["din", "din"]
    assert [table.number for table in done.tables] == [5, 6]
    assert list(rows(done, 6)) == ["baseline", "only item", "only user", "item & user"]
    assert rows(done, 6)["item & user"].cells["auc"].value == rows(done, 5)["w/ CIC"].cells["auc"].value
    sides = {words: cfg.model.content_side for words, cfg in configs(done).items()}
    assert sides["din only item"] == "item" and sides["din only user"] == "user"
    with pytest.raises(UserError, match="a study with paradigm: hybrid, and here it is end_to_end"):
        study(shop, tmp_path / "s", [6], paradigm="end_to_end")


def test_modalities_and_fusions(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    done = study(shop, tmp_path / "s", [2, 3])
    read = {
        words.removeprefix("din "): [name for name, field in cfg.content.fields.items() if field.use]
        for words, cfg in configs(done).items() if cfg.model.content == "em3"
    }  # fmt: skip
    assert set(read["only images"]) & {"title", "description"} == set()
    assert "image" not in read["only texts"] or set(read["only texts"]) >= {"title", "description"}
    assert {"only images", "only texts", "without title", "without description", "all"} <= set(rows(done, 2))
    kinds = {cfg.content.fusion.kind for cfg in configs(done).values()}
    assert kinds == {"concat", "sum", "one_flow", "two_flow", "masked_fq_former", "fqformer"}
    assert all(row.cells for row in rows(done, 3).values())


def test_the_gains_are_split(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    """PE reads the tuned encoder; task-specific PE the content of the run that was trained end to end, item by item."""
    done = study(shop, tmp_path / "s", [7], settings=QUICK | {"content.image.train": "top:1"})
    found = rows(done, 7)
    assert list(found) == ["baseline", "PE", "task-specific PE", "E2E", "E2E, encoders too"]
    assert all(row.cells for row in found.values()), done.notes
    runs = {point["words"]: done.path / point["runs"][0] for point in done.found["points"]}
    cfg = configs(done)
    assert cfg["din PE"].content.fields["item"].encoder == str(done.path / "encoders" / "tuned")
    assert cfg["din PE"].paradigm == cfg["din task-specific PE"].paradigm == "frozen"
    ends, frozen = runs["din E2E"], RunFolder(runs["din task-specific PE"]).dataset()
    content = rawrec.Recommender.load(ends).embed([str(item) for item in frozen.item_ids])
    assert np.array_equal(frozen.feature("content")[0], content) and content.any()
    assert frozen.fields.image == [] and frozen.n_items == rawrec.Dataset.open(shop).n_items
    tasks.clear()
    assert study(shop, tmp_path / "s", [7], settings=QUICK | {"content.image.train": "top:1"}).found == done.found
    assert not tasks


def test_lengths_with_and_without_lora(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    settings = QUICK | {"train.epochs": 2}
    done = study(shop, tmp_path / "s", [4], lengths=[6, 3], handover="epoch:1", settings=settings)
    assert list(rows(done, 4)) == ["baseline", "length=3 w/o LoRA", "length=6 w/o LoRA", "length=6 w/ LoRA"]
    assert all(row.cells for row in rows(done, 4).values()), done.notes
    cfg = configs(done)["din length=6 w/ LoRA"]
    assert (cfg.data.history, cfg.content.lora.history, cfg.content.lora.handover) == (3, 6, "epoch:1")


def test_neighbours_of_rare_and_of_popular_items(shop: Path, tmp_path: Path, tasks: list[Any]) -> None:
    done = study(shop, tmp_path / "s", [8, 9])
    assert len(tasks) == 1 + 3, "the encoder is tuned; the baseline, EM3 and PE are trained"
    popular = rows(done, 9)
    assert list(popular) == ["frozen", "EM3"]
    first, second = (popular[name].cells["similarity"].value.mean for name in popular)
    assert popular["EM3"].cells["gain"].value.mean == pytest.approx(second / first - 1)
    runs = {point["words"]: done.path / point["runs"][0] for point in done.found["points"]}
    made = {name: rawrec.Recommender.load(run) for name, run in runs.items()}
    ids = made["din baseline"].export_vectors(tmp_path / "ids.npy")
    ours, items = np.load(ids), [str(item) for item in rawrec.Dataset.open(shop).item_ids]
    train = np.bincount(made["din EM3"].data.items[made["din EM3"].system.samples.rows(0)], minlength=len(items))
    for name in ("din EM3", "din PE"):
        train *= made[name].embed(items).any(1)  # an item without content is no candidate
    chosen = np.argsort(-train, kind="stable")[: int(np.ceil(0.3 * len(items)))]

    def unit(x: Any) -> Any:
        return x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)

    content, ours = unit(made["din EM3"].embed(items)), unit(ours)
    each = []
    for item in chosen:
        scores = np.where((train > 0) & (np.arange(len(items)) != item), content @ content[item], -np.inf)
        each.append((ours[np.argsort(-scores, kind="stable")[:3]] @ ours[item]).mean())
    assert second == pytest.approx(np.mean(each), abs=1e-4)
    table = next(table for table in done.tables if table.number == 8)
    assert table.empty == "needs items with 1 to 4 training rows" or table.groups
    page = (done.path / "study.html").read_text()
    assert "Figure 4 (b)" in page and "EM3 content" in page and "data:image/jpeg" in page


def test_em3_on_freedom_is_chosen_by_validation_and_beside_it_on_test(tmp_path: Path, tasks: list[Any]) -> None:
    rows_, parts = [], []
    for user in range(16):
        rows_ += [(user, (user % 2 + 2 * (user + i)) % 24, 0, 1.0) for i in range(6)]
        parts += ["train"] * 4 + ["valid", "test"]
    feature = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    data = small_dataset(tmp_path / "data", rows_, 24, feature=feature, parts=parts)
    settings = {"train.epochs": 1, "train.threads": 1, "train.device": "cpu", "model.embedding_size": 4}
    done = study_em3(data, tmp_path / "s", [10], seeds=1, rivals="bpr", settings=settings)
    assert len(tasks) == 1 + 2 * 2 * 2
    found = rows(done, 10)
    assert list(found) == ["bpr", "em3_freedom", "em3_freedom, chosen on test"]
    point = done.found["points"][1]
    values = [tried["recall@20"] for tried in point["tried"]]
    assert point["candidates"] == len(values) == 8
    chosen = next(tried for tried in point["tried"] if tried["settings"] == point["chosen"])
    assert chosen["recall@20"] == max(values)
    tests = [
        json.loads((Path(task["run"]) / "metrics.json").read_text())["test"]["recall@20"]
        for task in tasks if task["model"] == "em3_freedom"
    ]  # fmt: skip
    assert found["em3_freedom, chosen on test"].cells["recall@20"].value.mean == max(tests)
    with pytest.raises(UserError, match="make it in a folder of its own"):
        study_em3(data, tmp_path / "t", [1, 10])
    with pytest.raises(UserError, match="make it in a folder of its own"):
        study_em3(data, tmp_path / "s", [1], seeds=1, rivals="bpr", settings=settings)


def test_a_row_that_fails_is_told_and_the_rest_goes_on(
    shop: Path, tmp_path: Path, tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(model: str, data: str, run: Path, overrides: dict[str, Any], **options: Any) -> RunFolder:
        if overrides.get("model.content_side") == "item":
            raise RunStopped("the loss of step 3 is nan")
        return job.train(model, data, run, overrides, **options)

    with monkeypatch.context() as patch:
        patch.setattr(processes, "train", diverging)
        done = study(shop, tmp_path / "s", [6])
    assert rows(done, 6)["only item"].note == "failed: the loss of step 3 is nan"
    assert rows(done, 6)["only user"].cells and "Failed: din only item" in (done.path / "tables.md").read_text()
    before = len(tasks)
    assert rows(study(shop, tmp_path / "s", [6]), 6)["only item"].cells and len(tasks) == before + 1


def test_mistakes_are_found_before_anything_runs(shop: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tables": [11]}, "--tables 11: there is no table 11"),
        ({"tables": [1], "heads": "vbpr"}, "--heads vbpr: it is no ranker"),
        ({"tables": [1], "heads": "dim"}, "did you mean din"),
        ({"tables": [1], "labels": "bought"}, "--labels bought: the dataset has no such label"),
        ({"tables": [1], "settings": {"seed": 1}}, "use --seeds"),
        ({"tables": [1], "settings": {"train.lrr": 1}}, "train.lrr"),
        ({"tables": [1], "settings": {"model.name": "din"}}, "use --heads"),
        ({"tables": [1], "seeds": 0}, "--seeds 0"),
    ]
    for changes, said in cases:
        with pytest.raises(UserError) as caught:
            study(shop, tmp_path / "s", **changes)
        assert said in str(caught.value), f"{changes}: {said!r} is not in {caught.value}"
    assert not (tmp_path / "s").exists()


def test_the_command(
    shop: Path, tmp_path: Path, tasks: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["rawrec", "study", "em3", "--data", str(shop), "--out", str(tmp_path / "s"),
                                         "--seeds", "1", "--heads", "dot_mlp", *words])  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    settings = [f"{key}={value}" for key, value in QUICK.items()]
    code, out, err = run("--tables", "1", *settings, "bank.live_budget=4")
    assert not code and "Table 1" in out and "dot_mlp: EM3" in out and "2 of 2 runs" in err
    assert "Settings without effect in these runs: bank.live_budget" in err
    code, _, err = run("--tables", "one", *settings)
    assert code == 2 and "--tables one: give numbers" in err
    assert rawrec.study_em3 is study_em3 and json.loads((tmp_path / "s" / "study.json").read_text())["study"] == "em3"


def test_published_gains_are_those_of_the_published_values() -> None:
    """Relative to the table's baseline; the paper cut or rounded its third digit."""
    for number, table in published.figures()["tables"].items():
        base = 1.0
        for label, value, gain in table["rows"]:
            if gain == "-":
                base = float(value)
            else:
                assert 100 * (float(value) / base - 1) == pytest.approx(float(gain[:-1]), abs=0.02), (number, label)
    found = published.of_lists(SimpleNamespace(meta=SimpleNamespace(source="MMRec baby"), n_users=19445))  # type: ignore[arg-type]
    assert found[10].rows[-1] == ["EM3", "0.0646", "0.1032", "0.0336", "0.0435"]
    assert published.of_lists(SimpleNamespace(meta=SimpleNamespace(source="MMRec clothing"), n_users=39387)) == {}  # type: ignore[arg-type]
