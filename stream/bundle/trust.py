"""Whose bundles the settings say to trust."""

from __future__ import annotations

from stream.bundle.signature import TrustedKeys, trusted_keys
from stream.settings import Settings

__all__ = ["trust_of"]


def trust_of(settings: Settings) -> TrustedKeys:
    """Trust in the keys that the settings name. Raises `ConfigError` where one of them cannot be used."""
    return trusted_keys(settings.trusted_keys, unsigned_too=settings.unsigned_bundles == "allow")
