"""`rawrec study lemur` on a generated search: its tables, what goes on, what fails alone, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rawrec
from rawrec import RunStopped, UserError, cli
from rawrec.data.dataset import Dataset
from rawrec.evaluation.significance import paired_bootstrap
from rawrec.sources.synthetic import import_synthetic
from rawrec.studies.folder import Study
from rawrec.studies.gains import gain
from rawrec.studies.lemur import published
from rawrec.studies.lemur.study import study_lemur
from rawrec.studies.resolving import settled
from rawrec.training import job, processes
from rawrec.training.masking import only
from rawrec.training.runs import RunFolder

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK: dict[str, Any] = {
    "train.epochs": 1, "train.threads": 1, "train.device": "cpu", "train.precision": "fp32", "train.batch_size": 512,
    "train.warmup_steps": 0, "train.encoder_lr": 1e-3, "model.dim": 4, "model.tokens": 2, "model.width": 4,
    "content.item.encoder": "joint:tiny", "content.dim": 8, "content.text.max_length": 6, "content.query.max_length": 4,
    "content.image.size": 16, "data.history": 30,
}  # fmt: skip


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "data"
    import_synthetic(out, items=60, users=40, impressions=2000, queries=True, progress=False)
    return out


def study(data: Path, out: Path, tables: Any, **changes: Any) -> Study:
    return study_lemur(data, out, tables, **{"seeds": 1, "settings": QUICK, **changes})


def rows(done: Study, number: int) -> dict[str, Any]:
    table = next(table for table in done.tables if table.number == number)
    return {row.label: row for group in table.groups for row in group}


def points(done: Study) -> dict[str, Any]:
    """By what rows are called, and those of no table by their own name."""
    return {
        name: point
        for point in done.found["points"]
        for name in [row["row"] for row in point["rows"]] or [point["words"]]
    }


def configs(done: Study) -> dict[str, Any]:
    return {name: RunFolder(done.path / one["runs"][0]).config() for name, one in points(done).items()}


def test_settings_that_go_together_are_left_out_together(search: Path) -> None:
    """A model without content has a use for neither; beside the preset's 20 one alone would be a mistake."""
    rates = {"bank.forward_rate": 100, "bank.backward_rate": 100}
    given, _ = settled("lemur", Dataset.open(search), rates, {"model.content": "none"}, "baseline")
    assert given == {"model.content": "none"}
    given, cfg = settled("lemur", Dataset.open(search), rates, {}, "one stage")
    assert given == rates and cfg.bank.backward_rate == 100


