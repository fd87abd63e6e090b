"""Redriving: dead letters back to the topic and partition they came from, once what made them dead is mended.

A consumer group per reason (`GROUP-redrive-REASON`) remembers how far the dead letters were looked at, so a second run
redrives none twice. It is committed after the broker has acknowledged the redriven records, so a run that is killed
repeats at most `COMMIT_RECORDS` of them; and Kafka forgets the group after `offsets.retention.minutes` (7 days).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import TopicPartition
from kafka import KafkaAdminClient

from stream.errors import BrokerError, ConfigError
from stream.events import RejectReason
from stream.kafka import deadletter
from stream.kafka.clients import connection, open_admin
from stream.kafka.ledger import Partition
from stream.kafka.reading import Bounds, committed, offsets_since, open_reader, partitions, read, snapshot
from stream.settings import Settings

__all__ = ["RedriveReport", "redrive"]

# Records sent before the group is committed: few enough to repeat, enough to send them in batches.
COMMIT_RECORDS = 500
# The client refuses nothing: what the source topic once took it takes again, or says so.
NO_CLIENT_LIMIT = 104_857_600


@dataclass(slots=True)
class RedriveReport:
    """What became of the dead letters that were looked at."""

    redriven: int = 0
    other_reason: int = 0
    without_value: int = 0
    """The broker had refused the value, so there is nothing to send."""
    misplaced: int = 0
    """From another topic than the events topic, or from a partition it does not have."""
    refused: int = 0
    """The source topic does not take the record any more."""
    foreign: int = 0
    """Records in the dead-letter topic that are not dead letters of ours."""


@dataclass(frozen=True, slots=True)
class _Job:
    settings: Settings
    reason: RejectReason
    limit: int | None
    dry_run: bool
    source_partitions: int
    stretches: Mapping[int, Bounds]

    @property
    def group(self) -> str:
        return f"{self.settings.group}-redrive-{self.reason.value}"


def redrive(
    settings: Settings,
    reason: RejectReason,
    *,
    since: datetime | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    again: bool = False,
) -> RedriveReport:
    """Send the dead letters of one reason back, at most `limit` of them; `dry_run` counts them and sends nothing.

    Those looked at by an earlier run are passed over unless `again`. `since` passes over dead letters written before
    it, for later runs too. Raises `ConfigError` for tombstones, which have nothing to send, and `BrokerError`.
    """
    if reason is RejectReason.TOMBSTONE:
        raise ConfigError("a tombstone has no content: redriven, it is a dead letter again")
    admin = open_admin(settings)
    try:
        bounds = snapshot(admin, settings, settings.dead_letter_topic)
        done = {} if again else committed(admin, settings, f"{settings.group}-redrive-{reason.value}")
        first = _since(admin, settings, since, bounds)
        source_partitions = partitions(admin, settings, settings.events_topic)
    finally:
        admin.close()
    stretches = {
        number: Bounds(
            max(first[number], done.get(Partition(settings.dead_letter_topic, number), 0)), bounds[number].end
        )
        for number in bounds
    }
    return asyncio.run(_run(_Job(settings, reason, limit, dry_run, source_partitions, stretches)))


def _since(
    admin: KafkaAdminClient, settings: Settings, since: datetime | None, bounds: Mapping[int, Bounds]
) -> dict[int, int]:
    """The offset to start from in each partition: where it begins, or the first record written since then."""
    if since is None:
        return {number: stretch.start for number, stretch in bounds.items()}
    found = offsets_since(admin, settings, settings.dead_letter_topic, round(since.timestamp() * 1000))
    return {number: found.get(number, stretch.end) for number, stretch in bounds.items()}


async def _run(job: _Job) -> RedriveReport:
    report = RedriveReport()
    async with open_reader(job.settings, group_id=job.group) as consumer, _open_sender(job.settings) as producer:
        for number, stretch in sorted(job.stretches.items()):
            partition = TopicPartition(job.settings.dead_letter_topic, number)
            async for records in read(consumer, Partition(*partition), [stretch]):
                for start in range(0, len(records), COMMIT_RECORDS):
                    looked_at = await _send(job, report, producer, records[start : start + COMMIT_RECORDS])
                    if not job.dry_run:
                        await consumer.commit({partition: looked_at})
                    if report.redriven == job.limit:
                        return report
    return report


async def _send(job: _Job, report: RedriveReport, producer: AIOKafkaProducer, records: Sequence[ConsumerRecord]) -> int:
    """Send back what is to be sent of `records` and wait for the broker; return the offset after the last looked at."""
    sent: list[asyncio.Future[Any]] = []  # of aiokafka's RecordMetadata, untyped
    looked_at: int = records[0].offset
    for record in records:
        if report.redriven + len(sent) == job.limit:
            break
        looked_at = record.offset + 1
        letter = _selected(job, report, record)
        if letter is None:
            continue
        if job.dry_run:
            report.redriven += 1
            continue
        sent.append(
            await producer.send(
                letter.source.topic,
                partition=letter.source.partition,
                key=record.key,
                value=record.value,
                headers=deadletter.redriven(letter),
            )
        )
    for answer in sent:
        try:
            await answer
            report.redriven += 1
        except MessageSizeTooLargeError:
            report.refused += 1
    return looked_at


def _selected(job: _Job, report: RedriveReport, record: ConsumerRecord) -> deadletter.DeadLetter | None:
    """The dead letter, if it is to be sent; otherwise count why not and return None."""
    letter = deadletter.decode(record.headers)
    if isinstance(letter, deadletter.Foreign):
        report.foreign += 1
    elif letter.reason != job.reason:
        report.other_reason += 1
    elif record.value is None:
        report.without_value += 1
    elif letter.source.topic != job.settings.events_topic or letter.source.partition >= job.source_partitions:
        report.misplaced += 1
    else:
        return letter
    return None


@asynccontextmanager
async def _open_sender(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(**connection(settings), acks="all", max_request_size=NO_CLIENT_LIMIT)
    try:
        await producer.start()
        yield producer
    except KafkaError as error:
        raise BrokerError(f"redriving to {settings.bootstrap_servers} failed: {error}") from None
    finally:
        await producer.stop()
