from __future__ import annotations

from pathlib import Path

import pytest

from stream.bundle import load
from stream.commands.bundle import show, verify
from stream.errors import BundleError

LITE = Path(__file__).parents[2] / "models" / "lite"


def test_verify_says_the_digest(capsys: pytest.CaptureFixture[str]) -> None:
    """A sound bundle is reported in one line with its digest."""
    verify(LITE)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert load(LITE).digest in lines[0]


def test_verify_raises_for_the_command_line_to_report(tmp_path: Path) -> None:
    """A folder that is no bundle is an error, which the command line prints before it exits with 2."""
    with pytest.raises(BundleError, match=r"manifest\.json"):
        verify(tmp_path)


def test_show_in_a_pipe_is_one_line_per_fact(capsys: pytest.CaptureFixture[str]) -> None:
    """Away from a terminal every fact is one tab-separated line, so that other programs can read it."""
    show(LITE)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert ["digest", load(LITE).digest] in lines
    harms = load(LITE).manifest.harms
    assert [line[0] for line in lines[-len(harms) :]] == list(harms)


def test_show_in_a_terminal_is_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the same facts are laid out in columns, without tabs."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # how rich is told that its output is for a person
    show(LITE)
    out = capsys.readouterr().out
    assert "self_harm" in out
    assert "\t" not in out
