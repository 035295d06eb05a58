"""What every retrieval model is: a loss over (user, positive, negative) and one embedding per user and item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.errors import UserError
from rawrec.models.graph import Interactions
from rawrec.models.ids import lookup

RESERVED = ("user", "item", "item_id")


def field_of(modality: str) -> str:
    """`image` of `image[2]`, the second picture of items; names of fields have no brackets."""
    return modality.partition("[")[0]


def distinct(*rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The distinct items `[m]` in a batch's columns, and for each column the place of its items among them.

    What is wide or costly is then computed once per item.
    """
    unique, places = torch.cat(rows).unique(return_inverse=True)
    return unique, places.split([len(part) for part in rows])


class RetrievalModel(nn.Module):
    """Base of the retrieval models.

    All randomness is in `draw_epoch` and `draw`, which get a generator and return plain tensors: a training step is a
    function of parameters, batch and draws (so a run resumes exactly, and fixtures replay their draws). There is no
    module with a training mode; without draws a model is in evaluation mode.

    features: modality -> `[n_items, width]` float32, in the order of the dataset's fields; any number of them.
    present: modality -> `[n_items]` bool, False where an item lacks it (it reads as zero); None: all present.
    """

    uses_negatives: ClassVar[bool] = True
    by_vectors: ClassVar[bool] = True
    """Whether a score is the product of a user's and an item's vector (`embeddings`); else `scores` gives scores."""
    content_in_vectors: ClassVar[bool] = True
    """Whether an item's features, where the model reads any, have a part in its vector, or in losses alone."""
    shares_batches: ClassVar[bool] = False
    """Whether `loss` is of its samples one by one, apart from `embedding_loss`, so that several processes may each take
    a part of a batch: it is the mean over them, and draws go by samples in their first dimension."""
    of_the_epoch: ClassVar[tuple[str, ...]] = ()
    """How names of persistent buffers begin that are drawn anew for every epoch: no other run begins with them."""

    edge_users: Tensor
    edge_items: Tensor
    has_pairs: Tensor

    def __init__(
        self,
        cfg: Any,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        self.cfg = cfg
        self.n_users, self.n_items = pairs.n_users, pairs.n_items
        self.register_buffer("edge_users", pairs.users, persistent=False)
        self.register_buffer("edge_items", pairs.items, persistent=False)
        has_pairs = torch.zeros(pairs.n_items, dtype=torch.bool, device=pairs.items.device)
        self.register_buffer("has_pairs", has_pairs.index_fill_(0, pairs.items, True), persistent=False)
        self.modalities = tuple(features) if cfg.reads_features() else ()
        self.train_features = bool(getattr(cfg, "train_features", False))
        self.live: dict[str, tuple[Tensor, Tensor]] = {}
        """Of the step, end to end: modality -> rows `[m]` int64, distinct, and their features `[m, width]`."""
        self.followed: frozenset[str] = frozenset()
        """The modalities that trained encoders make, see `follow`."""
        self._without_ids: tuple[Tensor, Literal["zero", "mean"]] | None = None
        if cfg.reads_features() and not features:
            ready = getattr(cfg, "item_graph", None) is not None and hasattr(cfg, "reg_weight")
            way = "set model.reg_weight=0, so that it reads model.item_graph alone, or " * ready
            raise UserError(
                f"model.name={cfg.name} reads features of items, and there are none; {way}use lightgcn or bpr"
            )
        for name in self.modalities:
            known = torch.ones(self.n_items, dtype=torch.bool) if present is None else present[name]
            self._add_feature(name, features[name], known)

    def _add_feature(self, name: str, table: Tensor, known: Tensor) -> None:
        if table.shape[0] != self.n_items or table.ndim != 2 or not table.shape[1]:
            raise UserError(
                f"feature {name} has shape {list(table.shape)}; it needs a row for each of {self.n_items} items"
            )
        if not known.any() and name == field_of(name):  # no item may have a further piece
            raise UserError(f"feature {name}: no item has it; leave it out with content.{name}.use=false")
        if not table[known].isfinite().all():
            raise UserError(
                f"feature {name} holds numbers that are not finite (NaN or infinite); mend it or leave it out"
            )
        if name in RESERVED:
            raise UserError(f"feature {name}: the models use this name for their ids; rename the field")
        table = table.float().masked_fill(~known[:, None], 0)
        self.register_buffer(f"{name}_present", known, persistent=False)
        if self.train_features:
            self.add_module(f"{name}_embedding", nn.Embedding.from_pretrained(table.clone(), freeze=False))
        else:
            self.register_buffer(f"{name}_feature", table, persistent=False)

    @property
    def fields(self) -> tuple[str, ...]:
        """The modalities, the pieces of a field (content.<field>.tokens=each) as one."""
        return tuple(dict.fromkeys(map(field_of, self.modalities)))

    def id_tables(self) -> list[Tensor]:
        """The tables `[rows, dim]` or `[rows]` that `loss` reads by `lookup` alone, in the rows of its batch.

        None of a model that propagates over the whole graph: there every row has a gradient in every step.
        """
        return []

    def item_ids(self, table: Tensor, rows: Tensor | None = None) -> Tensor:
        """An id table of the items, `[n_items, ...]`, or its rows of the items `[m]`: every model reads its own so.

        It is the table itself but inside `without_ids`, where some rows are other ones.
        """
        chosen = table if rows is None else lookup(table, rows)
        if self._without_ids is None:
            return chosen
        items, filling = self._without_ids
        at = items if rows is None else torch.isin(rows, items).nonzero().squeeze(1)
        if filling == "zero":
            return chosen.index_fill(0, at, 0)
        mean = table.detach().index_select(0, self.taught).mean(0)
        return chosen.index_copy(0, at, mean.expand(len(at), *mean.shape))

    @contextmanager
    def without_ids(self, items: Tensor, filling: Literal["zero", "mean"]) -> Iterator[None]:
        """Inside, `item_ids` has for these items `[m]` zeros, or the mean row of the items that training saw.

        No gradient reaches the rows that are so replaced, and none goes through the mean.
        """
        self._without_ids = (items, filling)
        try:
            yield
        finally:
            self._without_ids = None

    @property
    def taught(self) -> Tensor:
        """The items that have a training pair, `[m]`: no loss ranks another one, nor is it drawn as a negative."""
        return self.has_pairs.nonzero().squeeze(1)

    @property
    def untaught(self) -> Tensor:
        """The other items, `[m]`."""
        return (~self.has_pairs).nonzero().squeeze(1)

    @property
    def pairs(self) -> Interactions:
        """The training pairs, on the model's device."""
        return Interactions(self.edge_users, self.edge_items, self.n_users, self.n_items)

    def present(self, name: str) -> Tensor:
        """`[n_items]` bool: the items that have the modality."""
        return self.get_buffer(f"{name}_present")

    def width(self, name: str) -> int:
        """Of the modality's features."""
        return self._table(name).shape[1]

    def follow(self, tables: Mapping[str, Tensor]) -> None:
        """End to end: from now on read these modalities from `tables` `[n_items, width]`, as they stand at every call.

        The tables share the memory of whoever writes them and are zero where an item lacks the modality. They are no
        parameters, whatever `train_features` says: it is the encoders that learn. Item graphs that a model freezes stay
        those of the features that it was made with.
        """
        for name, table in tables.items():
            if self.train_features and name not in self.followed:
                delattr(self, f"{name}_embedding")
            self.register_buffer(f"{name}_feature", table, persistent=False)
        self.followed |= frozenset(tables)

    def _table(self, name: str) -> Tensor:
        if self.train_features and name not in self.followed:
            return self.get_parameter(f"{name}_embedding.weight")
        return self.get_buffer(f"{name}_feature")

    def feature(self, name: str, rows: Tensor | None = None) -> Tensor:
        """The modality's features, `[n_items, width]` or those of `rows` `[m]`, with live rows in their place.

        With `train_features` they are parameters, but for those that trained encoders make.
        """
        table = self._table(name)
        chosen = table if rows is None else lookup(table, rows)
        if name not in self.live:
            return chosen
        live, values = self.live[name]
        if rows is None:
            return table.index_copy(0, live, values)
        in_order, order = live.sort()
        at = torch.searchsorted(in_order, rows).clamp(max=len(live) - 1)
        return torch.where((in_order[at] == rows)[:, None], values[order[at]], chosen)

    def of_field(self, field: str) -> tuple[Tensor, Tensor]:
        """A field's features `[n_items, width]` and `[n_items]` bool, the items that have it: those of the modality, or
        the mean over the pieces that an item has."""
        names = [name for name in self.modalities if field_of(name) == field]
        if len(names) == 1:
            return self.feature(field), self.present(field)
        count = torch.stack([self.present(name) for name in names]).sum(0)
        total = torch.stack([self.feature(name) for name in names]).sum(0)  # zeros where an item lacks a piece
        return total / count.clamp(min=1)[:, None], count > 0

    def draw_epoch(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Random draws of an epoch, such as sampled edges; on the CPU, as the generator."""
        return {}

    def begin_epoch(self, draws: Mapping[str, Tensor]) -> None:
        """What an epoch's start does with them."""

    def draw(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Random draws of a batch, such as dropout masks (True = kept); on the CPU, as the generator."""
        return {}

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Of a batch, each `[batch]` int64: "loss" is what is minimised; beside it its parts, for the log.

        negatives is None where `uses_negatives` is False.
        """
        raise NotImplementedError

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """`[n_users, dim]` and `[n_items, dim]` of the whole graph, nothing dropped: scores are `users @ items.T`."""
        raise NotImplementedError

    def scores(self, users: Tensor) -> Tensor:
        """Where `by_vectors` is False: the scores of all items for users `[u]` int64, a new `[u, n_items]` float32."""
        raise NotImplementedError

    def fit(self, generator: torch.Generator) -> None:
        """Where the record is `fitted`: make all that the model is from `pairs`, into its buffers. generator: of the
        run's seed."""
        raise NotImplementedError


def of_users(pairs: Interactions) -> Any:
    """Training pairs as a matrix of ones, `[n_users, n_items]` float32, by rows (scipy's CSR), on the CPU."""
    from scipy import sparse  # which most models need not load

    users, items = pairs.users.cpu().numpy(), pairs.items.cpu().numpy()
    shape = (pairs.n_users, pairs.n_items)
    return sparse.csr_array((np.ones(len(users), np.float32), (users, items)), shape)


class FittedModel(RetrievalModel):
    """Base of the models without steps: `fit` makes their buffers, `scores` reads them."""

    uses_negatives: ClassVar[bool] = False
    by_vectors: ClassVar[bool] = False
