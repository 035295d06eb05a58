"""A log in a topic of Kafka: `kafka://HOST:PORT/TOPIC`, its partition 0, by assignment and seeking, without a group.

Position n is the offset n - 1. Kafka knows no ids: an event that is appended twice is there twice, and who reads leaves
the second one out, as the online trainer does. Dead letters are in the topic `TOPIC.dead`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from rawrec.errors import UserError
from rawrec.extras import need
from rawrec.stream.log import AT_ONCE, Appended, Entry, Letter, Log, Record, trimmed

PATIENCE = 30.0
"""Seconds that the brokers have to answer."""


class KafkaLog(Log):
    """Appends wait for all replicas in sync. The topic should keep what readers need (`retention.ms=-1`)."""

    keeps_ids = False

    def __init__(self, url: str, create: bool = True) -> None:
        self._kafka: Any = need("confluent_kafka", f"{url} is a log of Kafka")
        parts = urlsplit(url)
        self.url, self.topic = url, parts.path.strip("/")
        if not self.topic or "/" in self.topic or not parts.netloc:
            raise UserError(f"{url}: name a topic, as kafka://localhost:9092/events")
        servers = {"bootstrap.servers": parts.netloc, "log_level": 0}
        reading = {"group.id": "rawrec", "enable.auto.commit": False, "auto.offset.reset": "error"}
        self._consumer: Any = self._kafka.Consumer(servers | reading)
        self._producer: Any = self._kafka.Producer(servers | {"enable.idempotence": True, "message.max.bytes": 1 << 25})
        self._servers, self._at = servers, -1
        there = self._topics()
        if self.topic not in there:
            if not create:
                raise UserError(f"{url}: there is no topic {self.topic}")
            self._make(self.topic)

    def _topics(self) -> set[str]:
        try:
            return set(self._consumer.list_topics(timeout=PATIENCE).topics)
        except self._kafka.KafkaException as error:
            raise UserError(f"{self.url} cannot be reached: {_said(error)}") from None

    def _make(self, topic: str) -> None:
        """Brokers make a topic when it is asked for, unless they are told not to; then this does."""
        for _ in range(2):
            found = self._producer.list_topics(topic, timeout=PATIENCE).topics[topic]
            if found.error is None and found.partitions:
                return
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        admin: Any = AdminClient(self._servers)  # which must live until it was answered
        try:
            admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(PATIENCE)
        except self._kafka.KafkaException as error:
            if error.args[0].code() != self._kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                raise UserError(f"{self.url}: the topic {topic} cannot be made: {_said(error)}") from None

    def append_raw(self, entries: Sequence[Entry]) -> Appended:
        offsets = [
            self._send(self.topic, one.data, [("producer", one.producer.encode()), ("sequence", b"%d" % one.sequence)])
            for one in entries
        ]
        self._flush()
        failed = next((found[0] for found in offsets if not isinstance(found[0], int)), None)
        if failed is not None:
            raise UserError(f"{self.url}: an event was not taken: {failed}")
        return Appended(offsets[-1][0] + 1 if offsets else self.end(), len(entries), 0)

    def _send(self, topic: str, data: bytes, headers: list[tuple[str, bytes]]) -> list[Any]:
        """A list that holds the offset when it was delivered, or what went wrong."""
        told: list[Any] = [None]

        def delivered(error: Any, message: Any) -> None:
            told[0] = error if error is not None else message.offset()

        try:
            self._producer.produce(topic, data, partition=0, headers=headers, on_delivery=delivered)
        except (BufferError, self._kafka.KafkaException) as error:
            raise UserError(f"{self.url}: an event was not taken: {error}") from None
        self._producer.poll(0)
        return told

    def _flush(self) -> None:
        if self._producer.flush(PATIENCE):
            raise UserError(f"{self.url}: the brokers have not answered within {PATIENCE:.0f} s")

    def read(self, after: int, count: int = AT_ONCE) -> list[Record]:
        first, end = self._bounds(self.topic)
        if after < first:
            raise trimmed(self.url, after, first)
        found = self._read(self.topic, after, min(end, after + count)) if after < end else []
        return [_record(message) for message in found]

    def _read(self, topic: str, after: int, end: int) -> list[Any]:
        """Messages at the offsets from `after` to below `end`."""
        if self._at != after or topic != self.topic:
            self._consumer.assign([self._kafka.TopicPartition(topic, 0, after)])
        found: list[Any] = []
        until = time.monotonic() + PATIENCE
        while after + len(found) < end and time.monotonic() < until:
            for message in self._consumer.consume(min(end - after - len(found), 1000), timeout=1.0):
                if message.error():
                    raise UserError(f"{self.url}: {message.error()}")
                found.append(message)
            if found and found[-1].offset() + 1 >= end:  # offsets may have gaps
                break
        self._at = found[-1].offset() + 1 if found and topic == self.topic else -1
        return found

    def _bounds(self, topic: str) -> tuple[int, int]:
        try:
            return self._consumer.get_watermark_offsets(self._kafka.TopicPartition(topic, 0), timeout=PATIENCE)
        except self._kafka.KafkaException as error:
            raise UserError(f"{self.url} cannot be reached: {_said(error)}") from None

    def trim(self, position: int) -> None:
        from confluent_kafka.admin import AdminClient

        position = min(position, self.end())
        where = self._kafka.TopicPartition(self.topic, 0, position)
        admin: Any = AdminClient(self._servers)
        try:
            next(iter(admin.delete_records([where]).values())).result(PATIENCE)
        except self._kafka.KafkaException as error:
            raise UserError(f"{self.url} cannot be trimmed: {_said(error)}") from None

    def end(self) -> int:
        return self._bounds(self.topic)[1]

    def bury(self, letter: Letter) -> None:
        if f"{self.topic}.dead" not in self._topics():
            self._make(f"{self.topic}.dead")
        self._send(f"{self.topic}.dead", json.dumps(letter._asdict()).encode(), [])
        self._flush()

    def dead(self) -> list[Letter]:
        if (topic := f"{self.topic}.dead") not in self._topics():
            return []
        first, end = self._bounds(topic)
        found = [Letter(**json.loads(message.value())) for message in self._read(topic, first, end)]
        return sorted(dict.fromkeys(found))

    def close(self) -> None:
        self._consumer.close()


def _record(message: Any) -> Record:
    headers = dict(message.headers() or [])
    producer, sequence = headers.get("producer", b"").decode(), int(headers.get("sequence", b"-1"))
    if sequence < 0:  # appended by another program: its place is its id
        producer, sequence = "kafka", message.offset()
    return Record(message.offset() + 1, producer, sequence, message.value() or b"")


def _said(error: Any) -> str:
    return error.args[0].str() if hasattr(error.args[0], "str") else str(error)
