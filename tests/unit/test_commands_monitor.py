"""`fairway monitor`: decisions of anybody in, reports and a table out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from stream.commands.monitor import monitor
from stream.commands.score import SOURCE as SCORED
from stream.errors import MappingError
from stream.fairness import FairnessReport
from tests.decisions import START, decision

MAPPING = """\
schema_version: 1
name: theirs
kind: decision
fields:
  decision_id: id
  content_id: id
  created_at: {path: at, time: epoch_ms}
  action: {path: verdict, values: {REMOVE: block}, other: allow}
  groups: {language: lang}
"""


def run(lines: list[bytes], *arguments: str) -> Result:
    """Run the command on these lines."""
    app = typer.Typer()
    app.command()(monitor)
    return CliRunner().invoke(app, arguments, input=b"\n".join(lines))


def reports_in(result: Result) -> list[FairnessReport]:
    return [msgspec.json.decode(line, type=FairnessReport) for line in result.stdout.splitlines()]


def votes(group: str, n: int, *, at: float = START) -> list[bytes]:
    return [decision(at, groups={"language": [group]}, harms={"hate": "abstain"}, decision_id="theirs")] * n


def test_each_pane_of_the_input_is_reported() -> None:
    """One report per line for each pane, axis and quantity, in the order of panes, as in Kafka."""
    result = run([*votes("de", 60), *votes("en", 60), *votes("de", 60, at=START + 600)], "--group-meaning", "author")
    assert result.exit_code == 0, result.output
    found = [(report.pane_n, report.quantity) for report in reports_in(result)]
    quantities = ["action_rate", "moderated_rate", "selection_rate", "abstention_rate"]
    assert found == [(n, quantity) for n in (120, 60) for quantity in quantities]
    assert {report.group_meaning for report in reports_in(result)} == {"author"}
    assert result.stderr == ""


def test_lines_of_no_use_are_said_and_fail() -> None:
    """What is no decision is counted on standard error by reason, and the exit status is 1."""
    result = run([b"hello", *votes("de", 3), b"{}", b"[]"], "--min-group-n", "1")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "1 lines could not be counted: decode_error",
        "2 lines could not be counted: schema_error",
    ]
    assert {report.pane_n for report in reports_in(result)} == {3}


def test_late_lines_are_said() -> None:
    """Decisions that came after their pane was closed are in no report, and the reader is told what to do."""
    lines = [*votes("de", 1, at=START + 600), *votes("de", 2)]
    result = run(lines)
    assert result.exit_code == 0
    assert "2 of 3 decisions were late" in result.stderr
    assert run(lines, "--lateness-s", "3600").stderr == ""


def test_lines_that_repeat_a_decision_are_said_and_count_once() -> None:
    """In what was read from a topic, whatever the partitions: that is no error."""
    ids = [f"content.events:{partition}:{offset}" for offset in range(30) for partition in range(4)]
    lines = [decision(groups={"language": ["de"]}, decision_id=name) for name in [*ids, *ids[40:]]]
    result = run(lines, "--min-group-n", "1")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == ["80 lines repeat a decision, by its decision_id; each is counted once"]
    assert {report.pane_n for report in reports_in(result)} == {120}


def test_decisions_that_fairway_score_made_are_all_counted() -> None:
    """It numbers the lines of every run from 0, so that the ids of two runs are the same."""
    lines = [decision(groups={"language": ["de"]}, decision_id=f"{SCORED}:0:{number}") for number in range(60)]
    result = run([*lines, *lines])
    assert result.stderr == ""
    assert {report.pane_n for report in reports_in(result)} == {120}


def test_decisions_of_a_foreign_shape_are_mapped(tmp_path: Path) -> None:
    """With a mapping file the decisions of another system are counted as ours are."""
    file = tmp_path / "theirs.yaml"
    file.write_text(MAPPING)
    line = b'{"id": "1", "at": 1767225600123, "verdict": "REMOVE", "lang": "de"}'
    result = run([line] * 3, "--mapping", str(file), "--min-group-n", "1")
    assert result.exit_code == 0, result.output
    assert {(report.axis, report.action, report.rate) for report in reports_in(result)} >= {("language", "block", 1.0)}


def test_a_mapping_of_events_is_refused(tmp_path: Path) -> None:
    """A mapping that makes events of records would make no decision of any."""
    file = tmp_path / "events.yaml"
    file.write_text(
        "schema_version: 1\nname: e\nkind: event\n"
        "fields: {id: id, created_at: {path: at, time: rfc3339}, role: {constant: output}, text: text}\n"
    )
    result = run([], "--mapping", str(file))
    assert isinstance(result.exception, MappingError)
    assert "kind: decision" in str(result.exception)


def test_a_terminal_gets_a_table_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is over all panes, so groups too small in each of them have a rate in it; chance stands beside gaps."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    result = run(
        [line for minute in range(3) for name in ("de", "en") for line in votes(name, 20, at=START + 60 * minute)]
    )
    assert {row.status for report in reports_in(result) for row in report.groups} == {"not_enough_data"}
    assert "language: abstained on" in result.stderr
    assert "100.00%" in result.stderr
    assert "by chance" in result.stderr


def test_names_from_outside_are_printed_as_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group's name can neither style the table nor send the terminal a control sequence."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    result = run(votes("[blink]de[/blink]\x1b[2J\x07", 60))
    assert "[blink]de[/blink]" in result.stderr
    assert "\x1b[2J" not in result.stderr
    assert "\x07" not in result.stderr
