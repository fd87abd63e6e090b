"""`fairway worker` on a real Kafka: events go in, and what comes out is what it must be, where it must be."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord

from stream import bundle, wiring
from stream.events import Decision
from stream.kafka import deadletter, topics
from stream.kafka.accounts import PartitionAudit
from stream.kafka.audit import audit
from stream.kafka.broker import LocalBroker
from stream.kafka.deadletter import DeadLetter
from stream.policy import compile_policy
from stream.settings import Settings
from tests.bundles import TRUST
from tests.conftest import own_settings
from tests.records import NOW
from tests.topics import Records, Sent, records_of, send
from tests.traffic import Feed
from tests.workers import WorkerProcess, until

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "tests" / "golden" / "policy.yaml"
SETTLE_S = 60.0
PARTITIONS = 3
MARKER = "zyzzyva"
"""A word that is in every event and may be in no log."""
PASSWORD = "quagga-7-quagga"  # noqa: S105 - a password for a test

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartWorker]:
    """Start workers that end with the test."""
    started: list[WorkerProcess] = []

    def begin(settings: Settings, **extra: str) -> WorkerProcess:
        started.append(WorkerProcess(settings, tmp_path / f"worker-{len(started)}.log", extra=extra))
        return started[-1]

    yield begin
    for worker in started:
        worker.close()


def settle(settings: Settings) -> PartitionAudit:
    """Wait until everything is decided and account for it."""
    report = audit(settings, wait_s=SETTLE_S)
    assert report.lag == 0
    assert report.is_sound, report.total
    return report.total


def event(number: int, **fields: Any) -> bytes:
    plain = {
        "id": f"e-{number}",
        "created_at": "2026-01-01T12:00:00Z",
        "role": "output",
        "text": f"{MARKER} {number}",
        "author": MARKER,
        "groups": {"gender": [f"{MARKER}-{number % 2}"]},
    }
    return json.dumps(plain | fields).encode()


def malformed() -> list[tuple[bytes | None, str]]:
    """Inputs that can have no decision, each with the word in it, and why."""
    good = event(0)
    return [
        (None, "tombstone"),
        (good[:-1], "decode_error"),
        (b"\xff" + good, "decode_error"),
        (MARKER.encode(), "decode_error"),
        (good[:-1] + b',"id":"%b"}' % MARKER.encode(), "duplicate_key"),
        (event(0, text=[MARKER]), "schema_error"),
        (event(0, role=MARKER), "schema_error"),
        (event(0, created_at=MARKER), "schema_error"),
        (event(0, id=MARKER * 40), "schema_error"),
        (event(0, groups={MARKER: MARKER}), "schema_error"),
        (event(0, groups={"gender": [MARKER * 20]}), "schema_error"),
        (event(0, generator={MARKER: 1}), "schema_error"),
        (event(0, image={"media_type": MARKER}), "schema_error"),
        (event(0, image={"media_type": "image/png", "data": MARKER}), "image"),
        (event(0, schema_version=2, body=MARKER), "schema_version"),
        (event(0, text=" "), "empty_content"),
        (event(0, created_at="1901-01-01T00:00:00Z"), "timestamp"),
        (event(0, text=MARKER * 143_000), "too_large"),
    ]


def traced(number: int) -> list[tuple[str, bytes]]:
    return [
        ("traceparent", b"00-%032x-%016x-01" % (number + 1, number + 1)),
        ("x-request", MARKER.encode()),
        ("tracestate", b"a=%d" % number),
    ]


@dataclass(frozen=True)
class Run:
    """What one worker made of what it was given, and what it said while doing so."""

    settings: Settings
    given: Records
    decisions: Records
    reviews: Records
    letters: Records
    audit: PartitionAudit
    log: str
    pages: dict[str, tuple[int, str]]
    status: int

    def source(self, record: ConsumerRecord) -> ConsumerRecord:
        """The event that an output of this run is about."""
        topic, partition, offset = place(record)
        assert (topic, partition) == (self.settings.events_topic, record.partition)
        return self.given[partition][offset]


def place(record: ConsumerRecord) -> tuple[str, int, int]:
    """Where the event of a decision, review record or dead letter was."""
    letter = deadletter.decode(record.headers)
    if isinstance(letter, DeadLetter):
        return (*letter.source, letter.offset)
    body = json.loads(record.value)
    topic, partition, offset = body.get("decision", body)["decision_id"].rsplit(":", 2)
    return topic, int(partition), int(offset)


def lags(worker: WorkerProcess) -> list[float]:
    lines = worker.page("/metrics")[1].splitlines()
    return [float(line.split()[1]) for line in lines if line.startswith("fairway_lag_records{")]


def all_of(records: Records) -> list[ConsumerRecord]:
    return [record for some in records.values() for record in some]


def mixture() -> Iterator[Sent]:
    """Two thousand events of all kinds with malformed ones among them, some tombstones and some large."""
    bad = malformed()
    for number in range(2_000):
        value: bytes | None = event(number, surface=("chat", "forum")[number % 2], **unusual(number))
        if number % 50 == 7:
            value = bad[(number // 50) % len(bad)][0]
        yield number % PARTITIONS, b"key-%d" % (number % 100), value, traced(number)


def unusual(number: int) -> dict[str, Any]:
    if number % 50 == 1:
        return {"text": f"{MARKER} {number} " + "long " * 1_000}
    if number % 50 == 2:
        return {"image": {"media_type": "image/png", "url": f"https://{MARKER}.example/"}, "later": {MARKER: MARKER}}
    return {}


@pytest.fixture(scope="module")
def run(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One worker with the stub and one mixture of events, read back from the topics when all is decided."""
    settings = own_settings(
        broker,
        bundle="stub",
        policy=POLICY,
        partitions=PARTITIONS,
        review_event_max_bytes=3_000,
        log_format="json",
        log_level="debug",
    )
    topics.create(settings)
    worker = WorkerProcess(settings, tmp_path_factory.mktemp("run") / "log", extra={"FAIRWAY_SASL_PASSWORD": PASSWORD})
    try:
        send(settings, settings.events_topic, mixture())
        worker.wait_ready()
        total = settle(settings)
        until(lambda: lags(worker) == [0.0] * PARTITIONS, within_s=SETTLE_S)  # the worker hears of its commits last
        pages = {path: worker.page(path) for path in ("/live", "/ready", "/metrics")}
        status = worker.stop()
    finally:
        worker.close()
    names = (settings.events_topic, settings.decisions_topic, settings.review_topic, settings.dead_letter_topic)
    given, decisions, reviews, letters = (records_of(settings, name) for name in names)
    return Run(settings, given, decisions, reviews, letters, total, worker.log(), pages, status)


