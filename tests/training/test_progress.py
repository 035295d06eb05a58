"""What a person sees of a run, in lines and in `log.txt`, and when."""

from __future__ import annotations

import io
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rawrec import progress
from rawrec.progress import Bars, duration, epoch_line
from rawrec.training.job import resume, train
from systems import Stop, settings, stopping_after

RETRIEVAL: dict[str, Any] = {
    "model": {"name": "bpr"},
    "train": {"epochs": 2, "batch_size": 200, "device": "cpu", "threads": 1, "metric": "ndcg@7"},
    "eval": {"topk": [3, 7]},
}


def bars() -> tuple[Bars, io.StringIO]:
    out = io.StringIO()
    return Bars(Console(file=out, highlight=False, width=200)), out


def test_lines_name_what_is_configured(shop: Path, tmp_path: Path) -> None:
    observer, out = bars()
    with observer:
        run = train(RETRIEVAL, shop, tmp_path / "run", observer=observer)
    lines = [line for line in out.getvalue().splitlines() if line.startswith("epoch ")]
    for k, line in enumerate(lines, 1):
        assert re.match(
            rf"epoch {k} of 2: loss \d+\.\d{{4}}, ndcg@7 0\.\d{{4}}, recall@7 0\.\d{{4}}, [\d,]+ samples/s", line
        )
    assert len(lines) == 2 and "@20" not in out.getvalue()
    log = (run.path / "log.txt").read_text()
    assert all(line in log for line in lines)
    assert re.search(r"evaluating the best epoch\n.* test: ndcg@7 0\.\d{4}, recall@7", log)


def test_the_log_has_encoding_epochs_and_where_it_went_on(shop: Path, tmp_path: Path) -> None:
    tree = settings(train__epochs=2, train__batch_size=512)
    data = shutil.copytree(shop, tmp_path / "shop", ignore=shutil.ignore_patterns("cache"))  # where nothing is encoded
    with pytest.raises(Stop):
        train(tree, data, tmp_path / "run", observer=stopping_after(14))
    resume(tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert re.search(r"encoding image.*: \d+ of 60 are there", log) or "done in" in log
    epochs = [line[20:].split(":")[0] for line in log.splitlines() if line[20:].startswith("epoch ")]
    assert epochs[-1] == "epoch 2 of 2"
    assert "resumed at epoch" in log and log.splitlines()[-1].endswith("finished")


class Interrupted(io.StringIO):
    """A stream on which a signal's handler tells something while a line is being written."""

    tell: Any = None

    def flush(self) -> None:
        tell, self.tell = self.tell, None
        if tell is not None:
            tell()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_signal_while_an_epoch_is_told_tells_it_once(terminal: bool) -> None:
    out = Interrupted()
    observer = Bars(Console(file=out, width=200, force_terminal=terminal, highlight=False))
    out.tell = lambda: observer("note", text="ending after this step")
    line = {"epoch": 1, "loss": 0.5, "samples_per_second": 9.0, "seconds": 1.0}
    observer("validated", line=line, epochs=3, shown=[], best=True)
    assert out.getvalue().count("epoch 1 of 3") == 1
    assert out.getvalue().index("epoch 1 of 3") < out.getvalue().index("ending after this step")


def test_without_a_terminal_a_line_comes_though_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STILL", 0.0)
    monkeypatch.setattr(progress, "LOOK", 0.01)
    observer, out = bars()
    with observer:
        observer("epoch", epoch=2, epochs=10, total=1000, position=0)
        observer("step", samples=250, loss=0.5)
        observer("step", samples=750, loss=0.5)
        deadline = time.monotonic() + 10
        while out.getvalue().count("validating") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    said = out.getvalue()
    assert re.search(r"epoch 3 of 10: 25%, 250 of 1,000, \d+ s left, loss 0.5000\n", said), said
    assert said.count("validating epoch 3 of 10: for 0 s\n") >= 2


def test_with_a_terminal_bars_and_no_such_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STILL", 0.0)
    out = io.StringIO()
    observer = Bars(Console(file=out, force_terminal=True, width=120))
    with observer:
        observer("epoch", epoch=2, epochs=10, total=1000, position=0)
        observer("step", samples=250, loss=0.5)
        observer.progress.refresh()
    assert "epoch 3 of 10" in out.getvalue() and "25%, 250" not in out.getvalue()


def test_progress_of_python(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown where it is asked for, and by itself in a terminal or a notebook."""
    given = {"train.epochs": 1}
    train(RETRIEVAL, shop, tmp_path / "a", given)
    assert capsys.readouterr() == ("", "")
    heard: list[str] = []
    train(RETRIEVAL, shop, tmp_path / "b", given, progress=True, observer=lambda event, **values: heard.append(event))
    assert "epoch 1 of 1: loss" in capsys.readouterr().err and "validated" in heard
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    train(RETRIEVAL, shop, tmp_path / "c", given)
    assert "epoch 1 of 1: loss" in capsys.readouterr().err
    train(RETRIEVAL, shop, tmp_path / "d", given, progress=False)
    assert capsys.readouterr() == ("", "")


def test_words() -> None:
    assert [duration(seconds) for seconds in (0.4, 45, 150, 7200)] == ["0 s", "45 s", "2 min", "2.0 h"]
    line = {"epoch": 3, "loss": 0.5, "samples_per_second": 1234.0, "seconds": 2.0, "valid/auc": 0.75, "valid/ece": None}
    said = epoch_line(line, 10, ["auc", "ece", "gauc"], best=True)
    assert said == "epoch 3 of 10: loss 0.5000, auc 0.7500, 1,234 samples/s, 2.0 s, the best so far"