@pytest.mark.drawn
def test_part_by_part_and_two_stages(search: Path, tmp_path: Path, tasks: list[Any]) -> None:
    """The second stage reads, seed by seed, what the first learned by its contrast alone, and trains nothing of it."""
    done = study(search, tmp_path / "s", "cumulative,2", seeds=2)
    assert list(rows(done, 1)) == [
        "dot_mlp", "+ rankmixer", "+ sequence over ids", "+ content, without bank", "+ bank: LEMUR"
    ]  # fmt: skip
    assert list(rows(done, 2)) == ["baseline", "two stages", "one stage: LEMUR"]
    assert all(row.cells for number in (1, 2) for row in rows(done, number).values()), done.notes
    assert len(tasks) == 2 * (5 + 2), "the tables share LEMUR and the ranker on ids"
    cfg = configs(done)
    assert cfg["dot_mlp"].model.name == "dot_mlp" and cfg["dot_mlp"].model.content == "none"
    assert [cfg[name].model.id_history for name in ("dot_mlp", "+ rankmixer", "+ sequence over ids")] == [0, 0, 30]
    bare = cfg["+ content, without bank"]
    assert bare.model.lemur.lengths(bare.data.history) == {} and bare.bank.forward_rate == 100
    assert all(one.train.metric == "qauc" and one.model.popularity for one in cfg.values())
    assert cfg["first stage"].model.ranking_gradient is False and cfg["first stage"].paradigm == "end_to_end"
    frozen, found = cfg["two stages"], points(done)
    assert frozen.paradigm == "frozen" and frozen.model.sqdc_weight == 0 and frozen.model.ranking_gradient
    assert frozen.data == cfg["first stage"].data, "both stages learn from the same training part"
    items = [str(item) for item in rawrec.Dataset.open(search).item_ids]
    for first, second in zip(found["first stage"]["runs"], found["two stages"]["runs"], strict=True):
        learned, kept = (rawrec.Recommender.load(done.path / run) for run in (first, second))
        assert kept.run.config().content.fields["item"].encoder == f"joint:{done.path / 'encoders' / Path(first).name}"
        np.testing.assert_allclose(kept.embed(items), learned.embed(items), rtol=1e-5, atol=1e-5)
    text = (done.path / "tables.md").read_text()
    assert (
        "95 % of queries" in text and "| + LEMUR with bank | +1.44 % | +1.85 % |" in text and "no counterpart" in text
    )
    assert r"\%" in (done.path / "tables.tex").read_text() and "<svg" in (done.path / "study.html").read_text()
    tests = {(test["row"], "qauc_gain" in test): test for test in done.found["tables"]["table 1"]["tests"]}
    seeds = [found[row]["test"]["qauc"]["mean"] for row in ("dot_mlp", "+ bank: LEMUR")]
    one = tests["+ bank: LEMUR", True]
    assert one["qauc_gain"] == pytest.approx(seeds[1] / seeds[0] - 1) and 0 <= one["p"] <= 1
    assert one["interval"][0] <= one["qauc_gain"] <= one["interval"][1]
    tasks.clear()
    assert study(search, tmp_path / "s", "1").found == done.found and not tasks


