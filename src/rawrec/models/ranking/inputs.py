"""What a ranker reads beside content: ids of user and item, histories of ids, columns of items, popularity, context.

Each becomes a token: the item's categories and numbers, the user's numbers, the user's id, the candidate's id (with its
categories, as in section 3.4 of EM3), the interest in ids, alone and element by element with the candidate; the
attributes of the user and the context of the impression, each the sum of vectors of its categories and a map of its
numbers; counts of earlier rows; and the session, a map of its numbers and one of the mean of its items' ids.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rawrec.config.ranking import InputsConfig
from rawrec.distinct import with_places
from rawrec.models.ids import IdTable, reads_popularity
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.columns import ItemColumns, TableColumns, mean_vectors
from rawrec.models.ranking.context import ImpressionContext, Widths
from rawrec.models.ranking.history import HistoryContent, attend
from rawrec.models.ranking.tokens import Part, Past, Token
from rawrec.onednn import Linear


class IdTables(nn.Module):
    """Vectors and biases of users and items by id, and the one way to them; code 0 is the unknown id.

    Code 0 is read for what training never saw, and trained by id dropout. A step touches the rows of its batch alone.
    """

    def __init__(self, known_users: Tensor, known_items: Tensor, dim: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.user, self.item = IdTable(known_users, dim), IdTable(known_items, dim)
        self.user_bias, self.item_bias = IdTable(known_users, 1, std=0), IdTable(known_items, 1, std=0)

    def grow(self, users: int, items: int) -> None:
        """Rows for so many in all, see `IdTable.grow`."""
        for table, count in zip(
            (self.user, self.user_bias, self.item, self.item_bias), (users, users, items, items), strict=True
        ):
            table.grow(count)

    def admit(self, row: int, user: bool) -> None:
        """A user's row, or an item's, is read as one of training from now on."""
        for table in (self.user, self.user_bias) if user else (self.item, self.item_bias):
            table.admit(row)

    def forget(self, rows: Tensor, user: bool) -> list[Tensor]:
        """Users' rows, or items', are read as what training never saw from now on; the tables that they stood in."""
        tables = (self.user, self.user_bias) if user else (self.item, self.item_bias)
        for table in tables:
            table.forget(rows)
        return [table.weight for table in tables]

    def tables(self) -> list[Tensor]:
        """Parameters with one row per user or item."""
        return [self.user.weight, self.item.weight, self.user_bias.weight, self.item_bias.weight]

    @property
    def known_items(self) -> Tensor:
        """Bool `[items]`, seen in training."""
        return self.item.known

    def user_codes(self, rows: Tensor) -> Tensor:
        """Codes of user rows (-1 = unknown); while training some are dropped."""
        return self.user.ids(rows, self.dropout)

    def item_codes(self, rows: Tensor) -> Tensor:
        """Codes of item rows (-1, or beyond the table: unknown); while training some are dropped."""
        return self.item.ids(rows, self.dropout)

    def item_vectors(self) -> tuple[Tensor, Tensor]:
        """Vectors of all items `[items, dim]`, and which of them training saw `[items]`."""
        return self.item.weight[1:].detach(), self.item.known


class ContextToken(nn.Module):
    """The context of an impression as one vector: the sum of its categories' and of a map of its numbers."""

    def __init__(self, widths: Widths, dim: int):
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(size, dim) for name, size in widths.codes.items()})
        self.numbers = Linear(widths.numbers, dim) if widths.numbers else None

    def begin(self) -> None:
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=0.05)  # type: ignore[arg-type]

    def forward(self, context: ImpressionContext) -> Tensor:
        """`[batch or 1, 1, dim]`."""
        parts = [table(context.codes[:, i]) for i, table in enumerate(self.tables.values())]
        if self.numbers is not None:
            parts.append(self.numbers(context.numbers))
        return torch.stack(parts).sum(0)[:, None]


