from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from retrieval_mixin import ITEMS, RetrievalMixin, checkerboard, features_of, train

from rawrec.config.retrieval import FREEDOMConfig
from rawrec.errors import UserError
from rawrec.models.graph import edge_weights
from rawrec.models.retrieval.freedom import EPSILON, FREEDOM, sample_edges


class TestFREEDOM(RetrievalMixin):
    config = FREEDOMConfig
    settings = {"knn_k": 4, "dropout": 0.2, "reg_weight": 0.1}  # noqa: RUF012

    def test_a_missing_modality_leaves_its_weight_to_the_others(self) -> None:
        present = {name: torch.ones(ITEMS, dtype=torch.bool) for name in self.modalities}
        present["image"][[0, 1]] = False
        present["text"][[1, 2]] = False
        model = self.make(present=present)
        assert isinstance(model, FREEDOM)
        graph = model.item_graph.to_dense()
        sums = torch.full((ITEMS,), 1.0)
        sums[1] = 0
        torch.testing.assert_close(graph.sum(1), sums)  # of each item all k neighbours have weight 1 / k
        assert not graph[:, 1].any()

    def test_weights_of_one_and_three_modalities(self) -> None:
        names = ("image", "text", "audio")
        single = [self.make(features=features_of((name,))) for name in names]
        graphs = [model.item_graph.to_dense() for model in single if isinstance(model, FREEDOM)]
        model = self.make(features=features_of(names), mm_image_weight=0.2)
        assert isinstance(model, FREEDOM)
        expected = 0.2 * graphs[0] + 0.4 * graphs[1] + 0.4 * graphs[2]
        # Features are drawn one after the other, so those of the single models differ but for the first.
        torch.testing.assert_close(model.item_graph.to_dense().sum(1), expected.sum(1))
        first = self.make(features=features_of(names), mm_image_weight=1.0)
        assert isinstance(first, FREEDOM)
        torch.testing.assert_close(first.item_graph.to_dense(), graphs[0])

    def test_more_neighbours_than_items(self) -> None:
        with pytest.raises(UserError, match=r"model\.knn_k=21: the catalogue has 20 items"):
            self.make(knn_k=ITEMS + 1)

    def test_only_side_losses_train_features(self) -> None:
        assert dict(self.make().named_parameters()).keys() >= {"image_embedding.weight", "text_trs.weight"}
        frozen = dict(self.make(train_features=False).named_parameters())
        assert "image_embedding.weight" not in frozen and "image_trs.weight" in frozen
        assert set(dict(self.make(reg_weight=0.0).named_parameters())) == {
            "user_embedding.weight",
            "item_id_embedding.weight",
        }

    def test_edges_are_drawn_by_degree(self) -> None:
        pairs, _ = checkerboard()
        weights = edge_weights(pairs, epsilon=EPSILON)
        generator = torch.Generator().manual_seed(0)
        counts = torch.zeros(len(weights))
        for _ in range(4000):
            kept = sample_edges(pairs, 0.99, generator)
            assert len(kept) == len(kept.unique()) == int(len(weights) * (1 - 0.99)) == 1
            counts[kept] += 1
        expected = 4000 * weights / weights.sum()
        assert ((counts - expected).square() / expected).sum() < len(weights) + 4 * (2 * len(weights)) ** 0.5

    def test_live_features_receive_gradient(self) -> None:
        model = self.make(train_features=False)
        values = torch.randn(3, 6, requires_grad=True)
        users, positives = model.pairs.users[:8], model.pairs.items[:8]
        negatives = (positives + 1) % ITEMS
        live = positives.unique()[:3]
        model.live = {"image": (live, values)}
        model.loss(users, positives, negatives, {})["loss"].backward()
        assert values.grad is not None and values.grad.abs().sum(1).min() > 0
        torch.testing.assert_close(model.feature("image")[live], values)
        torch.testing.assert_close(model.feature("image"), model.feature("image", torch.arange(ITEMS)))


def graph_file(path: Path, **changes: Any) -> Path:
    """A ring of all items, with some arrays changed or, where None, left out."""
    row = np.arange(ITEMS)
    arrays = {"row": row, "col": (row + 1) % ITEMS, "value": np.full(ITEMS, 0.5, np.float32), **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


class TestItemGraph:
    def make(self, path: Path, **settings: Any) -> FREEDOM:
        cfg = FREEDOMConfig(item_graph=path, embedding_size=8, **settings)
        return FREEDOM(cfg, checkerboard()[0], {})

    def test_it_needs_no_features(self, tmp_path: Path) -> None:
        model = self.make(graph_file(tmp_path / "graph.npz"), reg_weight=0)
        dense = model.item_graph.to_dense()
        assert dense[0, 1] == dense[ITEMS - 1, 0] == 0.5 and dense.sum() == ITEMS / 2
        train(model, 2, 0.01)
        with pytest.raises(UserError, match=r"set model.reg_weight=0, so that it reads model.item_graph"):
            self.make(graph_file(tmp_path / "graph.npz"), reg_weight=0.1)

    def test_the_number_of_items_may_be_said(self, tmp_path: Path) -> None:
        few = np.arange(ITEMS - 3)
        arrays = {"row": few, "col": few, "value": np.ones(ITEMS - 3)}
        self.make(graph_file(tmp_path / "graph.npz", **arrays, n_items=np.array(ITEMS)), reg_weight=0)
        with pytest.raises(UserError, match="a catalogue of 17 items, the dataset has 20"):
            self.make(graph_file(tmp_path / "graph.npz", **arrays), reg_weight=0)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"row": np.arange(ITEMS) + 1}, "a catalogue of 21 items, the dataset has 20"),
            ({"row": np.arange(ITEMS) - 1}, "a catalogue of"),
            ({"n_items": np.array(19)}, "a catalogue of 19 items, the dataset has 20"),
            ({"value": np.full(ITEMS, np.nan)}, "must hold finite numbers"),
            ({"value": np.ones(3)}, "must be of one length"),
            ({"row": np.linspace(0, 1, ITEMS)}, "must be of one length"),
            ({"col": None}, "lacks the array col"),
            ({"value": np.array([None] * ITEMS)}, "cannot be read"),
        ],
    )
    def test_a_file_that_does_not_fit(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            self.make(graph_file(tmp_path / "graph.npz", **changes), reg_weight=0)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is no such file"):
            self.make(tmp_path / "graph.npz", reg_weight=0)
        with pytest.raises(UserError, match="there is no such file"):
            self.make(tmp_path, reg_weight=0)
        np.save(tmp_path / "array.npy", np.ones(3))
        (tmp_path / "text.npz").write_text("no archive")
        (tmp_path / "empty.npz").touch()
        for name in ("array.npy", "text.npz", "empty.npz"):
            with pytest.raises(UserError, match=r"is no \.npz file"):
                self.make(tmp_path / name, reg_weight=0)
