"""The play: records go in at a pace one can read, in waves, and what comes out is followed as it does."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError

from ops.demo.content import Item
from ops.demo.seen import Seen
from ops.demo.service import DemoError, Service
from stream.kafka.clients import broker_errors, open_consumer, open_producer

__all__ = ["play"]

WAVES = 3
"""Between two waves the play pauses, and the groups are reported."""
PAUSE_S = 1.5
"""Time to look at the tables."""
FRAME_S = 0.1
"""How often there is something new to show at most."""
ANSWER_S = 20.0
"""Answers take milliseconds; a machine busy with something else may take seconds."""
CLOSE_S = 2.0
"""A producer that has nothing left to send closes at once; one whose broker is gone would wait for it."""
MAX_RECORD_BYTES = 1_048_576
"""The largest malformed record is a megabyte."""


def play(service: Service, items: Sequence[Item], seen: Seen, *, rate: float) -> Generator[None, None, None]:
    """Send the items, `rate` a second, and keep `seen` up to date; yields whenever it is worth a look.

    Raises `BrokerError` or `DemoError` when a part of the service ends, or something sent is not answered in time.
    """
    settings = service.settings
    with broker_errors(settings), ExitStack() as stack:
        producer = open_producer(settings, max_request_size=MAX_RECORD_BYTES, max_block_ms=round(ANSWER_S * 1000))
        stack.callback(_close, producer)
        consumer = open_consumer(settings, auto_offset_reset="earliest")
        stack.callback(consumer.close)
        topics = (settings.decisions_topic, settings.review_topic, settings.dead_letter_topic, settings.reports_topic)
        consumer.subscribe(topics)
        following = _Following(service, consumer, seen)
        for number in range(WAVES):
            seen.stage = f"wave {number + 1} of {WAVES}"
            yield from _send(items[number::WAVES], producer, following, rate=rate)
            seen.stage += ", all sent"
            yield from following.until(lambda: seen.is_answered, "an answer to every record")
            yield from following.until(lambda: seen.is_reported, "the tables by group")
            yield from following.during(PAUSE_S)


class _Following:
    """Reads what comes out into `seen`."""

    def __init__(self, service: Service, consumer: KafkaConsumer, seen: Seen) -> None:
        self.service, self.seen = service, seen
        self._consumer = consumer

    def read(self, within_s: float) -> None:
        """Wait for records, at most so long, and take them."""
        for partition, records in self._consumer.poll(timeout_ms=max(0, round(within_s * 1000))).items():
            self.seen.take(partition.topic, records)

    def during(self, seconds: float) -> Iterator[None]:
        """Follow for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(min(left, FRAME_S))
            yield

    def until(self, is_done: Callable[[], bool], what: str) -> Iterator[None]:
        """Follow until it is. Raises `DemoError` when it is not in time."""
        deadline = time.monotonic() + ANSWER_S
        while not is_done():
            self.service.raise_if_ended()
            if time.monotonic() > deadline:
                raise DemoError(f"{what} did not come within {ANSWER_S:g} s\n{self.service.log_tails()}")
            self.read(FRAME_S)
            yield


def _send(items: Sequence[Item], producer: KafkaProducer, following: _Following, *, rate: float) -> Iterator[None]:
    """Send each item when it is due, and follow until then; raises what the producer does for one it cannot send."""
    topic, start = following.service.settings.events_topic, time.monotonic()
    sent = []
    for number, item in enumerate(items):
        yield from following.during(start + number / rate - time.monotonic())
        following.service.raise_if_ended()
        sent.append(producer.send(topic, key=item.key, value=item.value(datetime.now(UTC))))
        following.seen.sent += 1
    yield from following.until(lambda: all(future.is_done for future in sent), "Kafka's acknowledgement")
    for future in sent:
        future.get()  # raises what became of it where it was not taken


def _close(producer: KafkaProducer) -> None:
    with suppress(KafkaTimeoutError):  # what it could not send is known to whoever waited for it
        producer.close(CLOSE_S)
