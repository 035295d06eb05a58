"""LEMUR's content part (arXiv:2511.10962): a decoder over the content of the history, and the candidate's similarity.

The decoder: Q_(i+1) = FFN(CrossAttn(Q_i, d_1 .. d_N)) with weights softmax(Q_i . d_j) and the rows d_j themselves as
values: no projections, no scaling, no attention among the Q; Q_1 is a map of the ranker's other features. Beside it the
similarity module: the cosines of the candidate with d_1 .. d_N, in their order and sorted. Each of a short and of a
long sequence. A query's content q is a token, and so is cos(q, d), where batches have queries.

Nothing of batch x history x width has a gradient where few rows of the history are live (`HistoryContent`).

The authors published no code; width and activation of the networks are not public. Ours: several vectors Q, the other
read-outs of the cosines, the search for the most similar items of a long sequence, marks of the events (how long ago
each was, what the user did), a vector each that is added to d_j.
"""

from __future__ import annotations

from collections import abc

import torch
from torch import Tensor, nn

from rawrec.config.lemur import LemurConfig
from rawrec.config.ranking import ContentPartConfig
from rawrec.errors import UserError
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.content_part import Around, ContentPart
from rawrec.models.ranking.history import TINY, HistoryContent, attend, watch
from rawrec.models.ranking.readouts import SimTier, descending, last, most_similar
from rawrec.models.ranking.sata import SATA
from rawrec.models.ranking.search import LongHistory
from rawrec.models.ranking.tokens import Part, Past, Token, Tokens
from rawrec.onednn import Linear

AT_ONCE = 1 << 24
"""Numbers of a layer that are made at once where no gradient is needed."""


class Decoder(nn.Module):
    """`queries` vectors Q, each as wide as content, through `layers` of attention and a network; inputs: width of what
    Q_1 is made of. marks: how many codes each mark of an event has; a row of the history is then d_j and the vectors of
    its marks, added up. dropout: share of the impressions that have no marks in training, as new histories have none.
    """

    def __init__(self, cfg: LemurConfig, inputs: int, width: int, marks: abc.Sequence[int] = (), dropout: float = 0.0):
        super().__init__()
        self.queries = cfg.queries
        self.first = Linear(inputs, cfg.queries * width)
        inner = cfg.ffn * width
        self.networks = nn.ModuleList(
            nn.Sequential(Linear(width, inner), nn.GELU(), Linear(inner, width)) for _ in range(cfg.layers)
        )
        self.marks = nn.ParameterList(0.05 * torch.randn(size, width) for size in marks)
        self.dropout = dropout

    def forward(self, inputs: Tensor, history: HistoryContent) -> Tensor:
        """`[batch, candidates, inputs]` -> `[batch, candidates, queries * width]`; an empty history reads as zeros."""
        q = self.first(inputs).unflatten(2, (self.queries, -1)).flatten(1, 2)
        marks = self._marks(history)
        for network in self.networks:
            q = network(self._attend(history, q, marks) if marks else attend(history, q, 1))
        return q.unflatten(1, (-1, self.queries)).flatten(2)

    def _marks(self, history: HistoryContent) -> list[Tensor]:
        """Codes of each mark, `[batch, 1, history]`."""
        if not self.marks:
            return []
        codes = history.marks
        if codes is None:
            codes = torch.zeros(*history.valid.shape, len(self.marks), dtype=torch.int64, device=history.valid.device)
        if self.training and self.dropout:
            codes = codes * (torch.rand(len(codes), 1, 1, device=codes.device) >= self.dropout)
        return [one[:, None] for one in codes.unbind(2)]

    def _attend(self, history: HistoryContent, q: Tensor, marks: list[Tensor]) -> Tensor:
        """`attend` over d_j and the vectors of its marks, none of which is added to a row: their scores are looked up,
        and their weights added up by code."""
        valid, tables = history.valid[:, None], list(zip(marks, self.marks, strict=True))
        scores = history.scores(q)
        for codes, table in tables:
            scores = scores + (q @ table.T).gather(2, codes.expand_as(scores))
        weights = torch.softmax(scores.masked_fill(~valid, -1e9), 2) * valid
        watch("content", history, weights)
        mixed = history.mix(weights)
        for codes, table in tables:
            sums = weights.new_zeros(*weights.shape[:2], len(table))
            mixed = mixed + sums.scatter_add(2, codes.expand_as(weights), weights) @ table
        return mixed


