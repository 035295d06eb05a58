"""Options that a record says do nothing: the same weights come out of training, whatever they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from retrieval_mixin import ITEMS, checkerboard, features_of, train

from rawrec.config import RETRIEVAL
from rawrec.models.retrieval import retrieval_model

SMALL = {"embedding_size": 8, "recdim": 8, "latent_dim": 8, "feat_embed_dim": 8, "weight_size": [8, 8], "knn_k": 3}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("freedom", {"item_graph": "graph.npz"}, {"knn_k": 5, "mm_image_weight": 0.7}),
    ("freedom", {"reg_weight": 0.0}, {"train_features": False}),
    ("em3_freedom", {"item_graph": "graph.npz"}, {"knn_k": 5, "mm_image_weight": 0.7}),
    (
        "em3_freedom",
        {"cic_weight": 0.0},
        {"cic_temperature": 0.1, "cic_neg_num": 3, "cic_negatives": "batch", "cic_on": "embeddings"},
    ),
    ("em3_freedom", {"cic_negatives": "batch"}, {"cic_neg_num": 3}),
    ("em3_freedom", {"n_mm_layers": 0}, {"content_layers": "all"}),
    ("em3_freedom", {"n_mm_layers": 1}, {"content_layers": "all"}),
    ("em3_freedom", {"fusion": "concat"}, {"layer_num": 2, "num_heads": 2, "ffn": True, "query_num": 2}),
    ("slmrec", {"ssl_task": "FAC"}, {"dropout_rate": 0.9}),
    ("slmrec", {"ssl_task": "FM"}, {"dropout_rate": 0.9, "fac_similarity": "cosine", "fac_chain": "modalities"}),
    ("slmrec", {"ssl_task": "FD"}, {"fac_similarity": "cosine", "fac_chain": "modalities"}),
    ("mmgcn", {}, {"reg_weight": 9.0, "reg_preferences": "all"}),
    (
        "mmgcl",
        {"ssl_task": "ED"},
        {"mask_p": [0.1, 0.9], "masking": "features", "swap_tokens": False, "second_view": True},
    ),
    ("mmgcl", {"ssl_task": "ED"}, {"composed_negatives": True}),
    ("mmgcl", {}, {"mask_p": [0.1, 0.9], "masking": "features", "swap_tokens": False}),
    ("mmgcl", {"second_view": True, "masking": "features"}, {"swap_tokens": False}),
    ("mmgcl", {"contrast": "nodes"}, {"second_view": True}),
    ("mmgcl", {"contrast": "nodes", "ssl_task": "ED+MM"}, {"composed_negatives": True}),
    ("lattice", {}, {"mess_dropout": [0.9]}),
    ("lattice", {"cf_model": "mf"}, {"weight_size": [8], "adjacency": "symmetric", "mess_dropout": [0.9]}),
    ("lgmrec", {"cf_model": "mf"}, {"n_ui_layers": 1}),
]


@pytest.fixture
def graph_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A ready item graph in the folder of the test, which runs on one thread."""
    rows, threads = np.arange(ITEMS), torch.get_num_threads()
    np.savez(tmp_path / "graph.npz", row=rows, col=(rows + 2) % ITEMS, value=np.ones(ITEMS, np.float32))
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(name: str, **settings: Any) -> dict[str, torch.Tensor]:
    """After a few steps, with the vectors that they make."""
    torch.manual_seed(0)
    record = RETRIEVAL[name]
    small = {key: value for key, value in SMALL.items() if key in record.model_fields}
    model = retrieval_model(name)(record(**{**small, **settings}), checkerboard()[0], features_of(("image", "text")))
    train(model, 2, 0.02)
    users, items = model.embeddings()
    return {**model.state_dict(), "users": users, "items": items}


@pytest.mark.usefixtures("graph_file")
@pytest.mark.parametrize(("name", "base", "idle"), CASES, ids=[f"{name} {base}" for name, base, _ in CASES])
def test_nothing_comes_of_them(name: str, base: dict[str, Any], idle: dict[str, Any]) -> None:
    record = RETRIEVAL[name](**base)
    assert set(idle) <= {key for rule in record.idle_rules if rule.when(record) for key in rule.options}
    before, after = weights(name, **base), weights(name, **{**base, **idle})
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_every_rule_is_tried() -> None:
    tried = set()
    for name, base, idle in CASES:
        record = RETRIEVAL[name](**base)
        rules = [rule for rule in record.idle_rules if rule.when(record)]
        tried |= {(name, rule.reason, key) for rule in rules for key in rule.options if key in idle}
    rules = {
        (n, rule.reason, key) for n, record in RETRIEVAL.items() for rule in record.idle_rules for key in rule.options
    }
    assert tried == rules
