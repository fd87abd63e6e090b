"""The private names of Faust and aiokafka that the transport stands on, one test each."""

from __future__ import annotations

import importlib
import inspect

import pytest

from stream.kafka.transport import PRIVATE_NAMES

NAMES = [(owner, name) for owner, names in PRIVATE_NAMES.items() for name in names]


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=[f"{owner.rpartition('.')[2]}.{name}" for owner, name in NAMES])
def test_private_name_is_still_there(owner: str, name: str) -> None:
    """An upgrade that takes away a private name we rely on says which one."""
    module, _, cls = owner.rpartition(".")
    source = inspect.getsource(getattr(importlib.import_module(module), cls))
    bases = "".join(inspect.getsource(base) for base in getattr(importlib.import_module(module), cls).__mro__[1:-1])
    assert f"{name}" in source + bases