def test_every_event_has_one_decision_or_one_dead_letter(run: Run) -> None:
    """Two thousand inputs have two thousand outputs, none twice, and as many dead letters as there were bad inputs."""
    outputs = [place(record) for record in all_of(run.decisions) + all_of(run.letters)]
    assert len(outputs) == len(set(outputs)) == 2_000 == run.audit.events
    assert run.audit.dead_lettered == 40
    assert run.audit.duplicated == 0


def test_outputs_keep_partition_key_and_order(run: Run) -> None:
    """An output is in the partition of its event's number, under its key, in the order of the events."""
    for records in (run.decisions, run.reviews, run.letters):
        for partition, outputs in records.items():
            offsets = [place(record)[2] for record in outputs]
            assert all(earlier < later for earlier, later in pairwise(offsets))
            assert [record.key for record in outputs] == [run.given[partition][offset].key for offset in offsets]


def test_a_trace_does_not_end_here(run: Run) -> None:
    """Trace headers travel to everything made of an event; other headers go with a dead letter only."""
    for record in all_of(run.decisions) + all_of(run.reviews):
        assert list(record.headers) == [h for h in run.source(record).headers if h[0] in {"traceparent", "tracestate"}]
    for record in all_of(run.letters):
        assert list(record.headers)[:3] == list(run.source(record).headers)


def test_a_decision_is_complete(run: Run) -> None:
    """A decision has every field, names its event and its bytes, and says what made it."""
    fields = {field.encode_name for field in msgspec.structs.fields(Decision)}
    policy = "sha256:" + sha256(POLICY.read_bytes()).hexdigest()
    for record in all_of(run.decisions):
        source, decision = run.source(record), msgspec.json.decode(record.value, type=Decision)
        assert set(json.loads(record.value)) == fields
        assert decision.decision_id == f"{run.settings.events_topic}:{source.partition}:{source.offset}"
        assert decision.input_digest == "sha256:" + sha256(source.value).hexdigest()
        assert decision.content_id == json.loads(source.value)["id"]
        assert (decision.bundle, decision.provider, decision.policy) == ("stub", "stub", policy)


def test_decisions_are_those_of_the_spine(run: Run) -> None:
    """Through Kafka, slices, threads and rounds, decisions are byte for byte what the pipeline says in one call."""
    expected = decided_here(run.settings, run.given)
    assert {number: [undated(r.value) for r in records] for number, records in run.decisions.items()} == expected


