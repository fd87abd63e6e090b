"""Worker processes for the tests that need real ones: started with a test's settings, stopped, killed, restarted."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stream.kafka.broker import free_port
from stream.settings import ENV_PREFIX, Settings

__all__ = ["WorkerProcess", "environment", "until"]

READY_S = 60.0
"""A worker is ready in 3 s here; a busy machine may take far longer."""


class WorkerProcess:
    """One `fairway worker` with the given settings, or another program that takes them from the environment."""

    def __init__(
        self,
        settings: Settings,
        log: Path,
        *,
        arguments: Sequence[str] = ("-m", "stream.cli", "worker"),
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port(1)
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(settings.model_copy(update={"web_port": self.port})) | dict(extra or {}),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.log_path = log

    def page(self, path: str) -> tuple[int, str]:
        """Status and body of a page; status 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """The value of a metric without labels; NaN where nobody answers."""
        lines = self.page("/metrics")[1].splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), math.nan)

    def wait_ready(self) -> WorkerProcess:
        """Wait until /ready says so."""
        until(lambda: self.process.poll() is not None or self.page("/ready")[0] == 200, within_s=READY_S)
        assert self.process.poll() is None, f"the worker ended: {self.tail()}"
        return self

    def log(self) -> str:
        """What it has logged so far."""
        return self.log_path.read_text(errors="replace")

    def tail(self) -> str:
        """The end of its log."""
        return self.log()[-3000:]

    def stop(self, *, within_s: float = 30.0) -> int:
        """SIGTERM; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def kill(self) -> None:
        """SIGKILL, at whatever instruction it is."""
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        """Leave nothing running."""
        if self.process.poll() is None:
            self.kill()
        self._log.close()


def environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a process these settings."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
    return own | {
        f"{ENV_PREFIX}{name.upper()}": _plain(value)
        for name, value in settings.model_dump(exclude_defaults=True).items()
        if value is not None
    }


def _plain(value: Any) -> str:  # a setting's value may be of any type
    return json.dumps(value) if isinstance(value, bool | list) else str(value)


def until(condition: Callable[[], bool], *, within_s: float, every_s: float = 0.05) -> None:
    """Wait for a condition of another process; fail after `within_s`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {condition}"
        time.sleep(every_s)
