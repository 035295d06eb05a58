"""Texts to tokens: order, special tokens, cuts that are counted, odd strings."""

import time

from rawrec.data.texts import HashTokenizer, join, tokenise


def test_join():
    assert join([" a ", "", "  ", "b\0c"]) == "a\nbc"
    assert join([]) == ""
    assert join(["x\ud800y", "\U0001f600"]) == "xy\n\U0001f600"


def test_tokens_keep_their_text():
    tokens, truncated = tokenise(HashTokenizer(1000), ["one two", "", "three", "   ", "one"], 8)
    assert tokens.lengths.tolist() == [4, 0, 3, 0, 3]
    assert tokens.values.dtype.__str__() == "torch.int32"
    assert truncated.tolist() == [0] * 5
    assert tokens.values[0] == 1 and tokens.values[3] == 2
    assert tokens.values[1] == tokens.values[-2]  # the same word has the same id
    assert int(tokens.values.max()) < 1000


def test_cuts_are_counted():
    tokens, truncated = tokenise(HashTokenizer(1000), ["a b c d e f", "a b", "a b c"], 5)
    assert tokens.lengths.tolist() == [5, 4, 5]
    assert truncated.tolist() == [1, 0, 0]
    assert tokens.values[4] == 2  # the end token survives the cut


def test_long_texts_are_quick():
    texts = ["word " * 20_000] * 50 + ["x" * 100_000]
    start = time.perf_counter()
    tokens, truncated = tokenise(HashTokenizer(1000), texts, 64)
    assert time.perf_counter() - start < 1
    assert truncated.tolist() == [1] * 51
    assert tokens.lengths[0] == 64


def test_nothing():
    tokens, truncated = tokenise(HashTokenizer(10), [], 8)
    assert len(tokens) == len(truncated) == 0
    tokens, truncated = tokenise(HashTokenizer(10), ["", ""], 8)
    assert tokens.lengths.tolist() == [0, 0]
