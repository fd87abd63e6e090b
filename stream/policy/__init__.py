"""What happens to content: thresholds and rules, as data."""
