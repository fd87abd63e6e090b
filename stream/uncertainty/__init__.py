"""Pure maths of what may be believed: calibration, risk thresholds, selection."""
