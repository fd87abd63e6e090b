from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events import LineRecord, Rejected, RejectReason
from stream.kafka import deadletter
from stream.kafka.accounts import FAILURES, PartitionAccount, PartitionAudit
from stream.kafka.deadletter import Headers
from stream.kafka.ledger import Partition
from stream.kafka.reading import Bounds

TOPIC = "content.events"
Encode = Callable[..., bytes]


def account(start: int = 0, end: int = 10, *, latest: int = 10) -> PartitionAccount:
    return PartitionAccount(TOPIC, 0, Bounds(start, end), latest=latest)


def rejection(offset: int, reason: RejectReason = RejectReason.DECODE_ERROR, *, partition: int = 0) -> Headers:
    source = Partition(TOPIC, partition)
    _, _, headers = deadletter.encode(LineRecord(offset, b"x"), Rejected(0, reason, "e"), source=source, worker="w")
    return headers


def close(books: PartitionAccount) -> PartitionAudit:
    """Close the books, every unanswered offset being an event."""
    return books.close(books.unanswered())


def counts(audit: PartitionAudit) -> dict[str, int]:
    """The counts that are not zero."""
    names = [name for name in audit.__dataclass_fields__ if name not in {"partition", "examples"}]
    return {name: getattr(audit, name) for name in names if getattr(audit, name)}


def test_one_output_per_event_is_sound(encode_decision: Encode) -> None:
    """Where every event has one decision or one dead letter in order, nothing is wrong."""
    books = account()
    for offset in range(10):
        if offset % 3:
            books.add_decision(encode_decision(TOPIC, 0, offset), where="d")
        else:
            books.add_dead_letter(rejection(offset), where="l")

    audit = close(books)

    assert audit.is_sound
    assert counts(audit) == {"events": 10, "decided": 6, "dead_lettered": 4}


def test_a_repeated_decision_is_a_duplicate_and_no_failure(encode_decision: Encode) -> None:
    """The same decision again, later or not, is counted as a duplicate, which at-least-once allows."""
    books = account(end=1, latest=1)
    for moment in ("2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"):
        books.add_decision(encode_decision(TOPIC, 0, 0, decided_at=moment), where="d")

    assert counts(close(books)) == {"events": 1, "decided": 1, "duplicated": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"action": "block"},
        {"harms": {"hate": {"probability": 0.26}}},
        {"reasons": ["hate:harmful"]},
        {"moderated": False},
        {"input_digest": "sha256:other"},
        {"content_id": "other"},
    ],
)
def test_decisions_that_say_different_things_conflict(encode_decision: Encode, change: dict[str, object]) -> None:
    """Two decisions by the same bundle and policy that differ in what they say are a conflict, with an example."""
    books = account(end=1, latest=1)
    books.add_decision(encode_decision(TOPIC, 0, 0), where="d")
    books.add_decision(encode_decision(TOPIC, 0, 0, **change), where="d")

    audit = close(books)

    assert counts(audit) == {"events": 1, "decided": 1, "conflicting": 1}
    assert audit.examples == {"conflicting": [f"{TOPIC}:0:0"]}


@pytest.mark.parametrize("maker", ["bundle", "policy", "calibration", "mapping", "provider"])
def test_another_bundle_or_policy_may_decide_otherwise(encode_decision: Encode, maker: str) -> None:
    """A second decision made by another bundle, policy and so on is a replay, not a conflict."""
    books = account(end=1, latest=1)
    books.add_decision(encode_decision(TOPIC, 0, 0), where="d")
    books.add_decision(encode_decision(TOPIC, 0, 0, action="block", **{maker: "another"}), where="d")

    assert counts(close(books)) == {"events": 1, "decided": 1, "redecided": 1}


def test_two_reasons_for_one_dead_letter_conflict() -> None:
    """An event rejected for two different reasons is a conflict; for the same reason it is a duplicate."""
    books = account(end=2, latest=2)
    books.add_dead_letter(rejection(0), where="l")
    books.add_dead_letter(rejection(0), where="l")
    books.add_dead_letter(rejection(1), where="l")
    books.add_dead_letter(rejection(1, RejectReason.TOO_LARGE), where="l")

    assert counts(close(books)) == {"events": 2, "dead_lettered": 2, "duplicated": 1, "conflicting": 1}


def test_a_decision_and_a_dead_letter_for_one_event_fail(encode_decision: Encode) -> None:
    """An event has a decision or a dead letter, never both."""
    books = account(end=1, latest=1)
    books.add_decision(encode_decision(TOPIC, 0, 0), where="d")
    books.add_dead_letter(rejection(0), where="l")

    assert counts(close(books)) == {"events": 1, "decided": 1, "dead_lettered": 1, "both": 1}


