import numpy as np
import torch
from retrieval_mixin import USERS, RetrievalMixin, checkerboard, features_of, train

from rawrec.config.retrieval import DRAGONConfig
from rawrec.models.graph import Interactions
from rawrec.models.retrieval.dragon import DRAGON, nearest_users


class TestDRAGON(RetrievalMixin):
    config = DRAGONConfig
    settings = {"knn_k": 4, "user_neighbours": 6}  # noqa: RUF012

    def dragon(self, **settings) -> DRAGON:
        model = self.make(**settings)
        assert isinstance(model, DRAGON)
        return model

    def test_nearest_users_are_those_with_most_items_in_common(self) -> None:
        pairs, _ = checkerboard()
        seen = torch.zeros(USERS, pairs.n_items)
        seen[pairs.users, pairs.items] = 1
        common = (seen @ seen.T).fill_diagonal_(0)
        expected = common.topk(15).values
        neighbours, counts = nearest_users(pairs, 15, chunk=7)
        assert counts.equal(expected.long())
        assert counts.equal(common.gather(1, neighbours).long() * (counts > 0))
        rows = [set(row[known].tolist()) for row, known in zip(neighbours, counts > 0, strict=True)]
        assert [len(row) for row in rows] == np.minimum((common > 0).sum(1).numpy(), 15).tolist()

    def test_short_lists_are_filled_up_by_repetition(self) -> None:
        """User 0 shares two items with 1 and one with 2; user 3 shares none, and listens to nobody."""
        pairs = Interactions(torch.tensor([0, 0, 1, 1, 2, 3]), torch.tensor([0, 1, 0, 1, 1, 2]), 4, 3)
        features = features_of(("image",), 3)
        model = self.dragon(pairs=pairs, features=features, knn_k=2, user_neighbours=5)
        draws = model.draw_epoch(torch.Generator().manual_seed(0))
        first = draws["user_neighbours"][0]
        assert first[:2].tolist() == [1, 2] and set(first.tolist()) == {1, 2}
        shares = torch.where(first == 1, 2.0, 1.0).softmax(0)
        assert torch.allclose(draws["user_neighbour_weights"][0], shares)
        assert not draws["user_neighbour_weights"][3].any()

        once = self.dragon(pairs=pairs, features=features, knn_k=2, user_neighbours=5, pad_neighbours=False)
        assert once.draw_epoch(torch.Generator()) == {}
        assert torch.allclose(once.user_neighbour_weights[0, :2], torch.tensor([2.0, 1.0]).softmax(0))
        assert not once.user_neighbour_weights[0, 2:].any()

    def test_the_paper_s_settings_learn(self) -> None:
        model = self.dragon(log_base="e", softmax_user_weights=True, pad_neighbours=False)
        curve = train(model, 10, self.lr)
        assert curve[-1] < curve[0]

    def test_base_of_the_logarithm(self) -> None:
        rows, losses = torch.arange(8), []
        for base in ("2", "e"):
            losses.append(self.dragon(log_base=base).loss(rows, rows, rows + 9, {})["bpr"].item())
        assert np.isclose(losses[0] * np.log(2), losses[1])
