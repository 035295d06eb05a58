"""Numeric fixtures: every `<name>.json` with its `<name>.npz` in the folders of RAWREC_GOLDEN (separated by ':').

A fixture is checked by the function that is registered for its kind, the longest registered name that its file name
starts with (`vlmo-abs` -> `vlmo`). Fixtures of models that the project does not have are skipped. The checks of
retrieval models are in `models/golden_<model>.py`. The arrays of `<name>-step3` are split from `<name>` for size.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rawrec.content.fusion.fqformer import FQFormer
from rawrec.evaluation.topk import rank_all, topk_metrics

Arrays = Mapping[str, np.ndarray]
MODELS = Path(__file__).parent / "models"
FOLDERS = [
    Path(p) for p in os.environ.get("RAWREC_GOLDEN", str(Path(__file__).parent / "golden")).split(os.pathsep) if p
]
FIXTURES = [path for folder in FOLDERS for path in sorted(folder.glob("*.json"))]


def check_metrics(about: dict[str, Any], arrays: Arrays) -> None:
    users = arrays["eval_users"]
    train, test = (_csr(arrays[f"{part}_users"], arrays[f"{part}_items"], users) for part in ("train", "test"))
    scores = torch.from_numpy(arrays["scores"])
    expected = arrays["out/topk_items"]
    depth = expected.shape[1]
    top = rank_all(lambda u: scores[u], users, *train, k=depth, user_batch=7)

    # Where a user has too few items left, the reference fills up with masked ones, never hits; ours says -1.
    filled = top.items == -1
    np.testing.assert_array_equal(np.where(filled, expected, top.items), expected)
    pairs = set(zip(arrays["train_users"].tolist(), arrays["train_items"].tolist(), strict=True))
    assert all((users[row], expected[row, column]) in pairs for row, column in zip(*np.nonzero(filled), strict=True))

    ks = list(range(1, depth + 1))
    metrics, per_user = topk_metrics(top.items, *test, ks)
    assert metrics["topk_users"] == len(users)
    for name in ("recall", "ndcg", "precision", "map", "recall2"):
        curve = np.array([metrics[f"{name}@{k}"] for k in ks], np.float64)
        np.testing.assert_allclose(curve, arrays[f"out/{name}_curve"], 1e-12, 1e-12)
        if name != "recall2":
            curves = np.stack([per_user[f"{name}@{k}"] for k in ks], 1)
            np.testing.assert_allclose(curves, arrays[f"out/per_user/{name}"], 1e-12, 1e-12)
    for key in arrays:
        if re.fullmatch(r"out/\w+@\d+", key):
            assert metrics[key.removeprefix("out/")] == pytest.approx(float(arrays[key]), abs=1e-12), key
    for key, rounded in about["reported_rounded_to_4"].items():
        assert round(metrics[key] or 0, 4) == pytest.approx(rounded, abs=1e-9), key


def _csr(pair_users: np.ndarray, pair_items: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items of each of `users`, laid end to end."""
    lists = [pair_items[pair_users == u] for u in users]
    return np.cumsum([0] + [len(items) for items in lists]), np.concatenate(lists)


def check_fqformer(about: dict[str, Any], arrays: Arrays) -> None:
    size = about["hyper_parameters"]
    model = FQFormer(size["hidden_size"], size["query_num"], size["layer_num"], size["num_heads"])
    model.load_state_dict(_parameters(arrays))
    visible = torch.from_numpy(arrays["attention_mask_additive"][:, 0, 0, size["query_num"] :] == 0)
    with torch.no_grad():
        masked = model(torch.from_numpy(arrays["input"]), visible)
    np.testing.assert_allclose(masked.numpy(), arrays["out/tokens_masked"], 1e-5, 1e-5)

    for suffix, weight in (("", None), ("_weighted", torch.from_numpy(arrays["loss_weights"]))):
        model.zero_grad()
        given = torch.from_numpy(arrays["input"]).requires_grad_()
        tokens = model(given)
        loss = tokens.square().sum() if weight is None else (tokens * weight).sum()
        loss.backward()
        np.testing.assert_allclose(tokens.detach().numpy(), arrays["out/tokens"], 1e-5, 1e-5)
        np.testing.assert_allclose(loss.item(), arrays[f"out/loss{suffix}"], 1e-5, 1e-5)
        _same_gradient(given, arrays[f"grad{suffix}_input"], "input")
        expected = {name for name in arrays if name.startswith(f"grad{suffix}/")}
        assert expected == {f"grad{suffix}/{name}" for name, _ in model.named_parameters()}
        for name, parameter in model.named_parameters():
            _same_gradient(parameter, arrays[f"grad{suffix}/{name}"], name)