class UserToken(nn.Module):
    """Attributes of users as one vector: the sum of their categories' and of a map of their numbers."""

    def __init__(self, columns: TableColumns, dim: int):
        super().__init__()
        self.columns = columns
        self.bags = nn.ModuleDict({k: nn.EmbeddingBag(v[2], dim, mode="mean") for k, v in columns.bags.items()})
        self.numbers = Linear(columns.numbers.shape[1], dim) if columns.numbers.shape[1] else None

    def begin(self) -> None:
        for bag in self.bags.values():
            nn.init.normal_(bag.weight, std=0.05)  # type: ignore[arg-type]

    def forward(self, users: Tensor) -> Tensor:
        """Of user rows `[batch]` (-1 = unknown, who lacks all), `[batch, 1, dim]`."""
        rows = torch.where(users < 0, len(self.columns.numbers) - 1, users)
        parts = [mean_vectors(self.bags, self.columns.bags, rows)] if self.bags else []
        if self.numbers is not None:
            parts.append(self.numbers(self.columns.numbers[rows]))
        return torch.stack(parts).sum(0)[:, None]


class Inputs(nn.Module):
    """Ids, columns, popularity and context as tokens. `known_users` and `known_items`: bool, seen in training."""

    def __init__(
        self,
        cfg: InputsConfig,
        known_users: Tensor,
        known_items: Tensor,
        columns: ItemColumns,
        attributes: TableColumns | None = None,
        context: Widths | None = None,
    ):
        super().__init__()
        self.cfg, self.columns, d = cfg, columns, cfg.dim
        self.ids = IdTables(known_users, known_items, d, cfg.id_dropout)
        self.reads_past = cfg.item_id and cfg.id_history > 0
        self.id_query = Linear(d, d)
        self.bags = nn.ModuleDict({k: nn.EmbeddingBag(v[2], d, mode="mean") for k, v in columns.bags.items()})
        numbers, user_numbers = columns.numbers.shape[1], columns.users.shape[1]
        self.numbers = Linear(numbers, d) if numbers else None
        self.user_numbers = Linear(user_numbers, d) if user_numbers else None
        self.user_columns = UserToken(attributes, d) if attributes is not None else None
        context = context or Widths({}, 0)
        self.context = ContextToken(context, d) if context.codes or context.numbers else None
        self.counts = Linear(context.counts, d) if context.counts else None
        self.never = {name: at for name, (at, _) in context.never.items()}
        for name, (_, values) in context.never.items():
            self.register_buffer(f"never_{name}", torch.tensor(values), persistent=False)
        self.session = Linear(context.session, d) if context.session else None
        self.session_items = Linear(d, d, bias=False) if context.session and self.reads_past else None

    @property
    def names(self) -> list[str]:
        """Names of the tokens that `forward` gives."""
        given = {
            "categories": bool(self.bags),
            "numbers": self.numbers is not None,
            "user_numbers": self.user_numbers is not None,
            "user": self.cfg.user_id,
            "item": self.cfg.item_id,
            **dict.fromkeys(("interest", "item*interest"), self.reads_past),
            "user_columns": self.user_columns is not None,
            "context": self.context is not None,
            "counts": self.counts is not None,
            "session": self.session is not None,
        }
        return [name for name, there in given.items() if there]

    @property
    def histories(self) -> dict[str, int]:
        """Widths of the histories that `forward` gives, by name."""
        return {"ids": self.cfg.dim} if self.reads_past else {}

    def begin(self) -> None:
        """The values that tables of columns have before training; id tables have theirs."""
        for bag in self.bags.values():
            nn.init.normal_(bag.weight, std=0.05)  # type: ignore[arg-type]
        for token in (self.user_columns, self.context):
            if token is not None:
                token.begin()

    def forward(self, batch: RankingBatch) -> Part:
        """Tokens, biases and the history of ids of a batch."""
        part, ids, columns = Part(), self.ids, batch.columns or self.columns
        users, items = ids.user_codes(batch.users), ids.item_codes(batch.items)
        recent = batch.history[:, max(batch.history.shape[1] - self.cfg.id_history, 0) :]
        categories, past_categories = self._categories(columns, batch.items, recent) if self.bags else (0.0, 0.0)
        if isinstance(categories, Tensor):
            part.tokens.append(Token("categories", categories))
        if self.numbers is not None:  # -1, an item outside the catalogue, reads the last row
            part.tokens.append(Token("numbers", self.numbers(self._numbers(columns.numbers, batch.items, items))))
        if self.user_numbers is not None:
            user_numbers = self._numbers(columns.users, batch.users, users)
            part.tokens.append(Token("user_numbers", self.user_numbers(user_numbers)[:, None]))
        if self.cfg.user_id:
            part.tokens.append(Token("user", ids.user(users)[:, None]))
            part.linear.append(ids.user_bias(users))
        if self.cfg.item_id:
            item = ids.item(items) + categories
            part.tokens.append(Token("item", item))
            part.linear.append(ids.item_bias(items)[..., 0])
        if self.reads_past:
            past = ids.item(ids.item_codes(recent)) + past_categories
            history = HistoryContent(past, recent >= 0)
            interest, some = attend(history, self.id_query(item), self.cfg.dim, "ids"), history.valid.any(1)[:, None]
            part.tokens += [Token("interest", interest, some), Token("item*interest", item * interest, some)]
            part.histories["ids"] = Past(item, history)
        if self.user_columns is not None:
            part.tokens.append(Token("user_columns", self.user_columns(batch.users)))
        if self.context is not None and batch.context is not None:
            part.tokens.append(Token("context", self.context(batch.context)))
        if self.counts is not None and batch.context is not None:
            part.tokens.append(Token("counts", self.counts(self._counted(batch.context.counts, users, items))))
        if self.session is not None and batch.context is not None:
            part.tokens.append(Token("session", self._session(self.session, batch.context)))
        return part

    def _numbers(self, table: Tensor, rows: Tensor, codes: Tensor) -> Tensor:
        """Numbers of rows, `[*rows.shape, n]`.

        Where the id is unknown (code 0), so is popularity, the first of them: it is that of what training never saw.
        So id dropout shows training what an unseen item is, which a popular item without its id is not.
        """
        found = table[rows]
        if not self.cfg.popularity:
            return found
        known = (codes != 0) & reads_popularity()
        first = torch.where(known, found[..., 0], table[-1, 0])
        return torch.cat([first[..., None], found[..., 1:]], -1)

    def _counted(self, counts: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """Counts `[batch, candidates, n]`, where an id is unknown those of what was never shown, as of popularity."""
        for name, at in self.never.items():
            values = self.get_buffer(f"never_{name}")
            unknown = ((users[:, None] if name == "user" else items) == 0)[..., None]
            here = slice(at, at + len(values))
            found = torch.where(unknown, values, counts[..., here])
            counts = torch.cat([counts[..., :at], found, counts[..., here.stop :]], -1)
        return counts

    def _session(self, numbers: nn.Module, context: ImpressionContext) -> Tensor:
        """A map of the session's numbers and one of the mean of its items' id vectors, `[batch or 1, 1, dim]`."""
        token = numbers(context.session_numbers)
        if self.session_items is not None:
            there = (context.session >= 0)[..., None].to(token.dtype)
            vectors = self.ids.item(self.ids.item_codes(context.session)) * there
            token = token + self.session_items(vectors.sum(1) / there.sum(1).clamp(min=1))
        return token[:, None]

    def item_vectors(self, items: Tensor) -> Tensor:
        """Vectors `[n, dim]` of trained item rows `[n]` as the ranker reads them: of the id, with its categories."""
        ids = self.ids.item(items + 1)
        return ids + self._categories(self.columns, items)[0] if self.bags and len(ids) else ids

    def _categories(self, columns: ItemColumns, *wanted: Tensor) -> list[Tensor]:
        """For each tensor of item rows (-1 = none) the sum of its categorical columns' vectors, `[*shape, dim]`.

        Each item's bags are read once, however often it stands in the batch.
        """
        rows, index = with_places(torch.cat([w.flatten() for w in wanted]))
        total = mean_vectors(self.bags, columns.bags, rows.clamp(min=0)) * (rows >= 0)[:, None]
        flat = nn.functional.embedding(index, total).split([w.numel() for w in wanted])  # type: ignore[arg-type]
        return [part.view(*w.shape, part.shape[-1]) for part, w in zip(flat, wanted, strict=True)]