def test_first_outputs_must_ascend(encode_decision: Encode) -> None:
    """An event's first output after that of a later event is out of order; a repeat of an old one is not."""
    books = account(end=4, latest=4)
    for offset in (0, 2, 1, 3, 0):
        books.add_decision(encode_decision(TOPIC, 0, offset), where="d")

    audit = close(books)

    assert counts(audit) == {"events": 4, "decided": 4, "duplicated": 1, "out_of_order": 1}
    assert audit.examples == {"out_of_order": [f"{TOPIC}:0:1"]}


def test_outputs_for_no_event_of_this_partition_are_told_apart(encode_decision: Encode) -> None:
    """Past the end, before the start, other partition, other topic, later event and rubbish each have their count."""
    books = account(start=5, end=6, latest=8)
    books.add_decision(encode_decision(TOPIC, 0, 5), where="d:0")
    books.add_decision(encode_decision(TOPIC, 0, 8), where="d:1")
    books.add_decision(encode_decision(TOPIC, 0, 4), where="d:2")
    books.add_decision(encode_decision(TOPIC, 1, 5), where="d:3")
    books.add_decision(encode_decision("other", 0, 5), where="d:4")
    books.add_decision(encode_decision(TOPIC, 0, 7), where="d:5")
    for value in (b"{", b"", None, b"[]", json.dumps({"decision_id": "a"}).encode(), b"\xff"):
        books.add_decision(value, where="d:6")
    books.add_dead_letter([], where="l:0")

    audit = close(books)

    expected = {"nonexistent": 1, "expired": 1, "wrong_partition": 1, "foreign": 1, "unreadable": 7}
    assert counts(audit) == {"events": 1, "decided": 1} | expected
    assert audit.examples["wrong_partition"] == ["d:3"]


def test_offsets_without_events_are_not_missing(encode_decision: Encode) -> None:
    """Only unanswered offsets at which there is an event are missing; transactions leave others."""
    books = account(end=5, latest=5)
    for offset in (0, 3):
        books.add_decision(encode_decision(TOPIC, 0, offset), where="d")
    assert books.unanswered().tolist() == [1, 2, 4]

    audit = books.close(np.array([2]))

    assert counts(audit) == {"events": 3, "decided": 2, "missing": 1}
    assert audit.examples == {"missing": [f"{TOPIC}:0:2"]}


@settings(max_examples=50)
@given(st.lists(st.integers(0, 9), max_size=30), st.randoms(use_true_random=False))
def test_the_books_agree_with_a_plain_count(outputs: list[int], chance: random.Random) -> None:
    """For any sequence of outputs, the counts are those of a straightforward recount."""
    books = account()
    rejected = {offset for offset in range(10) if chance.random() < 0.5}
    for offset in outputs:
        if offset in rejected:
            books.add_dead_letter(rejection(offset), where="l")
        else:
            books.add_decision(
                json.dumps(
                    {
                        "decision_id": f"{TOPIC}:0:{offset}",
                        "content_id": "c",
                        "action": "allow",
                        "reasons": [],
                        "harms": {},
                        "moderated": True,
                        "input_digest": "i",
                        "bundle": "b",
                        "policy": "p",
                        "calibration": "c",
                    }
                ).encode(),
                where="d",
            )
    late = 0
    for group in (rejected, set(range(10)) - rejected):
        firsts = list(dict.fromkeys(offset for offset in outputs if offset in group))
        late += sum(offset < max(firsts[:place], default=-1) for place, offset in enumerate(firsts))

    audit = close(books)

    assert audit.events == 10
    assert audit.decided == len(set(outputs) - rejected)
    assert audit.dead_lettered == len(set(outputs) & rejected)
    assert audit.missing == 10 - len(set(outputs))
    assert audit.duplicated == sum(count - 1 for count in Counter(outputs).values())
    assert audit.out_of_order == late


def test_sums_keep_a_bounded_number_of_examples() -> None:
    """Adding partitions up adds the counts, keeps five examples, and is sound only if all are."""
    parts = []
    for number in range(3):
        part = PartitionAudit(number)
        for offset in range(4):
            part.count("missing", f"t:{number}:{offset}")
        parts.append(part)

    total = parts[0] + parts[1] + parts[2]

    assert total.missing == 12
    assert total.examples == {"missing": ["t:0:0", "t:0:1", "t:0:2", "t:0:3", "t:1:0"]}
    assert not total.is_sound


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_alone_is_unsound(failure: str) -> None:
    """A single failure of any kind makes a partition unsound."""
    audit = PartitionAudit(0)
    assert audit.is_sound

    audit.count(failure, "t:0:0")

    assert not audit.is_sound
