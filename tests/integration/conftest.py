"""Fixtures for tests on the shared broker: topics that exist, and a way to write to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest

from stream.kafka import topics
from stream.kafka.clients import open_producer
from stream.settings import Settings

Record = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
Write = Callable[[str, int, Iterable[Record]], None]


@pytest.fixture
def created(kafka_settings: Settings) -> Settings:
    """Settings whose topics exist, with two partitions each."""
    settings = kafka_settings.model_copy(update={"partitions": 2})
    topics.create(settings)
    return settings


@pytest.fixture
def write(kafka_settings: Settings) -> Iterator[Write]:
    """Write records (key, value, headers) to a partition of a topic, in order, and wait until they are there."""
    producer = open_producer(kafka_settings, max_request_size=10_000_000)

    def send(topic: str, partition: int, records: Iterable[Record]) -> None:
        sent = [
            producer.send(topic, key=key, value=value, headers=headers, partition=partition)
            for key, value, headers in records
        ]
        for future in sent:
            future.get(timeout=30)

    yield send
    producer.close()
