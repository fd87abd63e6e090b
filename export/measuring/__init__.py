"""What a model is worth: metrics with intervals, calibration and thresholds, comparison, sources left out."""
