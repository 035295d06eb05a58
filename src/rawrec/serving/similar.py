"""Items alike: by content, by ids, or by one kind of field, what encoders made of pictures or of texts alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rawrec.arguments import COUNT, TEXT, optional, shown
from rawrec.content.item_model import ItemModel
from rawrec.content.new_items import Item
from rawrec.errors import UserError
from rawrec.serving.explaining import Explaining
from rawrec.serving.served import ENCODE, Features, Scored, cosines, of_one_state
from rawrec.shown import listed

KINDS = ("image", "text")
Vectors = tuple[Tensor, Tensor]
"""`[n, dim]`, and which of them are there `[n]`."""


class Similar(Explaining):
    """`similar` of a recommender."""

    @of_one_state
    def similar(self, item: Item, k: int = 10, by: str | None = None) -> list[Scored]:
        """The items that are nearest (cosine), without the item itself where it is given by its id.

        by: "content", what the model makes of all fields; "id", embeddings of ids, only among items that training saw;
        "image" or "text", what encoders made of the fields of this kind, before any projection and fusion, or the name
        of one field. The similarity by several fields is the mean of the cosines over those that `item` has; one is 0
        where the other item lacks the field. None: content; ids for a model on ids alone; the vectors of a retrieval
        model, which has no others. Of several pictures of an item the encoder makes one feature, amid them.
        item: an id, or a new one by its fields. Features of the whole catalogue are made when they are first asked for
        and then kept in memory.

        >>> rec.similar({"image": "photo.jpg"}, by="image")
        """
        COUNT.check("k", k)
        optional(TEXT).check("by", by)
        pairs = self._by_field(item, by) if by not in (None, "content", "id") else [self._by_vector(item, by)]
        found = [cosines(query, values, valid) for query, (values, valid) in pairs]
        if len(found) == 1:
            scores = found[0]
        else:
            there = torch.stack([valid for _, (_, valid) in pairs]).any(0)
            scores = torch.stack([own.masked_fill(own.isneginf(), 0) for own in found]).mean(0)
            scores = scores.masked_fill(~there, -torch.inf)
        if not isinstance(item, Mapping):
            scores[self._row(item)] = -torch.inf
        best = self._without_hidden(scores).topk(min(k, len(scores)))
        return self._scored(best.indices.cpu().numpy(), best.values.cpu().numpy(), raw=True)

    def ways(self) -> list[str]:
        """What `similar` can go `by`: of content, id, image and text those that this run has; "": its one vector, as
        None asks for."""
        kinds = [kind for kind in KINDS if kind in self._kinds_of_features().values()]
        return [*self._ways_by_vector(), *kinds]

    def _ways_by_vector(self) -> list[str]:
        return ["id"] if self._table is None else ["content", "id"]

    def _by_vector(self, item: Item, by: str | None) -> tuple[Tensor, Vectors]:
        """The vector of an item, and those of the catalogue."""
        values, valid = self._vectors_by(by)
        if isinstance(item, Mapping):
            if by == "id":
                raise UserError("by='id': a new item has no id that training saw; use by='content'")
            made = self._embed_rows([item])
            if not made.valid[0]:
                raise UserError("the new item has no content that this model reads, so there is nothing to compare")
            return made.values[0], (values, valid)
        row = self._row(item)
        if not valid[row]:
            lacking = "no training interaction" if by == "id" else self._lacking()
            raise UserError(f"item {shown(item)} has {lacking}, so there is nothing to compare")
        return values[row], (values, valid)

    def _vectors_by(self, by: str | None) -> Vectors:
        """Of the catalogue: what `_vectors` gives, content, or ids."""
        if by == "content" and self._table is None:
            raise UserError(f"by='content': this run is of model `{self._model()}`, which has no content; use by='id'")
        if by != "id":
            return self._vectors()
        values, valid = (found[: self.n_items] for found in self.system.ranker.inputs.ids.item_vectors())
        more = len(self._item_ids) - len(values)  # items that were added have no id that training saw
        return torch.cat([values, values.new_zeros(more, values.shape[1])]), torch.cat([valid, valid.new_zeros(more)])

    # --------------------------------------------------------------------------------------------------- of one kind
    def _by_field(self, item: Item, by: str | None) -> list[tuple[Tensor, Vectors]]:
        """Of each field that is meant, and that the item has: its feature, and those of the catalogue."""
        names = self._fields_of(by)
        if isinstance(item, Mapping):
            made = self._features_of_new(item)
            own = {name: made[name][0][0] for name in names if made[name][1][0]}
        else:
            row = self._row(item)
            own = {name: self._kept_feature(name)[0][row] for name in names if self._kept_feature(name)[1][row]}
        if not own:
            raise UserError(f"by={shown(by)}: the item has no {' or '.join(names)}, so there is nothing to compare")
        return [(query, self._kept_feature(name)) for name, query in own.items()]

    def _fields_of(self, by: str | None) -> list[str]:
        """The features that `by` means: those of a kind, or the one of this name. UserError where there are none."""
        known = self._kinds_of_features()
        names = [by] if by in known else [name for name, kind in known.items() if kind == by]
        if by in KINDS and not names:
            raise UserError(
                f"by={shown(by)}: this run, of model `{self._model()}`, makes no feature of this kind alone; it makes "
                f"{listed(known, by)}"
            )
        if not names:
            raise UserError(f"by={shown(by)}: use content, id, image, text or a field: {listed(known, by)}")
        return [str(name) for name in names]

    def _kinds_of_features(self) -> dict[str, str]:
        """Every feature that the model reads, and of what kind it is: image, text, or neither."""
        item_model = self.system.item_model
        return {} if item_model is None else kinds_of(item_model)

    def _features_of_new(self, item: Mapping) -> Features:
        features = self._embed_rows([item]).features
        assert features is not None
        return features

    def _kept_feature(self, field: str) -> Vectors:
        """A feature of the whole catalogue."""
        if field not in self._kept:
            rows = torch.arange(self.data.n_items).split(ENCODE)
            parts = [self._features(field, part) for part in rows]
            values, valid = (torch.from_numpy(np.concatenate([part[k] for part in parts])) for k in range(2))
            self._kept[field] = values, valid
        values, valid = self._kept[field]
        added = None if self._table is None else self._table.features
        if added is None:
            return values, valid
        return torch.cat([values, added[field][0].to(values.device)]), torch.cat(
            [valid, added[field][1].to(valid.device)]
        )

    def _feature_widths(self) -> dict[str, int]:
        """Field -> width of its features, for all that the model reads."""
        return {} if self.system.item_model is None else self.system.item_model.widths

    @torch.no_grad()
    def _features(self, field: str, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Features `[n, width]` of the dataset's items `rows` on the CPU, zeros where missing; and which are there."""
        item_model, bank = self.system.item_model, self.system.bank
        assert item_model is not None and bank is not None
        values = torch.cat([item_model.feature(bank, field, part) for part in rows.split(ENCODE)])
        return values.cpu().numpy(), bank.present[item_model.column(field)].cpu()[rows].numpy()


def kinds_of(item_model: ItemModel) -> dict[str, str]:
    """Every feature of an item model, and of what kind it is: image, text, or neither."""
    kinds = {name: one.kinds for name, one in item_model.about.items()}
    return {name: kinds[name][0] if len(kinds.get(name, ())) == 1 else "" for name in item_model.fields}
