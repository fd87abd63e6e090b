"""The publisher: nothing is acknowledged before the broker acknowledged it, and a refused record stops nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from aiokafka.producer.message_accumulator import BatchBuilder

from stream.errors import BrokerError
from stream.kafka.ledger import Partition
from stream.kafka.publisher import Delivery, Load, OutRecord, Publisher
from tests.batches import Broker

DECISIONS, REVIEW = Partition("content.decisions", 0), Partition("content.review", 0)
LETTERS = Partition("content.dead-letter", 0)
Refusal = tuple[Partition, int, OutRecord]


class SlowBroker(Broker):
    """Answers a round when the next one is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived, self._answer = asyncio.Event(), asyncio.Event()

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        self._arrived.set()
        await self._answer.wait()
        self._answer.clear()
        return await super().send_batch(batch, topic, partition=partition)

    async def next_round(self) -> None:
        """Let the round under way end, and wait until the next one has begun."""
        if self._arrived.is_set():
            self._answer.set()
        self._arrived.clear()
        async with asyncio.timeout(5):
            await self._arrived.wait()


def load(*values: str) -> Load:
    records: list[OutRecord] = [(b"key", value.encode(), []) for value in values]
    return Load(records, range(len(values)))


async def published(
    broker: Broker,
    *units: dict[Partition, Load],
    replace: Sequence[str] = (),
    refusals: list[Refusal] | None = None,
) -> list[int]:
    """Publish units of work until all are done; return the numbers of the units in the order they were done.

    What is refused is replaced by the values of `replace`, one after the other, and kept in `refusals`.
    """
    done: list[int] = []
    refusals = [] if refusals is None else refusals
    publisher = Publisher(lambda: broker, on_round=lambda _records, _seconds: None)

    def refused(destination: Partition, source: int, output: OutRecord) -> tuple[Partition, OutRecord]:
        refusals.append((destination, source, output))
        return LETTERS, (b"key", replace[len(refusals) - 1].encode(), [])

    task = asyncio.create_task(publisher.run())
    for number, unit in enumerate(units):
        publisher.put(Delivery(lambda number=number: done.append(number), refused), unit)  # type: ignore[misc]
    try:
        async with asyncio.timeout(5):
            while len(done) < len(units) and not task.done():
                await asyncio.sleep(0)
    finally:
        task.cancel()
    if task.done() and not task.cancelled() and (error := task.exception()):
        raise error
    return done


def test_a_unit_is_done_when_every_output_is_acknowledged() -> None:
    """Outputs for several destinations are all written before the unit counts as done."""
    broker = Broker()
    done = asyncio.run(published(broker, {DECISIONS: load("a", "b"), REVIEW: load("b'")}))
    assert done == [0]
    assert broker.logs == {DECISIONS: [b"a", b"b"], REVIEW: [b"b'"]}


def test_a_unit_without_outputs_is_done_at_once() -> None:
    """A unit that has nothing to say is acknowledged without a round trip."""
    assert asyncio.run(published(Broker(), {DECISIONS: Load([], [])})) == [0]


def test_what_is_finished_leaves_together() -> None:
    """Units that finished before a round leave as one batch per partition, in order."""
    broker = Broker()
    asyncio.run(published(broker, *({DECISIONS: load(str(n))} for n in range(50))))
    assert broker.logs[DECISIONS] == [str(n).encode() for n in range(50)]
    assert broker.batches == [50]


def test_a_full_batch_continues_in_the_next_round() -> None:
    """More than a batch holds is written in several, in order and without loss."""
    broker = Broker(batch_bytes=200)
    asyncio.run(published(broker, {DECISIONS: load(*(f"value {n}" for n in range(40)))}))
    assert broker.logs[DECISIONS] == [f"value {n}".encode() for n in range(40)]
    assert len(broker.batches) > 1


