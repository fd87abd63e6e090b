"""Every error this service raises on purpose.

    FairwayError
    ├── ConfigError          a setting, policy, mapping or recipe that cannot be used: fix it and start again
    │   ├── PolicyError      ... with the file, line and field
    │   ├── MappingError     ... with the file, line and field
    │   └── RecipeError      ... with the file, line and field
    ├── BundleError          a model bundle that does not verify or cannot be served: the running one stays
    ├── ScoringError         the model runtime failed in a way that is not one event's fault
    │   └── ProviderError    the execution provider asked for is not the one that runs
    ├── StateError           a fairness state record that cannot be continued from
    └── BrokerError          the Kafka cluster is absent, refuses us, or is not set up as it must be

Bad data is never an error here: it is a `stream.events.Rejected`. An error's text says what, which and what to do, and
never contains content or group attributes.
"""

from __future__ import annotations

__all__ = [
    "BrokerError",
    "BundleError",
    "ConfigError",
    "FairwayError",
    "MappingError",
    "PolicyError",
    "ProviderError",
    "RecipeError",
    "ScoringError",
    "StateError",
]


class FairwayError(Exception):
    """Base of all errors below; the command line prints its text and exits 2."""


class ConfigError(FairwayError):
    """A setting, policy, mapping or recipe that cannot be used."""


class PolicyError(ConfigError):
    """A policy that cannot be used; the text names file, line and field."""


class MappingError(ConfigError):
    """A mapping file that cannot be used; the text names file, line and field."""


class RecipeError(ConfigError):
    """A recipe for a model that cannot be used; the text names file, line and field."""


class BundleError(FairwayError):
    """A bundle that does not verify or cannot be served."""


class ScoringError(FairwayError):
    """The model runtime failed in a way that is not one event's fault."""


class ProviderError(ScoringError):
    """The execution provider asked for is not the one that runs."""


class StateError(FairwayError):
    """A fairness state record that cannot be continued from."""


class BrokerError(FairwayError):
    """The Kafka cluster is absent, refuses us, or is not set up as it must be."""
