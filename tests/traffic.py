"""Events for the tests on the real broker, produced at once or at a rate from a thread of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from itertools import islice
from typing import Self

from kafka import KafkaProducer

from ops.bench.texts import events
from stream.kafka.clients import open_producer
from stream.settings import Settings

__all__ = ["Feed", "produce"]


def produce(settings: Settings, values: Iterable[bytes | None], *, partitions: int | None = None) -> int:
    """Write records round robin to the events topic; return how many."""
    producer = open_producer(settings, linger_ms=5, max_request_size=20_000_000)
    count = 0
    for count, value in enumerate(values, start=1):
        _send(producer, settings, count, value, partitions)
    producer.flush()
    producer.close()
    return count


def _send(
    producer: KafkaProducer, settings: Settings, number: int, value: bytes | None, partitions: int | None
) -> None:
    producer.send(
        settings.events_topic,
        value=value,
        key=b"key-%d" % number,
        headers=[("traceparent", b"00-%032x-%016x-01" % (number, number))],
        partition=number % (partitions or settings.partitions),
    )


class Feed:
    """Writes made-up events at a steady rate until stopped; a context manager."""

    def __init__(self, settings: Settings, *, rate: float) -> None:
        self._settings, self._rate = settings, rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.produced = 0

    def _run(self) -> None:
        producer = open_producer(self._settings, linger_ms=5)
        source, started = events(10_000_000), time.monotonic()
        while not self._stop.is_set():
            due = int((time.monotonic() - started) * self._rate) - self.produced
            for value in islice(source, max(due, 0)):
                self.produced += 1
                _send(producer, self._settings, self.produced, value, None)
            self._stop.wait(0.01)
        producer.flush(timeout=60)
        producer.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()
