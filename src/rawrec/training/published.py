"""Runs whose folder is an address: they are made in a folder of this machine, and every epoch's state is published.

Another machine takes the last state that was published and goes on with it. See `remote.py` for how a state is whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.files import write_text
from rawrec.folders import copy_linked, placing
from rawrec.remote import NOTHING, Mark, Store, StoreFailed, working_place
from rawrec.training.callbacks import Callback, EpochRecord, RunEnd, RunStart
from rawrec.training.ranks import started
from rawrec.training.runs import RunFolder

RUN = "run"
AT = "published"
"""Beside the working folder: the number of the state that it began from, or was published as."""


class Publishing(Callback):
    """Publishes a run: as it begins, after every epoch, at its end. Where the store fails in between the run goes on,
    and a warning says so; another writer's state ends it."""

    def __init__(self, store: Store, folder: Path, after: Mark) -> None:
        self._store, self._folder, self._after = store, folder, after
        self._warned = False

    def on_start(self, record: RunStart) -> None:
        self.publish()

    def on_epoch(self, record: EpochRecord) -> None:
        try:
            self.publish()
        except StoreFailed as error:
            if not self._warned:
                warnings.warn(f"{error}. The run goes on in {self._folder}", stacklevel=1)
            self._warned = True

    def on_end(self, record: RunEnd) -> None:
        if record.state != "failed":
            return
        with suppress(StoreFailed):  # what has ended the run is told
            self.publish()

    def publish(self) -> None:
        self._after = self._store.publish(self._folder, RUN, self._after)
        _note(self._folder, self._after)


def begin(
    address: str, make: Callable[[Path, Sequence[Callback]], RunFolder], callbacks: Sequence[Callback], overwrite: bool
) -> RunFolder:
    """Make a new run at an address; `make` makes it in a folder, with callbacks. The run in that folder.

    UserError where a run stands there already.
    """
    _alone(address)
    store = Store(address)
    mark = store.mark()
    if mark is not NOTHING and (mark.kind != RUN or not overwrite):
        ways = f"go on with `rawrec resume {address}`, choose another --out, or replace it with --overwrite"
        if mark.kind != RUN:
            ways = "choose another --out"
        raise UserError(f"{address} holds a {mark.kind} already: {ways}")
    return _made(store, _folder(store), mark, make, callbacks)


def go_on(
    address: str, make: Callable[[Path, Sequence[Callback]], RunFolder], callbacks: Sequence[Callback]
) -> RunFolder:
    """Go on with the run at an address, from the last state that was published, or from this machine's own folder where
    that state is its own."""
    _alone(address)
    store = Store(address)
    mark, folder = store.mark(), _folder(store)
    if not (_noted(folder) == mark and (folder / "run.json").is_file()):
        copy = store.fetched(RUN, mark)
        with placing(folder) as fresh:
            for path in copy.iterdir():
                copy_linked(path, fresh / path.name)
        _note(folder, mark)
    return _made(store, folder, mark, make, callbacks)


def _alone(address: str) -> None:
    if started():
        raise UserError(
            f"{address}: several processes write a run to a folder that all of them see: give one (--out), then "
            "rawrec publish FOLDER ADDRESS"
        )


def _made(
    store: Store,
    folder: Path,
    mark: Mark,
    make: Callable[[Path, Sequence[Callback]], RunFolder],
    callbacks: Sequence[Callback],
) -> RunFolder:
    folder.parent.mkdir(parents=True, exist_ok=True)
    publishing = Publishing(store, folder, mark)
    run = make(folder, [*callbacks, publishing])
    try:
        publishing.publish()
    except StoreFailed as error:
        raise StoreFailed(
            f"{error}. The run is whole in {folder}; rawrec resume {store.address} publishes it"
        ) from None
    return run


def _folder(store: Store) -> Path:
    return working_place(store.address) / "work" / store.address.rpartition("/")[2]


def _note(folder: Path, mark: Mark) -> None:
    write_text(folder.parent / AT, " ".join(map(str, mark)))


def _noted(folder: Path) -> Mark | None:
    """The state that the folder is of, or has made more of."""
    try:
        number, state, kind = (folder.parent / AT).read_text(encoding="utf-8").split(" ")
        return Mark(int(number), state, kind)
    except (OSError, ValueError):
        return None


def publish(folder: str | Path, address: str, overwrite: bool = False) -> Mark:
    """Publish a dataset or a run of this machine at an address, for who reads or goes on with it there.

    overwrite: as the next state, where one stands there. Raises UserError where the folder is neither, where something
    stands at the address, and whatever the store has against it.

    >>> publish("data/ml", "s3://bucket/ml")
    """
    folder = Path(folder)
    if (folder / "run.json").is_file():
        kind = RUN
        RunFolder.open(folder).info()
    else:
        kind = "dataset"
        Dataset.open(folder)
    store = Store(address)
    mark = store.mark()
    if mark is not NOTHING and not overwrite:
        raise UserError(
            f"{address} holds a {mark.kind} already: choose another address, or replace it with --overwrite"
        )
    return store.publish(folder, kind, mark)
