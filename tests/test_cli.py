"""The command line: help, JSON, exit codes, and that a mistake never ends in a traceback or a run that looks whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import forked
import rawrec
from rawrec import cli
from rawrec.cli.training import _main_metrics as main_metrics
from rawrec.training import state as checkpoint

QUICK = ["train.epochs=1", "train.threads=1"]
COMMANDS = ["import", "append", "validate", "inspect", "split", "convert", "encode", "finetune", "train", "resume"]
COMMANDS += ["finish", "runs", "sweep", "evaluate", "compare", "study", "recommend", "search", "similar", "report"]
COMMANDS += ["export", "publish", "online", "versions", "rollback", "serve", "browse", "models", "sources", "settings"]
SOURCES = ["table", "movielens", "mmrec", "recbole", "amazon", "synthetic"]
SOURCES += ["microlens", "pixelrec", "mind", "impressions"]
SOURCES += ["huggingface", "webdataset", "openclipart"]


class Shell:
    """Runs `rawrec` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        self.capsys, self.patch = capsys, monkeypatch

    def __call__(self, *words: object, code: int = 0) -> tuple[str, str]:
        """stdout and stderr of `rawrec WORDS`, which must leave with `code`."""
        self.patch.setattr(sys, "argv", ["rawrec", *map(str, words)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = self.capsys.readouterr()
        assert (stop.value.code or 0) == code, f"{words}: {stop.value.code}\n{out}\n{err}"
        assert "Traceback" not in out + err
        if code:
            assert err.strip() and not out
        return out, err

    def json(self, *words: object) -> Any:
        return json.loads(self(*words, "--json")[0])

    def mistake(self, *words: object) -> str:
        """The message of a user's mistake, one line but for usage."""
        _, err = self(*words, code=2)
        return err


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("COLUMNS", "100")
    return Shell(capsys, monkeypatch)


@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import rawrec

    out = tmp_path_factory.mktemp("cli") / "id"
    return rawrec.train("id", shop, out, {"train.epochs": 1, "train.threads": 1}).path


def rawrec_process(*words: object) -> forked.Process:
    command = [sys.executable, "-m", "rawrec.cli", *map(str, words)]
    return forked.Process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --------------------------------------------------------------------------------------------------------------- help
def test_commands_come_in_the_order_of_use(shell: Shell) -> None:
    out, _ = shell("--help")
    listed = out.split("Commands:")[1].split("Example:")[0]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == COMMANDS
    assert "..." not in listed  # no summary is cut off


@pytest.mark.parametrize("words", [[], *([c] for c in COMMANDS), *(["import", s] for s in SOURCES)], ids="-".join)
def test_every_help_has_an_example(shell: Shell, words: list[str]) -> None:
    out, _ = shell(*words, "--help")
    example = " ".join(out.split("Example: ")[1].split())
    assert example.startswith(" ".join(["rawrec", *words]))


@pytest.mark.parametrize("module", ["rawrec", "rawrec.cli"])
def test_the_command_line_as_a_module(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"rawrec {rawrec.__version__} ")


def test_the_command_that_is_installed() -> None:
    command = Path(sys.executable).with_name("rawrec")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"rawrec {rawrec.__version__} ")


def test_help_is_instant() -> None:
    code = "import sys; from rawrec import cli; sys.argv = ['rawrec', 'train', '--help']\n"
    code += "try: cli.main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'lance', 'polars', 'pyarrow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


# --------------------------------------------------------------------------------------------------------------- JSON
def test_json_of_every_command(shell: Shell, tmp_path: Path) -> None:
    data, out = tmp_path / "shop", tmp_path / "run"
    made = shell.json("import", "synthetic", "--out", data, "--items", 60, "--users", 40, "--impressions", 2000)
    assert made["kept"]["items"] == 60 and made["dataset"] == str(data)
    assert shell.json("inspect", data)["counts"]["items"] == 60
    assert shell.json("validate", data)["sound"] is True
    assert shell.json("split", data, "--name", "n0", "--by", "new_items:image")["name"] == "n0"
    trained = shell.json("train", "id", "--data", data, "--out", out, *QUICK)
    assert trained["run"] == str(out) and 0 < trained["test"]["auc"] < 1
    assert shell.json("resume", out)["test"] == trained["test"]
    assert shell.json("evaluate", out)["test"]["auc"] == pytest.approx(trained["test"]["auc"])
    assert shell.json("evaluate", out, "--split", "valid")["valid"]["auc"] == pytest.approx(trained["valid"]["auc"])
    found = shell.json("recommend", out, "--user", "u1", "-k", 3)
    assert len(found["recommendations"]) == 3 and found["query"] == {"user": "u1", "history": None, "k": 3}
    item = found["recommendations"][0]["item"]
    assert len(shell.json("recommend", out, "--history", f"{item}, {item}", "-k", 2)["recommendations"]) == 2
    assert shell.json("recommend", out, "--history", json.dumps([item]), "-k", 2)["query"]["history"] == [item]
    out_both, said = shell("recommend", out, "--user", "u1", "--history", item, "-k", 400, "--json")
    both = [entry["item"] for entry in json.loads(out_both)["recommendations"]]
    assert "--history stands in place of what u1 did" in said
    assert item not in both and len(both) == 59  # only what is in the history is left out
    lists = shell.json("recommend", out, "--all-users", tmp_path / "all.parquet", "-k", 3)
    assert pl.read_parquet(lists["file"]).height == 40
    trained_item = pl.read_parquet(data / "interactions.parquet").filter(pl.col("split") == 0)["item_id"][0]
    assert shell.json("similar", out, "--item", trained_item, "-k", 2)["query"]["item"] == trained_item
    assert Path(shell.json("export", out)["file"]).name == "vectors.parquet"
    assert Path(shell.json("report", out)["report"]).stat().st_size > 1000


def test_sources_and_exports_of_other_tools(shell: Shell, tmp_path: Path) -> None:
    reviews, meta, data = tmp_path / "r.json", tmp_path / "m.json", tmp_path / "baby"
    rows = [(f"u{u}", f"i{i}") for u in range(6) for i in range(6)] + [("u0", "i9")]
    lines = [
        json.dumps({"reviewerID": user, "asin": item, "overall": 5, "unixReviewTime": 9 + at})
        for at, (user, item) in enumerate(rows)
    ]
    reviews.write_text("\n".join(lines))
    meta.write_text("{'asin': 'i1', 'title': 'One'}\n")
    words = ["import", "amazon", "--reviews", reviews, "--meta", meta, "--out", data]
    made = shell.json(*words, "--preset", "lmm", "--split-seed", 3)
    assert made["kept"]["interactions"] == 36 and made["kept"]["items"] == 6
    assert "preset lmm sets k_core itself" in shell.mistake(*words, "--preset", "lmm", "--k-core", 3)
    assert "preset lmm sets split itself" in shell.mistake(*words, "--preset", "lmm", "--split", "time_user")
    for tool, options in (("mmrec", []), ("recbole", ["--text", "title"])):
        out = tmp_path / tool
        assert shell.json("export", data, "--to", tool, "--out", out)["interactions"] == {
            "train": 24, "valid": 6, "test": 6,
        }  # fmt: skip
        assert "not an empty folder" in shell.mistake("export", data, "--to", tool, "--out", out)
        back = shell.json("import", tool, out, *options, "--out", tmp_path / f"{tool}-back")
        assert back["kept"]["interactions"] == 36
    assert "wrote" in shell("export", data, "--to", "mmrec", "--out", tmp_path / "again")[0]
    assert "needs --out" in shell.mistake("export", data, "--to", "mmrec")
    assert "--split means nothing to --to vectors" in shell.mistake("export", data, "--split", "default")
    assert "Known: vectors, user-vectors, features, encoder, mmrec, recbole" in shell.mistake(
        "export", data, "--to", "csv"
    )


def test_results_in_every_form(shell: Shell, run: Path, shop: Path, tmp_path: Path) -> None:
    lists = shell.json("recommend", run, "--all-users", tmp_path / "all.csv", "-k", 2)["file"]
    assert pl.read_csv(lists)["rank"].unique().sort().to_list() == [1, 2]
    lists = shell.json("recommend", run, "--all-users", tmp_path / "all.jsonl.gz", "-k", 2, "--seen")["file"]
    assert set(pl.read_ndjson(lists)["items"].list.len()) == {2}
    assert str(tmp_path / "v.npy") in shell("export", run, "--out", tmp_path / "v.npy")[0]
    same = shell.json("recommend", run, "--all-users", tmp_path / "none.jsonl", "-k", 2, "--exclude-seen", "none")[
        "file"
    ]
    assert pl.read_ndjson(same).equals(pl.read_ndjson(lists))
    for words, said in [
        (
            ["recommend", run, "--all-users", tmp_path / "x.csv", "--exclude-seen", "all"],
            "one of 'positives', 'interactions'",
        ),
        (["recommend", run, "--user", "u1", "--seen", "--exclude-seen", "none"], "give one of them"),
        (["recommend", run, "--all-users", tmp_path / "all.xlsx"], ".parquet, .csv, .csv.gz, .jsonl or .jsonl.gz"),
        (["export", run, "--out", tmp_path / "v.csv"], ".parquet, .npy, .safetensors or .faiss"),
        (["export", run, "--out", tmp_path / "v.npy", "--index", "flat"], "v.npy is no Faiss index"),
        (["export", run, "--out", tmp_path / "v.faiss", "--index", "tree"], "Known: flat, hnsw, ivf"),
        (["export", run, "--field", "image"], "--field means nothing to --to vectors"),
        (["export", shop, "--to", "mmrec", "--out", tmp_path / "m", "--index", "flat"], "--index means nothing"),
        (["export", run, "--to", "features"], "needs --out FILE"),
        (["export", run, "--to", "features", "--out", tmp_path / "f.npy"], "model `id`, which reads no features"),
        (["export", run, "--to", "features", "--split", "default"], "--split means nothing to --to features"),
    ]:
        assert said in " ".join(shell.mistake(*words).split())


def test_tables_for_people(shell: Shell, run: Path, shop: Path) -> None:
    out, _ = shell("resume", run)  # finished already: shows the table of `train`
    names = [line.split()[0] for line in out.splitlines()[1:-1]]
    lists = [f"{name}@20" for name in ("recall", "ndcg", "hit", "coverage", "personalisation", "tail")]
    assert names == ["auc", "gauc", "logloss", "ece", "pcoc", "impressions", "share", *lists]
    assert "metrics.json" in out and str(run) in out
    whole, _ = shell("evaluate", run)
    assert "precision@5" in whole and "recall@50" in whole
    assert "probability" in shell("recommend", run, "--user", "u1")[0]
    assert "No problems" in shell("inspect", shop)[0] or "Problems" in shell("inspect", shop)[0]


def test_the_best_cut_off_is_shown_where_20_is_not(shell: Shell) -> None:
    assert main_metrics({"auc": 0.5, "recall@5": 0, "recall@7": 0, "ndcg@7": 0}) == ["auc", "recall@7", "ndcg@7"]
    assert main_metrics({"auc": 0.5}) == ["auc"]


def test_the_only_label_needs_no_name(shell: Shell, tmp_path: Path) -> None:
    table = tmp_path / "clicks.csv"
    table.write_text("u,i,y,z\n" + "".join(f"{u},{i},{(u + i) % 2},{i % 2}\n" for u in range(6) for i in range(6)))
    words = ["import", "table", "--interactions", table, "--user", "u", "--item", "i", "--label", "y"]
    shell(*words, "--out", tmp_path / "one")
    run = ["--data", tmp_path / "one", "--out", tmp_path / "r", *QUICK]
    assert "There are: y" in shell.mistake("train", "id", *run, "data.label=label")
    shell("train", "id", *run)
    assert "label: y" in (tmp_path / "r" / "config.yaml").read_text()
    shell(*words, "--label", "z", "--out", tmp_path / "two")
    assert "data.label=y" in shell.mistake("train", "id", "--data", tmp_path / "two", "--out", tmp_path / "r2", *QUICK)
    out, _ = shell("recommend", tmp_path / "r", "--history", "0,1,2,3,4,5")
    assert "nothing is left" in out


def test_ids_are_never_markup(shell: Shell, tmp_path: Path) -> None:
    table = tmp_path / "clicks.csv"
    table.write_text("u,i\n" + "".join(f"[b]{u}[/x],[red]{i}\n" for u in range(6) for i in range(6) if u != i))
    items = tmp_path / "items.csv"
    items.write_text("i,[/t]\n" + "".join(f"[red]{i},[/] tool {i}\n" for i in range(6)))
    words = ["--interactions", table, "--user", "u", "--item", "i", "--items", items, "--text", "[/t]"]
    shell("import", "table", *words, "--out", tmp_path / "d")
    shell("inspect", tmp_path / "d")
    shell("train", "id", "--data", tmp_path / "d", "--out", tmp_path / "r", *QUICK)
    out, _ = shell("recommend", tmp_path / "r", "--user", "[b]1[/x]", "-k", 3)
    assert "[red]" in out and "[/] tool" in out


# ------------------------------------------------------------------------------------------------------------ mistakes
def test_mistakes_in_words(shell: Shell, shop: Path, run: Path, tmp_path: Path) -> None:
    new = ["--data", shop, "--out", tmp_path / "new"]
    cases: list[tuple[list[object], str]] = [
        (["recommand", run], "recommend"),
        (["train", "id", "--dta", shop], "--data"),
        (["train", "id", "--out", tmp_path / "new"], "--data"),
        (["train", "em4", *new], "did you mean em3"),
        (["train", "id", *new, "train.epoch=3"], "did you mean epochs"),
        (["train", "id", *new, "epochs"], "key=value"),
        (["train", "id", *new, "train.lr=1", "train.epochs=2", "train.lr=2"], "train.lr is given twice: 1 and 2"),
        (["train", "em3", *new, "content={dim: 8}", "content.dim=16"], "content.dim is given twice: 8 and 16"),
        (["import", "tabel", "--out", "x"], "did you mean table"),
        (["train", "id", *new, "content.dim=3"], "model id has no content"),
        (["train", "id", *new, "data.split=nope"], "Known: default"),
        (["train", "id", *new, "data.label=nope"], "label"),
        (["train", "id", *new, "data.negatives=2"], "would do nothing"),
        (["train", "id", *new, "train.device=gpu"], "auto, cpu, cuda"),
        (["train", "em3", *new, "content.image.encoder=nope"], "efficientnet_lite0"),
        (["train", "em3", *new, "content.poster.size=32"], "content.poster"),
        (["train", "em3", *new, "content.title.size=32"], "image fields"),
        (["train", "em3", *new, "paradigm=hybrid", "content.text.train=top:1"], "end_to_end"),
        (["train", "id", *new, "model.columns=[colour]"], "colour"),
        (["train", "id", "--data", tmp_path / "gone", "--out", tmp_path / "new"], "gone"),
        (["train", "id", "--data", tmp_path, "--out", tmp_path / "new"], "no dataset"),
        (["train", "id", "--data", shop, "--out", run], "--overwrite"),
        (["train", "id", "--data", shop, "--out", shop], "no run folder"),
        (["train", "id", "--data", shop, "--out", shop / "dataset.yaml" / "x"], "file is in the way"),
        (["resume", shop], "no run folder"),
        (["evaluate", run, "--split", "train"], "valid or test"),
        (["evaluate", run, "--data", tmp_path / "gone"], "gone"),
        (["recommend", run], "--user"),
        (["recommend", run, "--user", "u99"], "close to it: u9"),
        (["recommend", run, "--history", "p0001x"], "close to it: p0001"),
        (["recommend", run, "--user", "u1", "-k", 0], "-k"),
        (["recommend", run, "--user", "u1", "--all-users", "x.parquet"], "leave out --user"),
        (["recommend", run, "--all-users", tmp_path / "x.xlsx"], ".parquet"),
        (["similar", run, "--item", "p"], "'p'"),
        (["similar", run, "--item", "p0001", "-k", -1], "-k"),
        (["report", run, "--against", shop], "run"),
        (["export", run, "--to", "onnx"], "vectors"),
        (["export", run, "--out", tmp_path / "v.csv"], ".parquet"),
        (["inspect", run], "dataset"),
        (["split", shop, "--name", "default", "--by", "random_user"], "default"),
        (["split", shop, "--name", "x", "--by", "sometimes"], "time_user"),
        (["split", shop, "--name", "x", "--by", "column:nope"], "nope"),
        (["split", shop, "--name", "x", "--by", "new_items:nope"], "nope"),
        (["split", shop, "--name", "x", "--by", "new_items", "--fold", 9], "9"),
        (["split", shop, "--name", "x", "--by", "time_user", "--share", 0.3], "means nothing"),
        (["split", shop, "--name", "x", "--by", "time_user", "--ratios", "80,20"], "80,10,10"),
        (["import", "table", "--interactions", "no.csv", "--user", "u", "--item", "i", "--out", "x"], "no.csv"),
        (["import", "mmrec", tmp_path, "--out", tmp_path / "x", "--ratios", "70,20,10"], "needs --split"),
        (["import", "synthetic", "--out", shop, "--items", 60], "--overwrite"),
    ]
    for words, said in cases:
        message = shell.mistake(*words)
        assert said in message, f"{words}\n{message}"
    assert not (tmp_path / "new").exists()  # a mistake leaves nothing behind


def test_a_mistake_with_overwrite_keeps_the_old_run(shell: Shell, shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    before = shell.json("train", "id", "--data", shop, "--out", out, *QUICK)
    shell.mistake("train", "em3", "--data", shop, "--out", out, "--overwrite", "content.image.encoder=nope")
    assert shell.json("resume", out) == before
    shell("train", "id", "--data", shop, "--out", out, "--overwrite", *QUICK, "seed=1")
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_dataset_that_moved(shell: Shell, run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    info = json.loads((moved / "run.json").read_text())
    changed = info | {"dataset": str(tmp_path / "away")}
    (moved / "run.json").write_text(json.dumps(changed))
    assert "removes its line 'sum'" in shell.mistake("recommend", moved, "--user", "u1")
    del changed["sum"]
    (moved / "run.json").write_text(json.dumps(changed))
    assert "--data" in shell.mistake("recommend", moved, "--user", "u1")
    shell("recommend", moved, "--user", "u1", "--data", info["dataset"])
    shell("evaluate", moved, "--data", info["dataset"])


def test_damaged_runs_are_named(shell: Shell, run: Path, tmp_path: Path) -> None:
    for name, content in [("config.yaml", "a: ["), ("config.yaml", "trian: 1"), ("run.json", "{"), ("run.json", "{}")]:
        broken = tmp_path / "broken"
        shutil.copytree(run, broken)
        (broken / name).write_text(content)
        assert name in shell.mistake("recommend", broken, "--user", "u1")
        shutil.rmtree(broken)
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    assert "model.safetensors" in shell.mistake("recommend", broken, "--user", "u1")


# ------------------------------------------------------------------------------------------- full disks, interruptions
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    shell: Shell, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r"
    with monkeypatch.context() as patch:

        def full(tensors: object, path: Path, *_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        patch.setattr(checkpoint, "write_tensors", full)
        _, err = shell("train", "id", "--data", shop, "--out", out, *QUICK, code=1)
    assert "No space left" in err and "rawrec resume" in err
    assert not (out / "metrics.json").exists() and not (out / "model.safetensors").exists()
    assert "not finished" in shell.mistake("recommend", out, "--user", "u1")
    shell("resume", out)
    shell("recommend", out, "--user", "u1")


def test_a_full_disk_at_the_very_start_leaves_nothing(
    shell: Shell, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("rawrec.training.runs.write_json", full)
    _, err = shell("train", "id", "--data", shop, "--out", tmp_path / "r", *QUICK, code=1)
    assert "No space left" in err and not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_written_files_are_whole_or_not_there(tmp_path: Path) -> None:
    from rawrec.files import replacing

    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(OSError) as caught, replacing(path) as partial:
        partial.write_text("half")
        Path("/dev/full").write_text("x" * 100_000)
    assert caught.value.filename == str(path)  # what writing raises names no file
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_safetensors_tells_of_a_full_disk() -> None:
    import torch

    from rawrec.files import write_tensors

    with pytest.raises(OSError) as caught:
        write_tensors({"a": torch.zeros(1000)}, Path("/proc/nothing.safetensors"))
    assert caught.value.errno in (errno.ENOENT, errno.EACCES, errno.EPERM)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written(run: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = forked.run(
            [sys.executable, "-m", "rawrec.cli", "recommend", str(run), "--user", "u1", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place(shell: Shell, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o500)
    assert "ermission" in shell.mistake("train", "id", "--data", shop, "--out", tmp_path / "ro" / "r")


def test_interruption_says_how_to_go_on(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    words = ["train", "id", "--data", shop, "--out", out, "train.epochs=100000", "train.patience=100000"]
    process = rawrec_process(*words, "train.batch_size=64")
    for _ in range(300):
        if (out / "checkpoint" / "last.safetensors").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out_text, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "rawrec resume" in err and "Traceback" not in err and not out_text
    assert not (out / "metrics.json").exists()


def test_a_closed_pipe_is_quiet(run: Path) -> None:
    process = rawrec_process("recommend", run, "--user", "u1", "--json", "-k", 50)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) != 0


def test_a_retrieval_run_through_the_commands(shell: Shell, shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = shell.json("train", "lightgcn", "--data", shop, "--out", out, *QUICK, "model.embedding_size=8")
    assert "auc" not in trained["test"] and 0 <= trained["test"]["recall@20"] <= 1
    assert shell.json("resume", out)["test"] == trained["test"] == shell.json("evaluate", out)["test"]
    assert "recall@20" in shell("evaluate", out)[0]
    found = shell.json("recommend", out, "--user", "u1", "-k", 3)["recommendations"]
    assert len(found) == 3 and "score" in shell("recommend", out, "--user", "u1")[0]
    assert len(shell.json("similar", out, "--item", found[0]["item"], "-k", 2)["recommendations"]) == 2
    assert Path(shell.json("export", out)["file"]).is_file()
    assert Path(shell.json("report", out)["report"]).is_file()
    assert "reads no history" in shell.mistake("recommend", out, "--history", found[0]["item"])
    assert "did you mean lightgcn" in shell.mistake("train", "lightgnc", "--data", shop, "--out", tmp_path / "x")


def test_finetune_tells_before_and_after(shell: Shell, shop: Path, tmp_path: Path) -> None:
    words = ["--encoder", "pair:random:conv+random:bert", "--text-field", "title", "size=16", "max_length=6"]
    words += ["--out", str(tmp_path / "x"), "epochs=1", "threads=1", "held_out=0.3"]
    out, _ = shell("finetune", str(shop), *words, "--loss", "itc")
    assert "before" in out and "image_to_text/recall@10" in out and "uniformity_text" in out
    found = json.loads(shell("resume", str(tmp_path / "x"), "--json")[0])
    assert found["encoder"] == str(tmp_path / "x") and found["valid"]["pairs"] == found["before"]["pairs"]
    out, _ = shell("settings", "finetune")
    assert "projection_lr" in out and "rawrec finetune DATA --encoder NAME" in out
