"""The task of rankers: impressions, their click probabilities, and how content reaches them under each paradigm.

Training, evaluation and the recommender all use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.config import Config
from rawrec.content.bank import Bank, BankView, Keeping
from rawrec.content.building import build_item_model
from rawrec.content.caches import Cache
from rawrec.content.columns import equal_content, static_columns
from rawrec.content.item_model import QUERY, ItemModel
from rawrec.content.later import Known
from rawrec.content.live import LiveContent
from rawrec.content.policy import LivePolicy
from rawrec.content.units import content_units, resolved
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Impressions, Order
from rawrec.errors import UserError
from rawrec.files import write_table
from rawrec.lazily import Lazily
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.columns import item_columns, user_columns
from rawrec.models.ranking.context import ContextReader
from rawrec.models.ranking.marks import Marks
from rawrec.models.ranking.ranker import Ranker, present_name
from rawrec.models.shards import Shards
from rawrec.randomness import drawing, mixed, seed_draws
from rawrec.training.device import choose_device, choose_precision
from rawrec.training.evaluate import (
    MADE_ANEW,
    evaluate_part,
    teller,
)
from rawrec.training.metrics import impression_metrics
from rawrec.training.state import OTHER_MODEL, with_prefix, without_prefix
from rawrec.training.tasks.base import COUNTED, PARTS, Result, Task
from rawrec.training.tasks.contrasting import StepContrast
from rawrec.training.tasks.learnable import check_contrast, check_parts, one_sided, small_bank
from rawrec.training.tasks.lists import RankerLists
from rawrec.training.tasks.live_items import LiveItems
from rawrec.training.tasks.lora_phases import LoraPhases
from rawrec.training.tasks.past import PastContent
from rawrec.training.tasks.queries import Queries
from rawrec.training.tasks.scoring import Scoring
from rawrec.training.tasks.step_impressions import (
    StepImpressions,
    mark,
    prepared,
    row_codes,
    slice_impressions,
)
from rawrec.training.tasks.unread import unread_notes
from rawrec.world import Share, World

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")

SAVED = "tower."  # what files of weights call the item model, as the first ones did
CONTRASTED = "(contrasted)"  # among what a checkpoint keeps beside the state


class ImpressionTask(Task, Scoring):
    """A ranker with what it learns from. `item_model` and `bank` are None for a model on ids alone. known: what is
    known of encoders, see `build_item_model`."""

    noun = "samples"

    def __init__(
        self, cfg: Config, data: Dataset, cache: Path | Cache, progress: Callable | None = None, known: Known = None
    ):
        nn.Module.__init__(self)
        self.cfg = cfg
        self.data, self.samples, self._window, limited = prepared(cfg, data, cache)
        data, self.device = self.data, choose_device(cfg.train.device)
        check_parts(cfg, data, self.samples)  # before hours of encoding
        self.train_counts = self.samples.train_counts
        self.past = PastContent(cfg)
        self.lists = RankerLists(self)
        told = (limited, self.samples.undrawn_note(), *self.lists.notes(), *self.samples.label_notes())
        told += (*one_sided(self.samples), *small_bank(cfg, data))
        self.notes = [note for note in told if note]
        self.item_model, self.bank, self.stats = None, None, {}
        self._view: BankView | None = None
        self.queries: Queries | None = None
        if cfg.reads_content:
            self.item_model, self.bank = self._content(cache, progress, known)
        self.phases: LoraPhases | None = None
        if self.item_model is not None and cfg.content.lora.handover != "none":
            self.phases = LoraPhases(cfg, self.item_model, self.samples)
        known_users = torch.from_numpy(self.samples.train_users > 0)
        known_items = torch.from_numpy(self.samples.train_counts > 0)
        columns = item_columns(data, self.samples, cfg.model).to(self.device)
        reader = ContextReader(data, self.samples, cfg.model, columns, cfg.data.history_mode == "rolling")
        self.context = reader if reader.any else None
        width = None if self.item_model is None else cfg.content.dim
        trained = known_users.to(self.device), known_items.to(self.device)
        attributes = user_columns(data, self.samples, cfg.model)
        attributes = None if attributes is None else attributes.to(self.device)
        widths = self.context.widths if self.context else None
        further = cfg.data.further_labels
        names = cfg.model.history_marks
        self.marks = Marks(names, data, self.samples) if names else None
        sizes = cfg.longest_history, self.ranks_by_queries, self.marks.sizes if self.marks is not None else ()
        # The frozen paradigm's content is as wide as its features: the ranker brings a trained map of its own, unless
        # it is to be read as it is (content.fusion.kind=none).
        frozen = self.item_model is not None and self.item_model.frozen and not self.item_model.plain
        with drawing():
            torch.manual_seed(cfg.seed)
            self.ranker = Ranker(cfg.model, *trained, columns, width, attributes, widths, further, *sizes)
            self.content_in = nn.Linear(self.item_model.dim, cfg.content.dim) if frozen and self.item_model else None
        if self.ranker.content is not None and self.item_model is not None and cfg.model.cic_weight:
            self.ranker.content.same = equal_content(self.item_model, data, cache)
        self.live: LiveItems | None = None
        if self.item_model is not None and self.bank is not None:
            policy = LivePolicy(cfg.bank, self.train_counts)
            self.live = LiveItems(cfg, self.bank, self.item_model, policy, self.past, self.content_in)
        self.sqdc = None
        if self.ranker.sqdc is not None and self.bank is not None:
            self.sqdc = StepContrast(self.ranker.sqdc, self.bank, mapped=self.content_in is not None)
        self.to(self.device).train()
        if self.item_model is not None and self.bank is not None and self.item_model.frozen:
            self.refresh(None, 0)

    def _decide_on_queries(self) -> bool:
        """Settle model.sqdc_anchor=auto; whether queries are encoded. UserError where a loss needs what is not there,
        or queries would learn from nothing."""
        there, model = self.data.has_queries and len(self.data.queries) > 0, self.cfg.model
        if model.sqdc_anchor == "auto":
            model.sqdc_anchor = "query" if there else "history"
            if model.sqdc_weight and not there:
                told = "no queries: the contrast is of items that one user clicked, the closest earlier one first"
                self.notes = [*self.notes, told]
        check_contrast(self.cfg, self.data, there)
        return there and model.reads_queries

    def _content(self, cache: Path | Cache, progress: Callable | None, known: Known) -> tuple[ItemModel, Bank]:
        fields, label = self.data.fields, self.cfg.label
        without = "train `id`" if label == "em3" else "set model.content=none"
        if not (fields.image or fields.text or fields.feature):
            raise UserError(
                f"model {label} needs content, but the dataset has no image, text or feature field: {without}"
            )
        units = content_units(self.cfg, fields)
        if not units and not fields.feature:
            raise UserError(f"every content field has use=false: leave at least one in, or {without}")
        self.cfg.content.fields = resolved(self.cfg, fields, units)
        queries = self._decide_on_queries()
        with drawing():
            torch.manual_seed(self.cfg.seed)
            item_model = build_item_model(self.cfg, fields, units, reads_queries=queries, known=known)
        item_model.to(self.device)
        self.digests = item_model.digests()
        item_model.autocast = choose_precision(self.cfg.train.precision, self.device)
        columns, self.stats = static_columns(item_model, self.data, cache, progress)
        features = {name: item_model.widths[name] for name in item_model.trained}
        given, frozen = self.cfg.bank, item_model.frozen  # frozen content is written once, and whole
        keeping = Keeping(given.dtype) if frozen else Keeping(given.dtype, given.capacity, given.momentum)
        bank = Bank(self.data.n_items, item_model.dim, columns, features, self.device, keeping)
        if not bank.valid.any():
            raise UserError(f"no item of the dataset has any content (image, text or feature): {without}")
        if item_model.query is not None:
            self.queries = Queries(item_model, self.data.queries, self.cfg.bank.micro_batch)
            self.stats = {**self.stats, "queries": self.queries.lost}
        self.notes = [*self.notes, *unread_notes(self.stats)]
        return item_model, bank

    # ------------------------------------------------------------------------------------------------------- training
    @cached_property
    def _keys(self) -> dict[str, np.ndarray]:
        """Columns of the interactions that losses read, as codes; training alone needs them."""
        return {name: row_codes(self.data, name) for name in self.cfg.model.reads_interactions()}

    def begin(self) -> None:
        if self.cfg.bank.warm_start:
            self.refresh(self._first_rows(), 0)
        if self.phases is not None:
            self.phases.note_matrices()

    def _first_rows(self) -> Tensor | None:
        """What a bank begins with: all rows (None), or the most popular ones where it cannot hold all."""
        if self.bank is None or self.bank.slots is None:
            return None
        counts = torch.from_numpy(self.train_counts).to(self.device).masked_fill(~self.bank.valid, -1)
        first = counts.argsort(descending=True, stable=True)[: self.bank.slots.capacity]
        return first.sort().values

    # --------------------------------------------------------------------------------------- two phases: LoRA, eq. 9
    def hands_over(self, epoch: int, ends: bool) -> bool:
        return self.phases is not None and self.phases.second_begins(epoch, ends)

    def frozen_from_now(self) -> list[str]:
        return [] if self.phases is None else [f"{SAVED}{name}.weight" for name in self.phases.matrices()]

    def hand_over(self) -> None:
        assert self.phases is not None
        self.phases.begin_second()

    def phase(self) -> dict[str, float]:
        return {} if self.phases is None else self.phases.metrics()

    def closing_notes(self) -> list[str]:
        return [note for part in (self.sqdc, self.phases) if part is not None for note in part.notes()]

    def kept(self) -> dict[str, Tensor]:
        begun = {} if self.phases is None else self.phases.begun
        return {**begun, **({} if self.sqdc is None else {CONTRASTED: self.sqdc.steps})}

    def load_kept(self, tensors: dict[str, Tensor]) -> None:
        if self.phases is not None:
            begun = {name: tensor for name, tensor in tensors.items() if name != CONTRASTED}
            self.phases.begun = {name: tensor.to(self.device) for name, tensor in begun.items()}
        if self.sqdc is not None:
            self.sqdc.steps.copy_(tensors[CONTRASTED])

    # ------------------------------------------------------------------------------------------------------- steps
    def begin_epoch(self, epoch: int) -> Order:
        return self.samples.order(self.cfg.seed, epoch, self._window)

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> StepImpressions:
        if not self.training:  # else nothing is to be done, which takes a tenth of a small model's step
            self.train()
        sample = self.samples.impressions(rows, 0, np.random.default_rng([self.cfg.seed, epoch, step]))
        several = np.stack([sample.labels, *sample.further.values()], -1) if sample.further else sample.labels
        labels = torch.from_numpy(several).to(self.device)
        keys = {name: torch.from_numpy(codes[rows]).to(self.device) for name, codes in self._keys.items()}
        moments = self._moments(sample, 0)
        context = self.context_of(moments, sample.items)
        asked = map(self._given, (sample.query, sample.session))
        marks = self.marks_of(moments)
        return StepImpressions(sample, *self.tensors(sample, 0), labels, keys, context, *asked, marks=marks)

    def go_live(self, batch: StepImpressions, step: int) -> LiveContent | None:
        if self.bank is None or self.live is None:
            return None
        self.bank.touch(batch.items, step)
        self.bank.touch(self.past.whole(batch.history), step)
        items = batch.items if self.sqdc is None else self.sqdc.begin(batch)
        live = self.live.content(items, batch.history, mixed(self.cfg.seed, step))
        queries = batch.queries or self.queries
        if queries is not None and batch.query is not None:
            live.queries = queries.live(batch.query, self.world)
        return live

    def losses(self, batch: StepImpressions, live: LiveContent | None, step: int) -> Iterator[dict[str, Tensor]]:
        seed_draws(mixed(self.cfg.seed, step) + 1, self.device)
        ranker, total = self.ranker, batch.items.numel()
        for part, share in self._shares(len(batch.users)):
            given = batch.users[part], batch.items[part], batch.history[part]
            inputs = RankingBatch(*given) if live is None or self.live is None else self.live.batch(*given, live)
            mark(inputs, None if batch.marks is None else batch.marks[part])
            inputs.keys = {name: codes[part] for name, codes in batch.keys.items()}
            inputs.context = None if batch.context is None else batch.context.part(part)
            inputs.query = None if batch.query is None else batch.query[part]
            inputs.session = None if batch.session is None else batch.session[part]
            inputs.late = None if batch.late is None else batch.late[part]
            if self.ranks_by_queries and live is not None and live.queries is not None and inputs.query is not None:
                asked = live.queries.at(inputs.query)
                inputs.query_content = asked if self.cfg.model.ranking_gradient else asked.detach()
            with share.drawing(self.device):
                parts = ranker.losses(inputs, batch.labels[part])
            if not share.weight:
                parts = {name: value * 0 for name, value in parts.items()}
            yield self._weighted({name: value / total for name, value in parts.items()})
        if live is not None:
            candidates = torch.isin(live.rows, batch.items)
            if parts := ranker.step_losses(live.rows[candidates], live.leaf[candidates]):
                yield self._weighted({name: self.world.part(value) for name, value in parts.items()})
            if self.sqdc is not None:
                parts = self.sqdc.losses(batch, live)
                yield self._weighted({name: self.world.part(value) for name, value in parts.items()})
        yield from self.contrast(live)

    def _shares(self, count: int) -> Iterator[tuple[slice, Share]]:
        """Of every accumulated batch of `count` impressions, which of them this process computes."""
        for start in range(0, count, self.cfg.train.batch_size):
            share = self.world.share(min(self.cfg.train.batch_size, count - start))
            yield slice(start + share.start, start + share.stop), share

    def join(self, world: World) -> None:
        super().join(world)
        if self.live is not None:
            self.live.world = world
        if world.several and self.cfg.model.tables == "sharded":
            ids = [id(p) for p in self.ranker.id_parameters()]
            named = {id(p): (name, p) for group in self.parameter_groups().values() for name, p in group}
            self.shards = Shards(world, dict(named[one] for one in ids))

    def shown(self, name: str, batch: StepImpressions, live: LiveContent) -> tuple[bool, bool]:
        every, some = super().shown(name, batch, live)
        return every and self.cfg.model.ranking_gradient, some  # contrasts alone may rightly have none in a step

    def without_gradient(self, name: str) -> str:
        if self.cfg.model.ranking_gradient or name == QUERY:
            return super().without_gradient(name)
        return (
            f"model.ranking_gradient=false: in a whole epoch no contrast reached the encoder of {name!r}: no clicked "
            "row had a negative. Raise train.batch_size, or shorten model.sqdc_mask"
        )

    @property
    def loss_weights(self) -> dict[str, float]:
        return {**self.ranker.loss_weights, "itc": self.cfg.content.itc_weight}

    def _weighted(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        weights = self.ranker.loss_weights
        weighted = [weights[name] * value.double() for name, value in parts.items() if not name.startswith(COUNTED)]
        return {"loss": torch.stack(weighted).sum(), **parts}

    def write(self, live: LiveContent, step: int) -> None:
        if self.bank is not None and self.cfg.paradigm != "frozen" and len(live.rows):
            self.bank.write_features(live.encoded, live.features, step)
            self.bank.write(live.rows, live.content, step)
            if share := self.cfg.bank.refresh_share:
                made = live.encoded if self.cfg.paradigm == "end_to_end" else live.rows
                every = share == "all"
                rows = self.bank.all_rows() if every else self.refreshed(made, math.ceil(share * len(made)), step)
                self._make_anew(rows, step)

    def refreshed(self, made: Tensor, count: int, step: int) -> Tensor:
        """The rows, at most `count`, that are made anew beside those that a step has `made`: the stalest."""
        assert self.bank is not None
        return self.bank.oldest(count)

    @torch.no_grad()
    def _make_anew(self, rows: Tensor, step: int) -> None:
        """Make rows anew by the weights after the update of `step`, and write them as of `step`: evaluation, which goes
        by averaged weights, is not to take them for its own."""
        assert self.bank is not None and self.item_model is not None
        self.item_model.refresh(self.bank, rows, step, self.cfg.bank.micro_batch, world=self.world)

    # ------------------------------------------------------------------------------------------------------ evaluation
    def evaluation_sample(self, part: int) -> Impressions:
        """All impressions of a part, in row order; negatives, where drawn, are the same every time."""
        rng = np.random.default_rng([self.cfg.seed, 7919, part])
        return self.samples.impressions(self.samples.rows(part), part, rng)

    def rows_read(self, sample: Impressions, part: int) -> Tensor:
        """The item rows that the evaluation of a sample reads: candidates and histories."""
        read = torch.zeros(self.data.n_items + 1, dtype=torch.bool, device=self.device)
        size = self._at_once(len(sample.rows))
        for start in range(0, len(sample.rows), size):
            _, items, history = self.tensors(slice_impressions(sample, slice(start, start + size)), part)
            read[items.flatten()] = read[history.flatten()] = True  # -1 is the last
        return read[:-1].nonzero()[:, 0]

    @contextmanager
    def view(self, rows: Tensor | None, step: int) -> Iterator[None]:
        """Inside, evaluation reads content that is made anew for those of `rows` (None: all) made before `step`."""
        if self.bank is None or self.cfg.paradigm == "frozen":  # whose content is never stale
            yield
            return
        self._view = BankView(self.bank)
        try:
            self.refresh(rows, step)
            yield
        finally:
            self._view = None

    @torch.no_grad()
    def refresh(self, rows: Tensor | None, step: int) -> int:
        """Re-encode in eval mode the rows (all: None) older than the last update below them; how many that were.

        Inside `view` it is the view that is written, else the bank.
        """
        bank = self._read
        if self.item_model is None or bank is None:
            return 0
        # The content of a frozen paradigm has no trained parameter below it: written once, never stale.
        stale = bank.stale(rows, 0 if self.item_model.frozen else step)
        if len(stale):
            tell = teller(self.observe, MADE_ANEW, len(stale))
            self.item_model.refresh(bank, stale, step, self.cfg.bank.micro_batch, tell, self.world)
            if self.bank is not None and bank is not self.bank:
                self.bank.compare(bank, stale)
        return len(stale)

    def probe(self) -> Result:
        sample = self.evaluation_sample(1)
        shape = (*sample.items.shape, 1 + len(sample.further))
        metrics, reasons = impression_metrics(self, sample, np.full(shape, 0.5, np.float32))
        if self.lists.followed:
            found = self.lists.of_nothing("valid")
            metrics, reasons = metrics | found.metrics, reasons | found.reasons
        return Result(metrics, reasons)

    def validate(self, step: int) -> Result:
        sample, stale = self.evaluation_sample(1), {}
        if self.bank is not None and self.cfg.paradigm != "frozen":
            found, _ = impression_metrics(self, sample, self.score_impressions(sample, 1))
            stale = {f"stale/{key}": found[key] for key in ("auc", "gauc", "qauc", "logloss") if key in found}
        rows = None if self.lists.followed else self.rows_read(sample, 1)  # of lists every item is read
        with self.view(rows, step):
            metrics, reasons = impression_metrics(self, sample, self.score_impressions(sample, 1))
            if self.lists.followed:
                lists = self.lists.evaluate("valid", diversity=False)
                metrics, reasons = metrics | lists.metrics, reasons | lists.reasons
        return Result(stale | metrics, reasons)

    def stale(self) -> dict[str, Tensor]:
        if self.bank is None or self.cfg.paradigm == "frozen":
            return {}
        return self.bank.snapshot()

    def finish(self, folder: Path, step: int, stale: dict[str, Tensor]) -> dict[str, Result]:
        cfg, results, frames = self.cfg, {}, []
        before: dict[str, dict[str, float | None]] = {name: {} for name in PARTS}
        if self.bank is not None and stale:
            self.bank.restore(stale)
            for name, part in PARTS.items():
                values, _, _ = evaluate_part(self, part, cfg.seed)
                before[name] = {f"stale/{key}": value for key, value in values.items() if "/" not in key}
        if self.bank is not None and self.cfg.paradigm != "frozen" and not self.bank.exact:
            self.bank = BankView(self.bank)
        self.refresh(None, step + 1)  # the weights are those of the best epoch: every row is made anew
        for name, part in PARTS.items():
            metrics, reasons, frame = evaluate_part(self, part, cfg.seed)
            results[name] = Result(metrics | before[name], reasons)
            frames.append(frame)
        if self.world.first:
            write_table(pl.concat(frames).to_arrow(), folder / "scores.parquet")
        for name in self.lists.made:
            top = self.lists.evaluate(name)
            results[name].metrics |= top.metrics
            results[name].reasons |= top.reasons
            results[name].told += top.told(self.data, name, cfg.eval.topk)
            if name == "test" and self.world.first:
                top.write(folder / "topk.parquet")
        return results

    # ----------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Tensor]:
        """Everything that training changes, but the bank: what a checkpoint and a trained model hold."""
        result = with_prefix("ranker.", self.ranker.state_dict())
        if self.content_in is not None:
            result |= with_prefix("content_in.", self.content_in.state_dict())
        if self.item_model is not None:
            result |= with_prefix(SAVED, self.item_model.top_state())
            result |= with_prefix("encoder.", self.item_model.trained_state())
        return result

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The reverse of `state`. Raises UserError where the file is of another model."""
        state = {self.name_now(name): value for name, value in state.items()}
        try:
            self.ranker.load_state_dict(without_prefix("ranker.", state))
            if self.content_in is not None:
                self.content_in.load_state_dict(without_prefix("content_in.", state))
            if self.item_model is not None:
                self.item_model.load_top_state(without_prefix(SAVED, state))
                self.item_model.load_trained_state(without_prefix("encoder.", state))
        except (RuntimeError, KeyError):
            raise UserError(OTHER_MODEL) from None
        if self.phases is not None:
            self.phases.set_history()

    def published(self) -> dict[str, Tensor]:
        return self.state() | ({} if self.bank is None else {"bank.content": self.bank.content})

    def name_now(self, name: str) -> str:
        return present_name(name)

    def load_published(self, tensors: dict[str, Tensor], step: int) -> None:
        self.load_state(tensors)
        if self.bank is not None and "bank.content" in tensors:
            self.bank.publish(tensors["bank.content"], step)
        self.eval()

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters by their `saved_name`: `encoder` (own learning rate), `id` (own weight decay), `rest`
        (weight decay) and `plain` (biases, norms, queries: none)."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {"encoder": [], "id": [], "rest": [], "plain": []}
        encoder = {id(p) for e in self.learners().values() for p in e.trained_parameters()}
        ids = {id(p) for p in self.ranker.id_parameters()}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                plain = "plain" if parameter.ndim < 2 or name.endswith((".queries", ".field_embedding")) else "rest"
                key = "encoder" if id(parameter) in encoder else "id" if id(parameter) in ids else plain
                groups[key].append((saved_name(name), parameter))
        return groups

    def raw_encoders(self) -> Iterator:
        """Field name and encoder of every raw field in use."""
        return self.item_model.raw_encoders() if self.item_model is not None else iter(())


def saved_name(name: str) -> str:
    """What files, of checkpoints above all, call a parameter of the task."""
    return SAVED + name.removeprefix("item_model.") if name.startswith("item_model.") else name