def test_a_failed_round_is_sent_again_by_a_new_producer() -> None:
    """After a timeout nothing is acknowledged, the producer is replaced and the same records are sent again."""
    failures = [KafkaTimeoutError(), KafkaTimeoutError()]
    broker = Broker(lambda _partition, _values: failures.pop() if failures else None)
    assert asyncio.run(published(broker, {DECISIONS: load("a", "b")})) == [0]
    assert broker.logs[DECISIONS] == [b"a", b"b"]
    assert broker.renewals == 2


def test_one_partition_that_fails_does_not_write_another_twice() -> None:
    """Only what was not acknowledged is sent again."""
    failures = [KafkaTimeoutError()]
    broker = Broker(lambda partition, _values: failures.pop() if partition == REVIEW and failures else None)
    asyncio.run(published(broker, {DECISIONS: load("a"), REVIEW: load("r")}))
    assert broker.logs == {DECISIONS: [b"a"], REVIEW: [b"r"]}


@pytest.mark.parametrize("position", range(7))
def test_a_refused_record_is_replaced_and_its_neighbours_are_written(position: int) -> None:
    """Wherever the refused record stands, every other is written in order and a substitute goes where it is told."""
    values = [f"value {n}" for n in range(7)]
    bad = values[position].encode()
    broker = Broker(lambda _partition, batch: MessageSizeTooLargeError() if bad in batch else None)
    units = ({DECISIONS: load(*values[:3])}, {DECISIONS: load(*values[3:])})
    assert sorted(asyncio.run(published(broker, *units, replace=["sorry"]))) == [0, 1]
    assert broker.logs[DECISIONS] == [v.encode() for v in values if v.encode() != bad]
    assert broker.logs[LETTERS] == [b"sorry"]


def test_what_takes_the_place_of_a_refused_record_answers_the_same_one() -> None:
    """Where the substitute is refused as well, it is asked about under its own destination and for the same input."""
    broker = Broker(lambda _partition, batch: MessageSizeTooLargeError() if {b"b", b"large"} & set(batch) else None)
    refusals: list[Refusal] = []
    unit = {DECISIONS: load("a", "b", "c")}
    assert asyncio.run(published(broker, unit, replace=["large", "small"], refusals=refusals)) == [0]
    assert refusals == [(DECISIONS, 1, (b"key", b"b", [])), (LETTERS, 1, (b"key", b"large", []))]
    assert broker.logs == {DECISIONS: [b"a", b"c"], LETTERS: [b"small"]}


def test_a_broker_that_lets_us_write_nothing_is_a_persons_business() -> None:
    """A missing permission is not tried again for ever; it says what to grant."""
    broker = Broker(lambda _partition, _values: TopicAuthorizationFailedError())
    with pytest.raises(BrokerError, match="grant Write"):
        asyncio.run(published(broker, {DECISIONS: load("a")}))


def test_abandoned_work_is_never_acknowledged() -> None:
    """What was queued when the partitions were lost is dropped, not published."""

    async def abandoned() -> list[int]:
        done: list[int] = []
        broker = Broker()
        publisher = Publisher(lambda: broker, on_round=lambda _records, _seconds: None)
        publisher.put(
            Delivery(lambda: done.append(0), lambda *_refusal: (REVIEW, (None, None, []))), {DECISIONS: load("a")}
        )
        publisher.abandon()
        task = asyncio.create_task(publisher.run())
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        assert publisher.is_idle
        assert not broker.logs
        return done

    assert asyncio.run(abandoned()) == []


def test_work_put_after_what_was_abandoned_is_not_idle() -> None:
    """A round of abandoned work that ends says nothing about the work that came after it."""

    async def abandoned() -> None:
        broker = SlowBroker()
        publisher = Publisher(lambda: broker, on_round=lambda _records, _seconds: None)
        task = asyncio.create_task(publisher.run())
        publisher.put(Delivery(lambda: None, lambda *_refusal: (REVIEW, (None, None, []))), {DECISIONS: load("old")})
        await broker.next_round()
        publisher.abandon()
        publisher.put(Delivery(lambda: None, lambda *_refusal: (REVIEW, (None, None, []))), {DECISIONS: load("new")})
        await broker.next_round()
        assert not publisher.is_idle
        task.cancel()

    asyncio.run(abandoned())
