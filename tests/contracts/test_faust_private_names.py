"""The private names of Faust and aiokafka that the transport stands on, one test each."""

from __future__ import annotations

import importlib
import inspect
from functools import cache

import pytest

from stream.kafka.transport import PRIVATE_NAMES

NAMES = [(owner, name) for owner, names in PRIVATE_NAMES.items() for name in names]


@cache
def source_of(owner: str) -> str:
    """The source of a class and its bases."""
    module, _, name = owner.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    return "".join(map(inspect.getsource, cls.__mro__[:-1]))


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=[f"{owner.rpartition('.')[2]}.{name}" for owner, name in NAMES])
def test_private_name_is_still_there(owner: str, name: str) -> None:
    """An upgrade that takes away a private name we rely on says which one."""
    assert name in source_of(owner)
