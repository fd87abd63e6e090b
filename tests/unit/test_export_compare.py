"""Comparisons of two judges whose differences are planted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

from export.data.content import Text, event_of
from export.errors import ExportError
from export.measuring.compare import Comparison, Difference, PartChange, compare
from export.measuring.evaluate import measure
from export.measuring.metrics import average_precision
from export.measuring.scored import Judge, Scored, decide, open_judge, score
from stream.errors import ConfigError
from stream.events import EventBatch, Scores
from stream.scoring import StubScorer
from stream.uncertainty import Calibrator

TEXTS = 600


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 made-up texts of two sources, a third about a group, with labels that the stub knows nothing of."""
    draw = np.random.default_rng(4)
    path = tmp_path_factory.mktemp("data") / "made_up.jsonl"
    rows: list[dict[str, object]] = [
        {
            "id": f"id-{number}",
            "text": "words " + "".join(chr(97 + int(digit)) for digit in str(number)),
            "source": "ab"[number % 2],
            "groups": ["gender:women"] if number % 3 == 0 else [],
            "labels": {"hate": int(draw.random() < 0.3), "violence": int(draw.random() < 0.3)},
            "unsafe": None,
        }
        for number in range(TEXTS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def stub() -> Judge:
    """The stub with the default policy."""
    return open_judge(Path("stub"))


def shifted(judge: Judge, by: float) -> Judge:
    """The same model, all of whose logits are higher by so much."""
    calibrator = judge.pipeline.calibrator
    pipeline = replace(judge.pipeline, calibrator=Calibrator(calibrator.a, calibrator.b + by))
    return replace(judge, name="shifted", pipeline=pipeline)


def run(first: Judge, second: Judge, data: Path) -> tuple[Comparison, Scored]:
    scored = score([first, second], [data], part=None, say=lambda _: None)
    return compare(first, second, scored), scored


def of_harm(comparison: Comparison, harm: str, figure: str = "average precision") -> Difference:
    (found,) = (row for row in comparison.differences if (row.harm, row.figure) == (harm, figure))
    return found


def of_part(comparison: Comparison, part: str) -> PartChange:
    (found,) = (row for row in comparison.parts if row.part == part)
    return found


def test_a_bundle_is_not_different_from_itself(stub: Judge, data: Path) -> None:
    """The same judge twice: every difference is zero with an interval of no width, and no decision changes."""
    comparison, _ = run(stub, stub, data)
    assert {(row.difference, row.interval.low, row.interval.high) for row in comparison.differences} == {(0, 0, 0)}
    assert comparison.changes == ()
    assert {(row.stricter, row.milder) for row in comparison.parts} == {(0, 0)}


def test_figures_are_those_of_each_bundle(stub: Judge, data: Path) -> None:
    """Both columns are the average precision of that judge's scores, and the difference is second minus first."""
    other = replace(stub, pipeline=replace(stub.pipeline, scorer=StubScorer(stub.harms[::-1])), harms=stub.harms[::-1])
    comparison, scored = run(stub, other, data)
    hate = of_harm(comparison, "hate")
    expected = [
        average_precision(items.probabilities[:, judge.harms.index("hate")], scored.items[0].labels[:, 1])
        for judge, items in zip((stub, other), scored.items, strict=True)
    ]
    assert [hate.first, hate.second] == pytest.approx(expected)
    assert hate.difference == pytest.approx(expected[1] - expected[0])
    assert hate.interval.low < hate.difference < hate.interval.high
    assert (hate.n, hate.positives) == (TEXTS, scored.items[0].labels[:, 1].sum())


def test_a_shift_changes_no_ranking_but_decisions(stub: Judge, data: Path) -> None:
    """Higher scores all round rank alike and are stricter: on harmless and harmful texts both, never milder."""
    comparison, scored = run(stub, shifted(stub, 2.0), data)
    assert of_harm(comparison, "hate").difference == pytest.approx(0, abs=1e-9)
    whole = of_part(comparison, "all")
    assert (whole.n, whole.milder) == (TEXTS, 0)
    assert whole.stricter == len(comparison.changes) > 20
    allowed = [decided.actions == 0 for decided in scored.decided]
    harmless = scored.items[0].any_harm == 0
    assert whole.harmless == harmless.sum() == 0  # four of six harms are unknown, so no text is known to be harmless
    assert whole.harmless_not_allowed is None
    harmful = scored.items[0].any_harm == 1
    change = (~allowed[1][harmful]).mean() - (~allowed[0][harmful]).mean()
    assert whole.harmful_not_allowed == pytest.approx(change)
    assert whole.harmful_interval is not None
    assert whole.harmful_interval.low < change < whole.harmful_interval.high


def test_parts_add_up(stub: Judge, data: Path) -> None:
    """Changes by source add up to those of the whole, and the group's are among them."""
    comparison, _ = run(stub, shifted(stub, 2.0), data)
    sources = [of_part(comparison, f"source={name}").stricter for name in "ab"]
    assert sum(sources) == of_part(comparison, "all").stricter
    women = of_part(comparison, "group=gender:women")
    assert women.n == TEXTS // 3
    assert 0 < women.stricter < sum(sources)


def test_changed_texts_are_named_by_id_largest_first(stub: Judge, data: Path) -> None:
    """Every text whose action changed is named once, by its id, and the one that moved most is first."""
    comparison, scored = run(stub, shifted(stub, 2.0), data)
    changed = {scored.ids[row] for row in np.flatnonzero(scored.decided[0].actions != scored.decided[1].actions)}
    assert {change.id for change in comparison.changes} == changed
    moved = [change.moved for change in comparison.changes]
    assert moved == sorted(moved, reverse=True)
    assert all(change.first != change.second for change in comparison.changes)


def test_a_paired_interval_is_narrower_than_two(stub: Judge, data: Path) -> None:
    """What two similar judges have in common cancels: the interval of the difference is far narrower than their own."""
    near = replace(stub, pipeline=replace(stub.pipeline, scorer=_Noisy(0.2)))
    comparison, scored = run(stub, near, data)
    (own,) = (row for row in measure(scored.items[0], harms=stub.harms) if (row.harm, row.part) == ("hate", "all"))
    assert own.average_precision_low is not None
    assert own.average_precision_high is not None
    hate = of_harm(comparison, "hate").interval
    assert 0 < hate.high - hate.low < (own.average_precision_high - own.average_precision_low) / 2


class _Noisy(StubScorer):
    """The stub, each logit off by a little that depends on the text."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self._size = size

    def score(self, events: EventBatch) -> Scores:
        scores = super().score(events)
        noise = np.array([[len(text or "") % 7 + sum(map(ord, text or "")) % 5] for text in events.texts])
        return replace(scores, logits=(scores.logits + self._size * (noise % 3 - 1)).astype(np.float32))


def test_judges_without_a_harm_in_common_cannot_be_compared(stub: Judge, data: Path) -> None:
    """Two bundles that score different harms are refused, not compared on nothing."""
    scored = score([stub, stub], [data], part=None, say=lambda _: None)
    with pytest.raises(ConfigError, match="no harm in common"):
        compare(stub, replace(stub, harms=("spam",)), scored)


def test_scores_are_the_workers(stub: Judge) -> None:
    """Probabilities and actions are those of the pipeline that a worker runs, text by text."""
    texts = [f"text {number}" for number in range(1500)]
    events = [event_of(Text(text), id="it", role="post") for text in texts]
    decided, failed = decide(stub, events)
    again, _ = decide(stub, events[700:710])
    assert failed == {}
    assert np.array_equal(decided.probabilities[700:710], again.probabilities)
    assert np.array_equal(decided.actions[700:710], again.actions)
    expected = stub.pipeline.calibrator.apply(_logits(stub, texts[:1]))
    assert np.array_equal(decided.probabilities[:1], expected)


def _logits(judge: Judge, texts: list[str]) -> NDArray[np.float32]:
    """The stub's rule, by hand."""
    levels = StubScorer(judge.harms)
    hashes = np.array([crc32(text.encode()) for text in texts], dtype=np.uint32)
    return np.asarray(levels._levels[(hashes[:, None] * levels._mixers) >> np.uint32(24)])


def test_texts_that_cannot_be_scored_are_named(stub: Judge, tmp_path: Path) -> None:
    """A row that the pipeline rejects is counted with its file, line and reason, and the others are measured."""
    path = tmp_path / "a.jsonl"
    good = {"text": "fine", "labels": {"hate": 0, "spam": 1}}
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, "text": "x" * 2_000_000}) + "\n")
    scored = score([stub], [path], part=None, say=lambda _: None)
    assert scored.ids == ("a.jsonl:1",)
    assert scored.labels_unknown == ("spam",)
    (bad,) = scored.unusable.named
    assert (bad.file, bad.line) == ("a.jsonl", 2)
    assert bad.why.startswith("too_large: ")


