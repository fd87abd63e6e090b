"""What is logged: lines that a program can read and that hold no content."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest
import structlog

from stream.telemetry import FORBIDDEN_KEYS, configure_logging

MARKER = "the quick brown fox"
CLIENTS = ("faust", "mode", "aiokafka", "kafka")
SET_UP = (*CLIENTS, "mode.timers")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Logging is the process's: put it back."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {logger: logger.level for logger in (root, *map(logging.getLogger, SET_UP))}
    yield
    root.handlers[:] = handlers
    for logger, level in levels.items():
        logger.setLevel(level)
    structlog.reset_defaults()


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def fail(text: str) -> None:
    """Raise with content in a local variable and none in the message."""
    raise ValueError(f"{len(text)} characters are too many")


def test_a_log_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """An event has its name, level, logger and time in UTC, and what it was given, on one line."""
    configure_logging("json", "info")
    structlog.get_logger("here").warning("policy_refused", policy="sha256:1", error="line 1\nline 2")
    (event,) = written(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", str(event.pop("timestamp")))
    assert event == {
        "event": "policy_refused",
        "level": "warning",
        "logger": "here",
        "policy": "sha256:1",
        "error": "line 1\nline 2",
    }


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("key", sorted(FORBIDDEN_KEYS))
def test_what_must_not_be_logged_is_withheld(key: str, log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value under a key for content, people or secrets is replaced before it is written, in either format."""
    configure_logging(log_format, "debug")  # type: ignore[arg-type]
    structlog.get_logger("here").info("event", **{key: MARKER})
    structlog.get_logger("here").bind(**{key: MARKER}).info("bound")
    out = capsys.readouterr().err
    assert MARKER not in out
    assert out.count("[withheld]") == 2


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_holds_no_content(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback of a bug shows code, and not the values of variables: those are content."""
    configure_logging(log_format, "info")  # type: ignore[arg-type]
    try:
        fail(MARKER)
    except ValueError:
        structlog.get_logger("here").exception("bug")
        logging.getLogger("elsewhere").exception("bug")
    out = capsys.readouterr().err
    assert out.count("19 characters are too many") == 2
    assert MARKER not in out


def test_a_traceback_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug is logged as one event, whoever logs it, so that a program can count them."""
    configure_logging("json", "info")
    try:
        fail(MARKER)
    except ValueError:
        structlog.get_logger("here").exception("ours")
        logging.getLogger("elsewhere").exception("theirs")
    events = written(capsys)
    assert [(event["event"], event["logger"]) for event in events] == [("ours", "here"), ("theirs", "elsewhere")]
    assert all("Traceback" in str(event["exception"]) for event in events)


def test_what_libraries_log_looks_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """A record of the standard library's logging is a line of the same shape."""
    configure_logging("json", "info")
    logging.getLogger("urllib3").warning("retrying %s", "once")
    (event,) = written(capsys)
    assert (event["event"], event["level"], event["logger"]) == ("retrying once", "warning", "urllib3")


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_the_least_severe_written(level: str, shown: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Events below the level are not written, those at it and above are."""
    configure_logging("json", level)
    logger = structlog.get_logger("here")
    for each in ("debug", "info", "warning", "error"):
        getattr(logger, each)("event")
    assert len(written(capsys)) == shown


@pytest.mark.parametrize("name", CLIENTS)
def test_the_chatter_of_clients_is_left_out(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients are heard from their warnings on, also at a lower level of our own."""
    configure_logging("json", "debug")
    logging.getLogger(f"{name}.part").info("chatter")
    logging.getLogger(f"{name}.part").warning("trouble")
    assert [event["event"] for event in written(capsys)] == ["trouble"]


def test_a_commit_that_takes_its_time_is_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """Timers of the client are heard when they fail, not when a run takes longer than the time between two."""
    configure_logging("json", "debug")
    logging.getLogger("mode.timers").warning("Timer %s is overlapping", "commit")
    logging.getLogger("mode.timers").error("trouble")
    assert [event["event"] for event in written(capsys)] == ["trouble"]


def test_auto_is_json_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal `auto` writes JSON."""
    configure_logging("auto", "info")
    structlog.get_logger("here").info("event")
    assert [event["event"] for event in written(capsys)] == ["event"]
