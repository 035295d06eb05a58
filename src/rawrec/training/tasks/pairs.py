"""What a retrieval model is in training: what it reads of a dataset, its encoders and bank, lists and metrics.

End to end, the bank holds what the trained encoders last made of each item: the model reads it, but for the items of
the batch, which are encoded with gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.config import Config, FieldConfig
from rawrec.content.bank import Bank
from rawrec.content.columns import static_columns
from rawrec.content.encoders import Encoder
from rawrec.content.item_model import ItemModel, build_item_model, field_configs
from rawrec.content.live import LiveContent
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.evaluation.ctr import buckets_of
from rawrec.evaluation.topk import TopK, topk_metrics, undefined
from rawrec.models.graph import Interactions
from rawrec.models.retrieval import retrieval_model
from rawrec.onednn import linear
from rawrec.training import state as checkpoint
from rawrec.training.evaluate import PARTS, ListTask, TopKResult, make_lists
from rawrec.training.tasks.impressions import choose_device, choose_precision

SCORES_AT_ONCE = {"cpu": 2**19, "cuda": 2**26}  # users x items scored at a time: what fits in a cache, fills a GPU


class RetrievalSystem:
    """A retrieval model on the training positives of a dataset, with the features of its items where it reads any.

    End to end `tower` has the encoders and `bank` the features that the trained ones make, which the model reads; else
    both are None. Graphs of items that a model freezes are of the features before training.
    """

    def __init__(self, cfg: Config, data: Dataset, cache: Path, progress: Callable | None = None):
        self.cfg, self.data = cfg, data
        self.device = choose_device(cfg.train.device)
        self.part = data.retrieval_split(cfg.data.split)
        self.positive = data.label(cfg.data.label) > 0
        self.tower: ItemModel | None = None
        self.bank: Bank | None = None
        self.stats: dict[str, dict[str, int]] = {}
        self.train_counts = np.bincount(data.items[self.part == 0], minlength=data.n_items)
        keys = np.unique(self._keys((self.part == 0) & self.positive))
        if not len(keys):
            raise UserError(f"data.split={cfg.data.split!r}: the training part has no positive interactions")
        users, items = (torch.from_numpy(rows) for rows in np.divmod(keys, data.n_items))
        kind = retrieval_model(cfg.model.name)
        if getattr(cfg.model, "item_graph", None) is not None:  # a run may be resumed from another place
            cfg.model.item_graph = cfg.model.item_graph.absolute()
        self.reads_features = kind.reads_features(cfg.model)
        features, present = self._features(cache, progress) if self.reads_features else ({}, {})
        described = [torch.zeros(data.n_items, dtype=torch.bool), *present.values()]
        self.described = torch.stack(described).any(0).numpy()  # [n_items]: features of the item are read
        torch.manual_seed(cfg.seed)
        pairs = Interactions(users, items, data.n_users, data.n_items)
        self.model = kind(cfg.model, pairs, features, present).to(self.device)
        if self.bank is not None:
            self.model.follow(self.bank.features)
        self.pairs = Interactions(users.to(self.device), items.to(self.device), data.n_users, data.n_items)

    def _keys(self, chosen: np.ndarray) -> np.ndarray:
        return self.data.users[chosen].astype(np.int64) * self.data.n_items + self.data.items[chosen]

    def _features(self, cache: Path, progress: Callable | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features of every modality `[n_items, width]`, zeros where missing, and which items have it `[n_items]`.

        Modalities are the image fields, the text fields and the ready-made features, each in the dataset's order, or as
        content.order says. With trained encoders among them this makes `tower` and `bank`, filled.
        """
        cfg, fields = self.cfg, self.data.fields
        ready = {name: cfg.content.fields.get(name, FieldConfig()) for name in fields.feature}
        raw = {name: field for name, field in cfg.content.fields.items() if name not in ready}
        of_raw = cfg.model_copy(update={"content": cfg.content.model_copy(update={"fields": raw})})
        configs = field_configs(of_raw, fields)
        unused = {name: FieldConfig(use=False) for name in (*fields.image, *fields.text) if name not in configs}
        cfg.content.fields = configs | unused | ready  # complete, so that a run that is loaded again reads the same
        used = fields.model_copy(update={"feature": {n: w for n, w in fields.feature.items() if ready[n].use}})
        order = _ordered([*configs, *used.feature], cfg.content.order)
        # Encoders alone: what is above them is the models' own affair.
        tower = build_item_model(of_raw, used, configs, fused=False).to(self.device)
        tower.autocast = choose_precision(cfg.train.precision, self.device)
        columns, self.stats = static_columns(tower, self.data, cache, progress)
        features, present = {}, {}
        for name in order:
            column = columns[tower.column(name)]
            present[name] = column.lengths > 0
            features[name] = torch.zeros(len(column), tower.widths[name])
            if name not in tower.trained:
                features[name][present[name]] = column.values.float()
        if tower.trained:
            hidden = {tower.column(name): columns[tower.column(name)] for name in tower.trained}
            widths = {name: tower.widths[name] for name in tower.trained}
            self.tower, self.bank = tower, Bank(self.data.n_items, 0, hidden, widths, self.device)
            self.refresh(0)
            features |= {name: values.cpu() for name, values in self.bank.features.items()}
        return features, present

    # ------------------------------------------------------------------------------------------------------ end to end
    def go_live(self, items: Tensor, step: int) -> LiveContent | None:
        """Encode the distinct `items` of a step's loss with gradient, within the live budget, and let the model read
        them. None where no encoder is trained, or none of the items has media for one.

        The content of what is returned are the features of all trained encoders, side by side.
        """
        bank, tower, cfg = self.bank, self.tower, self.cfg
        self.model.live = {}
        if bank is None or tower is None:
            return None
        rows = torch.unique(items)
        rows = bank.stalest(rows[bank.valid[rows]], cfg.bank.live_budget, generator_of(cfg.seed, 2, step))
        if not len(rows):
            return None

        def side_by_side(rows: Tensor, encoded: Tensor, features: dict[str, Tensor]) -> Tensor:
            return torch.cat(list(features.values()), 1)

        live = LiveContent(
            lambda part: tower.encode(bank, part), side_by_side, rows, rows, cfg.bank.micro_batch, seed=step
        )
        parts = live.leaf.split([tower.widths[name] for name in tower.trained], 1)
        self.model.live = {name: (rows, values) for name, values in zip(tower.trained, parts, strict=True)}
        return live

    @torch.no_grad()
    def refresh(self, step: int) -> None:
        """Encode anew, in eval mode, whatever trained encoders made before `step`: every item may be recommended."""
        if self.tower is not None and self.bank is not None:
            self.tower.refresh(self.bank, self.bank.stale(None, step), step, self.cfg.bank.micro_batch)

    def encoders(self) -> dict[str, Encoder]:
        """Field -> trained encoder."""
        return {} if self.tower is None else {n: e for n, e in self.tower.raw_encoders() if n in self.tower.trained}

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Named trainable parameters: `model` and `encoder` (own learning rate, no weight decay)."""
        groups = {"model": list(self.model.named_parameters()), "encoder": []}
        for field, encoder in self.encoders().items():
            groups["encoder"] += [(f"encoder.{field}.{name}", p) for name, p in encoder.named_parameters()]
        return {key: [(name, p) for name, p in group if p.requires_grad] for key, group in groups.items()}

    # ------------------------------------------------------------------------------------------------------ evaluation
    @cached_property
    def known_users(self) -> np.ndarray:
        """Bool `[n_users]`: with a training positive."""
        return np.bincount(self.pairs.users.cpu(), minlength=self.data.n_users) > 0

    @cached_property
    def known_items(self) -> np.ndarray:
        """Bool `[n_items]`: with a training positive."""
        return np.bincount(self.pairs.items.cpu(), minlength=self.data.n_items) > 0

    @cached_property
    def tasks(self) -> dict[int, ListTask]:
        """Per part (1 valid, 2 test) who gets a list and what is left out of it, as `eval.protocol` says."""
        mmrec = self.cfg.eval.protocol == "mmrec"
        tasks = {}
        for part in PARTS.values():
            taken = (self.part == part) & self.positive
            if mmrec:
                taken &= self.known_users[self.data.users]
            before = (self.part >= 0) & (self.part < (1 if mmrec else part)) & self.positive
            tasks[part] = ListTask.of(self.data, taken, before)
        return tasks

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """`[n_users, dim]` and `[n_items, dim]`; a user's score of an item is their product."""
        return self.model.embeddings()

    @torch.no_grad()
    def lists(self, task: ListTask, depth: int) -> TopK:
        """The `depth` best items for every user of a task, the model's embeddings made once."""
        users, items = self.embeddings()

        def score(rows: np.ndarray) -> Tensor:
            return linear(users[torch.from_numpy(rows).to(users.device)], items)

        workers = torch.get_num_threads() if self.device.type == "cpu" else 1
        return make_lists(score, task, depth, user_batch(self.data.n_items, self.device), workers)

    def evaluate(self, part: int, buckets: bool = True) -> TopKResult:
        """Metrics of a part at every cut-off of `eval.topk`, also by the items' bucket."""
        return self.judge(part, self.lists(self.tasks[part], max(self.cfg.eval.topk)), buckets)

    def judge(self, part: int, lists: TopK, buckets: bool = True) -> TopKResult:
        """Metrics of lists for the users of a part."""
        task = self.tasks[part]
        masks = buckets_of(self.train_counts) if buckets else {}
        metrics, per_user = topk_metrics(lists.items, task.ptr, task.items, self.cfg.eval.topk, masks)
        return TopKResult(task.users, lists, metrics, undefined(metrics), per_user)

    # ----------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Tensor]:
        """Everything that training changes: the model by its own names, `encoder.<field>.` and `bank.`."""
        result = dict(self.model.state_dict())
        for name, encoder in self.encoders().items():
            result |= checkpoint.with_prefix(f"encoder.{name}.", encoder.trained_state())
        if self.bank is not None:
            result |= checkpoint.with_prefix("bank.", self.bank.state())
        return result

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The reverse of `state`. Raises UserError where the file is of another model."""
        parts = ("encoder.", "bank.") if self.bank is not None else ()
        try:
            self.model.load_state_dict({name: value for name, value in state.items() if not name.startswith(parts)})
            for name, encoder in self.encoders().items():
                encoder.load_trained_state(checkpoint.without_prefix(f"encoder.{name}.", state))
            if self.bank is not None:
                self.bank.load_state(checkpoint.without_prefix("bank.", state))
        except (RuntimeError, KeyError):
            raise UserError(
                "the saved weights are not of this model: another version of rawrec made them, or config.yaml was "
                "changed. Train again with this version"
            ) from None


def _ordered(modalities: list[str], order: list[str] | None) -> list[str]:
    """The modalities as content.order has them. Raises UserError where it is not each of them once."""
    if order is None or sorted(order) == sorted(modalities):
        return order or modalities
    raise UserError(
        f"content.order=[{','.join(order)}]: name every field in use, once, for example "
        f"content.order=[{','.join(modalities)}]; to leave one out set content.<field>.use=false"
    )


def user_batch(n_items: int, device: torch.device) -> int:
    """So many users are scored at once."""
    return min(max(SCORES_AT_ONCE[device.type] // n_items, 16), 8192)


def generator_of(*key: int) -> torch.Generator:
    """A generator whose draws are a function of the key: seed, kind of draw, epoch or step."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)
