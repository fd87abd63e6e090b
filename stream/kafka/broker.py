"""A real Apache Kafka on this machine, from registry packages alone: for the demo, the tests and the chaos suite.

Each node is a broker and a controller in one (KRaft), listens on 127.0.0.1 only and keeps its data in a folder, so a
second start continues the same cluster. Production points at the user's own cluster instead.
"""

from __future__ import annotations

import atexit
import base64
import fcntl
import io
import json
import random
import shutil
import signal
import socket
import struct
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from stream.errors import BrokerError
from stream.kafka.jars import fetch_jars
from stream.kafka.node import HOST, ClusterLayout, Node

__all__ = ["LocalBroker", "free_port"]

# Kafka preallocates index files and needs room for segments; with less than this it starts and then fails.
MIN_FREE_BYTES = 500_000_000
# One node is ready in 3 s on two cores, three in 6 s; a laptop busy with something else may take ten times that.
READY_TIMEOUT_S = 60.0
# A node under load flushes and hands over leadership in 1-2 s.
STOP_TIMEOUT_S = 15.0
POLL_S = 0.05
PROBE_TIMEOUT_S = 1.0

# A Metadata request, version 1, about no topics: api key, version, correlation id, no client id, an empty array.
METADATA_REQUEST = struct.pack(">ihhihi", 14, 3, 1, 0, -1, 0)


