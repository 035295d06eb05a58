"""The tables of a study on values made by hand: what is bold, what has a star, what is counted, and the paper's own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rawrec.studies import printing
from rawrec.studies.lmm import published
from rawrec.studies.lmm.encoders import StudyEncoder
from rawrec.studies.lmm.grid import Point
from rawrec.studies.lmm.results import METRICS, NEW_ITEMS, Count, Result, Test, compared
from rawrec.studies.lmm.tables import tables
from rawrec.studies.page import write_page
from rawrec.studies.running import Standing
from rawrec.studies.table import Table, Value

USERS = 40
APART = StudyEncoder("conv+bert", "apart")
CLIP = StudyEncoder("/weights/clip", "dual")
NOISE = np.random.default_rng(0).normal(size=(3, USERS))


def result(point: Point, mean: float | None, noise: int = 0, seeds: int = 1, spread: float = 0.1) -> Result:
    """Users have `mean` in every metric, with noise of their own; None: it failed."""
    made = Result(point, Standing("unfinished"))
    made.standing = (
        Standing("failed", "the loss of step 3 is nan. Try a lower rate") if mean is None else Standing("finished")
    )
    if mean is not None:
        made.standing.runs = [SimpleNamespace(name=f"seed{seed}") for seed in range(seeds)]  # type: ignore[misc]
        off = spread * (NOISE[noise] - NOISE[noise].mean())
        made.users = dict.fromkeys(METRICS, np.stack([mean + off + 0.01 * seed for seed in range(seeds)]))
        made.seeds = {name: [mean + 0.01 * seed for seed in range(seeds)] for name in (*METRICS, NEW_ITEMS)}
    return made


def study(*entries: tuple[Point, float | None, int], **more: Any) -> dict[int, Table]:
    made = {point: result(point, mean, noise, **more) for point, mean, noise in entries}
    return {table.number: table for table in tables(made)}


def point(
    encoder: StudyEncoder | None, paradigm: Any = "pretrained", modalities: Any = "VT", model: str = "m"
) -> Point:
    return Point(model, encoder, paradigm, modalities) if encoder else Point(model)


def shown(table: Table, metric: str = "ndcg@20") -> dict[str, str]:
    """Rows as a reader sees them: B the best, * starred."""
    return {
        row.label: "" if metric not in row.cells else "B" * row.cells[metric].best + "*" * row.cells[metric].star
        for group in table.groups
        for row in group
    }


def p_value(gain: float, one: int, other: int) -> float:
    a, b = (0.1 * (NOISE[k] - NOISE[k].mean()) for k in (one, other))
    return float(stats.ttest_rel(a + gain, b).pvalue)


def test_table_3_stars_what_differs_from_the_baseline() -> None:
    """A clear gain, a clear loss and a gain within noise; the stars are of the paired t-test without a correction."""
    found = study(
        (point(APART, model="a"), 0.5, 0), (point(CLIP, model="a"), 0.6, 1),
        (point(APART, model="b"), 0.5, 0), (point(CLIP, model="b"), 0.4, 1),
        (point(APART, model="c"), 0.5, 0), (point(CLIP, model="c"), 0.501, 1),
        (point(None, model="bpr"), 0.3, 0),
    )  # fmt: skip
    assert p_value(0.1, 1, 0) < 0.05 < p_value(0.001, 1, 0)
    assert shown(found[3]) == {
        "bpr": "", "a conv+bert": "", "a clip": "B*", "b conv+bert": "B", "b clip": "*",
        "c conv+bert": "", "c clip": "B",
    }  # fmt: skip
    (count,) = found[3].counts
    assert (count.cases, count.improved, count.significant, count.worse) == (12, 8, 4, 4)
    assert count.words == (
        "pretrained against the baseline: 67 % of 12 cases improved, 50 % of these 8 significantly; "
        "4 significantly worse"
    )
    expected = [p_value(gain, 1, 0) for gain in (0.1, -0.1, 0.001) for _ in METRICS]
    assert [test.p_value for test in found[3].tests] == pytest.approx(expected, rel=1e-6)


def test_without_a_correction_more_is_significant_than_with_it() -> None:
    """p = .05 / n is needed with Holm's; table 3 has stars by the plain p, table 4 by the corrected one."""
    gain = next(gain for gain in np.arange(0.02, 0.1, 0.001) if p_value(gain, 1, 0) < 0.045)
    assert 0.05 / 4 < p_value(gain, 1, 0) < 0.05
    found = study((point(APART), 0.5, 0), (point(CLIP), 0.5 + gain, 1), (point(CLIP, "two_stage"), 0.5 + 2 * gain, 2))
    assert shown(found[3])["m clip"] == "B*"
    assert "4 of them with" not in found[3].counts[0].words and "(0 of them with Holm" in found[3].counts[0].words
    pairs = [("ndcg@20", result(point(CLIP), 0.5 + gain, 1), result(point(APART), 0.5, 0))] * 4
    assert not any(test.significant for test in compared(pairs, "holm"))
    assert all(test.significant for test in compared(pairs, "none"))