class Similarity(nn.Module):
    """The read-outs of the cosines of a candidate with a sequence of `length` items, side by side; `width` numbers."""

    def __init__(self, cfg: LemurConfig, content: int, length: int):
        super().__init__()
        self.cfg, self.length = cfg, length
        self.tiers = nn.ModuleList(SimTier(width) for width in cfg.tiers if "simtier" in cfg.similarity)
        self.sata = SATA(content, [content]) if "sata" in cfg.similarity else None
        of_tiers = sum(table.width for table in self.tiers)  # type: ignore[misc]
        widths = {"cosines": length, "sorted": length, "simtier": of_tiers, "sata": content}
        self.width = sum(widths[name] for name in dict.fromkeys(cfg.similarity))

    def forward(self, candidate: Tensor, history: HistoryContent) -> Tensor:
        """candidate: `[batch, candidates, content]`."""
        cosines, valid = history.cosines(candidate), history.valid[:, None]
        parts = []
        for name in dict.fromkeys(self.cfg.similarity):
            if name == "cosines":
                parts.append(last(cosines, self.length))
            elif name == "sorted":
                best = descending(cosines, valid)[..., : self.length]
                parts.append(nn.functional.pad(best, (0, self.length - best.shape[-1])))
            elif name == "simtier":
                parts += [table(cosines, valid) for table in self.tiers]
            else:
                parts.append(self._attended(candidate, cosines, history))
        return torch.cat(parts, 2)

    def _attended(self, candidate: Tensor, cosines: Tensor, history: HistoryContent) -> Tensor:
        """SA-TA over the most similar items, `[batch, candidates, content]`."""
        assert self.sata is not None
        place, there = most_similar(cosines, history.valid[:, None], self.cfg.attended)
        found = history.pick(place, there)
        own = cosines.gather(2, place).flatten(0, 1)
        return self.sata(candidate.flatten(0, 1), found.rows(), found.valid, own).unflatten(0, candidate.shape[:2])


