from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable

import pytest
import typer
from typer.testing import CliRunner

from stream.commands.tail import tail
from stream.errors import BrokerError
from stream.events import LineRecord, Rejected, RejectReason
from stream.kafka import deadletter
from stream.kafka.following import follow
from stream.kafka.ledger import Partition
from stream.kafka.publisher import OutRecord
from stream.settings import Settings

pytestmark = pytest.mark.kafka

Write = Callable[[str, int, Iterable[OutRecord]], None]
Run = Callable[..., list[str]]

WRITTEN = "nobody may read this"


@pytest.fixture
def run(kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `fairway tail` from the beginning of a topic and return its lines."""
    for name in ("bootstrap_servers", "events_topic", "decisions_topic", "review_topic", "dead_letter_topic"):
        monkeypatch.setenv(f"FAIRWAY_{name.upper()}", getattr(kafka_settings, name))
    app = typer.Typer()
    app.command()(tail)

    def run(*arguments: str) -> list[str]:
        result = CliRunner().invoke(app, [*arguments, "--from-beginning"], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output.splitlines()

    return run


def test_decisions_are_one_line_each(
    created: Settings, write: Write, encode_decision: Callable[..., bytes], run: Run
) -> None:
    """A decision shows its action, id and what spoke for it, and no group."""
    harms = {"hate": {"probability": 0.97, "selection": "harmful", "act_at": 0.9, "allow_below": 0.5}}
    values = [
        encode_decision("content.events", 0, 5, action="block", harms=harms, reasons=["hate:harmful"]),
        encode_decision("content.events", 0, 6),
    ]
    write(created.decisions_topic, 0, [(b"k", value, []) for value in values])

    block, allow = run("decisions", "--max", "2")

    assert "0:0  block" in block
    assert "content.events:0:5 c5 hate:harmful hate=0.97" in block
    assert "allow" in allow
    assert "gender" not in block + allow


def test_json_lines_leave_groups_out_unless_asked(
    created: Settings, write: Write, encode_decision: Callable[..., bytes], run: Run
) -> None:
    """With --json every line is an object; groups are in it only with --content."""
    write(created.decisions_topic, 1, [(b"k", encode_decision("content.events", 1, 0), [])])

    (plain,) = map(json.loads, run("decisions", "--json", "--max", "1"))
    (full,) = map(json.loads, run("decisions", "--json", "--max", "1", "--content"))

    assert plain["decision"]["decision_id"] == "content.events:1:0"
    assert "groups" not in plain["decision"]
    assert "key" not in plain
    assert (full["decision"]["groups"], full["key"]) == ({"gender": ["f"]}, "k")


def test_content_is_shown_only_when_asked_for(
    created: Settings, write: Write, encode_decision: Callable[..., bytes], run: Run
) -> None:
    """Events, review records and dead letters keep what people wrote to themselves unless --content is given."""
    event = json.dumps({"id": "e", "text": WRITTEN}).encode()
    decision = json.loads(encode_decision(created.events_topic, 0, 0))
    review = json.dumps({"why": "abstained", "decision": decision, "event": json.loads(event)}).encode()
    rejected = Rejected(0, RejectReason.SCHEMA_ERROR, "created_at: missing")
    source = Partition(created.events_topic, 0)
    write(created.events_topic, 0, [(b"k", event, [])])
    write(created.review_topic, 0, [(b"k", review, [])])
    write(created.dead_letter_topic, 0, [deadletter.encode(LineRecord(3, event), rejected, source=source, worker="w")])

    for topic in ("events", "review", "dead-letter"):
        for form in ((), ("--json",)):
            (line,) = run(topic, "--max", "1", *form)
            assert WRITTEN not in line
            (full,) = run(topic, "--max", "1", "--content", *form)
            assert WRITTEN in full
    (letter,) = run("dead-letter", "--max", "1")
    assert f"schema_error {created.events_topic}:0:3 attempt 1" in letter
    assert "created_at: missing" in letter


def test_a_topic_that_is_not_there_is_named(kafka_settings: Settings) -> None:
    """Following a topic that does not exist is an error, not an endless wait."""
    with pytest.raises(BrokerError, match=f"no topic {kafka_settings.review_topic}"):
        next(follow(kafka_settings, kafka_settings.review_topic, from_beginning=True))


def test_following_starts_at_the_end(created: Settings, write: Write) -> None:
    """Without --from-beginning only what arrives from now on is shown."""
    write(created.events_topic, 0, [(b"k", b"old", [])])
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.wait(0.05):  # what is written before the reader is in place is old to it
            write(created.events_topic, 0, [(b"k", b"new", [])])

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        first = next(follow(created, created.events_topic, from_beginning=False))
    finally:
        stop.set()
        writer.join()

    assert first.value == b"new"


def test_who_has_seen_enough_leaves_quietly(created: Settings, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """A reader of a topic can stop between any two records, and nothing complains or is left behind."""
    write(created.events_topic, 0, [(b"k", b"%d" % number, []) for number in range(3)])
    records = follow(created, created.events_topic, from_beginning=True)
    assert next(records).value == b"0"
    records.close()
    assert [record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []
