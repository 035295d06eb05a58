from typing import Any

import pytest
import torch
from retrieval_mixin import ITEMS, USERS, RetrievalMixin, features_of, train

from rawrec.config.retrieval import MMGCLConfig
from rawrec.errors import UserError
from rawrec.models.graph import user_item_matrix
from rawrec.models.losses import info_nce
from rawrec.models.retrieval.branches import propagate_sides
from rawrec.models.retrieval.mmgcl import MMGCL

ROWS = torch.tensor([0, 3, 4, 5]), torch.tensor([2, 7, 8, 11]), torch.tensor([1, 4, 3, 8])


class TestMMGCL(RetrievalMixin):
    config = MMGCLConfig
    settings = {"latent_dim": 8, "layer_num": 2, "dropout_rate": 0.2}  # noqa: RUF012

    def mmgcl(self, **settings: Any) -> MMGCL:
        model = self.make(**settings)
        assert isinstance(model, MMGCL)
        return model

    @pytest.mark.parametrize(
        "settings",
        [
            {"ssl_task": "ED"},
            {"ssl_task": "ED", "contrast": "nodes"},
            {"second_view": True, "composed_negatives": True, "swap_tokens": False},
            {"ssl_task": "ED+MM", "contrast": "nodes", "user_tables": "own", "mask_p": [0.0, 1.0]},
            {"second_view": True, "composed_negatives": True, "masking": "features"},
        ],
        ids=["ED", "ED nodes", "negatives", "own users", "features"],
    )
    def test_other_settings_learn(self, settings: dict[str, Any]) -> None:
        model = self.mmgcl(**settings)
        curve = train(model, 10, self.lr)
        assert curve[-1] < curve[0]
        self.scores(model)

    def test_draws(self) -> None:
        """Of the masking view none, where it has no part in the loss."""
        generator, edges = torch.Generator().manual_seed(0), len(self.mmgcl().edge_users)
        published = self.mmgcl().draw(*ROWS, generator)
        assert set(published) == {"view1_kept_edges"}
        draws = self.mmgcl(second_view=True, mask_p=[0.0, 3.0]).draw(*ROWS, generator)
        assert draws["view2_modality"] == 1
        for name, n, count in (
            ("view1_kept_edges", edges, int(edges * 0.8)),
            ("view2_dropped_users", USERS, int(USERS * 0.2)),
            ("view2_dropped_items", ITEMS, int(ITEMS * 0.2)),
        ):
            assert len(draws[name].unique()) == len(draws[name]) == count and draws[name].max() < n

    @pytest.mark.parametrize("swap", [True, False])
    @pytest.mark.parametrize("modality", [0, 1, 2])
    def test_the_masking_view(self, modality: int, swap: bool) -> None:
        """One branch runs without the dropped nodes; swapped, it is the first's, in the masked one's place."""
        model = self.mmgcl(features=features_of(("image", "text", "audio")), second_view=True, swap_tokens=swap)
        draws = model.draw(*ROWS, torch.Generator().manual_seed(0)) | {"view2_modality": torch.tensor(modality)}
        users, items = (~torch.isin(torch.arange(n), draws[f"view2_dropped_{kind}"]) for n, kind in NODES)
        stays = users[model.edge_users] & items[model.edge_items]
        perturbed = user_item_matrix(model._pairs(stays))
        starts = model.starts()
        clean, everywhere = (propagate_sides(graph, *starts, 2) for graph in (model.matrix, perturbed))
        order = ["id", "image", "text", "audio"]
        masked = modality + 1
        source = list(range(4))
        if swap:
            source[1], source[masked] = source[masked], source[1]
        view = model.masking_view(starts, clean, draws)
        for ours, whole, dropped in zip(view, clean, everywhere, strict=True):
            for slot, name in enumerate(order):
                expected = (dropped if slot == masked else whole).rows().split(8, 1)[source[slot]]
                torch.testing.assert_close(ours.rows().split(8, 1)[slot], expected, msg=name)

    def test_a_view_of_masked_features(self) -> None:
        model = self.mmgcl(second_view=True, masking="features", mask_p=[0.0, 1.0])
        draws = model.draw(*ROWS, torch.Generator().manual_seed(0))
        clean = propagate_sides(model.matrix, *model.starts(), 2)
        random = propagate_sides(model.matrix, draws["view2_start_users"], draws["view2_start_items"], 2)
        for ours, whole, new in zip(model.masking_view(model.starts(), clean, draws), clean, random, strict=True):
            torch.testing.assert_close(ours.rows(), torch.cat([whole.rows()[:, :16], new.rows()], 1))

    def test_what_enters_the_contrast(self) -> None:
        everything = {"second_view": True, "composed_negatives": True}
        model = self.mmgcl(**everything)
        draws = model.draw(*ROWS, torch.Generator().manual_seed(0))
        starts = model.starts()
        clean = propagate_sides(model.matrix, *starts, 2)
        views = model.edge_view(starts, draws["view1_kept_edges"]), model.masking_view(starts, clean, draws)
        (u1, i1), (u2, i2) = (model.read(view, *ROWS[:2]) for view in views)
        first, second = info_nce(u1, i1, 0.2), info_nce(u2, i2, 0.2)
        negatives = [model.compose(view[1], *ROWS[1:], others) for view, others in zip(views, (1, 2), strict=True)]
        composed = -info_nce(u1, negatives[0], 0.2) - info_nce(u2, negatives[1], 0.2)
        for settings, expected in (
            ({}, 2 * first),
            ({"second_view": True}, first + second),
            ({"composed_negatives": True}, 2 * first + composed),
            (everything, first + second + composed),
            ({**everything, "ssl_task": "ED+MM"}, first + second),
            ({"contrast": "nodes"}, info_nce(u1, u2, 0.2) + info_nce(i1, i2, 0.2)),
        ):
            losses = self.mmgcl(**settings).loss(*ROWS, draws)
            torch.testing.assert_close(losses["ssl"], expected)
            torch.testing.assert_close(losses["loss"], losses["bpr"] + 0.4 * expected)

    @pytest.mark.parametrize("mask_p", [[1.0], [0.0, 0.0]])
    def test_chances_that_do_not_fit_are_refused(self, mask_p: list[float]) -> None:
        with pytest.raises(UserError, match=r"model.mask_p=\[.*: give one number for each of image, text"):
            self.make(mask_p=mask_p)


NODES = (USERS, "users"), (ITEMS, "items")
