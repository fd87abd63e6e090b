"""Micro-batches and windows: every row and every token is where it should be, whatever the lengths."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.scoring.batching import MicroBatch, length_classes, micro_batches, most_rows
from stream.scoring.windows import lay_windows

WINDOW = 256
LENGTHS = st.lists(st.integers(1, WINDOW), max_size=200).map(lambda lengths: np.array(lengths, dtype=np.int64))
BUDGETS = st.integers(1, 4096)
TOKEN_COUNTS = st.lists(st.integers(0, 300), max_size=30).map(lambda counts: np.array(counts, dtype=np.int64))


@given(lengths=LENGTHS, max_tokens=BUDGETS)
def test_every_row_is_in_one_batch(lengths: np.ndarray, max_tokens: int) -> None:
    """Every row is in exactly one micro-batch, so that filling results in by row restores the order."""
    batches = micro_batches(lengths, length_classes(WINDOW), max_tokens=max_tokens)
    rows = np.concatenate([batch.rows for batch in batches]) if batches else np.empty(0)
    assert sorted(rows.tolist()) == list(range(len(lengths)))


@given(lengths=LENGTHS, max_tokens=BUDGETS)
def test_a_batch_keeps_the_budget(lengths: np.ndarray, max_tokens: int) -> None:
    """No call has more tokens than the budget, padding included, unless it is a single row."""
    for batch in micro_batches(lengths, length_classes(WINDOW), max_tokens=max_tokens):
        assert len(batch.rows) >= 1
        assert len(batch.rows) * batch.length <= max_tokens or len(batch.rows) == 1


@given(lengths=LENGTHS, max_tokens=BUDGETS)
def test_padding_depends_on_the_row_alone(lengths: np.ndarray, max_tokens: int) -> None:
    """A row is padded to the same length in company as alone, and never cut."""
    classes = length_classes(WINDOW)
    for batch in micro_batches(lengths, classes, max_tokens=max_tokens):
        for row in batch.rows:
            (alone,) = micro_batches(lengths[row : row + 1], classes, max_tokens=max_tokens)
            assert alone.length == batch.length >= lengths[row]


@given(window=st.integers(1, 8192))
def test_classes_end_at_the_window(window: int) -> None:
    """Padded lengths rise, end at the window, and waste at most a third of any row longer than a few tokens."""
    classes = length_classes(window)
    assert classes[-1] == window
    assert (np.diff(classes) > 0).all()
    shortest = np.concatenate([[1], classes[:-1] + 1])
    assert (classes[shortest >= 8] <= 1.5 * shortest[shortest >= 8]).all()


@given(count=st.integers(1, 40), idle=st.integers(0, 40), fewest=st.integers(1, 2))
def test_a_failed_call_shrinks_to_single_rows(count: int, idle: int, fewest: int) -> None:
    """Trying smaller calls ends, with every row in a call of its own that has no more idle rows than it must."""
    calls = [MicroBatch(np.arange(count), 8, idle).at_least(fewest)]
    ended = []
    while calls:
        call = calls.pop()
        assert len(call.rows) + call.idle >= fewest
        smaller = call.smaller(fewest=fewest)
        calls += smaller
        if not smaller:
            ended.append(call)
    assert sorted(int(row) for call in ended for row in call.rows) == list(range(count))
    assert all(len(call.rows) + call.idle == fewest for call in ended)


@given(length=st.integers(1, WINDOW), max_tokens=BUDGETS)
def test_a_full_call_is_as_full_as_can_be(length: int, max_tokens: int) -> None:
    """As many rows as fit the budget, not one more."""
    rows = most_rows(length, max_tokens=max_tokens)
    assert rows == 1 or rows * length <= max_tokens
    assert (rows + 1) * length > max_tokens


@given(
    counts=TOKEN_COUNTS,
    width=st.integers(1, 40),
    overlap=st.integers(0, 39),
    max_windows=st.integers(1, 300),
)
def test_windows_read_every_token_or_say_so(counts: np.ndarray, width: int, overlap: int, max_windows: int) -> None:
    """A text's windows cover its tokens from the first on, without a gap, and all of them unless it is `cut`."""
    overlap %= width
    windows = lay_windows(counts, width=width, overlap=overlap, max_windows=max_windows)
    begins = np.cumsum(counts) - counts
    for text, count in enumerate(counts.tolist()):
        mine = slice(windows.firsts[text], windows.firsts[text] + windows.counts[text])
        read: list[int] = []
        for start, length in zip(windows.starts[mine] - begins[text], windows.lengths[mine], strict=True):
            assert 0 <= length <= width
            read += range(start, start + length)
        assert set(read) == set(range(count if not windows.cut[text] else max(read) + 1))
        assert windows.cut[text] == (len(set(read)) < count)
        assert 1 <= windows.counts[text] <= max_windows


@given(counts=TOKEN_COUNTS, width=st.integers(2, 40), overlap=st.integers(1, 39))
def test_neighbouring_windows_share_the_overlap(counts: np.ndarray, width: int, overlap: int) -> None:
    """Each window after the first of a text begins with the last `overlap` tokens of the one before, and reads on."""
    overlap %= width
    windows = lay_windows(counts, width=width, overlap=overlap, max_windows=1000)
    ends = windows.starts + windows.lengths
    follows = np.setdiff1d(np.arange(len(ends)), windows.firsts)
    assert (ends[follows - 1] - windows.starts[follows] == overlap).all()
    assert (ends[follows] > ends[follows - 1]).all()
