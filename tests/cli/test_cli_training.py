"""`rawrec train MODEL --help`: the page of a model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rawrec
from rawrec import cli
from rawrec.config import presets
from rawrec.config.listing import settings
from registries import registries  # noqa: F401

Run = Callable[..., str]


class Cfg(rawrec.RetrievalConfig):
    """Mine: a model of this test (Nobody, 2026)."""

    width: int = 4


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What `rawrec train WORDS` prints; with `code=2` what it says of a mistake."""

    def go(*words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["rawrec", "train", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert (stop.value.code or 0) == code and "Traceback" not in err, err
        return err if code else out

    return go


def line(page: str, setting: str) -> str:
    return next(" ".join(line.split()) for line in page.splitlines() if line.startswith(f"{setting} "))


@pytest.mark.parametrize("name", presets())
def test_the_page_of_a_model(run: Run, name: str) -> None:
    page = run(name, "--help")
    assert page.startswith(f"Usage: rawrec train {name} --data DATA --out RUN")
    assert [word for row in page.splitlines() if (word := row.split(" ")[0]).startswith("model.")] == [
        row.setting for row in settings(name)[1]
    ]
    assert settings(name)[0] in page and "rawrec settings train" in page and "rawrec train --help" in page


def test_the_general_page_stays(run: Run) -> None:
    assert "Train a model, evaluate it on test, leave a run folder." in run("--help")
    assert run("--help") == run("--data", "data/x", "--help") and "MODEL --help`" in run("--help")


@pytest.mark.parametrize("words", [("--help", "freedom", "model.knn_k=5"), ("freedom", "model.knn_k=5", "--help")])
def test_given_values_stand_in_the_place_of_defaults(run: Run, words: tuple[str, ...]) -> None:
    page = run(*words, "train.lr=0.5", "--data", "data/x")
    assert line(page, "model.knn_k").startswith("model.knn_k integer, >= 1 5 (given) neighbours")
    assert "(given)" not in line(page, "model.dropout") and "Given beside these: train.lr=0.5" in page
    assert "train.epochs=1000" in page and page.count("train.lr=") == 1


@pytest.mark.usefixtures("registries")
def test_a_registered_model_is_as_ours(run: Run) -> None:
    rawrec.register_model("mine", Cfg, "somewhere:X")
    page = run("mine", "model.width=3", "--help")
    assert "Mine: a model of this test (Nobody, 2026)." in page and "From the package somewhere." in page
    assert line(page, "model.width") == "model.width integer 3 (given)"
    assert "did you mean width" in run("mine", "model.widht=3", "--help", code=2)


def test_mistakes(run: Run) -> None:
    assert "did you mean knn_k" in run("freedom", "model.knnk=3", "--help", code=2)
    assert "'freedm' is unknown; did you mean freedom" in run("freedm", "--help", code=2)
    assert "given twice: 1 and 2" in run("freedom", "model.knn_k=1", "model.knn_k=2", "--help", code=2)
    assert "model.knn_k" in run("freedom", "model.knn_k=0", "--help", code=2)
    assert "key=value" in run("freedom", "knn", "--help", code=2)


def test_a_page_loads_nothing_heavy() -> None:
    code = "import sys; from rawrec import cli; sys.argv = ['rawrec', 'train', 'freedom', 'model.knn_k=3', '--help']\n"
    code += "try: cli.main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'lance', 'polars', 'pyarrow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "3 (given)" in done.stdout and done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("id", "--epochs", "3"), "--epochs is no option: settings stand behind as key=value, train.epochs=3"),
        (("id", "--epochs=3"), "train.epochs=3"),
        (("id", "--train.epochs", "3"), "train.epochs=3"),
        (("id", "--batch-size", "8"), "train.batch_size=8"),
        (("id", "--learning_rate", "0.1"), "train.lr=0.1"),
        (("id", "--seed", "--json"), "seed=VALUE"),
        (("id", "train.epochs", "=", "3"), "train.epochs =: write it without spaces, train.epochs=3"),
        (("id", "train.epochs", "=3"), "write it without spaces, train.epochs=3"),
        (("id", "train.epochs=", "3"), "write it without spaces, train.epochs=3"),
        (("LightGCN", "--help"), "did you mean lightgcn?"),
    ],
)
def test_what_other_programs_would_take_gets_a_hint(
    run: Run, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in run(*words, "--data", str(tmp_path), "--out", str(tmp_path / "run"), code=2)


def test_an_unknown_option_that_is_no_setting(run: Run, tmp_path: Path) -> None:
    assert "No such option: --bogus" in run("id", "--bogus", "1", "--data", "x", "--out", str(tmp_path / "run"), code=2)