def _parameters(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {k.removeprefix("param/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("param/")}


def _same_gradient(tensor: torch.Tensor, expected: np.ndarray, name: str) -> None:
    """Within 1e-5 of the largest entry; a key bias has no true gradient: what is stored of it is rounding noise."""
    assert tensor.grad is not None, name
    atol = 1e-5 if name.endswith("key.bias") else 1e-5 * max(float(np.abs(expected).max()), 1e-5)
    np.testing.assert_allclose(tensor.grad.numpy(), expected, 0, atol, err_msg=name)


CHECKS: dict[str, Callable[[dict[str, Any], Arrays], None]] = {
    "metrics": check_metrics,
    "fqformer": check_fqformer,
}
sys.path.append(str(MODELS))
for file in sorted(MODELS.glob("golden_*.py")):
    CHECKS |= import_module(file.stem).CHECKS
GoldenModel = import_module("golden").GoldenModel


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a fixture."""
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        return dict(arrays)


def kind_of(name: str) -> str | None:
    """The longest registered kind that begins the fixture's name, whole words only."""
    known = [kind for kind in CHECKS if re.match(rf"{re.escape(kind)}(?![a-z0-9])", name.lower())]
    return max(known, key=len, default=None)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_fixture(path: Path) -> None:
    kind = kind_of(path.stem)
    if kind is None:
        pytest.skip(f"no check for fixtures of kind {path.stem!r} yet")
    whole = path.with_stem(path.stem.removesuffix("-step3"))
    arrays = load(whole) if whole == path else load(whole) | load(path)
    if not isinstance(CHECKS[kind], GoldenModel):
        assert not any(key.startswith("rand/") for key in arrays), f"no check of {kind} reads random draws"
    CHECKS[kind](json.loads(whole.read_text()), arrays)


def smore_with_dropout() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A fixture as the kept one, but with dropout: masks that the model drew, and what it made of them."""
    path = Path(__file__).parent / "golden" / "smore.json"
    about, arrays = json.loads(path.read_text()), load(path)
    about["hyper_parameters"]["dropout_rate"] = 0.4
    arrays = {k: v for k, v in arrays.items() if not k.startswith(("grad/", "step3", "out/loss", "out/side"))}
    model = CHECKS["smore"].build(about, arrays)
    users, positives, negatives = (torch.from_numpy(arrays[f"batch/{name}"]) for name in ("users", "pos", "neg"))
    draws = model.draw(users, positives, negatives, torch.Generator().manual_seed(3))
    losses = model.loss(users, positives, negatives, draws)
    losses["loss"].backward()
    with torch.no_grad():
        side = model._side(*model._views(), model.node_present, draws)
    short = {"image": "v", "text": "t", "fusion": "f"}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            theirs = re.sub(r"^(gate|query)_(image|text|fusion)\b", lambda m: f"{m[1]}_{short[m[2]]}", name)
            arrays[f"grad/{theirs}"] = parameter.grad.numpy()
    arrays |= {f"rand/{name}": mask.numpy() for name, mask in draws.items()}
    return about, arrays | {"out/side_embeddings": side.numpy(), "out/loss": losses["loss"].detach().numpy()}


def test_recorded_masks_of_dropout_are_replayed() -> None:
    """Each mask matters to the loss; the side representation is that of the masked pass, the embeddings are not."""
    about, arrays = smore_with_dropout()
    check = CHECKS["smore"]
    check(about, arrays)
    masks = [key for key in arrays if key.startswith("rand/")]
    assert len(masks) == 3
    for key in masks:
        with pytest.raises(AssertionError, match="loss"):
            check(about, arrays | {key: ~arrays[key]})
    without_masks = load(Path(__file__).parent / "golden" / "smore.npz")["out/side_embeddings"]
    with pytest.raises(AssertionError, match="side"):
        check(about, arrays | {"out/side_embeddings": without_masks})


RECORDED = [path for path in FIXTURES if isinstance(CHECKS.get(str(kind_of(path.stem))), GoldenModel)]


@pytest.mark.parametrize("path", [p for p in RECORDED if not p.stem.endswith("-step3")], ids=lambda p: p.stem)
def test_an_unknown_draw_is_an_error(path: Path) -> None:
    """Of every retrieval model: by our check, or because the model cannot take it."""
    with pytest.raises((AssertionError, LookupError, AttributeError, RuntimeError)) as caught:
        CHECKS[str(kind_of(path.stem))](
            json.loads(path.read_text()), load(path) | {"rand/never_heard_of": np.ones(3, bool)}
        )
    assert "never_heard_of" in str(caught.value) or not isinstance(caught.value, AssertionError)


def test_a_draw_that_the_adapter_leaves_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    about, arrays = smore_with_dropout()
    monkeypatch.setattr(CHECKS["smore"], "draws", lambda arrays: {})
    with pytest.raises(AssertionError, match="does not read rand/keep_image"):
        CHECKS["smore"](about, arrays)


def test_every_folder_holds_fixtures() -> None:
    for folder in FOLDERS:
        assert any(path.parent == folder for path in FIXTURES), f"no fixture in {folder} (see RAWREC_GOLDEN)"
