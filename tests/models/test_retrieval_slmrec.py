from typing import Any

import pytest
import torch
from retrieval_mixin import ITEMS, RetrievalMixin, checkerboard, features_of, train
from torch.nn.functional import cross_entropy, normalize

from rawrec.config.retrieval import SLMRecConfig
from rawrec.models.graph import propagate, user_item_adjacency
from rawrec.models.losses import info_nce
from rawrec.models.retrieval.slmrec import SLMRec

USERS, POSITIVES = torch.tensor([0, 3, 3, 5]), torch.tensor([2, 7, 9, 11])


class TestSLMRec(RetrievalMixin):
    config = SLMRecConfig
    settings = {"recdim": 8, "layer_num": 2}  # noqa: RUF012

    def slmrec(self, **settings: Any) -> SLMRec:
        model = self.make(**settings)
        assert isinstance(model, SLMRec)
        return model

    @pytest.mark.parametrize(
        "settings",
        [
            {"ssl_task": "FD", "ssl_alpha": 1.0},
            {"ssl_task": "FM", "ssl_alpha": 1.0},
            {"mm_fusion_mode": "mean", "adj_type": "norm"},
            {"user_tables": "own", "fac_similarity": "cosine", "fac_chain": "modalities"},
        ],
        ids=["FD", "FM", "mean", "paper"],
    )
    def test_other_settings_learn(self, settings: dict[str, Any]) -> None:
        model = self.slmrec(**settings)
        curve = train(model, 10, self.lr)
        assert curve[-1] < curve[0]
        self.scores(model)

    @pytest.mark.parametrize("layers", [0, 1, 2, 3])
    def test_a_branch_is_a_lightgcn_of_its_own(self, layers: int) -> None:
        for tables in ("shared", "own"):
            model = self.slmrec(user_tables=tables, layer_num=layers)
            adjacency = user_item_adjacency(model.pairs)
            users, items = model.starts()
            rows = torch.tensor([3, 3, 1])
            together, some = model.branches_of((users, items)), model.branches_of((users, items), rows, rows)
            for block in (slice(0, 8), slice(8, 16), slice(16, 24)):
                own = users if tables == "shared" else users[:, block]
                alone = propagate(adjacency, own, items[:, block], layers)
                for one, every, these in zip(alone, together, some, strict=True):
                    torch.testing.assert_close(every[:, block], one)
                    torch.testing.assert_close(these[:, block], one[rows])

    def test_an_item_twice_in_the_batch_is_its_own_negative(self) -> None:
        users, positives = torch.tensor([0, 3, 3, 5, 8]), torch.tensor([2, 7, 9, 7, 2])
        model = self.slmrec(ssl_temp=0.7)
        losses = model.loss(users, positives, None, {})
        every_user, every_item = model.embeddings()
        torch.testing.assert_close(losses["main_infonce"], info_nce(every_user[users], every_item[positives], 0.2))
        _, items = model.branches_of(model.starts())
        ids, image, text = items[positives].split(8, 1)
        x, expected = ids, torch.zeros(())
        for name, stage, branch in zip(("image", "text"), model.chain, (image, text), strict=True):
            x = stage(x)
            logits = x @ model.get_submodule(f"{name}_align")(branch).T / 0.7
            expected = expected + cross_entropy(logits, torch.arange(5))
        torch.testing.assert_close(losses["ssl"], expected)

    @pytest.mark.parametrize(
        ("modalities", "chain", "widths"),
        [
            (1, "three", [[8]]),
            (2, "three", [[8], [8, 4]]),
            (2, "modalities", [[8], [4]]),
            (3, "three", [[8], [8], [4]]),
        ],
    )
    def test_stages_of_the_chain(self, modalities: int, chain: str, widths: list[list[int]]) -> None:
        names = ("image", "text", "audio")[:modalities]
        model = self.slmrec(features=features_of(names), fac_chain=chain)
        assert [[layer.out_features for layer in stage] for stage in model.chain] == widths
        assert [model.get_submodule(f"{name}_align").out_features for name in names] == [w[-1] for w in widths]

    def test_positives_without_a_modality_are_left_out(self) -> None:
        known = torch.ones(ITEMS, dtype=torch.bool).index_fill(0, torch.tensor([7]), False)
        nobody = torch.zeros(ITEMS, dtype=torch.bool).index_fill(0, torch.tensor([0]), True)
        model = self.slmrec(present={"image": known, "text": nobody})
        _, items = model.branches_of(model.starts())
        ids, image, _ = items[POSITIVES[POSITIVES != 7]].split(8, 1)
        logits = model.chain[0](ids) @ model.get_submodule("image_align")(image).T / 0.2
        model.cfg.ssl_temp = 0.2
        expected = cross_entropy(logits, torch.arange(3))
        torch.testing.assert_close(model.loss(USERS, POSITIVES, None, {})["ssl"], expected)

    def test_views_without_one_modality(self) -> None:
        model = self.slmrec(ssl_task="FM")
        keep = model.draw(USERS, POSITIVES, None, torch.Generator().manual_seed(0))["keep"]
        assert keep.shape == (2, ITEMS, 2, 1) and keep.sum(2).eq(1).all() and not keep[0].equal(keep[1])
        _, items = model.starts()
        dropped = model._dropped(items, keep[0])
        assert dropped[:, :8].equal(items[:, :8])
        for m in range(2):
            block, kept = slice(8 + 8 * m, 16 + 8 * m), keep[0, :, m, 0]
            assert dropped[kept, block].equal(items[kept, block]) and not dropped[~kept, block].any()

    def test_views_with_dropped_entries(self) -> None:
        model = self.slmrec(ssl_task="FD", dropout_rate=0.25)
        keep = model.draw(USERS, POSITIVES, None, torch.Generator().manual_seed(0))["keep"]
        assert keep.shape == (2, ITEMS, 2, 8) and abs(keep.float().mean() - 0.75) < 0.05
        _, items = model.starts()
        expected = torch.cat([items[:, :8], items[:, 8:] * keep[0].flatten(1) / 0.75], 1)
        torch.testing.assert_close(model._dropped(items, keep[0]), expected)

    def test_live_features_are_of_unit_length(self) -> None:
        features = features_of(("image", "text"))
        model = self.slmrec(pairs=checkerboard()[0], features=features)
        before = model.loss(USERS, POSITIVES, None, {})["loss"]
        values = (3 * features["text"][[9, 2]]).requires_grad_()
        model.live = {"text": (torch.tensor([9, 2]), values)}
        torch.testing.assert_close(model.feature("text"), normalize(features["text"]))
        loss = model.loss(USERS, POSITIVES, None, {})["loss"]
        torch.testing.assert_close(loss, before)
        loss.backward()
        assert values.grad is not None and values.grad.abs().sum(1).gt(0).all()
