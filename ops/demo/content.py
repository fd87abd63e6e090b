"""What is played: every line of `content.jsonl`, written for this demo, and the malformed records, well mixed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from ops.demo.malformed import malformed

__all__ = ["CONTENT", "Item", "items"]

CONTENT = Path(__file__).with_name("content.jsonl")
"""Each line is an event as it is. Its id begins with what was meant by it: benign, borderline or harmful."""

SEED = 7
"""One order for every run, in which kinds, surfaces and languages mix."""


@dataclass(frozen=True, slots=True)
class Item:
    """One record to play: its key, what a screen may show of it, and its value made at the time it is sent."""

    key: bytes
    shown: str
    value: Callable[[datetime], bytes | None]


def items() -> list[Item]:
    """Read and mix everything; the order is the same each time."""
    events = [json.loads(line) for line in CONTENT.read_text(encoding="utf-8").splitlines()]
    mixed = [Item(event["id"].encode(), _shown(event), partial(_fresh, event)) for event in events]
    mixed += [
        Item(f"malformed-{number:03}".encode(), record.name, partial(_as_it_is, record.value))
        for number, record in enumerate(malformed(datetime.now(UTC)))
    ]
    Random(SEED).shuffle(mixed)
    return mixed


def _shown(event: dict[str, Any]) -> str:
    return event.get("text") or f"({event['image']['url'].rpartition('/')[2]})"


def _fresh(event: dict[str, Any], now: datetime) -> bytes:
    return json.dumps(event | {"created_at": now.isoformat()}, ensure_ascii=False).encode()


def _as_it_is(value: bytes | None, _now: datetime) -> bytes | None:
    return value
