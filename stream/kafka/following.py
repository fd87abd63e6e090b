"""Following a topic: its records as they arrive, for a person who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Protocol

from aiokafka.structs import TopicPartition

from stream.events import SourceRecord
from stream.kafka.clients import open_admin
from stream.kafka.reading import open_reader, partitions
from stream.settings import Settings

__all__ = ["TopicRecord", "follow"]

# Long enough not to spin on an idle topic, short enough for Ctrl-C to feel immediate.
POLL_MS = 500


class TopicRecord(SourceRecord, Protocol):
    """A record with its partition."""

    @property
    def partition(self) -> int:
        """Number of the partition it is in."""


def follow(settings: Settings, topic: str, *, from_beginning: bool) -> Generator[TopicRecord, None, None]:
    """Yield the records of all partitions, for ever, in the order of arrival within each partition.

    Raises `BrokerError` when the topic does not exist or the cluster does not answer.
    """
    admin = open_admin(settings)
    try:
        numbers = range(partitions(admin, settings, topic))
    finally:
        admin.close()
    fetches = _fetches(settings, [TopicPartition(topic, number) for number in numbers], from_beginning=from_beginning)

    async def fetched() -> Sequence[TopicRecord]:
        return await anext(fetches)

    with asyncio.Runner() as runner:
        try:
            while True:
                yield from runner.run(fetched())
        finally:
            runner.run(_close(fetches))


async def _fetches(
    settings: Settings, followed: Sequence[TopicPartition], *, from_beginning: bool
) -> AsyncGenerator[Sequence[TopicRecord], None]:
    async with open_reader(settings) as consumer:
        consumer.assign(followed)
        await (consumer.seek_to_beginning if from_beginning else consumer.seek_to_end)()
        while True:
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                yield records


async def _close(fetches: AsyncGenerator[Sequence[TopicRecord], None]) -> None:
    await fetches.aclose()
