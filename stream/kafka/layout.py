"""What the service's topics must be like, and how a topic that exists differs from it.

Decisions, review records and dead letters have as many partitions as the events topic, because an output goes to the
partition number its event came from. Reports, fairness state and control have one partition: their order matters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stream.settings import Settings

__all__ = [
    "Finding",
    "Level",
    "StageName",
    "TopicSpec",
    "TopicState",
    "compare",
    "few_replicas",
    "mendable",
    "required_topics",
    "safe_in_sync",
]

KAFKA_DEFAULT_MAX_BYTES = 1_048_588

# A record is its value, a key and headers; producers in the wild use keys of tens and headers of hundreds of bytes.
EVENT_ROOM_BYTES = 48_588

# What an output may be larger than its event. A decision repeats parts of the event (at most 16 axes of 32 groups of
# 128 characters of 4 bytes: 262,144 bytes) and adds a few kilobytes; a review record holds a decision and an event; a
# dead letter adds headers.
OUTPUT_ROOM_BYTES = 524_288

SAFE_REPLICATION = 3


class StageName(StrEnum):
    """Which part of the service runs: each needs its own topics only."""

    MODERATE = "moderate"
    FAIRNESS = "fairness"


class Level(StrEnum):
    """An error keeps the service from working as promised; a warning is a choice that should be a deliberate one."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the topics that is not as it should be, and what mends it."""

    level: Level
    topic: str
    what: str
    mend: str


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What one topic must be like."""

    name: str
    partitions: int | None
    """None is any number."""
    max_message_bytes: int
    """The largest batch it must at least take."""
    compacted: bool = False
    is_source: bool = False
    """Others write to it, so it is created where it is missing and never altered."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """What one topic is like. `config` holds effective values and is empty where we may not read them."""

    name: str
    partitions: int
    replication: int
    offline: int
    """Partitions without a leader."""
    config: Mapping[str, str]

    @property
    def max_message_bytes(self) -> int:
        """Largest batch the topic takes."""
        return int(self.config.get("max.message.bytes", KAFKA_DEFAULT_MAX_BYTES))


def required_topics(
    settings: Settings, states: Mapping[str, TopicState], stages: Collection[StageName] = tuple(StageName)
) -> list[TopicSpec]:
    """What the topics of `stages` must be like, given the events topic as it is or as it will be created."""
    events = states.get(settings.events_topic)
    content = events.partitions if events else settings.partitions
    event_limit = max(KAFKA_DEFAULT_MAX_BYTES, settings.max_event_bytes + EVENT_ROOM_BYTES)
    if events:
        event_limit = events.max_message_bytes
    limit = event_limit + OUTPUT_ROOM_BYTES
    specs = {
        StageName.MODERATE: [
            TopicSpec(settings.events_topic, content, max_message_bytes=event_limit, is_source=True),
            TopicSpec(settings.decisions_topic, content, max_message_bytes=limit),
            TopicSpec(settings.review_topic, content, max_message_bytes=limit),
            TopicSpec(settings.dead_letter_topic, content, max_message_bytes=limit),
            TopicSpec(settings.control_topic, 1, max_message_bytes=limit, compacted=True),
        ],
        StageName.FAIRNESS: [
            # Without the moderate stage these are decisions that others make, in a topic of theirs.
            TopicSpec(settings.decisions_topic, None, max_message_bytes=0, is_source=True),
            TopicSpec(settings.reports_topic, 1, max_message_bytes=limit),
            TopicSpec(settings.fairness_state_topic, 1, max_message_bytes=limit, compacted=True),
            TopicSpec(settings.control_topic, 1, max_message_bytes=limit, compacted=True),
        ],
    }
    required: dict[str, TopicSpec] = {}
    for stage in StageName:  # the moderate stage first: what it says about decisions holds where both run
        for spec in specs[stage] if stage in stages else ():
            required.setdefault(spec.name, spec)
    return list(required.values())


def compare(spec: TopicSpec, state: TopicState | None) -> list[Finding]:
    """Say how one topic differs from what it must be."""
    if state is None:
        return [Finding(Level.ERROR, spec.name, "does not exist", "fairway topics create")]
    return [
        *_compare_partitions(spec, state),
        *_compare_config(spec, state),
        *_compare_durability(spec, state),
    ]


def _compare_partitions(spec: TopicSpec, state: TopicState) -> list[Finding]:
    findings = []
    if state.offline:
        what = f"{state.offline} of {state.partitions} partitions have no leader"
        findings.append(Finding(Level.ERROR, spec.name, what, "bring the brokers that hold them back"))
    if spec.partitions is None or state.partitions == spec.partitions:
        return findings
    why = "as the events topic has" if spec.partitions > 1 else "because its order matters"
    what = f"{state.partitions} partitions, must be {spec.partitions} {why}"
    if state.partitions < spec.partitions:
        mend = "fairway topics create --alter"
    else:
        mend = "partitions cannot be taken away: delete the topic, then fairway topics create"
    return [*findings, Finding(Level.ERROR, spec.name, what, mend)]


def _compare_config(spec: TopicSpec, state: TopicState) -> list[Finding]:
    if not state.config:
        what = "its settings may not be read by this user, so they are not checked"
        return [Finding(Level.WARNING, spec.name, what, "grant DescribeConfigs on it")]
    return [
        Finding(
            Level.ERROR,
            spec.name,
            f"{name} is {state.config.get(name)}, must be {wanted}",
            _alter_command(spec, name, wanted),
        )
        for name, wanted in mendable(spec, state).items()
    ]


def _alter_command(spec: TopicSpec, name: str, value: str) -> str:
    """The command that sets one setting: ours for our topics, Kafka's own for a topic that is not ours."""
    if not spec.is_source:
        return "fairway topics create --alter"
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {spec.name} --add-config {name}={value}"