def decided_here(settings: Settings, given: Records) -> dict[int, list[bytes]]:
    """What the pipeline and the encoder say in this process, by partition, but for the time."""
    model = wiring.load_model(settings)
    pipeline = wiring.build_pipeline(settings, model, compile_policy(settings.policy, model.calibration))
    encoder = wiring.build_encoder(settings, model, pipeline)
    made: dict[int, list[bytes]] = {}
    for number, records in given.items():
        moderated = pipeline.run(records, topic=settings.events_topic, partition=number, now=NOW)
        decisions = encoder.decisions(moderated, topic=settings.events_topic, partition=number, now=NOW)
        made[number] = [undated(decision) for decision in decisions]
    return made


def undated(decision: bytes) -> bytes:
    return re.sub(rb'"decided_at":"[^"]*"', b"", decision)


def test_a_person_sees_what_was_received(run: Run) -> None:
    """There is a review record for each decision under review or in the audit, with the event's bytes or the reason."""
    decided = {place(record): record.value for record in all_of(run.decisions)}
    asked = {place(record): record.value for record in all_of(run.reviews)}
    assert asked.keys() >= {at for at, value in decided.items() if json.loads(value)["action"] == "review"}
    whys = Counter(json.loads(value)["why"] for value in asked.values())
    assert set(whys) == {"abstained", "fail_rule", "policy", "audit_sample"}
    omitted = 0
    for (_, partition, offset), value in asked.items():
        given = run.given[partition][offset].value
        assert b'"decision":' + decided[run.settings.events_topic, partition, offset] in value
        if len(given) > 3_000:
            omitted += 1
            assert json.loads(value)["event_omitted"] == "too_large"
        else:
            assert b'"event":' + given in value
    assert omitted > 0


def test_a_dead_letter_is_the_input_itself(run: Run) -> None:
    """A dead letter is the input byte for byte, says why it is there, and repeats nothing of the content."""
    reasons = dict(malformed())
    for record in all_of(run.letters):
        source, letter = run.source(record), deadletter.decode(record.headers)
        assert isinstance(letter, DeadLetter)
        assert (record.key, record.value) == (source.key, source.value)
        assert letter.reason == reasons[source.value]
        assert letter.original == list(source.headers)
        assert (letter.attempts, letter.timestamp_ms) == (1, source.timestamp)
        assert MARKER not in letter.error
    assert {deadletter.decode(record.headers).reason for record in all_of(run.letters)} == set(reasons.values())  # type: ignore[union-attr]


def test_the_pages_tell_how_it_is(run: Run) -> None:
    """A worker with partitions is live and ready, and its metrics add up to what is in the topics."""
    assert run.pages["/live"] == (200, '{"live":true}')
    assert run.pages["/ready"] == (200, '{"ready":true}')
    status, text = run.pages["/metrics"]
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    actions = Counter(json.loads(record.value)["action"] for record in all_of(run.decisions))
    assert status == 200
    assert float(samples["fairway_events_total"]) == 2_000
    for action, count in actions.items():
        assert float(samples[f'fairway_decisions_total{{action="{action}"}}']) == count
    letters = [float(value) for name, value in samples.items() if name.startswith("fairway_dead_letters_total")]
    assert sum(letters) == 40
    assert float(samples["fairway_records_in_hand"]) == float(samples["fairway_bytes_in_hand"]) == 0


def test_no_log_has_content_or_secrets(run: Run) -> None:
    """At the most talkative level, a worker logs nothing of what it read, malformed or not, and no password."""
    assert "worker_started" in run.log
    assert MARKER not in run.log
    assert PASSWORD not in run.log
    assert all(json.loads(line)["event"] for line in run.log.splitlines())


def test_a_worker_leaves_nothing_behind(run: Run) -> None:
    """Stopped by a signal, a worker exits with 0, and has written nothing to the folder it ran in."""
    assert run.status == 0
    assert list(Path.cwd().glob(f"{run.settings.group}*")) == []


def test_a_bundle_is_served(broker: LocalBroker, start: StartWorker) -> None:
    """With the model that ships, a worker decides as the pipeline does in this process, and signs with its digests."""
    settings = own_settings(broker, policy=POLICY, bundle=ROOT / "models" / "lite")
    topics.create(settings)
    texts = ("I will find you and hurt you", "a lovely day", "x", "漢字 🙂", "word " * 700)
    send(settings, settings.events_topic, ((n % 4, None, event(n, text=texts[n % 5]), []) for n in range(40)))
    start(settings).wait_ready()
    assert settle(settings).decided == 40
    loaded, decisions = bundle.load(settings.bundle, TRUST), records_of(settings, settings.decisions_topic)
    expected = decided_here(settings, records_of(settings, settings.events_topic))
    assert {number: [undated(r.value) for r in records] for number, records in decisions.items()} == expected
    first = json.loads(decisions[0][0].value)
    assert (first["bundle"], first["calibration"], first["provider"]) == (
        loaded.digest,
        loaded.calibration_digest,
        "cpu",
    )


