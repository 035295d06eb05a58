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

from rawrec.content.fusion import FQFormer
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
    CHECKS[kind](json.loads(whole.read_text()), arrays)


def test_every_folder_holds_fixtures() -> None:
    for folder in FOLDERS:
        assert any(path.parent == folder for path in FIXTURES), f"no fixture in {folder} (see RAWREC_GOLDEN)"