def test_table_4_stars_what_differs_from_the_best() -> None:
    found = study(
        (point(CLIP, "end_to_end"), 0.7, 2), (point(CLIP), 0.5, 0), (point(CLIP, "two_stage"), 0.6, 1),
        (point(APART), 0.5, 0), (point(APART, "end_to_end"), 0.501, 1),
    )  # fmt: skip
    assert shown(found[4]) == {
        "m clip-PT": "*", "m clip-FT": "*", "m clip-ETE": "B", "m conv+bert-PT": "", "m conv+bert-ETE": "B",
    }  # fmt: skip
    assert "over the table's 12 comparisons" in found[4].caption
    words = {count.what: count for count in found[4].counts}
    assert (words["two_stage against pretrained"].cases, words["two_stage against pretrained"].significant) == (4, 4)
    assert (words["end_to_end against two_stage"].cases, words["end_to_end against two_stage"].improved) == (4, 4)
    better = words["end_to_end against the better of the others"]
    assert (better.cases, better.improved, better.significant) == (8, 8, 4)
    assert words["end_to_end against the better of the others, clip"].significant == 4
    assert {test.against.paradigm for test in found[4].tests} == {"end_to_end"}


def test_end_to_end_is_held_against_the_better_of_the_two() -> None:
    found = study((point(CLIP), 0.6, 0), (point(CLIP, "two_stage"), 0.4, 1), (point(CLIP, "end_to_end"), 0.5, 2))
    words = {count.what: (count.cases, count.improved, count.worse) for count in found[4].counts}
    assert words["end_to_end against the better of the others"] == (4, 0, 4)
    assert words["end_to_end against two_stage"] == (4, 4, 0)
    assert shown(found[4]) == {"m clip-PT": "B", "m clip-FT": "*", "m clip-ETE": "*"}


def test_tables_1_and_5_are_by_modalities() -> None:
    entries = [
        (point(encoder, paradigm, read), mean, noise)
        for encoder, paradigm in ((APART, "pretrained"), (CLIP, "pretrained"), (CLIP, "end_to_end"))
        for read, mean, noise in (("V", 0.4, 0), ("T", 0.499, 1), ("VT", 0.5, 2))
    ]
    found = study(*entries)
    assert shown(found[1]) == {"m (V&T)": "B", "m (V)": "", "m (T)": ""}
    assert shown(found[5]) == {"m clip-ETE (V&T)": "B", "m clip-ETE (V)": "*", "m clip-ETE (T)": ""}
    (count,) = found[5].counts
    assert (count.cases, count.improved, count.significant) == (2, 2, 1)


def test_what_failed_stands_in_its_row_and_spoils_no_other() -> None:
    found = study((point(APART), None, 0), (point(CLIP), 0.5, 0), (point(CLIP, "end_to_end"), None, 0))
    assert shown(found[3]) == {"m conv+bert": "", "m clip": ""} and not found[3].counts
    assert found[3].groups[0][0].note == "failed: the loss of step 3 is nan"
    assert "| m conv+bert | failed: the loss of step 3 is nan |" in printing.markdown("t", list(found.values()), {}, [])
    assert r"m conv+bert & \multicolumn{6}{l}{failed} \\" in printing.latex(list(found.values()), {})
    assert "needs the paradigm end_to_end" in study((point(APART), 0.5, 0))[5].empty
    assert "add one, for example" in study((point(CLIP), 0.5, 0))[3].caption


def test_figures_as_they_are_printed() -> None:
    found = study((point(APART), 0.5, 0), (point(CLIP), 0.6, 1), seeds=2)
    text = printing.markdown("t", [found[3]], {}, ["A note."])
    assert r"| m clip | **0.6050 ± 0.0071**\* |" in text and "| m conv+bert | 0.5050 ± 0.0071 |" in text
    assert text.splitlines()[:3] == ["# t", "", "A note."] and "new items Recall@20 | seeds |" in text
    tex = printing.latex([found[3]], {})
    assert r"m clip & \textbf{0.6050 $\pm$ 0.0071}$^{*}$ &" in tex and tex.count(r"\midrule") == 1
    assert "p $<$ 0.05" in tex
    assert Value.of([1.0, 2.0]) == Value(1.5, pytest.approx(0.70710678)) and Value.of([1.0]).deviation is None