def test_a_policy_is_replaced_while_running(broker: LocalBroker, start: StartWorker, tmp_path: Path) -> None:
    """A changed policy is in force from one decision on and for good; a broken one changes nothing and is reported."""
    file = tmp_path / "policy.yaml"
    file.write_bytes(POLICY.read_bytes())
    settings = own_settings(broker, bundle="stub", policy=file, policy_reload_s=0.2, partitions=2, log_format="json")
    topics.create(settings)
    first = "sha256:" + sha256(file.read_bytes()).hexdigest()
    with Feed(settings, rate=500):
        worker = start(settings).wait_ready()
        file.write_text(POLICY.read_text().replace("act_at: 0.10", "act_at: 0.11"))
        second = "sha256:" + sha256(file.read_bytes()).hexdigest()
        until(lambda: f'digest="{second}"' in worker.page("/metrics")[1], within_s=30)
        done = worker.metric("fairway_events_total")
        file.write_text("harms: {hate: {action: exile}}\n")
        until(lambda: 'fairway_policy_reloads_total{result="refused"} 1.0' in worker.page("/metrics")[1], within_s=30)
        until(lambda: worker.metric("fairway_events_total") > done + 500, within_s=30)
        assert f'digest="{second}"' in worker.page("/metrics")[1]
    settle(settings)
    (refused,) = (json.loads(line) for line in worker.log().splitlines() if "policy_refused" in line)
    assert (refused["level"], refused["in_force"]) == ("error", second)
    assert "policy.yaml" in refused["error"]
    for records in records_of(settings, settings.decisions_topic).values():
        policies = [json.loads(record.value)["policy"] for record in records]
        assert policies == sorted(policies, key=[first, second].index)
        assert set(policies) == {first, second}
        for record in records:
            decision = json.loads(record.value)
            assert decision["harms"]["hate"]["act_at"] == (0.10 if decision["policy"] == first else 0.11)


def test_a_foreign_shape_that_is_too_old(broker: LocalBroker, start: StartWorker, tmp_path: Path) -> None:
    """Mapped events are decided like ours, old ones by the fail rule, and no review record has an event if none may."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.read_text().replace("max_age_s: 86400.0", "max_age_s: 3600.0"))
    mapping = ROOT / "ops" / "mappings" / "chat-completions.yaml"
    settings = own_settings(
        broker, bundle="stub", policy=file, mapping=mapping, review_event=False, partitions=1, max_future_s=1e9
    )
    topics.create(settings)
    values = [answer(n, created=1_500_000_000 if n % 2 else 2_500_000_000) for n in range(60)] + [b"{}"]
    send(settings, settings.events_topic, ((0, None, value, []) for value in values))
    start(settings).wait_ready()
    assert settle(settings).dead_lettered == 1
    decisions = [json.loads(record.value) for record in records_of(settings, settings.decisions_topic)[0]]
    assert [decision["content_id"] for decision in decisions] == [f"chatcmpl-{n}" for n in range(60)]
    for number, decision in enumerate(decisions):
        assert ("fail:expired" in decision["reasons"]) == bool(number % 2)
        assert decision["mapping"] == "sha256:" + sha256(mapping.read_bytes()).hexdigest()
        assert (decision["surface"], decision["locale"]) == ("support", "de")
        assert decision["groups"] == {"age": ["18-24"]}
    only_old = [decision for decision in decisions if decision["reasons"] == ["fail:expired"]]
    assert only_old
    assert {(decision["action"], decision["moderated"]) for decision in only_old} == {("allow", False)}
    reviews = [json.loads(record.value) for record in records_of(settings, settings.review_topic)[0]]
    assert {(review["event"], review["event_omitted"]) for review in reviews} == {(None, "switched_off")}
    (letter,) = records_of(settings, settings.dead_letter_topic)[0]
    assert deadletter.decode(letter.headers).reason == "mapping_error"  # type: ignore[union-attr]


def answer(number: int, *, created: int) -> bytes:
    """A record of a chat gateway's log."""
    asked = {
        "user": "u",
        "messages": [{"role": "user", "content": "?"}],
        "metadata": {"surface": "support", "language": "de", "age_band": "18-24"},
    }
    choice = {"message": {"role": "assistant", "content": f"text {number}"}}
    said = {"id": f"chatcmpl-{number}", "created": created, "model": "m-7b", "choices": [choice]}
    return json.dumps({"request": asked, "response": said}).encode()
