"""A calibration may be as old as the policy says, and no older."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stream.errors import BundleError, PolicyError
from stream.policy import CompiledPolicy, compile_policy, refuse_old_calibration
from tests.policies import HARMS, HEAD, RULES, measured

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def policy(line: str = "calibration: {max_age_days: 90}") -> CompiledPolicy:
    """A policy with this line in it."""
    return compile_policy(f"{HEAD}{RULES}{line}\n".encode(), dict.fromkeys(HARMS, measured()))


def check(age: timedelta | None, line: str = "calibration: {max_age_days: 90}") -> None:
    """Hold a calibration of this age against the policy."""
    refuse_old_calibration(policy(line), None if age is None else NOW - age, now=NOW, bundle="models/lite")


@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=89), timedelta(days=90), timedelta(hours=-23), None])
def test_young_enough(age: timedelta | None) -> None:
    """Up to the stated age to the second, a few hours ahead, or without a date at all, a calibration is used."""
    check(age)


def test_too_old() -> None:
    """One second more is refused, with how old it is, what is allowed, by which policy, and what to do."""
    with pytest.raises(
        BundleError,
        match=r"models/lite was calibrated 90 days ago, on 2026-03-02; policy .* allows 90 "
        r"\(calibration\.max_age_days\): calibrate the bundle again",
    ):
        check(timedelta(days=90, seconds=1))


def test_dated_ahead() -> None:
    """A calibration dated days ahead would never be too old, and is refused as long as the age matters."""
    with pytest.raises(BundleError, match="which is 3 days ahead"):
        check(timedelta(days=-3))
    check(timedelta(days=-3), line="")


def test_a_policy_without_the_field_allows_any_age() -> None:
    """Where the policy says nothing, a calibration of any age is used."""
    assert policy("").max_calibration_age_days is None
    check(timedelta(days=10_000), line="")


@pytest.mark.parametrize("days", ["0", "-1", "1e9", "soon", "'90'"])
def test_absurd_ages(days: str) -> None:
    """An age that no calibration could have is a problem of the policy, with its line."""
    with pytest.raises(PolicyError, match=r"policy:\d+: calibration\.max_age_days"):
        policy(f"calibration: {{max_age_days: {days}}}")


def test_never_calibrated_is_never_young() -> None:
    """A calibration with nothing behind it is refused by a policy that asks for an age, however new its file is."""
    with pytest.raises(BundleError, match=r"models/lite was never calibrated.*allows 90 days.*labelled texts"):
        refuse_old_calibration(policy(), NOW, now=NOW, bundle="models/lite", is_fitted=False)
    refuse_old_calibration(policy(""), NOW, now=NOW, bundle="models/lite", is_fitted=False)
