"""The processes that train one model together: which one this is, and what they exchange.

`ALONE` is the world of a single process, in which every exchange gives back what it was given. In a larger one all
processes call the same methods in the same order; what they get is equal to the last bit on all of them, so that what
each holds of a model stays equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rawrec.errors import UserError


class Lost(Exception):
    """An exchange that did not come about: another process is gone, or the network is."""


class World:
    """`size` processes, of which this one is `rank`; step: which training step they are in, for messages.

    sent: bytes that this process has sent to others, by the kind of what they were.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.step = rank, size, 0
        self.sent: dict[str, int] = {}

    @property
    def first(self) -> bool:
        """Whether this process writes files, and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.size > 1

    restarted = False
    """Whether who started them has done so before, and one of them has failed since."""

    # ---------------------------------------------------------------------------------------------- one after another
    def note(self, what: str, text: str = "") -> None:
        """Say that this process has come so far."""

    def follow(self, what: str, rank: int = 0) -> None:
        """Wait until a process has come so far. Raises Lost where one of them has failed."""

    def agree(self, about: Mapping[str, Any]) -> None:
        """UserError, in every process, where one was given something else than the first."""

    # ------------------------------------------------------------------------------------------------- who does what
    def bounds(self, count: int) -> list[int]:
        """Of `count` samples in their order, where the share of each rank begins, and `count`."""
        return [count * rank // self.size for rank in range(self.size + 1)]

    def share(self, count: int) -> Share:
        """Which of `count` samples this process computes."""
        start, stop = self.bounds(count)[self.rank : self.rank + 2]
        if start < stop or not count:
            return Share(self, start, stop, count, 1.0)
        return Share(self, 0, 1, count, 0.0)  # of another one's, without weight: exchanges want all of us

    def part(self, value: Tensor) -> Tensor:
        """A loss that every process computes of the whole step, as its share of the sum over them."""
        return value / self.size if self.several else value

    # ----------------------------------------------------------------------------------------------------- exchanges
    def attend(self) -> None:
        """What a process does until all have come to an exchange: `Shards` answers for its rows."""

    def swap(self, values: Tensor, given: Sequence[int], got: Sequence[int], kind: str) -> Tensor:
        """Rows of `values` for every rank, `given` of them each, one rank's behind the other's; what they have for this
        one, `[sum(got), ...]`. At once: without `attend`."""
        found = values.new_empty(sum(got), *values.shape[1:])
        self._count(kind, (sum(given) - given[self.rank]) * values[:1].numel() * values.element_size())
        self._try(lambda: dist.all_to_all_single(found, values.contiguous(), list(got), list(given)))
        return found

    def table(self, numbers: Tensor) -> Tensor:
        """The numbers `[n]` of every rank, `[size, n]` float64 on the CPU."""
        numbers = numbers.double().cpu()
        return self.gather(numbers, [len(numbers)] * self.size, "numbers").view(self.size, -1)

    def any(self, value: bool) -> bool:
        """Whether it is true anywhere."""
        return bool(self.table(torch.tensor([float(value)])).any()) if self.several else value

    def sum(self, values: Tensor, kind: str) -> Tensor:
        """The sum over ranks, in the place of `values`."""
        if self.several and values.numel():
            self.attend()
            self._count(kind, 2 * values.numel() * values.element_size() * (self.size - 1) // self.size)
            self._try(lambda: dist.all_reduce(values))
        return values

    def gather(self, values: Tensor, counts: Sequence[int], kind: str) -> Tensor:
        """The rows `[counts[rank], ...]` of every rank, one rank's behind the other's, `[sum(counts), ...]`."""
        if not self.several:
            return values
        self.attend()
        found = values.new_empty(sum(counts), *values.shape[1:])
        given = values.contiguous().repeat(self.size, *[1] * (values.ndim - 1))
        self._count(kind, values.numel() * values.element_size() * (self.size - 1))
        self._try(lambda: dist.all_to_all_single(found, given, list(counts), [len(values)] * self.size))
        return found

    def to_owners(self, values: Tensor, counts: Sequence[int], kind: str) -> Tensor:
        """Of values `[sum(counts), ...]`, one rank's rows behind the other's, this one's `[counts[rank], ...]`, summed
        over the values of all ranks, in their order."""
        own = counts[self.rank]
        self.attend()
        found = values.new_empty(self.size * own, *values.shape[1:])
        self._count(kind, (len(values) - own) * values[:1].numel() * values.element_size())
        self._try(lambda: dist.all_to_all_single(found, values.contiguous(), [own] * self.size, list(counts)))
        return found.view(self.size, own, *values.shape[1:]).sum(0)

    def arrays(self, own: np.ndarray, count: int, kind: str) -> np.ndarray:
        """The shares (`bounds`) of all ranks of an array of `count` rows, together."""
        if not self.several:
            return own
        bounds = self.bounds(count)
        counts = [stop - start for start, stop in pairwise(bounds)]
        return self.gather(torch.from_numpy(np.ascontiguousarray(own)), counts, kind).numpy()

    def texts(self, text: str) -> list[str]:
        """A text of every rank."""
        own = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.zeros(0).byte()
        counts = self.table(torch.tensor([float(len(own))]))[:, 0].long().tolist()
        parts = self.gather(own, counts, "texts").split(counts)
        return [part.numpy().tobytes().decode() for part in parts]

    def _count(self, kind: str, sent: int) -> None:
        self.sent[kind] = self.sent.get(kind, 0) + sent

    def _try(self, exchange: Callable[[], Any]) -> None:
        try:
            exchange()
        except RuntimeError as error:  # of whatever carries it
            raise Lost(str(error)) from error


ALONE = World()


class Share(NamedTuple):
    """Samples `start` to `stop` of `total`. weight: 0 where they are another process's, computed along for nothing."""

    world: World
    start: int
    stop: int
    total: int
    weight: float

    @property
    def part(self) -> slice:
        return slice(self.start, self.stop)

    def drawing(self, device: torch.device) -> Any:
        """See `shared`."""
        return shared(self.world, torch.arange(self.start, self.stop, device=device), self.total, self.weight)


