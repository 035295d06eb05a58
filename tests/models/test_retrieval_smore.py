import pytest
import torch
from retrieval_mixin import ITEMS, RetrievalMixin

from rawrec.config.retrieval import SMOREConfig
from rawrec.errors import UserError
from rawrec.models.retrieval.smore import SMORE


class TestSMORE(RetrievalMixin):
    config = SMOREConfig
    settings = {"image_knn_k": 4, "text_knn_k": 3, "dropout_rate": 0.1, "train_batch_size": 64}  # noqa: RUF012

    def test_the_fusion_graph_has_the_larger_weight_of_each_edge(self) -> None:
        image, text, fusion = (graph.to_dense() for graph in self._graphs())
        both = (image != 0) & (text != 0)
        assert both.any() and torch.equal(fusion[both], torch.maximum(image, text)[both])
        assert torch.equal(fusion[~both], (image + text)[~both])

    def _graphs(self):
        model = self.make()
        assert isinstance(model, SMORE)
        return model.item_graphs

    def test_what_an_item_lacks_is_neutral_in_its_fusion(self) -> None:
        """Without texts the fused spectrum is the picture's, through the fusion's filter."""
        known = torch.ones(ITEMS, dtype=torch.bool)
        model = self.make(present={"image": known, "text": known.clone().index_fill(0, torch.arange(5), False)})
        assert isinstance(model, SMORE)
        with torch.no_grad():
            model.get_parameter("fusion_complex_weight").copy_(model.get_parameter("image_complex_weight"))
            image, _, fusion = model._signals()
        assert torch.allclose(image[:5], fusion[:5], atol=1e-6) and not torch.allclose(image[5:], fusion[5:], atol=1e-3)

    def test_more_neighbours_than_items(self) -> None:
        with pytest.raises(UserError, match=r"model\.text_knn_k=21: the catalogue has 20 items"):
            self.make(text_knn_k=21)

    def test_a_user_has_one_mask_in_a_batch(self) -> None:
        model = self.make()
        rows = torch.tensor([3, 3])
        draws = model.draw(rows, rows, rows, torch.Generator().manual_seed(0))
        assert {name: mask.shape[0] for name, mask in draws.items()} == dict.fromkeys(
            ("keep_image", "keep_text", "keep_fusion"), model.n_users + model.n_items
        )