def test_a_split_is_the_recipes(stub: Judge, data: Path) -> None:
    """Asked for one split, only its texts are scored, and the four splits together are all texts."""
    ids: list[str] = []
    for part in ("train", "validation", "calibration", "test"):
        ids += score([stub], [data], part=part, say=lambda _: None).ids
    assert sorted(ids) == sorted(f"id-{number}" for number in range(TEXTS))
    with pytest.raises(ExportError, match="there is no split 'held-out'"):
        score([stub], [data], part="held-out", say=lambda _: None)


def test_nothing_to_measure_is_an_error(stub: Judge, tmp_path: Path) -> None:
    """Data of which no line can be used is refused, and the first bad line named."""
    (tmp_path / "a.jsonl").write_text("{\n")
    with pytest.raises(ExportError, match=r"1 lines could not; the first is line 1 of a\.jsonl"):
        score([stub], [tmp_path / "a.jsonl"], part=None, say=lambda _: None)


def test_too_many_texts_are_refused(monkeypatch: pytest.MonkeyPatch, stub: Judge, data: Path) -> None:
    """More texts than fit in memory are refused with what to do, not read until memory ends."""
    monkeypatch.setattr("export.data.labelled.MAX_ROWS", 100)
    with pytest.raises(ExportError, match="more than 100 labelled rows"):
        score([stub], [data], part=None, say=lambda _: None)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nothing numpy says of empty means goes unseen."""
    with np.errstate(all="raise", under="ignore"):
        yield
