"""The fairness report as it is published: one table for one pane, axis and quantity, each group against the rest.

A report does not say whether a difference is unfair. It says what was counted, how sure one can be of it, and how large
a gap chance alone would make. Alarms are for tests that may be looked at every minute, which these intervals may not.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from stream.events import SCHEMA_VERSION
from stream.fairness.observation import Uncounted

__all__ = [
    "Basis",
    "Ends",
    "FairnessReport",
    "GapRecord",
    "GroupRow",
    "Quantity",
    "VersionRecord",
    "report_key",
]

Quantity = Literal["action_rate", "moderated_rate", "selection_rate", "abstention_rate"]
Ends = tuple[float | None, float | None]
"""The ends of an interval; null where it has none."""


class GroupRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One group of a report, against the rest: all decisions that have the axis and are not in the group.

    `status` is `ok` where the two are compared. It is `not_enough_data` where the group or the rest has fewer than
    `min_group_n` decisions; that is no finding of fairness. What cannot be said is left out: `rate` where the group is
    too small, all that follows where the rest is too; `ratio` where the rest's rate is zero; an end of `ratio_interval`
    that the data do not bound is null.
    """

    group: str
    status: Literal["ok", "not_enough_data"]
    n: int
    count: int | None = None
    rate: float | None = None
    interval: Ends | None = None
    rest_n: int | None = None
    rest_rate: float | None = None
    difference: float | None = None
    difference_interval: Ends | None = None
    ratio: float | None = None
    ratio_interval: Ends | None = None


class GapRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Largest rate minus smallest, over the `groups` with enough data; see `stream.fairness.gap.Gap`."""

    groups: int
    difference: float
    ratio: float | None
    null_median: float


class VersionRecord(msgspec.Struct, frozen=True):
    """Digests of a bundle and a policy that made decisions of the pane, empty where decisions do not say."""

    bundle: str
    policy: str


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What a report rests on, as of when it was made. It is no part of what makes two reports equal.

    `partitions` were merged; `waiting` is how many have not closed the pane, so that the report may be revised. `late`
    and `uncounted` are totals since counting began, over all panes: records that are in no report.
    """

    partitions: int
    waiting: int
    late: int
    uncounted: dict[Uncounted, int]


class FairnessReport(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity by group along one axis, for the decisions created in one pane.

    `quantity` is the share of decisions with `action` (`action_rate`), that were moderated at all (`moderated_rate`),
    where `harm` was selected as harmful (`selection_rate`, demographic parity) or where the model abstained on `harm`
    (`abstention_rate`). The last two are of the decisions that speak of the harm, those not scored left out.

    `n`, `count`, `rate` and `interval` are of all decisions that have the axis; `pane_n` are all decisions of the pane.
    An `interval` is Wilson's, a `difference_interval` Newcombe's, a `ratio_interval` Katz', each at `confidence` alone.

    `revision` is `pane_n`: it only grows, so of two reports with one key the larger supersedes the smaller, and equal
    ones are the same report made twice.
    """

    schema_version: int = SCHEMA_VERSION
    pane_start: datetime
    pane_end: datetime
    revision: int
    axis: str
    group_meaning: str
    quantity: Quantity
    harm: str | None
    action: str | None
    confidence: float
    min_group_n: int
    pane_n: int
    n: int
    count: int | None
    rate: float | None
    interval: Ends | None
    gap: GapRecord | None
    groups: list[GroupRow]
    groups_omitted: int
    versions: list[VersionRecord]
    versions_omitted: bool
    basis: Basis


def report_key(report: FairnessReport) -> bytes:
    """Key of a report's record: pane, axis and quantity, as a JSON array. Of reports with one key the last holds."""
    about = report.harm or report.action
    return msgspec.json.encode([report.pane_start, report.pane_end, report.axis, report.quantity, about])
