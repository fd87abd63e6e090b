from __future__ import annotations

from dataclasses import replace

import pytest

from stream.kafka.layout import (
    Level,
    StageName,
    TopicSpec,
    TopicState,
    compare,
    few_replicas,
    required_topics,
    safe_in_sync,
)
from stream.settings import Settings

SPEC = TopicSpec("decisions", 4, max_message_bytes=2_000_000)
GOOD = TopicState(
    "decisions",
    partitions=4,
    replication=3,
    offline=0,
    config={"cleanup.policy": "delete", "max.message.bytes": "2000000", "min.insync.replicas": "2"},
)


def changed(**config: str) -> TopicState:
    names = {name.replace("_", "."): value for name, value in config.items()}
    return replace(GOOD, config={**GOOD.config, **names})


def test_a_topic_as_it_must_be_has_no_findings() -> None:
    """A topic that is as required is not commented on."""
    assert compare(SPEC, GOOD) == []


@pytest.mark.parametrize(
    ("state", "level", "what"),
    [
        (None, Level.ERROR, "does not exist"),
        (replace(GOOD, partitions=2), Level.ERROR, "2 partitions, must be 4"),
        (replace(GOOD, partitions=8), Level.ERROR, "8 partitions, must be 4"),
        (replace(GOOD, offline=1), Level.ERROR, "1 of 4 partitions have no leader"),
        (changed(cleanup_policy="compact"), Level.ERROR, "cleanup.policy is compact, must be delete"),
        (changed(cleanup_policy="compact,delete"), Level.ERROR, "cleanup.policy is compact,delete"),
        (changed(max_message_bytes="1048588"), Level.ERROR, "max.message.bytes is 1048588, must be 2000000"),
        (changed(min_insync_replicas="4"), Level.ERROR, "nothing can be written"),
        (changed(min_insync_replicas="3"), Level.WARNING, "one broker away stops all writing"),
        (changed(min_insync_replicas="1"), Level.WARNING, "can lose what was acknowledged"),
        (replace(GOOD, config={}), Level.WARNING, "may not be read"),
    ],
)
def test_each_difference_is_found(state: TopicState | None, level: Level, what: str) -> None:
    """Whatever differs is one finding of the right level that says what it is and what mends it."""
    (finding,) = compare(SPEC, state)

    assert finding.level is level
    assert what in finding.what
    assert finding.mend


def test_a_larger_limit_is_fine() -> None:
    """A topic may take larger records than it must."""
    assert compare(SPEC, changed(max_message_bytes="9000000")) == []


def test_a_compacted_topic_must_not_delete() -> None:
    """State that is also deleted by age is lost after a quiet week."""
    spec = replace(SPEC, compacted=True)

    (finding,) = compare(spec, changed(cleanup_policy="compact,delete"))

    assert finding.what == "cleanup.policy is compact,delete, must be compact"


def test_what_mends_a_topic_of_others_is_not_ours_to_do() -> None:
    """For the events topic Kafka's own command is named, because ours never alters it."""
    spec = replace(SPEC, name="content.events", is_source=True)

    (finding,) = compare(spec, changed(cleanup_policy="compact"))

    assert finding.mend.startswith("kafka-configs.sh --alter --entity-type topics --entity-name content.events")


def test_outputs_follow_the_events_topic() -> None:
    """Outputs get the partitions the events topic has, and take larger records than it does."""
    settings = Settings(partitions=4)
    events = replace(GOOD, name="content.events", partitions=12, config={"max.message.bytes": "5000000"})

    specs = {spec.name: spec for spec in required_topics(settings, {"content.events": events})}

    for name in ("content.decisions", "content.review", "content.dead-letter"):
        assert specs[name].partitions == 12
        assert specs[name].max_message_bytes > 5_000_000
    assert [specs[n].partitions for n in ("fairness.reports", "fairness.state", "fairway.control")] == [1, 1, 1]
    assert {name for name, spec in specs.items() if spec.compacted} == {"fairness.state", "fairway.control"}


def test_fairness_alone_takes_decisions_as_they_are() -> None:
    """Without the moderate stage, decisions are somebody else's topic and no content topic is needed."""
    specs = {spec.name: spec for spec in required_topics(Settings(), {}, [StageName.FAIRNESS])}

    assert "content.events" not in specs
    assert specs["content.decisions"].is_source
    assert specs["content.decisions"].partitions is None


@pytest.mark.parametrize(("replication", "in_sync"), [(1, 1), (2, 1), (3, 2), (5, 4)])
def test_all_but_one_replica_must_have_a_write(replication: int, in_sync: int) -> None:
    """A write is safe when one broker may be lost, and possible when one is away."""
    assert safe_in_sync(replication) == in_sync


def test_few_replicas_are_one_warning_for_all_topics() -> None:
    """On a single-node cluster the warning about replicas is given once, naming every topic."""
    (warning,) = few_replicas([replace(GOOD, name="a", replication=1), replace(GOOD, name="b", replication=2), GOOD])

    assert (warning.level, warning.topic) == (Level.WARNING, "a, b")
