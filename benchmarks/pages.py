"""The tables of the documentation, from what was measured.

    python benchmarks/pages.py            # write them between their marks
    python benchmarks/pages.py --check    # exit code 1 where a page is not up to date

`results/<benchmark>.json` has the rows of each table: `{"tables": {name: [row, ...]}}`. A row holds what the benchmark
printed, `told`, what stands beside it (its label, what was asked, other people's figures), and `made`: commit, machine,
versions, seeds and command (see keep.py); for figures that were in a page before there were such files, that page's
commit and what it says. In a page a table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("docs/results.md", "docs/serving.md")
MARKED = re.compile(r"(?P<begin><!-- table (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)

Row = dict[str, Any]
Show = Callable[[Row], str]


# ------------------------------------------------------------------------------------------------------------ in words
def dot(value: float) -> str:
    """.7935, -.0002"""
    return f"{value:.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.4f}"


def signed(value: float) -> str:
    return ("+" if value >= 0 else "") + dot(value)


def short(value: float) -> str:
    """1e-4, 10"""
    return re.sub(r"e([+-])0+", r"e\1", f"{value:.0e}") if value < 0.01 else f"{value:g}"


def time_of(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def told(name: str) -> Show:
    return lambda row: str(row.get("told", {}).get(name, ""))


def text(name: str) -> Show:
    return lambda row: str(row.get(name, ""))


def spread(name: str, deviation: bool = True) -> Show:
    """Mean and deviation over the runs."""

    def show(row: Row) -> str:
        mean, over = row["mean_and_deviation"][name]
        return dot(mean) if over is None or not deviation else f"{dot(mean)} ± {dot(over)}"

    return show


def label(names: dict[str, str]) -> Show:
    return lambda row: str(row.get("told", {}).get("label") or names.get(row["arm"], row["arm"]))


def rates(row: Row) -> str:
    return f"{short(row['settings']['train.id_lr'])}, {short(row['settings']['train.id_weight_decay'])}"


def number(name: str, form: Callable[[float], str]) -> Show:
    return lambda row: "" if row.get(name) is None else form(row[name])


ARMS = {
    "id": "`id`",
    "frozen": "`em3`, frozen",
    "hybrid": "`em3`, hybrid",
    "end_to_end": "`em3`, end to end",
    "text": "end to end, texts only",
    "image": "end to end, posters only",
}
MODELS = {
    "em3_freedom": "EM3 on FREEDOM",
    "bpr": "BPR",
    "lightgcn": "LightGCN",
    "slmrec": "SLMRec",
    **{
        name: name.upper()
        for name in ["vbpr", "mmgcn", "mmgcl", "lattice", "bm3", "freedom", "dragon", "mgcn", "smore"]
    },
    "lgmrec": "LGMRec",
}


# -------------------------------------------------------------------------------------------------------------- tables
@dataclass(frozen=True)
class Table:
    """Where a table's rows are, which fields of a benchmark's line name the row, and how they are shown.

    needs: what a line must have to become a row.
    strong: the column whose greatest value is bold. shaped: rows of the file -> those of the page.
    """

    benchmarks: Sequence[str]
    key: Sequence[str]
    columns: dict[str, Show]
    needs: str | None = None
    strong: str | None = None
    shaped: Callable[[list[Row]], list[Row]] = field(default=lambda rows: rows)

    def lines(self, rows: list[Row]) -> list[str]:
        cells = [[show(row) for show in self.columns.values()] for row in self.shaped(rows)]
        if self.strong is not None:
            at = list(self.columns).index(self.strong)
            best = max(cells, key=lambda row: float(row[at].split()[0]))
            best[at] = f"**{best[at]}**"
        return [_line([*self.columns]), "|" + "---|" * len(self.columns), *map(_line, cells)]


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell.strip()} |" if cell else " |" for cell in cells)


def by_both(rows: list[Row]) -> list[Row]:
    """Gains by clicks and by chances, which are lines of their own, in a row."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        found.setdefault((row["against"], row["items"]), {**row})[row["by"]] = row
    return list(found.values())


