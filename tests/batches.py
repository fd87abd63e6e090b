"""A broker for tests of what publishes: takes record batches as a producer does, and keeps what it acknowledged."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from stream.kafka.ledger import Partition

__all__ = ["Answer", "Broker"]

Answer = Callable[[Partition, Sequence[bytes]], BaseException | None]


class Broker:
    """Takes record batches like a producer does and keeps what it acknowledged; `answer` may refuse a batch."""

    def __init__(self, answer: Answer = lambda _partition, _values: None, *, batch_bytes: int = 10_000) -> None:
        self.answer, self.batch_bytes, self.renewals = answer, batch_bytes, 0
        self.logs: dict[Partition, list[bytes]] = defaultdict(list)
        self.batches: list[int] = []

    @property
    def client(self) -> Broker:
        return self

    async def renew(self, *, close_within_s: float) -> None:
        assert close_within_s > 0
        self.renewals += 1

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(self.batch_bytes, 0, is_transactional=False, key_serializer=None, value_serializer=None)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        batch.close()
        values = [record.value for record in DefaultRecordBatch(bytes(batch._build()))]
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        error = self.answer(Partition(topic, partition), values)
        if error is None:
            self.logs[Partition(topic, partition)] += values
            self.batches.append(len(values))
            future.set_result(None)
        else:
            future.set_exception(error)
        return future
