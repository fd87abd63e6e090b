"""Figures, cards and pages for people to read."""