class Owners:
    """Which process makes each of some rows `[n]`: the row modulo the number of processes. mine: places among `rows` of
    those that this one makes."""

    def __init__(self, world: World, rows: Tensor) -> None:
        self.world, self.count = world, len(rows)
        of = rows % world.size
        self._order = of.argsort(stable=True)
        self.counts: list[int] = torch.bincount(of, minlength=world.size).tolist()
        self.mine = (of == world.rank).nonzero()[:, 0]

    def gathered(self, own: Tensor, kind: str) -> Tensor:
        """What all have made, `[n, ...]` in the order of the rows; own: what this one made, `[len(mine), ...]`."""
        found = self.world.gather(own, self.counts, kind)
        return torch.empty_like(found).index_copy_(0, self._order, found)

    def returned(self, grad: Tensor, kind: str) -> Tensor:
        """The gradient of what this one made: the sum of those that all have of all rows, `[n, ...]`."""
        return self.world.to_owners(grad[self._order], self.counts, kind)


# ----------------------------------------------------------------------------------------------------- draws of a batch
class _Drawn(NamedTuple):
    """places: of the batch's samples, those that are computed here, `[n]`; total: of how many. weight: see `Share`."""

    world: World
    places: Tensor
    total: int
    weight: float


_drawn: ContextVar[_Drawn | None] = ContextVar("whose samples are drawn for", default=None)


@contextmanager
def shared(world: World, places: Tensor, total: int, weight: float = 1.0) -> Iterator[None]:
    """Inside, torch's global generators draw as if all of a batch's `total` samples were here, and give those at
    `places` theirs: dropout is that of a single process.

    The first dimension of what is drawn goes by samples. Every process draws for all, which is its cost.
    """
    if not world.several:
        yield
        return
    token = _drawn.set(_Drawn(world, places, total, weight))
    try:
        with _Draws():
            yield
    finally:
        _drawn.reset(token)


class _Draws(TorchFunctionMode):
    """Dropout and uniform or normal numbers of the whole batch, cut; other draws are refused."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.dropout:
            return _dropout(*args, **kwargs)
        if func in (torch.rand, torch.randn) and kwargs.get("generator") is None:
            size = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            whole, places = _whole(tuple(size))
            return func(whole, **kwargs)[places.to(kwargs.get("device") or "cpu")]
        if func in REFUSED and kwargs.get("generator") is None:
            name = getattr(func, "__name__", "a draw")
            raise UserError(
                f"the model draws by torch's {name}, which rawrec cannot share between processes: train it in one "
                "process, or let it draw by dropout, torch.rand or torch.randn"
            )
        return func(*args, **kwargs)


REFUSED = {
    torch.rand_like, torch.randn_like, torch.bernoulli, torch.multinomial, torch.randint, torch.randperm, torch.normal,
    Tensor.bernoulli, Tensor.bernoulli_, Tensor.uniform_, Tensor.normal_, Tensor.multinomial, Tensor.exponential_,
    nn.functional.dropout1d, nn.functional.dropout2d, nn.functional.dropout3d, nn.functional.alpha_dropout,
    nn.functional.feature_alpha_dropout, nn.functional.rrelu,
}  # fmt: skip


def _whole(size: tuple[int, ...]) -> tuple[tuple[int, ...], Tensor]:
    """The shape that is drawn for a share's shape, and which of its rows are the share's."""
    found = _drawn.get()
    assert found is not None
    several, rest = divmod(size[0] if size else 0, max(len(found.places), 1))
    if not size or rest:
        raise UserError(
            f"the model draws numbers of the shape {list(size)} for {len(found.places)} samples: what it draws for "
            "several processes goes by samples in its first dimension; train it in one process"
        )
    places = (found.places[:, None] * several + torch.arange(several, device=found.places.device)).flatten()
    return (found.total * several, *size[1:]), places


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or not p:
        return input
    size, places = _whole(tuple(input.shape))
    order = range(input.ndim) if input.is_contiguous() else sorted(range(input.ndim), key=lambda k: -input.stride(k))
    whole = torch.empty_permuted(size, tuple(order), dtype=input.dtype, device=input.device).fill_(1)
    mask = nn.functional.dropout(whole, p, True)[places]
    return input.mul_(mask) if inplace else input * mask


def norms(*values: Tensor) -> Tensor:
    """Frobenius norms over all samples of a batch `[len(values)]`, of which `values`, `[n, ...]` each, are the share:
    parts of them, whose sum over processes is the norm, with its gradient. In one process the norms."""
    found = _drawn.get()
    if found is None:
        return torch.stack([x.norm() for x in values])
    squares = torch.stack([x.square().sum() for x in values]) * found.weight
    whole = found.world.sum(squares.detach().clone(), "norms").sqrt()
    half = squares / (2 * whole.clamp(min=torch.finfo(whole.dtype).tiny))
    return half + half.detach()
