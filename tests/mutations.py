"""Damage to files, by chance but the same for the same seed: bytes, cells of tables, rows, encodings, whole files."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CASES = int(os.environ.get("RAWREC_FUZZ", "4"))
"""Mutated inputs per source and test; of pictures ten times as many."""
SECONDS = 20
TABLES = (".csv", ".tsv", ".txt", ".dat", ".inter", ".item", ".json", ".jsonl", ".ndjson")
CELLS = [
    b"", b" ", b"\0", b"a\0b", b"\xff", b"caf\xe9", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800",
    b"\\u0000", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"9" * 400, b"9" * 5000,
    b"1e400", b"-1e400", b"nan", b"NaN", b"inf", b"-inf", b"-0", b"0x10", b"1_000", b"-1", b"-86400000",
    b"1700000000000", b"1700000000000000", b"1700000000000000000", b"2023-11-14T22:13:20Z", b"2023-11-14 22:13",
    b"9999-99-99", b"0000-00-00T00:00:00", b"true", b"None", b"null", b'"', b'"x"', b'"x', b'x"', b"'", b'a"b', b"\\",
    b"\\\"", b"[", b"{", b"[1,", b"{}", b"[]", b'["a"]', b"::", b",", b"\t", b";", b"|", b"a,b", b"a\tb",
    b"x" * 10_000, b"[" * 2000, b"../../x", b"/etc/passwd", b"&#x110000;", b"<b>", b"\r", b"\n", b"\r\n", b"\x85",
    b"\xe2\x80\xa8", b"\x1c", b"\x1f\x8b", b"%s", b"=1+1", b"\xf0\x9f\x8e\x89",
]  # fmt: skip


def damage(path: Path, chance: random.Random, marker: Path) -> None:
    """Mutate the file at `path`. Code that anything executes on reading it makes the folder `marker`."""
    data = path.read_bytes()
    packed = path.suffix in (".gz", ".tgz") and chance.random() < 0.8
    data = gzip.decompress(data) if packed else data
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        if path.suffixes and (path.suffix in TABLES or (packed and path.suffixes[-2] in TABLES)):
            data = chance.choice([cells, cells, cells, rows, encoding, flips])(data, chance)
        else:
            data = chance.choice([flips, flips, cut, sizes])(data, chance)
    if chance.random() < 0.05:
        call = f"__import__('os').mkdir({str(marker)!r})"
        hostile = [pickle.dumps(_Call(marker)), call.encode(), f"{{'asin': {call}}}\n".encode(), b"", b"\n", b"\0" * 99]
        data = data[: chance.choice([0, len(data)])] + chance.choice(hostile)
    path.write_bytes(gzip.compress(data, 1) if packed else data)


def cases(
    name: str, whole: Path, tmp_path: Path, keep: str = "data", seeds: range = range(CASES)
) -> Iterator[tuple[random.Random, Path]]:
    """Copies of a folder in which some files are damaged, or two have changed places; what is in its folder `keep`
    stays."""
    for seed in seeds:
        chance = random.Random(f"{name} {seed}")
        folder = tmp_path / str(seed)
        shutil.copytree(whole, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and folder / keep not in path.parents)
        tables = [path for path in files if path.suffix not in (".jpg", ".png")]
        for path in chance.sample(tables, min(len(tables), chance.choice([1, 2, 4, len(tables)]))):
            damage(path, chance, tmp_path / "executed")
        if chance.random() < 0.05:
            first, second = chance.sample(files, 2)
            held = first.read_bytes()
            first.write_bytes(second.read_bytes())
            second.write_bytes(held)
        yield chance, folder
        assert not (tmp_path / "executed").exists(), f"seed {seed}: something in a file was executed"
        shutil.rmtree(folder)


class _Call:
    """What makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def flips(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, put in, left out and repeated."""
    result = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(len(result) + 1)
        stop = at + chance.randrange(20)
        piece = chance.choice([chance.choice(CELLS), bytes([chance.randrange(256)]), bytes(result[at:stop]), b""])
        result[at : chance.choice([at, at + 1, stop])] = piece
    return bytes(result)


def cells(data: bytes, chance: random.Random, first: int = 0) -> bytes:
    """One to three cells of the rows from `first` on replaced, or put in or left out."""
    lines = data.split(b"\n")
    for _ in range(chance.choice([1, 1, 2, 3])):
        at = chance.randrange(first, max(len(lines) - 1, first + 1))
        lines[at] = cell(lines[at], chance)
    return b"\n".join(lines)


def cell(line: bytes, chance: random.Random) -> bytes:
    """The row with a cell replaced, put in or left out."""
    between = b", " if line.startswith(b"{") else max((b"::", b"\t", b",", b";"), key=line.count)
    parts = line.split(between)
    at = chance.randrange(len(parts))
    value = chance.choice(CELLS)
    if line.startswith(b"{") and chance.random() < 0.8:
        name, _, old = parts[at].partition(b": ")
        value = name + b": " + chance.choice([value, b'"%s"' % value, b"'%s'" % value, old + value])
    parts[at : at + chance.choice([0, 1, 1, 1, 1])] = [value] if chance.random() < 0.9 else []
    return between.join(parts)


def rows(data: bytes, chance: random.Random) -> bytes:
    """Rows repeated, shuffled, cut off, left out; the header twice, alone or gone."""
    lines = data.splitlines(keepends=True) or [b""]
    at = chance.randrange(len(lines))
    return b"".join(
        chance.choice([
            lambda: lines * 2,
            lambda: chance.sample(lines, len(lines)),
            lambda: lines[:1] + chance.sample(lines[1:], len(lines) - 1),
            lambda: lines[:at],
            lambda: lines[at:],
            lambda: [*lines[:at], lines[0], *lines[at:]],
            lambda: lines[:1],
            lambda: [*lines[:at], lines[at][: len(lines[at]) // 2]],
            lambda: [*lines[:at], b"\n", b" \n", b"\r\n", *lines[at:]],
            lambda: lines[:1] + [lines[at]] * len(lines),
        ])()
    )  # fmt: skip


def encoding(data: bytes, chance: random.Random) -> bytes:
    """Another encoding, other line ends, other separators."""
    text = data.decode(errors="replace")
    return chance.choice([
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-32"),
        lambda: text.encode("utf-8-sig"),
        lambda: b"\xef\xbb\xbf\n" + data,
        lambda: text.replace("a", "é").encode("latin-1", errors="replace"),
        lambda: data.replace(b"\n", b"\r\n"),
        lambda: data.replace(b"\n", b"\r"),
        lambda: data.rstrip(b"\n"),
        lambda: data.replace(b",", b";").replace(b"\t", b"|"),
        lambda: data.replace(b",", b"\t", chance.randrange(20)),
        lambda: b"\n\n" + data,
    ])()  # fmt: skip


def cut(data: bytes, chance: random.Random) -> bytes:
    """The beginning, the end, or the whole without a part."""
    at, stop = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return chance.choice([data[:at], data[at:], data[:at] + data[stop:], data + data, b""])


def sizes(data: bytes, chance: random.Random) -> bytes:
    """Two, four or eight bytes that become a large, a negative or a small number: sizes, offsets, counts."""
    width = chance.choice([2, 4, 8])
    value = chance.choice([2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1, 0, 1, 30_000, 7000])
    at = chance.choice([chance.randrange(len(data) + 1), chance.randrange(min(len(data), 64) + 1)])
    return data[:at] + value.to_bytes(width, chance.choice(["little", "big"])) + data[at + width :]


class Hang(BaseException):
    """A case took longer than `SECONDS`."""


@contextmanager
def limit(seconds: int = SECONDS) -> Iterator[None]:
    """Raises Hang where what is within takes longer."""

    def stop(*_: object) -> None:
        raise Hang(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
