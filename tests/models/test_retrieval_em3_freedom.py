from typing import Any

import pytest
import torch
from retrieval_mixin import ITEMS, RetrievalMixin, checkerboard, features_of

from rawrec.config.parts import FUSIONS
from rawrec.config.retrieval import EM3FreedomConfig
from rawrec.errors import UserError
from rawrec.models.retrieval.em3_freedom import EM3


class TestEM3(RetrievalMixin):
    config = EM3FreedomConfig
    settings = {"knn_k": 4, "dropout": 0.2, "hidden_dropout_prob": 0.1}  # noqa: RUF012

    @pytest.mark.parametrize("query_num", [1, 2])
    @pytest.mark.parametrize("ffn", [False, True])
    def test_dropout_is_drawn_for_every_sublayer(self, ffn: bool, query_num: int) -> None:
        model = self.make(ffn=ffn, layer_num=2, query_num=query_num)
        users, items = model.pairs.users[:5], model.pairs.items[:5]
        generator = torch.Generator().manual_seed(0)
        draws = model.draw(users, items, items, generator)
        masks = [mask for name, mask in draws.items() if name.startswith("fusion_kept")]
        assert len(masks) == (4 if ffn else 2)
        assert {tuple(mask.shape) for mask in masks} == {(ITEMS, query_num + 2, 8)}
        assert isinstance(model, EM3)
        assert not model.fuse(draws).equal(model.fuse({}))
        everything = {name: torch.ones_like(mask) for name, mask in draws.items() if name.startswith("fusion_kept")}
        none = self.make(ffn=ffn, layer_num=2, query_num=query_num, hidden_dropout_prob=0.0)
        torch.testing.assert_close(none.fuse(everything), model.fuse({}))  # type: ignore[operator]

    @pytest.mark.parametrize("fusion", FUSIONS)
    def test_other_fusions(self, fusion: str) -> None:
        """Each fuses, drops what is drawn, and learns."""
        model = self.make(fusion=fusion)
        assert isinstance(model, EM3)
        users, positives = model.pairs.users[:9], model.pairs.items[:9]
        draws = model.draw(users, positives, positives, torch.Generator().manual_seed(0))
        assert model.fuse({}).shape == (ITEMS, 8)
        assert not model.fuse(draws).equal(model.fuse({}))
        model.loss(users, positives, (positives + 1) % ITEMS, draws)["loss"].backward()
        for name in ("image_linear", "text_linear"):
            assert all(p.grad is not None and p.grad.any() for p in model.get_submodule(name).parameters()), name

    def test_contrast_of_the_paper(self) -> None:
        """In the batch, each item once, content and id embeddings themselves."""
        model = self.make(cic_negatives="batch", cic_on="embeddings", hidden_dropout_prob=0.0)
        assert isinstance(model, EM3)
        users, positives = model.pairs.users[:9], model.pairs.items[:9]
        assert len(positives.unique()) < len(positives) or positives[:5].unique().shape == (5,)
        assert model.draw(users, positives, positives, torch.Generator()) == {}
        rows = positives.unique()
        c = torch.nn.functional.normalize(model.cic_content_linear(model.fuse({})[rows]), dim=1)
        i = torch.nn.functional.normalize(model.cic_id_linear(model.item_id_embedding(rows)), dim=1)
        logits = c @ i.T / 0.5
        expected = -0.5 * (logits.log_softmax(1).diag().mean() + logits.T.log_softmax(1).diag().mean())
        torch.testing.assert_close(model.loss(users, positives, positives, {})["cic"], expected)

    def test_layers_of_the_item_graph(self) -> None:
        """Ids go through all of them; content through one, or all."""
        results = {}
        for layers, content_layers in ((1, "one"), (2, "one"), (2, "all")):
            model = self.make(n_mm_layers=layers, n_ui_layers=0, content_layers=content_layers)
            assert isinstance(model, EM3)
            graph = model.item_graph.to_dense()
            ids, content = model.embeddings()[1].chunk(2, 1)
            own = model.item_id_embedding.weight
            torch.testing.assert_close(ids, own + torch.linalg.matrix_power(graph, layers) @ own)
            results[layers, content_layers] = content
        torch.testing.assert_close(results[1, "one"], results[2, "one"])
        assert not results[2, "one"].allclose(results[2, "all"])

    def test_heads_that_do_not_fit(self) -> None:
        with pytest.raises(UserError, match=r"model\.num_heads=3 .* model\.embedding_size=8"):
            self.make(checkerboard()[0], features_of(("image",)), num_heads=3)

    def several(self, second: float = 0.5, **settings: Any) -> tuple[EM3, EM3]:
        """With two pictures an item, of which some lack the second; and with their mean as the one picture."""
        torch.manual_seed(3)
        there = torch.rand(ITEMS) < second
        all_of_them = torch.ones(ITEMS, dtype=torch.bool)
        own = features_of(("image", "text"), ITEMS)
        further = torch.randn_like(own["image"]) * there[:, None]
        features = {"image": own["image"], "image[2]": further, "text": own["text"]}
        present = {"image": all_of_them, "image[2]": there, "text": all_of_them}
        mean = torch.where(there[:, None], (own["image"] + further) / 2, own["image"])
        each = self.make(features=features, present=present, **settings)
        one = self.make(features={"image": mean, "text": own["text"]}, **settings)
        assert isinstance(each, EM3) and isinstance(one, EM3)
        return each, one

    def test_pictures_are_tokens_by_one_map(self) -> None:
        each, one = self.several()
        assert each.fields == ("image", "text") and each.modalities == ("image", "image[2]", "text")
        assert {name for name, _ in each.named_parameters()} == {name for name, _ in one.named_parameters()}
        one.load_state_dict(each.state_dict())
        both = each.present("image[2]")
        assert both.any() and not both.all()
        alike = torch.isclose(each.fuse({}), one.fuse({}), atol=1e-6).all(1)
        assert alike.equal(~both)  # an item with one picture has the same content, one with two another
        users, positives = each.pairs.users[:9], each.pairs.items[:9]
        draws = each.draw(users, positives, positives, torch.Generator().manual_seed(0))
        assert {tuple(m.shape) for name, m in draws.items() if name.startswith("fusion_kept")} == {(ITEMS, 1 + 3, 8)}

    def test_their_graph_is_of_the_mean(self) -> None:
        each, one = self.several()
        torch.testing.assert_close(each.item_graph.to_dense(), one.item_graph.to_dense())
        first = self.make(features=features_of(("image", "text"), ITEMS))
        assert isinstance(first, EM3) and not first.item_graph.to_dense().allclose(each.item_graph.to_dense())

    def test_their_order_is_of_no_account(self) -> None:
        each, _ = self.several(second=2.0)
        before = each.fuse({})
        first, second = each.get_buffer("image_feature"), each.get_buffer("image[2]_feature")
        swapped = first.clone()
        first.copy_(second)
        second.copy_(swapped)
        torch.testing.assert_close(each.fuse({}), before)

    def test_pictures_are_one_flow(self) -> None:
        each, _ = self.several(fusion="two_flow")
        assert each.content.members == [[0, 1], [2]]

    def test_no_item_may_have_a_second_picture(self) -> None:
        each, one = self.several(second=0.0)
        one.load_state_dict(each.state_dict())
        torch.testing.assert_close(each.fuse({}), one.fuse({}))
        torch.testing.assert_close(each.item_graph.to_dense(), one.item_graph.to_dense())
