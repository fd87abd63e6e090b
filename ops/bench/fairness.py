"""What the fairness stage costs per decision: counting, state records and reports, on one core and with no Kafka.

Usage: python -m ops.bench.fairness [DECISIONS]
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import numpy as np

from stream.events import Decision, HarmDecision, LineRecord
from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings

__all__ = ["measure"]

HARMS = ("sexual", "hate", "harassment", "dangerous", "violence", "self_harm")
AXES = {"language": 10, "gender": 3, "generator": 27}
"""40 groups on three axes: each decision is in three groups, of 810 combinations."""
START = 1_767_225_600
SLICE = 1024
ROUNDS = 7


def measure(decisions: int, *, panes: int, harmless: float) -> dict[str, float]:
    """Costs for so many decisions spread over panes, each harm of each decision being harmless with this probability.

    The best of `ROUNDS`, in processor time, so that other work on the machine does not count.
    """
    records = list(_records(decisions, panes=panes, harmless=harmless))
    slices = [records[begin : begin + SLICE] for begin in range(0, decisions, SLICE)]
    settings, seconds = CountSettings(), []
    for _ in range(ROUNDS):
        counter, merger = FairnessCounter("t:0", settings), FairnessMerger(settings, ReportSettings())
        began = time.process_time()
        for part in slices:
            counter.count(part)
        counter.snapshot()  # spreads what is left over the cells, so it is part of the cost of counting
        counted = time.process_time()
        states = counter.snapshot()
        written = time.process_time()
        for key, state in states:
            merger.update(key, state)
        reports = merger.finish()
        seconds.append((counted - began, written - counted, time.process_time() - written))
    count, snapshot, report = np.min(seconds, axis=0).tolist()
    return {
        "panes": panes,
        "harmless": harmless,
        "count_us_per_decision": round(count / decisions * 1e6, 2),
        "snapshot_ms": round(snapshot * 1e3, 2),
        "state_bytes": sum(len(state or b"") for _, state in states),
        "reports": len(reports),
        "reports_ms": round(report * 1e3, 1),
        "largest_report_bytes": max(len(value) for _, value in reports),
    }


def _records(decisions: int, *, panes: int, harmless: float) -> Iterator[LineRecord]:
    draw = random.Random(7)
    for i in range(decisions):
        at = START + i * 60 * panes / decisions
        found = {
            harm: "harmless" if draw.random() < harmless else draw.choice(["abstain", "harmful"]) for harm in HARMS
        }
        value = Decision(
            decision_id=f"content.events:0:{i}",
            content_id=f"content-{i}",
            action="allow" if set(found.values()) == {"harmless"} else "review",
            reasons=[],
            harms={harm: HarmDecision(round(draw.random(), 6), chosen, 0.9, 0.2) for harm, chosen in found.items()},  # type: ignore[arg-type]
            moderated=True,
            bundle="sha256:" + "a" * 64,
            policy="sha256:" + "b" * 64,
            calibration="sha256:" + "c" * 64,
            input_digest=f"sha256:{i:064x}",
            created_at=datetime.fromtimestamp(at, UTC),
            decided_at="2026-01-01T00:00:00.000Z",
            review_propensity=0.01,
            groups={axis: [f"{axis} {draw.randrange(groups)}"] for axis, groups in AXES.items()},
            role="output",
            surface="chat",
            provider="cpu",
        )
        yield LineRecord(i, msgspec.json.encode(value), timestamp=int(at * 1000))


def main() -> None:
    """Print a line of JSON for each case."""
    decisions = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    for panes, harmless in ((1, 0.99), (1, 0.95), (6, 0.99), (6, 0.95)):
        print(json.dumps({"decisions": decisions} | measure(decisions, panes=panes, harmless=harmless) | machine))  # noqa: T201


if __name__ == "__main__":
    main()
