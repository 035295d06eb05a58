import torch
from retrieval_mixin import ITEMS, RetrievalMixin, checkerboard, features_of, train

from rawrec.config.retrieval import LGMRecConfig
from rawrec.models.retrieval import lgmrec
from rawrec.models.retrieval.lgmrec import LGMRec

ROWS = torch.arange(8)


class TestLGMRec(RetrievalMixin):
    config = LGMRecConfig

    def lgmrec(self, **settings) -> LGMRec:
        model = self.make(**settings)
        assert isinstance(model, LGMRec)
        return model

    def test_evaluation_has_the_noise_of_its_epoch(self) -> None:
        model, generator = self.lgmrec(), torch.Generator().manual_seed(0)
        first = self.scores(model)
        assert self.scores(model).equal(first)
        model.begin_epoch(model.draw_epoch(generator))
        assert not self.scores(model).equal(first)
        quiet = self.lgmrec(gumbel_at_evaluation=False)
        assert quiet.draw_epoch(generator) == {}
        assert self.scores(quiet).equal(first)

    def test_noise_is_gumbel_and_dropout_keeps_its_share(self) -> None:
        model = self.lgmrec(hyper_num=500, keep_rate=0.3)
        draws = model.draw(ROWS, ROWS, ROWS, torch.Generator().manual_seed(0))
        noise = draws["gumbel_item_image"]
        assert noise.shape == (ITEMS, 500)
        assert abs(noise.mean().item() - 0.5772) < 0.05 and abs(noise.var().item() - 1.6449) < 0.1
        assert abs(draws["keep_user_text"].float().mean().item() - 0.3) < 0.02
        assert not any(
            name.startswith("keep") for name in self.lgmrec(keep_rate=1.0).draw(ROWS, ROWS, ROWS, generator())
        )

    def test_items_without_a_modality_are_left_out_of_means_and_contrast(self) -> None:
        """Of users' means too: what is there for half of the items weighs as much as if it were there for all."""
        pairs, features = checkerboard()[0], features_of(("image", "text"))
        known = torch.ones(ITEMS, dtype=torch.bool)
        half = torch.arange(ITEMS) < ITEMS // 2
        features["text"][:] = features["text"][0]
        settings = {"n_mm_layers": 0, "pairs": pairs, "features": features, "gumbel_at_evaluation": False}
        full, partly = self.lgmrec(**settings), self.lgmrec(**settings, present={"image": known, "text": half})
        of_items = torch.arange(ITEMS // 2, ITEMS)
        with torch.no_grad():
            _, _, globals_ = partly._represent({})
            assert not globals_[1][1][of_items].any() and globals_[1][1][half].any()
            users = torch.zeros(0, dtype=torch.long)
            assert partly._contrast(users, of_items, globals_) == 0 < partly._contrast(users, ROWS, globals_)
        read = pairs.users[half[pairs.items]].unique()  # users of at least one item that has texts
        means = []
        for model in (full, partly):
            texts = model.feature("text") @ model.get_parameter("item_text_trs")
            means.append((model.R @ texts)[read] * model.get_buffer("inverse_degree")[read, 1:])
        assert torch.allclose(means[0], means[1], atol=1e-5)

    def test_the_contrast_in_parts_is_the_same(self, monkeypatch) -> None:
        found = []
        for logits in (lgmrec.LOGITS, 3 * ITEMS):
            monkeypatch.setattr(lgmrec, "LOGITS", logits)
            model = self.lgmrec()
            loss = model.loss(ROWS, ROWS, ROWS.flip(0), model.draw(ROWS, ROWS, ROWS, torch.Generator().manual_seed(0)))
            loss["loss"].backward()
            found.append([loss["hypergraph_contrast"].detach(), *(p.grad for p in model.parameters())])
        for whole, parts in zip(*found, strict=True):
            assert torch.allclose(whole, parts, atol=1e-6)

    def test_other_settings_learn(self) -> None:
        model = self.lgmrec(cf_model="mf", reg_norm="squared", n_hyper_layer=2, gumbel_at_evaluation=False)
        curve = train(model, 10, self.lr)
        assert curve[-1] < curve[0]
        self.scores(model)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
