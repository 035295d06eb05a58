"""The log in a topic of Kafka, on the cluster that its library simulates."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from log_mixin import LogTests

from rawrec.errors import UserError
from rawrec.stream.log import Log, open_log

kafka = pytest.importorskip("confluent_kafka", reason="the log of Kafka needs confluent-kafka")


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    """The cluster lives as long as the client that made it."""
    made: Any = kafka.Producer({"bootstrap.servers": "here", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = made.list_topics(timeout=20).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    made.flush(1)


class TestKafka(LogTests):
    trims = False  # the simulated cluster knows no deletion of records

    @pytest.fixture
    def url(self, servers: str) -> str:
        return f"kafka://{servers}/{secrets.token_hex(6)}"

    def test_what_another_program_appended_has_its_place_for_an_id(self, log: Log, url: str, servers: str) -> None:
        other: Any = kafka.Producer({"bootstrap.servers": servers, "log_level": 0})
        other.produce(url.rpartition("/")[2], b"data", partition=0)
        other.flush(20)
        assert [tuple(record) for record in log.read(0)] == [(1, "kafka", 0, b"data")]


def test_mistakes_are_told(servers: str) -> None:
    with pytest.raises(UserError, match="name a topic"):
        open_log(f"kafka://{servers}")