class Sequence(nn.Module):
    """What is made of one sequence of `length` items: the tokens `interest` and `similarity`, each if it is wanted.

    search: how many items of it are read, those most similar to the candidate; None: all. dropout: see `Decoder`.
    """

    def __init__(self, cfg: LemurConfig, around: Around, length: int, search: int | None, dropout: float):
        super().__init__()
        self.length, self.search = length, search
        width = around.content
        self.decoder = self.interest = self.similarity = self.read = None
        if cfg.layers:
            self.decoder = Decoder(cfg, around.inputs * around.dim, width, around.marks, dropout)
            self.interest = Linear(cfg.queries * width, around.dim)
        if cfg.similarity:
            self.similarity = Similarity(cfg, width, length if search is None else min(search, length))
            self.read = Linear(self.similarity.width, around.dim)

    @property
    def names(self) -> list[str]:
        return ["interest"] * (self.decoder is not None) + ["similarity"] * (self.similarity is not None)

    def forward(self, candidate: Tensor, inputs: Tensor, history: HistoryContent | LongHistory) -> list[Tensor]:
        """A vector `[batch, candidates, dim]` for each of `names`; inputs: `[batch, candidates, width]`.

        Without gradient for some candidates at a time.
        """
        shape = candidate.shape[:2]
        kept = self.length if self.search is None else self.search * candidate.shape[2]
        size = shape[1] if torch.is_grad_enabled() else max(AT_ONCE // max(shape[0] * kept, 1), 1)
        pieces = zip(candidate.split(size, 1), inputs.split(size, 1), strict=True)
        parts = [self._of(*piece, history) for piece in pieces]
        return parts[0] if len(parts) == 1 else [torch.cat(values, 1) for values in zip(*parts, strict=True)]

    def _of(self, candidate: Tensor, inputs: Tensor, history: HistoryContent | LongHistory) -> list[Tensor]:
        shape = candidate.shape[:2]
        if isinstance(history, LongHistory):  # of each candidate another one
            assert self.search is not None
            history = history.search(candidate, self.search)
            candidate, inputs = (values.flatten(0, 1)[:, None] for values in (candidate, inputs))
        found = []
        if self.decoder is not None and self.interest is not None:
            found.append(self.interest(self.decoder(inputs, history)))
        if self.similarity is not None and self.read is not None:
            found.append(self.read(self.similarity(candidate, history)))
        return [values.reshape(*shape, -1) for values in found]


class LemurContent(ContentPart):
    """Tokens: the candidate's content; the interest and the similarity of each sequence; the query's content and its
    cosine with the candidate's."""

    def __init__(self, cfg: ContentPartConfig, around: Around):
        super().__init__(cfg, around)
        lemur, width, dim = cfg.lemur, around.content, around.dim
        dropout = getattr(cfg, "id_dropout", 0.0)
        lengths = lemur.lengths(around.history)
        if lengths and lemur.layers and not around.inputs:
            raise UserError(
                "model.content=lemur: its decoder begins with the ranker's other inputs, and there are none; set "
                "model.item_id=true or model.user_id=true, name model.columns, or use model.lemur.layers=0"
            )
        self.candidate = Linear(width, dim)
        self.query = Linear(width, dim) if around.queries else None
        self.query_cosine = Linear(1, dim) if around.queries else None
        searched = {"short": None, "long": lemur.search}
        self.sequences = nn.ModuleDict(
            {name: Sequence(lemur, around, length, searched[name], dropout) for name, length in lengths.items()}
        )
        self.cic = self.contrast_with_ids(around) if cfg.cic_weight else None
        self.histories = {"content": width} if lemur.whole(around.history) else {}
        queries = ("query", "query_cosine") if around.queries else ()
        parts = [f"{name}_{part}" for name, sequence in self.named_sequences() for part in sequence.names]
        self.names = ("content", *queries, *parts)

    def named_sequences(self) -> list[tuple[str, Sequence]]:
        return [(name, sequence) for name, sequence in self.sequences.items() if isinstance(sequence, Sequence)]

    def forward(self, batch: RankingBatch, inputs: Part) -> Part:
        content, past = batch.content, batch.history_content
        assert content is not None and past is not None
        shape = len(batch.users), batch.items.shape[1]
        known = (content != 0).any(2)
        tokens = [Token("content", self.candidate(content), known)]
        if self.query is not None and self.query_cosine is not None:
            query = content.new_zeros(1, 1, content.shape[2]) if batch.query_content is None else batch.query_content
            asked = (query != 0).any(2)
            cosine = nn.functional.cosine_similarity(query, content, dim=2, eps=TINY)
            tokens.append(Token("query", self.query(query), asked))
            tokens.append(Token("query_cosine", self.query_cosine(cosine[..., None]), asked & known))
        candidate = content.expand(*shape, -1)
        flat = (
            Tokens([inputs], shape).values.flatten(2) if self.cfg.lemur.layers and inputs.tokens else candidate[..., :0]
        )
        for name, sequence in self.named_sequences():
            history = self._history(batch, sequence)
            some = history.valid.any(1)[:, None]
            for part, values in zip(sequence.names, sequence(candidate, flat, history), strict=True):
                tokens.append(Token(f"{name}_{part}", values, some if part == "interest" else some & known))
        return Part(tokens, histories={"content": Past(content, past)} if self.histories else {})

    @staticmethod
    def _history(batch: RankingBatch, sequence: Sequence) -> HistoryContent | LongHistory:
        if sequence.search is not None:
            assert batch.long_history is not None
            return batch.long_history
        assert batch.history_content is not None
        return batch.history_content.last(sequence.length)
