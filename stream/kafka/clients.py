"""Connections to Kafka: what the settings say, in the words kafka-python and aiokafka both use."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import (
    AuthorizationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
)
from kafka.net.compat import KafkaNetClient

from stream.errors import BrokerError, ConfigError
from stream.settings import Settings

__all__ = ["Secret", "broker_errors", "connection", "open_admin", "open_consumer", "open_producer", "ssl_context"]

# A command says after ten seconds that nobody answers; a worker is restarted by whatever supervises it.
BOOTSTRAP_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 3.0
RETRY_S = 0.2


class Secret(str):
    """A string that shows itself only to whoever asks for its characters: kafka-python logs its configuration."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"


def connection(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for any client of kafka-python or aiokafka: servers, TLS and SASL.

    The values have as many types as there are arguments, hence Any. Raises `ConfigError` for TLS files that cannot be
    used.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
        "security_protocol": settings.security_protocol,
        "ssl_context": ssl_context(settings),
        "request_timeout_ms": round(settings.request_timeout_s * 1000),
    }
    if settings.security_protocol.startswith("SASL") and settings.sasl_password is not None:
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        arguments["sasl_plain_username"] = settings.sasl_username
        arguments["sasl_plain_password"] = Secret(settings.sasl_password.get_secret_value())
    return arguments


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context: certificate and host name of the broker are verified; None where the protocol has no TLS."""
    if not settings.security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
        if settings.ssl_certfile is not None:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except OSError as error:  # ssl.SSLError is one
        files = [str(f) for f in (settings.ssl_cafile, settings.ssl_certfile, settings.ssl_keyfile) if f is not None]
        raise ConfigError(
            f"cannot use the TLS files {', '.join(files)}: {error}; mend ssl_cafile, ssl_certfile or ssl_keyfile"
        ) from None
    return context


def open_admin(settings: Settings) -> KafkaAdminClient:
    """An admin client, connected. Close it. Raises `BrokerError` when no broker answers."""
    with _opening(settings) as arguments:
        return KafkaAdminClient(**arguments)


def open_consumer(settings: Settings, **options: Any) -> KafkaConsumer:
    """A consumer that commits nothing by itself; `options` are kafka-python's. Raises `BrokerError`."""
    with _opening(settings) as arguments:
        return KafkaConsumer(**arguments, enable_auto_commit=False, **options)


def open_producer(settings: Settings, **options: Any) -> KafkaProducer:
    """A producer that waits for all in-sync replicas; `options` are kafka-python's. Raises `BrokerError`."""
    with _opening(settings) as arguments:
        return KafkaProducer(**arguments, acks="all", **options)


@contextmanager
def _opening(settings: Settings) -> Iterator[dict[str, Any]]:
    """Arguments for a client of kafka-python. One that cannot be made leaves a thread behind, which is ended here."""
    _await_listener(settings)
    opened: list[KafkaNetClient] = []

    def open_net_client(**configuration: Any) -> KafkaNetClient:
        opened.append(KafkaNetClient(**configuration))
        return opened[-1]

    with broker_errors(settings):
        try:
            yield {
                **connection(settings),
                "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
                "kafka_client": open_net_client,
            }
        except KafkaError:
            for client in opened:
                client.close()
            raise


def _await_listener(settings: Settings) -> None:
    """Wait until one of the servers takes a connection, for at most `BOOTSTRAP_TIMEOUT_MS`.

    kafka-python would wait as well, but could not say why nobody answers, and leaves its sockets and thread behind.
    """
    servers = [server.strip().rpartition(":") for server in settings.bootstrap_servers.split(",")]
    deadline = time.monotonic() + BOOTSTRAP_TIMEOUT_MS / 1000
    while True:
        for host, _, port in servers:
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
            except (OSError, ValueError) as error:
                reason = f"{host}:{port}: {error}"
            else:
                return
        if time.monotonic() > deadline:
            raise BrokerError(
                f"no Kafka broker answers at {settings.bootstrap_servers} ({reason}); start one with `fairway broker`, "
                "or mend bootstrap_servers"
            )
        time.sleep(RETRY_S)


@contextmanager
def broker_errors(settings: Settings, *, but: tuple[type[KafkaError], ...] = ()) -> Iterator[None]:
    """Turn kafka-python's errors, `but` those, into a `BrokerError` that says which cluster and what to look at."""
    try:
        yield
    except but:
        raise
    except (KafkaConnectionError, KafkaTimeoutError) as error:
        # Brokers hang up on whoever fails to authenticate, and kafka-python often sees no more than that.
        user = (
            f", or the password of {settings.sasl_username!r}" if settings.security_protocol.startswith("SASL") else ""
        )
        raise BrokerError(
            f"the Kafka brokers at {settings.bootstrap_servers} take connections and do not answer ({_brief(error)}); "
            f"mend security_protocol or the TLS settings{user}, or see what is wrong with them"
        ) from None
    except SaslAuthenticationFailedError:
        raise BrokerError(
            f"the Kafka brokers at {settings.bootstrap_servers} refuse the SASL user {settings.sasl_username!r}; "
            "mend sasl_mechanism, sasl_username or sasl_password"
        ) from None
    except AuthorizationError as error:
        raise BrokerError(
            f"the Kafka brokers at {settings.bootstrap_servers} do not allow this ({_brief(error)}); "
            f"grant it to the user {settings.sasl_username!r}"
        ) from None
    except KafkaError as error:
        raise BrokerError(f"the Kafka brokers at {settings.bootstrap_servers} failed: {_brief(error)}") from None


def _brief(error: KafkaError) -> str:
    """What an error is, without the request and response that kafka-python puts into its text."""
    meaning = getattr(error, "description", None) or str(error).partition("Request ")[0]
    return f"{type(error).__name__}: {meaning}"
