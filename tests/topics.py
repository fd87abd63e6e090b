"""What is in a topic now, for tests that look at all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka import ConsumerRecord

from stream.kafka.clients import open_admin, open_producer
from stream.kafka.ledger import Partition
from stream.kafka.reading import open_reader, read, snapshot
from stream.settings import Settings

__all__ = ["Records", "Sent", "records_of", "send"]

Records = dict[int, list[ConsumerRecord]]
"""By partition number, in the order of their offsets."""
Sent = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Partition, key, value and headers of a record to write."""


def records_of(settings: Settings, topic: str) -> Records:
    """Every record that is in a topic now."""
    admin = open_admin(settings)
    try:
        bounds = snapshot(admin, settings, topic)
    finally:
        admin.close()

    async def read_all() -> Records:
        async with open_reader(settings) as reader:
            return {
                number: [record async for some in read(reader, Partition(topic, number), [ends]) for record in some]
                for number, ends in bounds.items()
            }

    return asyncio.run(read_all())


def send(settings: Settings, topic: str, records: Iterable[Sent]) -> None:
    """Write records in order, and wait until they are there."""
    producer = open_producer(settings, linger_ms=5, max_request_size=20_000_000)
    sent = [
        # The client sends nothing that has neither key nor value; an empty key is a key.
        producer.send(
            topic, key=b"" if key is None and value is None else key, value=value, headers=headers, partition=partition
        )
        for partition, key, value, headers in records
    ]
    for future in sent:
        future.get(timeout=60)
    producer.close()