class LocalBroker:
    """One local cluster of `nodes` nodes (1 or 3), numbered from 1; a context manager.

    Clients connect on `port`, `port + 1`, ... and the controllers use the next `nodes` ports above those. Topics get as
    many replicas as there are nodes; with three, a write needs two of them. `options` override broker settings,
    `report` gets a line of progress now and then.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        nodes: int = 1,
        options: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        if nodes not in {1, 3}:
            raise BrokerError(f"the local broker runs 1 or 3 nodes, not {nodes}: 2 would stop when either does")
        self.directory = directory.absolute()
        self.port = port
        self.nodes = nodes
        self._options = dict(options or {})
        self._report = report
        self._running: list[Node] = []
        self._lock: IO[str] | None = None
        # Nodes die with the thread that started them (see node.py), so one thread that lives as long as they may.
        self._spawner: ThreadPoolExecutor | None = None

    @property
    def bootstrap_servers(self) -> str:
        """All nodes as `host:port`, separated by commas."""
        return ",".join(f"{HOST}:{self.port + number}" for number in range(self.nodes))

    def start(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start every node and return when clients can use the cluster.

        Raises `BrokerError` when a port is taken, the folder or disk will not do, Kafka's jars are neither here nor to
        be had, or a node does not come up; nothing is left running then.
        """
        if self._running:
            raise BrokerError(f"the local broker in {self.directory} is already running")
        try:
            self._prepare_folder()
            self._check_ports()
            classpath = fetch_jars(self._report)
            layout = ClusterLayout(self._identify(), self.nodes, self.port, self._options)
            self._running = [
                Node(number, self.directory / f"node-{number}", layout, classpath=classpath)
                for number in range(1, self.nodes + 1)
            ]
            self._launch(timeout_s)
        except BaseException:  # whatever it was, Ctrl-C too, no process stays behind
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every node in an orderly way; those that do not within `STOP_TIMEOUT_S` are killed. Data stays."""
        for node in self._running:
            node.terminate()
        for node in self._running:
            node.wait(STOP_TIMEOUT_S)
        self._running = []
        if self._spawner is not None:
            self._spawner.shutdown()
            self._spawner = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        atexit.unregister(self.stop)

    def kill(self, node: int = 1) -> None:
        """End a node at once, as a crash would (SIGKILL)."""
        self._node(node).send(signal.SIGKILL)
        self._node(node).wait(STOP_TIMEOUT_S)

    def suspend(self, node: int = 1) -> None:
        """Freeze a node: its connections stay open and nothing answers (SIGSTOP)."""
        self._node(node).send(signal.SIGSTOP)

    def resume(self, node: int = 1) -> None:
        """Let a suspended node go on."""
        self._node(node).send(signal.SIGCONT)

    def restart(self, node: int = 1, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Stop a node in an orderly way unless it is dead already, start it again and wait until it serves."""
        target = self._node(node)
        target.terminate()
        target.wait(STOP_TIMEOUT_S)
        self._spawn(target)
        self._wait_until_ready([target], timeout_s)

    def pid(self, node: int = 1) -> int:
        """Process id of a running node."""
        return self._node(node).pid

    def log_tail(self, node: int = 1) -> str:
        """The last lines a node logged."""
        return self._node(node).log_tail()

    def raise_if_ended(self) -> None:
        """Raise `BrokerError`, with the end of its log, if a node has ended by itself."""
        _raise_if_ended(self._running)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _node(self, number: int) -> Node:
        if not 1 <= number <= len(self._running):
            raise BrokerError(f"the local broker in {self.directory} has {len(self._running)} nodes, no node {number}")
        return self._running[number - 1]

    def _prepare_folder(self) -> None:
        """Make the folder, check the room in it and lock it: two clusters in one folder would ruin each other."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self.directory / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BrokerError(
                f"another local broker runs in {self.directory}; stop it or choose another --dir"
            ) from None
        except OSError as error:
            raise BrokerError(
                f"cannot keep the local broker's data in {self.directory}: {error.strerror}; "
                "choose a writable folder with --dir (FAIRWAY_BROKER_DIR)"
            ) from None
        free = shutil.disk_usage(self.directory).free
        if free < MIN_FREE_BYTES:
            raise BrokerError(
                f"only {free // 1_000_000} MB are free where {self.directory} is; the local broker needs "
                f"{MIN_FREE_BYTES // 1_000_000} MB: make room or choose another --dir (FAIRWAY_BROKER_DIR)"
            )

    def _check_ports(self) -> None:
        for port in range(self.port, self.port + 2 * self.nodes):
            if not _is_free(port):
                raise BrokerError(
                    f"port {port} on {HOST} is in use; the local broker needs ports {self.port} to "
                    f"{self.port + 2 * self.nodes - 1}: stop what listens there or choose another --port "
                    "(FAIRWAY_BROKER_PORT)"
                )

    def _identify(self) -> str:
        """The cluster id of this folder, chosen at the first start; the number of nodes cannot change after it."""
        path = self.directory / "cluster.json"
        if not path.exists():
            path.write_text(json.dumps({"cluster_id": _new_cluster_id(), "nodes": self.nodes}), encoding="utf-8")
        identity = json.loads(path.read_text(encoding="utf-8"))
        if identity["nodes"] != self.nodes:
            raise BrokerError(
                f"{self.directory} holds a cluster of {identity['nodes']} nodes; start it with "
                f"--nodes {identity['nodes']}, or choose another --dir"
            )
        return str(identity["cluster_id"])

    def _launch(self, timeout_s: float) -> None:
        with ThreadPoolExecutor(self.nodes) as pool:
            list(pool.map(Node.write, self._running))
        # For systems without PR_SET_PDEATHSIG; where there is one, the nodes die with the spawner's thread before this.
        atexit.register(self.stop)
        for node in self._running:
            self._spawn(node)
        self._wait_until_ready(self._running, timeout_s)
        self._report(f"Kafka is ready on {self.bootstrap_servers}, data in {self.directory}")

    def _spawn(self, node: Node) -> None:
        if self._spawner is None:
            self._spawner = ThreadPoolExecutor(1, thread_name_prefix="local-broker")
        self._spawner.submit(node.start).result()

    def _wait_until_ready(self, nodes: Sequence[Node], timeout_s: float) -> None:
        """Wait until the first of `nodes` answers clients and says that all of them are in service."""
        deadline = time.monotonic() + timeout_s
        expected = {node.number for node in nodes}
        while not expected <= _in_service(nodes[0].port):
            _raise_if_ended(nodes)
            if time.monotonic() > deadline:
                tails = "\n".join(f"node {node.number}: {node.log_tail()}" for node in nodes)
                raise BrokerError(f"the local broker was not ready after {timeout_s:g} s; its last words:\n{tails}")
            time.sleep(POLL_S)


def free_port(count: int) -> int:
    """Return the first of `count` neighbouring ports that are free now.

    They lie below the range that the system hands to outgoing connections (from 32768), so none of those takes one
    between this call and its use.
    """
    for _ in range(1000):
        first = random.randrange(15_000, 32_000)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise BrokerError(f"no {count} neighbouring free ports on {HOST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: a closed connection is no listener
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _in_service(port: int) -> set[int]:
    """The nodes that the one on `port` knows to be in service; none as long as it does not answer.

    Asked on a plain socket: a client of kafka-python that cannot connect leaves its sockets and thread behind.
    """
    try:
        with socket.create_connection((HOST, port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(METADATA_REQUEST)
            stream = connection.makefile("rb")
            (size,) = struct.unpack(">i", stream.read(4))
            return _brokers(io.BytesIO(stream.read(size)))
    except (OSError, struct.error):  # refused, silent for too long, or closed half-way
        return set()


def _brokers(answer: IO[bytes]) -> set[int]:
    """The node ids in a Metadata response, version 1: correlation id, then id, host, port and rack of each broker."""
    _, count = struct.unpack(">ii", answer.read(8))
    nodes = set()
    for _ in range(count):
        node, host_length = struct.unpack(">ih", answer.read(6))
        _, _, rack_length = struct.unpack(f">{host_length}sih", answer.read(host_length + 6))
        answer.read(max(0, rack_length))
        nodes.add(node)
    return nodes


def _raise_if_ended(nodes: Sequence[Node]) -> None:
    for node in nodes:
        if not node.is_running:
            raise BrokerError(f"node {node.number} of the local broker ended; its last words:\n{node.log_tail()}")


def _new_cluster_id() -> str:
    """A cluster id in Kafka's form: 16 random bytes in URL-safe base64 without padding."""
    text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return "K" + text[1:]  # Kafka's own command line would read a leading dash as an option
