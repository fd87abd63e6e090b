from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from stream.errors import BrokerError
from stream.kafka.broker import LocalBroker, free_port
from stream.kafka.node import ClusterLayout


def properties(nodes: int, number: int, **options: str) -> dict[str, str]:
    layout = ClusterLayout("id", nodes, 9092, {name.replace("_", "."): value for name, value in options.items()})
    lines = layout.server_properties(number, Path("/data")).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_one_node_keeps_one_copy() -> None:
    """A single node is its own quorum and asks for no more replicas than there are."""
    only = properties(1, 1)

    assert only["controller.quorum.voters"] == "1@127.0.0.1:9093"
    assert only["listeners"] == "CLIENT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert {value for name, value in only.items() if "replication.factor" in name or "isr" in name} == {"1"}


def test_three_nodes_keep_three_copies_and_need_two() -> None:
    """Each of three nodes has ports of its own, and internal topics survive the loss of one."""
    third = properties(3, 3)

    assert third["controller.quorum.voters"] == "1@127.0.0.1:9095,2@127.0.0.1:9096,3@127.0.0.1:9097"
    assert third["listeners"] == "CLIENT://127.0.0.1:9094,CONTROLLER://127.0.0.1:9097"
    assert third["offsets.topic.replication.factor"] == third["default.replication.factor"] == "3"
    assert third["min.insync.replicas"] == third["transaction.state.log.min.isr"] == "2"


def test_options_override() -> None:
    """A test's own broker settings win over ours."""
    assert properties(1, 1, broker_session_timeout_ms="9000", my_own="x")["my.own"] == "x"


def test_two_nodes_are_refused(tmp_path: Path) -> None:
    """Two nodes are less available than one, so they are not offered."""
    with pytest.raises(BrokerError, match="1 or 3 nodes, not 2"):
        LocalBroker(tmp_path, port=9092, nodes=2)


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With less than 500 MB free nothing is started, and the error says how much there is."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=123_000_000))

    with pytest.raises(BrokerError, match="only 123 MB are free"):
        LocalBroker(tmp_path / "kafka", port=free_port(2)).start()


def test_a_broker_that_is_not_running_cannot_be_signalled(tmp_path: Path) -> None:
    """Killing a node of a broker that was not started is an error that says so."""
    with pytest.raises(BrokerError, match="has 0 nodes, no node 1"):
        LocalBroker(tmp_path, port=free_port(2)).kill()


def test_free_ports_are_neighbours_and_free() -> None:
    """All of the ports from the one returned can be listened on, and lie below those of outgoing connections."""
    first = free_port(6)

    assert first + 6 <= 32_768
    for port in range(first, first + 6):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
