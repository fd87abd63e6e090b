"""Pure counting of decisions by group: panes, intervals, reports."""
