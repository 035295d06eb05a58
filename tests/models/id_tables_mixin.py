"""What a retrieval model with `id_tables` must do beside `RetrievalMixin`."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from retrieval_mixin import WIDTHS, RetrievalMixin
from torch.profiler import ProfilerActivity, profile

from rawrec.models.graph import Interactions
from rawrec.models.ids import touch_by_rows


class IdTablesMixin(RetrievalMixin):
    """variants: settings under which the model has other tables."""

    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    def test_gradients_by_rows_are_the_dense_ones(self) -> None:
        users, positives, negatives = torch.tensor([3, 0, 3, 7]), torch.tensor([2, 5, 2, 9]), torch.tensor([4, 4, 5, 2])
        for settings in self.variants:
            dense, sparse = self.make(**settings), self.make(**settings)
            tables = sparse.id_tables()
            assert {len(table) for table in tables} == {sparse.n_users, sparse.n_items}
            touch_by_rows(*tables)
            losses = [model.loss(users, positives, negatives, {})["loss"] for model in (dense, sparse)]
            assert losses[0].equal(losses[1])
            for loss in losses:
                loss.backward()
            names = {id(p): name for name, p in sparse.named_parameters()}
            large = [names[id(table)] for table in tables]
            others = dict(dense.named_parameters())
            for name, parameter in sparse.named_parameters():
                grad, expected = parameter.grad, others[name].grad
                assert grad is not None and expected is not None
                assert grad.is_sparse == (name in large)
                torch.testing.assert_close(grad.to_dense() if grad.is_sparse else grad, expected)
                if grad.is_sparse:
                    used = {*positives.tolist(), *negatives.tolist()} if len(grad) == sparse.n_items else {0, 3, 7}
                    assert set(grad.coalesce().indices()[0].tolist()) == used

    @pytest.mark.parametrize("live", [False, True])
    def test_no_tensor_of_the_tables_size_is_made(self, live: bool) -> None:
        """A step on a large table allocates no more than on a small one, end to end or not."""
        for settings in self.variants:
            most = []
            for n in (500, 50_000):
                model = self.make(Interactions(torch.arange(40), torch.arange(40), n, n), **settings)
                touch_by_rows(*model.id_tables())
                if live:
                    rows = torch.arange(5, 30)
                    model.live = {name: (rows, torch.ones(25, WIDTHS[name])) for name in model.modalities}
                users, negatives = torch.arange(16), torch.arange(7, 23)
                with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
                    model.loss(users, users, negatives, {})["loss"].backward()
                most.append(max(event.self_cpu_memory_usage for event in found.key_averages()))
            assert 0 < most[1] <= most[0]
