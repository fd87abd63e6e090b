"""Pure counting of decisions by group: panes, intervals, reports."""

from __future__ import annotations

from stream.fairness.compare import ReportSettings
from stream.fairness.merge import FairnessMerger, Totals
from stream.fairness.partition import CountSettings, FairnessCounter
from stream.fairness.report import FairnessReport

__all__ = ["CountSettings", "FairnessCounter", "FairnessMerger", "FairnessReport", "ReportSettings", "Totals"]
