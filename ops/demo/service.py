"""Everything the demo needs, started for it and gone after it: a folder, a Kafka, topics and three workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from stream.errors import FairwayError
from stream.kafka import topics
from stream.kafka.broker import LocalBroker, free_port
from stream.kafka.node import DIE_WITH_PARENT
from stream.settings import ENV_PREFIX, Settings

__all__ = ["ROOT", "SIGNALS", "DemoError", "Service", "ignore_signals", "running"]

ROOT = Path(__file__).parents[2]

MIN_GROUP_N = 20
"""Fewer than the default of 50, as there are only 300 decisions; the intervals say how little that is."""

WORKERS = {"moderate-1": "moderate", "moderate-2": "moderate", "fairness": "fairness"}
"""Name to stage."""

READY_S = 45.0
"""Three workers are ready in 5 s on two cores; a machine busy with something else may take several times that."""
STOP_S = 6.0
"""A worker stops within a second, or in a few when Kafka is gone; killing it loses nothing here."""
PRIVATE = {"ORT_DISABLE_TELEMETRY": "1"}
"""From 1.29 on ONNX Runtime reports to its makers from Linux too, unless told not to before it is loaded."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and a terminal that is closed."""
POLL_S = 0.1
LOG_LINES = 15


class DemoError(FairwayError):
    """Something the demo needs did not come up, ended or did not answer; the text has the end of its log."""


class WorkerProcess:
    """One `fairway worker`, its log in a file."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._port = free_port(1)
        self._log = folder / f"{name}.log"
        arguments = ["-m", "stream.cli", "worker", "--stage", WORKERS[name], "--web-port", str(self._port)]
        # Should this process be killed, nobody is left to stop the worker: the kernel does it then.
        guard = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid())]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                [*guard, sys.executable, *arguments],
                cwd=ROOT,
                env=_environment(folder / "fairway.toml"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the workers in order
            )

    @property
    def is_ready(self) -> bool:
        """Whether its model is loaded and its partitions are assigned. Raises `DemoError` if it has ended."""
        self.raise_if_ended()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/ready", timeout=1) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004 - HTTP's OK
        except (urllib.error.URLError, OSError):
            return False

    def raise_if_ended(self) -> None:
        """Raise `DemoError` if it has ended by itself."""
        if self._process.poll() is not None:
            raise DemoError(f"worker {self.name} ended with status {self._process.returncode}; {self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines it wrote."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(["its last words were:", *lines]) if lines else "it wrote nothing"

    def terminate(self) -> None:
        """Ask it to stop."""
        if self._process.poll() is None:
            self._process.terminate()

    def end(self, within_s: float) -> None:
        """Wait for it to end, for so long; then kill it."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Service:
    """A running Kafka with running workers."""

    def __init__(self, settings: Settings, broker: LocalBroker, workers: Sequence[WorkerProcess]) -> None:
        self.settings = settings
        self._broker, self._workers = broker, workers

    def raise_if_ended(self) -> None:
        """Raise `BrokerError` or `DemoError`, with the end of a log, if any part has ended by itself."""
        self._broker.raise_if_ended()
        for worker in self._workers:
            worker.raise_if_ended()

    def wait_ready(self) -> None:
        """Wait until every worker has its partitions. Raises `DemoError`."""
        deadline = time.monotonic() + READY_S
        for worker in self._workers:
            while not worker.is_ready:
                if time.monotonic() > deadline:
                    raise DemoError(f"worker {worker.name} was not ready after {READY_S:g} s; {worker.log_tail()}")
                time.sleep(POLL_S)

    def log_tails(self) -> str:
        """The last lines of every worker."""
        return "\n".join(f"worker {worker.name}: {worker.log_tail()}" for worker in self._workers)


@contextmanager
def running(report: Callable[[str], None]) -> Iterator[Service]:
    """Start everything, in a folder that is removed afterwards; whatever happens, nothing is left running.

    `report` gets a line of progress now and then. Raises `BrokerError` or `DemoError` when a part does not come up.
    """
    with ExitStack() as stack:
        try:
            service = _start(stack, report)
            try:
                yield service
            except FairwayError:
                service.raise_if_ended()  # that part is the cause, and the error its consequence
                raise
        finally:
            ignore_signals()


def ignore_signals() -> None:
    """Let what asks us to end ask in vain: stopping takes a bounded time, and half of it would leave things running."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _start(stack: ExitStack, report: Callable[[str], None]) -> Service:
    """Start one part after the other; `stack` stops them."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fairway-demo-")))
    port = free_port(2)
    report("starting Apache Kafka, on this machine only")
    broker = stack.enter_context(LocalBroker(folder / "kafka", port=port, report=report))
    settings = _settings(broker.bootstrap_servers)
    _write(settings, folder / "fairway.toml")
    created = topics.create(settings)
    report(f"{len(created)} topics created")
    report("starting 2 workers that moderate and 1 that counts by group")
    workers: list[WorkerProcess] = []
    stack.callback(_stop, workers)
    for name in WORKERS:
        workers.append(WorkerProcess(name, folder))  # noqa: PERF401 - those started must be known when the next cannot be
    service = Service(settings, broker, workers)
    service.wait_ready()
    report("ready")
    return service


def _stop(workers: Sequence[WorkerProcess]) -> None:
    """Stop all of them together."""
    deadline = time.monotonic() + STOP_S
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.end(max(0.0, deadline - time.monotonic()))


def _settings(servers: str) -> Settings:
    """The settings that ship, but for what makes a short play worth watching."""
    return Settings.model_validate(
        {
            "bootstrap_servers": servers,
            "bundle": ROOT / "models/lite",
            "trusted_keys": ROOT / "models/keys",
            "policy": ROOT / "ops/policies/default.yaml",
            "drain_s": 2,
            "min_group_n": MIN_GROUP_N,
            "group_meaning": "of the author, made up",
            # One pane for all that is played, reported whenever the play pauses, and again with what came since.
            "pane_s": 86400,
            "lateness_s": 0,
            "idle_s": 1,
            "snapshot_s": 0.5,
        }
    )


def _write(settings: Settings, path: Path) -> None:
    """Write a config file for the workers, so that neither the environment nor a file of the user's plays a part."""
    changed = settings.model_dump(mode="json", exclude_defaults=True)
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in changed.items()]
    path.write_text("".join(lines), encoding="utf-8")


def _environment(config: Path) -> Mapping[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    return own | {f"{ENV_PREFIX}CONFIG": str(config), **PRIVATE}