def mendable(spec: TopicSpec, state: TopicState) -> dict[str, str]:
    """The settings to change, with their values. A larger size limit than needed is left alone."""
    wanted = {"cleanup.policy": "compact" if spec.compacted else "delete"}
    if state.max_message_bytes < spec.max_message_bytes:
        wanted["max.message.bytes"] = str(spec.max_message_bytes)
    return {name: value for name, value in wanted.items() if state.config.get(name) != value}


def _compare_durability(spec: TopicSpec, state: TopicState) -> list[Finding]:
    if not state.config:
        return []
    in_sync = int(state.config["min.insync.replicas"])
    enough = safe_in_sync(state.replication)
    what = f"min.insync.replicas is {in_sync} with {state.replication} replicas"
    mend = _alter_command(spec, "min.insync.replicas", str(enough))
    if in_sync > state.replication:
        return [Finding(Level.ERROR, spec.name, f"{what}: nothing can be written", mend)]
    if in_sync > enough:
        return [Finding(Level.WARNING, spec.name, f"{what}: one broker away stops all writing", mend)]
    if in_sync < enough:
        return [Finding(Level.WARNING, spec.name, f"{what}: one broker lost can lose what was acknowledged", mend)]
    return []


def few_replicas(states: Sequence[TopicState]) -> tuple[Finding, ...]:
    """One warning for all topics: on a single-node cluster it holds for every one."""
    few = [state for state in states if state.replication < SAFE_REPLICATION]
    if not few:
        return ()
    names = ", ".join(state.name for state in few)
    what = f"fewer than {SAFE_REPLICATION} replicas: a broker away stops the service, a disk lost loses records"
    mend = f"in production, create topics with --replication {SAFE_REPLICATION} (FAIRWAY_REPLICATION)"
    return (Finding(Level.WARNING, names, what, mend),)


def safe_in_sync(replication: int) -> int:
    """How many replicas must have a write: all but one, so that one broker may be away, and never none."""
    return max(1, replication - 1)
