import torch
from retrieval_mixin import ITEMS, USERS, RetrievalMixin, checkerboard, features_of

from rawrec.config.retrieval import MGCNConfig
from rawrec.models.retrieval.mgcn import MGCN


class TestMGCN(RetrievalMixin):
    config = MGCNConfig
    settings = {"knn_k": 4, "cl_loss": 0.01, "train_batch_size": 64}  # noqa: RUF012

    def test_what_an_item_lacks_has_no_part_in_its_fusion(self) -> None:
        """Of an item with pictures alone: their view is what is shared, nothing is specific, two parts are averaged."""
        known = torch.ones(ITEMS, dtype=torch.bool)
        model = self.make(present={"image": known, "text": known.logical_not().index_fill(0, torch.arange(10), True)})
        assert isinstance(model, MGCN)
        with torch.no_grad():
            behaviour, views = model._views()
            side = model._side(behaviour, views, model.node_present)
        items = slice(USERS + 10, None)
        assert not views[items, 1].any()
        assert torch.allclose(side[items], views[items, 0] / 2, atol=1e-6)

    def test_one_modality_has_the_whole_mix(self) -> None:
        model = self.make(checkerboard()[0], features_of(("text",)))
        assert isinstance(model, MGCN)
        with torch.no_grad():
            behaviour, views = model._views()
            assert torch.allclose(model._side(behaviour, views, model.node_present), views[:, 0] / 2, atol=1e-6)