def test_a_killed_study_goes_on_and_grows_by_tables(
    search: Path, tmp_path: Path, tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killing(model: str, data: str, run: Path, overrides: dict[str, Any], **options: Any) -> RunFolder:
        if len(tasks) == 3:
            raise Killed
        return job.train(model, data, run, overrides, **options)

    with monkeypatch.context() as patch:
        patch.setattr(processes, "train", killing)
        with pytest.raises(Killed):
            study(search, tmp_path / "s", [4])
    before = len(tasks)
    done = study(search, tmp_path / "s", [4])
    assert len(tasks) - before == 3, "two of five runs were finished"
    found = rows(done, 4)
    assert list(found) == ["baseline", "100 / 100", "100 / 20", "20 / 20", "10 / 10"]
    encoded, learned = (
        [found[f"{f} / {b}"].cells[f"live/{name}"].value.mean for f, b in ((100, 100), (100, 20), (20, 20), (10, 10))]
        for name in ("encoded", "learned")
    )
    assert encoded[0] == encoded[1] > encoded[2] > encoded[3] and learned[0] > learned[1] == learned[2] > learned[3]
    assert learned[2:] == encoded[2:] and learned[0] == encoded[0]
    assert all(row.cells["step_ms"].value.mean > 0 for row in found.values())
    assert "live/encoded" not in found["baseline"].cells
    tasks.clear()
    done = study(search, tmp_path / "s", [5])
    assert len(tasks) == 3 and [table.number for table in done.tables] == [4, 5]
    found = rows(done, 5)
    oracle, stale, *_ = found.values()
    assert oracle.cells["bank/age_mean"].value.mean == 1 < stale.cells["bank/age_mean"].value.mean
    assert (
        "gain" not in oracle.cells and "stale/qauc" in stale.cells and "oracle" in (done.path / "tables.md").read_text()
    )
    with pytest.raises(UserError, match="a study with head: rankmixer, and here it is dcnv2"):
        study(search, tmp_path / "s", [5], head="dcnv2")


def test_ablations_are_one_change_each(search: Path, tmp_path: Path, tasks: list[Any]) -> None:
    done = study(search, tmp_path / "s", ["ablations"])
    assert all(row.cells for row in rows(done, 3).values()), done.notes
    dumps = {row: cfg.dump() for row, cfg in configs(done).items()}
    full = dumps.pop("LEMUR")
    assert full["model"]["lemur"]["short"] == 20 and full["model"]["sqdc_weight"] > 0

    def changed(one: Any, other: Any, name: str = "") -> list[str]:
        if isinstance(one, dict) and isinstance(other, dict):
            return [key for k in one | other for key in changed(one.get(k), other.get(k), f"{name}.{k}")]
        return [] if one == other else [name[1:]]

    assert {row: changed(full, dump) for row, dump in dumps.items()} == {
        "without the ranker's gradient into the encoder": ["model.ranking_gradient"],
        "without the short sequence": ["model.lemur.short"],
        "without the long sequence": ["model.lemur.long"],
        "without similarity features": ["model.lemur.similarity"],
        "without SQDC": ["model.sqdc_weight"],
        "without SQDC's mask": ["model.sqdc_mask"],
        "with CIC added": ["model.cic_weight"],
        "gradient into histories as well (ours)": ["bank.history_grad"],
    }


def test_pictures_and_texts_alone_together_and_in_part(search: Path, tmp_path: Path, tasks: list[Any]) -> None:
    """What is left out in evaluation changes nothing that is read: it is as if the items had never had it."""
    done = study(search, tmp_path / "s", [6])
    found = rows(done, 6)
    assert list(found)[-2:] == ["pictures and texts, texts read", "pictures and texts, pictures read"]
    assert all(row.cells for row in found.values()), done.notes
    assert len(tasks) == 4
    cfg = configs(done)
    used = {
        row: {name for name, field in cfg[row].content.fields.items() if field.use and name != "item"}
        for row in ("texts alone", "pictures alone", "pictures and texts")
    }
    fields = rawrec.Dataset.open(search).fields
    assert used["texts alone"] == {*fields.text} and used["pictures alone"] == {*fields.image}
    assert used["pictures and texts"] == {*fields.text, *fields.image}
    values = {row: found[row].cells["qauc"].value.mean for row in found}
    assert len({values[row] for row in list(found)[-3:]}) == 3
    rec = rawrec.Recommender.load(done.path / points(done)["pictures and texts"]["runs"][0])
    model = rec.system.item_model
    assert model is not None and rec.system.bank is not None
    ((name, encoder),) = dict(model.raw_encoders()).items()
    data, column = rec.data, rec.system.bank.static[model.column(name)]
    for kind, kept in (("text", fields.text), ("image", fields.image)):
        raw = {f: (data.images if f in fields.image else data.texts)(f, range(40)) for f in model.read_by(name)}
        raw |= {field: [[]] * 40 for field in raw if field not in kept}
        alone = model.raw_columns(raw)[model.column(name)]
        masked = only(column, encoder, kind).select(torch.arange(40))  # type: ignore[arg-type]
        assert masked.ptr.equal(alone.ptr) and masked.values.equal(alone.values)


def test_without_queries_the_tables_judge_by_users(
    shop: Path, tmp_path: Path, tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing row is told; one without a long sequence is not defined."""

    def diverging(model: str, data: str, run: Path, overrides: dict[str, Any], **options: Any) -> RunFolder:
        if overrides.get("model.lemur.similarity") == []:
            raise RunStopped("the loss of step 3 is nan")
        return job.train(model, data, run, overrides, **options)

    settings = {key: value for key, value in QUICK.items() if not key.startswith("content.query")} | {"data.history": 4}
    with monkeypatch.context() as patch:
        patch.setattr(processes, "train", diverging)
        done = study(shop, tmp_path / "s", [3], settings=settings)
    found = rows(done, 3)
    assert found["without similarity features"].note == "failed: the loss of step 3 is nan"
    assert found["without the long sequence"].note.startswith(
        "not defined: data.history=4 has the short sequence alone"
    )
    assert "gauc" in found["LEMUR"].cells and found["without SQDC"].cells
    text = (done.path / "tables.md").read_text()
    assert "95 % of users" in text and "no queries, so GAUC" in text
    before = len(tasks)
    assert rows(study(shop, tmp_path / "s", [3], settings=settings), 3)["without similarity features"].cells
    assert len(tasks) == before + 1


def test_qauc_is_resampled_by_queries(tmp_path: Path) -> None:
    """As GAUC is by users: an interval of queries that were drawn again."""
    import polars as pl

    rng = np.random.default_rng(0)
    n = 400
    frame = pl.DataFrame(
        {"row": np.arange(n), "user": rng.integers(20, size=n), "item": rng.integers(30, size=n),
         "label": rng.integers(2, size=n).astype(np.float32), "query": rng.integers(-1, 40, size=n),
         "split": np.full(n, 2)}
    )  # fmt: skip

    class Fixed:
        def __init__(self, scores: np.ndarray, qauc: float):
            self.label, self.seeds, self._frame = (
                "row",
                {"qauc": [qauc]},
                frame.with_columns(pl.Series("score", scores)),
            )

        def scores(self, seed: int) -> pl.DataFrame:
            return self._frame

    scores = rng.random((2, n))
    asked = frame["query"].to_numpy() >= 0
    given = [frame[name].to_numpy()[asked] for name in ("query", "label")]
    expected = paired_bootstrap(given[0], given[1], scores[0][asked], scores[1][asked], "gauc")
    found = gain(Fixed(scores[0], 0.6), Fixed(scores[1], 0.5), "qauc")  # type: ignore[arg-type]
    assert found is not None and found.gain == pytest.approx(0.2) and found.p is None
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low / 0.5, expected.high / 0.5))


def test_mistakes_are_found_before_anything_runs(search: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tables": [7]}, "--tables 7: there is no table 7; the study makes 1 (cumulative)"),
        ({"tables": "1,cumulative"}, "1 is named twice"),
        ({"tables": "sizes"}, "--tables"),
        ({"tables": [1], "head": "vbpr"}, "--head vbpr: it is no ranker"),
        ({"tables": [1], "settings": {"paradigm": "frozen"}}, "paradigm is what the study compares"),
        ({"tables": [1], "settings": {"seed": 1}}, "use --seeds"),
        ({"tables": [1], "settings": {"model.tokenz": 1}}, "model.tokenz"),
        ({"tables": [1], "settings": {"train.lrr": 1}}, "train.lrr"),
        ({"tables": [1], "seeds": 0}, "--seeds 0"),
    ]
    for changes, said in cases:
        with pytest.raises(UserError) as caught:
            study(search, tmp_path / "s", **changes)
        assert said in str(caught.value), f"{changes}: {said!r} is not in {caught.value}"
    assert not (tmp_path / "s").exists()


def test_the_command(
    search: Path, tmp_path: Path, tasks: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["rawrec", "study", "lemur", "--data", str(search), "--out", str(tmp_path / "s"), "--seeds", "1"]
    settings = [f"{key}={value}" for key, value in QUICK.items()]
    monkeypatch.setattr("sys.argv", [*words, "--tables", "training", *settings])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert not stop.value.code and "Table 2" in out and "two stages" in out and "3 of 3 runs" in err
    assert "Settings without effect in these runs: content.image.size" in err
    assert rawrec.study_lemur is study_lemur
    assert json.loads((tmp_path / "s" / "study.json").read_text())["study"] == "lemur"


def test_what_is_known_of_the_paper() -> None:
    tables = published.of(range(1, 7))
    assert set(tables) == {1, 2, 3, 4} and tables[2].rows[-1] == ["LEMUR", "0.64914", "+0.81 %"]
    for table in tables.values():
        assert all(len(row) == len(table.columns) + 1 for row in table.rows)
    base, *others = tables[2].rows
    for _, value, gained in others:
        assert 100 * (float(value) / float(base[1]) - 1) == pytest.approx(float(gained.removesuffix(" %")), abs=0.01)
