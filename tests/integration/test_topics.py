from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from stream.errors import BrokerError
from stream.kafka import topics
from stream.kafka.broker import LocalBroker, free_port
from stream.kafka.clients import open_admin
from stream.kafka.layout import Level, StageName
from stream.settings import Settings

pytestmark = pytest.mark.kafka

SettingsFor = Callable[..., Settings]

LARGE = {"max.message.bytes": "4000000"}
COMPACT = {"cleanup.policy": "compact"}


def errors(settings: Settings) -> set[tuple[str, str]]:
    return {(f.topic, f.what) for f in topics.inspect(settings) if f.level is Level.ERROR}


def alter(settings: Settings, topic: str, config: Mapping[str, str]) -> None:
    admin = open_admin(settings)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(config))])
    admin.close()


def test_created_topics_pass_the_check(kafka_settings: Settings) -> None:
    """After `create` nothing is wrong, creating again changes nothing, and one node is warned about once."""
    assert {what for _, what in errors(kafka_settings)} == {"does not exist"}

    assert len(topics.create(kafka_settings)) == 7

    assert topics.create(kafka_settings) == ()
    (warning,) = topics.verify_layout(kafka_settings)
    assert "fewer than 3 replicas" in warning.what


def test_each_difference_on_the_cluster_is_found_and_mended(kafka_settings: Settings) -> None:
    """Too few partitions, a wrong policy and a small limit are errors on the real cluster; `--alter` mends them."""
    settings = kafka_settings
    admin = open_admin(settings)
    admin.create_topics(
        {
            settings.events_topic: {"num_partitions": 3, "replication_factor": 1},
            settings.decisions_topic: {"num_partitions": 2, "replication_factor": 1},
            settings.review_topic: {
                "num_partitions": 3,
                "replication_factor": 1,
                "configs": {"cleanup.policy": "compact", "max.message.bytes": "9000000"},
            },
        }
    )
    admin.close()
    topics.create(settings)
    assert errors(settings) == {
        (settings.decisions_topic, "2 partitions, must be 3 as the events topic has"),
        (settings.decisions_topic, "max.message.bytes is 1048588, must be 1572876"),
        (settings.review_topic, "cleanup.policy is compact, must be delete"),
    }
    with pytest.raises(BrokerError, match="fairway topics create --alter"):
        topics.verify_layout(settings)

    changes = topics.create(settings, alter=True)

    assert len(changes) == 3
    assert errors(settings) == set()


def test_too_many_partitions_cannot_be_mended_here(kafka_settings: Settings) -> None:
    """An output topic with more partitions than the events topic stays an error, with what to do about it."""
    admin = open_admin(kafka_settings)
    admin.create_topics({kafka_settings.dead_letter_topic: {"num_partitions": 9, "replication_factor": 1}})
    admin.close()

    topics.create(kafka_settings, alter=True)

    with pytest.raises(BrokerError, match="partitions cannot be taken away"):
        topics.verify_layout(kafka_settings)


def test_the_events_topic_is_never_altered(kafka_settings: Settings) -> None:
    """Whatever the events topic is like, `--alter` leaves it and fits our topics to it."""
    topics.create(kafka_settings)
    alter(kafka_settings, kafka_settings.events_topic, {"max.message.bytes": "3000000", "retention.ms": "1000"})
    assert kafka_settings.dead_letter_topic in {topic for topic, _ in errors(kafka_settings)}

    changes = topics.create(kafka_settings, alter=True)

    assert not [change for change in changes if change.startswith(kafka_settings.events_topic)]
    assert errors(kafka_settings) == set()


def test_a_stage_needs_its_own_topics_only(kafka_settings: Settings) -> None:
    """The fairness stage starts without the content topics, and with decisions of any number of partitions."""
    settings = kafka_settings
    admin = open_admin(settings)
    admin.create_topics(
        {
            settings.decisions_topic: {"num_partitions": 7, "replication_factor": 1},
            settings.reports_topic: {"num_partitions": 1, "replication_factor": 1, "configs": LARGE},
            settings.fairness_state_topic: {"num_partitions": 1, "replication_factor": 1, "configs": LARGE | COMPACT},
            settings.control_topic: {"num_partitions": 1, "replication_factor": 1, "configs": LARGE | COMPACT},
        }
    )
    admin.close()

    topics.verify_layout(settings, [StageName.FAIRNESS])

    with pytest.raises(BrokerError, match=f"{settings.events_topic}: does not exist"):
        topics.verify_layout(settings, [StageName.MODERATE])


def test_more_replicas_than_brokers_is_explained(kafka_settings: Settings) -> None:
    """Asking for three replicas of one broker names both numbers."""
    with pytest.raises(BrokerError, match="3 replicas: the cluster has 1 brokers"):
        topics.create(kafka_settings.model_copy(update={"replication": 3}))


def test_an_absent_cluster_is_explained(settings_for: SettingsFor, broker: LocalBroker) -> None:
    """Where nobody listens, the error names the address and what to do."""
    port = free_port(1)
    settings = settings_for(broker, bootstrap_servers=f"127.0.0.1:{port}")

    with pytest.raises(BrokerError, match=rf"127\.0\.0\.1:{port}.*refused.*fairway broker"):
        topics.inspect(settings)
