"""Read, verify and describe a model bundle: the folder that export writes and the service trusts."""

from stream.bundle.calibration import Calibration, HarmCalibration
from stream.bundle.describe import BundleDescription, HarmDescription, describe
from stream.bundle.load import Bundle, load
from stream.bundle.manifest import Manifest, ModelInput

__all__ = [
    "Bundle",
    "BundleDescription",
    "Calibration",
    "HarmCalibration",
    "HarmDescription",
    "Manifest",
    "ModelInput",
    "describe",
    "load",
]
