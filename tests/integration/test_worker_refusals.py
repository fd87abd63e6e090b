"""What `fairway worker` refuses to start with, and what it says: the first thing a new operator reads."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stream.kafka import topics
from stream.kafka.broker import LocalBroker, free_port
from stream.settings import Settings
from tests.conftest import own_settings
from tests.workers import environment

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
PASSWORD = "quagga-7-quagga"  # noqa: S105 - a password for a test


@dataclass(frozen=True)
class Mistake:
    """Something that a worker must not start with, and what it must say."""

    name: str
    says: str
    settings: dict[str, Any] = field(default_factory=dict)


MISTAKES = [
    Mistake("no topics", r"\.events: does not exist; fairway topics create"),
    Mistake("other partitions", r"decisions\.other: 3 partitions, must be 4"),
    Mistake("no bundle", r"absent", {"bundle": "absent"}),
    Mistake("a folder that is no bundle", r"manifest\.json", {"bundle": "ops"}),
    Mistake("a broken policy", r"foreign-decisions\.yaml:\d+: ", {"policy": "ops/mappings/foreign-decisions.yaml"}),
    Mistake("a mapping for decisions", r"kind: event", {"mapping": "ops/mappings/foreign-decisions.yaml"}),
    Mistake("a GPU for the stub", r"provider is cuda.*bundle is stub.*provider to cpu", {"provider": "cuda"}),
    Mistake("no CUDA", r"CUDA", {"bundle": "models/lite", "provider": "cuda"}),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_worker_does_not_start_with_a_mistake(broker: LocalBroker, mistake: Mistake) -> None:
    """What cannot work is refused before anything is read, in a few words that say what to mend."""
    if mistake.name == "no CUDA" and Path("/dev/nvidiactl").exists():
        pytest.skip("there is CUDA")
    settings = own_settings(broker, **({"bundle": "stub"} | mistake.settings))
    if mistake.name != "no topics":
        topics.create(settings)
    if mistake.name == "other partitions":
        settings = settings.model_copy(update={"decisions_topic": _topic_with_three(settings)})
    status, said = refusal(settings)
    assert status == 2
    assert re.search(mistake.says, said, re.DOTALL), said
    assert "Traceback" not in said


def test_a_worker_does_not_start_without_a_broker(broker: LocalBroker) -> None:
    """Where no broker answers, or none in the protocol asked for, a worker says where it looked, and no password."""
    nowhere = {"bootstrap_servers": f"127.0.0.1:{free_port(1)}"}
    secured = {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "u", "sasl_password": PASSWORD}
    asked = [own_settings(broker, bundle="stub", log_level="debug", **which) for which in (nowhere, secured)]
    with ThreadPoolExecutor() as pool:  # each waits ten seconds
        answers = list(pool.map(lambda settings: refusal(settings, FAIRWAY_SASL_PASSWORD=PASSWORD), asked))
    for settings, (status, said) in zip(asked, answers, strict=True):
        assert status == 2
        assert settings.bootstrap_servers in said
        assert "Traceback" not in said
        assert PASSWORD not in said


def test_a_stage_asks_for_its_own_topics_only(broker: LocalBroker) -> None:
    """Who runs no fairness stage needs none of its topics."""
    settings = own_settings(broker, bundle="stub")
    said = refusal(settings)[1]
    assert settings.review_topic in said
    assert settings.reports_topic not in said
    assert settings.fairness_state_topic not in said


def refusal(settings: Settings, **extra: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", "worker"],
        env=environment(settings) | extra,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def _topic_with_three(settings: Settings) -> str:
    other = settings.model_copy(update={"partitions": 3, "events_topic": settings.events_topic + ".other"})
    named = {
        name: f"{getattr(settings, name)}.other" for name in ("decisions_topic", "review_topic", "dead_letter_topic")
    }
    topics.create(other.model_copy(update=named))
    return named["decisions_topic"]
