import pytest
import torch
from id_tables_mixin import IdTablesMixin
from retrieval_mixin import ITEMS, train

from rawrec.config.retrieval import VBPRConfig
from rawrec.models.retrieval.vbpr import VBPR


class TestVBPR(IdTablesMixin):
    config = VBPRConfig
    variants = ({}, {"biases": True})

    def test_biases_are_those_of_the_paper(self) -> None:
        model = self.make(biases=True)
        assert isinstance(model, VBPR) and model.item_linear.bias is None
        train(model, 3, self.lr)
        users, items = model.embeddings()
        raw = torch.cat([model.feature("image"), model.feature("text")], 1)
        theta_u = model.u_embedding[:, 8:]
        expected = (
            model.u_embedding[:, :8] @ model.i_embedding.T
            + theta_u @ (raw @ model.item_linear.weight.T).T
            + model.item_bias
            + raw @ model.visual_bias
        )
        torch.testing.assert_close(users @ items.T, expected)
        assert model.item_bias.abs().min() > 0 and model.visual_bias.abs().min() > 0

    @pytest.mark.parametrize("reg_on", ["representations", "parameters"])
    def test_what_is_held_down(self, reg_on: str) -> None:
        model = self.make(reg_on=reg_on, reg_norm="squared", reg_weight=1.0, biases=True)
        users, positives = model.pairs.users[:6], model.pairs.items[:6]
        negatives = (positives + 1) % ITEMS
        held = torch.cat([positives, negatives])
        parts = model.loss(users, positives, negatives, {})
        user_table, item_table = model.embeddings()
        width = 16 if reg_on == "representations" else 8
        expected = (user_table[users, :16].square().sum() + item_table[held, :width].square().sum()) / 12
        torch.testing.assert_close(parts["reg"], expected)
