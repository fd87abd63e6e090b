"""Following a topic: its records as they arrive, for a person who watches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from kafka import TopicPartition

from stream.errors import BrokerError
from stream.events import SourceRecord
from stream.kafka.clients import broker_errors, open_consumer
from stream.settings import Settings

__all__ = ["TopicRecord", "follow"]

# Long enough not to spin on an idle topic, short enough for Ctrl-C to feel immediate.
POLL_MS = 500


class TopicRecord(SourceRecord, Protocol):
    """A record with its partition."""

    @property
    def partition(self) -> int:
        """Number of the partition it is in."""


def follow(settings: Settings, topic: str, *, from_beginning: bool) -> Iterator[TopicRecord]:
    """Yield the records of all partitions, for ever, in the order of arrival within each partition.

    Raises `BrokerError` when the topic does not exist or the cluster does not answer.
    """
    consumer = open_consumer(settings)
    try:
        with broker_errors(settings):
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                raise BrokerError(f"there is no topic {topic} at {settings.bootstrap_servers}")
            consumer.assign([TopicPartition(topic, number) for number in sorted(numbers)])
            seek = consumer.seek_to_beginning if from_beginning else consumer.seek_to_end
            seek()
            while True:
                for records in consumer.poll(timeout_ms=POLL_MS).values():
                    yield from records
    finally:
        consumer.close()
