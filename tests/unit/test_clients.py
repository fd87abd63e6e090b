from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError, SaslAuthenticationFailedError, TopicAuthorizationFailedError

from stream.errors import BrokerError, ConfigError
from stream.kafka.clients import Secret, broker_errors, connection, ssl_context
from stream.settings import Settings

SASL = Settings(
    bootstrap_servers="a:9092, b:9093",
    security_protocol="SASL_PLAINTEXT",
    sasl_username="fairway",
    sasl_password="hunter2",  # noqa: S106 - the password whose traces are looked for
)


def test_the_settings_become_client_arguments() -> None:
    """Servers, protocol, SASL and timeout arrive under the names both clients use."""
    assert connection(SASL) == {
        "bootstrap_servers": ["a:9092", "b:9093"],
        "security_protocol": "SASL_PLAINTEXT",
        "ssl_context": None,
        "request_timeout_ms": 30_000,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "fairway",
        "sasl_plain_password": "hunter2",
    }


def test_without_sasl_no_credentials_are_passed() -> None:
    """A password that is set is not sent where the protocol has no SASL."""
    settings = SASL.model_copy(update={"security_protocol": "PLAINTEXT"})

    assert not [name for name in connection(settings) if name.startswith("sasl")]


def test_a_secret_is_the_string_and_does_not_show_it() -> None:
    """A secret equals and encodes as its characters, and its representation hides them, in containers too."""
    secret = Secret("hunter2")

    assert secret == "hunter2"  # noqa: S105 - see above
    assert secret.encode() == b"hunter2"
    assert "hunter2" not in repr(secret) + repr({"password": secret}) + repr(connection(SASL)) + repr(SASL)


def test_the_password_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """A client that logs its whole configuration at debug level does not log the password."""
    caplog.set_level(logging.DEBUG)
    arguments = connection(SASL) | {"bootstrap_servers": ["127.0.0.1:1"], "bootstrap_timeout_ms": 1}

    with pytest.raises(KafkaError):
        KafkaAdminClient(**arguments)

    assert "sasl_plain_password" in caplog.text
    assert "hunter2" not in caplog.text


def test_tls_verifies_the_broker() -> None:
    """With TLS the broker's certificate and host name are checked; without there is no context."""
    context = ssl_context(SASL.model_copy(update={"security_protocol": "SASL_SSL"}))

    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert ssl_context(SASL) is None


@pytest.mark.parametrize("setting", ["ssl_cafile", "ssl_certfile"])
@pytest.mark.parametrize("exists", [True, False])
def test_bad_tls_files_are_named(tmp_path: Path, setting: str, exists: bool) -> None:
    """A TLS file that is absent or no certificate is a configuration error that names it."""
    path = tmp_path / "broken.pem"
    if exists:
        path.write_text("not a certificate")

    with pytest.raises(ConfigError, match=r"broken\.pem"):
        ssl_context(SASL.model_copy(update={"security_protocol": "SSL", setting: path}))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KafkaTimeoutError("no answer"), "the password of 'fairway'"),
        (SaslAuthenticationFailedError("x"), "refuse the SASL user 'fairway'"),
        (TopicAuthorizationFailedError("x"), "do not allow this"),
        (KafkaError("Request 'content' failed"), "failed: KafkaError"),
    ],
)
def test_client_errors_say_what_to_do(error: KafkaError, said: str) -> None:
    """Each kind of Kafka error becomes a BrokerError naming the cluster, without the request that caused it."""
    with pytest.raises(BrokerError, match=said) as caught, broker_errors(SASL):
        raise error

    assert "a:9092" in str(caught.value)
    assert "content" not in str(caught.value)
