from __future__ import annotations

from pathlib import Path

import pytest

from stream.bundle import load
from stream.commands.bundle import show, verify
from stream.errors import BundleError
from tests.bundles import TRUST

LITE = Path(__file__).parents[2] / "models" / "lite"


def test_verify_says_whose_it_is_and_that_it_scores_as_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    """A sound bundle is reported with its digest, its signer and how far its golden batch is off here."""
    verify(LITE)
    whole, golden = capsys.readouterr().out.splitlines()
    bundle = load(LITE, TRUST)
    assert bundle.digest in whole
    assert whole.endswith(f"signed by {bundle.signer}")
    assert float(golden.rsplit(" ", 1)[1]) < 0.001


def test_verify_without_rehearsal_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Where only the files matter, no process is started and nothing is said about scores."""
    verify(LITE, rehearse=False)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_verify_raises_for_the_command_line_to_report(tmp_path: Path) -> None:
    """A folder that is no bundle is an error, which the command line prints before it exits with 2."""
    with pytest.raises(BundleError, match=r"manifest\.json"):
        verify(tmp_path)


def test_show_in_a_pipe_is_one_line_per_fact(capsys: pytest.CaptureFixture[str]) -> None:
    """Away from a terminal every fact is one tab-separated line, so that other programs can read it."""
    show(LITE)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert ["digest", load(LITE, TRUST).digest] in lines
    harms = load(LITE, TRUST).manifest.harms
    assert [line[0] for line in lines[-len(harms) :]] == list(harms)


def test_show_in_a_terminal_is_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the same facts are laid out in columns, without tabs."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # how rich is told that its output is for a person
    show(LITE)
    out = capsys.readouterr().out
    assert "self_harm" in out
    assert "\t" not in out
