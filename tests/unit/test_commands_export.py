"""`fairway export`, where the export package is there and where it is not."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.cli import _app
from stream.commands import export as command
from stream.errors import ConfigError

ROOT = Path(__file__).parents[2]

given: list[list[str]] = []


def remember(arguments: list[str]) -> int:
    """Stands where the export package's command line stands; takes the arguments and says 3."""
    given.append(arguments)
    return 3


def lacking(_arguments: list[str]) -> int:
    """A command one of whose packages is not installed."""
    raise ModuleNotFoundError(name="torch")


def broken(_arguments: list[str]) -> int:
    """A command of a service that lost a module of its own."""
    raise ModuleNotFoundError(name="stream.gone")


def install(monkeypatch: pytest.MonkeyPatch, *points: str) -> None:
    found = EntryPoints(EntryPoint("export", point, command.GROUP) for point in points)
    monkeypatch.setattr(command, "entry_points", found.select)


def test_everything_after_it_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments and options, `--help` too, reach the export package as they were, and its status is the exit status."""
    install(monkeypatch, f"{__name__}:remember")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this())
    result = CliRunner().invoke(_app(), ["export", "evaluate", "models/x", "--data", "a", "b", "--help"])
    assert result.exit_code == 3
    assert given[-1] == ["evaluate", "models/x", "--data", "a", "b", "--help"]


@pytest.mark.parametrize(("points", "missing"), [((), "the export package"), (("no_such_package:main",), "no_such_")])
def test_where_it_is_not_installed_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, points: tuple[str, ...], missing: str
) -> None:
    """Without the package, or without one that it needs, the error names what is missing and how to install it."""
    install(monkeypatch, *points)
    with pytest.raises(ConfigError, match=rf"needs {missing}.*pip install 'fairway\[export\]'"):
        CliRunner().invoke(_app(), ["export", "build"], catch_exceptions=False)


def test_a_library_that_is_missing_later_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that only some commands need is named when they need it."""
    install(monkeypatch, f"{__name__}:lacking")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this())
    with pytest.raises(ConfigError, match="needs torch, which is not installed"):
        CliRunner().invoke(_app(), ["export", "build"], catch_exceptions=False)


def test_a_bug_of_ours_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the service that is not found is a bug, and comes out as one."""
    install(monkeypatch, f"{__name__}:broken")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this())
    with pytest.raises(ModuleNotFoundError):
        CliRunner().invoke(_app(), ["export", "build"], catch_exceptions=False)


def _this() -> object:
    return type("This", (), {"remember": remember, "lacking": lacking, "broken": broken})


def test_the_package_is_named_where_it_is() -> None:
    """What the project's metadata names as the command is a function that takes arguments."""
    text = (ROOT / "pyproject.toml").read_text()
    assert f'[project.entry-points."{command.GROUP}"]\nexport = "export.__main__:main"' in text


def test_help_does_not_load_it() -> None:
    """`fairway --help` lists the command and imports nothing of the export package."""
    code = (
        "import sys; from typer.testing import CliRunner; from stream.cli import _app; "
        "out = CliRunner().invoke(_app(), ['--help']).output; "
        "assert 'export' in out; assert not [name for name in sys.modules if name.partition('.')[0] == 'export']"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
