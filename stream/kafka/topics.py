"""Creating the service's topics and checking those that are there, on the cluster itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    InvalidReplicationFactorError,
    NoError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from stream.errors import BrokerError
from stream.kafka.clients import broker_errors, open_admin
from stream.kafka.layout import (
    Finding,
    Level,
    StageName,
    TopicSpec,
    TopicState,
    compare,
    few_replicas,
    mendable,
    required_topics,
    safe_in_sync,
)
from stream.settings import Settings

__all__ = ["create", "inspect", "verify_layout"]

# The state and control topics are read from the start by every new worker. Kafka compacts closed segments only, so
# small segments bound that read; its default of 1 GB would not.
COMPACTED_SEGMENT_BYTES = 16_777_216

MS_PER_DAY = 86_400_000


def inspect(settings: Settings, stages: Collection[StageName] = tuple(StageName)) -> tuple[Finding, ...]:
    """Compare the cluster's topics with what `stages` need. Raises `BrokerError` when the cluster does not answer."""
    admin = open_admin(settings)
    try:
        with broker_errors(settings):
            states = _read(admin, settings)
    finally:
        admin.close()
    specs = required_topics(settings, states, stages)
    return tuple(finding for spec in specs for finding in compare(spec, states.get(spec.name))) + few_replicas(
        [states[spec.name] for spec in specs if spec.name in states]
    )


def verify_layout(settings: Settings, stages: Collection[StageName] = tuple(StageName)) -> tuple[Finding, ...]:
    """Return what `inspect` warns of; raise `BrokerError` naming every error and the command that mends it."""
    findings = inspect(settings, stages)
    errors = [finding for finding in findings if finding.level is Level.ERROR]
    if errors:
        lines = "\n".join(f"  {error.topic}: {error.what}; {error.mend}" for error in errors)
        raise BrokerError(f"the topics at {settings.bootstrap_servers} are not as they must be:\n{lines}")
    return findings


def create(settings: Settings, *, alter: bool = False) -> tuple[str, ...]:
    """Create the topics that are missing and return a line for each change made.

    With `alter`, topics of ours that exist are mended as well, as far as that loses nothing: settings, and partitions
    up to the number the events topic has. The events topic is never altered. Raises `BrokerError`.
    """
    admin = open_admin(settings)
    try:
        with broker_errors(settings):
            states = _read(admin, settings)
            specs = required_topics(settings, states)
            changes = [_create(admin, spec, settings) for spec in specs if spec.name not in states]
            if alter:
                ours = [spec for spec in specs if spec.name in states and not spec.is_source]
                changes += [line for spec in ours for line in _alter(admin, spec, states[spec.name])]
            admin.wait_for_topics([spec.name for spec in specs])
    finally:
        admin.close()
    return tuple(changes)


def _read(admin: KafkaAdminClient, settings: Settings) -> dict[str, TopicState]:
    """The topics that exist, by name."""
    names = [spec.name for spec in required_topics(settings, {})]
    topics = [topic for topic in admin.describe_topics(names) if _exists(topic)]
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic["name"]) for topic in topics]
    configs = admin.describe_configs(resources, config_filter="all").get("topic", {}) if resources else {}
    return {
        topic["name"]: TopicState(
            name=topic["name"],
            partitions=len(topic["partitions"]),
            replication=min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
            offline=sum(partition["leader_id"] < 0 for partition in topic["partitions"]),
            config={name: entry["value"] for name, entry in configs.get(topic["name"], {}).items()},
        )
        for topic in topics
    }


def _exists(topic: Mapping[str, int]) -> bool:
    """Whether a metadata answer describes a topic; any error but its absence is raised."""
    error = for_code(topic["error_code"])
    if error not in {NoError, UnknownTopicOrPartitionError}:
        raise error(topic["name"])
    return error is NoError


def _create(admin: KafkaAdminClient, spec: TopicSpec, settings: Settings) -> str:
    partitions = spec.partitions or settings.partitions
    config = {
        "max.message.bytes": str(spec.max_message_bytes),
        "min.insync.replicas": str(safe_in_sync(settings.replication)),
    }
    if spec.compacted:
        config |= {"cleanup.policy": "compact", "segment.bytes": str(COMPACTED_SEGMENT_BYTES)}
    else:
        config |= {"cleanup.policy": "delete", "retention.ms": str(round(settings.retention_days * MS_PER_DAY))}
    topic = {"num_partitions": partitions, "replication_factor": settings.replication, "configs": config}
    try:
        admin.create_topics({spec.name: topic})
    except TopicAlreadyExistsError:
        return f"{spec.name}: another process has just created it"
    except InvalidReplicationFactorError:
        brokers = len(admin.describe_cluster()["brokers"])
        raise BrokerError(
            f"cannot create {spec.name} with {settings.replication} replicas: the cluster has {brokers} brokers; "
            "choose --replication (FAIRWAY_REPLICATION) no larger than that"
        ) from None
    return f"{spec.name}: created with {partitions} partitions, {settings.replication} replicas"


def _alter(admin: KafkaAdminClient, spec: TopicSpec, state: TopicState) -> list[str]:
    changes = []
    if spec.partitions is not None and state.partitions < spec.partitions:
        admin.create_partitions({spec.name: spec.partitions})
        changes.append(f"{spec.name}: partitions {state.partitions} -> {spec.partitions}")
    wanted = mendable(spec, state)
    if int(state.config.get("min.insync.replicas", 1)) != safe_in_sync(state.replication):
        wanted["min.insync.replicas"] = str(safe_in_sync(state.replication))
    if wanted and state.config:
        results = admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name, dict(wanted))])
        if results["topic"][spec.name] != "OK":
            raise BrokerError(f"cannot change the settings of {spec.name}: {results['topic'][spec.name]}")
        changes += [f"{spec.name}: {name} {state.config.get(name)} -> {value}" for name, value in wanted.items()]
    return changes
