"""The demo as a person runs it: it shows everything, ends by itself and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from ops.demo.malformed import malformed
from tests.workers import until

ROOT = Path(__file__).parents[2]
FAST = ("--rate", "100")
END_S = 60.0
READY_S = 60.0

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("_local_kafka_installed")]


class Demo:
    """One run of the demo in a pipe, with a folder of its own for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "temporary"
        self.folder.mkdir()
        self._output = folder / "output"
        # Settings of the user's own must play no part.
        hostile = {"FAIRWAY_BOOTSTRAP_SERVERS": "127.0.0.1:1", "FAIRWAY_POLICY": "nowhere.yaml"}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.demo", *FAST],
                cwd=ROOT,
                env=os.environ | hostile | {"TMPDIR": str(self.folder), "PYTHONIOENCODING": "ascii"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait_for(self, text: str) -> None:
        until(lambda: text in self.output or self.process.poll() is not None, within_s=READY_S)
        assert text in self.output

    def end(self) -> int:
        return self.process.wait(END_S)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    run = Demo(tmp_path)
    yield run
    run.process.kill()
    run.process.wait()


def test_demo_shows_everything_and_ends_by_itself(demo: Demo) -> None:
    """Decisions, questions to people, rejections and groups are shown, the audit is sound, and the exit status is 0."""
    assert demo.end() == 0, demo.output
    rejections = len(malformed_names())
    assert f"{300 + rejections} events, 300 decided, {rejections} rejected, 0 missing" in demo.output
    assert "SOUND" in demo.output
    assert "NOT SOUND" not in demo.output
    assert [name for name in malformed_names() if f"rejected {name}" not in demo.output] == []
    for action in ("allow", "review", "restrict", "block"):
        assert re.search(rf"^{action} ", demo.output, re.MULTILINE)
    assert re.search(r"nationality .*not enough data", demo.output.replace("\n", " "))
    assert re.search(r"woman +\d+ +\d+% \(\d+ to \d+\)", demo.output)
    assert list(demo.folder.iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_demo_stopped_half_way_leaves_nothing(demo: Demo, sent: signal.Signals) -> None:
    """Stopped in the middle of the play, twice even, the demo ends everything it started and removes its folder."""
    demo.wait_for("allow ")
    children = demo.children()
    assert len(children) >= 4
    demo.process.send_signal(sent)
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 130, demo.output
    assert [child for child in children if child.is_running()] == []
    assert list(demo.folder.iterdir()) == []


@pytest.mark.parametrize("part", ["kafka.Kafka", "--stage"])
def test_demo_says_which_part_ended(demo: Demo, part: str) -> None:
    """When Kafka or a worker ends by itself, the demo says so, fails, and leaves nothing behind either."""
    demo.wait_for("allow ")
    children = demo.children()
    next(child for child in children if part in " ".join(child.cmdline())).kill()
    assert demo.end() == 1, demo.output
    assert "The demo failed: " in demo.output
    assert "last words" in demo.output
    assert [child for child in children if child.is_running()] == []
    assert list(demo.folder.iterdir()) == []


def test_demo_killed_outright_leaves_no_process(demo: Demo) -> None:
    """On Linux even a demo that is killed leaves no process behind."""
    if sys.platform != "linux":
        pytest.skip("other systems do not end the children of a killed process")
    demo.wait_for("allow ")
    children = demo.children()
    demo.process.kill()
    demo.process.wait()
    until(lambda: not any(child.is_running() for child in children), within_s=10)


def malformed_names() -> list[str]:
    return [record.name for record in malformed(datetime.now(UTC))]
