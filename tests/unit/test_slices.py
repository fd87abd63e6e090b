"""How fetched records are cut into slices: in order, and none too large to be scored or held."""

from __future__ import annotations

from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.ledger import HEADER_BYTES, UNIT_MAX_BYTES
from stream.kafka.transport import _runs

LARGE = 400_000


def record(key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes | None], ...]) -> ConsumerRecord:
    """A record as aiokafka gives it."""
    sizes = [-1 if content is None else len(content) for content in (key, value)]
    return ConsumerRecord("t", 0, 0, 0, 0, key, value, None, *sizes, headers)


def sizes(*records: ConsumerRecord, max_records: int = 1000) -> list[tuple[int, int]]:
    """How many records each run has, and its size in bytes."""
    return [(len(run), size) for run, size in _runs(records, max_records)]


contents = st.none() | st.sampled_from([b"", b"x", bytes(LARGE)])


@given(
    st.lists(st.tuples(contents, contents, st.lists(st.tuples(st.just("n"), contents), max_size=3)), min_size=1),
    st.integers(1, 5),
)
def test_no_run_is_too_large(
    made: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]], max_records: int
) -> None:
    """Runs are the records in order, and one of several records is within both bounds."""
    records = [record(key, value, tuple(headers)) for key, value, headers in made]
    runs = list(_runs(records, max_records))
    assert [found for run, _ in runs for found in run] == records
    assert all(len(run) <= max_records for run, _ in runs)
    assert all(size <= UNIT_MAX_BYTES for run, size in runs if len(run) > 1)


def test_whatever_a_producer_fills_a_record_with_counts() -> None:
    """Most of a megabyte in keys or headers are as many as in values, and headers without content are something too."""
    large = bytes(LARGE)
    kinds = [record(large, None, ()), record(None, large, ()), record(None, None, (("n", large),))]
    for kind in kinds:
        assert [count for count, _ in sizes(*[kind] * 4)] == [2, 2]
    assert sizes(record(None, None, (("", None),) * 1000)) == [(1, 1000 * HEADER_BYTES)]
    assert sizes(record(None, None, ())) == [(1, 0)]
