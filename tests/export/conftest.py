"""Leaves these tests out where torch is absent, except in CI, which promises them and so must fail."""

from __future__ import annotations

import importlib.util
import os

has_torch = importlib.util.find_spec("torch") is not None

collect_ignore_glob = [] if has_torch or os.environ.get("CI") else ["test_*.py"]

if has_torch:
    import torch

    # Models here are tiny. On a busy machine, threads that wait for each other take a hundred times as long as one.
    torch.set_num_threads(1)
