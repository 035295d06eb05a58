"""EM3's ranking model, and `id`, the same ranker on ids alone (Deng et al., 2024).

One impression is a user, a candidate item and the user's history. Each becomes a few vectors of one width: the user's
id, the candidate's id (with its categories, as in section 3.4), the interest in ids, and for `em3` the candidate's
content c (eq. 6), the user's content interest u (eq. 7-8) and profile (the mean of the history's content), beside the
item's popularity and other columns. An interest also meets its candidate element by element. Vectors and their pairwise
dot products go into an MLP (the paper leaves the ranker open), whose output is a logit with biases of user, item and
content; the loss is binary cross entropy (eq. 1) plus the weighted Content-ID contrast (eq. 14).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rawrec.config import RankerConfig
from rawrec.errors import UserError
from rawrec.models.losses import ContentIdContrast
from rawrec.onednn import Linear


@dataclass
class HistoryContent:
    """Content of the histories of a batch: bank rows, with live rows in their place (DESIGN, rule 1).

    bank: `[batch, history, dim]`, detached. valid: `[batch, history]`, False = padding or no content.
    position: `[batch, history]` index into `live` `[n, dim]`, -1 = take the bank's row. live carries gradient.
    """

    bank: Tensor
    valid: Tensor
    position: Tensor | None = None
    live: Tensor | None = None

    def __post_init__(self) -> None:
        """Few live rows: keep them apart, so that no gradient of the size of the history is ever made."""
        self.split = False
        if self.live is None or self.position is None or not len(self.live):
            self.live = self.position = None
            return
        self.split = len(self.live) <= 2 * self.bank.shape[1]
        self.is_live = self.position >= 0
        if not self.split:
            self.bank = torch.where(self.is_live[..., None], self.live[self.position.clamp(min=0)], self.bank)

    def scores(self, query: Tensor) -> Tensor:
        """Dot products of `query` `[batch, candidates, dim]` with the history, `[batch, candidates, history]`."""
        scores = query @ self.bank.transpose(1, 2)
        if self.split and self.live is not None and self.position is not None:
            index = self.position.clamp(min=0)[:, None].expand_as(scores)
            scores = torch.where(self.is_live[:, None], (query @ self.live.T).gather(2, index), scores)
        return scores

    def mix(self, weights: Tensor) -> Tensor:
        """Weighted sums of the history's content: `[batch, candidates, history]` -> `[batch, candidates, dim]`."""
        if not (self.split and self.live is not None and self.position is not None):
            return weights @ self.bank
        live = weights * self.is_live[:, None]
        index = self.position.clamp(min=0)[:, None].expand_as(weights)
        sums = weights.new_zeros(*weights.shape[:2], len(self.live)).scatter_add(2, index, live)
        return (weights - live) @ self.bank + sums @ self.live


@dataclass
class RankingBatch:
    """Impressions of `batch` users with `candidates` items each.

    users: `[batch]` user rows, -1 = unknown. items: `[batch or 1, candidates]` item rows, -1 = not in the catalogue.
    history: `[batch, history]` item rows, oldest first, -1 = padding. content `[batch or 1, candidates, dim]` and
    history_content: None for a model without content.
    """

    users: Tensor
    items: Tensor
    history: Tensor
    content: Tensor | None = None
    history_content: HistoryContent | None = None


@dataclass
class ItemColumns:
    """Other columns of all items: per categorical column a bag of codes, and standardised numbers.

    bags: name -> (codes `[total]`, ptr `[items + 1]`, vocabulary size), code 0 = a value unseen in training.
    numbers: `[items + 1, n]`: popularity, and each numeric value with a flag where it is missing; the last row is that
    of an item outside the catalogue. users: `[users + 1, m]`, numbers of the users likewise (their activity).
    """

    bags: dict[str, tuple[Tensor, Tensor, int]]
    numbers: Tensor
    users: Tensor


