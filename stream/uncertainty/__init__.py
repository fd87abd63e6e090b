"""Pure maths of what may be believed: calibration, thresholds from stated risks, selection."""

from stream.uncertainty.calibration import Calibrator
from stream.uncertainty.selective import select

__all__ = ["Calibrator", "select"]
