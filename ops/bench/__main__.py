"""`make bench`: every comparison on a real local Kafka, as a table on screen and JSON in `build/bench.json`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import CoordinatorNotAvailableError
from rich.console import Console
from rich.table import Table

from ops.bench.scoring import ENCODER_ROWS, bare_loop, scorer_loop
from ops.bench.texts import events, texts
from stream.kafka.broker import LocalBroker, free_port
from stream.kafka.load import LoadReport, Plan, run_load
from stream.settings import load_settings

PARTITIONS = 4
POLL_S = 0.01
GIVE_UP_S = 240.0
REPORT = Path("build/bench.json")
LOAD_S = 10
"""Seconds of load per latency figure: enough for a hundred samples beyond the 99th percentile at 1,000/s."""
POLICY = "ops/policies/default.yaml"
LITE, MODERATOR = Path("models/lite"), Path("models/moderator")

FAST, STOCK, SLOW, ENCODER = 600_000, 60_000, 30_000, 12_000
"""Events per run: a few seconds each for what is fast, ten for stock Faust, twenty for an encoder."""


@dataclass(frozen=True, slots=True)
class Target:
    """A number to reach and what it says."""

    key: str
    meaning: str
    at_least: float


TARGETS = (
    Target("passthrough_vs_raw", "copying worker ÷ bare aiokafka loop", 0.6),
    Target("passthrough_vs_faust", "copying worker ÷ stock Faust take and awaited sends", 25),
    Target("full_vs_raw", "whole pipeline with the stub ÷ bare aiokafka loop", 0.25),
    Target("full_vs_faust", "whole pipeline with the stub ÷ the same in stock Faust", 8),
    Target("lite_vs_alone", "models/lite through Kafka ÷ the libraries tokenising and running alone", 0.7),
    Target("lite_vs_scorer", "models/lite through Kafka ÷ our own scorer alone, which reads words by memory", 0.0),
    Target("moderator_vs_alone", "models/moderator through Kafka ÷ the libraries tokenising and running alone", 0.95),
    Target("two_workers_vs_one", "two workers ÷ one, bound by latency", 1.7),
)


class Bench:
    """Runs sides against one broker."""

    def __init__(self, broker: LocalBroker, console: Console, *, scale: float) -> None:
        self._broker, self._console, self.scale, self._sinks = broker, console, scale, 0
        self._consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
        self._admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        self.create("content.review", "content.dead-letter")

    def create(self, *names: str) -> None:
        """Create topics."""
        self._admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])

    def fill(self, topic: str, count: int, *, median_words: int) -> int:
        """Write events to a topic; return how many."""
        count = int(count * self.scale)
        self.create(topic)
        asyncio.run(_produce(self._broker.bootstrap_servers, topic, events(count, median_words=median_words)))
        return count

    def rate(
        self,
        side: str,
        source: str,
        count: int,
        *,
        bundle: str = "stub",
        workers: int = 1,
        watch: Callable[[list[psutil.Process]], None] = lambda _processes: None,
    ) -> float:
        """Events per second that `workers` processes of a side bring from `source` to a new topic."""
        self._sinks += 1
        sink = f"sink-{self._sinks}"
        self.create(sink)
        with self._running(side, source, sink, bundle, workers) as processes:
            speed = self._speed(sink, count, processes, watch)
        self._console.print(f"  {side:<14} {bundle:<12} {workers} worker(s) {count:>9,} events {speed:>10,.0f}/s")
        return speed

    def rate_of_group(self, side: str, count: int, *, workers: int) -> float:
        """Events per second of workers that all hold partitions before the first event is there."""
        self._sinks += 1
        source, sink = f"group-{self._sinks}", f"sink-{self._sinks}"
        self.create(source, sink)
        with self._running(side, source, sink, "stub", workers) as processes:
            self._wait_for_members(f"bench-{side}-{sink}-moderate", workers)
            asyncio.run(_produce(self._broker.bootstrap_servers, source, events(count, median_words=9)))
            speed = self._speed(sink, count, processes, lambda _processes: None)
        self._console.print(f"  {side:<14} {'stub':<12} {workers} worker(s) {count:>9,} events {speed:>10,.0f}/s")
        return speed

    def _wait_for_members(self, group: str, workers: int) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            with suppress(CoordinatorNotAvailableError):  # the first group of a new cluster
                description = self._admin.describe_groups([group])[group]
                if description["group_state"] == "Stable" and len(description["members"]) == workers:
                    return
            time.sleep(POLL_S * 10)
        raise TimeoutError(f"{group} has not {workers} members after {GIVE_UP_S:g} s")

    def load(self, rate: float) -> LoadReport:
        """Run the load harness that ships against one worker for ten seconds."""
        self._sinks += 1
        source, sink = f"load-{self._sinks}", f"sink-{self._sinks}"
        self.create(source, sink)
        count = int(rate * LOAD_S)
        settings, _ = load_settings(
            {
                "bootstrap_servers": self._broker.bootstrap_servers,
                "events_topic": source,
                "decisions_topic": sink,
                "group": f"bench-full-fairway-{sink}",
            }
        )
        values = list(events(count, median_words=9))  # made before: making them takes half a core at full speed
        with self._running("full-fairway", source, sink, "stub", 1):
            self._warm(source, sink)
            return run_load(
                settings,
                Plan(rate=rate),
                lambda partitions: ((number % partitions, b"bench", value) for number, value in enumerate(values)),
            )

    def _warm(self, source: str, sink: str) -> None:
        """Wait until the worker decides: latency is not start-up time."""
        asyncio.run(_produce(self._broker.bootstrap_servers, source, events(1000, median_words=9)))
        self._speed(sink, 1000, [], lambda _processes: None)

    @contextmanager
    def _running(self, side: str, source: str, sink: str, bundle: str, workers: int) -> Iterator[list[psutil.Process]]:
        command = [sys.executable, "-m", "ops.bench.sides", side, self._broker.bootstrap_servers, source, sink]
        processes = [subprocess.Popen([*command, bundle, POLICY]) for _ in range(workers)]  # noqa: S603 - our own module
        try:
            yield [psutil.Process(process.pid) for process in processes]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)

    def _speed(
        self, sink: str, count: int, processes: list[psutil.Process], watch: Callable[[list[psutil.Process]], None]
    ) -> float:
        partitions = [TopicPartition(sink, number) for number in range(PARTITIONS)]
        deadline, first = time.monotonic() + GIVE_UP_S, None
        while time.monotonic() < deadline:
            written, now = int(sum(self._consumer.end_offsets(partitions).values())), time.monotonic()
            if written and first is None:
                first = (written, now)
            if written >= count and first is not None:
                return (written - first[0]) / max(now - first[1], POLL_S)
            watch(processes)
            time.sleep(POLL_S)
        raise TimeoutError(f"{sink}: {written:,} of {count:,} after {GIVE_UP_S:g} s")


async def _produce(servers: str, topic: str, values: Iterator[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=1 << 18)
    await producer.start()
    batches = [producer.create_batch() for _ in range(PARTITIONS)]
    for number, value in enumerate(values):
        partition = number % PARTITIONS
        if batches[partition].append(timestamp=None, key=b"bench", value=value) is None:
            await producer.send_batch(batches[partition], topic, partition=partition)
            batches[partition] = producer.create_batch()
            batches[partition].append(timestamp=None, key=b"bench", value=value)
    for partition, batch in enumerate(batches):
        await producer.send_batch(batch, topic, partition=partition)
    await producer.stop()


def measure(bench: Bench, rounds: int) -> dict[str, float]:
    """Run everything; both sides of each ratio in turn, `rounds` times, medians of ratios."""
    short = bench.fill("short", FAST, median_words=9)
    stock = bench.fill("stock", STOCK, median_words=9)
    real = bench.fill("real", FAST // 4, median_words=18)
    encoder = bench.fill("encoder", ENCODER, median_words=18)
    slow = int(SLOW * bench.scale)
    ratios: dict[str, list[float]] = {target.key: [] for target in TARGETS}
    rates: dict[str, list[float]] = {}
    sample = list(texts(20_000))
    lite_alone = partial(bare_loop, LITE, sample, batch=1024)
    encoder_alone = partial(bare_loop, MODERATOR, sample[:2048], batch=1024, call_rows=ENCODER_ROWS)
    for _ in range(rounds):
        raw = bench.rate("copy-raw", "short", short)
        copy = bench.rate("copy-fairway", "short", short)
        full = bench.rate("full-fairway", "short", short)
        faust_copy = bench.rate("copy-faust", "stock", stock)
        faust_full = bench.rate("full-faust", "stock", stock)
        lite, alone = _between(lite_alone, lambda: bench.rate("full-fairway", "real", real, bundle=str(LITE)))
        scorer = scorer_loop(LITE, sample, batch=1024)
        moderator, moderator_alone = _between(
            encoder_alone, lambda: bench.rate("full-fairway", "encoder", encoder, bundle=str(MODERATOR))
        )
        one = bench.rate_of_group("slow-fairway", slow, workers=1)
        two = bench.rate_of_group("slow-fairway", slow, workers=2)
        for name, value in {
            "raw": raw,
            "passthrough": copy,
            "full": full,
            "faust_passthrough": faust_copy,
            "faust_full": faust_full,
            "lite": lite,
            "lite_alone": alone,
            "lite_scorer": scorer,
            "moderator": moderator,
            "moderator_alone": moderator_alone,
            "slow_one_worker": one,
            "slow_two_workers": two,
        }.items():
            rates.setdefault(f"{name}_per_s", []).append(value)
        ratios["passthrough_vs_raw"].append(copy / raw)
        ratios["passthrough_vs_faust"].append(copy / faust_copy)
        ratios["full_vs_raw"].append(full / raw)
        ratios["full_vs_faust"].append(full / faust_full)
        ratios["lite_vs_alone"].append(lite / alone)
        ratios["lite_vs_scorer"].append(lite / scorer)
        ratios["moderator_vs_alone"].append(moderator / moderator_alone)
        ratios["two_workers_vs_one"].append(two / one)
    results = {key: median(values) for key, values in (ratios | rates).items()}
    return results | _memory(bench) | _latency(bench, results["full_per_s"])


def _between(alone: Callable[[], float], worker: Callable[[], float]) -> tuple[float, float]:
    """The worker's rate, and the mean of that of the loop alone before and after it: a machine's speed drifts."""
    before = alone()
    rate = worker()
    return rate, (before + alone()) / 2


def _memory(bench: Bench) -> dict[str, float]:
    """Resident memory of a worker over two million events, after two million others.

    It keeps freed memory, so what it holds grows until as much has been in hand at once as the settings allow.
    """
    count = bench.fill("long", 4_000_000, median_words=9)
    samples: list[float] = []
    bench.rate(
        "full-fairway",
        "long",
        count,
        watch=lambda processes: samples.append(processes[0].memory_info().rss / 2**20),
    )
    early, late = samples[len(samples) // 2 :][: len(samples) // 12], samples[-len(samples) // 12 :]
    return {"rss_mb_start": median(early), "rss_mb_end": median(late), "rss_events": count / 2}


def _latency(bench: Bench, full_rate: float) -> dict[str, float]:
    """Produce → decision readable: at half of the full rate, and at a rate that leaves the machine idle."""
    results: dict[str, float] = {}
    for name, rate in (("latency", full_rate / 2), ("latency_at_2000", 2_000.0)):
        report = bench.load(rate)
        results[f"{name}_rate_per_s"] = report.answered_per_s
        for percentile in (50, 95, 99):
            results[f"{name}_p{percentile}_ms"] = report.since_due.percentile_s(percentile) * 1000
    return results


def _show(results: dict[str, float], console: Console) -> None:
    table = Table("key", "measured", "at least", "what", title="Fairway benchmarks", header_style="bold")
    for target in TARGETS:
        reached = results[target.key] >= target.at_least
        table.add_row(
            target.key,
            f"[{'green' if reached else 'red'}]{results[target.key]:.2f}[/]",
            f"{target.at_least:g}",
            target.meaning,
        )
    console.print(table)
    rest = Table("key", "value", header_style="bold")
    for key in sorted(results.keys() - {target.key for target in TARGETS}):
        rest.add_row(key, f"{results[key]:,.1f}")
    console.print(rest)


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often both sides are run; medians are reported")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the events, for a quick look")
    arguments = parser.parse_args()
    console = Console()
    machine = {
        "machine": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("faust-streaming", "aiokafka", "onnxruntime-gpu", "msgspec", "pydantic")},
    }
    with tempfile.TemporaryDirectory() as folder, LocalBroker(Path(folder) / "kafka", port=free_port(2)) as broker:
        results = measure(Bench(broker, console, scale=arguments.scale), arguments.rounds)
    _show(results, console)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({**machine, "rounds": arguments.rounds, **results}, indent=2) + "\n")
    console.print(f"written to {REPORT}")


if __name__ == "__main__":
    main()