def gain(by: str, strong: bool = False) -> Show:
    def show(row: Row) -> str:
        if by not in row:
            return ""
        low, high = row[by]["interval"]
        shown = f"{signed(row[by]['auc_gain'])} ({signed(low)} to {signed(high)})"
        return f"**{shown}**" if strong and row["against"] == "frozen" else shown

    return show


GAINS = {
    "items": text("items"),
    "by clicks": gain("clicks"),
    "by chances": gain("chances", strong=True),
}
AGAINST: Show = lambda row: "`id`" if row["against"] == "id" else row["against"]  # noqa: E731


def by_size(rows: list[Row]) -> list[Row]:
    """Steps of several sizes in a row."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row["told"]["label"], {**row})[str(row["users"])] = row
    return list(found.values())


def ratio_at(users: int) -> Show:
    def show(row: Row) -> str:
        one = row.get(str(users))
        if one is None:
            return ""
        peak = f" (peak {one['peak_gib']:.1f} GiB)" if users == 10_000_000 and "peak_gib" in one else ""
        return f"{one['ratio']:.2f}{peak}"

    return show


LISTS = {
    "R@10": spread("test/recall@10"),
    "R@20": spread("test/recall@20"),
    "N@10": spread("test/ndcg@10"),
    "N@20": spread("test/ndcg@20"),
    "valid R@20": spread("valid/recall@20"),
}
AUCS = {"valid AUC": spread("valid/auc"), "test AUC": spread("test/auc")}
SHARES = {**AUCS, "share": spread("test/share"), "cold AUC": spread("test/cold/auc")}
SHARES |= {"cold share": spread("test/cold/share")}
RATES = {"`train.id_lr`, `train.id_weight_decay`": rates}
MEANS = "mean_and_deviation"
GAIN_KEY = ("arm", "against", "items", "by")

TABLES: dict[str, Table] = {
    "movielens": Table(
        ["quality"],
        ["arm"],
        {"arm": label(ARMS), **RATES, **AUCS, "test GAUC": spread("test/gauc", deviation=False)},
        MEANS,
        strong="test AUC",
    ),
    "held-out-dropout": Table(
        ["quality"],
        ["training"],
        {"training": text("training"), "runs": text("runs"), **AUCS, "test GAUC": spread("test/gauc")},
        MEANS,
        strong="test AUC",
    ),
    "held-out-now": Table(["quality"], ["arm"], {"arm": label(ARMS), **AUCS, "test GAUC": spread("test/gauc")}, MEANS),
    "held-out": Table(["quality"], ["arm"], {"arm": label(ARMS), **AUCS, "test GAUC": spread("test/gauc")}, MEANS),
    "shop": Table(["quality"], ["arm"], {"arm": label(ARMS), **RATES, **SHARES}, MEANS),
    "shop-gains": Table(["quality"], GAIN_KEY, {"end to end over": AGAINST, **GAINS}, "auc_gain", shaped=by_both),
    "shop-dense": Table(["quality"], ["arm"], {"arm": label(ARMS), **SHARES}, MEANS),
    "shop-dense-gains": Table(["quality"], GAIN_KEY, {"over": AGAINST, **GAINS}, "auc_gain", shaped=by_both),
    "baby": Table(["quality_retrieval"], ["arm"], {"model": label({}), **LISTS}, MEANS),
    "tiktok": Table(
        ["quality_retrieval"],
        ["arm"],
        {
            "model": label(MODELS),
            **LISTS,
            "best epoch": lambda row: f"{row['mean_and_deviation']['best_epoch'][0]:.0f}",
        },
        MEANS,
    ),
    "options": Table(
        ["quality_retrieval"],
        ["model", "option"],
        {
            "model": text("model"),
            "option": text("option"),
            "published code": number("published", dot),
            "with the option": number("with", dot),
            "difference": number("difference", signed),
            "best epochs": lambda row: ", ".join(map(str, row["best_epochs"])),
        },
    ),
    "speed": Table(
        ["history", "throughput", "side", "demo"],
        ["what"],
        {"what": text("what"), "figure": text("figure"), "asked": text("asked"), "command": text("command")},
    ),
    "retrieval-speed": Table(
        ["retrieval"],
        ["model", "model.train_features", "model.n_layers"],
        {
            "model": told("label"),
            "epoch": number("epoch", time_of),
            "/ floor": number("epoch_ratio", "{:.2f}".format),
            "evaluation": number("evaluation", time_of),
            "/ floor ": number("evaluation_ratio", "{:.2f}".format),
            "together": number("seconds", time_of),
            "asked": told("asked"),
            "memory": lambda row: f"{row['peak_mb'] / 1000:.1f} GB",
            "MMRec's epoch + evaluation": told("mmrec"),
        },
    ),
    "revisions": Table(["revisions"], ["what"], {"what": text("what"), "ratio": text("ratio")}),
    "scale": Table(
        ["scale"],
        ["model", "users"],
        {
            "model": told("label"),
            "300,000": ratio_at(300_000),
            "1 million": ratio_at(1_000_000),
            "10 million": ratio_at(10_000_000),
        },
        shaped=by_size,
    ),
    "filters": Table(
        ["filters"],
        ["model", "items", "users", "figure"],
        {
            "model": lambda row: f"`{row['model']}`",
            "items": number("items", "{:,}".format),
            "users": text("users"),
            "lists": lambda row: row["figure"].removeprefix("time with ").removesuffix(" / without filters"),
            "ms": number("ms", "{:.1f}".format),
            "lists a second": number("lists_per_second", "{:,.0f}".format),
            "/ without filters": number("value", "{:.2f}".format),
        },
        needs="users",
    ),
    "loading": Table(
        ["loading"],
        ["model", "items"],
        {
            "model": text("model"),
            "s": number("load_s", "{:.1f}".format),
            "of which torch alone": number("torch_s", "{:.1f}".format),
            "first list, ms": number("first_list_s", lambda value: f"{1000 * value:.0f}"),
            "loaded again in the same process": number("again_s", "{:.2f}".format),
        },
    ),
    "imports": Table(
        ["imports", "download"],
        ["what", "count"],
        {
            "what": told("label"),
            "a second": lambda row: row.get("rate") or f"{row['per_second']:,.0f}{row['told'].get('unit', '')}",
            "memory": lambda row: f"{row['peak_mb'] / 1000:.1f} GB",
            "asked": told("asked"),
        },
    ),
}


# --------------------------------------------------------------------------------------------------------------- pages
def read(benchmark: str) -> dict[str, Any]:
    """A file of results, or an empty one."""
    file = RESULTS / f"{benchmark}.json"
    return json.loads(file.read_text()) if file.is_file() else {"benchmark": benchmark, "tables": {}}


def write(benchmark: str, found: dict[str, Any]) -> None:
    """Replace a file of results."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{benchmark}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def table(name: str) -> list[str]:
    rows = [row for benchmark in TABLES[name].benchmarks for row in read(benchmark)["tables"].get(name, [])]
    return TABLES[name].lines(rows)


def written(page: str) -> str:
    """A page with its tables as the files have them."""

    def fill(found: re.Match[str]) -> str:
        return found["begin"] + "\n" + "\n".join(table(found["name"])) + "\n\n" + found["end"]

    return MARKED.sub(fill, page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    old = []
    for name in PAGES:
        page = (ROOT / name).read_text()
        new = written(page)
        if new != page:
            old.append(name)
            if not args.check:
                (ROOT / name).write_text(new)
    print(*[f"{'not up to date' if args.check else 'written'}: {name}" for name in old] or ["up to date"], sep="\n")
    return 1 if args.check and old else 0


if __name__ == "__main__":
    sys.exit(main())
