"""Fairness by brute force: what the reports of a set of decisions must say, counted decision by decision."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from aiokafka import ConsumerRecord

__all__ = ["Counted", "Key", "by_hand", "final", "restated"]

Counted = dict[str, tuple[int, int]]
"""By group, `` for all that have the axis: of how many, and how many."""


class Key(NamedTuple):
    """What a report is about."""

    pane: float
    axis: str
    quantity: str
    about: str | None


def by_hand(decisions: Iterable[bytes], *, pane_s: float) -> dict[Key, Counted]:
    """Count each distinct `decision_id` once, under every key a report of it has."""
    distinct = {decision["decision_id"]: decision for decision in map(json.loads, decisions)}
    panes: defaultdict[float, list[dict[str, Any]]] = defaultdict(list)
    for decision in distinct.values():
        panes[datetime.fromisoformat(decision["created_at"]).timestamp() // pane_s * pane_s].append(decision)
    counts: defaultdict[Key, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for pane, inside in panes.items():
        actions, harms = {d["action"] for d in inside}, {harm for d in inside for harm in d["harms"]}
        for decision in inside:
            for axis, groups in decision["groups"].items():
                for quantity, about, is_of, is_counted in _quantities(decision, actions, harms):
                    for group in {"", *groups} if groups else ():
                        cell = counts[Key(pane, axis, quantity, about)][group]
                        cell[0] += is_of
                        cell[1] += is_counted
    return {key: {group: (of, n) for group, (of, n) in cells.items()} for key, cells in counts.items()}


def _quantities(
    decision: dict[str, Any], actions: set[str], harms: set[str]
) -> Iterator[tuple[str, str | None, bool, bool]]:
    for action in actions:
        yield "action_rate", action, True, decision["action"] == action
    yield "moderated_rate", None, True, decision["moderated"]
    for harm in harms:
        selection = decision["harms"].get(harm, {}).get("selection")
        yield "selection_rate", harm, selection is not None, selection == "harmful"
        yield "abstention_rate", harm, selection is not None, selection == "abstain"


def final(reports: Iterable[ConsumerRecord]) -> dict[Key, Counted]:
    """What the reports say in the end: of those with one key, the one with the largest revision."""
    latest: dict[bytes, dict[str, Any]] = {}
    for record in reports:
        report = json.loads(record.value)
        if record.key not in latest or report["revision"] >= latest[record.key]["revision"]:
            latest[record.key] = report
    return {_key(report): _counted(report) for report in latest.values()}


def restated(reports: Iterable[ConsumerRecord]) -> list[str]:
    """Keys under which two reports of one revision say different things."""
    said: dict[tuple[bytes, int], dict[str, Any]] = {}
    wrong = []
    for record in reports:
        report = {name: value for name, value in json.loads(record.value).items() if name != "basis"}
        if said.setdefault((record.key, report["revision"]), report) != report:
            wrong.append(record.key.decode())
    return wrong


def _key(report: dict[str, Any]) -> Key:
    start = datetime.fromisoformat(report["pane_start"]).timestamp()
    return Key(start, report["axis"], report["quantity"], report["harm"] or report["action"])


def _counted(report: dict[str, Any]) -> Counted:
    groups = {row["group"]: (row["n"], row.get("count", 0)) for row in report["groups"]}
    return groups | {"": (report["n"], report["count"] or 0)}
