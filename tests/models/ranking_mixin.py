"""What every ranking model must do; a test class inherits `RankingMixin` and names its settings."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.evaluation.ctr import auc
from rawrec.training.evaluate import evaluate_part
from rawrec.training.job import load_task, train
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask
from systems import Stop, small_dataset

USERS, ITEMS, COLD = 12, 30, 6
COMMON: dict[str, Any] = {
    "data": {"history": 6},
    "content": {"dim": 16},
    "train": {
        "lr": 0.02,
        "weight_decay": 0.0,
        "id_weight_decay": 0.0,
        "batch_size": 32,
        "epochs": 5,
        "patience": 5,
        "metric": "logloss",
        "warmup_steps": 0,
        "threads": 1,
        "device": "cpu",
        "precision": "fp32",
    },
    "eval": {"topk": [5]},
}


def checkerboard(out: Path) -> Dataset:
    """Every user has met most items, and likes those of the same parity; the last items are cold, two lack content."""
    rng = np.random.default_rng(0)
    parity = np.arange(ITEMS) % 2
    feature = rng.normal(0, 0.3, (ITEMS, 6)).astype(np.float32)
    feature[:, 0] += 2 * parity - 1
    feature[:, 1] -= 2 * parity - 1
    valid = np.ones(ITEMS, bool)
    valid[[3, ITEMS - 1]] = False
    rows, parts = [], []
    for user in range(USERS):
        for time, item in enumerate(rng.permutation(ITEMS)):
            if item >= ITEMS - COLD:
                part = "test"
            else:
                part = ("train", "train", "train", "train", "valid", "test")[rng.integers(6)]
            late = {"train": 0, "valid": 100, "test": 200}[part]
            rows.append((user, int(item), late + time, float(user % 2 == item % 2)))
            parts.append(part)
    return small_dataset(out, rows, ITEMS, feature=feature, valid=valid, parts=parts)


class ServingMixin:
    """That a model learns, is kept, and scores whoever it meets. settings: of the model, over `COMMON`. reads_content:
    cold items can be told apart."""

    settings: dict[str, Any]
    reads_content: bool

    @classmethod
    def config(cls, **train_settings: Any) -> dict[str, Any]:
        tree = {key: dict(value) for key, value in COMMON.items()}
        for key, value in cls.settings.items():
            tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
        tree["train"] |= train_settings
        return tree

    @pytest.fixture(scope="class")
    @classmethod
    def board(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        return checkerboard(tmp_path_factory.mktemp("board") / "data")

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, board: Dataset, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
        return train(cls.config(), board, tmp_path_factory.mktemp("runs") / "run")

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, run: RunFolder) -> ImpressionTask:
        return load_task(run)

    def test_learns_a_checkerboard(self, trained: ImpressionTask) -> None:
        _, _, frame = evaluate_part(trained, 2, 0)
        cold = (frame["item"] >= ITEMS - COLD).to_numpy()
        known = frame.filter(~cold)
        assert auc(known["label"], known["score"]) > 0.95
        with_content = frame.filter(cold & (frame["item"] != ITEMS - 1).to_numpy())
        unseen = auc(with_content["label"], with_content["score"])
        assert unseen > 0.9 if self.reads_content else 0.4 < unseen < 0.6

    def test_survives_save_and_load(self, run: RunFolder, trained: ImpressionTask) -> None:
        written = pl.read_parquet(run.path / "scores.parquet").filter(pl.col("split") == 2)
        _, _, frame = evaluate_part(trained, 2, 0)
        assert frame["row"].to_list() == written["row"].to_list()
        np.testing.assert_allclose(frame["score"], written["score"], 1e-6, 1e-7)
        assert frame["score"].std() > 0.05
        untrained = ImpressionTask(resolve(self.config()), trained.data, run.cache_of(trained.data)).eval()
        untrained.refresh(None, 1)
        _, _, other = evaluate_part(untrained, 2, 0)
        assert np.abs(other["score"].to_numpy() - frame["score"].to_numpy()).max() > 0.05

    def test_a_missing_modality_and_a_cold_item(self, trained: ImpressionTask) -> None:
        """Item 3 has interactions but no content, the last item has neither, the one before has content alone."""
        items = torch.tensor([[3, ITEMS - 1, ITEMS - 2, ITEMS - 3]])
        history = torch.tensor([[-1, -1, 3, ITEMS - 1, 0, 1]])
        table = trained.table()
        with torch.no_grad():
            scores = trained.ranker(trained.batch_of(torch.tensor([0]), items, history, table))[0]
        assert scores.isfinite().all()
        assert (scores[0] != scores[1]) == self.settings["model"].get("item_id", True)  # only ids tell them apart
        if self.reads_content:
            assert (scores[2] - scores[3]).abs() > 1e-3  # of two cold items, content tells them apart
        else:
            assert scores[1] == scores[2] == scores[3]

    def test_an_empty_history(self, trained: ImpressionTask, board: Dataset, tmp_path: Path) -> None:
        table, users, items = trained.table(), torch.tensor([0, -1]), torch.arange(ITEMS).repeat(2, 1)
        with torch.no_grad():
            padding = trained.ranker(trained.batch_of(users, items, torch.full((2, 6), -1), table))
            nothing = trained.ranker(trained.batch_of(users, items, torch.zeros(2, 0, dtype=torch.int64), table))
        assert padding.isfinite().all()
        torch.testing.assert_close(padding, nothing)
        settings = self.config(epochs=1)
        settings["data"] = {"history": 0}
        metrics = train(settings, board, tmp_path / "run").metrics_lines()[-1]
        assert np.isfinite(metrics["loss"]) and 0 <= metrics["valid/auc"] <= 1


class RankingMixin(ServingMixin):
    """The same, and that it learns by heart, and is what its seed makes it.

    by_heart: other settings of training, by which a tiny set is learned; its epochs are the most that it may take.
    """

    by_heart: Mapping[str, Any] = MappingProxyType({})

    def test_overfits_a_tiny_set(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        pairs = [(u, i) for u in range(4) for i in range(6)]
        labels = rng.integers(0, 2, len(pairs)).astype(float)
        rows = [(u, i, t, y) for t, ((u, i), y) in enumerate(zip(pairs, labels, strict=True))]
        parts = ["train"] * len(rows) + ["valid"] * 2
        rows += [(0, 0, 100, 1.0), (0, 1, 100, 0.0)]
        feature = rng.normal(size=(6, 5)).astype(np.float32)
        data = small_dataset(tmp_path / "data", rows, 6, feature=feature, parts=parts)
        settings = self.config(**{"epochs": 40, "patience": 100, "batch_size": 8, "lr": 0.03} | self.by_heart)
        still = dict.fromkeys(("dropout", "id_dropout", "cic_weight"), 0.0)
        known = type(resolve(settings).model).model_fields
        settings["model"] = {**settings["model"], **{key: value for key, value in still.items() if key in known}}
        losses: list[float] = []

        def until_learned(event: str, **values: Any) -> None:
            if event == "validated":
                losses.append(values["line"]["loss/bce"])
                if losses[-1] < 0.1:
                    raise Stop

        with pytest.raises(Stop):
            train(settings, data, tmp_path / "run", observer=until_learned)
        assert losses[0] > 0.5

    def test_is_the_same_twice_with_one_seed(self, board: Dataset, tmp_path: Path) -> None:
        runs = [
            train({**self.config(epochs=1), "seed": seed}, board, tmp_path / f"run{k}")
            for k, seed in enumerate((4, 4, 5))
        ]
        first, again, other = ((run.path / "model.safetensors").read_bytes() for run in runs)
        assert first == again and first != other
