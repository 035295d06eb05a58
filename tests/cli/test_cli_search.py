"""`rawrec search RUN --query TEXT`: as `rawrec recommend`, for what was typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rawrec
from rawrec import cli
from search_data import search

Run = Callable[..., tuple[str, str]]
TINY: dict[str, Any] = {
    "model.name": "dot_mlp", "model.hidden": [8], "model.dim": 8, "data.history": 5, "content.dim": 16,
    "content.item.encoder": "joint:tiny", "content.text.max_length": 8, "content.query.max_length": 4,
    "data.labels": ["label", "buy"], "train.epochs": 1, "train.threads": 1, "train.device": "cpu",
    "eval.full_ranking": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    data = search(folder / "data", labels=("label", "buy"))
    return rawrec.train("lemur", data, folder / "run", TINY).path


@pytest.fixture
def rawrec_search(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """stdout and stderr of `rawrec search RUN WORDS`, which must leave with `code`."""

    def go(*words: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["rawrec", "search", str(run), *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert (stop.value.code or 0) == code and "Traceback" not in out + err, f"{words}\n{out}\n{err}"
        assert not (code and out)
        return out, err

    return go


def test_json_is_what_python_gives(run: Path, rawrec_search: Run) -> None:
    rec = rawrec.Recommender.load(run)
    said: list[tuple[list[str], dict[str, Any]]] = [
        ([], {}),
        (["--user", "u3"], {"user": "u3"}),
        (["--history", "i4, i7"], {"history": ["i4", "i7"]}),
        (["--user", "u3", "--exclude-seen", "positives"], {"user": "u3", "exclude_seen": "positives"}),
        (["--by", "content"], {"by": "content"}),
        (["--user", "u3", "--candidates", "8"], {"user": "u3", "candidates": 8}),
        (["--label", "buy"], {"label": "buy"}),
    ]
    for words, given in said:
        out, err = rawrec_search("--query", "red mug", "-k", 3, *words, "--json")
        found = json.loads(out)
        assert [(e["item"], e["score"]) for e in found["recommendations"]] == rec.search("red mug", k=3, **given)
        asked = {"query": "red mug", "k": 3, "user": None, "history": None, "by": "score"}
        assert found["query"] == asked | {name: v for name, v in given.items() if name != "exclude_seen"}
        assert not err


def test_tables_say_what_the_score_is(rawrec_search: Run) -> None:
    out, _ = rawrec_search("--query", "red mug", "-k", 2)
    assert out.splitlines()[0].split() == ["item", "title", "probability"] and len(out.splitlines()) == 3
    assert "probability of buy" in rawrec_search("--query", "red mug", "--label", "buy")[0]
    assert "similarity" in rawrec_search("--query", "red mug", "--by", "content")[0]
    out, err = rawrec_search("--query", "red mug", "--user", "u3", "--history", "i4", "-k", 99)
    assert len(out.splitlines()) == 31
    assert err.strip() == "--history stands in place of what u3 did: it is what the model reads"


@pytest.mark.filterwarnings("default")
def test_warnings_are_lines(rawrec_search: Run) -> None:
    _, err = rawrec_search("--query", "")
    assert err.strip() == "rawrec: the query is empty, so read as missing"
    _, err = rawrec_search("--query", "a red mug with white stripes", "--by", "content")
    assert err.strip() == "rawrec: query: only its first 4 words are read (content.query.max_length)"
    assert "without spaces" in rawrec_search("--query", "红色的杯子")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--query"),
        (["--query", "a", "--query", "b"], "--query is given twice"),
        (["--query", "mug", "-k", "0"], "-k"),
        (["--query", "mug", "--user", "u1000"], "u1000"),
        (["--query", "mug", "--history", "i1000"], "i1000"),
        (["--query", "mug", "--by", "buy"], "use score or content"),
        (["--query", "mug", "--label", "like"], "this run has learned label, buy"),
        (["--query", "mug", "--candidates", "5"], "give 10 at least"),
        (["--query", "", "--by", "content"], "is empty"),
        (["--query", "mug", "--context", "device"], "COLUMN=VALUE"),
        (["--query", "mug", "--context", "query=hat"], "given already"),
        (["--query", "mug", "--exclude-seen", "all", "--user", "u1"], "positives"),
    ],
)
def test_mistakes_in_words(rawrec_search: Run, words: list[str], said: str) -> None:
    assert said in rawrec_search(*words, code=2)[1]
