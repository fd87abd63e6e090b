"""Every setting of the service, read once at start from the environment and a config file, then passed as arguments.

Precedence: command-line flag, environment (`FAIRWAY_` and the name in capitals), config file (`fairway.toml`, or the
path in `FAIRWAY_CONFIG`), default. This is the only module that reads the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from stream.errors import ConfigError

__all__ = ["ENV_PREFIX", "Origin", "Settings", "load_settings"]

ENV_PREFIX = "FAIRWAY_"
CONFIG_VARIABLE = "FAIRWAY_CONFIG"
DEFAULT_CONFIG = Path("fairway.toml")


class Settings(BaseModel):
    """All settings. Units are in the names; every bound has its reason in the description."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # --- Kafka -------------------------------------------------------------------------------------------------------
    bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="Kafka brokers to start from, host:port separated by commas."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, where the protocol is SASL_*."
    )
    sasl_username: str | None = Field(None, description="SASL user name.")
    sasl_password: SecretStr | None = Field(None, description="SASL password; set it in the environment only.")
    ssl_cafile: Path | None = Field(
        None, description="CA certificates, where the protocol is *SSL; default the system's."
    )
    ssl_certfile: Path | None = Field(None, description="Client certificate for mutual TLS.")
    ssl_keyfile: Path | None = Field(None, description="Key of the client certificate.")

    # --- Topics ------------------------------------------------------------------------------------------------------
    events_topic: str = Field("content.events", description="Content events come from here.")
    decisions_topic: str = Field("content.decisions", description="One decision per event goes here.")
    review_topic: str = Field("content.review", description="What people should look at goes here.")
    dead_letter_topic: str = Field("content.dead-letter", description="Inputs that can have no decision go here.")
    reports_topic: str = Field("fairness.reports", description="Fairness reports go here.")
    fairness_state_topic: str = Field(
        "fairness.state", description="Compacted counts of the fairness stage, one partition."
    )
    control_topic: str = Field("fairway.control", description="Compacted orders to every worker, one partition.")
    retention_days: float = Field(
        7.0,
        gt=0,
        le=3650,
        description="`fairway topics create` lets Kafka keep content, decisions and reports this long.",
    )
    partitions: int = Field(
        4, ge=1, le=4096, description="Partitions that `fairway topics create` gives the content topics."
    )
    replication: int = Field(1, ge=1, le=7, description="Replication factor of created topics; 3 in production.")

    # --- Worker ------------------------------------------------------------------------------------------------------
    group: str = Field("fairway", description="Prefix of the consumer groups: GROUP-moderate and GROUP-fairness.")
    instance_id: str | None = Field(
        None, description="Static group membership: a name kept across restarts, so that a restart moves no partition."
    )
    session_timeout_s: float = Field(
        10.0,
        ge=6,
        le=300,
        description="A worker silent for this long loses its partitions; brokers allow no less than 6.",
    )
    rebalance_timeout_s: float = Field(
        30.0, ge=5, le=300, description="How long a rebalance waits for members to rejoin."
    )
    drain_s: float = Field(
        8.0,
        gt=0,
        le=120,
        description="Work in hand is finished for at most this long when stopping or losing partitions.",
    )
    commit_interval_s: float = Field(
        0.5, gt=0, le=60, description="Offsets are committed this often; it bounds the duplicates after a kill."
    )
    slice_max_records: int = Field(
        1024,
        ge=1,
        le=65536,
        description="Records scored together at most; fewer where they would take more than two seconds, or a quarter "
        "of drain_s.",
    )
    buffer_max_records: int = Field(
        32768,
        ge=1024,
        le=1_048_576,
        description="Records fetched and not yet published, per worker; fetching pauses above.",
    )
    buffer_max_bytes: int = Field(
        134_217_728,
        ge=1_048_576,
        le=17_179_869_184,
        description="Bytes fetched and not yet published, per worker; outputs are two to four times as large.",
    )
    max_partition_fetch_bytes: int = Field(
        1_048_576, ge=65536, le=104_857_600, description="Bytes fetched at once per partition; Kafka's default."
    )
    produce_batch_bytes: int = Field(
        950_000,
        ge=16384,
        le=104_857_600,
        description="Largest produce batch; below the brokers' default limit of 1,048,588.",
    )
    linger_ms: int = Field(0, ge=0, le=1000, description="Wait this long for more outputs before a produce request.")
    compression: Literal["none", "gzip", "lz4", "zstd", "snappy"] = Field("none", description="Compression of outputs.")
    request_timeout_s: float = Field(
        30.0,
        ge=6,
        le=300,
        description="A broker request unanswered for this long is retried; no less than the shortest session.",
    )
    web_host: str = Field("127.0.0.1", description="Address that /live, /ready and /metrics listen on.")
    web_port: int = Field(
        0, ge=0, le=65535, description="Port that /live, /ready and /metrics listen on; 0 switches them off."
    )
    live_s: float = Field(
        60.0, ge=1, le=3600, description="/live fails when work in hand has made no progress for this long."
    )

    # --- Decoding ----------------------------------------------------------------------------------------------------
    mapping: Path | None = Field(None, description="Mapping file for events of a foreign shape.")
    max_event_bytes: int = Field(
        1_000_000,
        ge=1024,
        le=104_857_600,
        description="Larger records are dead letters; just under Kafka's default limit.",
    )
    max_json_depth: int = Field(32, ge=4, le=128, description="Deeper JSON is a dead letter; events nest three deep.")
    max_image_pixels: int = Field(
        40_000_000,
        ge=1,
        le=1_000_000_000,
        description="Images with more pixels are dead letters: a 40 MP photo is 120 MB decoded.",
    )
    max_image_frames: int = Field(64, ge=1, le=10_000, description="Animations with more frames are dead letters.")
    max_future_s: float = Field(
        300.0, ge=0, description="Events further in the future are dead letters: clocks drift by minutes."
    )

    # --- Scoring -----------------------------------------------------------------------------------------------------
    bundle: Path = Field(
        Path("models/lite"), description="Folder of the model bundle, or `stub` for the built-in stub."
    )
    trusted_keys: Path = Field(
        Path("models/keys"), description="Folder of the public keys (*.pem) that a bundle may be signed with."
    )
    unsigned_bundles: Literal["refuse", "allow"] = Field(
        "refuse",
        description="allow: whoever can write the bundle's folder decides about content; each use is a warning in the "
        "log. A signature that is there must be good all the same.",
    )
    policy: Path = Field(Path("ops/policies/default.yaml"), description="Policy file; reloaded when it changes.")
    provider: Literal["cpu", "cuda"] = Field(
        "cpu", description="Execution provider; with cuda a worker without CUDA, or with the stub, refuses to start."
    )
    max_batch_tokens: int = Field(
        16384, ge=128, le=1_048_576, description="Token budget of one model call, padding included."
    )
    max_windows: int = Field(
        8,
        ge=1,
        le=256,
        description="Windows a long text is read in, or frames of an animation; what is left out, the decision says.",
    )
    policy_reload_s: float = Field(2.0, gt=0, le=3600, description="The policy file is looked at this often.")
    bundle_reload_s: float = Field(
        10.0, gt=0, le=3600, description="The bundle's folder is looked at this often; nothing in it is read for that."
    )
    review_event: bool = Field(True, description="Review records carry the event as received.")
    review_event_max_bytes: int = Field(
        900_000, ge=0, le=104_857_600, description="Larger events are left out of review records, which say so."
    )

    # --- Fairness ----------------------------------------------------------------------------------------------------
    pane_s: float = Field(60.0, ge=1, le=86400, description="Width of a fairness pane, by event time.")
    lateness_s: float = Field(
        300.0, ge=0, le=604_800, description="A pane stays open this long after the watermark passed it."
    )
    snapshot_s: float = Field(
        1.0, gt=0, le=60, description="Fairness counts are written to the state topic this often."
    )
    min_group_n: int = Field(50, ge=1, description="Groups with fewer decisions are reported as `not enough data`.")
    # A pane of one partition is one record: at 200 bytes a group, 2,000 are 0.4 MB of the megabyte that brokers take.
    max_groups: int = Field(500, ge=1, le=2_000, description="Groups counted by name; the rest are counted as `other`.")
    idle_s: float = Field(
        60.0, gt=0, le=86400, description="A partition whose event time stands still for so long holds no pane open."
    )
    group_meaning: str = Field(
        "as given by the producer",
        max_length=200,
        description="Whose groups they are (author, target, mention, ...); reports repeat it.",
    )

    # --- Local broker ------------------------------------------------------------------------------------------------
    broker_dir: Path = Field(Path(".fairway/kafka"), description="Data folder of `fairway broker`.")
    broker_port: int = Field(9092, ge=1024, le=65535, description="First port of `fairway broker`.")

    # --- Logs --------------------------------------------------------------------------------------------------------
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console in a terminal, json elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log event written."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.drain_s >= self.rebalance_timeout_s:
            raise ValueError(
                f"drain_s ({self.drain_s:g}) must be below rebalance_timeout_s ({self.rebalance_timeout_s:g}), "
                "or the group goes on without a worker that is still draining"
            )
        if self.session_timeout_s > self.request_timeout_s:
            raise ValueError("session_timeout_s must not be above request_timeout_s: the Kafka client refuses that")
        if self.security_protocol.startswith("SASL") and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError("security_protocol SASL_* needs sasl_username and sasl_password")
        return self


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting's value came from: `flag`, `environment NAME`, `file PATH` or `default`."""

    name: str
    source: str


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> tuple[Settings, dict[str, Origin]]:
    """Read all sources and return the settings with the origin of each.

    `flags` are command-line values, None meaning not given. Raises `ConfigError` naming each setting that is unknown or
    out of bounds, and where it was set.
    """
    environ = os.environ if environ is None else environ
    path, from_file = _read_file(environ)
    from_env = {
        key.removeprefix(ENV_PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(ENV_PREFIX) and key != CONFIG_VARIABLE
    }
    from_flags = {key: value for key, value in (flags or {}).items() if value is not None}
    values: dict[str, Any] = {**from_file, **from_env, **from_flags}
    origins = {name: Origin(name, "default") for name in Settings.model_fields}
    origins |= {name: Origin(name, f"file {path}") for name in from_file}
    origins |= {name: Origin(name, f"environment {ENV_PREFIX}{name.upper()}") for name in from_env}
    origins |= {name: Origin(name, "flag") for name in from_flags}
    try:
        return Settings.model_validate(values), origins
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from None


def _read_file(environ: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    """Read the config file; a default path that does not exist is no settings, a named one must exist."""
    named = environ.get(CONFIG_VARIABLE)
    path = Path(named) if named else DEFAULT_CONFIG
    if not named and not path.exists():
        return path, {}
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}; mend {CONFIG_VARIABLE}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the config file {path} is not TOML: {error}") from None


def _explain(error: ValidationError, origins: Mapping[str, Origin]) -> str:
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        where = f" (from {origins[name].source})" if name in origins else ""
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no setting of this name; `fairway config` lists them"
        lines.append(f"{name}{where}: {message}")
    return "\n".join(lines)
