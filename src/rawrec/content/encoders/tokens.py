"""Tokenizers of the transformers library, and what some encoders do to a text before and after them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rawrec.data.texts import Tokenizer
from rawrec.errors import UserError
from rawrec.reading import first_line
from rawrec.threads import Mutex

Ids = tuple[list[list[int]], list[bool]]


@dataclass(frozen=True)
class Words:
    """How a text becomes token ids. max_length: of them are kept, special tokens included."""

    tokenizer: Tokenizer
    max_length: int


@contextmanager
def readable() -> Iterator[None]:
    """Whatever a tokenizer of a library raises over a text, such as one without a token for words that it does not
    know, as a UserError."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"its tokenizer cannot read every text: {first_line(error)}; copy all its files from where its weights "
            "come from"
        ) from None


class FastTokenizer:
    """A tokenizer of the tokenizers library, with its special tokens.

    Where texts are cut is a state of the library's object, which must not change while another thread is in it: for
    each length there is one of its own, the first of which is `backend`.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        backend.no_padding()
        backend.no_truncation()
        self.identity = hashlib.sha256(backend.to_str().encode()).hexdigest()
        self._cutting: dict[int, Any] = {}
        self._one = Mutex()

    def __call__(self, texts: list[str], max_length: int) -> Ids:
        backend = self._cutting.get(max_length) or self._cutting_at(max_length)
        with readable():
            encodings = backend.encode_batch(texts)
        return [e.ids for e in encodings], [bool(e.overflowing) for e in encodings]

    def words(self) -> str:
        """What the library keeps in a file of it."""
        made = type(self.backend).from_str(self.backend.to_str())
        made.no_truncation()
        return made.to_str()

    def _cutting_at(self, max_length: int) -> Any:
        with self._one:
            if max_length not in self._cutting:
                made = type(self.backend).from_str(self.backend.to_str()) if self._cutting else self.backend
                made.enable_truncation(max_length)
                self._cutting[max_length] = made
            return self._cutting[max_length]


class SlowTokenizer:
    """A tokenizer of transformers that is written in Python, with its special tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        words = json.dumps(
            [type(tokenizer).__name__, repr(tokenizer.init_kwargs), tokenizer.get_vocab()], sort_keys=True
        )
        self.identity = hashlib.sha256(words.encode()).hexdigest()

    def __call__(self, texts: list[str], max_length: int) -> Ids:
        with readable():
            kept = self.tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
            longer = self.tokenizer(texts, truncation=True, max_length=max_length + 1)["input_ids"]
        return kept, [len(one) > max_length for one in longer]


class Cleaned:
    """Texts are changed by `clean` before they are cut into tokens; it has a name that stands for what it does."""

    def __init__(self, tokenizer: Tokenizer, clean: Callable[[str], str]) -> None:
        self.tokenizer, self.clean = tokenizer, clean
        self.identity = f"{clean.__name__}({tokenizer.identity})"

    def __call__(self, texts: list[str], max_length: int) -> Ids:
        return self.tokenizer([self.clean(text) for text in texts], max_length)


class CutAtEnd:
    """What stands after the first end token is cut off: the feature is read there, and no token sees a later one.

    end: its id; None: the highest id of the text counts as one.
    """

    def __init__(self, tokenizer: Tokenizer, end: int | None) -> None:
        self.tokenizer, self.end = tokenizer, end
        self.identity = f"cut({end}, {tokenizer.identity})"

    def __call__(self, texts: list[str], max_length: int) -> Ids:
        ids, over = self.tokenizer(texts, max_length)
        kept = [one[: one.index(max(one) if self.end is None else self.end) + 1] for one in ids]
        return kept, [cut or len(a) < len(b) for cut, a, b in zip(over, kept, ids, strict=True)]


class Filled:
    """Texts are filled up to `length` tokens with `pad`, at the left or the right, and padding counts as text."""

    def __init__(self, tokenizer: Tokenizer, length: int, pad: int, left: bool) -> None:
        self.tokenizer, self.length, self.pad, self.left = tokenizer, length, pad, left
        self.identity = f"fill({length}, {pad}, {left}, {tokenizer.identity})"

    def __call__(self, texts: list[str], max_length: int) -> Ids:
        ids, over = self.tokenizer(texts, max_length)
        fill = [[self.pad] * (self.length - len(one)) for one in ids]
        return [f + one if self.left else one + f for one, f in zip(ids, fill, strict=True)], over
