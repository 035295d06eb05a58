"""The task of retrieval models: pairs of user and item, lists of the full catalogue; encoders and bank end to end.

End to end, the bank holds what the trained encoders last made of each item: the model reads it, but for the items of
the batch, which are encoded with gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.config import Config, FieldConfig
from rawrec.content.bank import Bank, BankView
from rawrec.content.building import build_item_model
from rawrec.content.caches import Cache
from rawrec.content.columns import static_columns
from rawrec.content.item_model import ItemModel
from rawrec.content.later import Known
from rawrec.content.live import LiveContent
from rawrec.content.units import content_units, resolved, units_of_pieces
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.negatives import Negatives
from rawrec.errors import UserError
from rawrec.evaluation.beyond import Catalogue
from rawrec.evaluation.ctr import buckets_of
from rawrec.evaluation.topk import TopK
from rawrec.models.graph import Interactions
from rawrec.models.ids import touch_by_rows
from rawrec.models.retrieval import retrieval_model
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.onednn import linear
from rawrec.randomness import drawing, generator_of
from rawrec.shown import listed
from rawrec.threads import count
from rawrec.training import state as checkpoint
from rawrec.training.device import choose_device, choose_precision
from rawrec.training.evaluate import (
    MADE_ANEW,
    ListTask,
    TopKResult,
    judge,
    lists_of_pairs,
    make_lists,
    no_lists,
    teller,
)
from rawrec.training.state import OTHER_MODEL
from rawrec.training.tasks.base import PARTS, Result, Task
from rawrec.training.tasks.step_pairs import StepPairs
from rawrec.training.tasks.unread import unread_notes

SCORES_AT_ONCE = {"cpu": 2**19, "cuda": 2**26}  # users x items scored at a time: what fits in a cache, fills a GPU

Beyond = Literal["nothing", "counts", "all"]
"""What is measured of lists beside their hits: what needs no content, or their diversity, too."""

ROUNDING = 1e-5  # vectors whose entries differ by no larger a share of the largest are the same


class PairTask(Task):
    """A retrieval model on the training positives of a dataset, with the features of its items where it reads any.

    End to end `item_model` has the encoders and `bank` the features that the trained ones make, which the model reads;
    else both are None. Graphs of items that a model freezes are of the features before training.

    known: all training pairs, distinct; pairs: those that training goes through, whose users have not taken everything.
    """

    noun = "pairs"

    def __init__(
        self, cfg: Config, data: Dataset, cache: Path | Cache, progress: Callable | None = None, known: Known = None
    ):
        self.cfg, self.data = cfg, data
        self.device = choose_device(cfg.train.device)
        self.part = data.retrieval_split(cfg.data.split)
        self.positive = data.positive(cfg.data.label)
        self.item_model, self.bank, self.stats, self.notes = None, None, {}, []
        self.train_counts = np.bincount(data.items[self.part == 0], minlength=data.n_items)
        keys = np.unique(self._keys((self.part == 0) & self.positive))
        if not len(keys):
            raise UserError(f"data.split={cfg.data.split!r}: the training part has no positive interactions")
        if not ((self.part == 1) & self.positive).any():  # said before hours of encoding
            raise UserError(f"data.split={cfg.data.split!r}: the validation part has no positive")
        users, items = (torch.from_numpy(rows) for rows in np.divmod(keys, data.n_items))
        kind = retrieval_model(cfg.model.name)
        if getattr(cfg.model, "item_graph", None) is not None:  # a run may be resumed from another place
            cfg.model.item_graph = cfg.model.item_graph.absolute()
        self.reads_features, self._known = cfg.model.reads_features(), known
        features, present = self._features(cache, progress) if self.reads_features else ({}, {})
        described = [torch.zeros(data.n_items, dtype=torch.bool), *present.values()]
        # [n_items]: features of the item have a part in its vector
        self.described = torch.stack(described).any(0).numpy() & kind.content_in_vectors
        pairs = Interactions(users, items, data.n_users, data.n_items)
        with drawing():
            torch.manual_seed(cfg.seed)
            self.model = kind(cfg.model, pairs, features, present).to(self.device)
        if self.bank is not None:
            self.model.follow(self.bank.features)
        if cfg.train.optimizer == "sparse_adam":
            self._touch_by_rows()
        self.known = Interactions(users.to(self.device), items.to(self.device), data.n_users, data.n_items)
        self.pairs, self.negatives = self.known, None
        if self.model.uses_negatives:
            self.negatives = Negatives(*self.known, pool=torch.unique(self.known.items))
            self.pairs = self._with_negatives(self.negatives)
        if left_out := len(self.known.users) - len(self.pairs.users):
            note = f"positives without a negative, left out: {left_out:,} of train. Their users took all items there"
            self.notes.append(note)
        if cfg.eval.topk_users is not None and (note := self.tasks[PARTS["test"]].note):
            self.notes.append(note)

    def _touch_by_rows(self) -> None:
        tables = self.model.id_tables()
        if not tables:
            raise UserError(
                f"train.optimizer=sparse_adam: in model {self.cfg.model.name} every user and item has a gradient in "
                "every step. Use train.optimizer=adam, or model bpr or vbpr"
            )
        touch_by_rows(*tables)

    def _with_negatives(self, negatives: Negatives) -> Interactions:
        """The pairs of users who have not taken every item: the others have no negative to learn from."""
        pairs = self.known
        keep = negatives.free[pairs.users] > 0
        if not keep.any():
            raise UserError(
                f"model {self.cfg.model.name} learns from items that a user has not taken, and every user of the "
                "training part has taken all items"
            )
        return Interactions(pairs.users[keep], pairs.items[keep], pairs.n_users, pairs.n_items)

    def _keys(self, chosen: np.ndarray) -> np.ndarray:
        return self.data.users[chosen].astype(np.int64) * self.data.n_items + self.data.items[chosen]

    def _features(self, cache: Path | Cache, progress: Callable | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features of every modality `[n_items, width]`, zeros where missing, and which items have it `[n_items]`.

        Modalities are the image fields, the text fields and the ready-made features, each in the dataset's order, or as
        content.order says; of a field with tokens=each one for each of its pieces. With trained encoders among them
        this makes `item_model` and `bank`, filled.
        """
        with drawing():
            item_model, order = encoders_of(self.cfg, self.data.fields, self._known)
        item_model = item_model.to(self.device)
        self.digests = item_model.digests()
        item_model.autocast = choose_precision(self.cfg.train.precision, self.device)
        columns, self.stats = static_columns(item_model, self.data, cache, progress)
        self.notes = [*self.notes, *unread_notes(self.stats)]
        features, present = {}, {}
        for name in order:
            column = columns[item_model.column(name)]
            present[name] = column.lengths > 0
            features[name] = torch.zeros(len(column), item_model.widths[name])
            if name not in item_model.trained:
                features[name][present[name]] = column.values.float()
        if item_model.trained:
            hidden = {item_model.column(name): columns[item_model.column(name)] for name in item_model.trained}
            widths = {name: item_model.widths[name] for name in item_model.trained}
            self.item_model, self.bank = item_model, Bank(self.data.n_items, 0, hidden, widths, self.device)
            self.refresh(0)
            features |= {name: values.cpu() for name, values in self.bank.features.items()}
        return features, present

    def encoders_anew(self) -> ItemModel:
        """The frozen encoders of the features that the model reads, for items that are not in the dataset."""
        item_model, _ = encoders_of(self.cfg.model_copy(deep=True), self.data.fields, self._known)
        item_model.autocast = choose_precision(self.cfg.train.precision, self.device)
        return item_model.to(self.device).eval()

    # ------------------------------------------------------------------------------------------------------- training
    def begin_epoch(self, epoch: int) -> Tensor:
        generator = generator_of(self.cfg.seed, 0, epoch)
        if self.cfg.model.fitted:  # an epoch without samples
            with torch.no_grad():
                self.model.fit(generator)
            return torch.zeros(0, dtype=torch.int64)
        order = torch.randperm(len(self.pairs.users), generator=generator).to(self.device)
        self.model.begin_epoch(self._moved(self.model.draw_epoch(generator)))
        return order

    def resumes_within_epoch(self) -> bool:
        """LATTICE, for one, makes its item graph of the weights with which an epoch begins."""
        return type(self.model).begin_epoch is RetrievalModel.begin_epoch

    def batch(self, rows: Tensor, epoch: int, step: int) -> StepPairs:
        generator = generator_of(self.cfg.seed, 1, step)
        users, positives = self.pairs.users[rows], self.pairs.items[rows]
        negatives = None if self.negatives is None else self.negatives.draw(users, generator)
        return StepPairs(users, positives, negatives, generator)

    def losses(self, batch: StepPairs, live: LiveContent | None, step: int) -> Iterator[dict[str, Tensor]]:
        total = len(batch.users)
        for part in batch.split(self.cfg.train.batch_size):
            draws = self._moved(self.model.draw(part.users, part.positives, part.negatives, batch.generator))
            share, own = self.world.share(len(part.users)), part
            if self.world.several:
                own, draws = part.part(share.part), {name: drawn[share.part] for name, drawn in draws.items()}
            with self._id_dropout(part), share.drawing(self.device):
                losses = self.model.loss(own.users, own.positives, own.negatives, draws)
            rate = share.weight * len(own.users) / total
            yield losses if rate == 1 else {k: v * rate for k, v in losses.items()}
        yield from self.contrast(live)
        self.model.live = {}

    def _id_dropout(self, batch: StepPairs) -> AbstractContextManager[None]:
        """Inside, a share of the batch's items has what evaluation gives items without training."""
        rate, filling = getattr(self.cfg.model, "id_dropout", 0.0), self.cfg.untrained_ids
        if not rate or filling == "as_is":
            return nullcontext()
        items = batch.items.unique()
        dropped = torch.rand(len(items), generator=batch.generator) < rate
        return self.model.without_ids(items[dropped.to(items.device)], filling)

    def _moved(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in draws.items()}

    def go_live(self, batch: StepPairs, step: int) -> LiveContent | None:
        """Encode the distinct items of the loss with gradient, within the live budget, and let the model read them.

        None where no encoder is trained, or none of the items has media for one. The content of what is returned are
        the features of all trained encoders, side by side.
        """
        bank, item_model, cfg = self.bank, self.item_model, self.cfg
        self.model.live = {}
        if bank is None or item_model is None:
            return None
        rows = torch.unique(batch.items)
        rows = bank.stalest(rows[bank.valid[rows]], cfg.bank.live_budget, generator_of(cfg.seed, 2, step))
        if not len(rows):
            return None

        def side_by_side(rows: Tensor, encoded: Tensor, features: dict[str, Tensor]) -> Tensor:
            return torch.cat(list(features.values()), 1)

        live = LiveContent(
            lambda part: item_model.encode(bank, part),
            side_by_side,
            rows,
            rows,
            cfg.bank.micro_batch,
            seed=step,
            world=self.world,
        )
        parts = live.leaf.split([item_model.widths[name] for name in item_model.trained], 1)
        self.model.live = {name: (rows, values) for name, values in zip(item_model.trained, parts, strict=True)}
        return live

    def write(self, live: LiveContent, step: int) -> None:
        if self.bank is not None:
            self.bank.write_features(live.encoded, live.features, step)

    @contextmanager
    def view(self, step: int) -> Iterator[None]:
        """Inside, the model reads features that are made anew: every item may be recommended."""
        if self.item_model is None or self.bank is None:
            yield
            return
        view = BankView(self.bank)
        stale = view.stale(None, step)
        tell = teller(self.observe, MADE_ANEW, len(stale))
        self.item_model.refresh(view, stale, step, self.cfg.bank.micro_batch, tell, self.world)
        self.model.follow(view.features)
        try:
            yield
        finally:
            self.model.follow(self.bank.features)

    @torch.no_grad()
    def begun_with_other_weights(self) -> None:
        if self.item_model is not None and self.bank is not None:
            self.item_model.refresh(self.bank, self.bank.valid.nonzero()[:, 0], 0, self.cfg.bank.micro_batch)

    @torch.no_grad()
    def refresh(self, step: int) -> None:
        """Encode anew, in eval mode, whatever trained encoders made before `step`: every item may be recommended."""
        if self.item_model is not None and self.bank is not None:
            stale = self.bank.stale(None, step)
            tell = teller(self.observe, MADE_ANEW, len(stale))
            self.item_model.refresh(self.bank, stale, step, self.cfg.bank.micro_batch, tell, self.world)

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Named trainable parameters: `model` and `encoder` (own learning rate, no weight decay)."""
        groups = {"model": list(self.model.named_parameters()), "encoder": []}
        known: set[int] = set()  # networks may be shared
        for field, encoder in self.encoders().items():
            own = [(name, p) for name, p in encoder.named_parameters() if id(p) not in known]
            groups["encoder"] += [(f"encoder.{field}.{name}", p) for name, p in own]
            known |= {id(p) for _, p in own}
        if self.item_model is not None and self.item_model.itc is not None:
            groups["model"].append(("itc", self.item_model.itc))
        return {key: [(name, p) for name, p in group if p.requires_grad] for key, group in groups.items()}

    # ------------------------------------------------------------------------------------------------------ evaluation
    @cached_property
    def known_users(self) -> np.ndarray:
        """Bool `[n_users]`: with a training positive."""
        return np.bincount(self.known.users.cpu(), minlength=self.data.n_users) > 0

    @cached_property
    def known_items(self) -> np.ndarray:
        """Bool `[n_items]`: with a training positive."""
        return np.bincount(self.known.items.cpu(), minlength=self.data.n_items) > 0

    @cached_property
    def tasks(self) -> dict[int, ListTask]:
        """Per part (1 valid, 2 test) who gets a list and what is left out of it, as `eval.protocol` says."""
        return {p: lists_of_pairs(self.data, self.cfg, p, self.part, self.positive) for p in PARTS.values()}

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """`[n_users, dim]` and `[n_items, dim]`; a user's score of an item is their product.

        Items without a training positive have the ids that eval.untrained_ids gives them. Users keep their rows: one
        without a training positive gets no list from the recommender.
        """
        filling = self.cfg.untrained_ids
        if filling == "as_is":
            return self.model.embeddings()
        with self.model.without_ids(self.model.untaught, filling):
            return self.model.embeddings()

    def alike(self, items: Tensor) -> Tensor:
        """Rows `[m]` of the items without a training positive where nothing but rounding tells their vectors apart.

        So it is in models where content has no part in an item's vector. items: as `embeddings` gives them.
        """
        rows = self.model.untaught
        if self.cfg.untrained_ids == "as_is" or len(rows) < 2:
            return rows[:0]
        vectors = items[rows]
        same = (vectors - vectors[0]).abs().max() <= ROUNDING * vectors[0].abs().max()
        return rows if same else rows[:0]

    def scorer(self) -> Callable[[Tensor], Tensor]:
        """What gives the scores of all items for users `[u]` on the device, `[u, n_items]`: the vectors are made once,
        here."""
        if not self.model.by_vectors:
            return self.model.scores
        users, items = self.embeddings()
        alike = self.alike(items)
        return lambda rows: product(users[rows], items, alike)

    @torch.no_grad()
    def lists(self, task: ListTask, depth: int) -> TopK:
        """The `depth` best items for every user of a task, the model's embeddings made once."""
        of_rows = self.scorer()

        def score(rows: np.ndarray) -> Tensor:
            return of_rows(torch.from_numpy(rows).to(self.device))

        workers = count() if self.device.type == "cpu" else 1
        size = user_batch(self.data.n_items, self.device)
        return make_lists(score, task, depth, size, workers, self.observe, self.world)

    @cached_property
    def catalogue(self) -> Catalogue:
        """What lists are judged by beside their hits, without content."""
        return Catalogue.of_pairs(self.known.users.cpu().numpy(), self.known.items.cpu().numpy(), self.data.n_items)

    def evaluate(self, part: int, buckets: bool = True, beyond: Beyond = "all") -> TopKResult:
        """Metrics of a part at every cut-off of `eval.topk`, also by the items' bucket."""
        return self.judge(part, self.lists(self.tasks[part], max(self.cfg.eval.topk)), buckets, beyond)

    def judge(self, part: int, lists: TopK, buckets: bool = True, beyond: Beyond = "all") -> TopKResult:
        """Metrics of lists for the users of a part. beyond: what is measured beside their hits."""
        masks = buckets_of(self.train_counts) if buckets else {}
        catalogue = None if beyond == "nothing" else self.catalogue
        if catalogue is not None and beyond == "all":
            content = {name: (self.model.feature(name), self.model.present(name)) for name in self.model.modalities}
            catalogue = replace(catalogue, content=content)
        own = self.cfg.own_metrics("lists")
        return judge(self.tasks[part], lists, self.cfg.eval.topk, masks, own, catalogue)

    def probe(self) -> Result:
        users = self.tasks[1].users
        if not len(users):
            what = "of a user whom training knows" if self.cfg.eval.protocol == "mmrec" else "that can be asked for"
            raise UserError(f"data.split={self.cfg.data.split!r}: the validation part has no positive {what}")
        lists = no_lists(self.tasks[1], max(self.cfg.eval.topk))
        return self._result(self.judge(1, lists, beyond="nothing"))

    def validate(self, step: int) -> Result:
        stale = self._stale_metrics(1) if self.bank is not None else {}
        with self.view(step):
            result = self._result(self.evaluate(1, "/" in self.cfg.train.metric, "counts"))
        return Result(stale | result.metrics, result.reasons)

    def _result(self, lists: TopKResult) -> Result:
        return Result(lists.metrics, lists.reasons)

    def _stale_metrics(self, part: int) -> dict[str, float | None]:
        """Of the features as training left them."""
        metrics = self.evaluate(part, buckets=False, beyond="nothing").metrics
        return {f"stale/{name}": value for name, value in metrics.items() if "@" in name}

    def stale(self) -> dict[str, Tensor]:
        return {} if self.bank is None else {name: value.clone() for name, value in self.bank.state().items()}

    def finish(self, folder: Path, step: int, stale: dict[str, Tensor]) -> dict[str, Result]:
        before: dict[str, dict[str, float | None]] = {name: {} for name in PARTS}
        if self.bank is not None:
            self.bank.load_state(stale)
            before = {name: self._stale_metrics(part) for name, part in PARTS.items()}
            self.refresh(step + 1)  # the weights are those of the best epoch: every row is made anew
        lists = {name: self.evaluate(part) for name, part in PARTS.items()}
        if self.world.first:
            lists["test"].write(folder / "topk.parquet")
        told = {name: found.told(self.data, name, self.cfg.eval.topk) for name, found in lists.items()}
        return {name: Result(found.metrics | before[name], found.reasons, told[name]) for name, found in lists.items()}

    # ----------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Tensor]:
        """The model by its own names, and `encoder.<field>.`."""
        result = dict(self.model.state_dict())
        if self.item_model is not None:
            result |= checkpoint.with_prefix("encoder.", self.item_model.trained_state())
        return result

    def load_state(self, state: dict[str, Tensor]) -> None:
        own = {name: value for name, value in state.items() if not (self.encoders() and name.startswith("encoder."))}
        try:
            self.model.load_state_dict(own)
            if self.item_model is not None:
                self.item_model.load_trained_state(checkpoint.without_prefix("encoder.", state))
        except (RuntimeError, KeyError):
            raise UserError(OTHER_MODEL) from None

    def published(self) -> dict[str, Tensor]:
        bank = {} if self.bank is None else self.bank.state()
        return self.state() | checkpoint.with_prefix("bank.", bank)

    def load_published(self, tensors: dict[str, Tensor], step: int) -> None:
        if self.bank is None:
            return self.load_state(tensors)
        self.load_state({name: value for name, value in tensors.items() if not name.startswith("bank.")})
        try:
            self.bank.load_state(checkpoint.without_prefix("bank.", tensors))
        except (RuntimeError, KeyError):
            raise UserError(OTHER_MODEL) from None