def test_seeds_that_both_have_are_tested() -> None:
    one, other = result(point(CLIP), 0.5, 1, seeds=1), result(point(APART), 0.5, 0, seeds=3)
    (test,) = compared([("ndcg@20", one, other)], "none")
    assert test.difference == pytest.approx(0) and test.p_value == pytest.approx(1)
    (test,) = compared([("ndcg@20", result(point(CLIP), 0.6, 1, seeds=2), other)], "none")
    assert test.difference == pytest.approx(0.1) and test.p_value == pytest.approx(p_value(0.1, 1, 0))


def test_ids_alone_are_a_table_too() -> None:
    found = study((point(None, model="bpr"), 0.5, 0))
    assert shown(found[3]) == {"bpr": ""} and not found[3].empty and found[4].empty


def test_counts_in_words() -> None:
    def test(difference: float, significant: bool, corrected: bool) -> Test:
        return Test("ndcg@20", point(CLIP), point(APART), difference, 0.0, 0.0, significant, corrected)

    tests = [test(0.1, True, True), test(0.1, True, False), test(0.1, False, False), test(-0.1, True, True)]
    assert Count.of("x", tests).words == (
        "x: 75 % of 4 cases improved, 67 % of these 3 significantly (1 of them with Holm-Bonferroni); "
        "1 significantly worse"
    )
    assert Count.of("x", []).words == "x: no case"
    assert Count.of("x", [test(0.0, False, False)]).words == "x: 0 % of 1 cases improved"


# ------------------------------------------------------------------------------------------------------ the paper's own
def data(source: str, users: int) -> Any:
    counts = {"users": users, "items": 7050, "interactions": 160792}
    return SimpleNamespace(meta=SimpleNamespace(source=source, counts=counts), n_users=users)


def test_published_figures_stand_beside_data_of_the_paper() -> None:
    for source in ("MMRec baby", "Amazon reviews_Baby_5.json.gz"):
        found, said = published.of(data(source, 19445))
        assert said == (
            "Amazon Baby has 19,445 users, 7,037 items, 160,522 interactions in the paper, and 19,445 users, "
            "7,050 items, 160,792 interactions here."
        )
        assert found[4].rows[5] == ["VBPR CLIP-ETE", "0.0490*", "0.0766", "0.0269", "0.0340"]
    assert published.of(data("movielens baby", 19445)) == ({}, "") == published.of(data("Amazon Books.json", 9))
    found, said = published.of(data("Amazon Baby.json.gz", 500_000))
    assert not found and "not shown" in said and "500,000 users" in said
    text = printing.markdown("t", [study((point(APART), 0.5, 0), (point(CLIP), 0.6, 1))[3]],
                             published.of(data("MMRec baby", 19445))[0], [])  # fmt: skip
    assert r"| LATTICE CLIP | 0.0524\* | 0.0830\* | 0.0275\* | 0.0354\* |" in text


def test_the_page_has_both_side_by_side(tmp_path: Path) -> None:
    made = list(study((point(APART), 0.5, 0), (point(CLIP), 0.6, 1), (point(None, model="<b>"), 0.1, 2)).values())
    paper, _ = published.of(data("MMRec baby", 19445))
    of = {"source": "MMRec baby", "counts": {"users": 1, "items": 2, "interactions": 3}}
    page = write_page(tmp_path / "p.html", "A & b", made, paper, ["1 < 2"], {"data": of, "points": [], "settings": {}})
    text = page.read_text(encoding="utf-8")
    assert "<td>VBPR CLIP-PT</td><td>0.0487*</td>" in text and "in the paper, Amazon Baby" in text
    assert "<td>m clip</td><td><b>0.6000</b>*</td>" in text and "A &amp; b" in text and "1 &lt; 2" in text
    assert "<td>&lt;b&gt;</td>" in text and "No points: it needs the paradigm end_to_end" in text


def test_published_figures_are_whole() -> None:
    tables = published.figures()["tables"]
    for number, rows in {"1": 6, "3": 15, "4": 30, "5": 6}.items():
        for key in ("sports", "clothing", "baby"):
            table = tables[number][key]
            assert len(table) == rows == len({row[0] for row in table})
            assert all(len(row) == 1 + len(tables[number]["columns"]) for row in table)
            assert all(0.005 < float(value.removesuffix("*")) < 0.11 for row in table for value in row[1:])
    by_label = {row[0]: row[1:] for row in tables["3"]["clothing"]}
    for row in tables["4"]["clothing"]:  # the same runs are in both, but for their stars
        if row[0].endswith("-PT"):
            there = by_label[row[0].removesuffix("-PT")]
            assert [value.strip("*") for value in row[1:]] == [value.strip("*") for value in there], row[0]
