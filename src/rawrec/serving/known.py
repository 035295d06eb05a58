"""What a recommender knows of users and items beside their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rawrec.serving.filters import Columns
from rawrec.serving.similar import Similar


class Known(Similar):
    """`history`, `knows_user` and `picture` of a recommender; the ids and columns of its catalogue."""

    @property
    def item_ids(self) -> list[str]:
        """Ids of the catalogue's items, added ones behind those of the dataset; not to be changed."""
        return self._item_ids

    @property
    def columns(self) -> Columns:
        """Categories and numbers of the catalogue's items, in the order of `item_ids`."""
        return self._columns

    def places(self, items: Sequence[str]) -> NDArray[np.int64]:
        """Places of items in `item_ids`, -1 for what is not there."""
        rows = self._rows
        return np.array([rows.get(str(item), -1) for item in items], np.int64)

    @property
    def reads_histories(self) -> bool:
        """Whether a history may be given in the place of what is known of a user."""
        return True

    def knows_user(self, user: str) -> bool:
        """Whether there is a user of this id."""
        return self.people.has_user(user)

    def history(self, user: str, met: bool = False) -> list[str]:
        """Ids of the items that a known user took, oldest first; met: of all that they met, whatever the label, in any
        order. UserError for an unknown user."""
        row = self._known_user(user)
        source = self._met if met else self._past
        return [self._item_ids[item] for item in source.items[source.ptr[row] : source.ptr[row + 1]].tolist()]

    def picture(self, item: str, field: str | None = None) -> bytes | None:
        """The first picture of an item of the dataset, as it was imported; None where it has none, or was added later.

        field: which image field; None: the first one in which it has a picture. UserError for an unknown one.
        """
        row, data = self._row(item), self.people
        if row >= data.n_items:
            return None
        for name in data.fields.image if field is None else [field]:
            found = data.images(name, [row])[0]
            if found:
                return found[0]
        return None
