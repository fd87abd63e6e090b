"""Fairway: moderates generated content in Kafka, abstains where it does not know, and watches group fairness."""

__version__ = "0.1.0"
