"""`import huggingface` by the name of a dataset, from a hub that this test plays on a port of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("datasets")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves datasets by name as the hub does, all of one commit; shop/gated is gated, others do not exist."""

    datasets: dict[str, dict[str, bytes]]
    asked: list[str]

    def log_message(self, *words: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        name = "/".join(path.split("/datasets/")[-1].split("/")[:2])
        files = self.datasets.get(name, {})
        file = path.partition("/resolve/")[2].partition("/")[2]
        if name == "shop/gated":
            self.answer(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask for access"})
        elif f"{name}/tree/" in path:
            self.answer(200, json.dumps(listed(files, path.split(COMMIT)[1].strip("/"))).encode())
        elif path.startswith("/api/datasets/") and files:
            siblings = [{"rfilename": file} for file in files]
            self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
        elif file in files:
            self.answer(200, files[file], {"ETag": f'"{hashlib.sha1(files[file]).hexdigest()}"'})
        else:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound" if files else "RepoNotFound"})

    def answer(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def listed(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    """The files and folders that lie directly in a folder."""
    start = f"{folder}/" if folder else ""
    inside = [name for name in files if name.startswith(start)]
    folders = {start + name.removeprefix(start).split("/")[0] for name in inside if "/" in name.removeprefix(start)}
    found = [{"type": "directory", "path": name, "oid": "0", "size": 0} for name in sorted(folders)]
    return found + [
        {"type": "file", "path": name, "oid": hashlib.sha1(files[name]).hexdigest(), "size": len(files[name])}
        for name in inside
        if "/" not in name.removeprefix(start)
    ]


def parquet(**columns: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


CARD = """---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/train-*.parquet
  - split: test
    path: small/test-*.parquet
- config_name: large
  data_files: large/*.parquet
---
"""
OUTSIDE = f"""---
configs:
- config_name: default
  data_files: hf://datasets/shop/clicks@{COMMIT}/large/0.parquet
---
"""
WORK = """
import json, sys
from rawrec.sources.huggingface import import_huggingface
from rawrec.errors import UserError
for number, name in enumerate(sys.argv[1:]):
    try:
        data = import_huggingface(name, "user", "item", out=str(number), progress=False)
        notes = json.loads((data.path / "import.json").read_text())["notes"]
        said = {"items": data.item_ids[data.items].tolist(), "split": data.split().tolist(), "notes": notes}
    except UserError as error:
        said = str(error)
    print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    Hub.asked = []
    Hub.datasets = {
        "shop/clicks": {
            "README.md": CARD.encode(),
            "small/train-0.parquet": parquet(user=[1, 1, 2], item=["a", "b", "a"]),
            "small/test-0.parquet": parquet(user=[2], item=["b"]),
            "large/0.parquet": parquet(user=[1, 2, 3, 4], item=["a", "b", "c", "d"]),
        },
        "shop/outside": {"README.md": OUTSIDE.encode()},
        "shop/script": {"README.md": b"# Made by a script", "script.py": b"raise SystemExit"},
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def imported(folder: Path, endpoint: str, *names: str, **more: str) -> list[Any]:
    """What comes of each dataset, in a process of its own: the library reads where its hub is when it is imported."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WORK, *names], capture_output=True, text=True, env=os.environ | own | more, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


GOOD = ("shop/clicks:small", "shop/clicks:small@train", "shop/clicks:small@train")
BAD = ("shop/clicks", "shop/clicks:tiny", "shop/clicks:small@dev", "shop/gated", "shop/absent", "shop/script")


@pytest.fixture(scope="module")
def said(hub: str, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What comes of all of them."""
    return imported(tmp_path_factory.mktemp("said"), hub, *GOOD, *BAD, "shop/outside")


def test_datasets_by_name(said: list[Any]) -> None:
    small, train, again, *_ = said
    assert (small["items"], small["split"]) == (["a", "b", "a", "b"], [0, 0, 0, 2])
    assert small["notes"] == [f"shop/clicks:small is of revision {COMMIT}"]
    assert train["items"] == ["a", "b", "a"] and train == again
    got = [request.rpartition("/")[2] for request in Hub.asked if request.startswith("GET") and "/resolve/" in request]
    assert [name for name in got if name.endswith(".parquet")] == ["train-0.parquet", "test-0.parquet"]


def test_what_cannot_be_imported_by_name(hub: str, said: list[Any], tmp_path: Path) -> None:
    for text, words in zip(
        said[len(GOOD) :],
        [
            "has several configs: name one, as in shop/clicks:small. It has: small, large",
            "has no config 'tiny'. It has: small, large",
            "has no split 'dev'. It has: train, test",
            "is gated: ask for access at https://huggingface.co/datasets/shop/gated",
            "is no folder, and not on the hub or private",
            "is made by a script, which is not executed",
            "Data files don't belong to shop/outside",
        ],
        strict=True,
    ):
        assert words in text
    assert "cannot be reached" in imported(tmp_path, hub, "shop/clicks", HF_HUB_OFFLINE="1")[0]
