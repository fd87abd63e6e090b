"""Read, verify and describe a model bundle: the folder that export writes and the service trusts."""

from stream.bundle.calibration import Calibration, HarmCalibration, RoleCalibration
from stream.bundle.describe import BundleDescription, HarmDescription, describe
from stream.bundle.load import Bundle, load
from stream.bundle.manifest import ImageInput, Manifest, ModelInput, PolicyInput, TextInput
from stream.bundle.signature import Trust, TrustedKeys, UnsafeSkipSignature, trusted_keys
from stream.bundle.trust import trust_of
from stream.bundle.watch import BundleWatch

__all__ = [
    "Bundle",
    "BundleDescription",
    "BundleWatch",
    "Calibration",
    "HarmCalibration",
    "HarmDescription",
    "ImageInput",
    "Manifest",
    "ModelInput",
    "PolicyInput",
    "RoleCalibration",
    "TextInput",
    "Trust",
    "TrustedKeys",
    "UnsafeSkipSignature",
    "describe",
    "load",
    "trust_of",
    "trusted_keys",
]
