"""What aiokafka's fetcher does with the batches we hand to it."""

from __future__ import annotations

import importlib
import inspect
import re

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords

from stream.kafka import batches
from stream.kafka.batches import PRIVATE_NAMES, Batches, FetchedRecords
from tests.rawbatches import raw_batch, raw_record


def test_private_name_is_still_there() -> None:
    """An upgrade that takes away a name we replace says which one."""
    assert [
        f"{module}.{name}"
        for module, names in PRIVATE_NAMES.items()
        for name in names
        if not hasattr(importlib.import_module(module), name)
    ] == []


def test_the_fetcher_asks_for_nothing_we_do_not_have() -> None:
    """Every attribute that the fetcher uses of a fetch's records or of a batch is one that ours have."""
    source = inspect.getsource(PartitionRecords) + inspect.getsource(Fetcher)
    records = Batches(raw_batch([raw_record(0, b"v")]).data)
    of_records = set(re.findall(r"\brecords\.(\w+)", source))
    assert of_records == {"has_next", "next_batch", "size_in_bytes"}
    assert [name for name in of_records if not hasattr(records, name)] == []
    batch = records.next_batch()
    of_batch = set(re.findall(r"\bnext_batch\.(\w+)", source))
    assert {"validate_crc", "next_offset", "is_control_batch"} <= of_batch
    assert [name for name in of_batch if not hasattr(batch, name)] == []


def test_the_fetcher_is_given_our_batches() -> None:
    """The fetcher looks its classes of records up by the names that are replaced, at each fetch."""
    batches.install()
    assert fetcher.MemoryRecords is Batches
    assert fetcher.PartitionRecords is FetchedRecords
    assert {"MemoryRecords", "PartitionRecords"} <= set(Fetcher._proc_fetch_request.__code__.co_names)


def test_the_fetcher_says_where_a_fetch_begins() -> None:
    """The records of a fetch are told the offset that was asked for, by the place it has among the arguments."""
    names = list(inspect.signature(PartitionRecords.__init__).parameters)
    assert names[:5] == ["self", "tp", "records", "aborted_transactions", "fetch_offset"]
