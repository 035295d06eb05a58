"""What a recommender knows of users and items beside their scores."""

from __future__ import annotations

from rawrec.serving.similar import Similar


class Known(Similar):
    """`history`, `knows_user` and `picture` of a recommender."""

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
