"""Damaged files of every source that is a text: nothing but a `UserError`, and no half-written dataset."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.importers.amazon import import_amazon
from rawrec.data.importers.mmrec import import_mmrec
from rawrec.data.importers.recbole import import_recbole
from rawrec.errors import UserError

TIMES = range(10**9, 10**9 + 30)
PRODUCT = {"description": ["x", "y"], "categories": [["p", "q"]], "images": [{"hi_res": "http://x/1"}], "details": {}}
FILES = {
    "reviews": "\n".join(
        json.dumps({"reviewerID": f"u{t % 7}", "asin": f"a{t % 5}", "overall": t % 5, "unixReviewTime": t})
        for t in TIMES
    ),
    "ratings": "\n".join(f"u{t % 7},a{t % 5},{t % 5},{t}" for t in TIMES),
    "meta": "\n".join(
        (repr if i % 2 else json.dumps)({"asin": f"a{i}", "title": f"<b>{i}"} | PRODUCT) for i in range(6)
    ),
    "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\tx:token_seq\n"
    + "".join(f"u{t % 7}\ta{t % 5}\t{t % 5}\t{t}\tq r\n" for t in TIMES),
    "item": "item_id:token\tt:token_seq\tg:token_seq\tp:float\tv:float_seq\n"
    + "".join(f"a{i}\tx y\tp q\t{i}\t1 2 {i}\n" for i in range(6)),
    "mmrec": "userID\titemID\tx_label\n" + "".join(f"{t % 7}\t{t % 5}\t{t % 3}\n" for t in TIMES),
    "names": "asin\titemID\n" + "".join(f"a{i}\t{i}\n" for i in range(5)),
}
PIECES = [b"\0", b"\xff", b'"', b"'", b"\n", b"\r", b"\t", b"{", b"}", b"[", b",", b":", b"nan", b"None", b"null", b" "]
PIECES += [
    b"-9223372036854775809",
    b"1e400",
    b"\\ud800",
    b"\\",
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
    b"9" * 400,
    b"&#x110000;",
]


def damaged(name: str, chance: random.Random) -> bytes:
    data = bytearray(FILES[name].encode())
    for _ in range(chance.choice([1, 2, 5, 20])):
        start = chance.randrange(len(data) + 1)
        stop = start + chance.randrange(20)
        kind = chance.randrange(4)
        piece = chance.choice(PIECES)
        data[start : stop if kind == 0 else start] = [piece, bytes([chance.randrange(256)]), bytes(data[start:stop])][
            kind % 3
        ]
        if kind == 3:
            del data[start:stop]
    return bytes(data)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_files(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    written = {
        name: tmp_path / place
        for name, place in {
            "reviews": "r.json", "ratings": "r.csv", "meta": "m.json", "inter": "x/x.inter", "item": "x/x.item",
            "mmrec": "y/y.inter", "names": "y/i_id_mapping.csv",
        }.items()
    }  # fmt: skip
    for name, path in written.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damaged(name, chance))
    imports = [
        lambda out: import_amazon(written["reviews"], written["meta"], out=out, k_core=2, progress=False),
        lambda out: import_amazon(written["ratings"], written["meta"], out=out, positive=3, progress=False),
        lambda out: import_recbole(tmp_path / "x", out=out, text=["t"], progress=False),
        lambda out: import_mmrec(tmp_path / "y", out=out, progress=False),
    ]
    for i, run in enumerate(imports):
        out = tmp_path / f"out{i}"
        try:
            assert run(out).n_interactions > 0
            Dataset.open(out).fingerprint()
        except UserError as error:
            assert "\n" not in str(error).strip() and not out.exists()
