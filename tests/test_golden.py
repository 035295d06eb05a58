"""Numeric fixtures: every `<name>.json` with its `<name>.npz` in the folders of RAWREC_GOLDEN (separated by ':').

A fixture is checked by the function that is registered for its kind, the longest registered name that its file name
starts with (`vlmo-abs` -> `vlmo`). Fixtures of models that the project does not have are skipped.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rawrec.config import FusionConfig
from rawrec.content.fusion import FQFormer, FQFormerFusion
from rawrec.evaluation.topk import rank_all, topk_metrics

Arrays = Mapping[str, np.ndarray]
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


def check_em3(about: dict[str, Any], arrays: Arrays) -> None:
    """The fusion as it stands in the published recommender, with the graphs that the fixture gives."""
    size = about["hyper_parameters"]
    cfg = FusionConfig(
        queries=size["query_num"],
        layers=size["layer_num"],
        heads=size["num_heads"],
        dropout=size["hidden_dropout_prob"],
    )
    fusion = FQFormerFusion(size["embedding_size"], 2, cfg)
    given = _parameters(arrays)
    fusion.load_state_dict({k: v for k, v in given.items() if k.startswith(("fusion.", "mm_proj."))})
    fusion.eval()
    graphs = {name: torch.from_numpy(arrays[f"graph/{name}"]) for name in ("norm_adj", "mm_adj")}

    def propagate(users: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        layers = [torch.cat([users, items])]
        for _ in range(size["n_ui_layers"]):
            layers.append(graphs["norm_adj"] @ layers[-1])
        mean = torch.stack(layers).mean(0)
        return mean[: len(users)], mean[len(users) :]

    with torch.no_grad():
        tokens = torch.stack(
            [
                torch.nn.functional.linear(
                    torch.from_numpy(arrays[f"{m}_feat"]), given[f"{m}_linear.weight"], given[f"{m}_linear.bias"]
                )
                for m in ("v", "t")
            ],
            1,
        )
        content = fusion(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
        users, items = given["user_embedding.weight"], given["item_id_embedding.weight"]
        id_user, id_item = propagate(users, items)
        content_user, content_item = propagate(torch.zeros_like(users), content)
        smooth_id = torch.linalg.matrix_power(graphs["mm_adj"], size["n_mm_layers"]) @ items
        smooth_content = graphs["mm_adj"] @ content if size["n_mm_layers"] else content
        user = torch.cat([id_user, content_user], 1)
        item = torch.cat([id_item + smooth_id, content_item + smooth_content], 1)
    np.testing.assert_allclose(user.numpy(), arrays["out/user_embeddings"], 1e-5, 1e-5)
    np.testing.assert_allclose(item.numpy(), arrays["out/item_embeddings"], 1e-5, 1e-5)
    np.testing.assert_allclose((user @ item.T).numpy(), arrays["out/scores"], 1e-5, 1e-5)


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
    "em3": check_em3,
}


def kind_of(name: str) -> str | None:
    """The longest registered kind that begins the fixture's name, whole words only."""
    known = [kind for kind in CHECKS if re.match(rf"{re.escape(kind)}(?![a-z0-9])", name.lower())]
    return max(known, key=len, default=None)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_fixture(path: Path) -> None:
    kind = kind_of(path.stem)
    if kind is None:
        pytest.skip(f"no check for fixtures of kind {path.stem!r} yet")
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        CHECKS[kind](json.loads(path.read_text()), dict(arrays))


def test_every_folder_holds_fixtures() -> None:
    for folder in FOLDERS:
        assert any(path.parent == folder for path in FIXTURES), f"no fixture in {folder} (see RAWREC_GOLDEN)"