class Ranker(nn.Module):
    """Logits of impressions. `known_users` and `known_items`: bool, seen in training; the others share one row.

    content_dim: width of content embeddings, None for a ranker on ids alone.
    """

    def __init__(
        self, cfg: RankerConfig, known_users: Tensor, known_items: Tensor, columns: ItemColumns, content_dim: int | None
    ):
        super().__init__()
        self.cfg, self.columns, d = cfg, columns, cfg.dim
        self.known_users, self.known_items = known_users, known_items
        self.user = nn.Embedding(len(known_users) + 1, d)
        self.item = nn.Embedding(len(known_items) + 1, d)
        self.user_bias = nn.Embedding(len(known_users) + 1, 1)
        self.item_bias = nn.Embedding(len(known_items) + 1, 1)
        self.id_query = Linear(d, d)
        self.bags = nn.ModuleDict({k: nn.EmbeddingBag(v[2], d, mode="mean") for k, v in columns.bags.items()})
        numbers, user_numbers = columns.numbers.shape[1], columns.users.shape[1]
        self.numbers = Linear(numbers, d) if numbers else None
        self.user_numbers = Linear(user_numbers, d) if user_numbers else None
        vectors = 3 * cfg.item_id + cfg.user_id + bool(self.bags) + (numbers > 0) + (user_numbers > 0)
        if content_dim is not None:
            self.query, self.key = Linear(content_dim, d), Linear(content_dim, d, bias=False)
            self.candidate, self.interest = Linear(content_dim, d), Linear(content_dim, d)
            self.profile, self.content_bias = Linear(content_dim, d), Linear(content_dim, 1)
            self.cic = ContentIdContrast(content_dim, d, cfg.cic_temperature)
            vectors += 4
        if not vectors:
            raise UserError(
                "model.user_id=false and model.item_id=false leave the ranker nothing to read; set one of them to "
                "true, name model.columns, or train `em3`"
            )
        widths = [vectors * d + vectors * (vectors - 1) // 2, *cfg.hidden]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [Linear(a, b), nn.ReLU(), nn.Dropout(cfg.dropout)]
        self.mlp = nn.Sequential(*layers, Linear(widths[-1], 1))
        for table in (self.user, self.item, *self.bags.values()):
            nn.init.normal_(table.weight, std=0.05)  # type: ignore[arg-type]
        for table in (self.user_bias, self.item_bias):
            nn.init.zeros_(table.weight)

    def id_parameters(self) -> list[Tensor]:
        """Tables with one row per user or item, which have a weight decay of their own."""
        return [self.user.weight, self.item.weight, self.user_bias.weight, self.item_bias.weight]

    def _ids(self, rows: Tensor, known: Tensor) -> Tensor:
        """Embedding rows: row + 1, or 0 (shared) for what training never saw; id dropout trains that row."""
        ids = torch.where((rows >= 0) & known[rows.clamp(min=0)], rows + 1, 0)
        if self.training and self.cfg.id_dropout:
            ids = ids * (torch.rand(ids.shape, device=ids.device) >= self.cfg.id_dropout)
        return ids

    def _categories(self, *wanted: Tensor) -> list[Tensor]:
        """For each tensor of item rows (-1 = none) the sum of its categorical columns' vectors, `[*shape, dim]`.

        Each item's bags are read once, however often it stands in the batch.
        """
        rows, index = torch.unique(torch.cat([w.flatten() for w in wanted]), return_inverse=True)
        total, inside, at = 0, (rows >= 0)[:, None], rows.clamp(min=0)
        for name, (codes, ptr, _) in self.columns.bags.items():
            lengths = ptr[at + 1] - ptr[at]
            ends = lengths.cumsum(0)
            pieces = torch.arange(int(ends[-1]), device=rows.device)
            pieces += torch.repeat_interleave(ptr[at] - ends + lengths, lengths)
            total = total + self.bags[name](codes[pieces], ends - lengths) * inside
        flat = nn.functional.embedding(index, total).split([w.numel() for w in wanted])  # type: ignore[arg-type]
        return [part.view(*w.shape, -1) for part, w in zip(flat, wanted, strict=True)]

    def forward(self, batch: RankingBatch) -> Tensor:
        """Logits `[batch, candidates]`."""
        shape = (len(batch.users), batch.items.shape[1])
        users, items = self._ids(batch.users, self.known_users), self._ids(batch.items, self.known_items)
        logits = 0
        vectors, recent = [], batch.history[:, -self.cfg.id_history :]
        categories, past_categories = self._categories(batch.items, recent) if self.bags else (0.0, 0.0)
        if isinstance(categories, Tensor):
            vectors.append(categories)
        if self.numbers is not None:  # -1, an item outside the catalogue, reads the last row
            vectors.append(self.numbers(self.columns.numbers[batch.items]))
        if self.user_numbers is not None:
            vectors.append(self.user_numbers(self.columns.users[batch.users])[:, None])
        if self.cfg.user_id:
            vectors.append(self.user(users)[:, None])
            logits = logits + self.user_bias(users)
        if self.cfg.item_id:
            item = self.item(items) + categories
            past = self.item(self._ids(recent, self.known_items)) + past_categories
            interest = self._attend(HistoryContent(past, recent >= 0), self.id_query(item))
            vectors += [item, interest, item * interest]
            logits = logits + self.item_bias(items)[..., 0]
        if batch.content is not None and batch.history_content is not None:
            query = self.query(batch.content) @ self.key.weight  # (W_k h)q = h(q W_k): histories are never projected
            candidate, interest = self.candidate(batch.content), self._attend(batch.history_content, query)
            interest = self.interest(interest)
            valid = batch.history_content.valid[:, None].to(batch.content.dtype)
            profile = batch.history_content.mix(valid / valid.sum(2, keepdim=True).clamp(min=1))
            vectors += [candidate, interest, candidate * interest, self.profile(profile)]
            logits = logits + self.content_bias(batch.content)[..., 0]
        stack = torch.stack([v.expand(*shape, -1) for v in vectors], 2)
        i, j = torch.triu_indices(stack.shape[2], stack.shape[2], 1, device=stack.device)
        products = (stack @ stack.transpose(2, 3))[..., i, j]
        return logits + self.mlp(torch.cat([stack.flatten(2), products], 2))[..., 0]

    def _attend(self, history: HistoryContent, query: Tensor) -> Tensor:
        """User interest, eq. 7-8: `[batch, candidates, dim]`, zero for an empty history."""
        valid = history.valid[:, None]
        scores = history.scores(query.expand(len(history.valid), -1, -1)) / math.sqrt(self.cfg.dim)
        weights = torch.softmax(scores.masked_fill(~valid, -1e9), 2) * valid
        return history.mix(weights)

    def contrast(self, items: Tensor, content: Tensor) -> Tensor:
        """Unweighted Content-ID contrast of distinct item rows `[n]` with content `[n, dim]`; without untrained ids."""
        known = self.known_items[items]
        ids = self.item(items[known] + 1)
        return self.cic(content[known], ids + self._categories(items[known])[0] if self.bags and len(ids) else ids)
