"""Networks that run in part: no thread sees what another one does, and nothing stays behind in the network."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.content.encoders import make_encoder
from rawrec.content.encoders.base import SideStack, Stack
from rawrec.content.encoders.sequences import SequenceStack
from rawrec.content.encoders.tokens import FastTokenizer
from rawrec.content.encoders.views import answering, noting, twin, view
from rawrec.threads import Mutex

THREADS = 16


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Blocks(nn.Module):
    """A sequence of layers between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x)).mean((2, 3))


class Sequence(SequenceStack):
    def whole(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.model(x)

    def stand_in(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x.new_zeros(1, *self._probe.shape[1:])


def sequence() -> tuple[Stack, list[tuple[Tensor, Tensor | None]]]:
    torch.manual_seed(0)
    pictures = [torch.rand(2, 3, 12, 12) for _ in range(THREADS)]
    return Sequence(Blocks(), "image", (pictures[0], None), "blocks"), [(picture, None) for picture in pictures]


def transformer() -> tuple[Stack, list[tuple[Tensor, Tensor | None]]]:
    stack = make_encoder("text", FieldConfig(encoder="random:bert", max_length=12), 0).stack
    inputs: list[tuple[Tensor, Tensor | None]] = []
    for n in range(THREADS):
        mask = torch.arange(6) < torch.tensor([3 + n % 4, 6])[:, None]
        inputs.append(((torch.arange(12).view(2, 6) * (n + 1) % 90 + 3) * mask, mask))
    return stack, inputs


STACKS: dict[str, Callable[[], tuple[Stack, list[tuple[Tensor, Tensor | None]]]]] = {
    "sequence": sequence,
    "transformer": transformer,
}


def together(works: list[Callable[[], Any]]) -> list[Any]:
    barrier = Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [one.result() for one in [pool.submit(begin, work) for work in works]]


def state_of(module: nn.Module) -> list[Any]:
    """All that a run could leave behind: parts, hooks, methods that were replaced."""
    found = []
    for name, part in module.named_modules():
        hooks = [len(value) for key, value in part.__dict__.items() if "hook" in key and isinstance(value, dict)]
        found.append((name, id(part), sorted(part.__dict__), hooks))
    return found


@pytest.mark.parametrize("name", STACKS)
def test_parts_run_in_threads_as_alone(name: str) -> None:
    stack, inputs = STACKS[name]()
    cut, before = stack.depth // 2, state_of(stack)
    assert 0 < cut < stack.depth and stack.can_split(cut)

    def work(x: Tensor, mask: Tensor | None, kind: int) -> Any:
        with torch.no_grad():
            if kind == 0:
                return stack.run(x, mask, 0, stack.depth)
            if kind == 1:
                return torch.cat([one.flatten() for one in stack.states(x, mask, [1, cut])])
            hidden = stack.run(x, mask, 0, cut)
            return stack.run(hidden, mask, cut, stack.depth)

    works = [lambda x=x, mask=mask, n=n: work(x, mask, n % 3) for n, (x, mask) in enumerate(inputs)]
    alone = [one() for one in works]
    for _ in range(3):
        assert all(map(torch.equal, together(works), alone))
    assert state_of(stack) == before


def test_a_view_has_other_parts_and_the_same_weights() -> None:
    network, found = Blocks(), list[Tensor]()
    first, last = network.blocks[0], network.blocks[3]
    put = {first: answering(first, lambda x: 2 * x), last: noting(last, found)}
    seen, x = view(network, put), torch.rand(1, 3, 12, 12)
    assert torch.equal(seen(x), network.blocks[1:](2 * network.stem(x)).mean((2, 3)))
    assert torch.equal(found[0].mean((2, 3)), seen(x)) and len(found) == 2
    assert seen is not network and seen.stem is network.stem and network.blocks[0] is first
    assert [id(p) for p in seen.blocks[3].parameters()] == [id(p) for p in last.parameters()]
    network(x)
    assert len(found) == 2 and view(network, {}) is network
    seen(x).sum().backward()
    assert first[0].weight.grad is None and last[0].weight.grad is not None  # pyright: ignore[reportIndexIssue]
    assert isinstance(twin(network), Blocks)


def test_side_networks_read_states_in_threads() -> None:
    encoder = make_encoder("text", FieldConfig(encoder="random:bert", max_length=12, train="side:2"), 0)
    assert isinstance(encoder.stack, SideStack)
    texts = [[["a red mug"], [f"lamp {n} of wool"]] for n in range(THREADS)]
    works = [lambda one=one: encoder.encode(one).detach() for one in texts]
    alone = [one() for one in works]
    assert all(map(torch.equal, together(works), alone))


def test_texts_are_cut_in_threads_as_alone() -> None:
    words = {f"w{n}": n for n in range(50)} | {"[UNK]": 50}
    library = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = FastTokenizer(library)
    texts = [" ".join(f"w{(n * k) % 50}" for k in range(30)) for n in range(THREADS)]
    works = [lambda n=n: [tokenizer(texts[n:], 3 + n % 5) for _ in range(50)] for n in range(THREADS)]
    assert together(works) == [one() for one in works]
    assert tokenizer(["w1 w2 w3 w4"], 3) == ([[1, 2, 3]], [True])
    before = tokenizer.words()
    assert tokenizer(["w1 w2 w3 w4"], 2) == ([[1, 2]], [True]) and tokenizer.words() == before
    assert copy.deepcopy(tokenizer)(["w1 w2"], 1) == pickle.loads(pickle.dumps(tokenizer))(["w1 w2"], 1)


def test_a_copy_of_a_mutex_is_free() -> None:
    mutex = Mutex()
    with mutex:
        for other in (copy.deepcopy(mutex), pickle.loads(pickle.dumps(mutex)), Mutex()):
            with other:
                pass
