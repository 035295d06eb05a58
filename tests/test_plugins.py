"""Things registered by name: whose they are, names that clash, packages that are broken or gone."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rawrec
from rawrec import plugins
from rawrec.config import resolve, validate
from rawrec.config.listing import models, settings
from rawrec.config.metrics import lower_is_better
from rawrec.config.own import lacking, own_parts
from rawrec.errors import UserError
from rawrec.evaluation.ctr import ctr_metrics
from rawrec.evaluation.topk import topk_metrics
from registries import registries  # noqa: F401

pytestmark = pytest.mark.usefixtures("registries")
MODULE = """
import rawrec
class Cfg(rawrec.RetrievalConfig):
    '''A model of a package.'''
    width: int = 4
rawrec.register_model("packed", Cfg, "packed_model:Nowhere")
"""


class Cfg(rawrec.RetrievalConfig):
    """A model of this test."""

    width: int = 4


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`site(package, points, **modules)`: an installed package, as its metadata has it."""

    def install(package: str, points: str, **modules: str) -> None:
        info = tmp_path / f"{package.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(points)
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        plugins.installed.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield install
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
    monkeypatch.undo()
    plugins.installed.cache_clear()


def test_a_model_of_a_package_is_loaded_when_it_is_asked_for(site: Any) -> None:
    site("rec-packed", "[rawrec.models]\npacked = packed_model:Cfg\n", packed_model=MODULE)
    validate({"model": {"name": "lightgcn"}})
    assert "packed_model" not in sys.modules
    cfg = resolve("packed", {"model.width": 7})
    assert cfg.model.width == 7 and cfg.retrieval and cfg.train.metric == "recall@20" and cfg.paradigm == "hybrid"
    assert validate(cfg.dump()) == cfg and cfg.dump()["model"] == {"name": "packed", "width": 7}
    (used,) = own_parts(cfg)
    assert (used.name, used.package, used.version) == ("packed", "rec-packed", "1.5")
    assert lacking(used._asdict()) is None
    assert next(line for line in models() if line.name == "packed").package == "rec-packed 1.5"
    with pytest.raises(UserError, match=r"model\.widht: 'widht' is unknown; did you mean width"):
        resolve("packed", {"model.widht": 7})
    with pytest.raises(UserError, match=r"Known: .*lgmrec, .*packed"):
        resolve({"model": {"name": "nothing"}})


def test_a_broken_package_disturbs_only_who_asks_for_it(site: Any) -> None:
    site("rec-broken", "[rawrec.models]\nbroken = broken_model:X\n", broken_model="import nothing_of_that_name")
    resolve("lightgcn")
    with pytest.raises(UserError, match=r"'broken' of the package rec-broken 1\.5 .*nothing_of_that_name"):
        resolve("broken")
    assert "nothing_of_that_name" in next(line.what for line in models() if line.name == "broken")


def test_packages_that_bring_the_same_name(site: Any) -> None:
    site("rec-a", "[rawrec.models]\nlightgcn = a_model:X\npacked = a_model:X\n", a_model="raise SystemError")
    site("rec-b", "[rawrec.models]\npacked = b_model:X\n", b_model="raise SystemError")
    with pytest.raises(UserError, match=r"'packed' is brought by the package rec-. 1\.5 and by the package rec-. 1\.5"):
        resolve("packed")
    with pytest.raises(UserError, match=r"'lightgcn' is brought by rawrec itself and by the package rec-a"):
        resolve("lightgcn")
    resolve("bpr")


def test_what_is_not_there_any_more() -> None:
    before = set(sys.modules)
    gone = {"registry": "models", "name": "fism", "module": "rawrec_fism", "package": "rawrec-fism", "version": "2"}
    assert "package rawrec-fism 2, which is not installed" in str(lacking(gone))
    assert "the module notebook registered" in str(lacking(gone | {"module": "notebook", "package": None}))
    rawrec.register_model("fism", Cfg, "elsewhere:X")
    assert "here that name is of no package" in str(lacking(gone))
    assert "damaged" in str(lacking({"name": "fism"}))
    assert not {"elsewhere", "rawrec_fism"} & (set(sys.modules) - before)  # nothing was imported to say so


def test_names_that_are_taken() -> None:
    for name in ("lightgcn", "id"):
        with pytest.raises(UserError, match=f"'{name}'.*taken by rawrec itself"):
            rawrec.register_model(name, Cfg, "somewhere:X")
    rawrec.register_model("mine", Cfg, "somewhere:X")
    rawrec.register_model("mine", Cfg, "somewhere:X")  # a cell that is run twice
    with pytest.raises(UserError, match=r"'mine'.*taken by the module somewhere"):
        rawrec.register_model("mine", Cfg, "somewhere:Y")
    for register in (
        lambda: rawrec.register_fusion("sum", object),
        lambda: rawrec.register_metric("auc", "impressions", len),
        lambda: rawrec.register_metric("recall2", "lists", len),
    ):
        with pytest.raises(UserError, match="taken by rawrec itself"):
            register()
    for wrong in ("", "a b", "a/b", "a@5", "1a", None):
        with pytest.raises(UserError, match="a name has letters"):
            rawrec.register_metric(wrong, "lists", len)  # pyright: ignore[reportArgumentType]


