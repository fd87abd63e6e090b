from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient

from stream.errors import BrokerError
from stream.kafka import topics
from stream.kafka.broker import LocalBroker, free_port
from stream.kafka.clients import open_admin, open_consumer, open_producer
from stream.kafka.reading import snapshot
from stream.settings import Settings

pytestmark = pytest.mark.kafka

StartBroker = Callable[..., LocalBroker]
SettingsFor = Callable[..., Settings]


def end_of(settings: Settings, topic: str) -> int:
    admin = open_admin(settings)
    try:
        return sum(bounds.end for bounds in snapshot(admin, settings, topic).values())
    finally:
        admin.close()


def cluster_id(broker: LocalBroker) -> str:
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
        return str(admin.describe_cluster()["cluster_id"])


def test_a_restarted_broker_is_the_same_cluster_with_its_data(
    start_broker: StartBroker, settings_for: SettingsFor, tmp_path: Path
) -> None:
    """Stopping and starting a broker in its folder keeps the cluster id, the topics and the records."""
    broker = start_broker(directory=tmp_path / "kafka")
    settings = settings_for(broker, partitions=1)
    topics.create(settings)
    producer = open_producer(settings)
    producer.send(settings.events_topic, b"kept").get(30)
    producer.close()
    identity = cluster_id(broker)
    broker.stop()

    again = start_broker(directory=tmp_path / "kafka")

    moved = settings.model_copy(update={"bootstrap_servers": again.bootstrap_servers})
    assert cluster_id(again) == identity
    assert end_of(moved, settings.events_topic) == 1


def test_acknowledged_records_survive_a_killed_node(start_broker: StartBroker, settings_for: SettingsFor) -> None:
    """A node that is killed and restarted has every record it acknowledged."""
    broker = start_broker()
    settings = settings_for(broker, partitions=1)
    topics.create(settings)
    producer = open_producer(settings)
    for number in range(50):
        producer.send(settings.events_topic, b"%d" % number).get(30)
    producer.close()

    broker.kill()
    broker.restart()

    assert end_of(settings, settings.events_topic) == 50


def test_a_suspended_node_answers_again_when_resumed(start_broker: StartBroker, settings_for: SettingsFor) -> None:
    """A suspended node keeps its process and answers nothing; resumed, it goes on."""
    broker = start_broker()
    settings = settings_for(broker)

    broker.suspend()
    stopped = os.waitid(os.P_PID, broker.pid(), os.WSTOPPED | os.WNOWAIT)
    assert stopped is not None
    assert stopped.si_status == signal.SIGSTOP
    broker.resume()

    assert cluster_id(broker)
    topics.create(settings)


def test_three_nodes_survive_the_loss_of_one(start_broker: StartBroker, settings_for: SettingsFor) -> None:
    """With three nodes, topics have three replicas and writing goes on when one node is killed."""
    broker = start_broker(nodes=3)
    settings = settings_for(broker, partitions=3, replication=3)
    topics.create(settings)
    assert topics.verify_layout(settings) == ()
    producer = open_producer(settings)
    producer.send(settings.events_topic, b"before", partition=0).get(30)

    broker.kill(2)

    for partition in range(3):
        producer.send(settings.events_topic, b"after", partition=partition).get(60)
    producer.close()
    broker.restart(2)
    assert end_of(settings, settings.events_topic) == 4


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """A broker whose port is taken does not start, names the port and leaves nothing behind."""
    port = free_port(2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port + 1))
        listener.listen()
        with pytest.raises(BrokerError, match=f"port {port + 1} .* in use"):
            LocalBroker(tmp_path / "kafka", port=port).start()


def test_a_folder_has_one_broker(start_broker: StartBroker, tmp_path: Path) -> None:
    """A second broker in a folder where one runs is refused, whatever its port."""
    start_broker(directory=tmp_path / "kafka")

    with pytest.raises(BrokerError, match="another local broker"):
        start_broker(directory=tmp_path / "kafka")


def test_the_number_of_nodes_cannot_change(start_broker: StartBroker, tmp_path: Path) -> None:
    """A folder that holds a cluster of one node is not started with three."""
    start_broker(directory=tmp_path / "kafka").stop()

    with pytest.raises(BrokerError, match="--nodes 1"):
        start_broker(directory=tmp_path / "kafka", nodes=3)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder that cannot be made is an error that names it."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(BrokerError, match=re.escape(str(tmp_path / "file" / "kafka"))):
        LocalBroker(tmp_path / "file" / "kafka", port=free_port(2)).start()


def test_a_node_that_does_not_come_up_shows_its_log(start_broker: StartBroker) -> None:
    """A node that ends while starting is an error with the last words it logged."""
    with pytest.raises(BrokerError, match=r"num\.io\.threads"):
        start_broker(options={"num.io.threads": "none"})


def test_a_dead_node_is_noticed(start_broker: StartBroker) -> None:
    """A node that ended by itself is reported by number."""
    broker = start_broker()
    broker.raise_if_ended()

    broker.kill()

    with pytest.raises(BrokerError, match="node 1 of the local broker ended"):
        broker.raise_if_ended()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to its parent")
def test_no_node_outlives_its_parent(tmp_path: Path) -> None:
    """When the process that started a broker is killed, its nodes end too."""
    port = free_port(2)
    process = run_broker_command(tmp_path / "kafka", port)
    try:
        await_line(process, "export FAIRWAY_BOOTSTRAP_SERVERS")
        nodes = psutil.Process(process.pid).children(recursive=True)
        assert nodes
    finally:
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(nodes, timeout=10)
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_when_told(tmp_path: Path, number: signal.Signals) -> None:
    """`fairway broker` says where it listens, and stops in order at Ctrl-C and SIGTERM."""
    port = free_port(2)
    with run_broker_command(tmp_path / "kafka", port) as process:
        assert f"127.0.0.1:{port}" in await_line(process, "export FAIRWAY_BOOTSTRAP_SERVERS")
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "Kafka stopped" in output
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_second_start_needs_no_network(broker: LocalBroker, tmp_path: Path) -> None:
    """Once the jars are there, a start looks up no name and connects to nothing but this machine."""
    assert broker.port  # the shared broker has fetched the jars
    program = f"""
import json, sys
from pathlib import Path
contacted = []
def hook(event, arguments):
    if event == "socket.connect" and arguments[1][0] != "127.0.0.1" or event == "socket.getaddrinfo" \\
            and arguments[0] not in ("127.0.0.1", "localhost"):
        contacted.append(repr(arguments))
sys.addaudithook(hook)
from stream.kafka.broker import LocalBroker
with LocalBroker(Path({str(tmp_path / "kafka")!r}), port={free_port(2)}):
    pass
print(json.dumps(contacted))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_only_this_machine_can_connect(broker: LocalBroker) -> None:
    """Every port of a node listens on 127.0.0.1 alone."""
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.Process(broker.pid()).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_topics_are_not_made_by_mistake(broker: LocalBroker, kafka_settings: Settings) -> None:
    """Asking for a topic that does not exist does not create it."""
    consumer = open_consumer(kafka_settings)
    assert not consumer.partitions_for_topic("misspelt")
    consumer.close()
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
        assert "misspelt" not in admin.list_topics()


def run_broker_command(directory: Path, port: int) -> subprocess.Popen[str]:
    command = "import typer; from stream.commands.broker import broker; typer.run(broker)"
    return subprocess.Popen(
        [sys.executable, "-c", command, "--dir", str(directory), "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def await_line(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(f"the command ended without {start!r}")