def encoders_of(cfg: Config, fields: Fields, known: Known = None) -> tuple[ItemModel, list[str]]:
    """The encoders that a retrieval model's config asks for on a dataset with these fields, and the order of its
    modalities; with content.<field>.tokens=each those of its pieces. `cfg.content.fields` is complete then. Raises
    UserError for encoders that cannot be had. known: see `build_item_model`."""
    ready = {name: cfg.content.fields.get(name, FieldConfig()) for name in fields.feature}
    raw = {name: field for name, field in cfg.content.fields.items() if name not in ready}
    of_raw = cfg.model_copy(update={"content": cfg.content.model_copy(update={"fields": raw})})
    units = content_units(of_raw, fields)
    cfg.content.fields = resolved(of_raw, fields, units) | ready
    used = fields.model_copy(update={"feature": {n: w for n, w in fields.feature.items() if ready[n].use}})
    order = _ordered([*units, *used.feature], cfg.content.order)
    if cfg.model.reads_pieces:
        units = units_of_pieces(units)
        pieces = {name: [own for own, unit in units.items() if unit.base == name] for name in order}
        order = [own for name in order for own in pieces[name] or [name]]
    # Encoders alone: what is above them is the models' own affair.
    return build_item_model(of_raw, used, units, fused=False, known=known), order


def _ordered(modalities: list[str], order: list[str] | None) -> list[str]:
    """The modalities as content.order has them. Raises UserError where it is not each of them once."""
    if order is None or sorted(order) == sorted(modalities):
        return order or modalities
    raise UserError(
        f"content.order=[{_few(order)}]: name every field in use, once, for example "
        f"content.order=[{_few(modalities)}]; to leave one out set content.<field>.use=false"
    )


def product(users: Tensor, items: Tensor, alike: Tensor) -> Tensor:
    """Scores `[u, n_items]`; those of the items `alike` are equal to the bit, which a product of matrices is not."""
    scores = linear(users, items)
    if len(alike):
        scores[:, alike] = scores[:, alike[:1]]
    return scores


def user_batch(n_items: int, device: torch.device) -> int:
    """So many users are scored at once."""
    return min(max(SCORES_AT_ONCE[device.type] // n_items, 16), 8192)


def _few(names: list[str]) -> str:
    """As they are typed, without blanks."""
    return listed(names, none="").replace(", ", ",")