def test_records_that_do_not_work() -> None:
    class NoDefault(rawrec.RetrievalConfig):
        width: int

    class Other(rawrec.RetrievalConfig):
        name: str = pytest.importorskip("pydantic").Field(default="other", pattern="^other$")

    with pytest.raises(UserError, match="a default for every setting"):
        rawrec.register_model("mine", NoDefault, "somewhere:X")
    with pytest.raises(UserError, match="allow this name"):
        rawrec.register_model("mine", Other, "somewhere:X")
    with pytest.raises(UserError, match="RetrievalConfig or RankerConfig"):
        rawrec.register_model("mine", dict, "somewhere:X")  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_near_names_and_lists_of_settings() -> None:
    with pytest.raises(UserError, match="'LightGCN' is unknown; did you mean lightgcn"):
        resolve("LightGCN")
    with pytest.raises(UserError, match="did you mean lightgcn"):
        validate({"model": {"name": "Light-GCN"}})
    assert [line.setting for line in settings("bpr")[1]][:2] == ["model.name", "model.embedding_size"]
    assert settings("em3")[1] == settings("dot_mlp")[1] and settings("train")[1][0].setting == "train.epochs"
    with pytest.raises(UserError, match="did you mean bpr"):
        settings("bprr")


LISTS = np.array([[3, 1, 2], [0, 4, -1], [5, 6, 7]])
POSITIVES = (np.array([0, 2, 3, 3]), np.array([1, 9, 0]))


def test_a_metric_of_lists() -> None:
    @rawrec.register_metric("first", of="lists", lower=True)
    def first(lists: Any) -> Any:
        """Where the first hit stands; k + 1 without one."""
        k = lists.hits.shape[1]
        return np.where(lists.hits.any(1), lists.hits.argmax(1) + 1, k + 1)

    cfg = resolve("bpr", {"train.metric": "cold/first@5"})
    assert lower_is_better("cold/first@5") and not lower_is_better("recall@5") and lower_is_better("warm/logloss")
    own = cfg.own_metrics("lists")
    cold = {"cold": np.arange(10) == 9}
    metrics, per_user = topk_metrics(LISTS, *POSITIVES, [2, 3], cold, own)
    assert metrics["first@2"] == (2 + 1) / 2 and metrics["first@3"] == (2 + 1) / 2 and metrics["cold/first@3"] == 4
    np.testing.assert_array_equal(per_user["first@3"], [2, 1, np.nan])
    for wrong in ("first", "auc@5", "second@5"):
        with pytest.raises(UserError, match=r"use auc, .*first"):
            resolve("bpr", {"train.metric": wrong})
    rawrec.register_metric("short", "lists", lambda lists: lists.positives[:1])
    rawrec.register_metric("fails", "lists", lambda lists: 1 / 0)
    for name, said in (("short", r"for each of 2 users; .* shape \[1\]"), ("fails", "ZeroDivisionError")):
        with pytest.raises(UserError, match=f"metric '{name}'.*{said}"):
            topk_metrics(LISTS, *POSITIVES, [2], None, resolve("bpr", {"eval.metrics": [name]}).own_metrics("lists"))


def test_a_metric_of_impressions() -> None:
    rawrec.register_metric("brier", "impressions", lambda y, p, users: ((p - y) ** 2).mean(), lower=True)
    rawrec.register_metric("never", "impressions", lambda y, p, users: float("nan"))
    cfg = resolve("id", {"train.metric": "brier", "eval.metrics": ["never"]})
    labels, users = np.array([1.0, 0, 1]), np.array([0, 0, 1])
    own = cfg.own_metrics("impressions")
    metrics, reasons = ctr_metrics(labels, np.array([0.5, 0.5, 1.0]), users, {"cold": labels < 0}, own)
    assert metrics["brier"] == pytest.approx(0.5 / 3) and metrics["never"] is None and metrics["cold/brier"] is None
    assert {"never", "cold/brier"} <= reasons.keys() and "brier" not in reasons
    with pytest.raises(UserError, match="brier measures impressions"):
        resolve("bpr", {"eval.metrics": ["brier"]})
    with pytest.raises(UserError, match="auc is measured anyway"):
        resolve("id", {"eval.metrics": ["auc"]})


def test_registering_loads_no_torch() -> None:
    code = (
        "import sys, rawrec\n"
        "assert 'pydantic' not in sys.modules\n"
        "class Cfg(rawrec.RetrievalConfig): pass\n"
        "rawrec.register_model('mine', Cfg, 'somewhere:X'); rawrec.register_metric('mine', 'lists', 'somewhere:f')\n"
        "rawrec.register_fusion('mine', 'somewhere:F'); rawrec.register_encoder('mine', 'image', 'somewhere:e')\n"
        "class Of(rawrec.SourceOptions): pass\n"
        "rawrec.register_source('mine', Of, 'somewhere:f')\n"
        "from rawrec.config import resolve\n"
        "resolve('mine', {'train.metric': 'mine@20'}); resolve('em3', {'content.fusion.kind': 'mine'})\n"
        "assert 'torch' not in sys.modules and 'somewhere' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
