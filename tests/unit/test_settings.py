"""Settings: where each value comes from, what is refused, and that secrets stay secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stream.errors import ConfigError
from stream.settings import Settings, load_settings
from tests.workers import environment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in: no fairway.toml of somebody's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_the_defaults_hold(here: Path) -> None:
    """An empty environment and no file give the defaults, and say so."""
    settings, origins = load_settings(environ={})
    assert settings == Settings.model_validate({})
    assert not list(here.iterdir())
    assert {origin.source for origin in origins.values()} == {"default"}
    assert set(origins) == set(Settings.model_fields)


@pytest.mark.parametrize(
    ("flag", "variable", "file", "value", "source"),
    [
        (1, "2", 3, 1, "flag"),
        (None, "2", 3, 2, "environment FAIRWAY_WEB_PORT"),
        (None, None, 3, 3, "file fairway.toml"),
        (None, None, None, 0, "default"),
        (0, "2", 3, 0, "flag"),
    ],
)
def test_flags_outrank_the_environment_and_that_the_file(
    here: Path, flag: int | None, variable: str | None, file: int | None, value: int, source: str
) -> None:
    """Flag, environment, file, default: the first that says something holds, and its origin is known."""
    (here / "fairway.toml").write_text("" if file is None else f"web_port = {file}\n")
    environ = {} if variable is None else {"FAIRWAY_WEB_PORT": variable}
    settings, origins = load_settings({"web_port": flag}, environ=environ)
    assert (settings.web_port, origins["web_port"].source) == (value, source)


@pytest.mark.usefixtures("here")
def test_a_config_file_may_be_elsewhere(tmp_path: Path) -> None:
    """FAIRWAY_CONFIG names the file, which must then be there."""
    other = tmp_path / "other.toml"
    other.write_text('group = "mine"\n')
    settings, origins = load_settings(environ={"FAIRWAY_CONFIG": str(other)})
    assert (settings.group, origins["group"].source) == ("mine", f"file {other}")
    with pytest.raises(ConfigError, match=r"absent\.toml.*FAIRWAY_CONFIG"):
        load_settings(environ={"FAIRWAY_CONFIG": str(tmp_path / "absent.toml")})


def test_a_file_that_is_no_toml_is_named(here: Path) -> None:
    """A config file that cannot be read is an error that names it and the place."""
    (here / "fairway.toml").write_text("web_port = \n")
    with pytest.raises(ConfigError, match=r"fairway\.toml is not TOML.*line 1"):
        load_settings(environ={})


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FAIRWAY_WEB_PROT": "1"}, "web_prot (from environment FAIRWAY_WEB_PROT): there is no setting of this name"),
        ({"FAIRWAY_WEB_PORT": "65536"}, "web_port (from environment FAIRWAY_WEB_PORT): Input should be less than"),
        ({"FAIRWAY_PROVIDER": "tpu"}, "provider (from environment FAIRWAY_PROVIDER): Input should be 'cpu' or 'cuda'"),
        ({"FAIRWAY_DRAIN_S": "30"}, "drain_s (30) must be below rebalance_timeout_s (30)"),
        ({"FAIRWAY_SESSION_TIMEOUT_S": "31"}, "session_timeout_s must not be above request_timeout_s"),
        ({"FAIRWAY_SECURITY_PROTOCOL": "SASL_SSL"}, "SASL_* needs sasl_username and sasl_password"),
    ],
)
def test_what_cannot_be_is_refused(environ: dict[str, str], message: str) -> None:
    """A setting that is unknown, out of bounds or at odds with another is refused, with where it was set."""
    with pytest.raises(ConfigError) as refusal:
        load_settings(environ=environ)
    assert message in str(refusal.value)


@pytest.mark.usefixtures("here")
def test_every_problem_is_said_at_once() -> None:
    """Three mistakes are three lines."""
    environ = {"FAIRWAY_WEB_PORT": "x", "FAIRWAY_PANE_S": "0", "FAIRWAY_NONSENSE": "1"}
    with pytest.raises(ConfigError) as refusal:
        load_settings(environ=environ)
    assert {line.split(" ")[0] for line in str(refusal.value).splitlines()} == {"web_port", "pane_s", "nonsense"}


@pytest.mark.usefixtures("here")
def test_variables_of_others_are_ignored() -> None:
    """Only names that begin with FAIRWAY_ are ours."""
    assert load_settings(environ={"WEB_PORT": "1", "PATH": "/bin", "XFAIRWAY_GROUP": "no"})[0].web_port == 0


@pytest.mark.parametrize("name", Settings.model_fields)
def test_bounds_hold_on_both_sides(name: str) -> None:
    """A number below its least or above its largest value is refused, and both ends are allowed."""
    for bound in Settings.model_fields[name].metadata:
        for edge, outside in ((getattr(bound, "ge", None), -1), (getattr(bound, "le", None), 1)):
            if edge is not None:
                assert getattr(_with(name, edge), name) == edge
                with pytest.raises(ValidationError):
                    _with(name, edge + outside)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("written", ["s3cret-w0rd", "[1,", '{"s3cret-w0rd":'])
def test_a_password_is_not_shown(written: str) -> None:
    """Neither settings as text nor an error about them contain the password."""
    settings, _ = load_settings(environ={"FAIRWAY_SASL_PASSWORD": written})
    assert settings.sasl_password is not None
    assert settings.sasl_password.get_secret_value() == written
    assert not any(written in text for text in (repr(settings), str(settings), settings.model_dump_json()))
    with pytest.raises(ConfigError) as refusal:
        load_settings({"sasl_password": [written], "web_port": -1}, environ={})
    assert written not in str(refusal.value)


def test_config_lists_every_setting_and_no_secret() -> None:
    """`fairway config` shows each setting with its value and origin, and that a password is set but not which."""
    values = {"sasl_username": "u", "sasl_password": "s3cret-w0rd", "group": "told"}
    names = {f"FAIRWAY_{name.upper()}": value for name, value in values.items()}
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", "config", "--json"],
        env=environment(Settings.model_validate({})) | names,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(f'"name": "{name}"' in done.stdout for name in Settings.model_fields)
    assert "environment FAIRWAY_GROUP" in done.stdout
    assert "s3cret-w0rd" not in done.stdout + done.stderr


def test_settings_do_not_change() -> None:
    """Settings are read once: nobody can assign one later."""
    with pytest.raises(ValidationError):
        Settings.model_validate({}).web_port = 1  # type: ignore[misc]


def test_the_environment_round_trips(here: Path) -> None:
    """Settings written as an environment are read back as they were."""
    made = Settings.model_validate({"bundle": here, "review_event": False, "drain_s": 4.5, "instance_id": "a b"})
    assert load_settings(environ=environment(made))[0] == made
    assert not any(name.startswith("FAIRWAY_") for name in os.environ)


def _with(name: str, value: Any) -> Settings:
    """Settings with one changed, and with those that bound it out of the way."""
    room = {"rebalance_timeout_s": 300, "request_timeout_s": 300, "drain_s": 0.5, "session_timeout_s": 6}
    return Settings.model_validate({key: each for key, each in room.items() if key != name} | {name: value})
